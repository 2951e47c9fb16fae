"""Games of few states, in which everything about a joint policy can be computed exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coterie.errors import UsageError
from coterie.games.solution_concepts import count_agents
from coterie.ops.losses import log_probabilities

Logits = Sequence[Any]
"""For each agent float [O_i, A_i], a softmax policy for each observation, or [A_i] for all."""


@dataclass(frozen=True)
class FiniteGame:
    """A game of S states and J joint actions that starts in state 0 and ends for certain.

    Joint actions are numbered in row-major order: the last agent's action varies fastest.

    Attributes:
        rewards: float [S, J, N].
        follows: int [S, J], the next state; S where the game is over.
        seen: int [N, S], the number of what each agent observes in each state.
        action_counts: |A_i| of each agent.
        horizon: joint actions after which it is surely over.
    """

    rewards: np.ndarray
    follows: np.ndarray
    seen: np.ndarray
    action_counts: tuple[int, ...]
    horizon: int

    @property
    def n_agents(self) -> int:
        return len(self.action_counts)

    @property
    def states(self) -> int:
        return len(self.rewards)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much a joint action's number grows with each agent's part."""
        return tuple(math.prod(self.action_counts[i + 1 :]) for i in range(self.n_agents))


def matrix_game(
    payoffs: Float[np.ndarray, "*A n"], rounds: int = 1, sees: Literal["joint", "own"] = "joint"
) -> FiniteGame:
    """A matrix game as a ``FiniteGame``; a state is the round and the joint action before it.

    Args:
        payoffs: float [A_1, ..., A_n, n].
        rounds: how often it is played.
        sees: beside the round, each agent knows the whole last joint action, or its own part.

    Raises:
        UsageError: payoffs of another shape, no rounds.
    """
    counts, n = payoffs.shape[:-1], count_agents(payoffs)
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1; got {rounds}")
    joint = math.prod(counts)
    states = 1 + (rounds - 1) * joint
    now = np.repeat(np.arange(rounds), [1] + [joint] * (rounds - 1))
    last = np.arange(states - 1) % joint
    parts = np.stack(np.unravel_index(last, counts)) if sees == "own" else np.tile(last, (n, 1))
    sizes = np.array(counts if sees == "own" else [joint] * n)[:, None]
    seen = np.concatenate([np.zeros((n, 1), int), 1 + (now[1:] - 1) * sizes + parts], axis=1)
    follows = 1 + now[:, None] * joint + np.arange(joint)
    return FiniteGame(
        rewards=np.broadcast_to(payoffs.reshape(joint, n), (states, joint, n)),
        follows=np.minimum(follows, states),
        seen=seen,
        action_counts=counts,
        horizon=rounds,
    )


def log_policies(game: FiniteGame, logits: Logits) -> list[Array]:
    """log π_i(a_i | h_i) in each state, float [S, A_i] for each agent."""
    if len(logits) != game.n_agents:
        raise UsageError(f"logits must hold one array for each of {game.n_agents} agents")
    policies = []
    for own, count, seen in zip(logits, game.action_counts, game.seen, strict=True):
        shape = (int(seen.max()) + 1, count)
        if jnp.shape(own) not in (shape, shape[1:]):
            raise UsageError(f"logits must be {list(shape)} or [{count}]; got {jnp.shape(own)}")
        own_logits = jnp.broadcast_to(jnp.asarray(own, jnp.float32), shape)[seen]
        policies.append(log_probabilities(own_logits, jnp.ones(own_logits.shape, bool)))
    return policies


def joint_policy(game: FiniteGame, logits: Logits) -> Float[Array, "S J"]:
    """π(a | s) = Π_i π_i(a_i | h_i)."""
    own = np.unravel_index(np.arange(math.prod(game.action_counts)), game.action_counts)
    log_probs = log_policies(game, logits)
    return jnp.exp(jnp.sum(jnp.stack([p[:, a] for p, a in zip(log_probs, own, strict=True)]), 0))


def state_values(game: FiniteGame, logits: Logits) -> Float[Array, "S N"]:
    """V_i(s), the expected return from each state: backwards from the end, through every a."""
    policy, follows = joint_policy(game, logits), jnp.asarray(game.follows)
    rewards = jnp.asarray(game.rewards, jnp.float32)

    def back(_: Any, after: Array) -> Array:
        v = jnp.einsum("sj,sjn->sn", policy, rewards + after[follows])
        return jnp.concatenate([v, jnp.zeros((1, game.n_agents))])

    over = jnp.zeros((game.states + 1, game.n_agents))
    return jax.lax.fori_loop(0, game.horizon, back, over)[:-1]


def exact_gradients(game: FiniteGame, logits: Logits) -> list[np.ndarray]:
    """∇ J_i with respect to agent i's own logits, of their shape, for each agent."""
    given = [jnp.asarray(own, jnp.float32) for own in logits]
    jacobian = jax.jit(jax.jacrev(lambda x: state_values(game, x)[0]))(given)
    return [np.asarray(jacobian[i][i], np.float64) for i in range(game.n_agents)]


def visits(game: FiniteGame, logits: Logits) -> Float[Array, " S"]:
    """How often an episode passes through each state, in expectation."""
    policy, follows = joint_policy(game, logits), jnp.asarray(game.follows)
    now = jnp.zeros(game.states).at[0].set(1.0)
    total = now
    for _ in range(game.horizon - 1):
        now = jnp.zeros(game.states + 1).at[follows].add(now[:, None] * policy)[:-1]
        total = total + now
    return total
