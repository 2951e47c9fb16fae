"""Statistics over seeds, by hand."""

import json
import math

import numpy as np
import pytest

from coterie.errors import UsageError
from coterie.statistics import (
    compare,
    difference_interval,
    interquartile_mean,
    iqm_interval,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    proportion_interval,
    summarise,
)


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


@pytest.mark.parametrize("seeds", range(1, 24))
def test_equal_numbers_are_their_own_interquartile_mean(seeds):
    """To the last digit: no sum of weights may round it to 9.999999999999998."""
    for value in (10.0, 0.1, -7.3):
        assert summarise([value] * seeds)["iqm"] == value


def test_an_interval_within_bounds_holds_its_own_value():
    """Returns are 32-bit floats and may lie beyond a bound by their rounding."""
    value = float(np.float32(0.1)) * 2
    assert value > 0.2
    found = summarise([value, value], (0.0, 0.2))
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]


def test_interquartile_mean_agrees_with_trimming_at_multiples_of_four():
    from scipy.stats import trim_mean

    samples = np.random.default_rng(0).normal(size=(12, 3))
    np.testing.assert_allclose(interquartile_mean(samples), trim_mean(samples, 0.25, axis=0))


def test_intervals_of_means_by_hand():
    """{1, 2, 3}: mean 2, deviation 1, t(2) = 4.3027; {0, 1}: .5 ± 12.706 · √.5 / √2."""
    found = mean_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / math.sqrt(3)
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)
    assert mean_interval(np.array([0.0, 1.0])).high == pytest.approx(0.5 + 12.7062 / 2, rel=1e-5)


def test_intervals_hold_for_each_column_and_know_nothing_of_one_seed():
    samples = np.random.default_rng(0).normal(size=(5, 3))
    for interval in (mean_interval, iqm_interval):
        found = interval(samples)
        assert found.value.shape == found.low.shape == found.high.shape == (3,)
        assert (found.low < found.value).all()
        assert (found.value < found.high).all()
        alone = interval(samples[:, 1])
        assert (alone.low, alone.high) == pytest.approx((found.low[1], found.high[1]))
        assert np.isnan(interval(samples[:1]).low).all()
        same = interval(np.full(4, 3.0))
        assert (float(same.low), float(same.high)) == (3.0, 3.0)


def test_an_outlier_moves_the_interquartile_mean_and_its_interval_little():
    values = np.random.default_rng(0).normal(size=12)
    calm, wild = (iqm_interval(np.r_[values, x]) for x in (2.0, 1e9))
    assert wild.low == pytest.approx(calm.low, abs=0.1)
    assert wild.high == pytest.approx(calm.high, abs=0.1)
    assert mean_interval(np.r_[values, 1e9]).high > 1e8


def test_intervals_stay_between_bounds():
    found = mean_interval(np.array([0.9, 1.0, 0.7]))
    assert found.high > 1
    assert found.within((0.0, 1.0)).high == 1.0
    assert found.within((0.0, 1.0)).low == found.low
    bounded = summarise([0.9, 1.0, 0.7], (0.0, 1.0))
    assert bounded["ci95"][1] == bounded["iqm_ci95"][1] == 1.0
    assert summarise([0.9, 1.0, 0.7])["ci95"][1] > 1


def covered(interval, draw, truth, seeds, times=4000):
    """How often intervals over so many seeds hold the true value."""
    found = interval(draw((seeds, times)))
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


COUNTS = (2, 3, 5, 10, 20)


@pytest.mark.parametrize("seeds", COUNTS)
@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_intervals_cover_normal_data_as_often_as_they_say(interval, seeds):
    rng = np.random.default_rng(seeds)
    share = covered(interval, lambda shape: 3 + 2 * rng.normal(size=shape), 3.0, seeds)
    assert 0.935 <= share <= 0.965


@pytest.mark.parametrize(
    ("seeds", "least"), [(2, 0.87), (3, 0.8), (5, 0.79), (10, 0.8), (20, 0.84)]
)
def test_what_the_interval_of_the_mean_covers_of_skewed_data(seeds, least):
    """Lognormal of deviation 1: stated in docs/analysis.md, and more than a bootstrap covers."""
    rng = np.random.default_rng(seeds)
    draw = lambda shape: np.exp(rng.normal(size=shape))  # noqa: E731
    assert covered(mean_interval, draw, math.exp(0.5), seeds) > least


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_what_intervals_cover_of_bounded_data(seeds):
    """Uniform data, cut at the bounds, which are never beyond what is true."""
    rng = np.random.default_rng(seeds)

    def interval(samples):
        return mean_interval(samples).within((0.0, 1.0))

    assert covered(interval, lambda shape: rng.uniform(size=shape), 0.5, seeds) > 0.91


def test_intervals_of_differences_by_hand_and_their_coverage():
    """Welch, of {0, 2} and {1, 1, 4}: variances 1 and 1, freedom 2² / (1/1 + 1/2) = 8/3."""
    from scipy.stats import ttest_ind

    a, b = np.array([0.0, 2.0]), np.array([1.0, 1.0, 4.0])
    found = difference_interval(a, b)
    expected = ttest_ind(a, b, equal_var=False).confidence_interval()
    assert found.value == -1.0
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        found = difference_interval(1 + rng.normal(size=5), 3 * rng.normal(size=3))
        held += found.low <= 1 <= found.high
    assert held / 2000 >= 0.93


