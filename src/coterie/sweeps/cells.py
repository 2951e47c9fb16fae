"""What a sweep is made of: algorithms x environments x settings, from a TOML file."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.algorithms import find, names
from coterie.errors import UsageError
from coterie.flags import arguments
from coterie.jax_envs import options_class
from coterie.learners.contract import Algorithm
from coterie.module_paths import is_code
from coterie.python_envs.settings import PythonEnvSettings
from coterie.runs.user_code import imported_algorithm
from coterie.settings import RUN, EnvironmentName, Name, fitted, hints, shown
from coterie.text import did_you_mean, file_name, setting_meant

MOST = 10_000
"""Cells of a sweep."""
ENV = "env."
"""Before the name of an environment's option, as in flags."""
_OF_RUNS: dict[str, Any] = {
    **RUN,
    "preset": Name,
    "reward": Literal["individual", "sum", "mean"],
    "central": Literal["auto", "state", "joint"],
    "init": EnvironmentName,
}


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, with all its seeds.

    Attributes:
        name: of its directory and its log.
        varied: settings of the grids, by which the cells of an algorithm differ.
        settings: all that the sweep sets, ``varied`` included; options of environments begin with
            ``env.``.
        study, trial: of a search, which one, and the number of the trial, from 0.
    """

    name: str
    algorithm: str
    environment: str
    varied: dict[str, Any]
    settings: dict[str, Any]
    study: str = ""
    trial: int | None = None

    def command(self, path: Path) -> list[str]:
        """The words after ``coterie`` that begin the run, or go on with it."""
        plain = {k: v for k, v in self.settings.items() if not k.startswith(ENV)}
        options = {k: v for k, v in self.settings.items() if k.startswith(ENV)}
        if options and _options_of(self.environment) is None:
            words = [f"--{name}={value!r}" for name, value in options.items()]
        else:
            words = arguments(options)
        return ["train", self.algorithm, self.environment, *arguments(plain), *words,
                "--out", str(path), "--resume"]  # fmt: skip


def label(algorithm: str, varied: Mapping[str, Any]) -> str:
    """What a cell is called in legends and tables."""
    return " · ".join([algorithm, *(f"{name} {word(value)}" for name, value in varied.items())])


def read(file: Path) -> dict[str, Any]:
    """The tables of a TOML file; UsageError where it is none."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no TOML file: {' '.join(str(error).split())}") from None


def cells(tables: Mapping[str, Any]) -> list[Cell]:
    """The cells of a sweep, checked as far as no environment has to be opened.

    Args:
        tables: as the TOML file has them (docs/sweeps.md).

    Raises:
        UsageError: an unknown key, naming the nearest, or a value that makes no sense.
    """
    rest = dict(tables)
    algorithms = _list(rest, "algorithms")
    environments = _list(rest, "environments")
    for name, table in rest.items():
        _check_table(name, table, algorithms)
    own = {name: table_of(rest, name) for name in algorithms if name in rest}
    common_axes = _axes(table_of(rest, "grid"))
    common = flat(rest)
    if both := common.keys() & common_axes.keys():
        raise UsageError(f"{min(both)} stands at the top and in [grid]: leave one out")
    kinds = {name: class_of(name) for name in algorithms}
    found: dict[str, Cell] = {}
    for algorithm, environment in itertools.product(algorithms, environments):
        table = dict(own.get(algorithm, {}))
        axes = _axes(table_of(table, "grid"), f"{algorithm}.grid")
        fixed = flat(table)
        if both := fixed.keys() & axes.keys():
            raise UsageError(f"{min(both)} stands in [{algorithm}] and in its grid: leave one out")
        axes = {k: v for k, v in common_axes.items() if k not in fixed} | axes
        settings = {k: v for k, v in (common | fixed).items() if k not in axes}
        declared = _declared(kinds[algorithm], environment)
        for values in itertools.product(*axes.values()):
            varied = dict(zip(axes, values, strict=True))
            cell = _cell(kinds[algorithm], algorithm, environment, varied, settings, declared)
            if cell.name in found:
                raise UsageError(f"two cells of the sweep are the same: {cell.name}")
            found[cell.name] = cell
            if len(found) > MOST:
                raise UsageError(f"the sweep has more than {MOST:,} cells")
    return list(found.values())


def _list(tables: dict[str, Any], key: str) -> list[str]:
    if key not in tables:
        for other in tables:
            if hint := did_you_mean(other, [key]):
                raise UsageError(f"a sweep has no key {other!r}{hint}")
        raise UsageError(f"a sweep needs {key}, a list of names")
    found = tables.pop(key)
    found = [found] if isinstance(found, str) else found
    good = isinstance(found, list | tuple) and all(isinstance(n, str) and n for n in found)
    if not good or not found:
        raise UsageError(f"a sweep needs {key}, a list of names; got {shown(found)}")
    if len(set(found)) < len(found):
        raise UsageError(f"{key} has a name twice: {', '.join(found)}")
    return list(found)


