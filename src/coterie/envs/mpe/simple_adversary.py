"""Agents who must be near a goal, and an adversary who follows without knowing which it is."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from coterie.envs.mpe.particles import (
    Observations,
    Particles,
    at_least,
    pick,
    see_others,
    seen_from,
)
from coterie.envs.mpe.physics import Body, State, World, norm
from coterie.types import Array, Float


@dataclass(frozen=True, kw_only=True)
class Adversary(Particles):
    """The agents' reward falls with the nearest agent's distance to the goal and rises with the
    adversary's.

    Attributes:
        n: number of agents besides the adversary, and of landmarks.
    """

    default_reward = "individual"
    n: int = 2

    def build(self) -> World:
        at_least("n", self.n, 1)
        names = ["adversary_0", *(f"agent_{i}" for i in range(self.n))]
        return World(
            agents={name: Body(0.15, push=5.0) for name in names},
            landmarks=self.n,
            landmark=Body(0.08),
            goals=1,
        )

    def observe(self, state: State) -> Observations:
        """All see landmarks and the others; the agents see the goal, too, and first."""
        agents, landmarks = state.positions[: self.n + 1], state.positions[self.n + 1 :]
        seen = jnp.concatenate([seen_from(agents, landmarks), see_others(agents)], 1)
        goal = pick(landmarks, state.goals[0]) - agents[1:]
        return seen[0], *jnp.concatenate([goal, seen[1:]], 1)

    def reward(self, state: State) -> Float[Array, " N *b"]:
        agents, landmarks = state.positions[: self.n + 1], state.positions[self.n + 1 :]
        away = norm(agents - pick(landmarks, state.goals[0]), 1)
        paid = away[0] - jnp.min(away[1:], 0)
        return jnp.stack([-away[0], *[paid] * self.n])
