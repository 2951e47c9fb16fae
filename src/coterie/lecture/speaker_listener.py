"""Independent learning against centralised critics (lecture, "Centralised Critics")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie.analysis.messages import codes
from coterie.lecture.base.blocks import episode, final_returns, learning_curves, summary_table
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.numbers import interval, listed, number
from coterie.show.report.blocks import Grid, Table
from coterie.statistics import difference_interval

NETWORKS: dict[str, Any] = {
    "sharing": "own", "hidden": (64, 64), "activation": "tanh", "max_grad_norm": 0.5,
}  # fmt: skip
"""A speaker and a listener have nothing in common that they could share."""
A2C: dict[str, Any] = {
    "environments": 64, "rollout_steps": 25, "lr": 2e-3, "gae_lambda": 0.95, "entropy": 0.03,
    "reward_scaling": "none", **NETWORKS,
}  # fmt: skip
PPO: dict[str, Any] = {
    "environments": 128, "rollout_steps": 25, "lr": 1e-3, "entropy": 0.01,
    "reward_scaling": "standardise", **NETWORKS,
}  # fmt: skip
"""Subtracting the mean reward changes nothing of what is best here: every episode has 25 steps."""
PAIRS = {"maa2c": "ia2c", "mappo": "ippo"}
"""With a centralised critic: the same without one."""
BOOK = {"maa2c": -31.4 / 2, "ia2c": -37.7 / 2}
"""Per agent; the book plots the sum over both."""
LEVELS = {
    "no words": -15.1,
    "two words": -11.1,
    "full information": -7.3,
}
"""Returns per agent of simple ways to play."""
TALKS, COSTS = 0.8, 1.0
"""A team communicates if its word tells of the goal by so many bits (two words tell 0.92, three
1.58), and words of other episodes in its place cost so much return per agent."""


class SpeakerListener(Experiment):
    """A speaker knows the goal, a listener moves: who learns to talk?"""

    number = 2
    minutes = (14, 1.5)
    title = "Centralised critics: speaker and listener"
    source = "Lecture, “Centralized Critics in Action”"
    about = (
        "Only the speaker sees which landmark is the goal, only the listener can move, so the "
        "speaker has to be understood. The book's advantage actor-critics do not come to "
        "communicate (−15.7 and −18.9 per agent). Here advantage and proximal actor-critics learn "
        "in pairs that differ in nothing but what the critic sees. Whether a team talks is read "
        "off its words: how many bits they tell of the goal, and what is lost when each word is "
        "replaced by one from another episode, or always the same one is said. With a critic that "
        "sees everything, nearly every team finds a code; teams with independent critics find "
        "one later, or one of fewer words."
    )

    def recipes(self) -> dict[str, Recipe]:
        name = "mpe/simple-speaker-listener"
        slow = {a: Recipe(a, name, 20_000_000, 5, A2C, only_full=True) for a in ("ia2c", "maa2c")}
        fast = {a: Recipe(a, name, 2_000_000, 5, PPO, quick_seeds=2) for a in ("ippo", "mappo")}
        return slow | fast

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        return {
            name: {
                "per_seed": final_returns(run, "best"),
                "codes": [code.to_dict() for code in codes(run, which="best")],
            }
            for name, run in trained.items()
        }

    def checks(self, numbers: Numbers) -> list[Check]:
        return [
            check
            for central, own in PAIRS.items()
            if central in numbers
            for check in _compared(central, numbers[central], own, numbers[own])
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        pairs = [(central, own) for central, own in PAIRS.items() if central in trained]
        references = dict(LEVELS)
        references |= {f"book, {name}": x for name, x in BOOK.items()}
        returns = {name: found["per_seed"] for name, found in numbers.items()}
        return [
            *(
                learning_curves(
                    {name: trained[name] for name in pair},
                    "eval_sampled/return/team_mean",
                    references,
                    "Policies sampled.",
                )
                for pair in pairs
            ),
            summary_table(
                returns,
                "return",
                "Per agent: the best policies of each seed, sampled, 320 other episodes each.",
            ),
            _words(numbers),
            Grid(
                [
                    episode(trained[name], returns[name], f"A team of {name.upper()}")
                    for pair in pairs
                    for name in reversed(pair)
                ],
                2,
            ),
        ]


def _compared(
    central: str, with_z: Mapping[str, Any], own: str, without: Mapping[str, Any]
) -> list[Check]:
    """The claims of one pair: returns per agent and codes, with and without z in the critic."""
    names = central.upper(), own.upper()
    returns = [np.asarray(x["per_seed"]) for x in (with_z, without)]
    bits = [[code["bits"] for code in x["codes"]] for x in (with_z, without)]
    gap = difference_interval(returns[0], returns[1])
    found = f"{number(returns[0].mean())} against {number(returns[1].mean())}"
    if np.isfinite(gap.low):
        found += f"; difference {number(gap.value)} (95%: {interval((gap.low, gap.high))})"
    talking = sum(map(_talks, with_z["codes"]))
    seeds = len(with_z["codes"])
    return [
        Check(
            f"{names[0]}, with a centralised critic, does better than {names[1]} on these seeds, "
            "by 1 per agent at least",
            f"{number(BOOK['maa2c'])} against {number(BOOK['ia2c'])} per agent (A2C)",
            found,
            bool(gap.value > 1),
        ),
        Check(
            f"{names[0]} communicates on all of these {seeds} seeds but one: words tell "
            f"{number(TALKS)} bits of the goal or more, and other words cost {number(COSTS)} per "
            "agent or more",
            f"with full information {number(LEVELS['full information'])} per agent, "
            f"without words {number(LEVELS['no words'])}",
            f"{talking} of {seeds}; bits {listed(bits[0], 2)}",
            talking >= max(1, seeds - 1),
        ),
        Check(
            f"The words of {names[1]} tell less of the goal on average",
            "no communication",
            f"{number(np.mean(bits[1]))} against {number(np.mean(bits[0]))} bits; "
            f"{listed(bits[1], 2)}",
            bool(np.mean(bits[1]) < np.mean(bits[0])),
        ),
    ]


def _talks(code: Mapping[str, Any]) -> bool:
    """Whether words tell of the goal, and somebody listens to them."""
    returns = code["returns"]
    return code["bits"] >= TALKS and returns["said"] - returns["shuffled"] >= COSTS


def _words(numbers: Numbers) -> Table:
    """What each seed's team says, and what it is worth."""
    rows: list[list[Any]] = []
    for name, found in numbers.items():
        for code in found["codes"]:
            book = ", ".join(f"{goal} → {word}" for goal, word in code["book"].items())
            returns = [code["returns"][manner] for manner in ("said", "shuffled", "silenced")]
            rows.append([name, code["seed"], code["bits"], *returns, book])
    headers = ["algorithm", "seed", "bits", "return", "shuffled", "silenced", "code book"]
    caption = (
        "The word and the goal: mutual information in bits (at most 1.58), the return per agent as "
        "it is, with each word replaced by one of another episode, with always the same word; and "
        "the most frequent word for each goal."
    )
    return Table(headers, rows, caption)
