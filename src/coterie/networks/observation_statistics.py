"""Running statistics of what agents observe, by which policies normalise their observations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Num

from coterie.ops.observations import floats_of, with_floats
from coterie.ops.running_statistics import Moments
from coterie.spec import EnvSpec, ObservationSpace


class ObservationStatistics(eqx.Module):
    """Mean and variance of each float that the agents of a network observe; pixels have none.

    Agents that share a network share its statistics: what they observe is the same to it.

    Attributes:
        moments: [G·F], of the F floats of an observation, network after network.
        index: which of the G networks each agent uses.
        sizes: length of each agent's observation, which padding follows.
        space: of the observations, where they are no plain vectors.
    """

    moments: Moments
    index: tuple[int, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    space: ObservationSpace | None = eqx.field(static=True)

    @staticmethod
    def empty(spec: EnvSpec, index: Sequence[int]) -> ObservationStatistics:
        """Before anything was observed.

        Args:
            spec: of the agents.
            index: which network each of them uses.
        """
        space = spec.observation_space
        floats = spec.observation_size if space is None else space.floats
        moments = Moments.empty((max(index) + 1) * floats)
        return ObservationStatistics(moments, tuple(index), spec.observation_sizes, space)

    def update(
        self, observations: Num[Array, "*S N O"], counts: Bool[Array, "*S N"]
    ) -> ObservationStatistics:
        """Adds what agents observed where ``counts`` is set; padding never counts."""
        floats = floats_of(observations, self.space)
        weight = counts[..., None] & self._entries(floats.shape[-1])
        groups = [[i for i, g in enumerate(self.index) if g == k] for k in range(self._networks)]
        most = max(map(len, groups))
        # The agents of each network, [G, K]; what fills up the smaller groups does not count.
        members = np.array([own + own[:1] * (most - len(own)) for own in groups])
        belongs = np.arange(most) < np.array([[len(own)] for own in groups])

        def by_network(x: Array) -> Array:
            """[*S, G, K, F] as [K, *S, G·F]."""
            x = jnp.moveaxis(x, -2, 0)
            return x.reshape(*x.shape[:-2], -1)

        moments = self.moments.update(
            by_network(floats[..., members, :]),
            by_network(weight[..., members, :] & belongs[..., None]),
        )
        return dataclasses.replace(self, moments=moments)

    def normalise(self, observations: Num[Array, "*S N O"]) -> Num[Array, "*S N O"]:
        """Observations whose floats are ``Moments.normalise``d; padding stays zero."""
        floats = floats_of(observations, self.space)
        size = floats.shape[-1]
        each = jax.tree.map(lambda x: x.reshape(-1, size)[np.array(self.index)], self.moments)
        found = jnp.where(self._entries(size), each.normalise(floats), 0.0)
        return with_floats(observations, found, self.space)

    @property
    def _networks(self) -> int:
        return max(self.index) + 1

    def _entries(self, size: int) -> Bool[np.ndarray, "N F"]:
        """The entries that each agent has; all others are padding."""
        if self.space is not None:
            return np.ones((len(self.sizes), size), bool)
        return np.arange(size) < np.array(self.sizes)[:, None]
