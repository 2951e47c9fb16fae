"""Targets and losses: pure functions on arrays with any leading axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.ops.action_selection import mask_scores


def one_step_target(
    rewards: Float[Array, "*S"],
    terminated: Bool[Array, "*S"],
    next_values: Float[Array, "*S"],
    gamma: float | int,
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


def log_probabilities(
    scores: Float[Array, "*S A"], mask: Bool[Array, "*S A"]
) -> Float[Array, "*S A"]:
    """log π(· | h) of a softmax over the legal actions; about -10³⁰ where illegal, never NaN."""
    return jax.nn.log_softmax(mask_scores(scores, mask), axis=-1)


def entropy(log_probs: Float[Array, "*S A"], mask: Bool[Array, "*S A"]) -> Float[Array, "*S"]:
    """H(π) = −Σ_a π(a) log π(a) over the legal actions, in nats; 0 where none is legal."""
    return -jnp.sum(jnp.where(mask, jnp.exp(log_probs) * log_probs, 0.0), axis=-1)


def policy_gradient(
    log_probs: Float[Array, "*S"], advantages: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """−Adv log π(a | h), to be minimised; the lecture prints it without its minus sign.

    The advantage is constant to the optimiser (lecture, independent A2C line 15; book eq. 8.31).
    """
    return -jax.lax.stop_gradient(advantages) * log_probs


def clipped_surrogate(
    log_probs: Float[Array, "*S"],
    behaviour: Float[Array, "*S"],
    advantages: Float[Array, "*S"],
    clip: float | int,
) -> Float[Array, "*S"]:
    """−min(ρ Adv, clip(ρ, 1 − ε, 1 + ε) Adv), ρ = π(a | h)/π_β(a | h) (Schulman et al. 2017).

    Args:
        behaviour: log π_β(a | h), stored when the action was taken.
        clip: ε.
    """
    advantages = jax.lax.stop_gradient(advantages)
    ratio = jnp.exp(log_probs - behaviour)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def counterfactual_advantage(
    values: Float[Array, "*S A"],
    log_probs: Float[Array, "*S A"],
    chosen: Float[Array, "*S"],
) -> Float[Array, "*S"]:
    """Adv_i = Q(h, z, a) − Σ_a' π(a' | h_i) Q(h, z, ⟨a', a_-i⟩) (COMA, Foerster et al. 2018).

    Args:
        values: Q for every own action a', the others' actions held fixed.
        log_probs: log π(a' | h_i); illegal actions have probability 0.
        chosen: Q of the action taken.
    """
    return jax.lax.stop_gradient(chosen - jnp.sum(jnp.exp(log_probs) * values, axis=-1))


def normalise(values: Float[Array, "*S M"], weight: Bool[Array, "*S M"]) -> Float[Array, "*S M"]:
    """(x − mean) / std over all axes but the last (agents), of the entries that count."""
    axes = tuple(range(values.ndim - 1))
    count = jnp.maximum(jnp.sum(weight, axis=axes), 1)
    mean = jnp.sum(jnp.where(weight, values, 0.0), axis=axes) / count
    spread = jnp.sum(jnp.where(weight, (values - mean) ** 2, 0.0), axis=axes) / count
    return (values - mean) / (jnp.sqrt(spread) + 1e-8)
