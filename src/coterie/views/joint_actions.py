"""Central learning's view: the whole team as one agent over the product of the action sets.

Lecture, "Training and execution modes": a single policy over joint actions, conditioned on joint
histories, learned from one (scalarised) reward.
"""

from __future__ import annotations

import functools
import math
import operator
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.spec import ActionSpace, EnvSpec, ObservationSpace
from coterie.types import Actions

TEAM = "team"


def joint_space(players: EnvSpec) -> ObservationSpace:
    """Of the joint observation, where observations are no vectors."""
    return functools.reduce(operator.add, players.observations)


class JointView:
    """Maps between a team's agents and the one agent they form.

    Joint actions are numbered in row-major order: the last agent's action varies fastest. Where
    actions are vectors, the team's is one that holds all choices of its agents, then all numbers.
    """

    def __init__(self, players: EnvSpec):
        self.players = players
        self.count = 0 if players.actions else math.prod(players.action_counts)

    @property
    def spec(self) -> EnvSpec:
        """The team as one agent."""
        p = self.players
        return EnvSpec(
            agents=(TEAM,),
            observation_sizes=(p.n_agents * p.observation_size,),
            action_counts=() if p.actions else (self.count,),
            central_size=p.central_size,
            time_limit=p.time_limit,
            reward=p.reward,
            actions=(_joined(p.actions),) if p.actions else (),
            observations=(joint_space(p),) if p.observations else (),
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

    def observe(self, observations: Num[Array, "*S N O"]) -> Num[Array, "*S 1 NO"]:
        """The joint observation."""
        return observations.reshape(*observations.shape[:-2], 1, -1)

    def mask(self, mask: Bool[Array, "*S N A"]) -> Bool[Array, "*S 1 J"]:
        """Joint actions legal for all; an agent that has none (a dead one) takes action 0.

        Where actions are vectors, what such an agent does not decide the team does not either.
        """
        if self.players.actions:
            return mask.reshape(*mask.shape[:-2], 1, -1)[..., self._flags]
        none = ~jnp.any(mask, axis=-1, keepdims=True)
        usable = mask | (none & (jnp.arange(mask.shape[-1]) == 0))
        each = usable[..., jnp.arange(self.players.n_agents), jnp.asarray(self.table)]
        return jnp.all(each, axis=-1)[..., None, :]

    @cached_property
    def _flags(self) -> np.ndarray:
        """Where the flags of all choices, then of all numbers, stand in the flat masks [N A]."""
        flags = np.arange(self.players.action_count)
        alternatives = np.asarray([[sum(space.choices)] for space in self.players.actions])
        of_number = (flags >= alternatives) & self.players.available_actions
        return np.concatenate([np.flatnonzero(x) for x in (flags < alternatives, of_number)])

    @cached_property
    def _parts(self) -> np.ndarray:
        """int [N, P]: where each part of an agent's action stands in the team's, -1 for none."""
        spaces, (n, size) = self.players.actions, self.players.action_shape
        choices = sum(len(space.choices) for space in spaces)
        table, choice, number = np.full((n, size), -1), 0, choices
        for i, space in enumerate(spaces):
            c, d = len(space.choices), len(space.low)
            table[i, :c] = np.arange(choice, choice + c)
            table[i, c : c + d] = np.arange(number, number + d)
            choice, number = choice + c, number + d
        return table

    def join(self, actions: Int[Array, "*S N"]) -> Int[Array, "*S 1"]:
        """The number of a joint action; the inverse of ``split``."""
        return (actions @ jnp.asarray(self.strides, actions.dtype))[..., None]

    def split(self, actions: Actions) -> Int[Array, "*S R"] | Float[Array, "*S R Q"]:
        """Each agent's part of the joint action."""
        if self.players.actions:
            each = jnp.take(actions[..., 0, :], np.maximum(self._parts, 0), axis=-1)
            return jnp.where(self._parts >= 0, each, 0.0)
        return jnp.asarray(self.table, jnp.int32)[actions[..., 0]]


def _joined(spaces: tuple[ActionSpace, ...]) -> ActionSpace:
    """All choices of a team's agents, then all numbers."""
    return ActionSpace(
        choices=tuple(count for space in spaces for count in space.choices),
        low=tuple(bound for space in spaces for bound in space.low),
        high=tuple(bound for space in spaces for bound in space.high),
    )
