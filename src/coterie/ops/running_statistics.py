"""Running mean and variance, for scaling rewards and normalising observations."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RewardScaling = Literal["scale", "standardise", "none"]
NORMALISED_LIMIT = 10.0
"""Normalised observations are clipped to ± this."""


class Moments(eqx.Module):
    """Count, mean and mean squared deviation so far of M numbers, such as every agent's reward.

    Of rewards M is the number of agents N, or 1 where all of them learn from one common reward.
    """

    count: Float[Array, "*M"]
    mean: Float[Array, "*M"]
    variance: Float[Array, "*M"]

    @staticmethod
    def empty(m: int) -> Moments:
        return Moments(jnp.zeros(m), jnp.zeros(m), jnp.zeros(m))

    def update(self, values: Float[Array, "*S N"], weight: Bool[Array, "*S N"]) -> Moments:
        """Adds the values whose weight is set (parallel variance, Chan et al. 1979).

        A common reward counts once, in the steps that count for any agent. The count stops at
        2^24, where 32-bit floats stop counting; from there the moments are an exponential average
        with that horizon.
        """
        if self.count.shape[-1] < values.shape[-1]:
            values, weight = values[..., :1], jnp.any(weight, axis=-1, keepdims=True)
        steps = tuple(range(values.ndim - 1))
        n = jnp.sum(weight, axis=steps, dtype=jnp.float32)
        safe = jnp.maximum(n, 1.0)
        mean = jnp.sum(jnp.where(weight, values, 0.0), axis=steps) / safe
        variance = jnp.sum(jnp.where(weight, (values - mean) ** 2, 0.0), axis=steps) / safe
        total = jnp.maximum(self.count + n, 1.0)
        share = n / total
        delta = mean - self.mean
        merged = self.variance + share * (variance - self.variance)
        return Moments(
            jnp.minimum(self.count + n, 2.0**24),
            self.mean + share * delta,
            merged + share * (1 - share) * delta**2,
        )

    def apply(self, scaling: RewardScaling, rewards: Float[Array, "*S N"]) -> Float[Array, "*S N"]:
        """The rewards that are learned from, in the units that the algorithm was asked for."""
        if scaling == "none":
            return rewards
        return self.scale(rewards) if scaling == "scale" else self.standardise(rewards)

    def scale(self, values: Float[Array, "*S N"]) -> Float[Array, "*S N"]:
        """x over the root mean square of what was seen; unchanged while that was zeros only.

        A positive factor leaves what is optimal as it is. The root mean square is a scale for
        constant rewards too, which have no deviation.
        """
        size = jnp.hypot(self.mean, jnp.sqrt(self.variance))
        return values / jnp.where(size > 0, size, 1.0)

    def standardise(self, values: Float[Array, "*S N"]) -> Float[Array, "*S N"]:
        """(x − mean) / √variance; unchanged while that variance is no more than rounding."""
        spread, floor = self.spread()
        scaled = (values - self.mean) / jnp.maximum(spread, floor)
        return jnp.where(spread > floor, scaled, values)

    def normalise(self, values: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """(x − mean) / √variance, clipped to ±10; x − mean while there is no more than rounding.

        The last axes of ``values`` are those of the moments; before anything was seen, the mean
        is 0.
        """
        spread, floor = self.spread()
        scaled = (values - self.mean) / jnp.where(spread > floor, spread, 1.0)
        return jnp.clip(scaled, -NORMALISED_LIMIT, NORMALISED_LIMIT)

    def spread(self) -> tuple[Float[Array, "*M"], Float[Array, "*M"]]:
        """√variance, and up to what size that is no more than rounding."""
        return jnp.sqrt(self.variance), 1e-5 * jnp.abs(self.mean) + 1e-8
