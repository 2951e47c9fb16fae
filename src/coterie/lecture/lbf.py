"""IDQN, VDN and QMIX in level-based foraging (lecture, "Value Decomposition in LBF")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coterie.lecture.base.blocks import episode, final_returns, learning_curves, summary_table
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.evaluation import evaluate_jax_env
from coterie.runs.run import Run
from coterie.show.metrics import bounds
from coterie.show.numbers import folded, interval, number
from coterie.show.report.blocks import Table
from coterie.statistics import probability_of_improvement, summarise

RANDOM_EPISODES = 3200
MARGIN = 0.05
"""Three standard errors of a mean of 320 episodes, whose returns deviate by 0.3."""
BOOK = {"qmix": 0.91, "vdn": 0.58, "idqn": 0.39}
"""Last tenth of the book's curves: version 2 of the task, 25 steps, 2M steps."""
SETTINGS: dict[str, Any] = {
    "sharing": "shared", "epsilon_steps": 500_000, "reward_scaling": "standardise",
}  # fmt: skip
"""Subtracting the mean makes every step cost something. That is not quite the task, but agents that
hurry collect as much, and learn it in fewer steps."""


class LevelBasedForaging(Experiment):
    """Three items, two agents, an 8x8 grid."""

    number = 7
    minutes = (12, 1.9)
    title = "Level-based foraging"
    source = "Lecture, “Value Decomposition in LBF”"
    about = (
        "Two agents collect three items; an item needs agents whose levels add up to its own."
        " The team return is the share of levels collected. The book's curves are of an older"
        " version of the task (25 steps), so their order is shown beside ours and not "
        "asserted. A quick lecture plays on a 6x6 grid with one item, which is learned sooner."
    )

    def recipes(self) -> dict[str, Recipe]:
        return {
            name: Recipe(
                name, "lbf/8x8-2p-3f", 2_000_000, 5, SETTINGS,
                quick_steps=400_000, quick_seeds=2, quick_environment="lbf/6x6-2p-1f",
                quick_settings={"epsilon_steps": 150_000},
            )
            for name in ("idqn", "vdn", "qmix")
        }  # fmt: skip

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        numbers: Numbers = {
            name: {"per_seed": final_returns(run, "best")} for name, run in trained.items()
        }
        numbers["random"] = _random_play(trained["idqn"])
        names = list(trained)
        better = {}
        if len(numbers["idqn"]["per_seed"]) > 1:
            for k, a in enumerate(names):
                for b in names[k + 1 :]:
                    x, y = (np.array(numbers[n]["per_seed"]) for n in (a, b))
                    found = probability_of_improvement(x, y)
                    better[f"{a} over {b}"] = [float(v) for v in found]
        return numbers | {"improvement": better}

    def checks(self, numbers: Numbers) -> list[Check]:
        random = numbers["random"]
        return [
            _clearly(name, numbers[name]["per_seed"], random, book) for name, book in BOOK.items()
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        returns = {name: numbers[name]["per_seed"] for name in trained}
        references = {"random play": numbers["random"], "everything": 1.0}
        best = max(returns, key=lambda name: float(np.mean(returns[name])))
        rows = [[pair, *values] for pair, values in numbers["improvement"].items()]
        headers = ["pair", "probability of improvement", "95% from", "to"]
        return [
            learning_curves(trained, "eval/return/team_sum", references, "Greedy evaluations."),
            summary_table(
                returns,
                "return",
                "Of the team: best policies, greedy, 320 fresh episodes a seed.",
                bounds(trained["idqn"].config, "eval/return/team_sum"),
            ),
            Table(
                headers, rows, "How likely a seed of the first does better than one of the second."
            ),
            episode(trained[best], returns[best], f"A team of {best.upper()}"),
        ]


def _random_play(run: Run) -> float:
    """The team return of uniformly random play."""
    even = jax.tree.map(lambda x: np.zeros_like(x[:1]), run.policies["last"])  # all logits equal
    played = evaluate_jax_env(run.game, even, RANDOM_EPISODES, run.config["seed"], stochastic=True)
    return float(played["eval_sampled"][0].sum(-1).mean())


def _clearly(name: str, per_seed: list[float], random: float, book: float) -> Check:
    """Every seed earns clearly more than random play, and their mean twice as much."""
    found = summarise(per_seed, (0.0, 1.0))
    above = sum(x > random + MARGIN for x in per_seed)
    mean = f"mean {number(found['mean'])}"
    if found["ci95"]:
        mean += f" (95%: {interval(found['ci95'])})"
    return Check(
        f"{name.upper()} beats random play on each of these {len(per_seed)} seeds, and its mean is "
        "twice as high at least",
        f"{number(book)} (8x8 grid, an older version of the task)",
        f"{folded(per_seed)}; {mean}; random play {number(random)}",
        above == len(per_seed) and found["mean"] > 2 * random,
    )
