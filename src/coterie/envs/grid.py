"""Places in a grid, for environments played on one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from coterie.envs.layout import UNROLLED, column
from coterie.types import Array, Bool, Float, Int, UInt

MISSING = (-1.0, -1.0, 0.0)
"""Row, column and level of an entity that is not there."""


def distinct(bits: UInt[Array, " N *b"], n: int) -> UInt[Array, " N *b"]:
    """Numbers below n, one for each word of random bits, every ordered choice equally likely.

    Word k chooses among the n - k numbers that those before it leave, by rank. The ranks become
    numbers from the last to the first: each moves up all behind it that are not below it.
    """
    count = bits.shape[0]
    order = column(np.arange(count, dtype=np.uint32), bits.ndim - 1)

    def move_up(numbers: UInt[Array, " N *b"], k: Int[Array, ""]) -> tuple[Array, None]:
        here = jax.lax.dynamic_index_in_dim(numbers, k, 0)
        return numbers + ((order > k) & (numbers >= here)), None

    ranks = bits % (np.uint32(n) - order)
    backwards = jnp.arange(count - 1, -1, -1)
    return jax.lax.scan(move_up, ranks, backwards, unroll=UNROLLED)[0]


def place(
    rows: Float[Array, "M 3 *b"], keep: Bool[Array, " M *b"], slots: Int[Array, " M *b"]
) -> Float[Array, "M 3 *b"]:
    """The kept rows, each in its slot; missing ones elsewhere."""
    trailing = (1,) * (rows.ndim - 2)
    slot = np.arange(rows.shape[0]).reshape(-1, 1, *trailing)
    missing = np.asarray(MISSING, np.float32).reshape(3, *trailing)
    here = keep & (slots == slot)
    return jnp.sum(jnp.where(here[:, :, None], rows - missing, 0.0), 1) + missing


def compact(rows: Float[Array, "M 3 *b"], keep: Bool[Array, " M *b"]) -> Float[Array, "M 3 *b"]:
    """The kept rows first, in their order."""
    m = rows.shape[0]
    before = np.tri(m, k=-1, dtype=bool).reshape(m, m, *(1,) * (rows.ndim - 2))
    return place(rows, keep, jnp.sum(keep & before, 1))


def row_major(foods: Float[Array, "F 3"]) -> Float[Array, "F 3"]:
    """Foods in row-major order; missing ones last."""
    exists = foods[:, 2] > 0
    row, col = foods[:, 0], foods[:, 1]
    smaller = (row < row[:, None]) | ((row == row[:, None]) & (col < col[:, None]))
    return place(foods, exists, jnp.sum(smaller & exists, 1))
