"""Central Q-learning over joint actions (lecture, "Training and execution modes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Array, Float, Num

from coterie.learners.contract import Mode, joint_actions_remark, scaling_remarks
from coterie.learners.experience import Experience
from coterie.learners.value_based import ValueBased
from coterie.ops.losses import one_step_target
from coterie.settings import JointActions
from coterie.views.game import Game


@dataclass(frozen=True, kw_only=True)
class CentralQ(ValueBased):
    """One learner sees the joint history h and values joint actions a: Q(h, a; θ).

    y = r + γ (1 − terminated) max_a' Q(h', a'; θ̄), r the common (scalarised) reward. The number of
    joint actions is exponential in the number of agents.
    """

    mode: ClassVar[Mode] = "centralised training and execution"
    common_reward: ClassVar[bool] = True
    joint_view: ClassVar[bool] = True
    own_minibatch: ClassVar[bool] = False

    sharing: ClassVar[Literal["own"]] = "own"  # pyright: ignore[reportIncompatibleVariableOverride]
    groups: ClassVar[tuple[()]] = ()  # pyright: ignore[reportIncompatibleVariableOverride]
    max_joint_actions: JointActions = 4096
    """Largest number of joint actions; games with more are refused."""

    def remarks(self, game: Game) -> list[str]:
        joint = joint_actions_remark(game.team.count, self.max_joint_actions)
        return scaling_remarks(self.reward_scaling) + joint

    def joint(
        self, mixer: Any, utilities: Float[Array, "*S N"], central: Num[Array, "*S Z"]
    ) -> Float[Array, "*S N"]:
        """Q(h, a; θ) of the one learner, whose actions are joint actions."""
        return utilities

    def target(
        self, batch: Experience, next_values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """y = r + γ max_a' Q(h', a'; θ̄), or r if h' is terminal; a' is a joint action."""
        return one_step_target(batch.rewards, batch.terminated, next_values, self.gamma)

    def step_loss(
        self, targets: Float[Array, "L B M"], values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """(y − Q(h, a; θ))²."""
        return (targets - values) ** 2
