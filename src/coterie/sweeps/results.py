"""What the cells of a sweep came to, for those who show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.storage.files import read_sealed
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.cells import ENV, label
from coterie.sweeps.directory import SWEEP, final, read_cells
from coterie.sweeps.search import Told, best, importances
from coterie.sweeps.space import Axis

COMPARABLE = "return/team_mean"
"""The return that means the same whether rewards are summed or averaged over agents."""


@dataclass(frozen=True)
class Result:
    """A complete cell.

    Attributes:
        varied: what the sweep varies, as files hold it.
        study, trial: of a search; empty and None else.
        values: [S] the metric in the final evaluation, by seed.
        config: what the run's ``config.json`` holds.
    """

    run: Path
    algorithm: str
    environment: str
    varied: dict[str, Any]
    study: str
    trial: int | None
    metric: str
    values: np.ndarray
    config: dict[str, Any]

    @property
    def task(self) -> str:
        """The environment, with the options that the sweep varies."""
        options = {k: v for k, v in self.varied.items() if k.startswith(ENV)}
        return label(self.environment, options)

    @property
    def mean(self) -> float:
        return float(self.values.mean())


@dataclass(frozen=True)
class StudyResult:
    """A search, as far as its trials are complete.

    Attributes:
        told: values by setting, and the metric, by trial; None where it is not known.
        direction: ``max`` or ``min``.
    """

    name: str
    algorithm: str
    environment: str
    varied: dict[str, Any]
    axes: tuple[Axis, ...]
    told: Told
    direction: str

    @property
    def best(self) -> int | None:
        return best(self.told, self.direction)

    def best_so_far(self) -> list[float]:
        """[T] the best value of the trials up to each; NaN before the first complete one."""
        values = [np.nan if x is None else x for _, x in self.told]
        top = np.fmax if self.direction == "max" else np.fmin
        return top.accumulate(np.array(values, np.float64)).tolist()

    def importances(self) -> dict[str, float] | None:
        """The share of each setting, as ``search.importances``; it needs Optuna."""
        return importances(self.axes, self.told, self.direction)


def results_of(path: Path, metric: str | None = None) -> list[Result]:
    """The complete cells of a sweep whose seeds all came to a number.

    Args:
        metric: of the final evaluation; by default that of the search, or each run's own. Where
            the returns of an environment are sums in some runs and means in others, all are means
            over agents.

    Raises:
        UsageError: ``sweep.json`` is damaged, or no complete run has such a metric.
    """
    asked = metric or _how(path).get("metric")
    complete = complete_cells(path)
    abouts = [_final(path / "cells" / cell["name"], asked) for cell in complete]
    if complete and asked and not any(abouts):
        final(path / "cells" / complete[0]["name"], asked)
    returns: dict[str, set[str]] = {}
    for cell, about in zip(complete, abouts, strict=True):
        if about is not None:
            returns.setdefault(cell["environment"], set()).add(about[0].partition("/")[2])
    found = []
    for cell, about in zip(complete, abouts, strict=True):
        run = path / "cells" / cell["name"]
        if about is not None and len(returns[cell["environment"]]) > 1:
            about = _final(run, f"{about[0].partition('/')[0]}/{COMPARABLE}")
        if about is not None and None not in about[1]["per_seed"]:
            values = np.asarray(about[1]["per_seed"], np.float64)
            found.append(
                Result(
                    run,
                    cell["algorithm"],
                    cell["environment"],
                    cell["varied"],
                    str(cell.get("study", "")),
                    cell.get("trial"),
                    about[0],
                    values,
                    RunDirectory(run).config(),
                )
            )
    return found


def complete_cells(path: Path) -> list[dict[str, Any]]:
    """Those of ``sweep.json`` whose runs are complete."""
    return [cell for cell in read_cells(path) if _is_complete(path / "cells" / cell["name"])]


def studies_in(path: Path, results: Sequence[Result]) -> list[StudyResult]:
    """The searches of a sweep; none of one without a search.

    Raises:
        UsageError: ``sweep.json`` is damaged.
    """
    recorded, cells = _search(path), read_cells(path)
    known = {result.run.name: result.mean for result in results}
    try:
        return [
            StudyResult(
                str(study["name"]),
                str(study["algorithm"]),
                str(study["environment"]),
                dict(study["varied"]),
                tuple(Axis.of_json(name, axis) for name, axis in study["space"].items()),
                [(cell["varied"], known.get(cell["name"])) for cell in cells
                 if cell.get("study") == study["name"]],
                direction_of(path),
            )
            for study in recorded.get("studies", ())
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{path / SWEEP} is not that of a sweep") from None


def direction_of(path: Path, metric: str | None = None) -> str:
    """Whether more of a metric is better, ``max``, or less, ``min``, as the search of that metric
    says; the metric of the search unless given."""
    how = _how(path)
    less = how.get("direction") == "min" and metric in (None, how.get("metric"))
    return "min" if less else "max"


def _how(path: Path) -> dict[str, Any]:
    how = _search(path).get("how")
    return how if isinstance(how, dict) else {}


def _search(path: Path) -> dict[str, Any]:
    found = read_sealed(path / SWEEP).get("search")
    return found if isinstance(found, dict) else {}


def _final(run: Path, metric: str | None) -> tuple[str, dict[str, Any]] | None:
    try:
        _, name, summary = final(run, metric)
    except UsageError:
        return None
    return None if summary is None else (name, summary)


def _is_complete(run: Path) -> bool:
    directory = RunDirectory(run)
    try:
        return directory.holds_a_run() and directory.is_finished(directory.config())
    except UsageError:
        return False
