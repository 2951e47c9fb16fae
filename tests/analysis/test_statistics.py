"""Statistics over seeds, by hand."""

import json
import math

import numpy as np
import pytest

from coterie.analysis.statistics import bootstrap_interval, interquartile_mean, summarise


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
