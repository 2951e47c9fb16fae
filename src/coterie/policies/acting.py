"""Acting with a policy: the one place where actions are chosen."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from coterie.networks.per_agent import PerAgent
from coterie.ops.action_vectors import ActionVectors
from coterie.policies.distributions import Categorical, Distribution
from coterie.policies.vectors import VectorDistribution
from coterie.types import Actions, PRNGKey, PyTree


def distribution(
    policy: PerAgent, outputs: Float[Array, "*S N J"], mask: Bool[Array, "*S N A"]
) -> Distribution:
    """What a policy's outputs say: softmax over actions, or more where actions are vectors."""
    if policy.vectors is None:
        return Categorical(outputs, mask)
    return VectorDistribution(outputs, mask, policy.vectors)


def noise(
    key: PRNGKey, shape: tuple[int, ...], agents: int, vectors: ActionVectors | None
) -> Float[Array, "..."]:
    """What such a distribution samples from, [*shape, N] or [*shape, N, P]."""
    if vectors is None:
        return jax.random.uniform(key, (*shape, agents))
    return vectors.noise(key, shape)


def act(
    policy: PerAgent,
    hidden: Float[Array, "*S N H"],
    observations: Num[Array, "*S N O"],
    mask: Bool[Array, "*S N A"],
    noise: PyTree | None = None,
    *,
    start: Bool[Array, "*S"] | None = None,
    sampled: Bool[Array, "*S"] | None = None,
    explore: Callable[[Distribution], Distribution] | None = None,
    extras: Callable[[Distribution, Actions], PyTree] | None = None,
) -> tuple[Actions, Float[Array, "*S N H"], PyTree]:
    """Every agent's action on its own history; any leading axes.

    Args:
        hidden: the hidden state before these observations.
        mask: legal actions.
        noise: what the distribution samples from; without it agents take its mode.
        start: episodes that begin here, so with the initial hidden state; none unless given.
        sampled: where the actions are sampled, the mode elsewhere; everywhere unless given.
        explore: what is acted by instead of the policy's own distribution, made from it.
        extras: what else is wanted of the distribution and the actions, such as log π(a_i | h_i).

    Returns:
        actions, the hidden state to go on from, extras (() unless asked for).
    """
    agents = mask.shape[:-1]
    starts = (
        jnp.zeros(agents, bool) if start is None else jnp.broadcast_to(start[..., None], agents)
    )
    outputs, hidden = policy.step(hidden, observations, starts)
    chosen = distribution(policy, outputs, mask)
    if explore is not None:
        chosen = explore(chosen)
    if noise is None:
        actions = chosen.mode()
    elif sampled is None:
        actions = chosen.sample(noise)
    else:
        drawn = chosen.sample(noise)
        each = sampled.reshape(sampled.shape + (1,) * (drawn.ndim - sampled.ndim))
        actions = jnp.where(each, drawn, chosen.mode())
    return actions, hidden, () if extras is None else extras(chosen, actions)
