"""Targets and losses: pure functions on arrays with any leading axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from coterie.ops.action_selection import mask_illegal
from coterie.types import Number, PyTree


def one_step_target(
    rewards: Float[Array, "*S"],
    terminated: Bool[Array, "*S"],
    next_values: Float[Array, "*S"],
    gamma: Number,
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


def masked_mean(values: Shaped[Array, "*S"], mask: Bool[Array, "*S"]) -> Float[Array, ""]:
    """Mean of the values whose mask is set; 0 if none is."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1.0)


def explained_variance(
    targets: PyTree, values: PyTree, counts: Bool[Array, "T B N"]
) -> Float[Array, ""]:
    """1 − Var(y − V)/Var(y), over all steps that count, averaged over agents that have any.

    1 where values equal their targets, 0 where they are as good as a constant, and where targets
    do not vary; −1 at least, or targets that hardly vary would decide every mean. Of several
    targets [T, B, N, ...], or of several arrays, it is the mean.
    """
    known = jnp.any(counts, axis=(0, 1))

    def explained(y: Float[Array, "T B N *E"], v: Float[Array, "T B N *E"]) -> Float[Array, ""]:
        weight = counts.reshape(counts.shape + (1,) * (y.ndim - counts.ndim))
        count = jnp.maximum(jnp.sum(weight, axis=(0, 1)), 1)

        def variance(x: Float[Array, "T B N *E"]) -> Float[Array, "N *E"]:
            mean = jnp.sum(jnp.where(weight, x, 0.0), axis=(0, 1)) / count
            return jnp.sum(jnp.where(weight, (x - mean) ** 2, 0.0), axis=(0, 1)) / count

        total, left = variance(y), variance(y - v)
        size = jnp.sum(jnp.where(weight, y**2, 0.0), axis=(0, 1)) / count
        varied = total > 1e-8 * size
        each = jnp.maximum(jnp.where(varied, 1 - left / jnp.where(varied, total, 1.0), 0.0), -1.0)
        some = jnp.broadcast_to(known.reshape(known.shape + (1,) * (each.ndim - 1)), each.shape)
        return masked_mean(each, some)

    each = jax.tree.leaves(jax.tree.map(explained, targets, values))
    return jnp.mean(jnp.stack(each))


def log_probabilities(
    logits: Float[Array, "*S A"], mask: Bool[Array, "*S A"]
) -> Float[Array, "*S A"]:
    """log π(· | h) of a softmax over the legal actions; about -10³⁰ where illegal, never NaN."""
    return jax.nn.log_softmax(mask_illegal(logits, mask), axis=-1)


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
    behaviour_log_probs: Float[Array, "*S"],
    advantages: Float[Array, "*S"],
    clip: Number,
) -> Float[Array, "*S"]:
    """−min(ρ Adv, clip(ρ, 1 − ε, 1 + ε) Adv), ρ = π(a | h)/π_β(a | h) (Schulman et al. 2017).

    Args:
        behaviour_log_probs: log π_β(a | h), stored when the action was taken.
        clip: ε.
    """
    advantages = jax.lax.stop_gradient(advantages)
    ratio = jnp.exp(log_probs - behaviour_log_probs)
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