def test_proportions_by_hand():
    """20 of 20: low is .025^(1/20); none of 20 mirrors it; 10 of 20 as Clopper and Pearson's."""
    found = proportion_interval(20, 20)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    assert proportion_interval(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    from scipy.stats import binomtest

    expected = binomtest(7, 20).proportion_ci(method="exact")
    found = proportion_interval(7, 20)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("seeds", COUNTS)
def test_intervals_of_proportions_cover_at_least_as_often_as_they_say(seeds):
    from scipy.stats import binom

    counts = np.arange(seeds + 1)
    found = proportion_interval(counts, seeds)
    for p in np.linspace(0.01, 0.99, 99):
        held = binom.pmf(counts, seeds, p)[(found.low <= p) & (p <= found.high)].sum()
        assert held >= 0.95 - 1e-9


def test_summarise():
    found = summarise([1, 2.0, np.float32(3.0), np.float64(4.0)])
    assert found["mean"] == 2.5
    assert found["iqm"] == 2.5
    assert found["per_seed"] == [1.0, 2.0, 3.0, 4.0]
    assert found["seeds"] == 4
    low, high = found["ci95"]
    assert low < 2.5 < high
    assert found["iqm_ci95"][0] < 2.5 < found["iqm_ci95"][1]
    assert json.loads(json.dumps(found)) == found


def test_summarise_one_seed_equal_seeds_and_none():
    one = summarise([5.0])
    assert one == {
        "mean": 5.0, "iqm": 5.0, "ci95": None, "iqm_ci95": None, "per_seed": [5.0], "seeds": 1,
    }  # fmt: skip
    assert summarise([2.0, 2.0])["ci95"] == [2.0, 2.0]
    with pytest.raises(ValueError, match="at least one seed"):
        summarise([])


def test_summarise_says_so_where_a_seed_diverged():
    found = summarise([1.0, math.nan, math.inf])
    assert found["per_seed"] == [1.0, None, None]
    assert found["mean"] is found["iqm"] is found["ci95"] is found["iqm_ci95"] is None
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


def test_probability_of_improvement_averages_over_tasks():
    """Always better in one task, never in the other; the errors of both are alike."""
    a = np.array([[5.0, 0.0], [6.0, 1.0], [7.0, 2.0]])
    b = np.array([[0.0, 5.0], [1.0, 6.0]])
    found = probability_of_improvement(a, b)
    assert found.value == 0.5
    assert found.low == pytest.approx(1 - found.high)
    with pytest.raises(UsageError, match="same tasks; got 2 and 1"):
        probability_of_improvement(a, b[:, 0])


def test_errors_of_tasks_average_out():
    column = np.random.default_rng(2).normal(size=20)
    other = np.random.default_rng(3).normal(size=20)
    one = probability_of_improvement(column, other)
    both = probability_of_improvement(np.stack([column] * 2, -1), np.stack([other] * 2, -1))
    assert both.value == pytest.approx(one.value)
    ratio = (both.high - both.low) / (one.high - one.low)
    assert ratio == pytest.approx(1 / math.sqrt(2), abs=1e-6)


def test_improvement_of_every_run_is_not_certainty():
    found = probability_of_improvement(np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.3 < found.low < 0.6


@pytest.mark.parametrize("seeds", [pytest.param(n, marks=pytest.mark.slow) for n in (3, 5, 10, 20)])
def test_interval_of_the_probability_covers_as_often_as_it_says(seeds):
    from scipy.special import ndtr

    rng = np.random.default_rng(seeds)
    for shift in (0.0, 1.0):
        truth, held = ndtr(shift / math.sqrt(2)), 0
        for _ in range(1000):
            a, b = rng.normal(size=(2, seeds))
            found = probability_of_improvement(a + shift, b)
            held += found.low <= truth <= found.high
        assert held / 1000 >= 0.93


def test_performance_profile_by_hand():
    samples = np.array([0.0, 1.0, 1.0, 4.0])
    found = performance_profile(samples, np.array([-1.0, 0.0, 1.0, 3.0, 4.0]))
    np.testing.assert_allclose(found.value, [1, 0.75, 0.25, 0.25, 0])
    np.testing.assert_allclose(found.low[[0, -1]], [0.025**0.25, 0])
    np.testing.assert_allclose(found.high[[0, -1]], [1, 1 - 0.025**0.25])
    assert found.low[1] < 0.75 < found.high[1]
    two = performance_profile(np.stack([samples, samples + 10], -1), np.array([1.0, 5.0]))
    np.testing.assert_allclose(two.value, [(0.25 + 1) / 2, (0 + 1) / 2])


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
    assert low < 1.5 < high
    assert second["probability_of_improvement"] == 0.0
    assert second["difference_ci95"] is second["probability_ci95"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_compare_says_what_it_cannot():
    with pytest.raises(UsageError, match=r"idqn has no metric eval/.*; it has no metrics"):
        compare(results(vdn=[1.0]) | {"idqn": {}})
    with pytest.raises(UsageError, match="vdn cannot be compared: a seed diverged"):
        compare(results(vdn=[1.0, math.nan], idqn=[1.0]))
