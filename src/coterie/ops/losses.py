"""Targets and losses: pure functions on arrays with any leading axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def one_step_target(
    rewards: Float[Array, "*S"],
    terminated: Bool[Array, "*S"],
    next_values: Float[Array, "*S"],
    gamma: float,
) -> Float[Array, "*S"]:
    """y = r + γ (1 − terminated) v', constant to the optimiser (book eq. 8.6; lecture, IDQN 13-16).

    Only a true termination cuts the bootstrap: a truncated step keeps v' of its final observation.
    """
    return jax.lax.stop_gradient(rewards + gamma * jnp.where(terminated, 0.0, next_values))


def summed_mean(losses: Float[Array, "*S M"], weight: Float[Array, "*S M"]) -> Float[Array, ""]:
    """Sum over agents (last axis) of each one's weighted mean over all other axes.

    The weight is 0 for steps that do not count (a dead agent's) and 1 otherwise.
    """
    axes = tuple(range(losses.ndim - 1))
    total = jnp.sum(jnp.where(weight > 0, losses * weight, 0.0), axis=axes)
    return jnp.sum(total / jnp.maximum(jnp.sum(weight, axis=axes), 1.0))
