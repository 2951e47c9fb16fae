"""What a sweep says of its settings: the metric at the end against the values of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.show.curves import Curve, Scale, check_picture, draw, save
from coterie.show.metrics import bounds, in_words
from coterie.statistics import Bounds, Interval, mean_interval
from coterie.sweeps.cells import ENV, word
from coterie.sweeps.directory import SWEEP
from coterie.sweeps.results import Result, StudyResult, results_of
from coterie.text import did_you_mean

SPAN = 20
"""Positive values that differ by this factor stand on a logarithmic axis."""


def varied(results: Iterable[Result]) -> dict[str, list[Any]]:
    """The settings that differ between cells of one algorithm and environment, with their values:
    numbers in order, others as they come."""
    results = list(results)
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for result in results for name in result.varied):
        values = [result.varied[name] for result in results if name in result.varied]
        distinct = [v for k, v in enumerate(values) if not _in(v, values[:k])]
        if len(distinct) > 1:
            found[name] = sorted(distinct) if all(map(_is_number, distinct)) else distinct
    return found


def scale_of(name: str, values: Sequence[Any], joined: bool = True) -> Scale:
    """The axis on which the values of a setting lie."""
    if not all(map(_is_number, values)):
        return Scale(name, "names", tuple(map(word, values)), joined=False)
    wide = min(values) > 0 and max(values) >= SPAN * min(values)
    return Scale(name, "log" if wide else "linear", joined=joined)


def sensitivity(results: Sequence[Result], name: str) -> tuple[Scale, dict[str, list[Curve]]]:
    """A metric against the values of a setting: a curve for each algorithm, by task.

    Where other settings of a grid vary, too, each seed is averaged over the cells that share the
    value, of those combinations of the others that are complete at every value; so seeds stay the
    independent repetitions that an interval needs, and points differ in the setting alone. Trials
    of a search differ in all settings: each is a point of its own, the mean over its seeds.

    Raises:
        UsageError: the setting does not vary in complete cells, naming the nearest that does.
    """
    known = varied(results)
    if name not in known:
        hint = did_you_mean(name, known, f"; {', '.join(known) or 'nothing'} does")
        raise UsageError(f"{name} does not vary between complete cells of the sweep{hint}")
    values = known[name]
    searched = any(result.trial is not None for result in results)
    scale = replace(scale_of(name, values, joined=not searched), seeds=not searched)
    panels: dict[str, list[Curve]] = {}
    for place, algorithm in dict.fromkeys((_place(r, name), r.algorithm) for r in results):
        own = [r for r in results if (_place(r, name), r.algorithm) == (place, algorithm)]
        if searched:
            tried = sorted(
                (float(_index(r.varied[name], values) if scale.kind == "names" else r.varied[name]),
                 r.mean) for r in own if name in r.varied
            )  # fmt: skip
            if tried:
                panels.setdefault(place, []).append(plain_curve(algorithm, *np.array(tried).T))
            continue
        own = _balanced(own, name)
        columns: dict[float, np.ndarray] = {}
        for k, value in enumerate(values):
            same = [r.values for r in own if name in r.varied and _in(r.varied[name], [value])]
            if same:
                at = float(k if scale.kind == "names" else value)
                columns[at] = np.mean([v[: min(map(len, same))] for v in same], axis=0)
        if columns:
            panels.setdefault(place, []).append(_curve(algorithm, columns, _limits(own)))
    return scale, panels


def plot_over(sweep: Path, name: str, out: Path, metric: str | None = None) -> Path:
    """Draws the metric of the final evaluation against a setting that a sweep varies.

    Args:
        sweep: its directory.
        name: the setting; an option of the environment begins with ``env.``.
        out: the picture, .png, .pdf or .svg; replaced where it exists.
        metric: of the final evaluation; that of the search, or each run's own, unless given.

    Raises:
        UsageError: nothing to draw, and why.
    """
    check_picture(out)
    if not (sweep / SWEEP).is_file():
        raise UsageError(f"{sweep} is no sweep: a setting varies in sweeps alone")
    results = results_of(sweep, metric)
    if not results:
        raise UsageError(f"no run of the sweep {sweep} is complete yet")
    scale, panels = sensitivity(results, name.replace("-", "_"))
    words = {
        place: in_words(r.metric for r in results if place in (r.task, r.environment))
        for place in panels
    }
    return save(draw(panels, words, scale=scale), out)


def best_so_far(studies: Sequence[StudyResult]) -> tuple[Scale, dict[str, list[Curve]]]:
    """The best value of the trials up to each, a curve for each study, by environment; its samples
    are the trials' own values."""
    panels: dict[str, list[Curve]] = {}
    for study in studies:
        top = np.array(study.best_so_far(), np.float64)
        known = np.flatnonzero(np.isfinite(top))
        if len(known):
            settings = (f"{name} {word(value)}" for name, value in study.varied.items())
            values = [np.nan if x is None else x for _, x in study.told]
            curve = plain_curve(" · ".join([study.algorithm, *settings]), known, top[known])
            curve = replace(curve, samples=np.array([values], np.float64)[:, known])
            panels.setdefault(study.environment, []).append(curve)
    return Scale("trial", seeds=False), panels