def _check_table(name: str, table: Any, algorithms: Sequence[str]) -> None:
    """UsageError where a table is of an algorithm that the sweep lacks, or of a search that it
    has not."""
    if not isinstance(table, Mapping):
        return
    if name not in algorithms and (name in names() or is_code(name)):
        raise UsageError(f"the sweep has a table [{name}], and {name} is not among its algorithms")
    if name in algorithms and "search" in table:
        raise UsageError(f"[{name}.search] needs a table [search], which says how to search")


def table_of(tables: dict[str, Any], key: str) -> Mapping[str, Any]:
    table = tables.pop(key, {})
    if not isinstance(table, Mapping):
        raise UsageError(f"{key} must be a table of settings; got {shown(table)}")
    return table


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name; those of the table ``env`` with that prefix."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        inner = value if name == "env" and isinstance(value, Mapping) else None
        flat |= {f"{ENV}{k}": v for k, v in inner.items()} if inner is not None else {name: value}
    return {name.replace("-", "_"): value for name, value in flat.items()}


def _axes(table: Mapping[str, Any], name: str = "grid") -> dict[str, list[Any]]:
    axes = flat(table)
    for key, values in axes.items():
        if not isinstance(values, list | tuple) or not values:
            raise UsageError(f"{key} in [{name}] must be a list of values; got {shown(values)}")
        if any(value in values[:k] for k, value in enumerate(values)):
            raise UsageError(f"{key} in [{name}] has a value twice: {shown(values)}")
    return {key: list(values) for key, values in axes.items()}


def _options_of(environment: str) -> Any:
    """The dataclass of an environment's options; None where only what makes it knows them."""
    return None if is_code(environment) else options_class(environment)


def class_of(algorithm: str) -> type[Algorithm]:
    """The algorithm's class; UsageError where there is none."""
    return imported_algorithm(algorithm) if is_code(algorithm) else find(algorithm)


def declared_of(cell: Cell) -> dict[str, Any]:
    """What a cell can be told, by name, with its kind; some environments have further options."""
    return _declared(class_of(cell.algorithm), cell.environment)


def _declared(kind: type[Algorithm], environment: str) -> dict[str, Any]:
    """What a cell can be told, by name, with its kind."""
    options = _options_of(environment)
    return (
        hints(kind)
        | (hints(PythonEnvSettings) if is_code(environment) else {})
        | ({f"{ENV}{k}": hint for k, hint in hints(options).items()} if options else {})
        | _OF_RUNS
    )


def _cell(
    kind: type[Algorithm],
    algorithm: str,
    environment: str,
    varied: Mapping[str, Any],
    fixed: Mapping[str, Any],
    declared: Mapping[str, Any],
) -> Cell:
    fit: dict[str, Any] = {}
    for name, value in {**fixed, **varied}.items():
        hint = kind_of(name, algorithm, environment, declared)
        fit[name] = value if hint is None else _fitted(name, value, hint, name in varied)
    _check(kind, fit)
    words = [algorithm, environment, *(f"{k}-{word(fit[k])}" for k in varied)]
    own = {name: fit[name] for name in varied}
    return Cell(file_name("-".join(words)), algorithm, environment, own, fit)


def kind_of(name: str, algorithm: str, environment: str, declared: Mapping[str, Any]) -> Any:
    """The declared kind of a setting; None of an environment's option whose kind only the
    environment knows; UsageError where there is no such setting."""
    if name in declared:
        return declared[name]
    if name.startswith(ENV) and _options_of(environment) is None:
        return None
    known = [*declared, "algorithms", "environments", "grid", "search", algorithm]
    listed = f" (coterie train {algorithm} {environment} --help lists them)"
    hint = setting_meant(name, known) or listed
    raise UsageError(f"{algorithm} on {environment} has no setting {name!r}{hint}")


def _fitted(name: str, value: Any, hint: Any, in_grid: bool) -> Any:
    """A setting's value as one of its kind; UsageError, which knows what a grid is."""
    try:
        return fitted(f"each value of {name} in a grid" if in_grid else name, value, hint, True)
    except UsageError as error:
        if in_grid or not isinstance(value, list | tuple) or not value:
            raise
        wrong = error
    with contextlib.suppress(UsageError):
        for each in value:
            fitted(name, each, hint)
        wrong = UsageError(f"{wrong}; values to compare belong in the table [grid]")
    raise wrong


def check_settings(cell: Cell, more: Mapping[str, Any]) -> None:
    """UsageError where the settings of a cell make no sense together with ``more``."""
    _check(class_of(cell.algorithm), cell.settings | dict(more))


def _check(kind: type[Algorithm], settings: Mapping[str, Any]) -> None:
    if "preset" not in settings:  # with one, what contradicts what is not known yet
        of_kind = {field.name for field in dataclasses.fields(kind)}
        kind(**{name: value for name, value in settings.items() if name in of_kind})


def word(value: Any) -> str:
    """A value as names and labels have it: 0.001, 64x64, true."""
    if isinstance(value, list | tuple):
        return "x".join(map(word, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def axes_of(found: Sequence[Cell]) -> list[str]:
    """All that is varied in a sweep, each once."""
    return list(dict.fromkeys(name for cell in found for name in cell.varied))
