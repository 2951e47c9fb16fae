"""Statistics over seeds, by hand."""

import json
import math

import numpy as np
import pytest

from coterie.analysis.statistics import (
    bootstrap_interval,
    compare,
    interquartile_mean,
    iqm_interval,
    performance_profile,
    probability_of_improvement,
    summarise,
)
from coterie.types import UsageError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 3.0, 100.0], (0 * 0.25 + 3 + 100 * 0.25) / 1.5),
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([0.0, 1.0, 2.0, 5.0, 90.0], (0.75 * 1 + 2 + 0.75 * 5) / 2.5),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0], 3.5),
    ],
)
def test_interquartile_mean(values, expected):
    assert float(interquartile_mean(np.asarray(values))) == pytest.approx(expected)


def test_interquartile_mean_agrees_with_trimming_at_multiples_of_four():
    from scipy.stats import trim_mean

    samples = np.random.default_rng(0).normal(size=(12, 3))
    np.testing.assert_allclose(interquartile_mean(samples), trim_mean(samples, 0.25, axis=0))


def test_interval_of_two_seeds_is_their_range():
    """A resample of {0, 1} has mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    low, high = bootstrap_interval(np.array([0.0, 1.0]))
    assert (float(low), float(high)) == (0.0, 1.0)


def test_interval_is_near_the_normal_one_for_many_seeds():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert float(low) == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert float(high) == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_is_the_same_every_time_and_for_each_column():
    samples = np.random.default_rng(0).normal(size=(5, 3))
    low, high = bootstrap_interval(samples)
    again, _ = bootstrap_interval(samples)
    np.testing.assert_array_equal(low, again)
    assert low.shape == high.shape == (3,)
    assert (low < samples.mean(axis=0)).all()
    assert (samples.mean(axis=0) < high).all()


def test_interval_of_one_or_of_equal_seeds():
    low, high = bootstrap_interval(np.array([[1.0, 2.0]]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    low, high = bootstrap_interval(np.array([3.0, 3.0, 3.0]))
    assert (float(low), float(high)) == (3.0, 3.0)


def test_summarise():
    found = summarise([1, 2.0, np.float32(3.0), np.float64(4.0)])
    assert found["mean"] == 2.5
    assert found["iqm"] == 2.5
    assert found["per_seed"] == [1.0, 2.0, 3.0, 4.0]
    assert found["seeds"] == 4
    low, high = found["ci95"]
    assert 1.0 < low < 2.5 < high < 4.0
    assert json.loads(json.dumps(found)) == found


def test_summarise_one_seed_equal_seeds_and_none():
    one = summarise([5.0])
    assert one == {"mean": 5.0, "iqm": 5.0, "ci95": None, "per_seed": [5.0], "seeds": 1}
    assert summarise([2.0, 2.0])["ci95"] == [2.0, 2.0]
    with pytest.raises(ValueError, match="at least one seed"):
        summarise([])


def test_summarise_says_so_where_a_seed_diverged():
    found = summarise([1.0, math.nan, math.inf])
    assert found["per_seed"] == [1.0, None, None]
    assert found["mean"] is found["iqm"] is found["ci95"] is None
    json.dumps(found, allow_nan=False)


# Between algorithms -----------------------------------------------------------------------------


def test_probability_of_improvement_by_hand():
    """Of the pairs of {1, 3} and {0, 1, 2}: 1 > 0, 1 = 1, 1 < 2, 3 > all: 4.5 of 6."""
    a, b = np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0])
    assert probability_of_improvement(a, b).value == pytest.approx(4.5 / 6)
    assert probability_of_improvement(b, a).value == pytest.approx(1.5 / 6)
    assert probability_of_improvement(a, a).value == pytest.approx(0.5)
    found = probability_of_improvement(a, b)
    assert found.low < found.value <= found.high


def test_probability_of_improvement_agrees_with_mann_whitney():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 12).astype(float), rng.integers(0, 7, 15).astype(float)
    u = mannwhitneyu(a, b).statistic
    assert probability_of_improvement(a, b).value == pytest.approx(u / (12 * 15))


def test_probability_of_improvement_averages_over_tasks_and_resamples_each():
    """Always better in one task, never in the other; within each nothing is uncertain."""
    a = np.array([[5.0, 0.0], [6.0, 1.0], [7.0, 2.0]])
    b = np.array([[0.0, 5.0], [1.0, 6.0]])
    found = probability_of_improvement(a, b)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(UsageError, match="same tasks; got 2 and 1"):
        probability_of_improvement(a, b[:, 0])


def test_resampling_tasks_apart_is_narrower_than_together():
    """Runs k of two tasks have nothing in common: errors average out over tasks."""
    column = np.random.default_rng(2).normal(size=20)
    other = np.random.default_rng(3).normal(size=20)
    one = probability_of_improvement(column, other)
    both = probability_of_improvement(np.stack([column] * 2, -1), np.stack([other] * 2, -1))
    assert both.value == pytest.approx(one.value)
    ratio = (both.high - both.low) / (one.high - one.low)
    assert ratio == pytest.approx(1 / math.sqrt(2), abs=0.08)


def test_interval_of_the_probability_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        a, b = rng.normal(size=(2, 30))
        found = probability_of_improvement(a, b, resamples=300)
        hits += found.low <= 0.5 <= found.high
    assert 85 <= hits <= 100


def test_performance_profile_by_hand():
    samples = np.array([0.0, 1.0, 1.0, 4.0])
    found = performance_profile(samples, np.array([-1.0, 0.0, 1.0, 3.0, 4.0]))
    np.testing.assert_allclose(found.value, [1, 0.75, 0.25, 0.25, 0])
    np.testing.assert_allclose(found.low[[0, -1]], [1, 0])
    np.testing.assert_allclose(found.high[[0, -1]], [1, 0])
    assert found.low[1] < 0.75 < found.high[1]
    two = performance_profile(np.stack([samples, samples + 10], -1), np.array([1.0, 5.0]))
    np.testing.assert_allclose(two.value, [(0.25 + 1) / 2, (0 + 1) / 2])


def test_iqm_interval():
    """Resamples of {0, 1} have the interquartile means 0, 1/2, 1; an outlier does not count."""
    found = iqm_interval(np.array([0.0, 1.0]))
    assert (float(found.value), float(found.low), float(found.high)) == (0.5, 0.0, 1.0)
    values = np.r_[np.random.default_rng(0).normal(size=39), 1e9]
    found = iqm_interval(values)
    assert found.value == pytest.approx(interquartile_mean(values))
    assert -1 < found.low < found.value < found.high < 1
    columns = iqm_interval(np.random.default_rng(0).normal(size=(6, 3)))
    assert columns.value.shape == columns.low.shape == (3,)
    assert math.isnan(iqm_interval(np.array([3.0])).low)


def results(**per_seed):
    return {name: {"eval/return/team_mean": summarise(x)} for name, x in per_seed.items()}


def test_compare():
    found = compare(results(vdn=[1.0, 2.0, 3.0], idqn=[0.0, 1.0], qmix=[5.0]))
    assert [(x["a"], x["b"]) for x in found] == [("vdn", "idqn"), ("vdn", "qmix"), ("idqn", "qmix")]
    first, second, _ = found
    assert (first["mean_a"], first["mean_b"], first["difference"]) == (2.0, 0.5, 1.5)
    assert first["seeds"] == [3, 2]
    assert first["probability_of_improvement"] == pytest.approx(5.5 / 6)
    low, high = first["difference_ci95"]
    assert 0 <= low < 1.5 < high <= 3
    assert second["probability_of_improvement"] == 0.0
    assert second["difference_ci95"] is second["probability_ci95"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_compare_says_what_it_cannot():
    with pytest.raises(UsageError, match=r"idqn has no metric eval/.*; it has no metrics"):
        compare(results(vdn=[1.0]) | {"idqn": {}})
    with pytest.raises(UsageError, match="vdn cannot be compared: a seed diverged"):
        compare(results(vdn=[1.0, math.nan], idqn=[1.0]))
