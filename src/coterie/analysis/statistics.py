"""Statistics over seeds: mean, interquartile mean, bootstrap intervals; and between algorithms.

Seeds are the only independent repetitions of an experiment: average over episodes first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Float

from coterie.errors import UsageError

RESAMPLES = 9999


def interquartile_mean(samples: Float[np.ndarray, " S *rest"]) -> Float[np.ndarray, "*rest"]:
    """The mean of the middle half over the first axis (Agarwal et al. 2021, rliable).

    The lowest and the highest quarter are left out; where S is not a multiple of 4, the samples
    on the two borders count by the fraction of them inside (rliable rounds instead, leaving
    fewer out). Five samples weigh 0, 3/4, 1, 3/4, 0.
    """
    n = len(samples)
    position = np.arange(n)
    inside = np.minimum(position + 1, 0.75 * n) - np.maximum(position, 0.25 * n)
    weights = np.clip(inside, 0.0, 1.0) / (0.5 * n)
    return np.tensordot(weights, np.sort(samples, axis=0), axes=1)


def bootstrap_interval(
    samples: Float[np.ndarray, " S *rest"],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval (low, high), each [*rest], of the mean over the first axis.

    The resampling is seeded, so equal samples give equal intervals. One sample says nothing about
    spread: both ends are then NaN.
    """
    _, low, high = _bootstrap([np.moveaxis(samples, 0, -1)], np.mean, confidence, resamples)
    return low, high


def summarise(per_seed: Iterable[SupportsFloat]) -> dict[str, Any]:
    """One number per seed, in the form every result of Coterie has (JSON-able).

    Returns:
        ``mean``; ``iqm``, the interquartile mean; ``ci95``, [low, high], the 95% bootstrap interval
        of the mean (None with one seed); ``per_seed``; ``seeds``, their number. A seed whose number
        is not finite is None in ``per_seed``, and then so are the statistics.
    """
    values = np.asarray([float(x) for x in per_seed], dtype=np.float64)
    if values.size == 0:
        raise ValueError("summarise needs the result of at least one seed")
    finite = bool(np.isfinite(values).all())
    low, high = bootstrap_interval(values) if finite else (math.nan, math.nan)
    return {
        "mean": float(values.mean()) if finite else None,
        "iqm": float(interquartile_mean(values)) if finite else None,
        "ci95": [float(low), float(high)] if math.isfinite(low) else None,
        "per_seed": [float(x) if math.isfinite(x) else None for x in values],
        "seeds": len(values),
    }


class Interval(NamedTuple):
    """A number and its bootstrap interval, or arrays of them; NaN where one seed is too few."""

    value: Any
    low: Any
    high: Any


