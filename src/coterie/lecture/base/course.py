"""Runs the lecture: one experiment after the other, each saved as soon as it is done."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from coterie import __version__
from coterie.algorithms import make
from coterie.errors import UsageError
from coterie.lecture import experiments
from coterie.lecture.base.experiment import (
    Check,
    Diverged,
    Experiment,
    Numbers,
    Outcome,
    Recipe,
    Scale,
    check_finite,
)
from coterie.runs.api import open_run
from coterie.runs.loop import Report
from coterie.runs.run import Run
from coterie.show.curves import series
from coterie.show.report.blocks import Command, Section, Table, Text
from coterie.show.report.page import write_report
from coterie.storage.files import only_writer, read_sealed, seal, warn
from coterie.storage.run_directory import RunDirectory
from coterie.text import did_you_mean

Tell = Callable[[str, dict[str, Any]], None]
"""Called with every experiment and training that begins or ends, for a display."""


def give(
    names: Sequence[str],
    out: Path,
    scale: Scale = Scale(),  # noqa: B008
    tell: Tell = lambda event, facts: None,
    report: Report | None = None,
) -> list[Outcome]:
    """Runs experiments, or takes them over from ``out`` where they are done already.

    Args:
        names: of experiments; all of them where there are none.
        out: holds ``runs/``, ``items/NAME.json`` and ``report.html``.
        report: where the trainings report to.

    Raises:
        UsageError: no such experiment, or ``out`` holds something else, or one of these
            experiments at another scale.
    """
    chosen = [_find(name) for name in names] or list(experiments().values())
    _check_place(out)
    for experiment in chosen:
        _check_scale(experiment, out, scale)
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        return _give_all(chosen, out, scale, tell, report)


def _give_all(
    chosen: list[Experiment], out: Path, scale: Scale, tell: Tell, report: Report | None
) -> list[Outcome]:
    kept = {experiment.name: _kept(experiment, out, scale) for experiment in chosen}
    ahead = [experiment for experiment in chosen if kept[experiment.name] is None]
    tell(
        "begin",
        {
            "items": len(ahead),
            "minutes": sum((each.expected(scale) for each in ahead), 0.0),
        },
    )
    outcomes: list[Outcome] = []
    for experiment in chosen:
        tell("item", {"item": experiment, "of": len(chosen)})
        outcome = kept[experiment.name]
        if outcome is None:
            outcome = _run(experiment, out, scale, tell, report or (lambda event, facts: None))
            RunDirectory(out).write_json(f"items/{experiment.name}.json", seal(outcome.to_dict()))
        write(out)  # at once: what is done is shown, also where the lecture is cut off
        tell("outcome", {"outcome": outcome})
        outcomes.append(outcome)
    return outcomes


def _find(name: str) -> Experiment:
    if name in experiments():
        return experiments()[name]
    hint = did_you_mean(name, experiments(), f"; it has {', '.join(experiments())}", cutoff=0.4)
    raise UsageError(f"the lecture has no experiment {name!r}{hint}")


def _check_place(out: Path) -> None:
    """UsageError where ``out`` is in use for something other than a lecture."""
    if out.is_file():
        raise UsageError(f"{out} is a file; choose another --out")
    if out.is_dir():
        names = {p.name for p in out.iterdir() if not p.name.startswith(".")}
        strange = names - {"runs", "items", "report.html"}
        if strange:
            raise UsageError(f"{out} holds something else ({min(strange)}); choose another --out")


def _check_scale(experiment: Experiment, out: Path, scale: Scale) -> None:
    """UsageError where an outcome of another scale would have to make room."""
    outcome = _read(out, experiment)
    if outcome is not None and outcome.scale != dataclasses.asdict(scale):
        how = f"with {given}" if (given := str(Scale(**outcome.scale))) else "at its full size"
        raise UsageError(
            f"{out} holds {experiment.name} as it was run {how}: choose another --out (nothing was "
            "overwritten)"
        )


def _run(experiment: Experiment, out: Path, scale: Scale, tell: Tell, report: Report) -> Outcome:
    begun = time.perf_counter()
    recipes = _recipes(experiment, scale)
    trained: dict[str, Run] = {}
    try:
        for key, recipe in recipes.items():
            tell("training", {"command": recipe.command(out / "runs" / recipe.name)})
            trained[key] = recipe.train(out / "runs", report)
            check_finite(trained[key])
        numbers = _plain(experiment, experiment.measure(trained, scale))
        checks = experiment.checks(numbers)
    except Diverged as error:
        numbers, checks = {}, [Check("Every training stays finite", "", str(error), False)]
    trainings = {key: _facts(recipes[key], out) for key in trained}
    return Outcome(
        item=experiment.name,
        title=experiment.title,
        source=experiment.source,
        quick=scale.quick,
        scale=dataclasses.asdict(scale),
        numbers=numbers,
        checks=[dataclasses.asdict(check) for check in checks],
        trainings=trainings,
        seconds=time.perf_counter() - begun,
        fingerprint=_fingerprint(experiment, scale),
    )


def _plain(experiment: Experiment, measured: Numbers) -> Numbers:
    """The numbers as they are read back from their file."""
    try:
        return json.loads(json.dumps(measured, allow_nan=False))
    except ValueError:
        raise Diverged(f"{experiment.name}: a number that was measured is not finite") from None


def _recipes(experiment: Experiment, scale: Scale) -> dict[str, Recipe]:
    given = {k: r for k, r in experiment.recipes().items() if not (scale.quick and r.only_full)}
    return {key: recipe.at(scale) for key, recipe in given.items()}


def _facts(recipe: Recipe, out: Path) -> dict[str, Any]:
    return {
        "command": recipe.command(out / "runs" / recipe.name),
        "run": f"runs/{recipe.name}",
        "steps": recipe.steps,
        "seeds": recipe.seeds,
        "seconds": _seconds(out / "runs" / recipe.name),
    }


def _seconds(path: Path) -> float:
    """What a run took, as its log says."""
    return max(x for seed in series(path, "seconds").values() for x in seed.values())


def _fingerprint(experiment: Experiment, scale: Scale) -> str:
    """What an outcome depends on: version, scale, the experiment's code, settings of trainings."""
    recipes = {
        key: [dataclasses.asdict(recipe), make(recipe.algorithm, **recipe.settings).settings()]
        for key, recipe in _recipes(experiment, scale).items()
    }
    code = inspect.getsource(sys.modules[type(experiment).__module__])
    content = [__version__, code, dataclasses.asdict(scale), recipes]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _kept(experiment: Experiment, out: Path, scale: Scale) -> Outcome | None:
    """The outcome of an experiment that was run already, at the same scale."""
    outcome = _read(out, experiment)
    return outcome if outcome is not None and outcome.scale == dataclasses.asdict(scale) else None


