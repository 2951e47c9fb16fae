"""Acting with a policy: the one place where actions are chosen."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coterie.networks.per_agent import PerAgent
from coterie.policies.distributions import Categorical, Distribution
from coterie.types import PyTree

Distribute = Callable[[Float[Array, "*S N A"], Bool[Array, "*S N A"]], Distribution]
"""What the networks say, and the legal actions -> the distribution that is acted by."""


def act(
    policy: PerAgent,
    hidden: Float[Array, "*S N H"],
    observations: Float[Array, "*S N O"],
    mask: Bool[Array, "*S N A"],
    noise: PyTree | None = None,
    *,
    start: Bool[Array, "*S"] | None = None,
    sampled: Bool[Array, "*S"] | None = None,
    distribution: Distribute = Categorical,
    extras: Callable[[Distribution, Int[Array, "*S N"]], PyTree] | None = None,
) -> tuple[Int[Array, "*S N"], Float[Array, "*S N H"], PyTree]:
    """Every agent's action on its own history; any leading axes.

    Args:
        hidden: the hidden state before these observations.
        mask: legal actions.
        noise: what the distribution samples from; without it agents take its mode.
        start: episodes that begin here, so with the initial hidden state; none unless given.
        sampled: where the actions are sampled, the mode elsewhere; everywhere unless given.
        extras: what else is wanted of the distribution and the actions, such as log π(a_i | h_i).

    Returns:
        actions, the hidden state to go on from, extras (() unless asked for).
    """
    agents = mask.shape[:-1]
    starts = (
        jnp.zeros(agents, bool) if start is None else jnp.broadcast_to(start[..., None], agents)
    )
    outputs, hidden = policy.step(hidden, observations, starts)
    chosen = distribution(outputs, mask)
    if noise is None:
        actions = chosen.mode()
    elif sampled is None:
        actions = chosen.sample(noise)
    else:
        actions = jnp.where(sampled[..., None], chosen.sample(noise), chosen.mode())
    return actions, hidden, () if extras is None else extras(chosen, actions)
