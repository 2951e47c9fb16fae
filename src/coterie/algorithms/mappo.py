"""Multi-agent proximal policy optimisation (Yu et al. 2022; book §9.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coterie.learners.contract import Mode
from coterie.learners.ppo import Proximal


@dataclass(frozen=True, kw_only=True)
class MAPPO(Proximal):
    """Independent PPO whose critics also see the centralised information z: V(h_i, z; θ_i).

    Actor loss −min(ρ_i Adv_i, clip(ρ_i, 1 ± ε) Adv_i), ρ_i = π(a_i | h_i; φ_i) / π_β(a_i | h_i).
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = False
    central: ClassVar[bool] = True
