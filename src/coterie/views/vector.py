"""K environments stepping together, with starts prepared in batches outside the scan.

A reset costs more than a step, so starts are drawn in blocks before they are needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coterie.types import PRNGKey, PyTree, UInt
from coterie.views.game import Game, GameState, TimeStep, usable

SEED_AXIS = "seed"
"""Name of the outer ``vmap`` axis over seeds; every compiled loop runs under it."""


class Start(eqx.Module):
    """What differs between the starts of a game; masks and alive flags only where they vary.

    ``alive`` is of the environment's own agents.
    """

    env: PyTree
    observations: Float[Array, "*S N O"]
    central: Float[Array, "*S Z"]
    action_mask: Bool[Array, "*S N A"] | None
    alive: Bool[Array, "*S R"] | None


def as_start(game: Game, state: GameState, view: TimeStep) -> Start:
    """The parts of a state and its view that a prepared start replaces."""
    masks = game.varies[0]
    return Start(
        state.env,
        view.observations,
        view.central,
        view.action_mask if masks else None,
        state.alive,
    )


class VectorState(eqx.Module):
    """K environments side by side, and the starts prepared for those that will end.

    Start number j of a seed is drawn from ``fold_in(key, j)``: each is used once, and which one an
    episode gets does not depend on when the pool was filled. j is two 32-bit words, low first.

    Attributes:
        state, shown: [B] current states and what the agents see; ``shown``'s rewards and flags are
            those of the last step, also where a new episode begins.
        fresh: [B] the current observation is the first of its episode.
        returns, lengths: running totals of the episode, in the environment's own rewards.
        pool: [blocks, block] prepared starts, a ring; None inside a scan, which reads the pool
            from outside.
        head: the ring's oldest block.
        used: starts taken since the beginning of that block.
        drawn: number of that block's first start.
    """

    state: GameState
    shown: TimeStep
    fresh: Bool[Array, " B"]
    returns: Float[Array, "B R"]
    lengths: Int[Array, " B"]
    pool: Any
    head: Int[Array, ""]
    used: Int[Array, ""]
    drawn: UInt[Array, "2"]
    key: PRNGKey


def init_vector(game: Game, key: PRNGKey, environments: int, steps: int) -> VectorState:
    """K fresh environments and a pool that ``refill`` keeps good for ``steps`` steps of each."""
    first = jnp.zeros(2, jnp.uint32)
    state, shown = draw_starts(game, key, first, environments)
    first = _count_on(first, environments)
    # A block is small enough to stay in the cache, and large enough to fill vector units.
    block = min(max(environments * steps, 16), 1024)
    blocks = -(-environments * steps // block) + 1
    pool = jax.lax.map(
        lambda b: as_start(game, *draw_starts(game, key, _count_on(first, b * block), block)),
        jnp.arange(blocks, dtype=jnp.uint32),
    )
    return VectorState(
        state=state,
        shown=shown,
        fresh=jnp.ones(environments, bool),
        returns=jnp.zeros((environments, game.players.n_agents)),
        lengths=jnp.zeros(environments, jnp.int32),
        pool=pool,
        head=jnp.zeros((), jnp.int32),
        used=jnp.zeros((), jnp.int32),
        drawn=first,
        key=key,
    )


def draw_starts(
    game: Game, key: PRNGKey, first: UInt[Array, "2"], count: int
) -> tuple[GameState, TimeStep]:
    """Starts ``first`` .. ``first + count - 1`` of this key's endless sequence, [count]."""

    def one(offset: UInt[Array, ""]) -> tuple[GameState, TimeStep]:
        low, high = _count_on(first, offset)
        return game.reset(jax.random.fold_in(jax.random.fold_in(key, high), low))

    return jax.vmap(one)(jnp.arange(count, dtype=jnp.uint32))


