"""Central A2C over joint actions (lecture, "Training and execution modes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Array, Float, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates
from coterie.learners.contract import Mode, joint_actions_remark, scaling_remarks
from coterie.learners.parts import VectorSettings
from coterie.ops.losses import policy_gradient
from coterie.settings import JointActions
from coterie.types import Actions, PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class CentralA2C(VectorSettings, ActorCritic):
    """One learner sees the joint history h and draws joint actions: π(a | h; φ), V(h; θ).

    Learns from the common (scalarised) reward, as A2C does. The number of joint actions is
    exponential in the number of agents.
    """

    mode: ClassVar[Mode] = "centralised training and execution"
    common_reward: ClassVar[bool] = True
    action_vectors: ClassVar[bool] = True
    joint_view: ClassVar[bool] = True

    sharing: ClassVar[Literal["own"]] = "own"  # pyright: ignore[reportIncompatibleVariableOverride]
    groups: ClassVar[tuple[()]] = ()  # pyright: ignore[reportIncompatibleVariableOverride]
    max_joint_actions: JointActions = 4096
    """Largest number of joint actions; games with more are refused."""

    def remarks(self, game: Game) -> list[str]:
        if game.players.actions:
            return scaling_remarks(self.reward_scaling)
        joint = joint_actions_remark(game.team.count, self.max_joint_actions)
        return scaling_remarks(self.reward_scaling) + joint

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"],
        actions: Actions,
    ) -> Num[Array, "*S N O"]:
        """V(h): the critic sees the joint observation, as the actor does."""
        return observations

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y = r + γ V(h'), or r if h' is terminal; Adv = y − V(h).

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
        """−Adv log π(a | h; φ), a the joint action."""
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N 1"], batch: Batch) -> Float[Array, "T B N"]:
        """(y − V(h; θ))²."""
        return (batch.targets - outputs[..., 0]) ** 2
