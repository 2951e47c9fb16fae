"""Sections on sweeps: the best settings, what each setting does, how algorithms compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coterie.errors import UsageError
from coterie.show.curves import Curve, Scale
from coterie.show.metrics import bounds, in_words
from coterie.show.numbers import interval, plural
from coterie.show.report.blocks import Block, Cell, Curves, Section, Table, Text
from coterie.show.report.html import quoted
from coterie.show.sensitivity import (
    best_results,
    best_so_far,
    normalised,
    plain_curve,
    sensitivity,
    varied,
)
from coterie.statistics import (
    mean_interval,
    performance_profile,
    probability_of_improvement,
)
from coterie.sweeps.cells import ENV, word
from coterie.sweeps.directory import SWEEP, read_cells
from coterie.sweeps.results import (
    Result,
    StudyResult,
    complete_cells,
    direction_of,
    results_of,
    studies_in,
)

BEST = "Large dots: the best trial so far; small ones: each trial, a mean over its seeds."
THRESHOLDS = np.linspace(0, 1, 100, endpoint=False)


def sweep_section(path: Path, metric: str | None) -> tuple[Section | None, set[Path]]:
    """The section of a sweep, None where no cell is complete; and the runs that are best, one for
    each algorithm and environment."""
    if not (path / SWEEP).is_file():
        return None, set()
    try:
        results = results_of(path, metric)
    except UsageError:  # a metric of training alone
        results, metric = results_of(path), None
    complete, total = len(complete_cells(path)), len(read_cells(path))
    if not results:
        return None, set()
    direction = direction_of(path, metric)
    best = best_results(results, direction)
    blocks: list[Block] = [_best_table(results, best, direction)]
    blocks += _searches(studies_in(path, results), results)
    for name in varied(results):
        blocks += _sensitivity(results, name)
    scores = normalised(best, results, direction)
    if len(scores) > 1:
        blocks += [_profile(scores), _improvement(scores)]
    summary = f"{complete:,} of {plural(total, 'cell')} are complete."
    if complete > len(results):
        summary += (
            f" {complete - len(results):,} of them are left out here, because a seed diverged or "
            "there is no such metric."
        )
    name = quoted(path.resolve().name)
    return Section(f"Sweep {name}", blocks, summary=summary), {r.run for r, _ in best.values()}


def _words(results: Sequence[Result], place: str | None = None) -> str:
    """What is measured, on one task or environment, or everywhere."""
    found = {r.metric for r in results if place in (None, r.task, r.environment)}
    if place is None and len({metric.partition("/")[2] for metric in found}) > 1:
        return "the return by which an environment's runs are reported"
    return in_words(sorted(found))


def _figures(
    word: str,
    panels: Mapping[str, list[Curve]],
    results: Sequence[Result],
    scale: Scale,
    caption: str,
) -> list[Block]:
    """A figure for all panels that measure the same; the caption stands below the last."""
    by_words: dict[str, dict[str, list[Curve]]] = {}
    for place, lines in panels.items():
        by_words.setdefault(_words(results, place), {})[f"{word} · {place}"] = lines
    last = list(by_words)[-1:]
    return [
        Curves(each, words, caption=caption if [words] == last else "", scale=scale)
        for words, each in by_words.items()
    ]


def _best_table(results: Sequence[Result], best: dict, direction: str) -> Table:
    names = [name for name in varied(results) if not name.startswith(ENV)]
    several = len({r.task for r in results}) > 1
    rows: list[list[Cell]] = []
    order = list(dict.fromkeys(r.task for r in results))
    for (task, algorithm), (result, count) in sorted(
        best.items(), key=lambda each: order.index(each[0][0])
    ):
        limits = bounds(result.config, result.metric)
        mean, *ends = (float(x) for x in mean_interval(result.values).within(limits))
        shown = None if math.isnan(ends[0]) else interval(ends)
        settings: list[Cell] = [
            quoted(word(result.varied[name])) if name in result.varied else None for name in names
        ]
        rows.append([*[quoted(task)] * several, quoted(algorithm), mean, shown, *settings,
                     len(result.values), count])  # fmt: skip
    headers = (*["environment"] * several, "algorithm", "mean", "95% interval",
               *map(quoted, names), "seeds", "tried")  # fmt: skip
    kind = "highest" if direction == "max" else "lowest"
    caption = (
        f"The setting with the {kind} mean of each algorithm: {_words(results)}, in the final "
        "evaluation. It was chosen by the numbers that are shown, so it looks better than it is: "
        "the more so the more settings were tried (last column). New seeds say how good it is."
    )
    return Table(headers, rows, caption)


def _sensitivity(results: Sequence[Result], name: str) -> list[Block]:
    scale, panels = sensitivity(results, name)
    others = [other for other in varied(results) if other != name]
    if any(r.trial is not None for r in results):
        caption = f"**{quoted(name)}**. Dots: trials, each a mean over its seeds."
        if others:
            caption += f" They differ in {quoted(', '.join(others))}, too."
        return _figures(name, panels, results, scale, caption)
    caption = f"**{quoted(name)}**. Small dots: seeds"
    if others:
        caption += f", each averaged over the values of {quoted(', '.join(others))}"
    caption += "; large ones: their mean; bars: its 95% t interval."
    return _figures(name, panels, results, scale, caption)


def _searches(studies: Sequence[StudyResult], results: Sequence[Result]) -> list[Block]:
    """The best value by trial, and which settings matter."""
    if not studies:
        return []
    scale, panels = best_so_far(studies)
    blocks = _figures("search", panels, results, scale, BEST)
    rows: list[list[Cell]] = []
    try:
        for study in studies:
            for name, share in (study.importances() or {}).items():
                rows.append([quoted(study.name), quoted(name), share])
    except UsageError as error:  # Optuna is not installed here
        return [*blocks, Text(f"Which settings matter is not shown: {quoted(str(error))}.")]
    if not rows:
        return [*blocks, Text("Too few trials are complete to say which settings matter.")]
    caption = (
        "How much each setting decides whether a trial is among the best tenth (PED-ANOVA, "
        "Watanabe et al. 2023): shares of a sum of 1. With few trials they are rough."
    )
    return [*blocks, Table(("search", "setting", "importance"), rows, caption)]


def _profile(scores: dict[str, np.ndarray]) -> Curves:
    lines = [
        plain_curve(algorithm, THRESHOLDS, performance_profile(own, THRESHOLDS))
        for algorithm, own in scores.items()
    ]
    caption = (
        "Performance profiles of the best settings (Agarwal et al. 2021), averaged over "
        f"{plural(next(iter(scores.values())).shape[1], 'environment')}; higher is better, and "
        "bands are 95% intervals at each score by itself. A score of 0 is the worst seed of all "
        "settings of this sweep on an environment, and 1 the best one, because returns of "
        "different environments have no common scale: it compares within this sweep only."
    )
    scale = Scale("normalised score", dots=False, seeds=False)
    panels = {"Performance profiles": lines}
    return Curves(panels, "share of runs that score more", caption=caption, scale=scale)


def _improvement(scores: dict[str, np.ndarray]) -> Table:
    rows: list[list[Cell]] = []
    for a, b in itertools.combinations(scores, 2):
        p, low, high = (float(x) for x in probability_of_improvement(scores[a], scores[b]))
        shown = None if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        rows.append([quoted(a), quoted(b), p, shown])
    caption = (
        "Probability of improvement: that a run of A with its best setting scores more than one "
        "of B with its own, averaged over environments; 0.5 where neither is better."
    )
    return Table(("A", "B", "P(A > B)", "95% interval"), rows, caption)
