"""The display of a lecture, on standard error, and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from coterie.show.numbers import clock, plural
from coterie.show.terminal.console import line
from coterie.show.terminal.progress import TrainDisplay

if TYPE_CHECKING:
    from coterie.lecture.base.experiment import Outcome

_WORDS = {True: ("passed", "green"), False: ("failed", "red")}


class LectureDisplay(TrainDisplay):
    """Shows which experiment and which training is running, and the training itself."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> LectureDisplay:
        return self

    def tell(self, event: str, facts: dict[str, Any]) -> None:
        """One line for the lecture, and for every experiment, training and outcome."""
        if event == "begin":
            self._expect(facts["items"], facts["minutes"])
        elif event == "item":
            self.count += 1
            self.say()
            self.say(f"{self.count}/{facts['of']}  {facts['item'].title}", style="bold")
        elif event == "training":
            self.origin = None
            self.say(f"$ {facts['command']}", style="dim")
        elif event == "outcome":
            outcome = facts["outcome"]
            self.say(_WORDS[outcome.passed], f" in {clock(outcome.seconds)}")

    def _expect(self, items: int, minutes: float) -> None:
        if items:
            about = plural(max(round(minutes), 1), "minute")
            self.say(f"{plural(items, 'experiment')} to run: about {about} on two idle cores")

    def _evaluation(self, facts: dict[str, Any]) -> None:
        """Nothing: a lecture has too many of them."""

    def _end(self, facts: dict[str, Any]) -> None:
        """A training that was stopped goes on with its lecture, not by itself."""
        super()._end(facts | {"resume": None})
        if facts["stopped"]:
            self.say("the same coterie lecture command continues there")

    def summary(self, outcomes: Sequence[Outcome]) -> RenderableType:
        """Every claim of every experiment, with what was measured."""
        parts: list[RenderableType] = []
        for outcome in outcomes:
            quick = (" (quick)" if outcome.quick else "", "dim")
            title = line((outcome.title, "bold"), quick, "  ", _WORDS[outcome.passed])
            parts += [line(), title]
            table = Table("", "claim", "published", "measured", box=None, pad_edge=False)
            for check in outcome.checks:
                mark = ("✓", "green") if check["passed"] else ("✗", "red")
                cells = (check[name] for name in ("claim", "published", "measured"))
                table.add_row(line(mark), *map(line, cells))
            parts.append(table)
        return Group(*parts)