def plain_curve(label: str, x: np.ndarray, value: np.ndarray | Interval) -> Curve:
    """A curve of numbers that are no mean over seeds, with their interval where there is one."""
    nothing = np.full(len(x), np.nan)
    mean, low, high = value if isinstance(value, Interval) else (value, nothing, nothing)
    return Curve(label, x.astype(float), mean, low, high, mean[None])


def best_results(
    results: Sequence[Result], direction: str
) -> dict[tuple[str, str], tuple[Result, int]]:
    """By task and algorithm, the cell with the best mean, and of how many it is."""
    sign = 1 if direction == "max" else -1
    found: dict[tuple[str, str], tuple[Result, int]] = {}
    for result in results:
        key = (result.task, result.algorithm)
        top, count = found.get(key, (result, 0))
        found[key] = (max(top, result, key=lambda r: sign * r.mean), count + 1)
    return found


def normalised(
    best: Mapping[tuple[str, str], tuple[Result, int]], results: Sequence[Result], direction: str
) -> dict[str, np.ndarray]:
    """[S, M] the best cell's seeds of each algorithm on each task, where 0 is the worst and 1 the
    best seed of all complete cells there; only algorithms that are complete everywhere."""
    tasks = list(dict.fromkeys(r.task for r in results))
    ends = {t: np.concatenate([r.values for r in results if r.task == t]) for t in tasks}
    found = {}
    for algorithm in dict.fromkeys(algorithm for _, algorithm in best):
        if any((t, algorithm) not in best for t in tasks):
            continue
        columns = [best[t, algorithm][0].values for t in tasks]
        seeds = min(map(len, columns))
        span = [(ends[t].min(), np.ptp(ends[t]) or 1.0) for t in tasks]
        scores = [(c[:seeds] - low) / width for c, (low, width) in zip(columns, span, strict=True)]
        found[algorithm] = np.stack(scores if direction == "max" else [1 - s for s in scores], 1)
    return found


def _curve(label: str, columns: Mapping[float, np.ndarray], within: Bounds | None) -> Curve:
    seeds = min(map(len, columns.values()))
    samples = np.stack([column[:seeds] for column in columns.values()], axis=1)
    mean, low, high = mean_interval(samples).within(within)
    return Curve(label, np.array(list(columns), np.float64), mean, low, high, samples)


def _place(result: Result, name: str) -> str:
    """What a panel shows: an environment where its own option varies, and a task elsewhere."""
    return result.environment if name.startswith(ENV) else result.task


def _balanced(results: Sequence[Result], name: str) -> Sequence[Result]:
    """Those whose other settings were tried with every value; all, where there are none."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        others = {k: v for k, v in result.varied.items() if k != name}
        groups.setdefault(repr(others), []).append(result)
    most = max(map(len, groups.values()), default=0)
    values = [r.varied[name] for r in results if name in r.varied]
    if most < len([v for k, v in enumerate(values) if not _in(v, values[:k])]):
        return results
    return [r for group in groups.values() if len(group) == most for r in group]


def _limits(results: Sequence[Result]) -> Bounds | None:
    """What the metric can be in any of these runs, whose environments may differ in options."""
    known = [limits for r in results if (limits := bounds(r.config, r.metric)) is not None]
    if len(known) < len(results):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _index(value: Any, values: Sequence[Any]) -> int:
    return next(k for k, other in enumerate(values) if _in(value, [other]))


def _in(value: Any, others: Iterable[Any]) -> bool:
    """Whether it is one of them; true is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool)
               for other in others)  # fmt: skip
