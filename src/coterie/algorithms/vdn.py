"""Value decomposition networks (lecture, "Value Decomposition Networks"; Sunehag et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from coterie.learners.contract import Mode
from coterie.learners.experience import Experience
from coterie.learners.value_based import ValueBased
from coterie.ops.losses import one_step_target


@dataclass(frozen=True, kw_only=True)
class VDN(ValueBased):
    """Decomposes the team's value into a sum of utilities, learned from the common reward.

    Q(h, z, a) = Σ_i Q(h_i, a_i; θ_i), y = r + γ (1 − terminated) Σ_i max_a' Q(h_i', a'; θ̄_i).
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = True
    own_minibatch: ClassVar[bool] = False

    def joint(
        self, mixer: Any, utilities: Float[Array, "*S N"], central: Num[Array, "*S Z"]
    ) -> Float[Array, "*S 1"]:
        """Q(h, z, a) = Σ_i Q(h_i, a_i; θ_i)."""
        return jnp.sum(utilities, axis=-1, keepdims=True)

    def target(
        self, batch: Experience, next_values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """y = r + γ Σ_i max_a' Q(h_i', a'; θ̄_i), or r if h' is terminal; r is the common reward."""
        common, terminal = batch.rewards[..., :1], batch.terminated[..., :1]
        return one_step_target(common, terminal, next_values, self.gamma)

    def step_loss(
        self, targets: Float[Array, "L B M"], values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """(y − Σ_i Q(h_i, a_i; θ_i))²."""
        return (targets - values) ** 2
