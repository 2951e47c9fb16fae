"""Torsos: what turns images, and several arrays at once, into the features that an MLP takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from coterie.errors import UsageError
from coterie.networks.own import NetworkSetting, OwnTorso
from coterie.ops.observations import channels_first, image_of, split
from coterie.spec import EnvSpec, ObservationSpace
from coterie.types import PRNGKey

TorsoName = Literal["auto", "nature", "impala", "grid", "flat"]
"""How images are turned into features; auto chooses by their shape."""
TorsoSetting = TorsoName | NetworkSetting
"""A torso by its name, or a network of the user's own."""

_NATURE_LEAST, _GRID_LEAST, _IMPALA_LEAST = 36, 5, 8
"""Smallest height and width that a torso takes."""


class Convolution(eqx.Module):
    """Square kernels over images [..., height, width, channels].

    It is one product of matrices, of patches and kernels: XLA's own convolutions are twenty times
    slower on CPUs when they stand in a loop, and a training is a loop.
    """

    weight: Float[Array, "KKI J"]
    bias: Float[Array, " J"]
    kernel: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    same: bool = eqx.field(static=True)

    def __init__(
        self,
        kernel: int,
        inputs: int,
        outputs: int,
        key: PRNGKey,
        stride: int = 1,
        same: bool = False,
    ):
        """``same`` pads with zeros, so that the size stays; strides must divide kernels."""
        size = kernel * kernel * inputs
        bound = math.sqrt(6 / size)  # a standard deviation of √2/√inputs
        self.weight = jax.random.uniform(key, (size, outputs), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(outputs)
        self.kernel, self.stride, self.same = kernel, stride, same

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B U V J"]:
        if self.same:
            margin = (self.kernel // 2, self.kernel // 2)
            x = jnp.pad(x, [(0, 0), margin, margin, (0, 0)])
        return _patches(x, self.kernel, self.stride) @ self.weight + self.bias


def _patches(x: Float[Array, "B H W I"], kernel: int, stride: int) -> Float[Array, "B U V KKI"]:
    """What lies under a kernel at each of its places."""
    up, across = ((size - kernel) // stride + 1 for size in x.shape[1:3])
    if stride > 1:  # blocks of stride x stride pixels become one pixel of more channels
        k = kernel // stride
        rows, columns = up + k - 1, across + k - 1
        x = x[:, : rows * stride, : columns * stride]
        x = x.reshape(x.shape[0], rows, stride, columns, stride, x.shape[-1])
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], rows, columns, -1)
        return _patches(x, k, 1)
    places = [(i, j) for i in range(kernel) for j in range(kernel)]
    return jnp.concatenate([x[:, i : i + up, j : j + across] for i, j in places], axis=-1)


class Plain(eqx.Module):
    """Convolutions one after the other, each with a ReLU."""

    layers: tuple[Convolution, ...]

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B U V J"]:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class Residual(eqx.Module):
    """x + f(x) of two convolutions (IMPALA)."""

    first: Convolution
    second: Convolution

    def __init__(self, channels: int, key: PRNGKey):
        keys = jax.random.split(key)
        self.first, self.second = (Convolution(3, channels, channels, k, same=True) for k in keys)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return x + self.second(jax.nn.relu(self.first(jax.nn.relu(x))))


class Impala(eqx.Module):
    """Blocks of a convolution, max pooling and two residual ones; Espeholt et al. 2018."""

    convolutions: tuple[Convolution, ...]
    residuals: tuple[tuple[Residual, Residual], ...]

    def __init__(self, inputs: int, key: PRNGKey, channels: tuple[int, ...] = (16, 32, 32)):
        keys = jax.random.split(key, 3 * len(channels))
        sizes = zip((inputs, *channels[:-1]), channels, strict=True)
        self.convolutions = tuple(
            Convolution(3, i, j, keys[3 * n], same=True) for n, (i, j) in enumerate(sizes)
        )
        self.residuals = tuple(
            (Residual(c, keys[3 * n + 1]), Residual(c, keys[3 * n + 2]))
            for n, c in enumerate(channels)
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B U V J"]:
        for convolution, residuals in zip(self.convolutions, self.residuals, strict=True):
            x = convolution(x)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
            for residual in residuals:
                x = residual(x)
        return jax.nn.relu(x)


class Torso(eqx.Module):
    """Features of flat observations: each image through layers of its own, the rest as it is.

    Attributes:
        images: the layers of each array of the space; None where it is taken as it is.
        name: the setting that chose them.
    """

    images: tuple[Plain | Impala | None, ...]
    space: ObservationSpace = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(self, space: ObservationSpace, name: str, key: PRNGKey):
        keys = jax.random.split(key, len(space.shapes))
        self.space, self.name = space, name
        self.images = tuple(
            _layers(shape, name, k) for shape, k in zip(space.shapes, keys, strict=True)
        )

    @property
    def features(self) -> int:
        """Length of the vector that comes out."""
        one = jax.ShapeDtypeStruct((1, self.space.size), self.space.dtype)
        return eqx.filter_eval_shape(self, one).shape[-1]

    def __call__(self, observations: Num[Array, "*S O"]) -> Float[Array, "*S J"]:
        lead = observations.shape[:-1]
        found = []
        for layers, array, shape in zip(
            self.images, split(observations, self.space), self.space.shapes, strict=True
        ):
            x = array
            if layers is not None:
                x = layers(_channels_last(x.reshape(-1, *shape)))
            found.append(x.reshape(*lead, -1))
        return jnp.concatenate(found, axis=-1)


def observed(spec: EnvSpec, torso: TorsoSetting) -> ObservationSpace | None:
    """The space of what a torso sees of an agent's observation; None where there is no torso.

    Plain vectors go through a torso only if it is the user's own.
    """
    if spec.observation_space is None and not isinstance(torso, str):
        return ObservationSpace.of((spec.observation_size,))
    return spec.observation_space


def make_torso(
    space: ObservationSpace, ids: int, torso: TorsoSetting, key: PRNGKey
) -> Torso | OwnTorso:
    """A torso for observations that are followed by so many numbers of an agent's id."""
    if isinstance(torso, str):
        return Torso(space + ObservationSpace(((ids,),)) if ids else space, torso, key)
    return OwnTorso(space, torso, key, ids)


def refusal(spaces: Sequence[ObservationSpace], name: TorsoSetting) -> str | None:
    """A sentence where a torso that is asked for cannot take an image; spaces of all agents."""
    if not isinstance(name, str):
        return None
    least = {"nature": _NATURE_LEAST, "impala": _IMPALA_LEAST, "grid": _GRID_LEAST}.get(name)
    shapes = [shape for space in spaces for shape in space.shapes]
    images = [image for shape in shapes if (image := image_of(shape)) is not None]
    if least is None:
        return None
    if not images:
        return (
            f"--torso {name} is for images of the same shape for all agents, and there are none "
            "here; leave it out"
        )
    small = [image for image in images if min(image[:2]) < least]
    if not small:
        return None
    height, width, _ = small[0]
    return (
        f"--torso {name} takes images of at least {least} x {least}; "
        f"one here is {height} x {width}: leave --torso out"
    )


def _channels_last(x: Float[Array, "B ..."]) -> Float[Array, "B H W C"]:
    shape = x.shape[1:]
    if len(shape) == 2:
        return x[..., None]
    return jnp.moveaxis(x, 1, -1) if channels_first(shape) else x


def _layers(shape: tuple[int, ...], name: str, key: PRNGKey) -> Plain | Impala | None:
    image = image_of(shape)
    if image is None or name == "flat":
        return None
    size, channels = min(image[:2]), image[2]
    if name == "auto":
        name = "nature" if size >= _NATURE_LEAST else "grid" if size >= _GRID_LEAST else "flat"
    keys = jax.random.split(key, 3)
    if name == "impala" and size >= _IMPALA_LEAST:
        return Impala(channels, key)
    if name == "nature" and size >= _NATURE_LEAST:
        return Plain(
            (
                Convolution(8, channels, 32, keys[0], 4),
                Convolution(4, 32, 64, keys[1], 2),
                Convolution(3, 64, 64, keys[2]),
            )
        )
    if name == "grid" and size >= _GRID_LEAST:
        return Plain((Convolution(3, channels, 16, keys[0]), Convolution(3, 16, 32, keys[1])))
    if name == "flat":
        return None
    raise UsageError(refusal([ObservationSpace.of(shape)], name) or f"there is no torso {name!r}")
