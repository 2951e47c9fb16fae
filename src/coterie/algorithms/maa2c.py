"""Centralised advantage actor-critic (lecture, "Centralized A2C with synchronous environments")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.actor_critic import ActorCritic
from coterie.learners.contract import Mode


@dataclass(frozen=True, kw_only=True)
class MAA2C(ActorCritic):
    """Independent A2C whose critics also see the centralised information z: V(h_i, z; θ_i).

    y_i = r_i + γ (1 − terminated) V(h_i', z'; θ_i), Adv_i = y_i − V(h_i, z; θ_i). The actors
    π(a_i | h_i; φ_i) see their own histories only: execution stays decentralised.
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = False
    central: ClassVar[bool] = True