def _read(out: Path, experiment: Experiment) -> Outcome | None:
    """What ``out`` holds of it; None where that is damaged, of other code, or a run is gone."""
    path = out / "items" / f"{experiment.name}.json"
    if not os.path.lexists(path):
        return None
    try:
        outcome = Outcome.from_dict(read_sealed(path))
        if outcome.fingerprint != _fingerprint(experiment, Scale(**outcome.scale)):
            return None
    except UsageError as error:
        warn(f"{error}; the experiment {experiment.name} runs again")
        return None
    except (ValueError, LookupError, TypeError, AttributeError):
        warn(f"{path} is not of the format; the experiment {experiment.name} runs again")
        return None
    there = all(RunDirectory(out / t["run"]).holds_a_run() for t in outcome.trainings.values())
    return outcome if there else None


# The report ------------------------------------------------------------------------------------


def write(out: Path) -> Path:
    """``report.html``, of every experiment that ``out`` holds an outcome of."""
    read = [(experiment, _read(out, experiment)) for experiment in experiments().values()]
    given = [(experiment, outcome) for experiment, outcome in read if outcome is not None]
    sections = [_overview([outcome for _, outcome in given])]
    sections += [_section(experiment, outcome, out) for experiment, outcome in given]
    quick = any(outcome.quick for _, outcome in given)
    subtitle = (
        "The figures and tables of the lecture Multi-Agent Deep Reinforcement Learning, Part 1 "
        "(Albrecht, Christianos, Schäfer), run again and compared with its claims."
    ) + (" Experiments marked quick were run with fewer seeds and steps." if quick else "")
    facts = {"coterie": __version__}
    return write_report(out / "report.html", "The lecture, run again", sections, subtitle, facts)


CLAIM = ("claim", "published", "measured")


def _set(text: str) -> str:
    """A sentence with true minus signs."""
    return re.sub(r"(?<![\w.)-])-(?=\d)", "\N{MINUS SIGN}", text)


def _overview(outcomes: Iterable[Outcome]) -> Section:
    rows: list[list[Any]] = []
    for outcome in outcomes:
        claims = [bool(check["passed"]) for check in outcome.checks]
        seeds = max((t["seeds"] for t in outcome.trainings.values()), default=None)
        verdict = "passed" if outcome.passed else "failed"
        title = outcome.title + " (quick)" * outcome.quick
        minutes = round(outcome.seconds / 60, 1)
        rows.append([title, verdict, f"{sum(claims)} of {len(claims)}", seeds, minutes])
    headers = ["experiment", "verdict", "claims supported", "seeds", "minutes"]
    return Section("Overview", [Table(headers, rows)])


def _section(experiment: Experiment, outcome: Outcome, out: Path) -> Section:
    trained = {key: open_run(out / t["run"]) for key, t in outcome.trainings.items()}
    claims = [
        ["✓ yes" if c["passed"] else "✗ no", *(_set(c[k]) for k in CLAIM)] for c in outcome.checks
    ]
    blocks: list[Any] = [Text(experiment.about)]
    blocks += (
        experiment.blocks(outcome.numbers, trained) if outcome.numbers else []
    )  # none: diverged
    blocks.append(Table(["supported", "claim", "published", "measured here"], claims))
    for training in outcome.trainings.values():
        took = f"{training['seeds']} seeds, {training['steps']:,} steps each, "
        caption = took + f"{training['seconds']:.0f} s"
        blocks.append(Command(training["command"], caption))
    return Section(
        outcome.title + " (quick)" * outcome.quick,
        blocks,
        verdict="passed" if outcome.passed else "failed",
        summary=outcome.source,
    )