def iqm_interval(
    samples: Float[np.ndarray, " S *rest"],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interquartile mean over the first axis and its bootstrap interval, each [*rest]."""

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(interquartile_mean(np.moveaxis(x, axis, 0)))

    columns = [np.moveaxis(samples, 0, -1)]
    return _bootstrap(columns, statistic, confidence, resamples)


def probability_of_improvement(
    a: Float[np.ndarray, " S *M"],
    b: Float[np.ndarray, " R *L"],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """P(X > Y) + P(X = Y)/2 of a random run X of a and Y of b, averaged over tasks.

    1/2 where neither is better (the Mann-Whitney statistic; Agarwal et al. 2021, rliable). The
    interval resamples the runs of each task by themselves (stratified).

    Args:
        a, b: one number per run [S], or per run and task [S, M]; numbers of runs may differ.
    """
    first, second = np.atleast_2d(a.T), np.atleast_2d(b.T)
    if len(first) != len(second):
        raise UsageError(f"a and b must be of the same tasks; got {len(first)} and {len(second)}")
    tasks = len(first)

    def statistic(*columns: np.ndarray, axis: int) -> np.ndarray:
        pairs = zip(columns[:tasks], columns[tasks:], strict=True)
        return np.asarray(np.mean([_wins(x, y) for x, y in pairs], axis=0))

    pairs = tasks * len(a) * len(b)
    return _bootstrap([*first, *second], statistic, confidence, resamples, pairs)


def _wins(x: Float[np.ndarray, "*B S"], y: Float[np.ndarray, "*B R"]) -> Float[np.ndarray, "*B"]:
    """The share of pairs in which x is greater; equal ones count half."""
    difference = np.sign(x[..., :, None] - y[..., None, :])
    return np.asarray((difference.mean(axis=(-2, -1)) + 1.0) / 2.0)


def performance_profile(
    samples: Float[np.ndarray, " S *M"],
    thresholds: Float[np.ndarray, " K"],
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> Interval:
    """The share of runs that score more than each threshold, averaged over tasks, each [K].

    The whole distribution instead of one number (Agarwal et al. 2021, rliable). Intervals hold for
    each threshold by itself and resample the runs of each task by themselves.

    Args:
        samples: one number per run [S], or per run and task [S, M].
    """
    above = [(task > thresholds[:, None]).astype(float) for task in np.atleast_2d(samples.T)]

    def statistic(*columns: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.mean([x.mean(axis=axis) for x in columns], axis=0))

    return _bootstrap(above, statistic, confidence, resamples)


def compare(
    results: Mapping[str, Mapping[str, Any]],
    metric: str = "eval/return/team_mean",
) -> list[dict[str, Any]]:
    """Each pair of algorithms on one metric (JSON-able): by how much, and how surely.

    Args:
        results: by name, what ``Run.metrics`` holds or ``Run.evaluate`` returns.

    Returns:
        for each pair: ``a``, ``b``, ``metric``, ``mean_a``, ``mean_b``, ``seeds`` [of a, of b];
        ``difference``, mean_a - mean_b, and ``difference_ci95``;
        ``probability_of_improvement``, P(a > b), and its ``probability_ci95``. Intervals are None
        where one seed is too few.

    Raises:
        UsageError: a result lacks the metric, or a seed of it diverged.
    """
    values = {name: _per_seed(name, result, metric) for name, result in results.items()}
    return [_pair(a, b, values, metric) for a, b in itertools.combinations(values, 2)]


def _per_seed(name: str, result: Mapping[str, Any], metric: str) -> np.ndarray:
    if metric not in result:
        has = ", ".join(result) or "no metrics: evaluate the run first"
        raise UsageError(f"{name} has no metric {metric}; it has {has}")
    per_seed = result[metric]["per_seed"]
    if None in per_seed:
        raise UsageError(f"{name} cannot be compared: a seed diverged, {metric} is {per_seed}")
    return np.asarray(per_seed, np.float64)


def _pair(a: str, b: str, values: Mapping[str, np.ndarray], metric: str) -> dict[str, Any]:
    x, y = values[a], values[b]

    def gap(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))

    difference = _bootstrap([x, y], gap)
    better = probability_of_improvement(x, y)
    return {
        "a": a,
        "b": b,
        "metric": metric,
        "seeds": [len(x), len(y)],
        "mean_a": float(x.mean()),
        "mean_b": float(y.mean()),
        "difference": float(difference.value),
        "difference_ci95": _ends(difference),
        "probability_of_improvement": float(better.value),
        "probability_ci95": _ends(better),
    }


def _ends(interval: Interval) -> list[float] | None:
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return [float(interval.low), float(interval.high)] if known else None


def _bootstrap(
    samples: Sequence[np.ndarray],
    statistic: Callable[..., Any],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    numbers: int | None = None,
) -> Interval:
    """The statistic and its seeded percentile interval; each sample is resampled by itself.

    Args:
        samples: arrays with their runs on the last axis, which ``statistic`` reduces.
        numbers: what it holds in memory for a resample; as many as there are samples unless given.
    """
    numbers = numbers or sum(x.size for x in samples)
    value = np.asarray(statistic(*samples, axis=-1))
    if min(x.shape[-1] for x in samples) < 2:
        nothing = np.full(value.shape, math.nan)
        return Interval(value, nothing, nothing)
    from scipy import stats  # slow to import, and only this needs it

    result = stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // max(1, numbers)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, np.asarray(result.low), np.asarray(result.high))
