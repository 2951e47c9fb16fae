"""The multi-agent policy-gradient theorem, checked: exact gradients against sampled estimators.

∇ J_i = E[Q_i(ĥ, a) ∇ log π_i(a_i | h_i)] (lecture, "The Multi-Agent Policy-Gradient Theorem"). In a
game of few states both sides can be computed: J_i by going through every joint action, and what the
algorithms make of sampled episodes, with the operators the algorithms themselves use. Returns are
undiscounted: the algorithms leave out the γ^t with which the theorem weighs step t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coterie.algorithms.coma import COMA
from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError
from coterie.games.finite import (
    FiniteGame,
    Logits,
    exact_gradients,
    log_policies,
    matrix_game,
    state_values,
    visits,
)
from coterie.games.solution_concepts import plain
from coterie.learners.actor_critic import ActorCritic
from coterie.learners.batches import Learner
from coterie.networks.per_agent import PerAgent
from coterie.ops.action_selection import of_action, sample
from coterie.ops.losses import counterfactual_advantage, policy_gradient
from coterie.ops.returns import n_step_return, reward_to_go
from coterie.runs.learner import learner
from coterie.runs.run import Run
from coterie.types import PRNGKey
from coterie.views.game import Game
from coterie.views.steps import learner_rewards


class Critics(eqx.Module):
    """What critics say of a policy, exactly or not; replace a field to see what an error does.

    Attributes:
        observed: V_i(h_i), one number for each observation.
        central: V_i(h_i, z), z the state.
        joint: Q_i(h_i, z, a).
    """

    observed: Float[Array, "N O"]
    central: Float[Array, "N S"]
    joint: Float[Array, "N S J"]


class Episode(eqx.Module):
    """One sampled episode, padded to the horizon T; ``live`` marks the steps that happened."""

    state: Int[Array, "*T"]
    live: Bool[Array, "*T"]
    actions: Int[Array, "*T N"]
    rewards: Float[Array, "*T N"]
    next_state: Int[Array, "*T"]


Advantage = Callable[[FiniteGame, Critics, Episode, list[Array]], Array]
"""Advantages [T, N] of an episode; the list holds each agent's log π_i, float [S, A_i]."""


def exact_critics(game: FiniteGame, logits: Logits) -> Critics:
    """The true values of these policies; V_i(h_i) averages over the states that look alike."""
    values = state_values(game, logits)
    weight = visits(game, logits)
    beyond = jnp.concatenate([values, jnp.zeros((1, game.n_agents))])[jnp.asarray(game.follows)]
    observed = []
    for i, seen in enumerate(game.seen):
        alike = jax.nn.one_hot(seen, int(game.seen.max()) + 1, axis=0)
        times = alike @ weight
        observed.append(alike @ (weight * values[:, i]) / jnp.where(times > 0, times, 1.0))
    q = jnp.asarray(game.rewards, jnp.float32) + beyond
    return Critics(jnp.stack(observed), values.T, jnp.moveaxis(q, -1, 0))


# The sampled side ----------------------------------------------------------------------------


def play(game: FiniteGame, log_probs: list[Array], key: PRNGKey) -> Episode:
    """One episode, its actions drawn from the policies."""
    rewards, follows = jnp.asarray(game.rewards, jnp.float32), jnp.asarray(game.follows)
    strides = jnp.asarray(game.strides)

    def step(state: Array, u: Array) -> tuple[Array, Episode]:
        live = state < game.states
        here = jnp.minimum(state, game.states - 1)
        drawn = [
            sample(own[here], jnp.ones(own.shape[-1], bool), u[i])
            for i, own in enumerate(log_probs)
        ]
        actions = jnp.stack(drawn)
        number = jnp.dot(actions, strides)
        after = jnp.where(live, follows[here, number], game.states)
        paid = jnp.where(live, rewards[here, number], 0.0)
        return after, Episode(here, live, actions, paid, after)

    u = jax.random.uniform(key, (game.horizon, game.n_agents))
    return jax.lax.scan(step, jnp.zeros((), follows.dtype), u)[1]


def reinforce(
    game: FiniteGame, critics: Critics, episode: Episode, log_probs: list[Array]
) -> Float[Array, "T N"]:
    """The reward-to-go u_i."""
    del critics, log_probs
    over = jnp.broadcast_to((episode.next_state == game.states)[:, None], episode.rewards.shape)
    return reward_to_go(episode.rewards, over, 1.0)


def ia2c(
    game: FiniteGame, critics: Critics, episode: Episode, log_probs: list[Array]
) -> Float[Array, "T N"]:
    """r_i + V(h_i') - V(h_i)."""
    del log_probs
    seen = np.concatenate([game.seen, np.zeros((game.n_agents, 1), int)], axis=1)
    agent = jnp.arange(game.n_agents)[:, None]
    values = critics.observed[agent, jnp.asarray(seen)]
    return _one_step(game, values, episode)


