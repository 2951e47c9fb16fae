"""Independent REINFORCE (lecture, "Independent learning"; book §8.2.3, Williams 1992)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from coterie.errors import UsageError
from coterie.learners.contract import Mode
from coterie.learners.policy_gradient import PolicyGradient, per_agent
from coterie.networks.per_agent import PerAgent
from coterie.ops.action_selection import of_action
from coterie.ops.losses import entropy, log_probabilities, policy_gradient, summed_mean
from coterie.ops.returns import reward_to_go
from coterie.ops.running_statistics import Moments
from coterie.settings import TimeLimit
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import distinct_rewards, learner_steps


class Learner(eqx.Module):
    """Actors φ, the optimiser's state, reward moments."""

    actor: PerAgent
    optimiser: PyTree
    moments: Moments


@dataclass(frozen=True, kw_only=True)
class REINFORCE(PolicyGradient):
    """Each agent follows −1/T Σ_t u_i^t log π(a_i^t | h_i^t; φ_i), u_i^t its reward-to-go.

    One update after one whole episode in each of K environments, all by the same policies. What a
    faster environment does until the slowest is done is not learned from: it would count short
    episodes more often. Without a critic a truncated episode's return ends where it was cut.
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    whole_episodes: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("actor_loss", "entropy", "updates")

    episode_steps: TimeLimit | None = None
    """The longest episode; the environment's time limit unless given."""

    def resolve(self, steps: int, time_limit: int | None = None) -> REINFORCE:
        known = self.episode_steps or time_limit
        if known is None:
            raise UsageError(
                "reinforce learns from whole episodes, but this environment has no time limit: "
                "give it one, or name the longest episode with --episode-steps"
            )
        resolved = super().resolve(steps)
        assert isinstance(resolved, REINFORCE)
        return dataclasses.replace(resolved, episode_steps=known)

    def remarks(self, game: Game) -> list[str]:
        found, limit = super().remarks(game), game.spec.time_limit
        if limit is None or self.episode_steps is None or self.episode_steps <= limit:
            return found
        return [
            *found,
            f"episodes end after {limit:,} steps at the latest, but every rollout goes on for "
            f"{self.episode_steps:,}: nothing is learned from the rest; lower --episode-steps",
        ]

    def rollout_shape(self) -> tuple[int, int]:
        return self.episode_steps or 1, self.environments

    def init(self, key: PRNGKey, game: Game) -> Learner:
        actor = self.make_actor(key, game)
        moments = Moments.empty(distinct_rewards(game))
        return Learner(actor, self.init_optimiser({"actor": actor}), moments)

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        clock: dict[str, Array],
    ) -> tuple[Learner, dict[str, Array]]:
        del key
        steps = learner_steps(rollout, game)
        over = rollout.terminated | rollout.truncated
        first = per_agent(jnp.cumsum(over, axis=0) - over == 0, rollout.alive)
        counts = rollout.alive & first
        rewards, moments, _ = self.in_units(
            learner.moments, None, steps.rewards, steps.counts & first, rollout.start
        )
        returns = reward_to_go(rewards, steps.ended, self.gamma)

        def loss(actors: dict[str, PerAgent]) -> tuple[Array, dict[str, Array]]:
            start = per_agent(rollout.start, rollout.alive)
            memory = rollout.memory[0]
            scores, _ = actors["actor"].unroll(memory, rollout.observations, start)
            log_probs = log_probabilities(scores, rollout.action_mask)
            chosen = of_action(log_probs, rollout.actions)
            length = jnp.maximum(jnp.sum(counts, axis=0, keepdims=True), 1)

            def episode_mean(x: Array) -> Array:
                """Mean over each agent's living steps; summed over agents, averaged over K."""
                each = jnp.sum(jnp.where(counts, x / length, 0.0), axis=0)
                return summed_mean(each, jnp.ones_like(each))

            bonus = episode_mean(entropy(log_probs, rollout.action_mask))
            actor = episode_mean(policy_gradient(chosen, returns))
            return actor - clock["entropy"] * bonus, {"actor_loss": actor, "entropy": bonus}

        actors = {"actor": learner.actor}
        (_, metrics), grads = eqx.filter_value_and_grad(loss, has_aux=True)(actors)
        rates = {"actor": self.lr}
        actors, optimiser = self.descend(actors, grads, learner.optimiser, rates, clock["rate"])
        metrics = jax.tree.map(jax.lax.stop_gradient, metrics) | {"updates": jnp.ones(())}
        return Learner(actors["actor"], optimiser, moments), metrics
