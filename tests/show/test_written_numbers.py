"""Numbers as people read them."""

import pytest

from coterie.show.metrics import shared_metrics
from coterie.show.numbers import folded, interval, number, proportion


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9613, "0.9613"), (-7.5, "−7.5"), (-0.0, "0"), (12345.6, "12346"), (None, "–")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((0.91234, 0.96512), "0.912 to 0.965"),
        ((1002.1, 1004.2), "1002 to 1004"),
        ((-1234.4, -1226.0), "−1234 to −1226"),
        ((7.0, 7.0), "7 to 7"),
        ((-31.44, -8.61), "−31 to −9"),
        (None, ""),
    ],
)
def test_an_interval_never_excludes_what_lies_in_its_middle(ends, text):
    assert interval(ends) == text


def test_only_equal_numbers_are_folded():
    assert folded([7.0] * 18 + [6.0] * 2) == "7 (18 times), 6 (2 times)"
    assert folded([0.9612, 0.9611]) == "0.9612, 0.9611"
    assert folded([1.0, None]) == "1, –"


def test_counts_are_proportions():
    assert proportion(20, 20) == "20 of 20 (83 to 100%)"


def test_older_runs_are_shown_by_the_return_of_those_beside_them():
    """Their logs hold both; a sum and a mean never share an axis."""
    old = {"environment": "matrix/climbing"}
    new = old | {"metric": "eval_sampled/return/team_mean"}
    assert shared_metrics([old, new]) == ["eval/return/team_mean", "eval_sampled/return/team_mean"]
    assert shared_metrics([old]) == ["eval/return/team_sum"]
    assert shared_metrics([new], greedy=True) == ["eval/return/team_mean"]
    other = {"environment": "lbf/5x5-2p-1f"}
    assert shared_metrics([other, new])[0] == "eval/return/team_sum"
