"""Statistics over seeds: mean, interquartile mean, their intervals; and between algorithms.

Seeds are the only independent repetitions of an experiment: average over episodes first. Those
averages already carry the noise of their episodes, where episodes are independent between seeds,
so an interval over seeds needs nothing added for it.

No interval here is a bootstrap: resampling a handful of seeds understates how far another handful
would lie (docs/analysis.md has the coverages). What each interval assumes stands in its docstring.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Float, Int

from coterie.errors import UsageError

CONFIDENCE = 0.95
Bounds = tuple[float, float]
"""The least and the greatest a number can be."""


class Interval(NamedTuple):
    """A number and its interval, or arrays of them; NaN where one seed is too few."""

    value: Any
    low: Any
    high: Any

    def within(self, bounds: Bounds | None) -> Interval:
        """The interval cut off at what is possible, and never so that its value lies outside."""
        if bounds is None:
            return self
        low = np.minimum(np.maximum(self.low, bounds[0]), self.value)
        high = np.maximum(np.minimum(self.high, bounds[1]), self.value)
        return Interval(self.value, low, high)


def bounds_by_metric(total: Bounds | None, n_agents: int) -> dict[str, Bounds]:
    """Bounds of the team's returns by metric, from those of their sum over agents."""
    if total is None:
        return {}
    low, high = total
    return {"return/team_sum": (low, high), "return/team_mean": (low / n_agents, high / n_agents)}


# One sample -------------------------------------------------------------------------------------


def mean_interval(
    samples: Float[np.ndarray, " S *rest"], confidence: float = CONFIDENCE
) -> Interval:
    """The mean over the first axis and Student's t interval of it, each [*rest].

    Exact for normal data at any number of seeds. Both ends are NaN with one seed.
    """
    from scipy.special import stdtrit  # slow to import, and only intervals need it

    value, n = samples.mean(axis=0), len(samples)
    if n < 2:
        return _unknown(value)
    half = stdtrit(n - 1, (1 + confidence) / 2) * samples.std(axis=0, ddof=1) / math.sqrt(n)
    return Interval(value, value - half, value + half)


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
    ordered = np.sort(samples, axis=0)
    # The weights' sum is 1 but for rounding: a mean never leaves the range of its samples.
    return np.asarray(np.clip(np.tensordot(weights, ordered, axes=1), ordered[0], ordered[-1]))


def iqm_interval(
    samples: Float[np.ndarray, " S *rest"], confidence: float = CONFIDENCE
) -> Interval:
    """The interquartile mean over the first axis and its interval, each [*rest].

    The half width is the winsorised standard deviation times a factor for which the interval is
    exact for normal data (the distribution of their ratio is simulated once for each S).
    """
    value = interquartile_mean(samples)
    if len(samples) < 2:
        return _unknown(value)
    half = _iqm_factor(len(samples), confidence) * _winsorised_deviation(samples)
    return Interval(value, value - half, value + half)


def _winsorised_deviation(samples: Float[np.ndarray, " S *rest"]) -> Float[np.ndarray, "*rest"]:
    """Standard deviation with the outer quarters, rounded down, moved to the values beside them."""
    ordered, cut = np.sort(samples, axis=0), (len(samples) - 1) // 4
    return np.asarray(np.clip(ordered, ordered[cut], ordered[-1 - cut]).std(axis=0, ddof=1))


_EXACT_UP_TO = 100
"""Seeds for which the factor is simulated; beyond, it falls with the root of their number."""


@functools.cache
def _iqm_factor(seeds: int, confidence: float) -> float:
    n = min(seeds, _EXACT_UP_TO)
    normal = np.random.default_rng(0).normal(size=(n, 50_000))
    ratio = np.abs(interquartile_mean(normal)) / _winsorised_deviation(normal)
    return float(np.quantile(ratio, confidence)) * math.sqrt(n / seeds)


def proportion_interval(
    count: Int[np.ndarray, "*S"] | int, of: int, confidence: float = CONFIDENCE
) -> Interval:
    """count/of and its interval: exact, so it covers at least as often as it says.

    Source: Clopper & Pearson 1934. 20 of 20 is [0.83, 1].
    """
    from scipy.special import betaincinv

    tail, k = (1 - confidence) / 2, np.asarray(count, np.float64)
    # A count of 0 or of all has no tail on that side; its other shape parameter must not be 0.
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), of - k + 1, tail))
    high = np.where(k == of, 1.0, betaincinv(k + 1, np.maximum(of - k, 1), 1 - tail))
    return Interval(k / of, low, high)


