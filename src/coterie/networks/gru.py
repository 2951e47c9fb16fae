"""The gated recurrent unit along a sequence (Cho et al. 2014), with the gradient written out.

    r = σ(x_r + p_r),  u = σ(x_u + p_u),  n = tanh(x_n + r p_n),  with p = h W + b
    h' = (1 − u) n + u h

Two things make it fast on a CPU. The inputs of the three gates are three arrays: XLA does not
vectorise a loop that takes a step of one array and then slices it. And the gradient of W is one
product over all steps, where JAX's own would add up one for each step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.networks.products import of_weight

Gates = tuple[Float[Array, "T *M H"], Float[Array, "T *M H"], Float[Array, "T *M H"]]


@jax.custom_vjp
def hidden_states(
    weight: Float[Array, "H G"],
    bias: Float[Array, " G"],
    inputs: Gates,
    start: Bool[Array, "T *M"],
    first: Float[Array, "*M H"],
) -> Float[Array, "T *M H"]:
    """The hidden state after every step; G = 3H.

    Args:
        weight: W of the reset gate, the update gate and the candidate side by side.
        bias: b of the same.
        inputs: x_r, x_u and x_n at every step.
        start: where an episode begins, with zeros as the hidden state.
        first: the hidden state before the first step.
    """
    return _forward(weight, bias, inputs, start, first)[0]


def _forward(weight, bias, inputs, start, first):
    def step(h, now):
        (x_r, x_u, x_n), begins = now
        h = jnp.where(begins[..., None], 0.0, h)
        p_r, p_u, p_n = jnp.split(h @ weight + bias, 3, axis=-1)
        r, u = jax.nn.sigmoid(x_r + p_r), jax.nn.sigmoid(x_u + p_u)
        n = jnp.tanh(x_n + r * p_n)
        new = (1 - u) * n + u * h
        return new, (new, (h, r, u, n, p_n))

    _, (after, kept) = jax.lax.scan(step, first, (inputs, start))
    return after, (weight, kept, start)


def _backward(residuals, d_after):
    weight, (h, r, u, n, p_n), start = residuals
    to_n, to_u = (1 - u) * (1 - n**2), (h - n) * u * (1 - u)
    to_r = p_n * r * (1 - r)

    def step(d_next, now):
        d_h, to_n, to_u, to_r, r, u, begins = now
        d_h = d_h + d_next
        d_n, d_u = d_h * to_n, d_h * to_u
        d_r = d_n * to_r
        d_p = jnp.concatenate([d_r, d_u, d_n * r], axis=-1)
        d_before = jnp.where(begins[..., None], 0.0, d_h * u + d_p @ weight.T)
        return d_before, (d_p, (d_r, d_u, d_n))

    steps = (d_after, to_n, to_u, to_r, r, u, start)
    d_first, (d_p, d_inputs) = jax.lax.scan(step, jnp.zeros_like(h[0]), steps, reverse=True)
    h, d_p = (x.reshape(-1, x.shape[-1]) for x in (h, d_p))
    return of_weight(h, d_p), jnp.sum(d_p, axis=0), d_inputs, None, d_first


hidden_states.defvjp(_forward, _backward)
