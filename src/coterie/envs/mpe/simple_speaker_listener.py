"""One agent knows where to go and can only speak; the other can only move, and listens."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from coterie.envs.mpe.particles import Observations, Particles, flat, one_hot, pick, words_said
from coterie.envs.mpe.physics import Body, State, World
from coterie.types import Array, Float


@dataclass(frozen=True, kw_only=True)
class SpeakerListener(Particles):
    """The reward of both is minus the squared distance from the listener to the goal."""

    default_reward = "mean"

    def build(self) -> World:
        return World(
            agents={
                "speaker_0": Body(0.075, speaks=True),
                "listener_0": Body(0.075, push=5.0),
            },
            landmarks=3,
            landmark=Body(0.04),
            words=3,
            goals=1,
        )

    def observe(self, state: State) -> Observations:
        """The speaker sees the goal's colour; the listener its velocity, landmarks, the word."""
        colour = jnp.where(one_hot(state.goals, 3)[0] > 0, 0.65, 0.15)
        landmarks = flat(state.positions[2:] - state.positions[1])
        word = words_said(state, 3)[0]
        return colour, jnp.concatenate([state.velocities[1], landmarks, word])

    def reward(self, state: State) -> Float[Array, " N *b"]:
        goal = pick(state.positions[2:], state.goals[0])
        paid = -jnp.sum((state.positions[1] - goal) ** 2, 0)
        return jnp.stack([paid, paid])