def maa2c(
    game: FiniteGame, critics: Critics, episode: Episode, log_probs: list[Array]
) -> Float[Array, "T N"]:
    """r_i + V(h_i', z') - V(h_i, z)."""
    del log_probs
    return _one_step(game, jnp.pad(critics.central, ((0, 0), (0, 1))), episode)


def _one_step(
    game: FiniteGame, values: Float[Array, "N S1"], episode: Episode
) -> Float[Array, "T N"]:
    """Target less value, of values of each state and of none (S1 = S + 1)."""
    over = jnp.broadcast_to((episode.next_state == game.states)[:, None], episode.rewards.shape)
    next_values = values.T[episode.next_state]
    targets = n_step_return(episode.rewards, next_values, over, over, 1.0, 1)
    return targets - values.T[episode.state]


def coma(
    game: FiniteGame, critics: Critics, episode: Episode, log_probs: list[Array]
) -> Float[Array, "T N"]:
    """Q_i(a) - Σ_a' π_i(a') Q_i(<a', a_-i>)."""
    number = episode.actions @ jnp.asarray(game.strides)
    advantages = []
    for i, (own, stride) in enumerate(zip(log_probs, game.strides, strict=True)):
        chosen = episode.actions[:, i]
        base = number - chosen * stride
        every = base[:, None] + stride * jnp.arange(own.shape[-1])
        q = critics.joint[i, episode.state[:, None], every]
        advantages.append(counterfactual_advantage(q, own[episode.state], of_action(q, chosen)))
    return jnp.stack(advantages, axis=-1)


ESTIMATORS: Mapping[str, Advantage] = {
    "reinforce": reinforce,
    "ia2c": ia2c,
    "maa2c": maa2c,
    "coma": coma,
}


def sampled_gradients(
    game: FiniteGame,
    logits: Logits,
    advantage: Advantage,
    critics: Critics,
    samples: int,
    key: PRNGKey,
) -> list[Array]:
    """What each of M sampled episodes says of every agent's gradient, [M, *logits] for each.

    Minus the gradient of Σ_t −Adv_i log π_i(a_i | h_i), the actor loss of the algorithms.
    """
    given = [jnp.asarray(own, jnp.float32) for own in logits]

    def one(key: PRNGKey) -> list[Array]:
        fixed = log_policies(game, given)
        episode = play(game, fixed, key)
        advantages = advantage(game, critics, episode, fixed)

        def loss(logits: list[Array]) -> Array:
            total = jnp.zeros(())
            for i, own in enumerate(log_policies(game, logits)):
                chosen = of_action(own[episode.state], episode.actions[:, i])
                terms = policy_gradient(chosen, advantages[:, i])
                total += jnp.sum(jnp.where(episode.live, terms, 0.0))
            return total

        return jax.tree.map(jnp.negative, jax.grad(loss)(given))

    keys = jax.random.split(key, samples)
    return jax.jit(lambda k: jax.lax.map(one, k, batch_size=min(samples, 4096)))(keys)


# Verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """How a sampled policy gradient compares with the exact one; tuples hold one for each agent.

    Attributes:
        exact: ∇ J_i, of the shape of the agent's logits.
        mean: of the samples.
        bias: |mean - exact|, a norm, so never 0 of finitely many samples.
        error: the root mean square this norm would have without any bias, from the samples'
            variance and single precision.
        variance: of one sample, summed over the components.
        cosine: between mean and exact; NaN where one of them is 0.
        samples: their number.
    """

    exact: tuple[np.ndarray, ...]
    mean: tuple[np.ndarray, ...]
    bias: tuple[float, ...]
    error: tuple[float, ...]
    variance: tuple[float, ...]
    cosine: tuple[float, ...]
    samples: int

    @property
    def unbiased(self) -> bool:
        """The bias of no agent is more than 4 standard errors: chance alone exceeds that once
        in 10,000 times."""
        return all(b <= 4 * e for b, e in zip(self.bias, self.error, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; a cosine that does not exist is None."""
        cosine = [c if math.isfinite(c) else None for c in self.cosine]
        return plain(asdict(self)) | {"cosine": cosine, "unbiased": self.unbiased}


