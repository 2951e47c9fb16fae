"""Independent deep Q-networks (lecture, "Independent Deep Q-Networks"; book algorithm 17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.contract import Mode
from coterie.learners.value_based import ValueBased


@dataclass(frozen=True, kw_only=True)
class IDQN(ValueBased):
    """Each agent learns Q(h_i, a_i; θ_i) from its own reward and its own minibatch.

    y_i = r_i + γ (1 − terminated) max_a' Q(h_i', a'; θ̄_i), loss (y_i − Q(h_i, a_i; θ_i))².
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    own_minibatch: ClassVar[bool] = True
