"""Choosing actions: masked arg max, per-agent ε-greedy, sampling from a policy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ILLEGAL = -1e30
"""Stands in for -∞ where an action is illegal: arithmetic on it stays finite."""


def mask_illegal(values: Float[Array, "*S A"], mask: Bool[Array, "*S A"]) -> Float[Array, "*S A"]:
    """Logits or Q-values, illegal ones at -1e30; a row without a legal action is left as it is."""
    usable = mask | ~jnp.any(mask, axis=-1, keepdims=True)
    return jnp.where(usable, values, ILLEGAL)


def greedy(values: Float[Array, "*S A"], mask: Bool[Array, "*S A"]) -> Int[Array, "*S"]:
    """arg max over the legal actions; the first of equals, action 0 where none is legal."""
    return jnp.argmax(jnp.where(mask, values, -jnp.inf), axis=-1).astype(jnp.int32)


def masked_max(values: Float[Array, "*S A"], mask: Bool[Array, "*S A"]) -> Float[Array, "*S"]:
    """max over the legal actions; 0 where none is legal (a dead agent's value)."""
    best = jnp.max(jnp.where(mask, values, ILLEGAL), axis=-1)
    return jnp.where(jnp.any(mask, axis=-1), best, 0.0)


def of_action(values: Float[Array, "*S A"], actions: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """values[..., a]: what stands under the action that was taken."""
    return jnp.take_along_axis(values, actions[..., None], axis=-1)[..., 0]


def random_action(u: Float[Array, "*S"], mask: Bool[Array, "*S A"]) -> Int[Array, "*S"]:
    """The legal action that a uniform draw u in [0, 1) selects; action 0 where none is legal."""
    count = jnp.cumsum(mask, axis=-1)
    wanted = jnp.floor(u * count[..., -1]) + 1
    return jnp.argmax(count >= wanted[..., None], axis=-1).astype(jnp.int32)


def epsilon_greedy(
    q: Float[Array, "*S N A"],
    mask: Bool[Array, "*S N A"],
    epsilon: Float[Array, ""],
    coin: Float[Array, "*S N"],
    draw: Float[Array, "*S N"],
) -> Int[Array, "*S N"]:
    """ε-greedy actions, book §9.3: each agent tosses its own coin (lecture, IDQN lines 6-8).

    Args:
        coin, draw: independent uniforms in [0, 1): whether to explore, and which action then.
    """
    return jnp.where(coin < epsilon, random_action(draw, mask), greedy(q, mask))


def sample(
    logits: Float[Array, "*S A"], mask: Bool[Array, "*S A"], u: Float[Array, "*S"]
) -> Int[Array, "*S"]:
    """a ~ softmax(logits) over the legal actions, from a uniform u in [0, 1); 0 if none is legal.

    Inverts the distribution function: one random number a sample instead of one an action. Long
    sums are rounded in an order that varies along them, so that even an illegal action, which
    adds 0, could be the first to exceed u: its sum is left out.
    """
    weights = jnp.where(mask, jax.nn.softmax(mask_illegal(logits, mask), axis=-1), 0.0)
    cumulative = jnp.where(mask, jnp.cumsum(weights, axis=-1), 0.0)
    target = u[..., None] * jnp.max(cumulative, axis=-1, keepdims=True)
    return jnp.argmax(cumulative > target, axis=-1).astype(jnp.int32)
