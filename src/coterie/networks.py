"""Networks: perceptrons, histories, one network per agent or shared ones, the QMIX mixer.

Layers act on the last axis and broadcast over all others. No layer is initialised by a QR
factorisation: several batched ones in one jitted function can deadlock jaxlib on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.types import EnvSpec, PRNGKey, UsageError

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}

Groups = tuple[str, ...]
"""Agents that share parameters, each group as ``name,name``; agents not named keep their own."""


class Linear(eqx.Module):
    """y = x W + b; W and b uniform in ±scale/√inputs.

    With a gain instead, W is uniform with standard deviation scale · gain/√inputs, and b is 0.
    """

    weight: Float[Array, "I J"]
    bias: Float[Array, " J"]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key: PRNGKey,
        scale: int | float = 1.0,
        gain: int | float | None = None,
    ):
        w_key, b_key = jax.random.split(key)
        bound = scale / math.sqrt(max(inputs, 1))
        shift = bound if gain is None else 0.0
        bound = bound if gain is None else bound * gain * math.sqrt(3)
        self.weight = jax.random.uniform(w_key, (inputs, outputs), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(b_key, (outputs,), minval=-shift, maxval=shift)

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S J"]:
        return x @ self.weight + self.bias


class MLP(eqx.Module):
    """Linear layers with an activation between them (none after the last)."""

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        key: PRNGKey,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
    ):
        """``last`` scales the last layer's initial weights: a small one starts near 0.

        ``gain`` is that of the layers before it, see ``Linear``; the last layer's is then 1.
        """
        keys = jax.random.split(key, len(sizes) - 1)
        scales = [1.0] * (len(sizes) - 2) + [last]
        gains = [gain] * (len(sizes) - 2) + [None if gain is None else 1.0]
        self.layers = tuple(
            Linear(i, j, k, scale, g)
            for i, j, k, scale, g in zip(sizes[:-1], sizes[1:], keys, scales, gains, strict=True)
        )
        self.activation = activation

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S J"]:
        return self.layers[-1](self.trunk(x))

    def trunk(self, x: Float[Array, "*S I"]) -> Float[Array, "*S J"]:
        """All but the last layer."""
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return x


class GRU(eqx.Module):
    """Gated recurrent unit (Cho et al. 2014), the input part of its gates taken out of the scan."""

    inputs: Linear
    hidden: Linear

    def __init__(self, inputs: int, size: int, key: PRNGKey):
        i_key, h_key = jax.random.split(key)
        self.inputs = Linear(inputs, 3 * size, i_key, scale=math.sqrt(inputs / size))
        self.hidden = Linear(size, 3 * size, h_key)

    def step(self, h: Float[Array, "*S H"], gates: Float[Array, "*S G"]) -> Float[Array, "*S H"]:
        reset_x, update_x, new_x = jnp.split(gates, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(self.hidden(h), 3, axis=-1)
        reset = jax.nn.sigmoid(reset_x + reset_h)
        update = jax.nn.sigmoid(update_x + update_h)
        new = jnp.tanh(new_x + reset * new_h)
        return (1 - update) * new + update * h


class History(eqx.Module):
    """Maps an agent's observation history to outputs: o^t and memory in, outputs and memory out.

    Feed-forward: the history is the last observation and memory is empty (H = 0).
    Recurrent: a GRU stands before the last layer.
    """

    body: MLP
    gru: GRU | None
    memory_size: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        key: PRNGKey,
        recurrent: bool = False,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
    ):
        body_key, gru_key = jax.random.split(key)
        self.memory_size = hidden[-1] if recurrent else 0
        self.body = MLP([inputs, *hidden, outputs], body_key, activation, last, gain)
        self.gru = GRU(hidden[-1], hidden[-1], gru_key) if recurrent else None

    def unroll(
        self,
        memory: Float[Array, "*M H"],
        inputs: Float[Array, "T *M I"],
        start: Bool[Array, "T *M"],
    ) -> tuple[Float[Array, "T *M J"], Float[Array, "T *M H"]]:
        """Outputs at every step, and the memory after every step.

        ``memory`` is that before the first step; where ``start`` is set the episode begins and
        memory is the initial one (zeros).
        """
        if self.gru is None:
            return self.body(inputs), jnp.zeros((*inputs.shape[:-1], 0), inputs.dtype)
        gru = self.gru

        def step(h, now):
            gates, first = now
            h = gru.step(jnp.where(first[..., None], 0.0, h), gates)
            return h, h

        _, memories = jax.lax.scan(step, memory, (gru.inputs(self.body.trunk(inputs)), start))
        return self.body.layers[-1](memories), memories


class PerAgent(eqx.Module):
    """One history network per agent, one for all, or one per group of agents.

    Attributes:
        networks: the stacked networks [G, ...].
        index: which network each agent uses; a static routing map.
        identify: agents that share a network append their one-hot id to the observation.
    """

    networks: History
    index: tuple[int, ...] = eqx.field(static=True)
    identify: tuple[bool, ...] = eqx.field(static=True)

    def __init__(
        self,
        index: tuple[int, ...],
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        key: PRNGKey,
        recurrent: bool = False,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
    ):
        self.index = index
        self.identify = tuple(index.count(g) > 1 for g in index)
        width = inputs + (len(index) if any(self.identify) else 0)
        self.networks = eqx.filter_vmap(
            lambda k: History(width, outputs, hidden, k, recurrent, activation, last, gain)
        )(jax.random.split(key, max(index) + 1))

    @property
    def memory_size(self) -> int:
        return self.networks.memory_size

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden layer sizes."""
        return tuple(layer.weight.shape[-1] for layer in self.networks.body.layers[:-1])

    @property
    def activation(self) -> str:
        return self.networks.body.activation

    def initial_memory(self, *batch: int) -> Float[Array, "*B N H"]:
        return jnp.zeros((*batch, len(self.index), self.memory_size))

    def unroll(
        self,
        memory: Float[Array, "*M N H"],
        observations: Float[Array, "T *M N O"],
        start: Bool[Array, "T *M N"],
    ) -> tuple[Float[Array, "T *M N J"], Float[Array, "T *M N H"]]:
        """Each agent's outputs and memories along a sequence (see ``History.unroll``)."""
        inputs = self._with_id(observations)
        n_networks = max(self.index) + 1
        if n_networks == 1:
            one = jax.tree.map(lambda p: p[0], self.networks)
            return one.unroll(memory, inputs, start)
        networks = self.networks
        if self.index != tuple(range(n_networks)):
            routing = jnp.asarray(self.index)
            networks = jax.tree.map(lambda p: p[routing], networks)
        per_agent = eqx.filter_vmap(History.unroll, in_axes=(0, -2, -2, -1), out_axes=(-2, -2))
        return per_agent(networks, memory, inputs, start)

    def step(
        self,
        memory: Float[Array, "*M N H"],
        observations: Float[Array, "*M N O"],
        start: Bool[Array, "*M N"],
    ) -> tuple[Float[Array, "*M N J"], Float[Array, "*M N H"]]:
        """One step of ``unroll``."""
        outputs, memories = self.unroll(memory, observations[None], start[None])
        return outputs[0], memories[0]

    def _with_id(self, observations: Float[Array, "*S N O"]) -> Float[Array, "*S N I"]:
        if not any(self.identify):
            return observations
        ids = jnp.diag(jnp.asarray(self.identify, observations.dtype))
        ids = jnp.broadcast_to(ids, (*observations.shape[:-1], len(self.index)))
        return jnp.concatenate([observations, ids], axis=-1)


