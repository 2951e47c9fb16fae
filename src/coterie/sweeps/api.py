"""``sweep``: runs all cells of a sweep, or goes on with those that are not complete."""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.settings import Name, Workers, fitted
from coterie.storage.config_file import encoded, versions
from coterie.storage.files import only_writer, read_sealed, replacing, seal
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.cells import Cell, axes_of, cells, read
from coterie.sweeps.directory import SWEEP, final
from coterie.sweeps.engine import LOCK_SECONDS, Engine, Job, Tell
from coterie.sweeps.local import Local, slots
from coterie.sweeps.search import Searches, Study, studies_of

TABLE = "table.csv"
ENDED = ("done", "failed")
FORMAT = 1


@dataclass(frozen=True)
class Sweep:
    """What became of a sweep.

    Attributes:
        path: its directory.
        jobs: its cells with their ``path``, ``status`` and ``problem``.
        search: the trials of a search by study, and what they came to; None without a search.
        stopped: it was asked to stop before all cells had ended.
    """

    path: Path
    jobs: Sequence[Job]
    search: Searches | None = None

    @property
    def stopped(self) -> bool:
        return any(job.status == "stopped" for job in self.jobs)

    @property
    def complete(self) -> bool:
        """Every cell is a complete run."""
        return all(job.status == "done" for job in self.jobs)


def sweep(
    file: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    cell: int | None = None,
    ray: str | None = None,
    report: Callable[[Job, Sequence[Job]], None] | None = None,
) -> Sweep:
    """Trains every cell of a sweep in a process of its own; called again, it goes on.

    A cell that fails does not end the others. Ctrl-C and SIGTERM make every cell save and stop.

    Args:
        file: a TOML file, or its tables as a mapping (docs/sweeps.md).
        out: directory of the sweep; ``runs/NAME`` of ``NAME.toml`` unless given.
        workers: processes at a time; as many as there are GPUs, or cores, unless given.
        cell: goes on with this cell only, counted from 0, as an array job of SLURM does; it waits
            for no other cell, and writes no table.
        ray: address of a Ray cluster whose nodes train the cells; ``local`` starts a Ray of this
            machine.
        report: called with a cell whose status has changed, and all cells.

    Raises:
        UsageError: the sweep makes no sense, or its directory holds another one.
    """
    tables = _tables(file)
    searches = Searches(studies_of(tables))
    found = [] if searches else cells(tables)
    path = directory_of(file, out)
    workers = fitted("workers", workers, Workers | None)
    ray = fitted("ray", ray, Name | None)
    if cell is not None and searches:
        raise UsageError("a search proposes its trials as it goes on: leave out --cell")
    if ray is not None and searches and workers is None:
        raise UsageError("a search on Ray needs --workers, how many trials there are at a time")
    if cell is not None and not 0 <= cell < len(found):
        raise UsageError(f"cell must be from 0 to {len(found) - 1}; got {cell}")
    if cell is not None and ray is not None:
        raise UsageError("cell is trained by this machine, and not by Ray: leave out one of them")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from None
    if cell is not None:
        jobs = _jobs(path, [found[cell]])
        with _in_turn(path):  # all jobs of an array begin at once
            _begin(path, found)
        _go(jobs, Local(slots(1), lambda job: report(job, jobs) if report else None))
        return Sweep(path, jobs)
    at_a_time = len(slots(workers)) if ray is None else workers or 0
    with only_writer(path):
        jobs = _jobs(path, _begin(path, found, searches))
        for job in jobs:
            searches.tell(job)
        jobs += _trials(path, searches, at_a_time - searches.running)

        def tell(job: Job) -> list[Job]:
            searches.tell(job)
            room = at_a_time - searches.running if job.status in ENDED else 0
            more = _trials(path, searches, room)
            jobs.extend(more)
            if job.status != "running":
                _write(path / TABLE, _table(jobs, searches.metric).encode())
            if report:
                report(job, jobs)
            return more

        _go(jobs, _engine(path, workers, ray, tell))
        _write(path / TABLE, _table(jobs, searches.metric).encode())
    return Sweep(path, jobs, searches if searches else None)


def planned(file: str | Path | Mapping[str, Any]) -> list[Cell]:
    """The cells of a sweep without a search; UsageError where they make no sense."""
    return cells(_tables(file))


def searched(file: str | Path | Mapping[str, Any]) -> list[Study]:
    """The studies of a search, none begun; none of a sweep without ``[search]``."""
    return studies_of(_tables(file))


