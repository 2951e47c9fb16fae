"""The multi-agent policy-gradient theorem, checked (lecture, "The Policy-Gradient Theorem")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from coterie import envs
from coterie.analysis.gradients import (
    ESTIMATORS,
    Critics,
    Estimate,
    estimate,
    exact_critics,
    learned_critics,
)
from coterie.envs.matrix import MatrixGame
from coterie.games.finite import matrix_game
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.numbers import number, plural
from coterie.show.report.blocks import Table
from coterie.types import PRNGKey

GAMES = {"climbing": 1, "stag-hunt": 2}
"""Games and rounds; in the second round each agent knows its own first action only, z both."""
ERROR = 0.5
"""Standard deviation of the error of wrong critics, as a share of that of the payoffs."""
LEARNED = ("ia2c", "maa2c", "coma")
"""Trained for a while, so that their policies and their critics are half-way."""
SAMPLES, QUICK_SAMPLES = 2**18, 2**15


class PolicyGradient(Experiment):
    """Exact gradients by enumeration against what IA2C, MAA2C and COMA sample."""

    number = 8
    minutes = (2, 1.4)
    title = "The multi-agent policy-gradient theorem"
    source = "Lecture, “The Multi-Agent Policy-Gradient Theorem”"
    about = (
        "The gradient of every agent's expected return, by going through all joint actions, "
        "beside the mean of what each algorithm samples. With exact critics all of them "
        "sample the theorem's gradient and differ only in variance. With wrong critics, those"
        " that bootstrap or credit are biased; a wrong baseline alone is not."
    )

    def recipes(self) -> dict[str, Recipe]:
        size: dict[str, Any] = {"evaluations": 1, "final_episodes": 32, "quick_seeds": 2}
        return {name: Recipe(name, "matrix/climbing", 20_000, 5, **size) for name in LEARNED}

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        samples = QUICK_SAMPLES if scale.quick else SAMPLES
        key = jax.random.key(scale.seed)
        numbers: Numbers = {}
        for name, rounds in GAMES.items():
            env = envs.make(f"matrix/{name}")
            assert isinstance(env, MatrixGame)
            rng = np.random.default_rng(scale.seed)
            game = matrix_game(env.payoffs, rounds, sees="own")
            sizes = zip(game.seen, game.action_counts, strict=True)
            logits = [rng.normal(size=(seen.max() + 1, k)) for seen, k in sizes]
            exact = exact_critics(game, logits)
            wrong = _mistaken(exact, ERROR * float(env.payoffs.std()), rng)
            numbers[name] = {
                critics: {
                    estimator: _row(estimate(game, logits, estimator, given, samples, key))
                    for estimator in ESTIMATORS
                }
                for critics, given in (("exact", exact), ("wrong", wrong))
            }
        numbers["learned"] = {
            name: [_learned(run, k, samples, key) for k in range(run.config["seeds"])]
            for name, run in trained.items()
        }
        return numbers

    def checks(self, numbers: Numbers) -> list[Check]:
        found = []
        for name in GAMES:
            rows = numbers[name]["exact"]
            worst = max(rows, key=lambda r: rows[r]["bias"] / rows[r]["error"])
            bias, error = (rows[worst][k] for k in ("bias", "error"))
            measured = f"largest: {worst}, bias {number(bias)}, standard error {number(error)}"
            claim = f"{_title(name)}: exact critics give no bias beyond 4 standard errors"
            found.append(
                Check(claim, "equality", measured, all(r["unbiased"] for r in rows.values()))
            )
            baseline = rows["ia2c"]["variance"] < rows["reinforce"]["variance"]
            measured = " against ".join(number(rows[k]["variance"]) for k in ("ia2c", "reinforce"))
            claim = f"{_title(name)}: a baseline lowers the variance (IA2C against REINFORCE)"
            found.append(Check(claim, "", measured, baseline))
        wrong = numbers["stag-hunt"]["wrong"]
        biased = [name for name, row in wrong.items() if not row["unbiased"]]
        found.append(
            Check(
                f"{_title('stag-hunt')}: wrong critics bias all but REINFORCE",
                "",
                f"biased: {', '.join(biased) or 'none'}",
                biased == [name for name in wrong if name != "reinforce"],
            )
        )
        baselines = [r for name in ("ia2c", "maa2c") for r in numbers["learned"].get(name, [])]
        unbiased = sum(row["unbiased"] for row in baselines)
        found.append(
            Check(
                "climbing, 1 round: a learned baseline, however wrong, gives no bias",
                "",
                f"no bias on {unbiased} of {len(baselines)} trained teams (IA2C, MAA2C)",
                unbiased == len(baselines),
            )
        )
        return found

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        kinds = [
            (_title(game), critics, name, row)
            for game in GAMES
            for critics, estimators in numbers[game].items()
            for name, row in estimators.items()
        ]
        kinds += [
            (_title("climbing"), f"learned, seed {k}", name, row)
            for name, seeds in numbers["learned"].items()
            for k, row in enumerate(seeds)
        ]
        rows = [
            [game, critics, name, *(r[k] for k in ("bias", "error", "variance", "cosine")),
             "no" if r["unbiased"] else "yes"]
            for game, critics, name, r in kinds
        ]  # fmt: skip
        headers = [
            "game",
            "critics",
            "estimator",
            "bias",
            "by chance",
            "variance",
            "cosine",
            "biased",
        ]
        caption = "Of the agent with the largest bias; norms over all logits of its policy."
        return [Table(headers, rows, caption)]


def _learned(run: Run, seed: int, samples: int, key: PRNGKey) -> dict[str, Any]:
    """The estimator that a trained team would go on with, its learned critics included."""
    game, logits, critics = learned_critics(run, seed)
    return _row(estimate(game, logits, run.config["algorithm"], critics, samples, key))


def _title(game: str) -> str:
    return f"{game}, {plural(GAMES[game], 'round')}"


def _mistaken(critics: Critics, error: float, rng: np.random.Generator) -> Critics:
    def off(values: Any) -> Any:
        return values + error * rng.normal(size=values.shape).astype(np.float32)

    return eqx.tree_at(lambda c: (c.observed, c.central, c.joint), critics, replace_fn=off)


def _row(found: Estimate) -> dict[str, Any]:
    """The numbers of the agent whose bias stands out most."""
    i = int(np.argmax(np.array(found.bias) / np.array(found.error)))
    cosine = found.cosine[i]
    return {
        "bias": found.bias[i],
        "error": found.error[i],
        "variance": found.variance[i],
        "cosine": cosine if np.isfinite(cosine) else None,
        "unbiased": found.unbiased,
    }
