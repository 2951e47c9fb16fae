"""Decompositions of the lecture's games, against the published tables."""

import numpy as np
import pytest

from coterie import envs
from coterie.analysis import decomposition as d


def table(name):
    return envs.make(f"matrix/{name}").payoffs[..., 0]


def test_linear_game_is_additive():
    fit = d.additive_fit(table("linear"))
    np.testing.assert_allclose(fit.q_tot, [[1, 5], [5, 9]])
    assert fit.mse == pytest.approx(0, abs=1e-20)


def test_monotonic_game():
    fit = d.additive_fit(table("monotonic"))
    np.testing.assert_allclose(fit.q_tot, [[-2.5, 2.5], [2.5, 7.5]])
    np.testing.assert_allclose(fit.utilities, [[-1.25, 3.75]] * 2)
    assert fit.mse == pytest.approx(6.25)


def test_climbing_game():
    """The lecture's learned VDN table is within 0.6 of the best fit; both pick (C, C)."""
    fit = d.additive_fit(table("climbing"))
    assert fit.mse == pytest.approx(175.09, abs=0.005)
    lecture = [[-8.84, -8.43, -1.00], [-10.66, -10.25, -2.82], [0.75, 1.16, 8.59]]
    np.testing.assert_allclose(fit.q_tot, lecture, atol=0.6)
    assert d.greedy_individual(fit.utilities) == [(2, 2)]
    assert d.greedy_joint(fit.q_tot) == [(2, 2)]


def test_fit_of_three_agents_is_the_least_squares_solution():
    target = np.random.default_rng(0).normal(size=(2, 3, 4))
    rows = [
        np.concatenate([np.eye(k)[x] for k, x in zip(target.shape, a, strict=True)])
        for a in np.ndindex(target.shape)
    ]
    design = np.stack(rows)
    solution = np.linalg.lstsq(design, target.ravel(), rcond=None)[0]
    fit = d.additive_fit(target)
    np.testing.assert_allclose(fit.q_tot.ravel(), design @ solution, atol=1e-12)
    assert fit.mse == pytest.approx(d.mse(target, fit.q_tot))
    np.testing.assert_allclose(d.additive(fit.utilities), fit.q_tot)


def test_monotone_and_igm_of_the_true_tables():
    up = [np.array([0.0, 1.0])] * 2
    for name in ("linear", "monotonic"):
        assert d.is_monotone(table(name), up)
        assert d.igm_holds(up, table(name))
    three = [np.array([0.0, 1.0, 2.0])] * 2
    assert not d.is_monotone(table("climbing"), three)
    assert not d.igm_holds(three, table("climbing"))  # picks (C, C), paid 5


def test_monotone_needs_equal_values_where_utilities_are_equal():
    flat = [np.array([1.0, 1.0]), np.array([0.0, 1.0])]
    assert d.is_monotone(np.array([[0.0, 1.0], [0.0, 1.0]]), flat)
    assert not d.is_monotone(np.array([[0.0, 1.0], [0.5, 1.0]]), flat)
    assert not d.is_monotone(np.array([[0.5, 1.0], [0.0, 1.0]]), flat)


def test_monotone_does_not_depend_on_the_order_of_actions():
    down = [np.array([1.0, 0.0])] * 2
    assert not d.is_monotone(table("linear"), down)
    assert d.is_monotone(table("linear")[::-1, ::-1], down)


def test_igm_with_ties():
    """A zero mixing weight: Q_tot ignores the first agent, whose choice then costs nothing."""
    q_tot = np.array([[0.0, 1.0], [0.0, 1.0]])
    utilities = [np.array([0.0, 1.0]), np.array([0.0, 1.0])]
    assert d.igm_holds(utilities, q_tot)
    assert not d.igm_holds(utilities, q_tot, strict=True)
    tied = [np.array([1.0, 1.0]), np.array([0.0, 1.0])]
    assert d.igm_holds(tied, q_tot, strict=True)
    assert d.greedy_individual(tied) == [(0, 1), (1, 1)]


def test_igm_needs_every_tied_choice_to_be_best():
    tied = [np.array([1.0, 1.0]), np.array([1.0, 1.0])]
    assert not d.igm_holds(tied, np.array([[1.0, 0.0], [0.0, 1.0]]))


def test_greedy_tolerance():
    q_tot = np.array([[1.0, 0.95], [0.0, 0.0]])
    assert d.greedy_joint(q_tot) == [(0, 0)]
    assert d.greedy_joint(q_tot, tol=0.1) == [(0, 0), (0, 1)]
    assert d.igm_holds([np.array([1.0, 0.0]), np.array([0.0, 1.0])], q_tot, tol=0.1)
    assert not d.igm_holds([np.array([1.0, 0.0]), np.array([0.0, 1.0])], q_tot, tol=0.01)
