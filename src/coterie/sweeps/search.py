"""Searches: settings proposed trial by trial, from what the trials before came to (Optuna)."""

from __future__ import annotations

import contextlib
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np

from coterie.errors import UsageError
from coterie.extras import how_to_install
from coterie.settings import RUN, Name, Range, Seed, fitted, hints, shown
from coterie.storage.config_file import encoded
from coterie.sweeps.cells import (
    Cell,
    cells,
    check_settings,
    class_of,
    declared_of,
    flat,
    kind_of,
    table_of,
)
from coterie.sweeps.directory import final
from coterie.sweeps.engine import Job
from coterie.sweeps.space import DIGITS, Axis, combinations, points, with_values
from coterie.text import did_you_mean
from coterie.training.evaluate import FIXED, is_played

MOST_TRIALS = 10_000
ATTEMPTS = 20
"""So often a point that was tried before is proposed anew; then the next untried one is taken."""
FEW_TRIALS = 10
"""With fewer trials nothing is said of which settings matter."""
PLAYS = ("eval", "eval_sampled")
"""First parts of metrics of the final evaluation; stochastic policies alone have the second."""
_NOT_SEARCHED = (*RUN, "init")


@dataclass(frozen=True)
class Search:
    """How a sweep searches.

    Attributes:
        trials: of each study; None for all points of a grid.
        metric: of the final evaluation; each run's own unless given.
        direction: whether a trial is better with more of the metric, or with less.
    """

    trials: Annotated[int, Range(1, MOST_TRIALS)] | None = None
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: Seed = 0
    metric: Name | None = None
    direction: Literal["max", "min"] = "max"

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Search:
        """From ``[search]`` without its space; UsageError where it makes no sense."""
        known = hints(cls)
        for key in table:
            if key not in known:
                keys = [*known, "space"]
                hint = did_you_mean(key, keys, f"; it has {', '.join(keys)}")
                raise UsageError(f"[search] has no key {key!r}{hint}")
        found = cls(**{k: fitted(f"{k} of [search]", v, known[k], True) for k, v in table.items()})
        if found.trials is None and found.sampler != "grid":
            raise UsageError("[search] needs trials, how many settings are tried")
        if found.metric is not None:
            play, _, what = found.metric.partition("/")
            if play not in PLAYS or not is_played(what):
                hint = did_you_mean(found.metric, [f"{p}/{each}" for p in PLAYS for each in FIXED])
                raise UsageError(
                    "metric of [search] must be one of the final evaluation, such as "
                    f"eval/return/team_sum; got {shown(found.metric)}{hint}"
                )
            if "return" not in what and "direction" not in table:
                raise UsageError(
                    f'[search] needs direction, "max" or "min", because {found.metric} is no return'
                )
        return found


@dataclass
class Trial:
    """A setting that was proposed, and what became of it.

    Attributes:
        value: the metric, a mean over seeds; None until its run is complete, NaN if it failed.
    """

    cell: Cell
    value: float | None = None


