"""Central Q-learning over joint actions (lecture, "Training and execution modes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.contract import Mode, joint_actions_remark
from coterie.learners.value_based import ValueBased
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

    max_joint_actions: JointActions = 4096
    """Refuse games with more joint actions than this."""

    def remarks(self, game: Game) -> list[str]:
        found = super().remarks(game)
        return found + joint_actions_remark(game.team.count, self.max_joint_actions)
