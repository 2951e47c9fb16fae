"""Text in pictures (Matplotlib, Pillow): only letters that the font has; others by their codes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from coterie.text import clipped, visible

LITERAL: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}
"""Matplotlib's settings under which a $ is a $, and not the begin of a formula."""


def lettered(text: str, font: str | Path, most: int | None = None) -> str:
    """One line of text as a picture shows it: in letters of ``font``, at most ``most`` of them."""
    letters = _letters(str(font))
    words = "".join(c if ord(c) in letters else _code(c) for c in visible(text))
    return words if most is None else clipped(words, most)


def plot_font(bold: bool = False) -> str:
    """The file of the font in which Matplotlib writes, as the user has set it up."""
    from matplotlib.font_manager import FontProperties, findfont

    return findfont(FontProperties(weight="bold" if bold else "normal"))


@cache
def film_font(bold: bool = False) -> Path:
    """The file of DejaVu Sans, which Matplotlib brings along."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name


@cache
def _letters(font: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(font).get_charmap())


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()
