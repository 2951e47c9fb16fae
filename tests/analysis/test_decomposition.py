"""Decompositions of the lecture's games, against the published tables."""

import itertools

import numpy as np
import pytest

from coterie import envs
from coterie.errors import UsageError
from coterie.games import decomposition as d


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


def isotonic(table):
    """The least-squares non-decreasing table, by its max-min formula (Robertson et al. 1988).

    x(a) = max over upper sets U with a, min over lower sets L with a, of the mean over U and L.
    """
    cells = list(np.ndindex(table.shape))
    above = {a: {b for b in cells if all(x >= y for x, y in zip(b, a, strict=True))} for a in cells}
    subsets = [
        {a for a, kept in zip(cells, bits, strict=True) if kept}
        for bits in itertools.product((0, 1), repeat=len(cells))
    ]
    upper = [u for u in subsets if all(above[a] <= u for a in u)]
    lower = [set(cells) - u for u in upper]
    x = np.empty(table.shape)
    for a in cells:
        x[a] = max(
            min(np.mean([table[b] for b in u & v]) for v in lower if a in v)
            for u in upper
            if a in u
        )
    return x


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (2, 2, 2), (4,)])
def test_monotone_fit_is_the_best_isotonic_table_of_all_orders(shape):
    table = np.random.default_rng(5).normal(size=shape)
    orders = list(itertools.product(*(itertools.permutations(range(k)) for k in shape)))
    tables = [table[np.ix_(*order)] for order in orders]
    errors = [np.mean((t - isotonic(t)) ** 2) for t in tables]
    found = d.monotone_fit(table)
    assert found.mse == pytest.approx(min(errors), abs=1e-10)
    best = np.ix_(*orders[int(np.argmin(errors))])
    np.testing.assert_allclose(found.q_tot[best], isotonic(table[best]), atol=1e-8)
    assert d.is_monotone(found.q_tot, found.utilities)
    assert found.mse == pytest.approx(d.mse(table, found.q_tot))


def test_monotone_fit_of_the_lectures_games():
    """Climbing: 110.8; who has settled on (C, B) stays at 115.7."""
    assert d.monotone_fit(table("linear")).mse == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(d.monotone_fit(table("monotonic")).q_tot, table("monotonic"))
    best = d.monotone_fit(table("climbing"))
    assert best.mse == pytest.approx(110.824, abs=5e-4)
    assert d.greedy_individual(best.utilities) == [(2, 2)]
    assert d.igm_holds(best.utilities, best.q_tot)
    local = d.monotone_fit(table("climbing"), greedy=(2, 1))
    assert local.mse == pytest.approx(115.689, abs=5e-4)
    assert d.greedy_individual(local.utilities) == [(2, 1)]
    assert d.greedy_joint(local.q_tot, 1e-6) == [(2, 1)]
    optimum = d.monotone_fit(table("climbing"), greedy=(0, 0))
    assert optimum.mse > 160  # what it would cost QMIX to prefer the best joint action


def test_monotone_fit_does_not_depend_on_the_order_of_actions_and_beats_any_sum():
    target = np.random.default_rng(1).normal(size=(3, 4))
    shuffled = target[np.ix_([2, 0, 1], [3, 1, 0, 2])]
    assert d.monotone_fit(target).mse == pytest.approx(d.monotone_fit(shuffled).mse)
    assert d.monotone_fit(target).mse < d.additive_fit(target).mse


def test_monotone_fit_says_what_is_too_large_or_not_there():
    with pytest.raises(UsageError, match="518,400 combinations of orders"):
        d.monotone_fit(np.zeros((6, 6)))
    with pytest.raises(UsageError, match="36 combinations"):
        d.monotone_fit(table("climbing"), max_orders=35)
    assert d.monotone_fit(table("climbing"), greedy=(2, 2), max_orders=4).mse < 111
    for greedy in [(0, 3), (0,), (-1, 0)]:
        with pytest.raises(UsageError, match="must be a joint action"):
            d.monotone_fit(table("climbing"), greedy=greedy)
