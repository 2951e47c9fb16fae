"""Running mean and variance, for standardising rewards."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Moments(eqx.Module):
    """Count, mean and mean squared deviation of everything seen so far."""

    count: Float[Array, ""]
    mean: Float[Array, ""]
    variance: Float[Array, ""]

    @staticmethod
    def empty() -> Moments:
        return Moments(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

    def update(self, values: Float[Array, "*S"], weight: Bool[Array, "*S"]) -> Moments:
        """Adds the values whose weight is set (parallel variance, Chan et al. 1979).

        The count stops at 2^24, where 32-bit floats stop counting; from there the moments are
        an exponential average with that horizon.
        """
        n = jnp.sum(weight, dtype=jnp.float32)
        safe = jnp.maximum(n, 1.0)
        mean = jnp.sum(jnp.where(weight, values, 0.0)) / safe
        variance = jnp.sum(jnp.where(weight, (values - mean) ** 2, 0.0)) / safe
        total = jnp.maximum(self.count + n, 1.0)
        share = n / total
        delta = mean - self.mean
        merged = self.variance + share * (variance - self.variance)
        return Moments(
            jnp.minimum(self.count + n, 2.0**24),
            self.mean + share * delta,
            merged + share * (1 - share) * delta**2,
        )

    def standardise(self, values: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """(x − mean) / √variance; unchanged while that variance is no more than rounding."""
        spread = jnp.sqrt(self.variance)
        floor = 1e-5 * jnp.abs(self.mean) + 1e-8
        scaled = (values - self.mean) / jnp.maximum(spread, floor)
        return jnp.where(spread > floor, scaled, values)
