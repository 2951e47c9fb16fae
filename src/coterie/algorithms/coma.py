"""Counterfactual multi-agent policy gradient (lecture, same section; Foerster et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates, with_central
from coterie.learners.contract import Mode
from coterie.learners.parts import CounterfactualSettings
from coterie.learners.policy_gradient import per_agent
from coterie.ops.action_selection import of_action, sample
from coterie.ops.losses import counterfactual_advantage, log_probabilities, policy_gradient
from coterie.ops.observations import joined
from coterie.settings import ARITHMETIC, Count, Share
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class COMA(CounterfactualSettings, ActorCritic):
    """Credits each agent with what its action changed, all else equal.

    The critic Q(h_i, z, ⟨·, a_-i⟩; θ_i) sees the others' actions and values every own one;
    Adv_i = Q(h_i, z, a) − Σ_a' π(a' | h_i) Q(h_i, z, ⟨a', a_-i⟩). It learns by TD(λ).
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = True
    central: ClassVar[bool] = True

    rollout_steps: Count = 10
    gae_lambda: Annotated[Share | None, ARITHMETIC] = 0.8
    """λ of the TD(λ) targets of the critic; None for n-step targets."""
    target_interval: Count | None = 200

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"],
        actions: Int[Array, "*S N"],
    ) -> Num[Array, "*S N I"]:
        """o_i, z and the others' actions a_-i, one-hot; never the own action."""
        n = game.spec.n_agents
        others = jnp.array([[j for j in range(n) if j != i] for i in range(n)], jnp.int32)
        shown = jax.nn.one_hot(actions[..., others.reshape(n, n - 1)], game.spec.action_count)
        seen = with_central(observations, central)
        return joined([seen, shown.reshape(*seen.shape[:-1], -1)])

    def critic_outputs(self, game: Game) -> int:
        """Q of every own action."""
        return game.spec.action_count

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y_i the TD(λ) return of Q(h_i', z', a'; θ̄_i), and the counterfactual advantage."""
        next_actions = _next_actions(learner, rollout, key)
        q, next_q, hidden_state = self.evaluate(game, learner, rollout, next_actions)
        chosen = of_action(q, rollout.actions)
        y = self.returns(steps, of_action(next_q, next_actions))
        logits, _ = learner.actor.unroll(
            rollout.hidden_state[0], rollout.observations, per_agent(rollout.start, rollout.alive)
        )
        log_probs = log_probabilities(logits, rollout.action_mask)
        advantages = counterfactual_advantage(q, log_probs, chosen)
        return Estimates(advantages=advantages, targets=y, values=chosen, hidden_state=hidden_state)

    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """−Adv_i log π(a_i | h_i; φ_i)."""
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N A"], batch: Batch) -> Float[Array, "T B N"]:
        """(y_i − Q(h_i, z, a; θ_i))²."""
        return (batch.targets - of_action(outputs, batch.actions)) ** 2


def _next_actions(learner: Learner, rollout: Transition, key: PRNGKey) -> Int[Array, "T B N"]:
    """a': what was done next, and where the rollout does not show it, a draw from π."""
    start = per_agent(rollout.start, rollout.alive)
    _, hidden_states = learner.actor.unroll(rollout.hidden_state[0], rollout.observations, start)
    logits, _ = learner.actor.step(hidden_states, rollout.next_observations, jnp.zeros_like(start))
    drawn = sample(logits, rollout.next_action_mask, jax.random.uniform(key, rollout.actions.shape))
    unseen = (rollout.terminated | rollout.truncated).at[-1].set(True)
    return jnp.where(unseen[..., None], drawn, jnp.roll(rollout.actions, -1, axis=0))
