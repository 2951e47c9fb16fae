"""What a sweep will take, estimated before anything is trained or compiled."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from coterie.errors import UsageError
from coterie.module_paths import is_code
from coterie.presets import Chosen
from coterie.runs.api import make_devices
from coterie.runs.plan import make_plan
from coterie.settings import is_arithmetic
from coterie.storage.run_directory import RESULT, RunDirectory
from coterie.sweeps.cells import ENV, Cell, declared_of
from coterie.sweeps.search import Study

SECONDS = 20.0
"""So long shapes are worked out; a sweep of more kinds of cells is estimated from the first."""
USUAL_STEPS = 1_000_000
"""Default of ``coterie train --steps``."""
_OF_RUN = ("steps", "seeds", "seed", "reward", "central", "preset", "init")
_EVALUATIONS = ("evaluations", "evaluation_episodes", "final_episodes")


@dataclass(frozen=True)
class Estimate:
    """What the cells of a sweep that are not complete will take.

    Attributes:
        bytes: the largest state of a cell: networks, optimiser, replay, environments, all seeds.
            None where no cell is on a JAX environment.
        partial: not all cells that differ in shapes could be looked at.
        seconds: the work of one process; None where no such run is complete yet, or can be
            trained.
        unknown: algorithm and environment of those that can be trained and of which none is
            complete.
        problems: sentences on cells that cannot be trained.
        complete: names of the complete runs in the sweep's directory.
    """

    bytes: int | None
    partial: bool
    seconds: float | None
    unknown: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    complete: tuple[str, ...]


def estimate(found: Sequence[Cell], studies: Sequence[Study], path: Path) -> Estimate:
    """What a sweep in ``path`` will take, from the shapes of its states and from the runs of the
    same algorithm and environment that the directory holds."""
    wanted = [c for study in studies for c in _corners(study)] if studies else found
    states = states_of(wanted)
    known, complete = _seconds_by_step(path)
    done = set(complete)
    counts = [(cell, int(cell.name not in done)) for cell in found]
    for study in studies:
        trials = sum(name.startswith(f"{study.base.name}-trial-") for name in done)
        counts.append((study.base, max(study.count - trials, 0)))
    left: dict[tuple[str, str], int] = {}
    for cell, count in counts:
        pair = (cell.algorithm, cell.environment)
        if pair not in states.hopeless:
            left[pair] = left.get(pair, 0) + count * _steps(cell)
    unknown = tuple(pair for pair, steps in left.items() if steps and pair not in known)
    seconds = None
    if left and not unknown:
        seconds = float(sum(known[pair] * steps for pair, steps in left.items() if steps))
    problems = tuple(dict.fromkeys(itertools.chain.from_iterable(states.problems.values())))
    return Estimate(states.bytes, states.partial, seconds, unknown, problems, complete)


@dataclass
class States:
    """The states of cells, as far as they were looked at.

    Attributes:
        sizes: bytes of the largest one by algorithm and environment.
        problems: sentences on those that cannot be trained, likewise.
        partial: there were more cells than time.
    """

    sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    partial: bool = False

    @property
    def bytes(self) -> int | None:
        return max(self.sizes.values(), default=None)

    @property
    def hopeless(self) -> set[tuple[str, str]]:
        """Algorithms and environments of which no cell can be trained."""
        return self.problems.keys() - self.sizes.keys()


def states_of(wanted: Iterable[Cell]) -> States:
    """The states of cells on JAX environments, of one of each kind, for ``SECONDS`` at most."""
    begun, found, seen = time.monotonic(), States(), set[str]()
    for cell in wanted:
        if time.monotonic() - begun > SECONDS:
            found.partial = True
            break
        if is_code(cell.environment) or (kind := _kind(cell)) in seen:
            continue
        seen.add(kind)
        game = cell.algorithm, cell.environment
        try:
            found.sizes[game] = max(_state_bytes(cell), found.sizes.get(game, 0))
        except UsageError as error:
            found.problems.setdefault(game, []).append(f"{cell.name}: {error}")
    return found


def _kind(cell: Cell) -> str:
    """Equal for cells whose states have the same shapes: those that differ in numbers that
    compiled programs only compute with."""
    declared = declared_of(cell)
    rest = {k: v for k, v in cell.settings.items() if not is_arithmetic(declared.get(k))}
    return repr((cell.algorithm, cell.environment, rest))


def _state_bytes(cell: Cell) -> int:
    """Memory of the state of a run on a JAX environment; nothing is allocated or compiled."""
    given = {k: v for k, v in cell.settings.items() if not k.startswith(ENV)}
    options = {k[len(ENV) :]: v for k, v in cell.settings.items() if k.startswith(ENV)}
    run = {name: given.pop(name, None) for name in _OF_RUN}
    asked = {name: given.pop(name, None) for name in _EVALUATIONS}
    algorithm: Any = cell.algorithm
    if is_code(cell.algorithm):
        from coterie.runs.user_code import imported_algorithm

        algorithm = imported_algorithm(cell.algorithm)
    plan = make_plan(
        Chosen(algorithm, run["preset"], given), cell.environment, _steps(cell),
        run["seeds"] or 1, run["seed"] or 0, run["reward"], run["central"], options or None, None,
        asked, None,
    )  # fmt: skip
    with make_devices(plan.algorithm, plan.game, plan.config, lambda *_: None) as devices:
        return devices.bytes()


def _steps(cell: Cell) -> int:
    return int(cell.settings.get("steps", USUAL_STEPS))


def _corners(study: Study) -> Iterator[Cell]:
    """Cells at the ends of a search's space, the upper ones first; numbers that decide no shape
    stay where they begin."""
    declared = declared_of(study.base)
    ends = [axis.ends()[:1] if is_arithmetic(declared.get(axis.name)) else axis.ends()[::-1]
            for axis in study.axes]  # fmt: skip
    for values in itertools.product(*ends):
        settings = dict(zip((axis.name for axis in study.axes), values, strict=True))
        yield replace(study.base, settings=study.base.settings | settings)


def _seconds_by_step(path: Path) -> tuple[Mapping[tuple[str, str], float], tuple[str, ...]]:
    """The median time of an environment step by algorithm and environment, of runs trained without
    interruption, from the times of their first and last files; and names of complete runs."""
    rates: dict[tuple[str, str], list[float]] = {}
    complete: list[str] = []
    for run in sorted(path.glob("cells/*")):
        directory = RunDirectory(run)
        try:
            if not directory.holds_a_run() or not directory.is_finished(c := directory.config()):
                continue
        except UsageError:
            continue
        asked = int(c.get("asked_steps", c["steps"]))
        complete.append(run.name)
        last = run / RESULT
        if len(c.get("sessions", ())) == 1 and last.exists():
            took = last.stat().st_mtime - (run / "config.json").stat().st_mtime
            pair = (c["algorithm"], c["environment"])
            rates.setdefault(pair, []).append(took / max(asked, 1))
    return {pair: median(each) for pair, each in rates.items()}, tuple(complete)
