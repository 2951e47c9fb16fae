"""Returns along a rollout: time-major pure functions, T first, any axes after it.

Everywhere ``next_values`` are V of the state that a step led to (the final observation where an
episode ended), so ``next_values[t]`` equals ``values[t + 1]`` exactly where the episode goes on.
``terminated`` cuts the bootstrap; ``ended`` (terminated or truncated) stops the recursion, and so
does the rollout's last step: both bootstrap from ``next_values`` there unless terminated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.ops.losses import one_step_target
from coterie.types import Number


def reward_to_go(
    rewards: Float[Array, "T *S"], ended: Bool[Array, "T *S"], gamma: Number
) -> Float[Array, "T *S"]:
    """u_t = r_t + γ u_{t+1} within an episode (Monte-Carlo return; book §8.2.3, REINFORCE)."""

    def back(after: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, end = now
        u = reward + gamma * jnp.where(end, 0.0, after)
        return u, u

    _, returns = jax.lax.scan(back, jnp.zeros_like(rewards[0]), (rewards, ended), reverse=True)
    return jax.lax.stop_gradient(returns)


def discounted_so_far(
    rewards: Float[Array, "T *S"],
    start: Bool[Array, "T *S"],
    before: Float[Array, "*S"],
    gamma: Number,
) -> Float[Array, "T *S"]:
    """g_t = r_t + γ g_{t-1} within an episode: as large as values are, and known at once.

    Args:
        start: this is the first step of its episode.
        before: g of the step before the first one.
    """

    def on(g: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, first = now
        g = reward + gamma * jnp.where(first, 0.0, g)
        return g, g

    return jax.lax.scan(on, before, (rewards, start))[1]


def n_step_return(
    rewards: Float[Array, "T *S"],
    next_values: Float[Array, "T *S"],
    terminated: Bool[Array, "T *S"],
    ended: Bool[Array, "T *S"],
    gamma: Number,
    n: int,
) -> Float[Array, "T *S"]:
    """r_t + γ r_{t+1} + ... + γⁿ V(h_{t+n}), fewer steps where the episode or rollout ends before.

    Source: book §8.2.8 (n-step returns); n = 1 is the target of the lecture's A2C.
    """
    one = one_step_target(rewards, terminated, next_values, gamma)
    last = jnp.zeros_like(ended).at[-1].set(True) | ended

    def longer(_: Array, g: Array) -> Array:
        return jnp.where(last, one, rewards + gamma * jnp.roll(g, -1, axis=0))

    steps = min(n, rewards.shape[0]) - 1
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, longer, one) if steps else one)


def lambda_return(
    rewards: Float[Array, "T *S"],
    next_values: Float[Array, "T *S"],
    terminated: Bool[Array, "T *S"],
    ended: Bool[Array, "T *S"],
    gamma: Number,
    lam: Number,
) -> Float[Array, "T *S"]:
    """G_t = r_t + γ [(1 − λ) V(h_{t+1}) + λ G_{t+1}] (Sutton & Barto 2018, §12.1, TD(λ)).

    λ = 0 is the one-step target, λ = 1 the longest n-step return.
    """

    def back(after: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, value, terminal, end = now
        beyond = jnp.where(end, value, (1 - lam) * value + lam * after)
        g = reward + gamma * jnp.where(terminal, 0.0, beyond)
        return g, g

    steps = (rewards, next_values, terminated, ended)
    _, returns = jax.lax.scan(back, next_values[-1], steps, reverse=True)
    return jax.lax.stop_gradient(returns)


def gae(
    rewards: Float[Array, "T *S"],
    values: Float[Array, "T *S"],
    next_values: Float[Array, "T *S"],
    terminated: Bool[Array, "T *S"],
    ended: Bool[Array, "T *S"],
    gamma: Number,
    lam: Number,
) -> Float[Array, "T *S"]:
    """Adv_t = δ_t + γλ Adv_{t+1}, δ_t = r_t + γ V(h_{t+1}) − V(h_t) (Schulman et al. 2016).

    It equals the λ-return minus V(h_t), of which it is the other way to write.
    """
    g = lambda_return(rewards, next_values, terminated, ended, gamma, lam)
    return jax.lax.stop_gradient(g - values)
