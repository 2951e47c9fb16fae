"""Actions that are vectors: several choices, and numbers drawn from Gaussians.

An agent decides each part of its action independently of the others, given its history. Numbers
are learned in units in which finite bounds are ±1 (``to_env``). A Gaussian has no bounds, so what
is drawn is made legal where the environment takes it: cut off at the bounds, or squashed by tanh.
Learners keep what was drawn, which makes log π exact in both cases.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from coterie.spec import ActionSpace
from coterie.types import PRNGKey

Bounds = Literal["clip", "tanh"]
"""How numbers beyond their bounds become legal."""

Groups = tuple[tuple[ActionSpace, tuple[int, ...]], ...]


@dataclass(frozen=True)
class ActionVectors:
    """How networks' outputs are read as distributions over action vectors, and drawn from.

    A network's outputs are, one after the other, the logits of all choices and the means of all
    numbers, padded to the same length for all agents, and then log σ of the numbers. An action mask
    has a flag for each logit and each mean. An agent that does not act has none set; what it does
    not decide is 0, and counts neither for log π nor for the entropy.

    Attributes:
        spaces: the agents' action spaces.
        bounds: ``clip`` or ``tanh``.
        least_std: networks keep σ at least at this (``at_least``).
        std_of_observation: σ depends on what an agent observes: what a network says of each number
            beside its mean is added to log σ.
    """

    spaces: tuple[ActionSpace, ...]
    bounds: Bounds = "clip"
    least_std: float = 0.0
    std_of_observation: bool = False

    @cached_property
    def network_outputs(self) -> int:
        """How many outputs the network itself has."""
        return self.outputs + (self.numbers if self.std_of_observation else 0)

    @cached_property
    def outputs(self) -> int:
        """Logits and means, of the agent that has most."""
        return max(sum(space.choices) + len(space.low) for space in self.spaces)

    @cached_property
    def numbers(self) -> int:
        """Numbers of the agent that has most: how many log σ a network has."""
        return max(len(space.low) for space in self.spaces)

    @cached_property
    def size(self) -> int:
        """P, the padded length of an action."""
        return max(space.size for space in self.spaces)

    @cached_property
    def groups(self) -> Groups:
        """Agents of the same space, with their places on the agent axis."""
        places: dict[ActionSpace, list[int]] = {}
        for i, space in enumerate(self.spaces):
            places.setdefault(space, []).append(i)
        return tuple((space, tuple(own)) for space, own in places.items())

    @cached_property
    def order(self) -> np.ndarray:
        """[N] where each agent stands when groups follow each other."""
        return np.argsort(np.concatenate([own for _, own in self.groups]))

    @cached_property
    def is_choice(self) -> Bool[np.ndarray, "N P"]:
        """Which parts of an action are choices; padding is neither that nor a number."""
        first = np.asarray([len(space.choices) for space in self.spaces])
        return np.arange(self.size) < first[:, None]

    @cached_property
    def limits(self) -> tuple[Float[np.ndarray, "N P"], Float[np.ndarray, "N P"]]:
        """Bounds of every part, infinite where it is no number or has none."""
        low = np.full((len(self.spaces), self.size), -np.inf, np.float32)
        high = -low
        for i, space in enumerate(self.spaces):
            part = slice(len(space.choices), space.size)
            low[i, part], high[i, part] = space.low, space.high
        return low, high

    def noise(self, key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "*S N P"]:
        """What distributions over vectors draw from: uniform for choices, else normal."""
        shape = (*shape, len(self.spaces), self.size)
        uniform_key, normal_key = jax.random.split(key)
        if not self.is_choice.any():
            return jax.random.normal(normal_key, shape)
        uniform = jax.random.uniform(uniform_key, shape)
        if not self.numbers:
            return uniform
        return jnp.where(self.is_choice, uniform, jax.random.normal(normal_key, shape))

    def to_env(self, actions: Float[Array, "*S N P"]) -> Float[Array, "*S N P"]:
        """Actions as the environment takes them: legal, and in its own units."""
        if not self.numbers:
            return actions
        low, high = (x.astype(np.float64) for x in self.limits)  # their sum may exceed 32 bits
        bounded = np.isfinite(low) & np.isfinite(high)
        middle = np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0)
        half = np.where(bounded, np.where(bounded, high, 2) - middle, 1).astype(np.float32)
        squashed = jnp.tanh(actions) if self.bounds == "tanh" else actions
        scaled = jnp.where(bounded, squashed, actions) * half + middle.astype(np.float32)
        return jnp.clip(scaled, *self.limits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def at_least(x: Float[Array, "*S"], least: float) -> Float[Array, "*S"]:
    """max(x, least), of a parameter of a loss that is minimised.

    Below the floor the maximum has no gradient, so a parameter that got there would stay. Here the
    part of a gradient passes that raises it: descent leads back, and never further down.
    """
    return jnp.maximum(x, least)


def _at_least(x: Float[Array, "*S"], least: float) -> tuple[Float[Array, "*S"], Any]:
    return at_least(x, least), x


def _raising(least: float, x: Float[Array, "*S"], gradient: Float[Array, "*S"]) -> tuple[Any]:
    return (jnp.where((x > least) | (gradient < 0), gradient, 0.0),)


at_least.defvjp(_at_least, _raising)


def gaussian_log_density(
    x: Float[Array, "*S"], mean: Float[Array, "*S"], log_std: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """log N(x; μ, σ²)."""
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def log_tanh_slope(u: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """log(1 − tanh² u), without the cancellation of large u."""
    return 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
