"""How well a joint value splits into one utility per agent (NumPy).

``q_tot`` is a table float [A_1, ..., A_n] of joint values, ``utilities`` one float [A_i] for each
agent, for one fixed history: the tables of the lecture's section "Value Decomposition in Matrix
Games". Greedy sets are exact by default, with ties: a mixing weight may be zero, so a monotone
Q_tot may be flat in an agent's utility.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from coterie.errors import UsageError

Utilities = Sequence[np.ndarray]


class AdditiveFit(NamedTuple):
    """The best additive decomposition of a table.

    Attributes:
        utilities: for each agent float [A_i]; each carries an equal share of the table's mean.
        q_tot: float [A_1, ..., A_n], the sum of the utilities.
        mse: mean squared residual over all joint actions.
    """

    utilities: list[np.ndarray]
    q_tot: np.ndarray
    mse: float


def additive_fit(table: Float[np.ndarray, "*A"]) -> AdditiveFit:
    """arg min_u mean_a (table(a) - sum_i u_i(a_i))^2: what VDN tends to under uniform play.

    With uniform weights the solution is that of analysis of variance: the mean over the others'
    actions m_i(a_i), less the grand mean m counted too often: u_i = m_i - m (n - 1) / n.
    """
    n = table.ndim
    mean = table.mean()
    utilities = [
        table.mean(axis=tuple(j for j in range(n) if j != i)) - mean * (n - 1) / n for i in range(n)
    ]
    q_tot = additive(utilities)
    return AdditiveFit(utilities, q_tot, float(np.mean((table - q_tot) ** 2)))


def additive(utilities: Utilities) -> np.ndarray:
    """Q_tot(a) = sum_i u_i(a_i) as a table [A_1, ..., A_n]."""
    n = len(utilities)
    shaped = [np.reshape(u, (1,) * i + (-1,) + (1,) * (n - 1 - i)) for i, u in enumerate(utilities)]
    return np.asarray(sum(shaped))


def mse(table: Float[np.ndarray, "*A"], q_tot: Float[np.ndarray, "*A"]) -> float:
    """Mean squared residual over all joint actions."""
    return float(np.mean((table - q_tot) ** 2))


def is_monotone(q_tot: Float[np.ndarray, "*A"], utilities: Utilities, tol: float = 1e-6) -> bool:
    """Some non-decreasing f has Q_tot(a) = f(u_1(a_1), ..., u_n(a_n)).

    That is: u_i(a_i) >= u_i(b_i) for every i implies Q_tot(a) >= Q_tot(b) (up to ``tol``), which
    holds exactly when it holds for each agent's action changed alone. Equal utilities must give
    equal values.
    """
    for i, utility in enumerate(utilities):
        order = np.argsort(utility, kind="stable")
        rise = np.diff(np.take(q_tot, order, axis=i), axis=i)
        equal = np.flatnonzero(np.diff(utility[order]) == 0)
        if (rise < -tol).any() or (np.take(rise, equal, axis=i) > tol).any():
            return False
    return True


def greedy_joint(q_tot: Float[np.ndarray, "*A"], tol: float = 0.0) -> list[tuple[int, ...]]:
    """All joint actions within ``tol`` of the greatest joint value."""
    best = np.argwhere(q_tot >= q_tot.max() - tol)
    return [tuple(int(k) for k in a) for a in best]


def greedy_individual(utilities: Utilities, tol: float = 0.0) -> list[tuple[int, ...]]:
    """All joint actions made of actions within ``tol`` of each agent's greatest utility."""
    own = [[int(k) for k in np.flatnonzero(u >= u.max() - tol)] for u in utilities]
    return list(itertools.product(*own))


def igm_holds(
    utilities: Utilities,
    q_tot: Float[np.ndarray, "*A"],
    tol: float = 1e-6,
    strict: bool = False,
) -> bool:
    """Individual-global-max: individually greedy actions are jointly greedy.

    Every combination of the agents' greedy actions, all exact ties included, must attain max
    Q_tot up to ``tol``, so agents that act greedily on their own lose nothing. ``strict`` asks for
    the converse too, the definition's "if and only if": every joint action that attains the
    maximum within ``tol`` is made of utilities within ``tol`` of each agent's greatest. A mixer
    with a zero weight satisfies the first and not the second.
    """
    best = q_tot.max()
    if any(q_tot[a] < best - tol for a in greedy_individual(utilities)):
        return False
    return not strict or set(greedy_joint(q_tot, tol)) <= set(greedy_individual(utilities, tol))


