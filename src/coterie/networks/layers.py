"""Layers: linear, perceptron, gated recurrent unit, and the history of one agent.

They act on the last axis and broadcast over all others. No layer is initialised by a QR
factorisation: several batched ones in one jitted function can deadlock jaxlib on the CPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from coterie.errors import UsageError
from coterie.networks.gru import hidden_states
from coterie.networks.own import HeadSetting, OwnHead, OwnTorso
from coterie.networks.products import affine
from coterie.networks.torsos import Torso
from coterie.types import PRNGKey

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


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
        weight, bias = jnp.asarray(self.weight), jnp.asarray(self.bias)  # may be NumPy's
        return affine(x, weight, bias)


class LayerNorm(eqx.Module):
    """scale · (x − mean) / √(variance + 1e-5) + shift, over the last axis (Ba et al. 2016).

    Scales are 1 and shifts 0 at the start.
    """

    scale: Float[Array, " J"]
    shift: Float[Array, " J"]

    def __init__(self, size: int):
        self.scale, self.shift = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x: Float[Array, "*S J"]) -> Float[Array, "*S J"]:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + 1e-5) * self.scale + self.shift


class MLP(eqx.Module):
    """Linear layers with an activation between them (none after the last).

    Attributes:
        layers: the last one may be a head of the user's own.
        norms: what stands between each of these layers but the last and its activation; empty
            without layer normalisation.
    """

    layers: tuple[Linear | OwnHead, ...]
    norms: tuple[LayerNorm, ...]
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        key: PRNGKey,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
        layer_norm: bool = False,
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
        self.norms = tuple(map(LayerNorm, sizes[1:-1])) if layer_norm else ()
        self.activation = activation

    def __call__(self, x: Float[Array, "*S I"]) -> Float[Array, "*S J"]:
        return self.layers[-1](self.trunk(x))

    def trunk(self, x: Float[Array, "*S I"]) -> Float[Array, "*S J"]:
        """All but the last layer."""
        for layer, norm in itertools.zip_longest(self.layers[:-1], self.norms):
            x = layer(x) if norm is None else norm(layer(x))
            x = ACTIVATIONS[self.activation](x)
        return x


class GRU(eqx.Module):
    """Gated recurrent unit (Cho et al. 2014), the input part of its gates taken out of the scan."""

    inputs: Linear
    hidden: Linear

    def __init__(self, inputs: int, size: int, key: PRNGKey):
        i_key, h_key = jax.random.split(key)
        self.inputs = Linear(inputs, 3 * size, i_key, scale=math.sqrt(inputs / size))
        self.hidden = Linear(size, 3 * size, h_key)

    def unroll(
        self,
        first: Float[Array, "*M H"],
        inputs: Float[Array, "T *M I"],
        start: Bool[Array, "T *M"],
    ) -> Float[Array, "T *M H"]:
        """The hidden state after every step (see ``gru.hidden_states``)."""
        x_r, x_u, x_n = jnp.split(self.inputs(inputs), 3, axis=-1)
        weight, bias = jnp.asarray(self.hidden.weight), jnp.asarray(self.hidden.bias)
        return hidden_states(weight, bias, (x_r, x_u, x_n), start, first)


class History(eqx.Module):
    """Maps an agent's observation history to outputs; takes and returns the hidden state.

    Feed-forward: the history is the last observation and the hidden state is empty (H = 0).
    Recurrent: a GRU stands before the last layer, unless the torso has a hidden state itself.
    """

    body: MLP
    gru: GRU | None
    hidden_size: int = eqx.field(static=True)
    torso: Torso | OwnTorso | None

    def __init__(
        self,
        inputs: int | Torso | OwnTorso,
        outputs: int,
        hidden: Sequence[int],
        key: PRNGKey,
        recurrent: bool = False,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
        layer_norm: bool = False,
        head: HeadSetting = "linear",
    ):
        """``inputs`` is their number, or the torso that makes features of them.

        Raises:
            UsageError: the torso has a hidden state, and the network is not to be recurrent.
        """
        body_key, gru_key = jax.random.split(key)
        own = inputs if isinstance(inputs, OwnTorso) and inputs.hidden_size else None
        if own is not None and not recurrent:
            raise UsageError(
                f"{own.name} has a hidden state, but agents see their last observation only: "
                "make them recurrent (--recurrent), and its hidden state takes the GRU's place"
            )
        size = hidden[-1] if own is None else own.hidden_size
        self.hidden_size = size if recurrent else 0
        self.torso = None if isinstance(inputs, int) else inputs
        width = inputs if isinstance(inputs, int) else inputs.features
        body = MLP([width, *hidden, outputs], body_key, activation, last, gain, layer_norm)
        if not isinstance(head, str):
            layers = (*body.layers[:-1], OwnHead(hidden[-1], outputs, head, body_key))
            body = eqx.tree_at(lambda b: b.layers, body, layers)
        self.body = body
        self.gru = GRU(hidden[-1], hidden[-1], gru_key) if recurrent and own is None else None

    def unroll(
        self,
        hidden_state: Float[Array, "*M H"],
        inputs: Num[Array, "T *M I"],
        start: Bool[Array, "T *M"],
    ) -> tuple[Float[Array, "T *M J"], Float[Array, "T *M H"]]:
        """Outputs at every step, and the hidden state after every step.

        ``hidden_state`` is that before the first step; where ``start`` is set the episode begins
        with the initial one (zeros).
        """
        if isinstance(self.torso, OwnTorso) and self.torso.hidden_size:
            features, hidden_states = _along(self.torso, hidden_state, inputs, start)
            return self.body(features), hidden_states
        if self.torso is not None:
            inputs = self.torso(inputs)
        if self.gru is None:
            return self.body(inputs), jnp.zeros((*inputs.shape[:-1], 0), inputs.dtype)
        found = self.gru.unroll(hidden_state, self.body.trunk(inputs), start)
        return self.body.layers[-1](found), found


def _along(
    torso: OwnTorso,
    hidden_state: Float[Array, "*M H"],
    inputs: Num[Array, "T *M I"],
    start: Bool[Array, "T *M"],
) -> tuple[Float[Array, "T *M J"], Float[Array, "T *M H"]]:
    """Features of a torso with a hidden state, and that state after every step."""
    initial = torso.initial_hidden_state()

    def step(h, now):
        x, first = now
        features, h = torso.step(jnp.where(first[..., None], initial, h), x)
        return h, (features, h)

    _, found = jax.lax.scan(step, hidden_state, (inputs, start))
    return found
