"""What every policy-gradient algorithm shares: stochastic actors, and how they act and learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm, scaling_remarks, unreached
from coterie.networks.per_agent import Groups, PerAgent, sharing_index
from coterie.ops.returns import discounted_so_far
from coterie.ops.running_statistics import Moments, RewardScaling
from coterie.ops.schedules import moved, share_of
from coterie.ops.updates import clip_norm
from coterie.policies.distributions import Categorical, Distribution
from coterie.settings import Count, EndRate, Layers, Positive, Rate, Share, StepCount, Weight
from coterie.types import PRNGKey, PyTree
from coterie.views.game import Game

ACTOR_SCALE = 0.01
"""Of the actors' last layer at the start: policies begin close to uniform."""


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Algorithm):
    """Base of the policy-gradient algorithms: actors π(a_i | h_i; φ_i), sampled while training."""

    stochastic: ClassVar[bool] = True

    gamma: Share = 0.99
    """Discount factor γ."""
    lr: Rate = 5e-4
    """Learning rate of Adam."""
    lr_end: EndRate | None = None
    """It moves linearly to this one (the critics' in proportion); constant unless given."""
    lr_steps: StepCount | None = None
    """Environment steps over which it does; the whole run unless given."""
    environments: Count = 16
    """Parallel synchronous environments K."""
    entropy: Weight = 0.01
    """Weight of the entropy bonus in the actor loss, at the start."""
    entropy_end: float | None = None
    """It moves linearly to this one, below 0 to reward certainty; constant unless given."""
    entropy_steps: StepCount | None = None
    """Environment steps over which it does; the whole run unless given."""
    reward_scaling: RewardScaling = "scale"
    """Learn from rewards divided by the root mean square of their discounted sums so far (scale),
    as they are (none), or (r - mean)/std (standardise), which changes the task where an episode's
    length is a choice."""
    max_grad_norm: Positive | None = 0.5
    """Clip every network's gradient to this norm, each by itself; None for no clipping."""
    hidden: Layers = (64, 64)
    """Hidden layer sizes of actors and critics."""
    activation: Literal["relu", "tanh"] = "tanh"
    """Between hidden layers."""
    gain: Positive = 1.414
    """Initial weights of hidden layers have standard deviation gain/√inputs; biases are 0."""
    recurrent: bool = False
    """Put a GRU before the last layer: policies of histories instead of observations."""
    sharing: Literal["own", "shared"] = "own"
    """Each agent its own parameters, or one set with the agent's id appended."""
    groups: Groups = ()
    """Groups that share parameters, each ``agent,agent`` by name; others keep their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups and self.sharing == "shared":
            raise UsageError("sharing shared and groups contradict each other: give one of them")

    def remarks(self, game: Game) -> list[str]:
        return scaling_remarks(self.reward_scaling)

    # Time ------------------------------------------------------------------------------------

    def resolve(self, steps: int, time_limit: int | None = None) -> PolicyGradient:
        del time_limit
        open_ended = {
            f"{name}_steps": steps
            for name in ("lr", "entropy")
            if getattr(self, f"{name}_end") is not None and getattr(self, f"{name}_steps") is None
        }
        return dataclasses.replace(self, **open_ended) if open_ended else self

    def shortfalls(self, steps: int) -> list[str]:
        said = super().shortfalls(steps)
        said += unreached("lr", self.lr_end, self.lr_steps, steps)
        return said + unreached("entropy", self.entropy_end, self.entropy_steps, steps)

    def clock(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        steps, environments = self.rollout_shape()
        each = steps * environments
        entropy = moved(iterations, each, self.entropy, self.entropy_end, self.entropy_steps)
        rate = moved(iterations, each, 1.0, share_of(self.lr_end, self.lr), self.lr_steps)
        return {"entropy": entropy, "rate": rate}

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
            gain=self.gain,
        )

    def policy(self, learner: Any) -> PerAgent:
        return learner.actor

    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return jax.random.uniform(key, (*shape, game.spec.n_agents))

    def distribution(
        self, outputs: Float[Array, "*S N A"], mask: Bool[Array, "*S N A"], clock: dict[str, Array]
    ) -> Distribution:
        return Categorical(outputs, mask)

    # Learning --------------------------------------------------------------------------------

    def init_optimiser(self, networks: PyTree) -> PyTree:
        """Adam's state for ``descend``."""
        return optax.scale_by_adam().init(networks)

    def in_units(
        self,
        moments: Moments,
        so_far: Float[Array, "B N"] | None,
        rewards: Float[Array, "T B N"],
        counts: Bool[Array, "T B N"],
        start: Bool[Array, "T B"],
    ) -> tuple[Float[Array, "T B N"], Moments, Float[Array, "B N"] | None]:
        """The rewards that are learned from, and what their unit goes by from now on.

        Args:
            so_far: the discounted rewards so far of every running episode; zeros unless given.
            counts: the steps that are learned from.
        """
        if self.reward_scaling != "scale":
            moments = moments.update(rewards, counts)
            return moments.apply(self.reward_scaling, rewards), moments, so_far
        common = len(moments.count) < rewards.shape[-1]
        counted = jnp.any(counts, axis=-1, keepdims=True) if common else counts
        before = jnp.zeros_like(rewards[0]) if so_far is None else so_far
        sums = discounted_so_far(
            jnp.where(counted, rewards, 0.0), per_agent(start, rewards), before, self.gamma
        )
        moments = moments.update(sums, counts)
        return moments.scale(rewards), moments, sums[-1]

    def descend(
        self,
        networks: PyTree,
        grads: PyTree,
        optimiser: PyTree,
        rates: dict[str, float],
        rate: Array,
    ) -> tuple[PyTree, PyTree]:
        """One Adam step; ``networks`` and ``grads`` are dicts of ``PerAgent`` by name.

        Args:
            rates: the learning rate of each, at the start.
            rate: how much of it is left.
        """
        clip = jax.vmap(lambda g: clip_norm(g, self.max_grad_norm))
        grads = {name: clip(g) for name, g in grads.items()}
        scaled: Any
        scaled, optimiser = optax.scale_by_adam().update(grads, optimiser)

        def move(name: str) -> Any:
            lr = rates[name] * rate
            return jax.tree.map(lambda p, d: p - lr * d, networks[name], scaled[name])

        return {name: move(name) for name in networks}, optimiser


def per_agent(flag: Bool[Array, "T B"], like: Array) -> Bool[Array, "T B N"]:
    """A flag of the joint step, for each agent."""
    return jnp.broadcast_to(flag[..., None], like.shape)
