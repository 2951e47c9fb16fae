"""The product of rows and a weight matrix, with the gradient's products written out.

A CPU takes up to three times as long for the gradient of W as JAX writes it down: over several
axes of rows, whose transposition XLA does not do in blocks, and with the larger factor first.
"""

from __future__ import annotations

import math

import jax
from jaxtyping import Array, Float


def affine(
    x: Float[Array, "*S I"], weight: Float[Array, "I J"], bias: Float[Array, " J"]
) -> Float[Array, "*S J"]:
    """x W + b."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return (_times(rows, weight) + bias).reshape(*x.shape[:-1], bias.shape[-1])


@jax.custom_vjp
def _times(x: Float[Array, "R I"], weight: Float[Array, "I J"]) -> Float[Array, "R J"]:
    return x @ weight


def of_weight(x: Float[Array, "R I"], d_y: Float[Array, "R J"]) -> Float[Array, "I J"]:
    """The gradient of W where y = x W, from that of y."""
    over_rows = (((0,), (0,)), ((), ()))  # a transposition of its own would be copied first
    if x.shape[1] > d_y.shape[1]:
        return jax.lax.dot_general(d_y, x, over_rows).T
    return jax.lax.dot_general(x, d_y, over_rows)


_times.defvjp(
    lambda x, weight: (x @ weight, (x, weight)),
    lambda kept, d_y: (d_y @ kept[1].T, of_weight(kept[0], d_y)),
)
