"""What learners see of observations: grey and smaller images, the last frames of an episode.

One place for all that acts and learns: ``Game`` in rollouts and evaluations, a loaded ``Team``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, UInt

from coterie.ops.observations import channels_first, image_of
from coterie.spec import EnvSpec, ObservationSpace


@dataclass(frozen=True)
class Preprocessing:
    """From what an environment shows to what its agents' learners see.

    ``players`` is what the environment promises of its own agents, N of them. A frame is one
    observation after ``grey`` and ``resize``, [N, P]; agents see the last K frames, [N, O].

    Attributes:
        grey: images of bytes with three channels become luminance.
        resize: height and width that images of bytes are made smaller to.
        frame_stack: number K of frames that are seen at once.
    """

    grey: bool = False
    resize: tuple[int, ...] | None = None
    frame_stack: int = 1

    @property
    def _changes_images(self) -> bool:
        return self.grey or self.resize is not None

    def frames_of(self, players: EnvSpec) -> EnvSpec:
        """The agents, with one frame as their observation."""
        if not self._changes_images or not players.observations:
            return players
        return _observing(players, self._of_frame(players.observations[0]))

    def spec(self, players: EnvSpec) -> EnvSpec:
        """The agents, with what they see as their observation; the same where nothing is done."""
        one = self.frames_of(players)
        if self.frame_stack == 1:
            return one
        if one.observations:
            return _observing(one, self._stacked_space(one.observations[0]))
        sizes = tuple(self.frame_stack * size for size in one.observation_sizes)
        return dataclasses.replace(one, observation_sizes=sizes)

    def look(
        self,
        players: EnvSpec,
        observations: Num[Array, "*S N _"],
        alive: Bool[Array, "*S N"] | None = None,
        frames: Num[Array, "*S K N P"] | None = None,
        start: Bool[Array, "*S"] | None = None,
    ) -> tuple[Num[Array, "*S N O"], Num[Array, "*S K N P"] | None]:
        """What agents see, and the frames to remember: the last K − 1.

        At the start of an episode all earlier frames are its first one.

        Args:
            observations: as the environment shows them, flat and padded.
            alive: agents whose frame is remembered, zeros of the others; all unless given.
            frames: what the last call gave; None at the start of all episodes.
            start: the episodes that start here.
        """
        frame = self._frame(players, observations)
        if self.frame_stack == 1:
            return frame, None
        kept = frame if alive is None else jnp.where(alive[..., None], frame, 0)
        first = jnp.repeat(kept[..., None, :, :], self.frame_stack - 1, axis=-3)
        if frames is None:
            frames = first
        elif start is not None:
            frames = jnp.where(start[..., None, None, None], first, frames)
        every = jnp.concatenate([frames, frame[..., None, :, :]], axis=-3)
        remembered = jnp.concatenate([frames, kept[..., None, :, :]], axis=-3)
        return self._stacked(players, every), remembered[..., 1:, :, :]

    def no_frames(self, players: EnvSpec, *lead: int) -> Num[Array, "*S K N P"] | None:
        """The frames before the first step, zeros; None where none are remembered."""
        if self.frame_stack == 1:
            return None
        one = self.frames_of(players)
        shape = (*lead, self.frame_stack - 1, one.n_agents, one.observation_size)
        return jnp.zeros(shape, one.observation_dtype)

    # Refusals ---------------------------------------------------------------------------------

    def refusal(self, players: EnvSpec) -> str | None:
        """A sentence where an environment has nothing of what is asked for."""
        space = players.observation_space
        images = [] if space is None else [im for _, im in _byte_images(space) if im is not None]
        if self.grey and not any(channels == 3 for *_, channels in images):
            return "--grey is for RGB images of bytes, and there are none here; leave it out"
        if self.resize is not None:
            if not images:
                return "--resize is for images of bytes, and there are none here; leave it out"
            height, width = self.resize
            for h, w, _ in images:
                if h < height or w < width:
                    return (
                        f"--resize makes images smaller, and one here is {h} x {w}: choose at "
                        f"most that instead of {height} x {width}"
                    )
        return self._ambiguous(space)

    def _ambiguous(self, space: ObservationSpace | None) -> str | None:
        if space is None or self == UNCHANGED:
            return None
        after = self._of_frame(space)
        after = after if self.frame_stack == 1 else self._stacked_space(after)
        for before, shape in zip(space.shapes, after.shapes, strict=True):
            if shape != before and channels_first(shape):
                return (
                    f"images would have shape {shape}, whose channels could come first or last: "
                    "choose another --frame-stack or --resize"
                )
        return None

    # Images -----------------------------------------------------------------------------------

    def _of_frame(self, space: ObservationSpace) -> ObservationSpace:
        shapes = [
            shape if image is None else self._shape(shape, image)
            for shape, image in _byte_images(space)
        ]
        return dataclasses.replace(space, shapes=tuple(shapes))

    def _shape(self, shape: tuple[int, ...], image: tuple[int, int, int]) -> tuple[int, ...]:
        """Of an image of bytes after ``grey`` and ``resize``, channels last where it changes."""
        height, width, channels = image
        turned = self.grey and channels == 3
        if not turned and self.resize is None:
            return shape
        return (*(self.resize or (height, width)), 1 if turned else channels)

    def _frame(self, players: EnvSpec, flat: Num[Array, "*S N _"]) -> Num[Array, "*S N P"]:
        space = players.observation_space
        if not self._changes_images or space is None:
            return flat
        parts = []
        for part, (shape, image) in zip(_parts(flat, space), _byte_images(space), strict=True):
            if image is None or (self.resize is None and not (self.grey and image[2] == 3)):
                parts.append(part)
                continue
            x = _channels_last(part.reshape(*part.shape[:-1], *shape), shape)
            if self.grey and image[2] == 3:
                x = luminance(x)
            if self.resize is not None:
                x = area_resized(x, self.resize[0], self.resize[1])
            parts.append(x.reshape(*part.shape[:-1], -1))
        return jnp.concatenate(parts, axis=-1)

    # Frames -----------------------------------------------------------------------------------

    def _stacked_space(self, one: ObservationSpace) -> ObservationSpace:
        shapes = []
        for shape in one.shapes:
            image = image_of(shape)
            if image is None:
                shapes.append((self.frame_stack * math.prod(shape),))
            else:
                shapes.append((*image[:2], self.frame_stack * image[2]))
        return dataclasses.replace(one, shapes=tuple(shapes))

    def _stacked(self, players: EnvSpec, frames: Num[Array, "*S K N P"]) -> Num[Array, "*S N O"]:
        """Frames, the newest last: images along their channels, vectors one after the other."""
        one = self.frames_of(players)
        frames = jnp.moveaxis(frames, -3, -2)
        space = one.observation_space
        if space is None:
            return _one_after_the_other(frames, one.observation_sizes)
        lead, parts = frames.shape[:-1], []
        for part, shape in zip(_parts(frames, space), space.shapes, strict=True):
            if image_of(shape) is not None:
                # In a row of bytes a float takes four of them, which stay together.
                x = part.reshape(*lead, *shape, part.shape[-1] // math.prod(shape))
                x = jnp.moveaxis(x, -1, 0)
                x = jnp.moveaxis(_channels_last(x, shape), 0, -1)  # [*S, N, K, H, W, C, bytes]
                part = jnp.moveaxis(x, len(lead) - 1, -3)
            parts.append(part.reshape(*lead[:-1], -1))
        return jnp.concatenate(parts, axis=-1)


UNCHANGED = Preprocessing()
"""Agents see what their environment shows."""


def luminance(rgb: UInt[Array, "*S 3"]) -> UInt[Array, "*S 1"]:
    """Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded to the nearest, halves up."""
    r, g, b = (rgb[..., k : k + 1].astype(jnp.int32) for k in range(3))
    return ((299 * r + 587 * g + 114 * b + 500) // 1000).astype(jnp.uint8)


def area_resized(
    images: UInt[Array, "*S H W C"], height: int, width: int
) -> UInt[Array, "*S U V C"]:
    """Each new pixel is the mean of the rectangle that it covers, rounded, halves up.

    Pixels that it covers in part count by that part: row u of U covers the rows from u H/U to
    (u + 1) H/U, and columns likewise.
    """
    rows, columns = images.shape[-3:-1]
    found = jnp.einsum(
        "uh,...hwc,vw->...uvc",
        _shares(rows, height), images.astype(jnp.float32), _shares(columns, width),
        precision="highest",
    )  # fmt: skip
    return jnp.floor(found + (0.5 + 1e-4)).astype(jnp.uint8)  # means carry rounding errors


def _shares(old: int, new: int) -> Float[np.ndarray, "U H"]:
    """What each old row counts in the mean that is a new one; lines add up to 1."""
    edges = np.arange(new + 1) * old / new
    low = np.maximum(edges[:-1, None], np.arange(old))
    high = np.minimum(edges[1:, None], np.arange(1, old + 1))
    return np.asarray(np.maximum(high - low, 0) * new / old, np.float32)


def _observing(spec: EnvSpec, space: ObservationSpace) -> EnvSpec:
    """The agents, with another observation space."""
    spaces = (space,) * spec.n_agents
    return dataclasses.replace(spec, observation_sizes=(), observations=spaces)


def _byte_images(space: ObservationSpace) -> list[tuple[tuple[int, ...], Any]]:
    """The shape of each array; its height, width and channels if it is an image of bytes."""
    each = zip(space.shapes, space.dtypes, strict=True)
    return [(shape, image_of(shape) if dtype == "uint8" else None) for shape, dtype in each]


def _parts(flat: Num[Array, "*S _"], space: ObservationSpace) -> list[Num[Array, "*S _"]]:
    """The entries of each array in a flat observation."""
    return jnp.split(flat, np.cumsum(space.sizes)[:-1].tolist(), axis=-1)


def _channels_last(x: Num[Array, "..."], shape: tuple[int, ...]) -> Num[Array, "..."]:
    """Images of this shape, with any leading axes, as [..., height, width, channels]."""
    if len(shape) == 2:
        return x[..., None]
    return jnp.moveaxis(x, -3, -1) if channels_first(shape) else x


def _one_after_the_other(
    frames: Num[Array, "*S N K P"], sizes: tuple[int, ...]
) -> Num[Array, "*S N O"]:
    """Vectors of each agent's size, one after the other, and the padding after them all."""
    count, widest = frames.shape[-2:]
    flat = frames.reshape(*frames.shape[:-2], count * widest)
    if len(set(sizes)) == 1:
        return flat
    place = np.zeros((len(sizes), count * widest), np.int64)
    for row, size in zip(place, sizes, strict=True):
        row[: count * size] = [k * widest + j for k in range(count) for j in range(size)]
    there = np.arange(count * widest) < count * np.array(sizes)[:, None]
    index = jnp.broadcast_to(jnp.asarray(place), flat.shape)
    return jnp.where(there, jnp.take_along_axis(flat, index, axis=-1), 0)
