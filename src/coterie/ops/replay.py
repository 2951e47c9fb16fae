"""Replay: a ring of equally long sequences. Three functions.

An item is a sequence of L steps of one environment (L = 1 without recurrence: a transition).
Where to write is a pure function of how much was collected, so it is computed on the host and
the same for all seeds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from coterie.types import PyTree


def init(item: PyTree, capacity: int) -> PyTree:
    """An empty ring [capacity, ...] for items like ``item`` (arrays or shape structs)."""
    return jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), item)


def add(ring: PyTree, items: PyTree, slot: Int[Array, ""]) -> PyTree:
    """Writes items [M, ...] at ``slot``; M divides the capacity, so a write never wraps."""

    def write(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis=0)

    return jax.tree.map(write, ring, items)


def sample(ring: PyTree, index: Int[Array, "*M"]) -> PyTree:
    """The items at ``index``, [*M, ...]."""
    return jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), ring)
