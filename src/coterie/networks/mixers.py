"""The monotonic mixing network of QMIX."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from coterie.networks.layers import MLP, Linear
from coterie.networks.torsos import Torso
from coterie.types import PRNGKey


class MonotonicMixer(eqx.Module):
    """QMIX's mixing function f_mix, monotone in every utility (Rashid et al. 2018; book §9.5).

    Q = elu(q · |W_1(z)| + b_1(z)) · |w_2(z)| + V(z), with W_1 [N, E] and w_2 [E] from linear-ReLU-
    linear hypernetworks, b_1 from one linear layer and V from linear-ReLU-linear. Weights are
    absolute values, so they can be zero: the monotonicity is ≥ 0.
    """

    hyper_w1: MLP
    hyper_b1: Linear
    hyper_w2: MLP
    value: MLP
    embedding: int = eqx.field(static=True)
    torso: Torso | None

    def __init__(
        self,
        agents: int,
        central: int | Torso,
        embedding: int,
        hyper: int,
        key: PRNGKey,
        scale: float = 1.0,
    ):
        """``central`` is the length of z, or the torso that makes features of it.

        ``scale`` multiplies the initial weights of each layer of the hypernetworks.
        """
        self.torso = None if isinstance(central, int) else central
        central = central if isinstance(central, int) else central.features
        k1, k2, k3, k4 = jax.random.split(key, 4)
        made = (
            MLP([central, hyper, agents * embedding], k1),
            Linear(central, embedding, k2),
            MLP([central, hyper, embedding], k3),
            MLP([central, embedding, 1], k4),
        )
        scaled = jax.tree.map(lambda x: scale * x if eqx.is_array(x) else x, made)
        self.hyper_w1, self.hyper_b1, self.hyper_w2, self.value = scaled
        self.embedding = embedding

    def __call__(
        self, utilities: Float[Array, "*S N"], central: Num[Array, "*S Z"]
    ) -> Float[Array, "*S"]:
        if self.torso is not None:
            central = self.torso(central)
        w1 = jnp.abs(self.hyper_w1(central))
        w1 = w1.reshape(*utilities.shape, self.embedding)
        # A product and not a sum: XLA would fuse the sum into elu and compute it several times.
        hidden = jnp.einsum("...n,...ne->...e", utilities, w1) + self.hyper_b1(central)
        w2 = jnp.abs(self.hyper_w2(central))
        return jnp.sum(jax.nn.elu(hidden) * w2, axis=-1) + self.value(central)[..., 0]
