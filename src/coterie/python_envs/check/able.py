"""Which algorithms can play an environment, as far as its actions go.

Their names stand here because importing them takes JAX, and environments are checked without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from coterie.spec import EnvSpec

VECTORS = ("central_a2c", "ia2c", "ippo", "maa2c", "mappo", "reinforce")
"""Algorithms that decide each choice of an action, and each number, by itself."""
SINGLE = ("central_q", "coma", "idqn", "pac", "qmix", "vdn")
"""Algorithms that compare single actions: the combinations of several choices."""


@dataclass
class Able:
    """Why algorithms of each kind cannot play, as the end of a sentence; None if they can."""

    vectors: str | None = None
    single: str | None = None

    def see(self, spec: EnvSpec) -> None:
        """Takes account of the actions that agents have."""
        for agent, space in zip(spec.agents, spec.actions):
            if not space.is_single_choice:
                self.single = f"agent {agent} acts by {space}"
                return

    def __str__(self) -> str:
        both = ((VECTORS, self.vectors), (SINGLE, self.single))
        able = [listed(names) for names, why in both if why is None]
        not_able = [f"{listed(names)} cannot: {why}" for names, why in both if why is not None]
        if not not_able:
            return "all algorithms can play: these actions suit each of them"
        return "; ".join([*(f"{names} can play" for names in able), *not_able])


def listed(names: tuple[str, ...]) -> str:
    """In a sentence: "a, b and c"."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
