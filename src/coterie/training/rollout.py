"""Collecting transitions: K environments, T steps, one compiled scan."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.learners.contract import Algorithm
from coterie.networks.per_agent import PerAgent
from coterie.types import PRNGKey, Transition, transition
from coterie.views.game import Game
from coterie.views.vector import VectorState, refill, restart, step_vector


class Episodes(eqx.Module):
    """Totals over the episodes that ended: their number, returns [R] and lengths.

    Where every rollout begins anew, over the first episode of each environment alone, as far as it
    went: after it more short episodes than long ones would end before the rollout does.
    """

    count: Float[Array, ""]
    returns: Float[Array, " R"]
    lengths: Float[Array, ""]


def scan_rollout(
    algorithm: Algorithm,
    game: Game,
    policy: PerAgent,
    vector: VectorState,
    memory: Float[Array, "B N H"],
    key: PRNGKey,
    clock: dict[str, Array],
) -> tuple[VectorState, Float[Array, "B N H"], Transition, Episodes]:
    """Acts for T steps in all K environments, exploring.

    Returns:
        the environments and the memory to go on from, the transitions [T, B, ...], and the
        totals of the episodes that ended on the way.
    """
    steps, environments = algorithm.rollout_shape()
    noise_key, step_key = jax.random.split(key)
    noise = algorithm.noise(noise_key, game, (steps, environments))
    step_keys = jax.random.split(step_key, (steps, environments))
    vector = refill(game, vector)
    # The pool is read, never written, on the way: kept out of the scan's carry.
    pool = vector.pool
    vector = eqx.tree_at(lambda v: v.pool, vector, None)
    if algorithm.whole_episodes:
        vector = restart(game, vector, pool)

    def advance(carry, xs):
        vector, memory, counting = carry
        noise, keys = xs
        seen, fresh = vector.shown.observation, vector.fresh
        actions, after, behaviour = algorithm.explore(policy, memory, seen, fresh, noise, clock)
        vector, led_to = step_vector(game, vector, pool, keys, actions)
        step = transition(
            seen,
            led_to.led_to,
            memory=memory,
            start=fresh,
            actions=actions,
            behaviour=behaviour,
            rewards=led_to.rewards,
            terminated=led_to.terminated,
            truncated=led_to.truncated,
            truncated_alone=led_to.truncated_alone,
        )
        totals = totals_of(vector, vector.fresh & counting)
        if algorithm.whole_episodes:
            counting = counting & ~vector.fresh
        return (vector, after, counting), (step, totals)

    carry = (vector, memory, jnp.ones(environments, bool))
    (vector, memory, counting), (rollout, each) = jax.lax.scan(advance, carry, (noise, step_keys))
    totals = jax.tree.map(lambda x: x.sum(0), each)
    if algorithm.whole_episodes:
        totals = jax.tree.map(jnp.add, totals, totals_of(vector, counting))
    vector = eqx.tree_at(lambda v: v.pool, vector, pool, is_leaf=lambda x: x is None)
    return vector, memory, rollout, totals


def totals_of(vector: VectorState, which: Bool[Array, " B"]) -> Episodes:
    """Totals over what these environments have played of their episodes."""
    counts = which.astype(vector.returns.dtype)
    return Episodes(counts.sum(), counts @ vector.returns, counts @ vector.lengths)
