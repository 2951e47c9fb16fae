"""Independent proximal policy optimisation (lecture, "Independent learning"; book §9.3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates
from coterie.learners.contract import Mode
from coterie.learners.parts import ProximalSettings, VectorSettings
from coterie.learners.policy_gradient import schedule_ends
from coterie.learners.ppo import minibatches, ratio_diagnostics
from coterie.ops.losses import clipped_surrogate
from coterie.policies.distributions import Distribution
from coterie.types import Actions, PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class IPPO(ProximalSettings, VectorSettings, ActorCritic):
    """Each agent learns π(a_i | h_i; φ_i) by PPO, with a critic V(h_i; θ_i) of its own reward.

    It differs from ``ia2c.py`` in the actor loss, in making several passes over a rollout, and in
    its defaults.
    """

    mode: ClassVar[Mode] = "decentralised training and execution"
    common_reward: ClassVar[bool] = False
    action_vectors: ClassVar[bool] = True

    diagnostics: ClassVar[tuple[str, ...]] = (*ActorCritic.diagnostics, "kl", "clip_fraction")

    def resolve(self, steps: int, time_limit: int | None = None) -> IPPO:
        found = schedule_ends(self, steps) | {"minibatches": minibatches(self)}
        return dataclasses.replace(self, **found)

    def passes(self) -> tuple[int, int]:
        return self.epochs, minibatches(self)

    def extras(self, distribution: Distribution, actions: Actions) -> PyTree:
        """log π_β(a_i | h_i) of the policy that acts, β."""
        return distribution.log_prob(actions)

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"],
        actions: Actions,
    ) -> Num[Array, "*S N O"]:
        """V(h_i): a critic sees what its agent sees."""
        return observations

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y_i the λ-return, Adv_i = y_i − V(h_i): generalised advantage estimation."""
        v, next_v, hidden_state = self.evaluate(game, learner, rollout, rollout.actions)
        y = self.returns(steps, next_v[..., 0])
        return Estimates(
            advantages=y - v[..., 0], targets=y, values=v[..., 0], hidden_state=hidden_state
        )

    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """−min(ρ_i Adv_i, clip(ρ_i, 1 ± ε) Adv_i), ρ_i = π(a_i | h_i; φ_i) / π_β(a_i | h_i)."""
        return clipped_surrogate(log_probs, extras, advantages, self.clip)

    def critic_loss(self, outputs: Float[Array, "T B N 1"], batch: Batch) -> Float[Array, "T B N"]:
        """(y_i − V(h_i; θ_i))²."""
        return (batch.targets - outputs[..., 0]) ** 2

    def actor_diagnostics(
        self, log_probs: Float[Array, "T B N"], batch: Batch
    ) -> dict[str, Float[Array, ""]]:
        return ratio_diagnostics(log_probs, batch.extras, batch.alive, self.clip)