def sharing_index(spec: EnvSpec, sharing: str, groups: Groups = ()) -> tuple[int, ...]:
    """Which network each agent uses under ``own``, ``shared`` or named groups.

    Raises:
        UsageError: unknown agents, an agent in two groups.
    """
    if sharing not in ("own", "shared"):
        raise UsageError(f"sharing must be own or shared; got {sharing!r}")
    if not groups:
        return tuple(0 if sharing == "shared" else i for i in range(spec.n_agents))
    split = [tuple(group.split(",")) for group in groups]
    named = [name for group in split for name in group]
    unknown = sorted(set(named) - set(spec.agents))
    if unknown or len(set(named)) != len(named):
        problem = f"unknown agents {unknown}" if unknown else "an agent in two groups"
        raise UsageError(f"groups name {problem}; the agents are {', '.join(spec.agents)}")
    owner = {name: group[0] for group in split for name in group}
    order: dict[str, int] = {}
    return tuple(order.setdefault(owner.get(a, a), len(order)) for a in spec.agents)


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

    def __init__(self, agents: int, central: int, embedding: int, hyper: int, key: PRNGKey):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        self.hyper_w1 = MLP([central, hyper, agents * embedding], k1)
        self.hyper_b1 = Linear(central, embedding, k2)
        self.hyper_w2 = MLP([central, hyper, embedding], k3)
        self.value = MLP([central, embedding, 1], k4)
        self.embedding = embedding

    def __call__(
        self, utilities: Float[Array, "*S N"], central: Float[Array, "*S Z"]
    ) -> Float[Array, "*S"]:
        w1 = jnp.abs(self.hyper_w1(central))
        w1 = w1.reshape(*utilities.shape, self.embedding)
        # A product and not a sum: XLA would fuse the sum into elu and compute it several times.
        hidden = jnp.einsum("...n,...ne->...e", utilities, w1) + self.hyper_b1(central)
        w2 = jnp.abs(self.hyper_w2(central))
        return jnp.sum(jax.nn.elu(hidden) * w2, axis=-1) + self.value(central)[..., 0]
