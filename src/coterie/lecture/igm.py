"""Whether agents that act alone act for the team (lecture, "Individual-Global-Max Property")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.analysis.igm import learned_verdict
from coterie.lecture.base import decomposed
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.numbers import number
from coterie.show.report.blocks import Table

FITS = ("smallest_slope", "mse", "additive_mse", "monotone_mse")


class IGM(Experiment):
    """IGM and monotonicity of each learned decomposition, and how good it could have been."""

    number = 6
    minutes = (0.5, 0.1)
    title = "The individual-global-max property"
    source = "Lecture, “Individual-Global-Max Property”"
    about = (
        "VDN and QMIX satisfy IGM by construction: every agent's own greedy actions together "
        "are greedy for Q_tot. That says nothing of the true game: where Q_tot cannot "
        "represent it, greedy play may miss the optimum. Slopes of the mixer are found by "
        "automatic differentiation."
    )

    def recipes(self) -> dict[str, Recipe]:
        return decomposed.recipes()

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        return {
            key: [learned_verdict(run, k).to_dict() for k in range(run.config["seeds"])]
            for key, run in trained.items()
        }

    def checks(self, numbers: Numbers) -> list[Check]:
        every = [v for seeds in numbers.values() for v in seeds]
        igm, monotone = (sum(v[k] for v in every) for k in ("igm", "monotone"))
        slope = min(v["smallest_slope"] for v in every)
        representable = numbers["vdn linear"] + numbers["qmix linear"] + numbers["qmix monotonic"]
        optimal = sum(v["finds_optimum"] for v in representable)
        vdn, qmix = numbers["vdn climbing"], numbers["qmix climbing"]
        found = sum(v["finds_optimum"] for v in vdn + qmix)
        return [
            Check(
                "Every learned decomposition satisfies IGM",
                "lecture",
                f"{igm} of {len(every)}",
                igm == len(every),
            ),
            Check(
                "Every one is monotone, with no negative slope anywhere",
                "lecture",
                f"{monotone} of {len(every)}, smallest slope {number(slope)}",
                monotone == len(every) and slope >= -1e-5,
            ),
            Check(
                "Where the game can be represented, greedy play is optimal",
                "lecture",
                f"{optimal} of {len(representable)}",
                optimal == len(representable),
            ),
            _bounded("sum of utilities", decomposed.ADDITIVE_MSE, vdn, "additive_mse"),
            _bounded("monotone mixing", decomposed.MONOTONE_MSE, qmix, "monotone_mse"),
            Check(
                "Climbing: greedy play misses the optimum",
                "lecture",
                f"found by {found} of {len(vdn + qmix)}",
                found == 0,
            ),
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        rows: list[list[Any]] = []
        for key, seeds in numbers.items():
            name, game = key.split(" ")
            for k, v in enumerate(seeds):
                yes = ["yes" if v[f] else "no" for f in ("igm", "monotone", "finds_optimum")]
                fits = [v[f] for f in FITS]
                rows.append([game, name, k, *yes, *fits])
        verdict = ["IGM", "monotone", "finds the optimum"]
        residuals = ["mean sq. residual", "best additive", "best monotone"]
        headers = ["game", "algorithm", "seed", *verdict, "smallest slope", *residuals]
        return [Table(headers, rows)]


def _bounded(what: str, published: float, seeds: list[dict[str, Any]], bound: str) -> Check:
    """No seed's residual is below that of the best table of its kind."""
    best, learned = seeds[0][bound], min(v["mse"] for v in seeds)
    return Check(
        f"Climbing: no {what} comes closer than the best one",
        f"{published} (mean squared residual)",
        f"bound {number(best)}; learned {number(learned)} and more",
        abs(best - published) < 0.05 and learned >= best - 1e-3,
    )
