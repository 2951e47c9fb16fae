"""What ``coterie doctor`` found, for the terminal (rich)."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from coterie.extras import how_to_install
from coterie.runs.doctor import Check
from coterie.show.numbers import plural
from coterie.show.terminal.console import line

MARKS = {
    "ok": ("✓", "green"),
    "missing": ("-", "dim"),
    "warning": ("!", "yellow"),
    "broken": ("✗", "bold red"),
}


def render_doctor(checks: list[Check]) -> RenderableType:
    """A table, a line each with what was found and what helps, and the verdict."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for group in dict.fromkeys(each.group for each in checks):
        table.add_row(line(group, style="bold"))
        own = [each for each in checks if each.group == group]
        for each in (each for each in own if each.state != "missing"):
            table.add_row(line(MARKS[each.state], f" {each.name}"), _found(each))
        if missing := [each.name for each in own if each.state == "missing"]:
            names = line(", ".join(missing))
            advice = line(how_to_install("EXTRA"), style="dim")
            table.add_row(line(MARKS["missing"], " not installed"), Group(names, advice))
    return Group(table, line(), _verdict(checks))


def _found(check: Check) -> RenderableType:
    found, advice = line(check.value), line(check.advice, style=MARKS[check.state][1])
    return Group(found, advice) if check.advice else found


def _verdict(checks: list[Check]) -> RenderableType:
    states = [each.state for each in checks]
    broken, warnings = states.count("broken"), states.count("warning")
    if broken:
        names = ", ".join(each.name for each in checks if each.state == "broken")
        return line(f"broken: {names}; the table says what helps", style="bold red")
    more = f", with {plural(warnings, 'warning')}" if warnings else ""
    return line(f"everything that training needs works{more}", style="bold green")
