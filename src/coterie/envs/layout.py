"""How a batch of environments lies in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

UNROLLED = 16
"""Turns of a loop over entities that are compiled as one: all of them where there are few."""


def batch_last(function: Callable) -> Callable:
    """``function``, which under ``vmap`` then sees the batch as the last axis, not the first.

    Where axes are two or three long, XLA's loops run best along the batch (measured on a CPU at
    1,024 environments: foraging 2.6 times as fast).
    """
    call = custom_vmap(function)

    @call.def_vmap
    def rule(size, batched, *args):
        def last(x, is_batched):
            x = jnp.moveaxis(x, 0, -1) if is_batched else x[..., None]
            return jnp.broadcast_to(x, (*x.shape[:-1], size))

        out = function(*jax.tree.map(last, args, tuple(batched)))
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), out), jax.tree.map(
            lambda _: True, out
        )

    return call


def column(values: Any, extra: int) -> np.ndarray:
    """Constants, to be broadcast over ``extra`` trailing axes."""
    values = np.asarray(values)
    return values.reshape(*values.shape, *[1] * extra)
