"""Learned decompositions of three matrix games (lecture, "Value Decomposition in Matrix Games")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.analysis.igm import learned_decomposition
from coterie.games.decomposition import additive_fit, is_monotone
from coterie.lecture.base import decomposed
from coterie.lecture.base.decomposed import ADDITIVE_MSE, MONOTONE_MSE
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.numbers import listed, number, written
from coterie.show.report.blocks import Grid, Matrix, Table, Text

PUBLISHED = {
    "vdn linear": ((1, 5), (5, 9)),
    "qmix linear": ((1, 5), (5, 9)),
    "vdn monotonic": ((-2.43, 2.51), (2.60, 7.53)),
    "qmix monotonic": ((0, 0), (0, 10)),
    "vdn climbing": ((-8.84, -8.43, -1.00), (-10.66, -10.25, -2.82), (0.75, 1.16, 8.59)),
}
"""Q_tot as the lecture prints it; QMIX on climbing differs from training to training."""
CLOSE_TO_FIT, EXACT = 0.15, 0.1


class Decomposition(Experiment):
    """True rewards, utilities, Q_tot and residuals of VDN and QMIX."""

    number = 5
    minutes = (9, 2.8)
    title = "Value decomposition in matrix games"
    source = "Lecture, “Value Decomposition in Matrix Games”"
    about = (
        "What VDN and QMIX learn of three common-reward games under uniformly random "
        "behaviour. A sum of utilities can represent the linear game only, and becomes the "
        "best additive fit of the others; a monotone mixing can represent the monotonic game "
        "too; neither can represent climbing."
    )

    def recipes(self) -> dict[str, Recipe]:
        return decomposed.recipes()

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        return {
            key: [learned_decomposition(run, k).to_dict() for k in range(run.config["seeds"])]
            for key, run in trained.items()
        }

    def checks(self, numbers: Numbers) -> list[Check]:
        found = []
        for game in decomposed.GAMES:
            truth = np.array(numbers[f"vdn {game}"][0]["rewards"])
            fit = additive_fit(truth).q_tot
            claim = f"VDN on {game}: within {CLOSE_TO_FIT} of the best additive fit, every seed"
            found.append(_close(claim, numbers[f"vdn {game}"], fit, CLOSE_TO_FIT, f"vdn {game}"))
            if game != "climbing":
                claim = f"QMIX on {game}: within {EXACT} of the true rewards, every seed"
                found.append(_close(claim, numbers[f"qmix {game}"], truth, EXACT, f"qmix {game}"))
        return [*found, *_climbing(numbers["qmix climbing"])]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        games = [
            _pictures(game, trained[f"vdn {game}"].game.env, numbers) for game in decomposed.GAMES
        ]
        return [*games, _table(numbers)]


def _pictures(game: str, env: Any, numbers: Numbers) -> Grid:
    """The true rewards beside both decompositions, with utilities on the margins; residuals below.

    Of the first seed.
    """
    rows, columns = env.action_labels
    firsts = {name: numbers[f"{name} {game}"][0] for name in decomposed.ALGORITHMS}
    rewards = numbers[f"vdn {game}"][0]["rewards"]
    best = np.argwhere(np.array(rewards) == np.max(rewards)).tolist()
    same: dict[str, Any] = {
        "rows": rows, "columns": columns,
        "scale": "diverging" if np.min(rewards) < 0 else "sequential",
    }  # fmt: skip
    learned = [
        Matrix(
            first["q_tot"], **same, title=f"{name.upper()}: Q_tot",
            row_values=first["utilities"][0], column_values=first["utilities"][1],
            marked={tuple(first["greedy"])},
        )
        for name, first in firsts.items()
    ]  # fmt: skip
    squares = ", ".join(f"{number(first['mse'])} ({n.upper()})" for n, first in firsts.items())
    legend = Text(
        f"**{game.capitalize()}.** Framed: the best joint action, and the greedy ones. Beside "
        f"actions: utilities. Residuals are Q_tot less true rewards; mean squares: {squares}."
    )
    largest = float(np.abs(rewards).max())
    apart: dict[str, Any] = same | {"scale": "diverging", "full": largest}
    residuals = [
        Matrix(first["residual"], **apart, title=f"{n.upper()}: residual")
        for n, first in firsts.items()
    ]
    truth = Matrix(
        rewards, **same, agents=env.agents, title=f"{game.capitalize()}: true rewards",
        marked={(r, c) for r, c in best},
    )  # fmt: skip
    return Grid([truth, *learned, legend, *residuals], 3)


def _close(
    claim: str, seeds: list[dict[str, Any]], wanted: np.ndarray, within: float, key: str
) -> Check:
    errors = [float(np.abs(np.array(s["q_tot"]) - wanted).max()) for s in seeds]
    published = " / ".join(" ".join(map(number, row)) for row in PUBLISHED[key])
    measured = f"largest differences {listed(errors, 3)}"
    return Check(claim, published, measured, max(errors) <= within)


def _climbing(seeds: list[dict[str, Any]]) -> list[Check]:
    monotone = [
        is_monotone(np.array(s["q_tot"]), [np.array(u) for u in s["utilities"]], 1e-3)
        for s in seeds
    ]
    mse = [s["mse"] for s in seeds]
    greedy = [s["greedy"] for s in seeds]
    shown = ", ".join("".join("ABC"[a] for a in g) for g in greedy)
    return [
        Check(
            "QMIX on climbing: monotone, between the best monotone and the best additive table",
            f"mean squared residual {MONOTONE_MSE} to {ADDITIVE_MSE}; the lecture's: 153",
            listed(mse, 1),
            all(monotone) and min(mse) >= MONOTONE_MSE and max(mse) <= ADDITIVE_MSE + 1,
        ),
        Check(
            "QMIX on climbing: greedy play is never the optimum (A, A)",
            "dominated (there CB)",
            shown,
            [0, 0] not in greedy,
        ),
    ]


def _table(numbers: Numbers) -> Table:
    rows: list[list[Any]] = []
    for key, seeds in numbers.items():
        name, game = key.split(" ")
        for k, s in enumerate(seeds):
            q_tot = " / ".join(" ".join(written(x, 2) for x in row) for row in s["q_tot"])
            greedy = "".join("ABC"[a] for a in s["greedy"])
            rows.append([game, name, k, q_tot, s["mse"], greedy])
    headers = ["game", "algorithm", "seed", "Q_tot", "mean sq. residual", "greedy"]
    return Table(headers, rows, "Every seed; the pictures are of the first.")
