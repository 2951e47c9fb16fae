"""What IPPO and MAPPO share: passes over a rollout, and diagnostics of the ratio."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.learners.parts import ProximalSettings
from coterie.ops.losses import masked_mean
from coterie.types import Number


def minibatches(settings: ProximalSettings) -> int:
    """Parts a rollout is split into, as asked for or as usual."""
    usual = max(m for m in (1, 2, 3, 4) if settings.environments % m == 0)
    return settings.minibatches or usual


def ratio_diagnostics(
    log_probs: Float[Array, "T B N"],
    behaviour_log_probs: Float[Array, "T B N"],
    alive: Bool[Array, "T B N"],
    clip: Number,
) -> dict[str, Float[Array, ""]]:
    """How far π is from the behaviour policy π_β, means over living agents' steps.

    ``kl`` estimates KL(π_β ‖ π) by the mean of ρ − 1 − log ρ ≥ 0 (Schulman 2020);
    ``clip_fraction`` is the share of steps whose ratio ρ is outside 1 ± ε.
    """
    log_ratio = log_probs - behaviour_log_probs
    change = jnp.expm1(log_ratio)  # ρ − 1, exact where ρ is close to 1
    return {
        "kl": masked_mean(change - log_ratio, alive),
        "clip_fraction": masked_mean(jnp.abs(change) > clip, alive),
    }
