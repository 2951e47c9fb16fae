"""Observations that learners normalise by running statistics of those they were trained on.

A rollout is learned from with the statistics that it was acted on, so that a policy says in an
update what it said when it acted; only then it is counted. Replay holds observations as they were.
"""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Num

from coterie.learners.parts import LearnerSettings
from coterie.networks.observation_statistics import ObservationStatistics
from coterie.networks.per_agent import PerAgent, sharing_index
from coterie.ops.running_statistics import Moments
from coterie.types import Transition
from coterie.views.game import Game

Seen = TypeVar("Seen", bound=Any)
"""``Transition``, or what replay keeps of it."""


class Normaliser(eqx.Module):
    """Statistics of what agents observe, and of z where that is the environment's state.

    Where z is the joint observation, its parts are normalised as their agents' observations are.
    """

    agents: ObservationStatistics
    state: Moments | None

    def central(self, game: Game, z: Num[Array, "*S"]) -> Num[Array, "*S"]:
        """z, [..., Z], normalised."""
        if self.state is not None:
            return self.state.normalise(z)
        if game.central != "joint":
            return z
        each = z.reshape(*z.shape[:-1], game.spec.n_agents, game.spec.observation_size)
        return self.agents.normalise(each).reshape(z.shape)


def make_normaliser(settings: LearnerSettings, game: Game) -> Normaliser | None:
    """Before the first rollout; None where observations are not normalised."""
    if not settings.normalise_observations:
        return None
    index = sharing_index(game.spec, settings.sharing, settings.groups)
    state = Moments.empty(game.central_size) if game.central == "state" else None
    return Normaliser(ObservationStatistics.empty(game.spec, index), state)


def acting(networks: PerAgent, normaliser: Normaliser | None) -> PerAgent:
    """The policy that is executed: it normalises what it observes itself."""
    return networks.normalised_by(None if normaliser is None else normaliser.agents)


def normalised(normaliser: Normaliser | None, game: Game, seen: Seen) -> Seen:
    """A rollout or a minibatch with normalised observations and z, before and after each step."""
    if normaliser is None:
        return seen
    agents = normaliser.agents
    found = [
        agents.normalise(seen.observations),
        agents.normalise(seen.next_observations),
        normaliser.central(game, seen.central),
        normaliser.central(game, seen.next_central),
    ]
    # Not by the constructor: time is the first axis of a minibatch's leaves.
    return eqx.tree_at(_what_is_seen, seen, found)


def _what_is_seen(seen: Any) -> list[Any]:
    return [seen.observations, seen.next_observations, seen.central, seen.next_central]


def normalised_central(
    normaliser: Normaliser | None, game: Game, z: Num[Array, "*S"]
) -> Num[Array, "*S"]:
    """z as learners take it."""
    return z if normaliser is None else normaliser.central(game, z)


def counted(normaliser: Normaliser | None, rollout: Transition) -> Normaliser | None:
    """The statistics with a rollout that was acted on: what living agents observed, and its z."""
    if normaliser is None:
        return None
    agents = normaliser.agents.update(rollout.observations, rollout.alive)
    state = normaliser.state
    if state is not None:
        going = jnp.any(rollout.alive, axis=-1, keepdims=True)
        state = state.update(rollout.central, jnp.broadcast_to(going, rollout.central.shape))
    return Normaliser(agents, state)
