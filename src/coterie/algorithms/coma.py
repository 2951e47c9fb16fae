"""Counterfactual multi-agent policy gradient (lecture, same section; Foerster et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from coterie.learners.actor_critic import ActorCritic, Batch, Learner
from coterie.learners.contract import Mode
from coterie.learners.policy_gradient import per_agent
from coterie.ops.action_selection import of_action, sample
from coterie.ops.losses import counterfactual_advantage, log_probabilities
from coterie.settings import Count, Share
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class COMA(ActorCritic):
    """Credits each agent with what its action changed, all else equal.

    The critic Q(h_i, z, ⟨·, a_-i⟩; θ_i) sees the others' actions and values every own one;
    Adv_i = Q(h_i, z, a) − Σ_a' π(a' | h_i) Q(h_i, z, ⟨a', a_-i⟩). It learns by TD(λ).
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = True
    central: ClassVar[bool] = True

    gae_lambda: Share | None = 0.8
    """λ of the critic's TD(λ) targets; None for n-step targets."""
    target_interval: Count | None = 200
    """Bootstrap from target critics θ̄, copied from θ whenever so many updates were made."""

    def critic_size(self, game: Game) -> tuple[int, int]:
        actions = game.spec.action_count
        return super().critic_size(game)[0] + (game.spec.n_agents - 1) * actions, actions

    def critic_inputs(
        self,
        game: Game,
        observations: Float[Array, "*S N O"],
        central: Float[Array, "*S Z"],
        actions: Int[Array, "*S N"],
    ) -> Float[Array, "*S N I"]:
        """o_i, z and the others' actions a_-i, one-hot; never the own action."""
        n = game.spec.n_agents
        others = jnp.array([[j for j in range(n) if j != i] for i in range(n)], jnp.int32)
        shown = jax.nn.one_hot(actions[..., others.reshape(n, n - 1)], game.spec.action_count)
        seen = super().critic_inputs(game, observations, central, actions)
        return jnp.concatenate([seen, shown.reshape(*seen.shape[:-1], -1)], axis=-1)

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> tuple[Float[Array, "T B N"], PyTree, Float[Array, "B N C"]]:
        next_actions = self._next_actions(learner, rollout, key)
        outputs, led_to, memory = self.evaluate(game, learner, rollout, next_actions)
        next_values = of_action(led_to, next_actions)
        scores, _ = learner.actor.unroll(
            rollout.memory[0], rollout.observations, per_agent(rollout.start, rollout.alive)
        )
        log_probs = log_probabilities(scores, rollout.action_mask)
        chosen = of_action(outputs, rollout.actions)
        advantages = counterfactual_advantage(outputs, log_probs, chosen)
        return advantages, self.returns(steps, next_values), memory

    def critic_loss(self, outputs: Float[Array, "T B N J"], batch: Batch) -> Float[Array, "T B N"]:
        chosen = of_action(outputs, batch.actions)
        return (batch.targets - chosen) ** 2

    def _next_actions(
        self, learner: Learner, rollout: Transition, key: PRNGKey
    ) -> Int[Array, "T B N"]:
        """a': what was done next, and where the rollout does not show it, a draw from π."""
        start = per_agent(rollout.start, rollout.alive)
        _, memories = learner.actor.unroll(rollout.memory[0], rollout.observations, start)
        scores, _ = learner.actor.step(memories, rollout.next_observations, jnp.zeros_like(start))
        drawn = sample(
            scores, rollout.next_action_mask, jax.random.uniform(key, rollout.actions.shape)
        )
        unseen = (rollout.terminated | rollout.truncated).at[-1].set(True)
        return jnp.where(unseen[..., None], drawn, jnp.roll(rollout.actions, -1, axis=0))
