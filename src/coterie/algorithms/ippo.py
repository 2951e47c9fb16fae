"""Independent proximal policy optimisation (lecture, "Independent learning"; book §9.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.contract import Mode
from coterie.learners.ppo import Proximal


@dataclass(frozen=True, kw_only=True)
class IPPO(Proximal):
    """Each agent learns π(a_i | h_i; φ_i) by PPO, with a critic V(h_i; θ_i) of its own reward.

    Actor loss −min(ρ_i Adv_i, clip(ρ_i, 1 ± ε) Adv_i), ρ_i = π(a_i | h_i; φ_i) / π_β(a_i | h_i).
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
