"""What a value-based learner holds: parameters, replay of rollouts, minibatches of it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.learners.normalisation import Normaliser
from coterie.networks.per_agent import PerAgent
from coterie.ops import replay
from coterie.ops.running_statistics import Moments
from coterie.spec import Observation
from coterie.types import PyTree, Transition, transition
from coterie.views.game import Game
from coterie.views.steps import Steps


class Experience(eqx.Module):
    """What replay keeps of a sequence; leaves [..., L, N, ·], z without the agent axis.

    Flags of the joint step are repeated for each agent, so that agents can be given their own
    minibatch. ``hidden_state`` is the one before the first step (L = 1). Steps with ``counts`` are
    learned from; ``terminated`` is each learner's own (``views.steps.learner_steps``). ``more`` is
    what the algorithm asks for beside all this (``ValueBased.replays``), by name.
    """

    hidden_state: Float[Array, "*S one N H"]
    observations: Num[Array, "*S L N O"]
    alive: Bool[Array, "*S L N"]
    counts: Bool[Array, "*S L N"]
    start: Bool[Array, "*S L N"]
    actions: Int[Array, "*S L N"]
    rewards: Float[Array, "*S L N"]
    terminated: Bool[Array, "*S L N"]
    next_observations: Num[Array, "*S L N O"]
    next_action_mask: Bool[Array, "*S L N A"]
    next_alive: Bool[Array, "*S L N"]
    central: Num[Array, "*S L Z"]
    next_central: Num[Array, "*S L Z"]
    more: dict[str, PyTree] = eqx.field(default_factory=dict)


class Values(eqx.Module):
    """Parameters θ: the utilities Q(h_i, a_i; θ_i), and the mixer where there is one."""

    utility: PerAgent
    mixer: Any


class Learner(eqx.Module):
    """θ, target θ̄, the optimiser's state, replay D, reward moments, observations' statistics."""

    values: Values
    target: Values
    optimiser: PyTree
    replay: Experience
    moments: Moments
    normaliser: Normaliser | None = None


def sequences(
    rollout: Transition, steps: Steps, length: int, more: tuple[str, ...] = ()
) -> Experience:
    """Cuts a rollout [T, B, ·] into items [T/L·B, L, ·].

    Args:
        length: L, which divides T.
        more: further fields of the rollout that are kept.
    """

    def cut(x: Array) -> Array:
        x = x.reshape(x.shape[0] // length, length, *x.shape[1:])
        x = jnp.moveaxis(x, 2, 1)
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    start = jnp.broadcast_to(rollout.start[..., None], rollout.alive.shape)
    return Experience(
        hidden_state=cut(rollout.hidden_state)[:, :1],
        observations=cut(rollout.observations),
        alive=cut(rollout.alive),
        counts=cut(steps.counts),
        start=cut(start),
        actions=cut(rollout.actions),
        rewards=cut(steps.rewards),
        terminated=cut(steps.terminated),
        next_observations=cut(rollout.next_observations),
        next_action_mask=cut(rollout.next_action_mask),
        next_alive=cut(rollout.next_alive),
        central=cut(rollout.central),
        next_central=cut(rollout.next_central),
        more={name: jax.tree.map(cut, getattr(rollout, name)) for name in more},
    )


def minibatch(ring: Experience, index: Int[Array, "M *N"], each_its_own: bool) -> Experience:
    """The sampled sequences, time-major: leaves [L, M, N, ·].

    Args:
        each_its_own: each agent has its own column of ``index``; it is given no z.
    """
    if not each_its_own:
        return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), replay.sample(ring, index))
    agents = jnp.arange(index.shape[-1])

    def own(x: Array) -> Array:
        picked = x.at[index, :, agents].get(mode="promise_in_bounds")
        return jnp.moveaxis(picked, 2, 0)

    centre = jnp.zeros((ring.alive.shape[1], index.shape[0], 0))

    def joint(e: Experience) -> Any:
        return e.central, e.next_central

    per_agent = jax.tree.map(own, eqx.tree_at(joint, ring, (None, None)))
    return eqx.tree_at(joint, per_agent, (centre, centre), is_leaf=lambda x: x is None)


def blank_rollout(game: Game, length: int, hidden_size: int) -> Transition:
    """Zeros of the shape of a rollout of one environment, [L, 1, ...]."""
    n = game.spec.n_agents
    seen = Observation(
        observations=jnp.zeros(
            (length, 1, n, game.spec.observation_size), game.spec.observation_dtype
        ),
        action_mask=jnp.zeros((length, 1, n, game.spec.action_count), bool),
        alive=jnp.zeros((length, 1, n), bool),
        central=jnp.zeros((length, 1, game.central_size), game.central_dtype),
    )
    flag = jnp.zeros((length, 1), bool)
    return transition(
        seen, seen, hidden_state=jnp.zeros((length, 1, n, hidden_size)), start=flag, extras=(),
        actions=jnp.zeros((length, 1, n), jnp.int32), terminated=flag, truncated=flag,
        rewards=jnp.zeros((length, 1, game.players.n_agents)),
    )  # fmt: skip
