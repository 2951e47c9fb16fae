"""What a training tells a callback of the user's: each part of the log, while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coterie.errors import UsageError
from coterie.runs.run import Run


@dataclass(frozen=True, eq=False)
class Event:
    """What a callback is told.

    Attributes:
        kind: ``start``: training begins or goes on; ``train``: lines of what was learned from;
            ``evaluation``: lines of an evaluation; ``end``: the run ends, or was asked to stop.
        env_steps: environment steps of each seed so far.
        lines: what ``metrics.jsonl`` gets, a dict for each seed; none at the start and the end.
        config: what ``config.json`` holds.
        path: the run directory; None without one.
        complete: the run has ended with all its steps, or because a callback asked for it.
        results: at the end of a complete run the summaries of its final evaluation, by ``best`` and
            ``last``, as ``result.json`` holds them.
    """

    kind: Literal["start", "train", "evaluation", "end"]
    env_steps: int
    lines: Sequence[dict[str, Any]]
    config: dict[str, Any]
    path: Path | None
    complete: bool = False
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _make_run: list[Callable[[], Run]] = field(default_factory=list, repr=False)

    @property
    def run(self) -> Run:
        """The run as it stands, with its best and its last policies: to evaluate or film it.

        Raises:
            UsageError: the callback has returned, or the training failed.
        """
        if not self._make_run:
            raise UsageError(
                "event.run can only be taken while the callback is called with it, and not at the "
                "end of a training that failed"
            )
        return self._make_run[0]()

    def mean(self, metric: str) -> float | None:
        """The mean over seeds of a metric of the lines, such as ``train/loss``; None without it."""
        values = [line[metric] for line in self.lines if metric in line]
        return float(np.mean(values)) if values else None

    @property
    def score(self) -> float | None:
        """The mean over seeds of the return that policies are compared by, in an evaluation."""
        return self.mean(self.config["metric"])


Callback = Callable[[Event], Any]
"""Called with every event; what returns True ends the run."""
Predicate = Callable[[Event], Any]
"""Called with every evaluation; where it returns true the run ends."""


class Callbacks:
    """Tells a user's callables what happens, and remembers what they ask for.

    Attributes:
        stop: one of them asked to end the run.
        error: what the first that raised did; who raised is not called any more.
    """

    def __init__(self, callback: Any = None, stop: Any = None):
        given = [callback] if callable(callback) else [] if callback is None else callback
        if not isinstance(given, list | tuple):
            given = [given]
        for word, each in [*(("callback", each) for each in given), ("stop", stop)]:
            if not callable(each) and (word, each) != ("stop", None):
                raise UsageError(f"{word} must be callable; got {each!r:.60}")
        self._callbacks: list[Callback] = list(given)
        if stop is not None:
            predicate: Predicate = stop
            self._callbacks.append(lambda e: e.kind == "evaluation" and bool(predicate(e)))
        self.stop = False
        self.error: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def tell(self, event: Event) -> None:
        """Calls them with an event; what they raise is kept, to be raised once all is saved."""
        begun = event.kind != "start"
        for each in [*self._callbacks]:
            try:
                asked = each(event)
                # Before the first step of this session there is nothing to end.
                self.stop |= isinstance(asked, bool | np.bool_) and bool(asked) and begun
            except BaseException as error:  # an exit that a callback asks for saves too
                self.error = self.error or error
                self._callbacks = [other for other in self._callbacks if other is not each]
        event._make_run.clear()
