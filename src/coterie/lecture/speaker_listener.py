"""Independent learning against centralised critics (lecture, "Centralised Critics")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.lecture._base import Check, Item, Numbers, Recipe, Scale
from coterie.lecture._blocks import episode, learning_curves, summary_table
from coterie.runs import Run
from coterie.show.report import Grid

A2C: dict[str, Any] = {
    "environments": 64, "rollout_steps": 25, "lr": 2e-3, "gae_lambda": 0.95, "entropy": 0.03,
    "reward_scaling": "none",
}  # fmt: skip
PPO: dict[str, Any] = {
    "environments": 128, "rollout_steps": 25, "lr": 1e-3, "entropy": 0.01,
    "reward_scaling": "standardise",
}  # fmt: skip
"""Subtracting the mean reward changes nothing of what is best here: every episode has 25 steps."""
PAIRS = {"maa2c": "ia2c", "mappo": "ippo"}
"""With a centralised critic: the same without one."""
BOOK = {"maa2c": -31.4 / 2, "ia2c": -37.7 / 2}
"""Per agent; the book plots the sum over both."""
LEVELS = {
    "no communication": -15.1,
    "two words": -11.1,
    "full information": -7.3,
}
"""Returns per agent of simple ways to play."""
CODE = {"maa2c": -9.0, "mappo": -8.5}
"""Better than this, a team has a code of three words."""


class SpeakerListener(Item):
    """A speaker knows the goal, a listener moves: who learns to talk?"""

    number = 2
    title = "Centralised critics: speaker and listener"
    source = "Lecture, “Centralized Critics in Action”"
    about = (
        "Only the speaker sees which landmark is the goal, only the listener can move, so the "
        "speaker has to be understood. The book's advantage actor-critics do not come to "
        "communicate (−15.7 and −18.9 per agent). Here advantage and proximal actor-critics learn "
        "in pairs that differ in nothing but what the critic sees. With a critic that sees "
        "everything, a code of three words is found on nearly every seed; most teams with "
        "independent critics have none by then, though some find one too."
    )

    def recipes(self) -> dict[str, Recipe]:
        name = "mpe/simple-speaker-listener"
        slow = {a: Recipe(a, name, 20_000_000, 5, A2C, only_full=True) for a in ("ia2c", "maa2c")}
        fast = {a: Recipe(a, name, 2_000_000, 5, PPO, quick_seeds=2) for a in ("ippo", "mappo")}
        return slow | fast

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        return {
            name: run.evaluate(320)["eval/return/team_mean"]["per_seed"]
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
        return [
            *(
                learning_curves(
                    {name: trained[name] for name in pair},
                    "eval_sampled/return/team_mean",
                    references,
                    "Policies as they are drawn.",
                )
                for pair in pairs
            ),
            summary_table(
                numbers,
                "return",
                "Per agent: best policies, greedy, 320 fresh episodes a seed.",
            ),
            Grid(
                [
                    episode(trained[name], numbers[name], f"A team of {name.upper()}, greedy.")
                    for pair in pairs
                    for name in reversed(pair)
                ],
                2,
            ),
        ]


def _compared(central: str, with_z: list[float], own: str, without: list[float]) -> list[Check]:
    """The claims of one pair: each seed's return per agent, with and without z in the critic."""
    level, names = CODE[central], (central.upper(), own.upper())
    shown = [", ".join(f"{x:.1f}" for x in seeds) for seeds in (with_z, without)]
    published = f"{BOOK['maa2c']:.1f} against {BOOK['ia2c']:.1f} per agent (A2C)"
    means = float(np.mean(with_z)), float(np.mean(without))
    return [
        Check(
            f"{names[0]}, with a centralised critic, does better than {names[1]}",
            published,
            f"{means[0]:.1f} against {means[1]:.1f}",
            means[0] > means[1] + 1,
        ),
        Check(
            f"{names[0]} finds a code: above {level:g} on all seeds but one",
            f"{LEVELS['full information']:g} with full information",
            shown[0],
            sum(x > level for x in with_z) >= max(1, len(with_z) - 1),
        ),
        Check(
            f"Most seeds of {names[1]} have none yet: below {level:g}",
            f"{LEVELS['no communication']:g} without communication",
            shown[1],
            sum(x < level for x in without) > len(without) / 2,
        ),
    ]
