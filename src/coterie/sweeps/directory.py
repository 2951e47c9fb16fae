"""A sweep's directory as those read it who show it: its runs, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.runs.policy_files import default_policy
from coterie.storage.config_file import ABSENT_ONCE
from coterie.storage.files import read_sealed
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.cells import label
from coterie.text import did_you_mean

SWEEP = "sweep.json"


def runs_of(paths: Iterable[Path]) -> list[Path]:
    """The same paths, with the runs of a sweep, as far as they were begun, in place of a sweep.

    Raises:
        UsageError: nothing of a sweep was begun, or its file is damaged.
    """
    found: list[Path] = []
    for path in paths:
        if not (path / SWEEP).is_file():
            found.append(path)
            continue
        runs = [path / "cells" / str(cell["name"]) for cell in read_cells(path)]
        begun = [run for run in runs if (run / "metrics.jsonl").is_file()]
        if not begun:
            raise UsageError(f"no run of the sweep {path} has logged anything yet")
        found += begun
    return found


def label_in_sweep(run: Path) -> str | None:
    """The algorithm and what its sweep varies; None for a run that is in no sweep."""
    path = run.resolve().parent.parent
    try:
        found = read_cells(path) if (path / SWEEP).is_file() else []
    except UsageError:
        return None
    trial = lambda c: {"trial": c["trial"]} if c.get("trial") is not None else {}  # noqa: E731
    names = (label(c["algorithm"], trial(c) | c["varied"]) for c in found if c["name"] == run.name)
    return next(names, None)


def final(run: Path, metric: str | None = None) -> tuple[str, str, dict[str, Any] | None]:
    """The policies that stand for a complete run, the metric, and its summary over seeds in their
    final evaluation, None where there is none.

    Args:
        metric: the run's own unless given.

    Raises:
        UsageError: the run is damaged, or reports no such metric.
    """
    directory = RunDirectory(run)
    config = directory.config()
    name, which = metric or (ABSENT_ONCE | config)["metric"], default_policy(run)
    results = directory.result(config)
    if results is None:
        return which, name, None
    if name not in results[which]:
        hint = did_you_mean(name, results[which], f"; it has {', '.join(results[which])}")
        raise UsageError(f"the final evaluation of {run} has no metric {name}{hint}")
    return which, name, results[which][name]


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells that ``sweep.json`` holds; UsageError if it is damaged."""
    content = read_sealed(path / SWEEP)
    found = content.get("cells")
    wanted = {"name": str, "algorithm": str, "environment": str, "varied": dict}
    good = isinstance(found, list) and all(
        isinstance(cell, dict) and all(isinstance(cell.get(k), t) for k, t in wanted.items())
        and Path(cell["name"]).name == cell["name"]
        for cell in found
    )  # fmt: skip
    if not good:
        raise UsageError(f"{path / SWEEP} is not that of a sweep")
    return found or []
