"""``coterie sweep``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.cli.printing import INTERRUPTED, answer, answer_json
from coterie.module_paths import is_code
from coterie.settings import Name, NoOrMoreEpisodes, Workers
from coterie.show.numbers import clock, plural, size
from coterie.text import visible


@dataclass(frozen=True)
class SweepArgs:
    """Trains many teams: algorithms, environments and settings as a TOML file lists them
    (docs/sweeps.md). The same command again goes on with what is not complete."""

    out: Path | None = None
    """Directory of the sweep; by default runs/NAME of NAME.toml."""
    workers: Workers | None = None
    """Processes at a time; by default one for each GPU, or else for each core."""
    cell: NoOrMoreEpisodes | None = None
    """Go on with this cell only, counted from 0, as an array job of SLURM does."""
    ray: Name | None = None
    """Train on the nodes of the Ray cluster at this address; local starts Ray on this machine."""
    dry_run: bool = False
    """List the cells, estimate memory and time, and train nothing."""
    json: bool = False
    """Print cells with their status as one JSON document."""


def command_sweep(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.sweeps import api
    from coterie.sweeps.cells import read
    from coterie.sweeps.search import Searches

    own, file = parsed.run, Path(names[0])
    tables = read(file)
    named = [tables.get("algorithms"), tables.get("environments")]
    if any(is_code(str(n)) for each in named if isinstance(each, list) for n in each):
        sys.path.append(os.getcwd())  # as for a command that names it
    out = api.directory_of(file, own.out)
    studies = api.searched(tables)
    if own.dry_run:
        found = [] if studies else api.planned(tables)
        if out.is_dir():
            api.resumable(out, found, Searches(studies))
        return _list(found, studies, own, out)
    total = sum(study.count for study in studies)
    made = api.sweep(tables, out, workers=own.workers, cell=own.cell, ray=own.ray,
                     report=lambda job, jobs: _tell(job, jobs, total))  # fmt: skip
    if own.json:
        answer_json({"sweep": str(out), "complete": made.complete, "cells": [
            {"name": job.cell.name, "run": str(job.path), "status": job.status,
             "problem": job.problem} for job in made.jobs],
            **({"search": made.search.found()} if made.search else {})})  # fmt: skip
    elif own.cell is None:
        _say_best(made.search)
        answer(visible(out / api.TABLE))
    if made.stopped:
        print("coterie: stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0 if made.complete else 1


def _list(found: Sequence[Any], studies: Sequence[Any], own: SweepArgs, out: Path) -> int:
    """What will be trained, and what that takes; the trials of a search are known only later."""
    from coterie.sweeps.estimates import estimate

    expected = estimate(found, studies, out)
    status, done = 1 if expected.problems else 0, set(expected.complete)
    if own.json:
        what: dict[str, Any] = {"sweep": str(out), "estimate": asdict(expected)}
        if studies:
            what["studies"] = [
                {**study.as_json(), "trials": study.count, "sampler": study.search.sampler}
                for study in studies
            ]
        else:
            commands = {c.name: ["coterie", *c.command(out / "cells" / c.name)] for c in found}
            what["cells"] = [{"name": name, "command": c} for name, c in commands.items()]
        answer_json(what)
        return status
    for study in studies:
        space = "; ".join(map(str, study.axes))
        trials = plural(study.count, "trial")
        answer(visible(f"{study.base.name}: {trials} ({study.search.sampler}) of {space}"))
    for k, cell in enumerate(found):
        answer(visible(f"{k:4} {cell.name}{' (complete)' * (cell.name in done)}"))
    for line in _expectations(expected, own.workers):
        print(visible(line), file=sys.stderr)
    return status


def _expectations(expected: Any, workers: int | None) -> list[str]:
    """Sentences on memory, time and what cannot be trained."""
    from coterie.sweeps.local import slots

    count, lines = len(slots(workers)), list(expected.problems)
    at_once = f"{count} processes at a time" if count > 1 else "one process at a time"
    if expected.bytes is None:
        before = "" if expected.problems else " before a Python environment is opened"
        lines.append(f"memory: not known{before}")
    else:
        some = " of the cells looked at" if expected.partial else ""
        lines.append(
            f"memory: states of up to {size(expected.bytes)}{some}, {size(expected.bytes * count)} "
            f"with {at_once}; compiled programs take more, which each run checks before it begins"
        )
    if expected.seconds is None and not expected.unknown:
        lines.append("time: nothing can be trained")
    elif expected.seconds is None:
        names = ", ".join(f"{a} on {e}" for a, e in expected.unknown)
        lines.append(f"time: not known before a run of {names} is complete")
    elif expected.seconds == 0:
        lines.append("time: nothing is left to train")
    else:
        lines.append(f"time: about {clock(expected.seconds / count)} with {at_once}, as long as "
                     "complete runs took")  # fmt: skip
    return lines


def _say_best(search: Any) -> None:
    from coterie.sweeps.cells import word

    for each in search.found() if search else ():
        if each["best"]:
            values = ", ".join(f"{k} {word(v)}" for k, v in each["best"]["settings"].items())
            line = f"best of {each['study']}: trial {each['best']['trial']}, {values}"
            print(visible(f"{line}: {each['best']['value']:.4g}"), file=sys.stderr)


def _tell(job: Any, jobs: Sequence[Any], total: int) -> None:
    counts = Counter(each.status for each in jobs)
    problem = f": {job.problem}" if job.problem else ""
    known = max(total, len(jobs))
    line = f"{counts['done']} of {known} done · {job.cell.name} {job.status}{problem}"
    print(visible(line), file=sys.stderr)
