"""Independent advantage actor-critic (lecture, "Independent A2C with synchronous environments")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.actor_critic import ActorCritic
from coterie.learners.contract import Mode


@dataclass(frozen=True, kw_only=True)
class IA2C(ActorCritic):
    """Each agent learns an actor π(a_i | h_i; φ_i) and a critic V(h_i; θ_i) of its own reward.

    y_i = r_i + γ (1 − terminated) V(h_i'; θ_i), Adv_i = y_i − V(h_i; θ_i); actor loss
    −Adv_i log π(a_i | h_i; φ_i), critic loss (y_i − V(h_i; θ_i))².
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
