"""``--help``: how a command is called, what it does, its flags in groups."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from coterie.flags import Flag
from coterie.show.terminal.console import line, paragraphs


def render_help(
    usage: str, about: str, groups: Sequence[tuple[str, Sequence[Flag]]], more: str = ""
) -> RenderableType:
    """A command's help: how it is called, what it does, its flags in groups."""
    parts: list[RenderableType] = [line(f"usage: {usage}"), line(), paragraphs(about)]
    width = max(len(_head(flag)) for _, group in groups for flag in group)
    for title, group in groups:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=min(width, 30))
        table.add_column(ratio=1)
        for flag in group:
            table.add_row(line(_head(flag)), line(flag.help))
        parts += [line(), line(title, style="bold"), Padding(table, (0, 0, 0, 2))]
    return Group(*parts, *([line(), line(more)] if more else []))


def _head(flag: Flag) -> str:
    return f"{flag.name} {flag.value}".rstrip()
