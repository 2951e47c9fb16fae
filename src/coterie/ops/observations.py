"""Observations of several arrays, laid out flat: floats, or bytes where an array is of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from coterie.errors import UsageError
from coterie.spec import ObservationSpace


def image_of(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and channels of an array of this shape; None where it is no image."""
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) != 3:
        return None
    return (shape[1], shape[2], shape[0]) if channels_first(shape) else shape


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image's channels come first: it is square, and they are 1, 3 or 4."""
    square = len(shape) == 3 and shape[1] == shape[2]
    return square and shape[0] in (1, 3, 4) and shape[0] < shape[1]


def joined(arrays: Sequence[Num[Array, "*S _"]]) -> Num[Array, "*S O"]:
    """Flat arrays one after the other: as bytes if one of them is of bytes, else as floats.

    In bytes a float takes four, which ``split`` turns back into the same float.
    """
    if any(x.dtype == jnp.uint8 for x in arrays):
        arrays = [_as_bytes(x) for x in arrays]
    return jnp.concatenate(arrays, axis=-1)


def split(flat: Num[Array, "*S O"], space: ObservationSpace) -> list[Float[Array, "*S ..."]]:
    """The arrays of a flat observation, in their shapes; pixels as numbers from 0 to 1."""
    found, first = [], 0
    for shape, dtype, size in zip(space.shapes, space.dtypes, space.sizes, strict=True):
        own = flat[..., first : first + size]
        first += size
        if dtype == "uint8":
            own = own.astype(jnp.float32) / 255
        elif flat.dtype == jnp.uint8:
            own = jax.lax.bitcast_convert_type(own.reshape(*own.shape[:-1], -1, 4), jnp.float32)
        found.append(own.reshape(*flat.shape[:-1], *shape))
    return found


def floats_of(flat: Num[Array, "*S O"], space: ObservationSpace | None) -> Float[Array, "*S F"]:
    """All numbers of a flat observation that are floats, one after the other; pixels left out."""
    if space is None or flat.dtype != jnp.uint8:
        return flat
    found = [
        array.reshape(*flat.shape[:-1], -1)
        for array, dtype in zip(split(flat, space), space.dtypes, strict=True)
        if dtype == "float32"
    ]
    return jnp.concatenate(found, axis=-1) if found else jnp.zeros((*flat.shape[:-1], 0))


def with_floats(
    flat: Num[Array, "*S O"], floats: Float[Array, "*S F"], space: ObservationSpace | None
) -> Num[Array, "*S O"]:
    """A flat observation with these floats in place of its own, as ``floats_of`` gives them."""
    if space is None or flat.dtype != jnp.uint8:
        return floats
    parts, first, used = [], 0, 0
    for dtype, size in zip(space.dtypes, space.sizes, strict=True):
        own = flat[..., first : first + size]
        first += size
        if dtype == "float32":
            own = _as_bytes(floats[..., used : used + size // 4])
            used += size // 4
        parts.append(own)
    return jnp.concatenate(parts, axis=-1)


def finite(flat: Num[Array, "*S O"], space: ObservationSpace | None) -> Bool[Array, "*S"]:
    """Whether all numbers of a flat observation are finite; those of a vector without a space."""
    if space is None:
        return jnp.all(jnp.isfinite(flat), axis=-1)
    sound = jnp.ones(flat.shape[:-1], bool)
    for array, dtype in zip(split(flat, space), space.dtypes, strict=True):
        if dtype == "float32":
            sound &= jnp.all(jnp.isfinite(array.reshape(*sound.shape, -1)), axis=-1)
    return sound


def flat(given: object, space: ObservationSpace, agents: int) -> Num[Array, "N O"]:
    """What N agents observe, an array [N, ...] or a tuple of them, laid out flat.

    Raises:
        UsageError: they have not the shapes of the space.
    """
    arrays = [jnp.asarray(x) for x in (given if isinstance(given, tuple) else (given,))]
    if any(
        x.dtype != dtype for x, dtype in zip(arrays, space.dtypes, strict=False) if dtype == "uint8"
    ):
        raise UsageError(
            f"observations that are images of bytes must be uint8 arrays; got "
            f"{', '.join(str(x.dtype) for x in arrays)}"
        )
    wanted = [(agents, *shape) for shape in space.shapes]
    if [x.shape for x in arrays] != wanted:
        raise UsageError(
            f"observations must be arrays of shapes {', '.join(map(str, wanted))}, agents first; "
            f"got {', '.join(str(x.shape) for x in arrays)}"
        )
    return joined(
        [x.astype(dtype).reshape(agents, -1) for x, dtype in zip(arrays, space.dtypes, strict=True)]
    )


def _as_bytes(x: Num[Array, "*S _"]) -> Num[Array, "*S _"]:
    if x.dtype == jnp.uint8:
        return x
    parts = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint8)
    return parts.reshape(*x.shape[:-1], -1)
