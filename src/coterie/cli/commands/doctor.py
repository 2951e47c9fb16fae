"""``coterie doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.cli.printing import answer_json, say


@dataclass(frozen=True)
class DoctorArgs:
    """Shows versions, extras, devices, memory and whether files can be written: what to send with a
    bug report.

    FOLDER is where your runs are written, by default the current directory. Exit status: 0 if
    training can work, 1 if something is broken.
    """

    json: bool = False
    """Print one JSON document."""


def command_doctor(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.runs.doctor import examine, to_dict, works

    checks = examine(Path(*names))
    if parsed.run.json:
        answer_json(to_dict(checks))
    else:
        from coterie.show.terminal.doctor import render_doctor

        say(render_doctor(checks), width=120)
    return 0 if works(checks) else 1
