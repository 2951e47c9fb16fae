"""How well a joint value splits into one utility per agent (NumPy).

``q_tot`` is a table float [A_1, ..., A_n] of joint values, ``utilities`` one float [A_i] for each
agent, for one fixed history: the tables of the lecture's section "Value Decomposition in Matrix
Games". Greedy sets are exact by default, with ties: a mixing weight may be zero, so a monotone
Q_tot may be flat in an agent's utility.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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
