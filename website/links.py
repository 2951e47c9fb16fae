"""Markdown as the site shows it: its links, and indices in its prose."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import PurePosixPath

SHOWN = {
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "benchmarks/README.md": "docs/speed.md",
}
"""Files outside of docs/ that are pages of the site."""


def led(markdown: str, place: PurePosixPath, origin: PurePosixPath, source: str) -> str:
    """The text with links that lead, from ``place``, to what they named where it was written.

    Args:
        place, origin: paths in the repository, of the page and of the file with its text.
        source: address of the repository's files, for those that are no pages.
    """

    def link(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if target.startswith(("http:", "https:", "mailto:")) or not target + anchor:
            return match[0]
        path = posixpath.normpath(origin.parent / target) if target else str(origin)
        path = SHOWN.get(path, path)
        if not path.startswith("docs/"):
            return f"]({source}/{path}{anchor})"
        if path == str(place):
            return f"]({anchor or place.name})"
        return f"]({posixpath.relpath(path, place.parent)}{anchor})"

    pattern = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
    return _outside(_FENCES, markdown, lambda part: pattern.sub(link, part))


_FENCES = r"(^ *```.*?^ *```$)"
_CODE = r"(^ *```.*?^ *```$|`[^`]+`|\]\([^)]*\)|^(?:#|:::)[^\n]*$)"
_INDEX = re.compile(r"(?<!\w)((?:Adv|f|\w)\u0304?)_(mix|-?[a-zβ0-9](?:,[a-z])?)(?![\w])")
_POWER = re.compile(r"(?<=[A-Za-z0-9>])\^(\{[^}]+\}|[a-z0-9])")


def indexed(markdown: str) -> str:
    """The text whose prose has indices, h_i^t, set as such; code and formulas stay as they are."""

    def power(match: re.Match[str]) -> str:
        return f"<sup>{match[1].strip('{}')}</sup>"

    def set_in(part: str) -> str:
        return _POWER.sub(power, _INDEX.sub(r"\1<sub>\2</sub>", part))

    return _outside(_CODE, markdown, set_in)


def _outside(pattern: str, text: str, change: Callable[[str], str]) -> str:
    """The text, changed wherever the pattern (one group) does not match."""
    parts = re.split(pattern, text, flags=re.M | re.S)
    return "".join(part if k % 2 else change(part) for k, part in enumerate(parts))
