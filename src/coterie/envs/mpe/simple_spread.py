"""Agents who must cover as many landmarks as they are, and not bump into each other."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from coterie.envs.mpe.particles import (
    Observations,
    Particles,
    a_share,
    at_least,
    blend,
    gaps,
    see_others,
    seen_from,
)
from coterie.envs.mpe.physics import Body, State, World
from coterie.types import Array, Float

SIZE = 0.15


@dataclass(frozen=True, kw_only=True)
class Spread(Particles):
    """Rewards: in common for the nearest agent to each landmark, individually for collisions.

    Attributes:
        n: number of agents, and of landmarks.
        local_ratio: weight of the agent's own collisions; the common part has the rest.
    """

    default_reward = "mean"
    n: int = 3
    local_ratio: float | int = 0.5

    def build(self) -> World:
        a_share("local_ratio", self.local_ratio)
        at_least("n", self.n, 1)
        body = Body(SIZE, push=5.0, collides=True)
        return World(
            agents={f"agent_{i}": body for i in range(self.n)},
            landmarks=self.n,
            landmark=Body(0.05),
        )

    def observe(self, state: State) -> Observations:
        """Own velocity and position, landmarks, the others, and zeros for words never said."""
        agents, landmarks = state.positions[: self.n], state.positions[self.n :]
        silence = jnp.zeros((self.n, 2 * (self.n - 1), *agents.shape[2:]))
        seen = [seen_from(agents, landmarks), see_others(agents), silence]
        return jnp.concatenate([state.velocities, agents, *seen], 1)

    def reward(self, state: State) -> Float[Array, " N *b"]:
        agents, landmarks = state.positions[: self.n], state.positions[self.n :]
        uncovered = jnp.sum(jnp.min(gaps(agents, landmarks), 0), 0)
        collisions = jnp.sum(gaps(agents, agents) < 2 * SIZE, 1) - 1.0  # less the one with itself
        return blend(-collisions, -uncovered, self.local_ratio)