def estimate(
    game: FiniteGame,
    logits: Logits,
    advantage: str | Advantage,
    critics: Critics | None = None,
    samples: int = 2**16,
    key: PRNGKey | None = None,
) -> Estimate:
    """Samples an estimator of the policy gradient and compares it with the exact gradient.

    Args:
        advantage: ``reinforce``, ``ia2c``, ``maa2c``, ``coma``, or a function of one's own.
        critics: the critics' values; exact ones unless given.
        samples: episodes.

    Raises:
        UsageError: no such estimator, logits of another shape, fewer than two samples.
    """
    if isinstance(advantage, str):
        if advantage not in ESTIMATORS:
            raise UsageError(f"advantage must be {', '.join(ESTIMATORS)}; got {advantage!r}")
        advantage = ESTIMATORS[advantage]
    if samples < 2:
        raise UsageError(f"samples must be at least 2; got {samples}")
    exact = exact_gradients(game, logits)
    critics = exact_critics(game, logits) if critics is None else critics
    key = jax.random.key(0) if key is None else key
    drawn = sampled_gradients(game, logits, advantage, critics, samples, key)
    each = [np.asarray(x, np.float64) for x in drawn]
    mean = [x.mean(axis=0) for x in each]
    variance = [float(x.var(axis=0, ddof=1).sum()) for x in each]
    rounding = 1e-5 * game.horizon * float(np.abs(game.rewards).max())
    return Estimate(
        exact=tuple(exact),
        mean=tuple(mean),
        bias=tuple(float(np.linalg.norm(m - e)) for m, e in zip(mean, exact, strict=True)),
        error=tuple(math.hypot(math.sqrt(v / samples), rounding) for v in variance),
        variance=tuple(variance),
        cosine=tuple(_cosine(m, e) for m, e in zip(mean, exact, strict=True)),
        samples=samples,
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / norms if norms > 0 else math.nan


# Of a trained run ----------------------------------------------------------------------------


def learned_critics(run: Run, seed: int = 0) -> tuple[FiniteGame, list[np.ndarray], Critics]:
    """The game, the policies' logits and what the critics say of them, as a run ended.

    For IA2C, MAA2C, IPPO, MAPPO and COMA on matrix games: ``estimate(game, logits, "ia2c",
    critics)`` is then the estimator that this run would use next. The game gives the rewards that
    the learner got, in its units, so that critics and game agree. Critics that were not learned
    hold exact values. A discount below 1 is part of the bias that is found in a
    repeated game.

    Raises:
        UsageError: another algorithm, recurrent networks, no matrix game, no such seed.
    """
    algorithm, env = _with_critics(run)
    learned = learner(run, seed)
    rewards = learner_rewards(jnp.asarray(env.payoffs, jnp.float32), run.game)
    rewards = learned.moments.apply(algorithm.reward_scaling, rewards)
    game = matrix_game(np.asarray(rewards, np.float64), env.rounds)
    observations, z = _shown(run.game, game)
    outputs = _outputs(algorithm.policy(learned), observations)
    observations, z = _normalised(learned, run.game, observations, z)
    logits = [np.asarray(outputs[:, i, :k]) for i, k in enumerate(game.action_counts)]
    actions = jnp.broadcast_to(run.game.team.table, (game.states, *run.game.team.table.shape))
    inputs = algorithm.critic_inputs(
        run.game,
        jnp.repeat(observations[:, None], actions.shape[1], axis=1),
        jnp.repeat(z[:, None], actions.shape[1], axis=1),
        actions.astype(jnp.int32),
    )
    outputs, exact = _outputs(learned.critic, inputs), exact_critics(game, logits)
    if isinstance(algorithm, COMA):
        joint = jnp.moveaxis(of_action(outputs, actions), -1, 0)
        return game, logits, eqx.tree_at(lambda c: c.joint, exact, joint)
    values = outputs[:, 0, :, 0].T
    return game, logits, eqx.tree_at(lambda c: (c.observed, c.central), exact, (values, values))


def _normalised(learned: Learner, game: Game, observations: Array, z: Array) -> tuple[Array, Array]:
    """What critics take of observations and of z."""
    if learned.normaliser is None:
        return observations, z
    return learned.normaliser.agents.normalise(observations), learned.normaliser.central(game, z)


def _with_critics(run: Run) -> tuple[ActorCritic, MatrixGame]:
    """Algorithm and game, where the critics' tables can be read."""
    algorithm, env = run.algorithm, run.game.env
    if not isinstance(env, MatrixGame):
        raise UsageError(f"gradients are exact in matrix games; {type(env).__name__} is none")
    if not isinstance(algorithm, ActorCritic) or algorithm.joint_view or algorithm.recurrent:
        raise UsageError(f"{algorithm.name} has no feed-forward critics of each agent's policy")
    if run.game.preprocessing.frame_stack > 1:
        raise UsageError("exact gradients need one observation for a state: train without frames")
    if not isinstance(algorithm, COMA) and algorithm.critic_size(run.game)[1] != 1:
        raise UsageError(f"{algorithm.name}'s critic is neither V nor COMA's Q")
    return algorithm, env


def _shown(view: Game, game: FiniteGame) -> tuple[Float[Array, "S N O"], Float[Array, "S Z"]]:
    """What agents observe and z in each state: at the start, and after every joint action."""
    key = jax.random.key(0)
    state, start = view.reset(key)
    _, after = jax.vmap(lambda a: view.step(key, state, a))(jnp.asarray(view.team.table, jnp.int32))
    number = np.arange(game.states)
    row = np.where(number == 0, 0, 1 + (number - 1) % view.team.count)
    observations = jnp.concatenate([start.observations[None], after.observations])
    return observations[row], jnp.concatenate([start.central[None], after.central])[row]


def _outputs(networks: PerAgent, inputs: Float[Array, "*S N I"]) -> Float[Array, "*S N J"]:
    batch = inputs.shape[:-2]
    never = jnp.zeros(inputs.shape[:-1], bool)
    return networks.step(networks.initial_hidden_state(*batch), inputs, never)[0]