def _tables(file: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    return file if isinstance(file, Mapping) else read(Path(file))


def directory_of(file: str | Path | Mapping[str, Any], out: str | Path | None) -> Path:
    """Where a sweep is written."""
    if out is not None:
        return Path(out)
    if isinstance(file, Mapping):
        raise UsageError("name the directory of the sweep (out)")
    return Path("runs") / Path(file).stem


def _engine(path: Path, workers: int | None, ray: str | None, tell: Tell) -> Engine:
    if ray is None:
        return Local(slots(workers), tell)
    from coterie.sweeps.on_ray import OnRay

    return OnRay(ray, path, workers, tell)


def _jobs(path: Path, found: Sequence[Cell]) -> list[Job]:
    jobs = [Job(c, path / "cells" / c.name, path / "logs" / f"{c.name}.txt") for c in found]
    for job in jobs:
        job.status = "done" if job.is_done() else job.status
    return jobs


def _trials(path: Path, searches: Searches, count: int) -> list[Job]:
    """Begins up to so many further trials of a search, which are recorded before they run."""
    if begun := searches.begin(count):
        _record(path, searches.cells, searches)
    return _jobs(path, begun)


def _go(jobs: Sequence[Job], engine: Engine) -> None:
    engine.run([job for job in jobs if job.status not in ENDED])


@contextlib.contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """As ``only_writer``, but waits for others, up to ``LOCK_SECONDS``."""
    with contextlib.ExitStack() as stack:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                stack.enter_context(only_writer(path))
                break
            except UsageError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        yield


def _begin(path: Path, found: Sequence[Cell], searches: Searches | None = None) -> Sequence[Cell]:
    """Writes ``sweep.json``; all cells, of a search the trials begun so far."""
    found = resumable(path, found, searches)
    _record(path, found, searches)
    return found


def resumable(
    path: Path, found: Sequence[Cell], searches: Searches | None = None
) -> Sequence[Cell]:
    """All cells of a sweep in an existing directory, of a search the trials begun so far.

    Raises:
        UsageError: the directory holds something else, or cells begun with other settings.
    """
    recorded = path / SWEEP
    if recorded.exists():
        content = read_sealed(recorded)
        if bool(searches) != ("search" in content):
            kind = "a search" if "search" in content else "a sweep without a search"
            raise UsageError(f"{path} holds {kind}: choose another --out (nothing was changed)")
        if searches:
            try:
                searches.restore(content, path)
            except (KeyError, TypeError, AttributeError):
                raise UsageError(f"{recorded} is not that of a search") from None
            found = searches.cells
        before = {cell["name"]: cell for cell in content["cells"]}
        for cell in found:
            known = before.get(cell.name)
            if known is None or not (path / "cells" / cell.name).exists():
                continue
            now = encoded(_as_json(cell))
            if encoded(known) != now:
                names = _differing(known["settings"], cell.settings)
                raise UsageError(
                    f"{path} holds a sweep with other settings ({', '.join(names)}): choose "
                    "another --out (nothing was changed)"
                )
    elif any(each.name != ".lock" for each in path.iterdir()):
        raise UsageError(f"{path} exists already and is no sweep; choose another --out")
    return found


def _record(path: Path, found: Sequence[Cell], searches: Searches | None) -> None:
    content = {"format": FORMAT, "coterie": versions()["coterie"],
               "varied": axes_of(found), "cells": [_as_json(cell) for cell in found]}  # fmt: skip
    if searches:
        content["search"] = searches.as_json()
    _write(path / SWEEP, encoded(seal(content)))


def _as_json(cell: Cell) -> dict[str, Any]:
    of_search = {} if cell.trial is None else {"study": cell.study, "trial": cell.trial}
    return {"name": cell.name, "algorithm": cell.algorithm, "environment": cell.environment,
            "varied": cell.varied, "settings": cell.settings, **of_search}  # fmt: skip


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = {**before, **now}
    return [n for n in names if encoded(before.get(n)) != encoded(now.get(n))] or ["their order"]


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


# The table ----------------------------------------------------------------------------------------


def _table(jobs: Sequence[Job], metric: str | None) -> str:
    """``table.csv``: a line for each seed of each cell, with its own metric unless one is given."""
    axes = axes_of([job.cell for job in jobs])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("cell", "algorithm", "environment", *axes, "seed", "status", "env_steps", "policies",
            "metric", "value", "problem")  # fmt: skip
    writer.writerow(head)
    for job in jobs:
        cell = job.cell
        first = [cell.name, cell.algorithm, cell.environment]
        first += [_plain(cell.varied.get(name)) for name in axes]
        for row in _results(job, metric):
            writer.writerow([*first, *row, job.problem])
    return text.getvalue()


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _results(job: Job, metric: str | None) -> Iterator[list[Any]]:
    """Seed, status, steps, policies, metric and its value in the final evaluation."""
    directory = RunDirectory(job.path)
    if job.status != "done":
        first, count = (job.cell.settings.get(name, d) for name, d in (("seed", 0), ("seeds", 1)))
        for k in range(count):
            yield [first + k, job.status, directory.newest_checkpoint() or "", "", "", ""]
        return
    config = directory.config()
    which, name, summary = final(job.path, metric)
    values = summary["per_seed"] if summary else [""] * config["seeds"]
    for k, value in enumerate(values):
        yield [config["seed"] + k, "done", config["steps"], which, name, value]