def refill(game: Game, vector: VectorState) -> VectorState:
    """Draws used-up blocks of the pool anew; then all blocks but one are surely ready.

    A loop and not a branch: its carry is updated in place, and a loop that runs zero times costs
    nothing. Seeds share the number of turns; one that has no block to spare draws its oldest
    block again, which gives the same starts.
    """
    blocks, block = jax.tree.leaves(vector.pool)[0].shape[:2]

    def redraw(_: Array, v: VectorState) -> VectorState:
        spare = v.used >= block
        numbers = _count_on(v.drawn, jnp.where(spare, blocks * block, 0))
        fresh = as_start(game, *draw_starts(game, v.key, numbers, block))
        pool = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, v.head, 0),
            v.pool,
            fresh,
        )
        head = jnp.where(spare, (v.head + 1) % blocks, v.head)
        used = jnp.where(spare, v.used - block, v.used)
        drawn = jnp.where(spare, _count_on(v.drawn, block), v.drawn)
        return dataclasses.replace(v, pool=pool, head=head, used=used, drawn=drawn)

    turns = jax.lax.pmax(vector.used // block, SEED_AXIS)
    return jax.lax.fori_loop(0, turns, redraw, vector)


def step_vector(
    game: Game, vector: VectorState, pool: Any, keys: Any, actions: Int[Array, "B N"]
) -> tuple[VectorState, TimeStep]:
    """Steps all K environments and starts the ended ones anew.

    Returns:
        the new state (whose ``shown`` is what to act on next), and the views the actions
        truly led to [B]: their observations are the final ones where an episode ended.
    """
    state, led_to = jax.vmap(game.step)(keys, vector.state, actions)
    going = ~vector.fresh
    stepped = dataclasses.replace(
        vector,
        state=state,
        shown=led_to.onward(),
        fresh=jnp.zeros_like(vector.fresh),
        returns=vector.returns * going[:, None] + led_to.rewards,
        lengths=vector.lengths * going + 1,
    )
    return _renew(game, stepped, pool, led_to.terminated | led_to.truncated), led_to


def restart(game: Game, vector: VectorState, pool: Any) -> VectorState:
    """Breaks off every episode that has begun and starts a new one in its place."""
    return _renew(game, vector, pool, ~vector.fresh)


def _renew(game: Game, vector: VectorState, pool: Any, ended: Bool[Array, " B"]) -> VectorState:
    """The next prepared starts in place of the ended episodes; their totals stay to be read."""
    blocks, block = jax.tree.leaves(pool)[0].shape[:2]
    slot = vector.head * block + vector.used + jnp.cumsum(ended) - ended
    slot = slot % (blocks * block)

    def renew(prepared: Array, old: Array) -> Array:
        new = jax.lax.collapse(prepared, 0, 2).at[slot].get(mode="promise_in_bounds")
        return jnp.where(jnp.expand_dims(ended, tuple(range(1, new.ndim))), new, old)

    state, led_to = vector.state, vector.shown
    start = jax.tree.map(renew, pool, as_start(game, state, led_to))
    alive, mask = led_to.alive, start.action_mask
    if start.alive is not None:
        alive = jnp.any(start.alive, -1, keepdims=True) if game.joint else start.alive
    if mask is None:
        mask = led_to.action_mask
        if game.mortal:
            mask = usable(jnp.broadcast_to(game.players.available_actions, mask.shape), alive)
    shown = dataclasses.replace(
        led_to,
        observations=start.observations,
        central=start.central,
        action_mask=mask,
        alive=alive,
    )
    return dataclasses.replace(
        vector,
        state=GameState(start.env, jnp.where(ended, 0, state.t), start.alive),
        shown=shown,
        fresh=vector.fresh | ended,
        used=vector.used + jnp.sum(ended, dtype=jnp.int32),
    )


def _count_on(words: UInt[Array, "2"], more: Any) -> UInt[Array, "2"]:
    """Adds to a 64-bit count held as two 32-bit words, low first."""
    low = words[0] + jnp.asarray(more, jnp.uint32)
    return jnp.stack([low, words[1] + (low < words[0]).astype(jnp.uint32)])
