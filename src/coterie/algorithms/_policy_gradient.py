"""What every policy-gradient algorithm shares: stochastic actors, and how they act and learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from coterie.algorithms._base import Algorithm, clip_norm
from coterie.envs.views import Game
from coterie.networks import ACTIVATIONS, Groups, PerAgent, sharing_index
from coterie.ops.exploration import sample
from coterie.types import PRNGKey, PyTree, UsageError

ACTOR_SCALE = 0.01
"""Of the actors' last layer at the start: policies begin close to uniform."""


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Algorithm):
    """Base of the policy-gradient algorithms: actors π(a_i | h_i; φ_i), sampled while training."""

    stochastic: ClassVar[bool] = True

    gamma: float = 0.99
    """Discount factor γ."""
    lr: float = 5e-4
    """Learning rate of Adam."""
    environments: int = 16
    """Parallel synchronous environments K."""
    entropy: float = 0.01
    """Weight of the entropy bonus in the actor loss, at the start."""
    entropy_end: float | None = None
    """The weight falls (or rises) linearly to this one; constant unless given."""
    entropy_steps: int | None = None
    """Environment steps over which it does; the whole run unless given."""
    standardise_rewards: bool = True
    """Learn from (r - mean)/std of all rewards seen so far; values are then in those units."""
    max_grad_norm: float | None = 0.5
    """Clip every network's gradient to this norm, each by itself; None for no clipping."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layer sizes of actors and critics."""
    activation: Literal["relu", "tanh"] = "tanh"
    """Between hidden layers."""
    recurrent: bool = False
    """Put a GRU before the last layer: policies of histories instead of observations."""
    sharing: Literal["own", "shared"] = "own"
    """Each agent its own parameters, or one set with the agent's id appended."""
    groups: Groups = ()
    """Groups that share parameters, each ``agent,agent`` by name; others keep their own."""

    def __post_init__(self) -> None:
        for name in ("lr", "environments", *self._positive()):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be a positive number; got {getattr(self, name)}")
        for name in ("gamma", *self._shares()):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} must lie in [0, 1]; got {value}")
        for name in ("entropy", "entropy_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"{name} must not be negative; got {value}")
        for name in ("max_grad_norm", "entropy_steps", *self._positive_or_none()):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} must be positive or None; got {value}")
        if not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"hidden must be positive layer sizes; got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation must be {' or '.join(ACTIVATIONS)}")
        if self.groups and self.sharing == "shared":
            raise UsageError("sharing shared and groups contradict each other: give one of them")

    def _positive(self) -> tuple[str, ...]:
        """More settings that must be positive."""
        return ()

    def _positive_or_none(self) -> tuple[str, ...]:
        """More settings that must be positive or None."""
        return ()

    def _shares(self) -> tuple[str, ...]:
        """More settings that lie in [0, 1]."""
        return ()

    # Time ------------------------------------------------------------------------------------

    def resolve(self, steps: int, time_limit: int | None = None) -> PolicyGradient:
        del time_limit
        if self.entropy_end is None or self.entropy_steps is not None:
            return self
        return dataclasses.replace(self, entropy_steps=steps)

    def clock(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        steps, environments = self.rollout_shape()
        end = self.entropy if self.entropy_end is None else self.entropy_end
        done = np.clip(iterations * (steps * environments) / (self.entropy_steps or 1), 0, 1)
        return {"entropy": (self.entropy + done * (end - self.entropy)).astype(np.float32)}

    def updates(self, iterations: int) -> int:
        return iterations

    # Acting ----------------------------------------------------------------------------------

    def make_actor(self, key: PRNGKey, game: Game) -> PerAgent:
        """One actor per agent (or shared ones): observation history in, action scores out."""
        spec = game.spec
        return PerAgent(
            sharing_index(spec, self.sharing, self.groups),
            spec.observation_size,
            spec.action_count,
            self.hidden,
            key,
            self.recurrent,
            self.activation,
            last=ACTOR_SCALE,
        )

    def policy(self, learner: Any) -> PerAgent:
        return learner.actor

    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return jax.random.uniform(key, (*shape, game.spec.n_agents))

    def act(
        self,
        scores: Float[Array, "B N A"],
        mask: Bool[Array, "B N A"],
        noise: PyTree,
        clock: dict[str, Array],
    ) -> tuple[Int[Array, "B N"], PyTree]:
        return sample(scores, mask, noise), ()

    # Learning --------------------------------------------------------------------------------

    def init_optimiser(self, networks: PyTree) -> PyTree:
        """Adam's state for ``descend``."""
        return optax.scale_by_adam().init(networks)

    def descend(
        self, networks: PyTree, grads: PyTree, optimiser: PyTree, rates: dict[str, float]
    ) -> tuple[PyTree, PyTree]:
        """One Adam step; ``networks`` and ``grads`` are dicts of ``PerAgent`` by name.

        Args:
            rates: the learning rate of each.
        """
        clip = jax.vmap(lambda g: clip_norm(g, self.max_grad_norm))
        grads = {name: clip(g) for name, g in grads.items()}
        scaled: Any
        scaled, optimiser = optax.scale_by_adam().update(grads, optimiser)

        def move(name: str) -> Any:
            return jax.tree.map(lambda p, d: p - rates[name] * d, networks[name], scaled[name])

        return {name: move(name) for name in networks}, optimiser


def per_agent(flag: Bool[Array, "T B"], like: Array) -> Bool[Array, "T B N"]:
    """A flag of the joint step, for each agent."""
    return jnp.broadcast_to(flag[..., None], like.shape)
