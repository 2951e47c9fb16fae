"""K environments stepping together, with reset states sampled in batches outside the scan.

A reset costs more than a step, so they are sampled in blocks before they are needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.types import Actions, PRNGKey, PyTree, TimeStep, UInt, tree_bytes
from coterie.views.game import Game, GameState, usable

SEED_AXIS = "seed"
"""Name of the outer ``vmap`` axis over seeds; every compiled loop runs under it."""
POOL_BYTES = 32_000_000
"""A pool that would be larger is refilled more often instead, up to before every step."""


class ResetState(eqx.Module):
    """What differs between the resets of a game; masks and alive flags only where they vary.

    ``alive`` and ``frames`` are of the environment's own agents.
    """

    env: PyTree
    observations: Num[Array, "*S N O"]
    central: Num[Array, "*S Z"]
    action_mask: Bool[Array, "*S N A"] | None
    alive: Bool[Array, "*S R"] | None
    frames: Num[Array, "*S K R P"] | None


def reset_state(game: Game, state: GameState, view: TimeStep) -> ResetState:
    """The parts of a state and its view that a reset replaces."""
    masks = game.varies[0]
    return ResetState(
        state.env,
        view.observations,
        view.central,
        view.action_mask if masks else None,
        state.alive,
        state.frames,
    )


class VectorState(eqx.Module):
    """K environments side by side, and the reset states for those that will end.

    Reset state number j of a seed is sampled from ``fold_in(key, j)``: each is used once, and which
    one an episode gets does not depend on when the pool was filled. j is two 32-bit words, the low
    one first.

    Attributes:
        state, time_step: [B] current states and what the agents see; rewards and flags are those of
            the last step, also where a new episode begins.
        start: [B] the current observation is the first of its episode.
        returns, lengths: running totals of the episode, in the environment's own rewards.
        pool: [blocks, block] reset states, a ring; None inside a scan, which reads the pool
            from outside.
        head: the ring's oldest block.
        used: reset states taken since the beginning of that block.
        sampled: number of that block's first reset state.
    """

    state: GameState
    time_step: TimeStep
    start: Bool[Array, " B"]
    returns: Float[Array, "B R"]
    lengths: Int[Array, " B"]
    pool: Any
    head: Int[Array, ""]
    used: Int[Array, ""]
    sampled: UInt[Array, "2"]
    key: PRNGKey


def init_vector(game: Game, key: PRNGKey, environments: int, steps: int) -> VectorState:
    """K environments at their first steps, and a pool that lasts for ``steps`` steps of each, or
    for fewer, but at least two, where so many reset states would take much memory (``lasts``)."""
    first = jnp.zeros(2, jnp.uint32)
    state, time_step = sample_resets(game, key, first, environments)
    first = _count_on(first, environments)
    affordable = POOL_BYTES * environments // tree_bytes(reset_state(game, state, time_step))
    ahead = environments * min(steps, max(affordable // environments, 2))
    # A block is small enough to stay in the cache, and large enough to fill vector units.
    block = min(max(ahead, 16), max(affordable, 16), 1024)
    return VectorState(
        state=state,
        time_step=time_step,
        start=jnp.ones(environments, bool),
        returns=jnp.zeros((environments, game.players.n_agents)),
        lengths=jnp.zeros(environments, jnp.int32),
        pool=_sample_pool(game, key, first, -(-ahead // block) + 1, block),
        head=jnp.zeros((), jnp.int32),
        used=jnp.zeros((), jnp.int32),
        sampled=first,
        key=key,
    )


def _sample_pool(
    game: Game, key: PRNGKey, first: UInt[Array, "2"], blocks: int, block: int
) -> ResetState:
    """The reset states from number ``first`` on, [blocks, block]."""
    return jax.lax.map(
        lambda b: reset_state(game, *sample_resets(game, key, _count_on(first, b * block), block)),
        jnp.arange(blocks, dtype=jnp.uint32),
    )


def lasts(vector: VectorState) -> int:
    """For how many steps of every environment a pool is enough that was just refilled."""
    blocks, block = jax.tree.leaves(vector.pool)[0].shape[:2]
    return (blocks - 1) * block // vector.start.shape[0]


def with_pool(game: Game, vector: VectorState, blocks: int, block: int) -> VectorState:
    """The same environments with a pool of another size, which holds the next reset states."""
    first = _count_on(vector.sampled, vector.used)
    pool = _sample_pool(game, vector.key, first, blocks, block)
    none = jnp.zeros((), jnp.int32)
    return dataclasses.replace(vector, pool=pool, head=none, used=none, sampled=first)


def sample_resets(
    game: Game, key: PRNGKey, first: UInt[Array, "2"], count: int
) -> tuple[GameState, TimeStep]:
    """Starts ``first`` .. ``first + count - 1`` of this key's endless sequence, [count]."""

    def one(offset: UInt[Array, ""]) -> tuple[GameState, TimeStep]:
        low, high = _count_on(first, offset)
        return game.reset(jax.random.fold_in(jax.random.fold_in(key, high), low))

    return jax.vmap(one)(jnp.arange(count, dtype=jnp.uint32))


