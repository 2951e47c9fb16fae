"""Text on the terminal (rich): taken literally, so that a name cannot be markup.

Everything that is printed with rich passes here: strings through ``Terminal``, styled text
through ``line``. Neither reads markup, and both show control characters instead of sending them.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from coterie.text import visible, visible_lines


class Terminal(Console):
    """A console that prints strings as they are: one line each, no markup, no emoji codes."""

    def __init__(self, file: Any = None, width: int | None = None) -> None:
        super().__init__(file=file, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, *, style: Any = "", **options: Any) -> Text:
        """Every string that rich prints, also one in a table's cell."""
        justify, overflow = options.get("justify"), options.get("overflow")
        return Text(visible(text), style, justify=justify, overflow=overflow)


def line(*parts: object, style: str = "") -> Text:
    """One line of text; a part is text, or a tuple of text and its style."""
    pairs = [part if isinstance(part, tuple) else (part, "") for part in parts]
    return Text.assemble(*((visible(text), own) for text, own in pairs), style=style)


def paragraphs(text: str) -> Text:
    """Text of several lines."""
    return Text(visible_lines(text))
