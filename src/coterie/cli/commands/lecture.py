"""``coterie lecture``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.cli.printing import answer_json, say
from coterie.settings import Seed, Seeds


@dataclass(frozen=True)
class LectureArgs:
    """Reproduces figures and tables of the lecture (chapter 9 of the book at marl-book.com) and
    checks whether the results support its claims.

    If you name no experiment, all of them run: about an hour on two cores, ten minutes with
    --quick.
    Experiments that are complete in --out are kept, so the same command continues after an
    interruption.
    """

    out: Path = Path("lecture")
    """Folder for runs, results and report.html."""
    quick: bool = False
    """Use fewer seeds and steps; the report says so."""
    seeds: Seeds | None = None
    """Number of seeds of every training; each experiment has its own default."""
    seed: Seed = 0
    """First random seed; the others count up from it."""
    json: bool = False
    """Print the outcomes as one JSON document."""


def command_lecture(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.lecture.base import course
    from coterie.lecture.base.display import LectureDisplay
    from coterie.lecture.base.experiment import Scale
    from coterie.machine import usable_cores
    from coterie.training.devices import one_core_per_seed

    own = parsed.run
    one_core_per_seed(usable_cores())
    with LectureDisplay() as display:
        scale = Scale(own.quick, own.seeds, own.seed)
        outcomes = course.give(names, own.out, scale, display.tell, display)
    passed = all(outcome.passed for outcome in outcomes)
    if own.json:
        answer_json({"passed": passed, "items": [outcome.to_dict() for outcome in outcomes]})
    else:
        say(display.summary(outcomes), "", f"report: {own.out / 'report.html'}", width=120)
    return 0 if passed else 1
