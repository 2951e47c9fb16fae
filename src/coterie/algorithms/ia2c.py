"""Independent advantage actor-critic (lecture, "Independent A2C with synchronous environments")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates
from coterie.learners.contract import Mode
from coterie.learners.parts import VectorSettings
from coterie.ops.losses import policy_gradient
from coterie.types import Actions, PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class IA2C(VectorSettings, ActorCritic):
    """Each agent learns an actor π(a_i | h_i; φ_i) and a critic V(h_i; θ_i) of its own reward.

    The lines are those of the lecture's algorithm. Lines 5 to 7 are the rollout, 17 and 18 the
    gradient step (``ActorCritic.update``).
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    action_vectors: ClassVar[bool] = True

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"],
        actions: Actions,
    ) -> Num[Array, "*S N O"]:
        """V(h_i): a critic sees what its agent sees."""
        return observations

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """Lines 9 to 14: y_i = r_i + γ V(h_i'), or r_i if h_i' is terminal; Adv_i = y_i − V(h_i).

        (With ``n_steps`` above 1 or with ``gae_lambda``, y is an n-step or a λ-return.)
        """
        v, next_v, hidden_state = self.evaluate(game, learner, rollout, rollout.actions)
        y = self.returns(steps, next_v[..., 0])
        return Estimates(
            advantages=y - v[..., 0], targets=y, values=v[..., 0], hidden_state=hidden_state
        )

    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """Line 15: −Adv_i log π(a_i | h_i; φ_i)."""
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N 1"], batch: Batch) -> Float[Array, "T B N"]:
        """Line 16: (y_i − V(h_i; θ_i))²."""
        return (batch.targets - outputs[..., 0]) ** 2
