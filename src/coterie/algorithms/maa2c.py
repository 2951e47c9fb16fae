"""Centralised advantage actor-critic (lecture, "Centralized A2C with synchronous environments")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates, with_central
from coterie.learners.contract import Mode
from coterie.learners.parts import VectorSettings
from coterie.ops.losses import policy_gradient
from coterie.types import Actions, PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class MAA2C(VectorSettings, ActorCritic):
    """Independent A2C whose critics also see the centralised information z: V(h_i, z; θ_i).

    It differs from ``ia2c.py`` in what critics see. The actors π(a_i | h_i; φ_i) see their own
    histories only: execution stays decentralised.
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = False
    action_vectors: ClassVar[bool] = True
    central: ClassVar[bool] = True

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"] | Num[Array, "*S N Z"],
        actions: Actions,
    ) -> Num[Array, "*S N I"]:
        """V(h_i, z): a critic sees what its agent sees, and z."""
        return with_central(observations, central)

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y_i = r_i + γ V(h_i', z'), or r_i if h_i' is terminal; Adv_i = y_i − V(h_i, z).

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
        """−Adv_i log π(a_i | h_i; φ_i)."""
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N 1"], batch: Batch) -> Float[Array, "T B N"]:
        """(y_i − V(h_i, z; θ_i))²."""
        return (batch.targets - outputs[..., 0]) ** 2
