"""Answers go to standard output, in text or as one JSON document."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from coterie.runs.run import Run


INTERRUPTED = 130
"""Exit status of what was asked to stop."""
_kept: TextIO | None = None


def answers() -> Any:
    """Where answers go: standard output, if need be by another way (``keep_standard_output``)."""
    return _kept or sys.stdout or io.StringIO()  # where it is closed, nobody reads them


def keep_standard_output() -> None:
    """From now on standard output is written to by answers alone.

    What anything else in this process or its children writes there goes to standard error: user
    code that prints, in whatever language and thread.
    """
    global _kept
    try:
        out = sys.stdout
        kept = os.fdopen(os.dup(out.fileno()), "w", encoding=out.encoding, errors=out.errors)
        os.dup2(sys.stderr.fileno(), out.fileno())
        out.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return  # one of the two is closed, or no file
    _kept = kept


def answer(text: str) -> None:
    print(text, file=answers())


def say(*parts: Any, width: int | None = None) -> None:
    """Prints to standard output: as wide as the terminal, or as wide as needed into a pipe."""
    from coterie.show.terminal.console import Terminal

    terminal = Terminal(answers())
    if terminal.is_terminal:
        return terminal.print(*parts, sep="\n")
    page = Terminal(io.StringIO(), width or 10_000)
    page.print(*parts, sep="\n")
    for line in page.file.getvalue().splitlines():  # type: ignore[attr-defined]
        answer(line.rstrip())
    return None


def answer_json(document: Any) -> None:
    answer(json.dumps(document, indent=1, allow_nan=False))


def by_policy(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """Results as a program reads them: of each kind of policies, with the steps they are of."""
    return {
        which: {"env_steps": run.policy_steps.get(which), "metrics": metrics}
        for which, metrics in results.items()
    }