def summarise(per_seed: Iterable[SupportsFloat], bounds: Bounds | None = None) -> dict[str, Any]:
    """One number per seed, in the form every result of Coterie has (JSON-able).

    Args:
        bounds: the least and the greatest the number can be; intervals stay between them.

    Returns:
        ``mean`` and ``ci95``, its 95% interval [low, high] over seeds (None with one seed);
        ``iqm``, the interquartile mean, and ``iqm_ci95``; ``per_seed``; ``seeds``, their number. A
        seed whose number is not finite is None in ``per_seed``, and then so are the statistics.
    """
    values = np.asarray([float(x) for x in per_seed], dtype=np.float64)
    if values.size == 0:
        raise ValueError("summarise needs the result of at least one seed")
    known = bool(np.isfinite(values).all())
    nothing = _unknown(np.nan)
    mean = mean_interval(values).within(bounds) if known else nothing
    iqm = iqm_interval(values).within(bounds) if known else nothing
    return {
        "mean": float(mean.value) if known else None,
        "iqm": float(iqm.value) if known else None,
        "ci95": _ends(mean),
        "iqm_ci95": _ends(iqm),
        "per_seed": [float(x) if math.isfinite(x) else None for x in values],
        "seeds": len(values),
    }


# Two samples ------------------------------------------------------------------------------------


def difference_interval(
    a: Float[np.ndarray, " S"], b: Float[np.ndarray, " R"], confidence: float = CONFIDENCE
) -> Interval:
    """mean(a) − mean(b) and Welch's t interval of it: normal data, variances may differ."""
    from scipy.special import stdtrit

    value = np.asarray(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return _unknown(value)
    x, y = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if x + y == 0:
        return Interval(value, value, value)
    freedom = (x + y) ** 2 / (x**2 / (len(a) - 1) + y**2 / (len(b) - 1))
    half = stdtrit(freedom, (1 + confidence) / 2) * math.sqrt(x + y)
    return Interval(value, value - half, value + half)


def probability_of_improvement(
    a: Float[np.ndarray, " S *M"], b: Float[np.ndarray, " R *L"], confidence: float = CONFIDENCE
) -> Interval:
    """P(X > Y) + P(X = Y)/2 of a random run X of a and Y of b, averaged over tasks.

    1/2 where neither is better (the Mann-Whitney statistic; Agarwal et al. 2021, rliable). The
    interval of a task is Newcombe's (2006, method 5, with Student's t), which stays in [0, 1] and
    keeps a width where every run of one is better; those of several tasks are put together as
    independent errors (MOVER, Zou & Donner 2008).

    Args:
        a, b: one number per run [S], or per run and task [S, M]; numbers of runs may differ.
    """
    first, second = np.atleast_2d(a.T), np.atleast_2d(b.T)
    if len(first) != len(second):
        raise UsageError(f"a and b must be of the same tasks; got {len(first)} and {len(second)}")
    won = np.array([_wins(x, y) for x, y in zip(first, second, strict=True)])
    if min(len(a), len(b)) < 2:
        return _unknown(won.mean())
    low = [_newcombe(p, len(a), len(b), confidence) for p in won]
    high = [1 - _newcombe(1 - p, len(a), len(b), confidence) for p in won]
    return _averaged(Interval(won, np.array(low), np.array(high)))


def _wins(x: Float[np.ndarray, " S"], y: Float[np.ndarray, " R"]) -> float:
    """The share of pairs in which x is greater; equal ones count half."""
    return float((np.sign(x[:, None] - y[None, :]).mean() + 1.0) / 2.0)


def _newcombe(won: float, first: int, second: int, confidence: float) -> float:
    """The least probability p from which ``won`` is no further than t standard errors at p."""
    from scipy.special import stdtrit

    t, more = stdtrit(first + second - 2, (1 + confidence) / 2), (first + second) / 2 - 1

    def reaches(p: float) -> bool:
        variance = p * (1 - p) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p))) / (first * second)
        return bool((won - p) ** 2 <= t * t * variance)

    low, high = 0.0, won
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def performance_profile(
    samples: Float[np.ndarray, " S *M"],
    thresholds: Float[np.ndarray, " K"],
    confidence: float = CONFIDENCE,
) -> Interval:
    """The share of runs that score more than each threshold, averaged over tasks, each [K].

    The whole distribution instead of one number (Agarwal et al. 2021, rliable). Intervals are those
    of proportions and hold for each threshold by itself; tasks are put together as independent.

    Args:
        samples: one number per run [S], or per run and task [S, M].
    """
    tasks = np.atleast_2d(samples.T)
    above = (tasks[:, None, :] > thresholds[None, :, None]).sum(axis=-1)
    return _averaged(proportion_interval(above, len(samples), confidence))


def _averaged(each: Interval) -> Interval:
    """The average over tasks, the first axis, of numbers whose errors are independent."""
    value = each.value.mean(axis=0)
    below = np.sqrt(((each.value - each.low) ** 2).sum(axis=0)) / len(each.value)
    above = np.sqrt(((each.high - each.value) ** 2).sum(axis=0)) / len(each.value)
    return Interval(value, value - below, value + above)


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
    difference, better = difference_interval(x, y), probability_of_improvement(x, y)
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


def _unknown(value: Any) -> Interval:
    nothing = np.full(np.shape(value), math.nan)
    return Interval(value, nothing, nothing)


def _ends(interval: Interval) -> list[float] | None:
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return [float(interval.low), float(interval.high)] if known else None
