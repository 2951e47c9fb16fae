"""Statistics over seeds: mean, interquartile mean, bootstrap interval.

Seeds are the only independent repetitions of an experiment: average over episodes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float

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
    if len(samples) < 2:
        nothing = np.full(samples.shape[1:], math.nan)
        return nothing, nothing
    from scipy import stats  # slow to import, and only this needs it

    result = stats.bootstrap(
        (samples,),
        np.mean,
        axis=0,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // max(1, samples.size)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return np.asarray(result.confidence_interval.low), np.asarray(result.confidence_interval.high)


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
