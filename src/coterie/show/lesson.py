"""The display of a lecture, on standard error, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from coterie.show.progress import TrainDisplay, clock

if TYPE_CHECKING:
    from coterie.lecture._base import Outcome

_WORDS = {True: "[green]passed[/]", False: "[red]failed[/]"}


class LectureDisplay(TrainDisplay):
    """Shows which item and which training is on, and the training itself."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> LectureDisplay:
        return self

    def tell(self, event: str, facts: dict[str, Any]) -> None:
        """One line for every item, training and outcome."""
        if event == "item":
            self.count += 1
            self.say(f"\n[bold]{self.count}/{facts['of']}  {facts['item'].title}[/]")
        elif event == "training":
            self.origin = None
            self.say(f"[dim]$ {escape(facts['command'])}[/]")
        elif event == "outcome":
            outcome = facts["outcome"]
            self.say(f"{_WORDS[outcome.passed]} in {clock(outcome.seconds)}")

    def _evaluation(self, facts: dict[str, Any]) -> None:
        """Nothing: a lecture has too many of them."""

    def summary(self, outcomes: Sequence[Outcome]) -> RenderableType:
        """Every claim of every item, with what was measured."""
        parts: list[RenderableType] = []
        for outcome in outcomes:
            quick = " [dim](quick)[/]" if outcome.quick else ""
            parts.append(f"\n[bold]{outcome.title}[/]{quick}  {_WORDS[outcome.passed]}")
            table = Table("", "claim", "published", "measured", box=None, pad_edge=False)
            for check in outcome.checks:
                mark = "[green]✓[/]" if check["passed"] else "[red]✗[/]"
                cells = (check[name] for name in ("claim", "published", "measured"))
                table.add_row(mark, *(escape(cell) for cell in cells))
            parts.append(table)
        return Group(*parts)
