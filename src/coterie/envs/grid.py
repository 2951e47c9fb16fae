"""Places in a grid, for environments played on one."""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
import numpy as np

from coterie.types import Array, Bool, Float, Int, UInt

MISSING = (-1.0, -1.0, 0.0)
"""Row, column and level of an entity that is not there."""


def distinct(bits: UInt[Array, " N"], n: int) -> list[UInt[Array, ""]]:
    """Numbers below n, one for each word of random bits, every ordered choice equally likely."""
    chosen, ascending = [], []
    for k in range(bits.shape[0]):
        number = bits[k] % (n - k)
        number = reduce(lambda x, earlier: x + (x >= earlier), ascending, number)
        chosen.append(number)
        last = number
        for i, earlier in enumerate(ascending):
            ascending[i], last = jnp.minimum(earlier, last), jnp.maximum(earlier, last)
        ascending.append(last)
    return chosen


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
