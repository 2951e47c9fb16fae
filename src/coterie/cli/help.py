"""``--help``: how a command is called, what it does, its flags in groups."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from coterie.flags import Flag
from coterie.show.terminal.console import line, paragraphs

WIDEST = 26
"""Columns of flags beside their meaning; a longer one stands above it."""


def render_help(
    usage: str, about: str, groups: Sequence[tuple[str, Sequence[Flag]]], more: str = ""
) -> RenderableType:
    """A command's help: how it is called, what it does, its flags in groups."""
    parts: list[RenderableType] = [line(f"usage: {usage}"), line(), paragraphs(about)]
    heads = [len(_head(flag)) for _, group in groups for flag in group]
    width = max((size for size in heads if size <= WIDEST), default=WIDEST)
    for title, group in ((title, group) for title, group in groups if group):
        parts += [line(), line(title, style="bold")]
        for flag in group:
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(min_width=width)
            table.add_column(ratio=1)
            head = _head(flag)
            if len(head) > width:  # on a line of its own
                parts.append(Padding(line(head), (0, 0, 0, 2)))
                head = ""
            table.add_row(line(head), line(flag.help))
            parts.append(Padding(table, (0, 0, 0, 2)))
    return Group(*parts, *([line(), paragraphs(more)] if more else []))


def _head(flag: Flag) -> str:
    return f"{flag.name} {flag.value}".rstrip()
