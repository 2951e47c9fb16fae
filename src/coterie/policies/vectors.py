"""Distributions over actions that are vectors (``ops/action_vectors.py``)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from coterie.ops.action_selection import greedy, of_action, sample
from coterie.ops.action_vectors import ActionVectors, gaussian_log_density, log_tanh_slope
from coterie.ops.losses import entropy, log_probabilities
from coterie.policies.distributions import Distribution


class VectorDistribution(Distribution):
    """Independent choices (softmax over the legal alternatives) and numbers (Gaussians).

    ``log_prob`` is that of all parts together; of a number it is the density in the learner's
    units, where finite bounds are ±1, with tanh that of the squashed number. ``entropy`` is the
    sum of the choices' entropies and of the Gaussians' differential entropies before squashing.
    Choices without a legal alternative, and numbers whose flag is not set, are 0 and count for
    neither: so nothing is learned from agents that do not act.
    """

    vectors: ActionVectors

    def sample(self, noise: Float[Array, "*S N P"]) -> Float[Array, "*S N P"]:
        def draw(part: _Part, noise: Float[Array, "*S M P"]) -> list[Array]:
            drawn = [
                sample(logits, mask, noise[..., k])
                for k, (logits, mask) in enumerate(zip(part.logits, part.masks, strict=True))
            ]
            first, d = len(drawn), part.mean.shape[-1]
            numbers = part.mean + part.std * noise[..., first : first + d]
            return [*drawn, jnp.where(part.decided, numbers, 0.0)]

        return self._actions(draw, noise)

    def mode(self) -> Float[Array, "*S N P"]:
        """The likeliest alternative of each choice, and the means."""

        def likeliest(part: _Part) -> list[Array]:
            return [*map(greedy, part.logits, part.masks), part.mean]

        return self._actions(likeliest)

    def log_prob(self, actions: Float[Array, "*S N P"]) -> Float[Array, "*S N"]:
        return self._numbers(self._log_prob, actions)

    def entropy(self) -> Float[Array, "*S N"]:
        return self._numbers(_entropy)

    def log_prob_and_entropy(
        self, actions: Float[Array, "*S N P"]
    ) -> tuple[Float[Array, "*S N"], Float[Array, "*S N"]]:
        return self.log_prob(actions), self.entropy()

    def _log_prob(self, part: _Part, actions: Float[Array, "*S M P"]) -> Float[Array, "*S M"]:
        total = jnp.zeros(actions.shape[:-1])
        for k, (logits, mask) in enumerate(zip(part.logits, part.masks, strict=True)):
            chosen = actions[..., k].astype(jnp.int32)
            of_chosen = of_action(log_probabilities(logits, mask), chosen)
            total += jnp.where(jnp.any(mask, axis=-1), of_chosen, 0.0)  # else nothing is chosen
        first, d = len(part.logits), part.mean.shape[-1]
        drawn = jnp.where(part.decided, actions[..., first : first + d], 0.0)
        each = gaussian_log_density(drawn, part.mean, jnp.log(part.std))
        if self.vectors.bounds == "tanh":
            each = each - jnp.where(part.bounded, log_tanh_slope(drawn), 0.0)
        return total + jnp.sum(jnp.where(part.decided, each, 0.0), axis=-1)

    def _parts(self) -> list[tuple[_Part, tuple[int, ...]]]:
        vectors, found = self.vectors, []
        log_std = self.outputs[..., vectors.outputs :]
        for space, own in vectors.groups:
            outputs, mask, log_stds = (_of(x, own) for x in (self.outputs, self.mask, log_std))
            ends = np.cumsum((0, *space.choices)).tolist()
            heads = [slice(a, b) for a, b in itertools.pairwise(ends)]
            d = len(space.low)
            numbers = slice(ends[-1], ends[-1] + d)
            decided = mask[..., numbers]
            std = jnp.exp(log_stds[..., :d])
            part = _Part(
                logits=[outputs[..., head] for head in heads],
                masks=[mask[..., head] for head in heads],
                # What does not count must be finite too: 0 · ∞ in its gradient would be NaN.
                mean=jnp.where(decided, outputs[..., numbers], 0.0),
                std=jnp.where(decided, std, 1.0),
                decided=decided,
                bounded=np.isfinite(space.low) & np.isfinite(space.high),
            )
            found.append((part, own))
        return found

    def _actions(
        self, make: Callable[..., Any], *given: Float[Array, "*S N P"]
    ) -> Float[Array, "*S N P"]:
        """What ``make`` says of each group, as action vectors [*S, N, P]."""
        each = []
        for part, own in self._parts():
            columns = make(part, *(_of(x, own) for x in given))
            joined = jnp.concatenate(
                [x[..., None].astype(jnp.float32) for x in columns[:-1]] + columns[-1:], axis=-1
            )
            short = self.vectors.size - joined.shape[-1]
            each.append(jnp.pad(joined, [(0, 0)] * (joined.ndim - 1) + [(0, short)]))
        return self._in_order(each, -2)

    def _numbers(
        self, make: Callable[..., Any], *given: Float[Array, "*S N P"]
    ) -> Float[Array, "*S N"]:
        """What ``make`` says of each group, [*S, N]."""
        each = [make(part, *(_of(x, own) for x in given)) for part, own in self._parts()]
        return self._in_order(each, -1)

    def _in_order(self, each: list[Array], axis: int) -> Array:
        if len(each) == 1:
            return each[0]
        return jnp.take(jnp.concatenate(each, axis), self.vectors.order, axis)


@dataclass
class _Part:
    """What the networks of M agents of one action space say."""

    logits: list[Float[Array, "*S M _"]]
    masks: list[Bool[Array, "*S M _"]]
    mean: Float[Array, "*S M D"]
    std: Float[Array, "*S M D"]
    decided: Bool[Array, "*S M D"]
    bounded: Bool[np.ndarray, " D"]


def _of(x: Shaped[Array, "*S N K"], own: tuple[int, ...]) -> Shaped[Array, "*S M K"]:
    """The rows of these agents."""
    return x if own == tuple(range(x.shape[-2])) else x[..., np.asarray(own), :]


def _entropy(part: _Part) -> Float[Array, "*S M"]:
    each = jnp.log(part.std) + _HALF_LOG_2PI_E
    total = jnp.sum(jnp.where(part.decided, each, 0.0), axis=-1)
    for logits, mask in zip(part.logits, part.masks, strict=True):
        total += entropy(log_probabilities(logits, mask), mask)
    return total


_HALF_LOG_2PI_E = 0.5 * math.log(2 * math.pi * math.e)