class MonotoneFit(NamedTuple):
    """The best monotone decomposition of a table.

    Attributes:
        utilities: for each agent float [A_i], the rank of each action in that agent's order.
        q_tot: float [A_1, ..., A_n], non-decreasing in every utility.
        mse: mean squared residual over all joint actions.
    """

    utilities: list[np.ndarray]
    q_tot: np.ndarray
    mse: float


def monotone_fit(
    table: Float[np.ndarray, "*A"],
    greedy: tuple[int, ...] | None = None,
    max_orders: int = 20_000,
) -> MonotoneFit:
    """The least-squares monotone decomposition: a bound on what QMIX can learn of uniform play.

    Q_tot is some function, non-decreasing in each u_i, so what utilities contribute is an order of
    each agent's actions. For every combination of orders the best Q_tot is the isotonic regression
    of the table under their product order. Ties of utilities need no orders of their own: equal
    values are allowed in each. The result is exact, and the work grows with prod_i |A_i|!: a few
    actions each (4 x 4 has 576 combinations, 5 x 5 has 14,400).

    Args:
        greedy: only decompositions under which this joint action is the greedy one; the fit is
            then what a learner reaches at best that always plays it.
        max_orders: refuse tables with more combinations of orders.

    Raises:
        UsageError: too many orders, or ``greedy`` is no joint action of the table.
    """
    top = _tops(table, greedy)
    count = math.prod(
        math.factorial(k if t is None else k - 1) for k, t in zip(table.shape, top, strict=True)
    )
    if count > max_orders:
        raise UsageError(
            f"a table of shape {list(table.shape)} has {count:,} combinations of orders of "
            f"actions, more than max_orders {max_orders:,}"
        )
    rising = _neighbours(table.shape)
    orders = [_orders(k, t) for k, t in zip(table.shape, top, strict=True)]
    fits = (_isotonic(table, own, rising) for own in itertools.product(*orders))
    return min(fits, key=lambda fit: fit.mse)


def _tops(table: np.ndarray, greedy: tuple[int, ...] | None) -> tuple[int | None, ...]:
    if greedy is None:
        return (None,) * table.ndim
    if len(greedy) != table.ndim or not all(
        0 <= a < k for a, k in zip(greedy, table.shape, strict=True)
    ):
        raise UsageError(
            f"greedy must be a joint action of a table of shape {list(table.shape)}; got {greedy}"
        )
    return greedy


def _orders(actions: int, top: int | None) -> list[tuple[int, ...]]:
    """All orders of an agent's actions, worst first; those that end with ``top`` if it is given."""
    if top is None:
        return list(itertools.permutations(range(actions)))
    rest = [a for a in range(actions) if a != top]
    return [(*order, top) for order in itertools.permutations(rest)]


def _neighbours(shape: tuple[int, ...]) -> np.ndarray:
    """One row per pair of cells that differ by one step along one axis: x[upper] - x[lower]."""
    cells = np.arange(math.prod(shape)).reshape(shape)
    rows = []
    for axis, count in enumerate(shape):
        lower = np.take(cells, range(count - 1), axis).ravel()
        upper = np.take(cells, range(1, count), axis).ravel()
        rows += list(np.eye(cells.size)[upper] - np.eye(cells.size)[lower])
    return np.reshape(rows, (-1, cells.size))


def _isotonic(
    table: np.ndarray, orders: tuple[tuple[int, ...], ...], rising: np.ndarray
) -> MonotoneFit:
    """The table's projection y + D'm onto {x: Dx >= 0}: its dual is non-negative least squares.

    Minimising |y + D'm|^2 over m >= 0 projects y onto the polar cone (Moreau 1962); what is left
    is the projection onto the cone itself.
    """
    from scipy.optimize import nnls  # slow to import, and only this needs it

    grid = np.ix_(*orders)
    y = table[grid].astype(np.float64).ravel()
    x = y + rising.T @ nnls(rising.T, -y)[0] if len(rising) else y
    q_tot = np.empty(table.shape)
    q_tot[grid] = x.reshape(table.shape)
    ranks = [np.argsort(order).astype(np.float64) for order in orders]
    return MonotoneFit(ranks, q_tot, mse(table, q_tot))
