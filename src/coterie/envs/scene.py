"""The vocabulary of pictures: what an environment looks like in one state, as a few shapes.

An environment draws itself with these (``Environment.scene``); films and pages show them. Shapes
are coloured by role, from a closed palette that has a light and a dark value for each, so that a
drawing never names a colour. Lengths are in the environment's own units; y grows downwards.

This file imports nothing of Coterie's: environments stand below everything else in ``show``.
"""

from __future__ import annotations

import base64
import io
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

Role = Literal[
    "board", "rule", "ink", "faint", "paper",
    "agent", "rival", "food", "landmark", "goal", "choice",
]  # fmt: skip
Number = float | int

PALETTE: dict[Role, tuple[str, str]] = {
    "board": ("#F7F6F2", "#1D2024"),
    "rule": ("#DCDAD2", "#363B42"),
    "ink": ("#1F2328", "#ECEDEE"),
    "faint": ("#66696D", "#A3A8AE"),
    "paper": ("#FFFFFF", "#101214"),
    "agent": ("#0072B2", "#56B4E9"),
    "rival": ("#C24E00", "#F0935A"),
    "food": ("#00805D", "#35C49B"),
    "landmark": ("#A9A8A2", "#71777E"),
    "goal": ("#E69F00", "#F0B32E"),
    "choice": ("#FBE3B0", "#6A4D0B"),
}
"""Each role's colour on light and on dark ground (after Okabe and Ito)."""


@dataclass(frozen=True)
class Circle:
    """A disc; with ``line``, the width of its outline, a ring."""

    x: Number
    y: Number
    radius: Number
    role: Role
    line: Number = 0


@dataclass(frozen=True)
class Rect:
    """A rectangle from its top left corner, ``corner`` the radius of its corners."""

    x: Number
    y: Number
    width: Number
    height: Number
    role: Role
    line: Number = 0
    corner: Number = 0


@dataclass(frozen=True)
class Polygon:
    """A closed shape through the points x1, y1, x2, y2, ..."""

    points: tuple[Number, ...]
    role: Role
    line: Number = 0


@dataclass(frozen=True)
class Line:
    """A stroke of the width ``line``, with an arrow's head at its end if ``head``."""

    x1: Number
    y1: Number
    x2: Number
    y2: Number
    role: Role
    line: Number
    head: bool = False


@dataclass(frozen=True)
class Label:
    """Text centred at a point, ``size`` its font size."""

    x: Number
    y: Number
    text: str
    size: Number
    role: Role = "ink"
    bold: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture made of pixels, as the bytes of a PNG file, fitted into a rectangle."""

    x: Number
    y: Number
    width: Number
    height: Number
    png: bytes


Shape = Picture | Circle | Rect | Polygon | Line | Label


@dataclass(frozen=True)
class Scene:
    """One state, drawn: shapes from back to front, cut off at a rectangle.

    Attributes:
        shapes: later ones cover earlier ones.
        width, height: of the visible rectangle.
        left, top: its upper left corner.
    """

    shapes: tuple[Shape, ...]
    width: Number
    height: Number
    left: Number = 0
    top: Number = 0


LARGEST = 640
"""Pixels of a kept picture's longer side: no page or film shows more."""


def of_pixels(pixels: UInt8[np.ndarray, "H W 3"]) -> Scene:
    """A scene that is a picture of the environment's own."""
    height, width, _ = pixels.shape
    # Many environments have the page's own white for their ground: a line says where they end.
    line = max(width, height) / 520
    edge = Rect(line / 2, line / 2, width - line, height - line, "rule", line)
    return Scene((Picture(0, 0, width, height, _png(pixels)), edge), width, height)


def _png(pixels: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The picture as a file, made smaller where it is larger than anybody will see it."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "png", compress_level=3)
    return file.getvalue()


def diamond(x: Number, y: Number, radius: Number, role: Role, line: Number = 0) -> Polygon:
    """A square on its corner."""
    return Polygon((x, y - radius, x + radius, y, x, y + radius, x - radius, y), role, line)


def triangle(x: Number, y: Number, radius: Number, role: Role) -> Polygon:
    """An upright triangle with its corners ``radius`` from the middle."""
    side, foot = 0.866 * radius, y + 0.5 * radius
    return Polygon((x, y - radius, x + side, foot, x - side, foot), role)


def union(scenes: list[Scene]) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the smallest rectangle around the visible ones."""
    left, top = min(s.left for s in scenes), min(s.top for s in scenes)
    right = max(s.left + s.width for s in scenes)
    bottom = max(s.top + s.height for s in scenes)
    return float(left), float(top), float(right - left), float(bottom - top)


def compact(shape: Shape) -> list[Any]:
    """A shape for a page: its kind and its fields in order, to four decimals.

    A picture's bytes become the address of a WebP file, some ten times smaller.
    """
    return [type(shape).__name__.lower(), *(_short(value) for value in astuple(shape))]


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(x) for x in value]
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"data:image/webp;base64,{base64.b64encode(_webp(value)).decode()}"
    return round(float(value), 4) if value % 1 else int(value)


def _webp(png: bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).save(file, "webp", quality=85)
    return file.getvalue()
