"""Independent learning against centralised critics (lecture, "Centralised Critics")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.lecture._base import Check, Item, Numbers, Recipe, Scale
from coterie.lecture._blocks import episode, learning_curves, summary_table
from coterie.runs import Run
from coterie.show.report import Grid

SETTINGS: dict[str, Any] = {
    "environments": 128, "rollout_steps": 25, "lr": 2e-3, "entropy": 0.01,
}  # fmt: skip
BOOK = {"maa2c": -31.4 / 2, "ia2c": -37.7 / 2}
"""Per agent; the book plots the sum over both."""
LEVELS = {
    "no communication": -15.1,
    "two words": -11.1,
    "full information": -7.3,
}
"""Returns per agent of simple ways to play."""
CODE, MUTE = -8.5, -13.0
"""Better than this, a team has a code of three words; worse than that, it has hardly any."""


class SpeakerListener(Item):
    """A speaker knows the goal, a listener moves: who learns to talk?"""

    number = 2
    title = "Centralised critics: speaker and listener"
    source = "Lecture, “Centralized Critics in Action”"
    about = (
        "Only the speaker sees which landmark is the goal, only the listener can move. The "
        "book's agents, advantage actor-critics, do not come to communicate (−15.7 and −18.9 "
        "per agent). Here both are proximal; they differ in nothing but what the critic sees."
        " With a critic that sees everything, a code of three words is found on nearly every "
        "seed; independent critics have none by then."
    )

    def recipes(self) -> dict[str, Recipe]:
        return {
            name: Recipe(
                name, "mpe/simple-speaker-listener", 2_500_000, 5, SETTINGS, quick_seeds=2,
                quick_steps=2_000_000,
            )
            for name in ("ippo", "mappo")
        }  # fmt: skip

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        return {
            name: run.evaluate(320)["eval/return/team_mean"]["per_seed"]
            for name, run in trained.items()
        }

    def checks(self, numbers: Numbers) -> list[Check]:
        central, own = numbers["mappo"], numbers["ippo"]
        above = sum(x > CODE for x in central)
        shown = {name: ", ".join(f"{x:.1f}" for x in seeds) for name, seeds in numbers.items()}
        return [
            Check(
                "Centralised critics do better than independent ones",
                f"{BOOK['maa2c']:.1f} against {BOOK['ia2c']:.1f} per agent (A2C)",
                f"{np.mean(central):.1f} against {np.mean(own):.1f}",
                float(np.mean(central)) > float(np.mean(own)) + 1,
            ),
            Check(
                f"With a centralised critic a code is found: above {CODE:g} on all seeds but one",
                f"{LEVELS['full information']:g} with full information",
                shown["mappo"],
                above >= max(1, len(central) - 1),
            ),
            Check(
                f"Without one, most seeds have none yet: below {MUTE:g}",
                f"{LEVELS['no communication']:g} without communication",
                shown["ippo"],
                sum(x < MUTE for x in own) > len(own) / 2,
            ),
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        references = dict(LEVELS)
        references |= {f"book, {name}": x for name, x in BOOK.items()}
        return [
            learning_curves(
                trained, "eval_sampled/return/team_mean", references, "Policies as they are drawn."
            ),
            summary_table(
                numbers,
                "return",
                "Per agent: best policies, greedy, 320 fresh episodes a seed.",
            ),
            Grid(
                [
                    episode(trained[name], numbers[name], f"A team of {name.upper()}, greedy.")
                    for name in ("mappo", "ippo")
                ],
                2,
            ),
        ]
