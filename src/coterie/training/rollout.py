"""Collecting transitions: K environments, T steps, one compiled scan."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from coterie.learners.contract import Algorithm
from coterie.networks.per_agent import PerAgent
from coterie.types import PRNGKey, PyTree, Schedules, Transition, transition
from coterie.views.game import Game
from coterie.views.vector import VectorState, lasts, refill, restart, step_vector


class Episodes(eqx.Module):
    """Totals over the episodes that ended: their number, returns [R] and lengths.

    Where every rollout begins anew, over the first episode of each environment alone, as far as it
    went: after it more short episodes than long ones would end before the rollout does.

    Attributes:
        info: by name the sum of what a JAX environment reported at their ends, and how many of
            these numbers there were; those that are not finite are left out.
    """

    count: Float[Array, ""]
    returns: Float[Array, " R"]
    lengths: Float[Array, ""]
    info: dict[str, Float[Array, "2"]]


def scan_rollout(
    algorithm: Algorithm,
    game: Game,
    policy: PerAgent,
    vector: VectorState,
    hidden_state: Float[Array, "B N H"],
    key: PRNGKey,
    schedules: Schedules,
) -> tuple[VectorState, Float[Array, "B N H"], Transition, Episodes]:
    """Acts for T steps in all K environments, exploring.

    Returns:
        the environments and the hidden state to go on from, the transitions [T, B, ...], and the
        totals of the episodes that ended on the way.
    """
    steps, environments = algorithm.rollout_shape()
    noise_key, step_key = jax.random.split(key)
    noise = algorithm.noise(noise_key, game, (steps, environments))
    step_keys = jax.random.split(step_key, (steps, environments))
    whole = algorithm.whole_episodes
    # As many steps at a time as the pool of reset states is enough for, and equally many.
    most = min(steps, lasts(vector) - whole)
    turn = next(t for t in range(most, 0, -1) if steps % t == 0)

    def act_until_refill(carry, xs):
        (vector, hidden_state, counting), (begins, xs) = carry, xs
        vector = refill(game, vector)
        # The pool is read, never written, on the way: kept out of the inner scan's carry.
        pool = vector.pool
        vector = eqx.tree_at(lambda v: v.pool, vector, None)
        if whole:
            vector = restart(game, vector, pool, begins)
        step = functools.partial(_act_once, algorithm, game, policy, schedules, pool)
        (vector, *after), out = jax.lax.scan(step, (vector, hidden_state, counting), xs)
        vector = eqx.tree_at(lambda v: v.pool, vector, pool, is_leaf=lambda x: x is None)
        return (vector, *after), out

    carry = (vector, hidden_state, jnp.ones(environments, bool))
    xs = jax.tree.map(lambda x: x.reshape(-1, turn, *x.shape[1:]), (noise, step_keys))
    (vector, hidden_state, counting), out = jax.lax.scan(
        act_until_refill, carry, (np.arange(steps // turn) == 0, xs)
    )
    rollout, each = jax.tree.map(lambda x: x.reshape(steps, *x.shape[2:]), out)
    totals = jax.tree.map(lambda x: x.sum(0), each)
    if whole:
        # What is reported before an episode's end is not of the whole episode.
        nothing = {name: jnp.full(environments, jnp.nan) for name in totals.info}
        totals = jax.tree.map(jnp.add, totals, totals_of(vector, counting, nothing))
    return vector, hidden_state, rollout, totals


def _act_once(
    algorithm: Algorithm,
    game: Game,
    policy: PerAgent,
    schedules: Schedules,
    pool: PyTree,
    carry: tuple[VectorState, Float[Array, "B N H"], Bool[Array, " B"]],
    xs: tuple[PyTree, Any],
) -> tuple[Any, tuple[Transition, Episodes]]:
    """One step of all environments; the carry counts those whose episodes count for totals."""
    (vector, hidden_state, counting), (noise, keys) = carry, xs
    seen, start = vector.time_step.observation, vector.start
    actions, after, extras = algorithm.explore(policy, hidden_state, seen, start, noise, schedules)
    vector, next_step = step_vector(game, vector, pool, keys, actions)
    step = transition(
        seen,
        next_step.next_observation,
        hidden_state=hidden_state,
        start=start,
        actions=actions,
        extras=extras,
        rewards=next_step.rewards,
        terminated=next_step.terminated,
        truncated=next_step.truncated,
        truncated_alone=next_step.truncated_alone,
    )
    totals = totals_of(vector, vector.start & counting, next_step.info or {})
    if algorithm.whole_episodes:
        counting = counting & ~vector.start
    return (vector, after, counting), (step, totals)


def totals_of(
    vector: VectorState, which: Bool[Array, " B"], info: dict[str, Float[Array, " B"]]
) -> Episodes:
    """Totals over what these environments have played of their episodes."""
    counts = which.astype(vector.returns.dtype)
    reported = {name: _sum_and_count(x, which) for name, x in info.items()}
    return Episodes(counts.sum(), counts @ vector.returns, counts @ vector.lengths, reported)


def _sum_and_count(x: Float[Array, " B"], which: Bool[Array, " B"]) -> Float[Array, "2"]:
    which = which & jnp.isfinite(x)
    return jnp.stack([jnp.where(which, x, 0.0).sum(), which.sum(dtype=x.dtype)])
