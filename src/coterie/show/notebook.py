"""Runs in a notebook: their curve and table as the value of a cell, and progress in the cell."""

from __future__ import annotations

import base64
import html
import tempfile
import time
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.runs import loop
from coterie.runs.run import Run
from coterie.show.curves import plot
from coterie.show.terminal.console import line
from coterie.show.terminal.progress import TrainDisplay
from coterie.show.terminal.returns import cells, chosen_metrics, policies

PAUSE = 0.2
"""Seconds between two changes of what a cell shows."""


def render_run(run: Run) -> str:
    """A run as HTML: what it is, its learning curve, and its final returns."""
    parts = [f"<p><code>{html.escape(repr(run))}</code></p>", _curve(run)]
    if run.results:
        together = [[*run.results]] if run.last_is_best else [[which] for which in run.results]
        parts += [_table(run, which) for which in together]
    return "".join(parts)


def _curve(run: Run) -> str:
    if run.path is None:
        return "<p>(without a run directory, <code>out</code>, there is no learning curve)</p>"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "curve.png"
        try:
            plot([run.path], file)
        except (UsageError, OSError) as error:
            return f"<p>{html.escape(str(error))}</p>"
        picture = base64.b64encode(file.read_bytes()).decode()
    return (
        f'<img alt="learning curve of {html.escape(run.path.name)}" style="max-width: 40em" '
        f'src="data:image/png;base64,{picture}">'
    )


def _table(run: Run, which: list[str]) -> str:
    metrics = run.results[which[0]]
    headers, rows = cells(metrics, chosen_metrics(run, metrics, None, greedy=False))
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headers)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    title = html.escape(policies(run, *which))
    return f"<table><caption>{title}</caption><tr>{head}</tr>{body}</table>"


class CellDisplay(TrainDisplay):
    """Shows the progress of a training in the notebook's cell."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # only a notebook makes one, and has it

        super().__init__()
        self.live, self._html = False, HTML
        self._lines: list[str] = []
        self._now, self._shown = "", 0.0
        self._handle: Any = display(HTML(""), display_id=True)

    def say(self, *parts: str | tuple[str, str], style: str = "") -> None:
        self._lines.append(line(*parts).plain)
        self._show()

    def _progress(self, facts: dict[str, Any]) -> None:
        super()._progress(facts)
        words = self._words(facts)
        shown = ("steps", "rate", "split", "score", "left")
        self._now = "  ".join(words[name] for name in shown if words.get(name))
        if time.monotonic() - self._shown > PAUSE:
            self._show()

    def _end(self, facts: dict[str, Any]) -> None:
        self._now = ""
        super()._end(facts)

    def _show(self) -> None:
        self._shown = time.monotonic()
        text = "\n".join([*self._lines, self._now])
        self._handle.update(self._html(f"<pre>{html.escape(text)}</pre>"))


def enable() -> None:
    """From now on a training that is given no ``report`` shows its progress in the cell."""
    loop.DISPLAYS[:] = [CellDisplay]