def refill(game: Game, vector: VectorState) -> VectorState:
    """Samples used-up blocks of the pool anew; then all blocks but one are surely ready.

    A loop and not a branch: its carry is updated in place, and a loop that runs zero times costs
    nothing. Seeds share the number of turns; one that has no block to spare samples its oldest
    block again, which gives the same states.
    """
    blocks, block = jax.tree.leaves(vector.pool)[0].shape[:2]

    def redraw(_: Array, v: VectorState) -> VectorState:
        spare = v.used >= block
        numbers = _count_on(v.sampled, jnp.where(spare, blocks * block, 0))
        new = reset_state(game, *sample_resets(game, v.key, numbers, block))
        pool = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, v.head, 0),
            v.pool,
            new,
        )
        head = jnp.where(spare, (v.head + 1) % blocks, v.head)
        used = jnp.where(spare, v.used - block, v.used)
        sampled = jnp.where(spare, _count_on(v.sampled, block), v.sampled)
        return dataclasses.replace(v, pool=pool, head=head, used=used, sampled=sampled)

    turns = jax.lax.pmax(vector.used // block, SEED_AXIS)
    return jax.lax.fori_loop(0, turns, redraw, vector)


def step_vector(
    game: Game, vector: VectorState, pool: Any, keys: Any, actions: Actions
) -> tuple[VectorState, TimeStep]:
    """Steps all K environments and resets those that ended.

    Returns:
        the new state (whose ``time_step`` is what to act on next), and the time steps [B] that the
        actions led to: their observations are the final ones where an episode ended.
    """
    state, next_step = jax.vmap(game.step)(keys, vector.state, actions)
    going = ~vector.start
    stepped = dataclasses.replace(
        vector,
        state=state,
        time_step=next_step.onward(),
        start=jnp.zeros_like(vector.start),
        returns=vector.returns * going[:, None] + next_step.rewards,
        lengths=vector.lengths * going + 1,
    )
    ended: Any = next_step.terminated | next_step.truncated
    return _renew(game, stepped, pool, ended), next_step


def restart(game: Game, vector: VectorState, pool: Any, when: Bool[Array, ""]) -> VectorState:
    """Breaks off every episode that has begun and resets the environment, if it is time."""
    return _renew(game, vector, pool, ~vector.start & when)


def _renew(game: Game, vector: VectorState, pool: Any, ended: Bool[Array, " B"]) -> VectorState:
    """The next reset states in place of the ended episodes; their totals stay to be read."""
    blocks, block = jax.tree.leaves(pool)[0].shape[:2]
    slot = vector.head * block + vector.used + jnp.cumsum(ended) - ended
    slot = slot % (blocks * block)

    def renew(ready: Array, old: Array) -> Array:
        new = jax.lax.collapse(ready, 0, 2).at[slot].get(mode="promise_in_bounds")
        return jnp.where(jnp.expand_dims(ended, tuple(range(1, new.ndim))), new, old)

    state, next_step = vector.state, vector.time_step
    taken = jax.tree.map(renew, pool, reset_state(game, state, next_step))
    alive, mask = next_step.alive, taken.action_mask
    if taken.alive is not None:
        alive = jnp.any(taken.alive, -1, keepdims=True) if game.joint else taken.alive
    if mask is None:
        mask = next_step.action_mask
        if game.mortal:
            everything = jnp.broadcast_to(game.players.available_actions, mask.shape)
            mask = usable(everything, alive, bool(game.players.actions))
    time_step = dataclasses.replace(
        next_step,
        observations=taken.observations,
        central=taken.central,
        action_mask=mask,
        alive=alive,
    )
    return dataclasses.replace(
        vector,
        state=GameState(taken.env, jnp.where(ended, 0, state.t), taken.alive, taken.frames),
        time_step=time_step,
        start=vector.start | ended,
        used=vector.used + jnp.sum(ended, dtype=jnp.int32),
    )


def _count_on(words: UInt[Array, "2"], more: Any) -> UInt[Array, "2"]:
    """Adds to a 64-bit count held as two 32-bit words, low first."""
    low = words[0] + jnp.asarray(more, jnp.uint32)
    return jnp.stack([low, words[1] + (low < words[0]).astype(jnp.uint32)])
