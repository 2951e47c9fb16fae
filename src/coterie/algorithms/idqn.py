"""Independent deep Q-networks (lecture, "Independent Deep Q-Networks"; book algorithm 17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Array, Float, Num

from coterie.learners.contract import Mode
from coterie.learners.experience import Experience
from coterie.learners.value_based import ValueBased
from coterie.ops.losses import one_step_target


@dataclass(frozen=True, kw_only=True)
class IDQN(ValueBased):
    """Each agent learns Q(h_i, a_i; θ_i) from its own reward and its own minibatch.

    The lines are those of the lecture's algorithm. Lines 5 to 9 are the rollout, 11 and 12 replay,
    18 the gradient step (``update``), 19 the target network (``learn``).
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    own_minibatch: ClassVar[bool] = True

    def joint(
        self, mixer: Any, utilities: Float[Array, "*S N"], central: Num[Array, "*S Z"]
    ) -> Float[Array, "*S N"]:
        """Q(h_i, a_i; θ_i) of each agent by itself."""
        return utilities

    def target(
        self, batch: Experience, next_values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """Lines 13 to 16: y_i = r_i + γ max_a' Q(h_i', a'; θ̄_i), or r_i if h_i' is terminal."""
        return one_step_target(batch.rewards, batch.terminated, next_values, self.gamma)

    def step_loss(
        self, targets: Float[Array, "L B M"], values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """Line 17: (y_i − Q(h_i, a_i; θ_i))²."""
        return (targets - values) ** 2
