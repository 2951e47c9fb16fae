"""Central learning's view: the whole team as one agent over the product of the action sets.

Lecture, "Training and execution modes": a single policy over joint actions, conditioned on joint
histories, learned from one (scalarised) reward.
"""

from __future__ import annotations

import math
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coterie.spec import EnvSpec

TEAM = "team"


class JointView:
    """Maps between a team's agents and the one agent they form.

    Joint actions are numbered in row-major order: the last agent's action varies fastest.
    """

    def __init__(self, players: EnvSpec):
        self.players = players
        self.count = math.prod(players.action_counts)

    @property
    def spec(self) -> EnvSpec:
        """The team as one agent."""
        p = self.players
        return EnvSpec(
            agents=(TEAM,),
            observation_sizes=(p.n_agents * p.observation_size,),
            action_counts=(self.count,),
            central_size=p.central_size,
            time_limit=p.time_limit,
            reward=p.reward,
        )

    @cached_property
    def table(self) -> np.ndarray:
        """int [J, N]: each agent's part of every joint action."""
        return np.indices(self.players.action_counts).reshape(self.players.n_agents, -1).T

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """By how much a joint action's number grows with each agent's part."""
        counts = self.players.action_counts
        return tuple(math.prod(counts[i + 1 :]) for i in range(len(counts)))

    def observe(self, observations: Float[Array, "*S N O"]) -> Float[Array, "*S 1 NO"]:
        """The joint observation."""
        return observations.reshape(*observations.shape[:-2], 1, -1)

    def mask(self, mask: Bool[Array, "*S N A"]) -> Bool[Array, "*S 1 J"]:
        """Joint actions legal for all; an agent that has none (a dead one) takes action 0."""
        none = ~jnp.any(mask, axis=-1, keepdims=True)
        usable = mask | (none & (jnp.arange(mask.shape[-1]) == 0))
        each = usable[..., jnp.arange(self.players.n_agents), jnp.asarray(self.table)]
        return jnp.all(each, axis=-1)[..., None, :]

    def join(self, actions: Int[Array, "*S N"]) -> Int[Array, "*S 1"]:
        """The number of a joint action; the inverse of ``split``."""
        return (actions @ jnp.asarray(self.strides, actions.dtype))[..., None]

    def split(self, actions: Int[Array, "*S 1"]) -> Int[Array, "*S N"]:
        """Each agent's part of the joint action."""
        return jnp.asarray(self.table, jnp.int32)[actions[..., 0]]
