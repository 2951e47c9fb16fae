"""Playing episodes without learning, compiled; what every reported return is made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coterie.envs.views import Game
from coterie.networks import PerAgent
from coterie.ops.exploration import greedy
from coterie.types import PRNGKey, UsageError

NO_LIMIT_STEPS = 10_000
"""Episodes of a game without a time limit are cut here when they are evaluated."""


def play(
    game: Game, policy: PerAgent, key: PRNGKey, episodes: int
) -> tuple[Float[Array, "E N"], Float[Array, " E"]]:
    """Greedy episodes from fresh starts: returns of the environment's own rewards, and lengths."""
    reset_key, step_key = jax.random.split(key)
    state, shown = jax.vmap(game.reset)(jax.random.split(reset_key, episodes))
    n = game.spec.n_agents
    limit = game.spec.time_limit or NO_LIMIT_STEPS
    never = jnp.zeros((episodes, n), bool)

    def going(carry: Any) -> Array:
        t, over = carry[0], carry[4]
        return (t < limit) & ~jnp.all(over)

    def step(carry: Any) -> Any:
        t, state, shown, memory, over, returns, lengths = carry
        scores, memory = policy.step(memory, shown.observations, never)
        actions = greedy(scores, shown.action_mask)
        keys = jax.random.split(jax.random.fold_in(step_key, t), episodes)
        state, shown = jax.vmap(game.step)(keys, state, actions)
        live = ~over
        returns = returns + jnp.where(live[:, None], shown.rewards, 0.0)
        over = over | shown.terminated | shown.truncated
        return t + 1, state, shown, memory, over, returns, lengths + live

    memory = policy.initial_memory(episodes)
    start = (
        0,
        state,
        shown,
        memory,
        jnp.zeros(episodes, bool),
        jnp.zeros((episodes, n)),
        jnp.zeros(episodes),
    )
    carry = jax.lax.while_loop(going, step, start)
    return carry[5], carry[6]


def return_metrics(
    prefix: str, agents: tuple[str, ...], returns: Any, lengths: Any
) -> dict[str, float]:
    """Mean returns and length under their fixed names.

    Args:
        returns: [E, N] or already averaged [N]; lengths: [E] or a number.
    """
    mean = np.asarray(returns, np.float64).reshape(-1, len(agents)).mean(0)
    if not np.all(np.isfinite(mean)):
        raise UsageError(f"returns are not finite: {dict(zip(agents, mean.tolist(), strict=True))}")
    metrics = {f"{prefix}/return/agent/{a}": float(r) for a, r in zip(agents, mean, strict=True)}
    metrics[f"{prefix}/return/team_sum"] = float(mean.sum())
    metrics[f"{prefix}/return/team_mean"] = float(mean.mean())
    metrics[f"{prefix}/length"] = float(np.mean(lengths, dtype=np.float64))
    return metrics


def play_hosted(env: Any, policy: PerAgent, episodes: int, seed: int) -> tuple[Any, Any]:
    """Greedy episodes in a hosted environment, one after the other: returns [E, N], lengths [E]."""
    never = jnp.zeros(env.spec.n_agents, bool)

    @jax.jit
    def act(memory: Array, observations: Array, mask: Array) -> tuple[Array, Array]:
        scores, memory = policy.step(memory, observations, never)
        return greedy(scores, mask), memory

    returns, lengths = np.zeros((episodes, env.spec.n_agents)), np.zeros(episodes)
    for e in range(episodes):
        shown = env.reset(seed if e == 0 else None)
        memory = policy.initial_memory()
        while not (shown.terminated or shown.truncated):
            actions, memory = act(memory, shown.observations, shown.action_mask)
            shown = env.step(np.asarray(actions))
            returns[e] += shown.rewards
            lengths[e] += 1
            if lengths[e] >= NO_LIMIT_STEPS:
                break
    return returns, lengths
