"""What IPPO and MAPPO share: the clipped surrogate, several passes over a rollout."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Array, Float, Int

from coterie.errors import UsageError
from coterie.learners.actor_critic import ActorCritic
from coterie.ops.losses import clipped_surrogate
from coterie.policies.distributions import Distribution
from coterie.settings import Count, Positive, Share
from coterie.types import PyTree


@dataclass(frozen=True, kw_only=True)
class Proximal(ActorCritic):
    """Base of the proximal algorithms (PPO, Schulman et al. 2017; book §8.2.6)."""

    environments: Count = 64
    """Parallel synchronous environments K."""
    rollout_steps: Count = 32
    """Steps T of every environment between two updates."""
    gae_lambda: Share | None = 0.95
    """λ of generalised advantage estimation; None for n-step targets."""
    normalise_advantages: bool = True
    """Standardise each agent's advantages over the rollout."""
    clip: Positive = 0.2
    """ε: how far the probability ratio may move from 1 before its gradient is cut."""
    epochs: Count = 4
    """Passes over every rollout."""
    minibatches: Count | None = None
    """Parts a rollout is split into in a pass, by environment; 4, or the most below that divide
    the environments, unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatches is not None and self.environments % self.minibatches:
            raise UsageError(
                f"minibatches split the environments: {self.minibatches} must divide "
                f"{self.environments}"
            )

    def resolve(self, steps: int, time_limit: int | None = None) -> Proximal:
        resolved = super().resolve(steps, time_limit)
        assert isinstance(resolved, Proximal)
        return dataclasses.replace(resolved, minibatches=self.passes()[1])

    def passes(self) -> tuple[int, int]:
        usual = max(m for m in (1, 2, 3, 4) if self.environments % m == 0)
        return self.epochs, self.minibatches or usual

    def extras(self, distribution: Distribution, actions: Int[Array, "*S N"]) -> PyTree:
        """log π(a_i | h_i) of the behaviour policy."""
        return distribution.log_prob(actions)

    def surrogate(
        self, log_probs: Float[Array, "T B N"], behaviour: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        return clipped_surrogate(log_probs, behaviour, advantages, self.clip)
