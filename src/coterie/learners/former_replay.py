"""Replay of runs up to format 3, which kept with every step the observation that followed it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from coterie.learners.replay import Replay, period, store
from coterie.spec import Observation
from coterie.types import PyTree, Transition, transition
from coterie.views.steps import Steps


def former_items(ring: Replay) -> dict[str, PyTree]:
    """Shapes of the former leaves of a replay with a leading axis of seeds S, by name.

    Items of L steps lie in the order in which they were cut out of rollouts, [S, C/L · K, L, ...].
    """
    layout = ring.layout
    seeds, environments = ring.full.shape[:2]
    items = layout.capacity // layout.length * environments

    def item(like: Any, rows: int = layout.length) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((seeds, items, rows, *like.shape[3:]), like.dtype)

    stored = {name: getattr(ring.stored, name) for name in _STEPS}
    seen = ring.seen._asdict()
    nexts = {f"next_{name}": seen[name] for name in seen}
    del seen["action_mask"]
    former = jax.tree.map(item, {**seen, **nexts, **stored, "more": ring.stored.more})
    return former | {"hidden_state": item(ring.hidden_state, 1)}


_STEPS = ("start", "actions", "rewards", "terminated", "counts")


def converted(
    like: Replay, former: dict[str, PyTree], rollouts: int, ended: Bool[Array, "S K"]
) -> Replay:
    """The ring that would have come of the same rollouts, stored one after the other.

    Args:
        like: shapes, with a leading axis of seeds S.
        former: leaves with the shapes of ``former_items``.
        rollouts: that were collected; the newest of them are there.
        ended: where the newest step ended an episode.
    """
    layout, environments = like.layout, like.full.shape[1]
    oldest = max(rollouts - layout.rollouts, 0)
    each = layout.steps // layout.length
    newest = (rollouts * layout.steps - 1) % layout.capacity
    numbers = np.arange(oldest, rollouts)
    place = jnp.asarray(numbers % layout.rollouts)
    number = jnp.asarray(numbers % period(layout.rollouts))

    def one(former: dict[str, PyTree], ended: Bool[Array, " K"]) -> Replay:
        rows = jax.tree.map(lambda x: _rows(x, environments), former)
        hidden_states = rows.pop("hidden_state")
        history = _history(rows, newest, ended, like.full.shape[-1] > 1)

        def write(i: Array, ring: Replay) -> Replay:
            hidden_state = _slice(hidden_states, place[i] * each, each)
            rollout, steps = _slice(history, place[i] * layout.steps, layout.steps)
            rollout = dataclasses.replace(
                rollout, hidden_state=jnp.repeat(hidden_state, layout.length, axis=0)
            )
            slot = place[i] * each * environments
            return store(ring, rollout, steps, {"slot": slot, "rollout": number[i]})

        ring = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), like)
        return jax.lax.fori_loop(0, len(numbers), write, ring)

    return jax.jit(jax.vmap(one))(former, ended)


def _rows(x: Array, environments: int) -> Array:
    """Items [C/L · K, L, ...] as rows of steps, [C, K, ...]."""
    x = x.reshape(x.shape[0] // environments, environments, *x.shape[1:])
    x = jnp.moveaxis(x, 2, 1)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _slice(tree: PyTree, first: Array, count: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, count), tree)


def _history(
    rows: dict[str, PyTree], newest: int, ended: Bool[Array, " K"], alone: bool
) -> tuple[Transition, Steps]:
    """All steps [C, K], without hidden states. An episode ended where the next step is a start.

    Where agents can be truncated ``alone``, one was if it is not alive after a step that is not
    terminal to it.
    """
    start = rows["start"][..., 0]
    over = jnp.roll(start, -1, axis=0).at[newest].set(ended)
    left = rows["alive"] & ~rows["next_alive"] & ~rows["terminated"]
    before = Observation(
        rows["observations"],
        jnp.roll(rows["next_action_mask"], 1, axis=0),
        rows["alive"],
        rows["central"],
    )
    after = Observation(*(rows[f"next_{name}"] for name in Observation._fields))
    more = {"extras": (), **rows["more"]}
    history = transition(
        before, after, hidden_state=jnp.zeros((*left.shape, 0)), start=start,
        actions=rows["actions"], rewards=rows["rewards"], terminated=jnp.zeros_like(over),
        truncated=over, truncated_alone=left if alone else None, extras=more.pop("extras"),
    )  # fmt: skip
    history = dataclasses.replace(history, **more)
    terminated = rows["terminated"]
    return history, Steps(rows["rewards"], terminated, terminated, rows["counts"])