@dataclass
class Study:
    """The search of one algorithm on one environment with one combination of the grid.

    Attributes:
        base: the cell without what is searched.
        trials: those begun, in order.
    """

    base: Cell
    axes: tuple[Axis, ...]
    search: Search
    trials: list[Trial] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many trials there will be."""
        return self.search.trials or int(points(self.axes))

    def trial(self, values: Mapping[str, Any]) -> Trial:
        """Begins the next trial with these values."""
        number = len(self.trials)
        cell = replace(
            self.base,
            name=f"{self.base.name}-trial-{number:03d}",
            varied=self.base.varied | dict(values),
            settings=self.base.settings | dict(values),
            study=self.base.name,
            trial=number,
        )
        self.trials.append(Trial(cell))
        return self.trials[-1]

    def next(self) -> Cell | None:
        """Begins the next trial; None where all were begun."""
        if len(self.trials) >= self.count:
            return None
        return self.trial(self._proposal()).cell

    def found(self) -> dict[str, Any]:
        """What the trials came to so far (JSON-able)."""
        told = [(self._values(trial), trial.value) for trial in self.trials]
        top = best(told, self.search.direction)
        one = None
        if top is not None:
            one = {"trial": top, "value": told[top][1], "settings": told[top][0]}
        return {"study": self.base.name, "best": one,
                "importance": importances(self.axes, told, self.search.direction)}  # fmt: skip

    def _proposal(self) -> dict[str, Any]:
        """Values that no trial had: they follow from the search's seed, the number of the trial
        and what is known of those before it, and from nothing that a process remembers."""
        number, name = len(self.trials), zlib.crc32(self.base.name.encode())
        if self.search.sampler == "grid":
            order = np.random.default_rng([self.search.seed, name]).permutation(
                int(points(self.axes))
            )
            return next(itertools.islice(combinations(self.axes), int(order[number]), None))
        tried = [self._values(trial) for trial in self.trials]
        for attempt in range(ATTEMPTS):
            source = np.random.SeedSequence([self.search.seed, name, number, attempt])
            digits = DIGITS if attempt < ATTEMPTS // 2 else 17
            values = self._ask(int(source.generate_state(1)[0]), digits)
            if values not in tried:
                return values
        if math.isinf(points(self.axes)):  # too narrow for so many numbers
            raise UsageError(f"no untried values were found for trial {number} of {self.base.name}")
        return next(values for values in combinations(self.axes) if values not in tried)

    def _values(self, trial: Trial) -> dict[str, Any]:
        return {axis.name: trial.cell.varied[axis.name] for axis in self.axes}

    def _ask(self, seed: int, digits: int) -> dict[str, Any]:
        with _optuna() as optuna:
            if self.search.sampler == "random":
                sampler = optuna.samplers.RandomSampler(seed)
            else:  # which takes trials that still run for bad ones, so that others are elsewhere
                sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            told = [(self._values(trial), trial.value) for trial in self.trials]
            study = _study(optuna, self.axes, told, self.search.direction, sampler)
            asked = study.ask({axis.name: axis.distribution() for axis in self.axes})
            return {axis.name: axis.value(asked.params[axis.name], digits) for axis in self.axes}

    def as_json(self) -> dict[str, Any]:
        """As ``sweep.json`` holds it; its trials are cells."""
        return {
            "name": self.base.name,
            "algorithm": self.base.algorithm,
            "environment": self.base.environment,
            "varied": self.base.varied,
            "space": {axis.name: axis.as_json() for axis in self.axes},
        }


Told = Sequence[tuple[Mapping[str, Any], float | None]]
"""Of each trial its values by setting, and the metric: None while it runs, NaN if it failed."""


def best(told: Told, direction: str) -> int | None:
    """The number of the complete trial with the best value, the first of equal ones."""
    known = {k: x for k, (_, x) in enumerate(told) if x is not None and math.isfinite(x)}
    sign = 1 if direction == "max" else -1
    return max(known, key=lambda k: sign * known[k], default=None)


def studies_of(tables: Mapping[str, Any]) -> list[Study]:
    """The studies of a sweep with a table ``[search]``; none where it has no such table.

    Raises:
        UsageError: something of it makes no sense, or Optuna is not installed.
    """
    if "search" not in tables:
        return []
    rest = dict(tables)
    asked = dict(table_of(rest, "search"))
    common = _space(asked)
    search, own = Search.read(asked), {}
    names = rest.get("algorithms", ())
    for name in names if isinstance(names, list | tuple) else [names]:
        table = rest.get(name) if isinstance(name, str) else None
        if isinstance(table, Mapping) and "search" in table:
            rest[name] = {k: v for k, v in table.items() if k != "search"}
            inner = dict(table_of(dict(table), "search"))
            own[name] = _space(inner)
            if inner:
                raise UsageError(f"[{name}.search] takes a space alone; got {min(inner)}")
    found = []
    for base in cells(rest):
        fixed = flat(rest.get(base.algorithm, {})) if base.algorithm in rest else {}
        space = {k: v for k, v in common.items() if k not in fixed} | own.get(base.algorithm, {})
        found.append(Study(base, _axes(base, space), search))
    for study in found:
        _check(study)
    with _optuna():
        return found


def _space(table: dict[str, Any]) -> dict[str, Any]:
    return flat(table_of(table, "space"))


def _axes(base: Cell, space: Mapping[str, Any]) -> tuple[Axis, ...]:
    """The axes of a study, each checked against the settings of its algorithm."""
    if not space:
        raise UsageError(f"[search.space] has no setting to search for {base.name}")
    axes, known = [], declared_of(base)
    for name, given in space.items():
        if name in base.settings:
            other = "in a grid" if name in base.varied else "as a setting with one value"
            raise UsageError(f"{name} stands in [search.space] and {other}: leave one out")
        if name in _NOT_SEARCHED:
            raise UsageError(f"{name} cannot be searched: it is no setting of an algorithm")
        axes.append(Axis.read(name, given, kind_of(name, base.algorithm, base.environment, known)))
    return tuple(axes)


def _check(study: Study) -> None:
    """UsageError where ends of an axis make no sense, or there are fewer points than trials."""
    for axis in study.axes:
        for end in axis.ends():
            check_settings(study.base, {axis.name: end})
    if study.base.settings.get("final_episodes") == 0:
        raise UsageError("a search goes by the final evaluation: final_episodes must not be 0")
    size, search = points(study.axes), study.search
    sampled = (search.metric or "").startswith("eval_sampled/")
    if sampled and not class_of(study.base.algorithm).stochastic:
        who = study.base.algorithm
        raise UsageError(f"{who} samples no actions: metric of [search] must begin with eval/")
    if search.sampler == "grid" and size > MOST_TRIALS:
        open_ended = [axis.name for axis in study.axes if axis.count() > MOST_TRIALS]
        what = f"{', '.join(open_ended)} has" if open_ended else "the space has"
        raise UsageError(f"a grid needs few points, and {what} too many: give choices or a step")
    if search.trials is not None and search.trials > size:
        raise UsageError(
            f"the space of {study.base.name} has {int(size):,} points: lower trials of [search] "
            f"from {search.trials:,}"
        )


# Optuna -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _optuna() -> Iterator[ModuleType]:
    """The package, which says nothing meanwhile; UsageError where it is missing."""
    try:
        import optuna
        import optuna.importance
        import optuna.samplers
    except ImportError:
        raise UsageError(f"a search needs the extra search: {how_to_install('search')}") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _study(
    optuna: Any,
    axes: Sequence[Axis],
    told: Told,
    direction: str,
    sampler: Any = None,
) -> Any:
    """A study in memory that knows these trials: values by setting, and the metric."""
    state = optuna.trial.TrialState
    study = optuna.create_study(
        direction={"max": "maximize", "min": "minimize"}[direction], sampler=sampler
    )
    distributions = {axis.name: axis.distribution() for axis in axes}
    for values, value in told:
        kind = state.RUNNING if value is None else state.COMPLETE
        kind = state.FAIL if value is not None and not math.isfinite(value) else kind
        study.add_trial(
            optuna.trial.create_trial(
                state=kind,
                params={axis.name: axis.parameter(values[axis.name]) for axis in axes},
                distributions=distributions,
                value=value if kind == state.COMPLETE else None,
            )
        )
    return study


def importances(axes: Sequence[Axis], told: Told, direction: str) -> dict[str, float] | None:
    """The share of each setting in what makes a trial one of the best (PED-ANOVA, Watanabe et al.
    2023), the greatest first; None with fewer than ``FEW_TRIALS`` complete trials, or where all
    came to the same.

    Args:
        told: values by setting, and the metric, of each trial.
    """
    known = [(v, x) for v, x in told if x is not None and math.isfinite(x)]
    if len(known) < FEW_TRIALS or len({x for _, x in known}) < 2:
        return None
    with _optuna() as optuna:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        study = _study(optuna, axes, known, direction)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {str(name): float(share) for name, share in found.items()}


def value_of(run: Path, metric: str | None) -> float:
    """The mean over seeds of a metric in the final evaluation of a complete run.

    Raises:
        UsageError: there is none, and why.
    """
    which, name, summary = final(run, metric)
    if summary is None:
        raise UsageError(f"{run} has no final evaluation")
    if summary["mean"] is None:
        raise UsageError(f"a seed of {run} diverged: {name} of its {which} policies is no number")
    return float(summary["mean"])


# A sweep's searches -------------------------------------------------------------------------------


class Searches:
    """The studies of a sweep: which trial comes next, and what became of each."""

    def __init__(self, studies: Sequence[Study]):
        self.studies = studies

    def __bool__(self) -> bool:
        return bool(self.studies)

    @property
    def metric(self) -> str | None:
        """What trials are compared by; None for each run's own metric."""
        return self.studies[0].search.metric if self.studies else None

    @property
    def running(self) -> int:
        """How many trials were begun and have come to nothing yet."""
        return sum(trial.value is None for study in self.studies for trial in study.trials)

    @property
    def cells(self) -> list[Cell]:
        """All trials begun, by study."""
        return [trial.cell for study in self.studies for trial in study.trials]

    def restore(self, content: Mapping[str, Any], path: Path) -> None:
        """Takes the trials that ``sweep.json`` holds; ``tell`` says what became of them.

        Raises:
            UsageError: they are of another search.
        """
        now, before = self.as_json(), content.get("search") or {}
        if before.get("how") != now["how"]:
            names = [k for k in now["how"] if now["how"][k] != before.get("how", {}).get(k)]
            raise UsageError(
                f"{path} holds a search with another {' and '.join(names)}: choose another --out "
                "(nothing was changed)"
            )
        here = {study.base.name: study for study in self.studies}
        recorded = {each["name"]: each for each in before["studies"]}
        for name, each in recorded.items():
            if name not in here:
                raise UsageError(f"{path} holds trials of {name}, which the sweep lacks now: "
                                 "choose another --out (nothing was changed)")  # fmt: skip
            if encoded(each["space"]) != encoded(here[name].as_json()["space"]):
                raise UsageError(f"{path} holds a search of {name} in another space: choose "
                                 "another --out (nothing was changed)")  # fmt: skip
        for cell in content["cells"]:
            study = here[cell["study"]]
            study.trial(with_values(study.axes, cell["varied"]))

    def begin(self, count: int) -> list[Cell]:
        """Up to so many new trials, of the studies that have begun the fewest."""
        found = []
        for _ in range(count):
            study = min(self._unfinished(), key=lambda s: len(s.trials), default=None)
            if study is None or (cell := study.next()) is None:
                break
            found.append(cell)
        return found

    def _unfinished(self) -> list[Study]:
        return [s for s in self.studies if len(s.trials) < s.count]

    def tell(self, job: Job) -> None:
        """What has become of a trial, if it has ended; one without the metric has failed."""
        study = next((s for s in self.studies if s.base.name == job.cell.study), None)
        if study is None or job.status not in ("done", "failed"):
            return
        value = math.nan
        if job.status == "done":
            try:
                value = value_of(job.path, study.search.metric)
            except UsageError as error:
                job.status, job.problem = "failed", str(error)
        study.trials[job.cell.trial or 0].value = value

    def as_json(self) -> dict[str, Any]:
        """As ``sweep.json`` holds it, beside the trials among the cells."""
        how = {k: v for k, v in asdict(self.studies[0].search).items() if k != "trials"}
        return {"trials": sum(study.count for study in self.studies), "how": how,
                "studies": [study.as_json() for study in self.studies]}  # fmt: skip

    def found(self) -> list[dict[str, Any]]:
        """What the trials of each study came to so far (JSON-able): the best one, and the share of
        each setting in it (``importances``; None where too little is known)."""
        return [study.found() for study in self.studies]
