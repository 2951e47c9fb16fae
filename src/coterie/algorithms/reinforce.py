"""Independent REINFORCE (lecture, "Independent learning"; book §8.2.3, Williams 1992)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm, Mode, scaling_remarks, whole_rollouts
from coterie.learners.normalisation import (
    Normaliser,
    acting,
    counted,
    make_normaliser,
    normalised,
)
from coterie.learners.parts import PolicySettings, VectorSettings
from coterie.learners.policy_gradient import (
    descend,
    gradient_norm,
    impossible_std,
    in_the_log,
    in_units,
    init_optimiser,
    make_actor,
    per_agent,
    schedule_ends,
    schedules,
    unreached_ends,
    vectors_of,
)
from coterie.networks.per_agent import PerAgent
from coterie.ops.losses import policy_gradient, summed_mean
from coterie.ops.returns import reward_to_go
from coterie.ops.running_statistics import Moments
from coterie.policies.acting import distribution, noise
from coterie.settings import TimeLimit
from coterie.types import PRNGKey, PyTree, Schedules, Transition
from coterie.views.game import Game
from coterie.views.steps import distinct_rewards, learner_steps


class Learner(eqx.Module):
    """Actors φ, the optimiser's state, reward moments, observations' statistics."""

    actor: PerAgent
    optimiser: PyTree
    moments: Moments
    normaliser: Normaliser | None = None


@dataclass(frozen=True, kw_only=True)
class REINFORCE(VectorSettings, PolicySettings, Algorithm):
    """Each agent follows −1/T Σ_t u_i^t log π(a_i^t | h_i^t; φ_i), u_i^t its reward-to-go.

    One update after one whole episode in each of K environments, all by the same policies. What a
    faster environment does until the slowest is done is not learned from: it would count short
    episodes more often. Without a critic a truncated episode's return ends where it was cut.
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    action_vectors: ClassVar[bool] = True
    whole_episodes: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("actor_loss", "entropy", "updates")
    diagnostics: ClassVar[tuple[str, ...]] = ("actor_gradient_norm",)

    episode_steps: TimeLimit | None = None
    """Steps of the longest episode; by default the time limit of the environment."""

    def contradictions(self) -> list[str]:
        return impossible_std(self)

    def resolve(self, steps: int, time_limit: int | None = None) -> REINFORCE:
        known = self.episode_steps or time_limit
        if known is None:
            raise UsageError(
                "reinforce learns from whole episodes, but this environment has no time limit: "
                "give it one, or name the longest episode with --episode-steps"
            )
        return dataclasses.replace(self, episode_steps=known, **schedule_ends(self, steps))

    def remarks(self, game: Game) -> list[str]:
        found, limit = scaling_remarks(self.reward_scaling), game.spec.time_limit
        if limit is None or self.episode_steps is None or self.episode_steps <= limit:
            return found
        return [
            *found,
            f"episodes end after {limit:,} steps at the latest, but every rollout goes on for "
            f"{self.episode_steps:,}: nothing is learned from the rest; lower --episode-steps",
        ]

    def shortfalls(self, steps: int) -> list[str]:
        return whole_rollouts(self, steps) + unreached_ends(self, steps)

    def rollout_shape(self) -> tuple[int, int]:
        return self.episode_steps or 1, self.environments

    def updates(self, iterations: int) -> int:
        return iterations

    def schedules(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        steps, environments = self.rollout_shape()
        return schedules(self, iterations, steps * environments)

    def logged_schedules(self, iteration: int) -> dict[str, float]:
        return in_the_log(self, self.schedules(np.array([iteration])))

    def init(self, key: PRNGKey, game: Game) -> Learner:
        actor = make_actor(self, key, game)
        moments = Moments.empty(distinct_rewards(game))
        optimiser = init_optimiser({"actor": actor})
        return Learner(actor, optimiser, moments, make_normaliser(self, game))

    def policy(self, learner: Learner) -> PerAgent:
        return acting(learner.actor, learner.normaliser)

    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return noise(key, shape, game.spec.n_agents, vectors_of(self, game.spec))

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        schedules: Schedules,
    ) -> tuple[Learner, dict[str, Array]]:
        del key
        normaliser = counted(learner.normaliser, rollout)
        rollout = normalised(learner.normaliser, game, rollout)
        steps = learner_steps(rollout, game)
        over = rollout.terminated | rollout.truncated
        first = per_agent(jnp.cumsum(over, axis=0) - over == 0, rollout.alive)
        counts = rollout.alive & first
        rewards, moments, _ = in_units(
            self, learner.moments, None, steps.rewards, steps.counts & first, rollout.start
        )
        returns = reward_to_go(rewards, steps.ended, self.gamma)

        def loss(actors: dict[str, PerAgent]) -> tuple[Array, dict[str, Array]]:
            start = per_agent(rollout.start, rollout.alive)
            hidden_state = rollout.hidden_state[0]
            outputs, _ = actors["actor"].unroll(hidden_state, rollout.observations, start)
            chosen = distribution(actors["actor"], outputs, rollout.action_mask)
            policy = self.behaviour(chosen, schedules)
            length = jnp.maximum(jnp.sum(counts, axis=0, keepdims=True), 1)

            def episode_mean(x: Array) -> Array:
                """Mean over each agent's living steps; summed over agents, averaged over K."""
                each = jnp.sum(jnp.where(counts, x / length, 0.0), axis=0)
                return summed_mean(each, jnp.ones_like(each))

            log_probs, entropies = policy.log_prob_and_entropy(rollout.actions)
            bonus = episode_mean(entropies)
            actor = episode_mean(policy_gradient(log_probs, returns))  # −u_i^t log π(a_i^t | h_i^t)
            return actor - schedules["entropy"] * bonus, {"actor_loss": actor, "entropy": bonus}

        actors = {"actor": learner.actor}
        (_, metrics), grads = eqx.filter_value_and_grad(loss, has_aux=True)(actors)
        metrics["actor_gradient_norm"] = gradient_norm(grads["actor"])
        rates = {"actor": self.lr}
        actors, optimiser = descend(
            self, actors, grads, learner.optimiser, rates, schedules["rate"]
        )
        metrics = jax.tree.map(jax.lax.stop_gradient, metrics) | {"updates": jnp.ones(())}
        return Learner(actors["actor"], optimiser, moments, normaliser), metrics
