"""Two agents who move and speak; each knows the other's goal only."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from coterie.envs.mpe.particles import (
    Observations,
    Particles,
    a_share,
    blend,
    one_hot,
    pick,
    seen_from,
    words_said,
)
from coterie.envs.mpe.physics import Body, State, World, norm
from coterie.types import Array, Float


@dataclass(frozen=True, kw_only=True)
class Reference(Particles):
    """An agent's reward: the distance of the other one to the goal it knows, blended with the mean.

    Attributes:
        local_ratio: weight of the agent's own part; the mean over the agents has the rest.
    """

    default_reward = "mean"
    local_ratio: float | int = 0.5

    def build(self) -> World:
        a_share("local_ratio", self.local_ratio)
        return World(
            agents={f"agent_{i}": Body(0.05, push=5.0, speaks=True) for i in range(2)},
            landmarks=3,
            landmark=Body(0.05),
            words=10,
            goals=2,
        )

    def goal_names(self) -> tuple[str, ...]:
        """Agent i knows where the other one has to go."""
        return tuple(f"for {name}" for name in self.agents[::-1])

    def observe(self, state: State) -> Observations:
        """Own velocity, landmarks, the colour of the other's goal, the other's word."""
        colours = jnp.where(one_hot(state.goals, 3) > 0, 0.75, 0.25)
        landmarks = seen_from(state.positions[:2], state.positions[2:])
        words = words_said(state, 10)[::-1]
        return jnp.concatenate([state.velocities, landmarks, colours, words], 1)

    def reward(self, state: State) -> Float[Array, " N *b"]:
        goals = jnp.stack([pick(state.positions[2:], goal) for goal in state.goals])
        paid = -norm(state.positions[1::-1] - goals, 1)
        return blend(paid, jnp.mean(paid, 0), self.local_ratio)
