"""Solution concepts of games in strategic form, for any number of agents (NumPy).

A game is its payoff table, float [A_1, ..., A_n, n]: ``payoffs[a][i]`` is u_i(a), the payoff of
agent i for joint action a. Payoffs within ``tol`` of each other count as equal. Definitions follow
the book, chapter 4; equilibrium selection follows Harsanyi and Selten (1988).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from coterie.errors import UsageError
from coterie.extras import how_to_install

Joint = tuple[int, ...]
"""A joint action, as one action index per agent."""

TOL = 1e-9


def count_agents(payoffs: np.ndarray) -> int:
    """n of a table [A_1, ..., A_n, n]; UsageError if it has another shape."""
    n = payoffs.shape[-1]
    if payoffs.ndim != n + 1:
        raise UsageError(f"payoffs must have shape [A_1, ..., A_n, n]; got {payoffs.shape}")
    return n


def _where(mask: np.ndarray | np.bool_) -> list[Joint]:
    return [tuple(int(k) for k in index) for index in np.argwhere(mask)]


def deviation_gains(payoffs: Float[np.ndarray, "*A n"]) -> Float[np.ndarray, "*A n"]:
    """max_{a_i'} u_i(a_i', a_-i) - u_i(a): what agent i alone could gain by leaving a; >= 0."""
    n = count_agents(payoffs)
    best = [payoffs[..., i].max(axis=i, keepdims=True) for i in range(n)]
    return np.stack([best[i] - payoffs[..., i] for i in range(n)], axis=-1)


def pure_equilibria(payoffs: Float[np.ndarray, "*A n"], tol: float = TOL) -> list[Joint]:
    """Joint actions from which no agent gains more than ``tol`` by deviating alone.

    Weak equilibria are included: an agent may be indifferent between its actions.
    """
    return _where((deviation_gains(payoffs) <= tol).all(axis=-1))


def is_strict(payoffs: Float[np.ndarray, "*A n"], actions: Joint, tol: float = TOL) -> bool:
    """Every unilateral deviation from a loses more than ``tol`` for the one who deviates."""
    for i, own in enumerate(actions):
        others = np.delete(payoffs[(*actions[:i], slice(None), *actions[i + 1 :], i)], own)
        if (others >= payoffs[actions][i] - tol).any():
            return False
    return True


def pareto_dominates(u: np.ndarray, v: np.ndarray, tol: float = TOL) -> np.ndarray | np.bool_:
    """u_i >= v_i for every agent and u_i > v_i for one, over the last axis."""
    return (u >= v - tol).all(axis=-1) & (u > v + tol).any(axis=-1)


def undominated(points: Float[np.ndarray, "M n"], tol: float = TOL) -> Bool[np.ndarray, " M"]:
    """The points no other point Pareto-dominates.

    Visited by falling sum, so that most are struck out early and never visited themselves.
    """
    distinct, which = np.unique(points, axis=0, return_inverse=True)
    kept = np.ones(len(distinct), bool)
    for k in np.argsort(-distinct.sum(axis=-1)):
        if kept[k]:
            kept &= ~pareto_dominates(distinct[k], distinct, tol)
    return kept[which.reshape(-1)]


def pareto_optimal(payoffs: Float[np.ndarray, "*A n"], tol: float = TOL) -> Bool[np.ndarray, "*A"]:
    """bool [A_1, ..., A_n]: no other joint action Pareto-dominates this one.

    Only pure joint actions are compared; a mixture may still dominate one marked here.
    """
    n = count_agents(payoffs)
    return undominated(payoffs.reshape(-1, n), tol).reshape(payoffs.shape[:-1])


def social_welfare(payoffs: Float[np.ndarray, "*A n"]) -> Float[np.ndarray, "*A"]:
    """sum_i u_i(a)."""
    return payoffs.sum(axis=-1)


def payoff_dominant(
    payoffs: Float[np.ndarray, "*A n"], equilibria: Sequence[Joint], tol: float = TOL
) -> Joint | None:
    """The equilibrium that Pareto-dominates every other one; None without such or with only one."""
    return _beats_all(equilibria, lambda r, s: bool(pareto_dominates(payoffs[r], payoffs[s], tol)))


def risk_dominates(
    payoffs: Float[np.ndarray, "A1 A2 2"], r: Joint, s: Joint, tol: float = TOL
) -> bool:
    """Equilibrium r risk-dominates equilibrium s (two agents; Harsanyi and Selten 1988).

    In the 2x2 game whose actions are those of r and s, the product of what the agents lose by
    deviating from r alone exceeds the same product for s:

        (u_1(r) - u_1(s_1, r_2)) (u_2(r) - u_2(r_1, s_2))
            > (u_1(s) - u_1(r_1, s_2)) (u_2(s) - u_2(s_1, r_2)).

    All other actions are left out of the comparison. Equilibria that share an agent's action are
    not compared (False).
    """
    if r[0] == s[0] or r[1] == s[1]:
        return False

    def losses(own: Joint, other: Joint) -> float:
        first = payoffs[own][0] - payoffs[other[0], own[1]][0]
        second = payoffs[own][1] - payoffs[own[0], other[1]][1]
        return float(first * second)

    return losses(r, s) > losses(s, r) + tol


def risk_dominant(
    payoffs: Float[np.ndarray, "*A n"], equilibria: Sequence[Joint], tol: float = TOL
) -> Joint | None:
    """The equilibrium that risk-dominates every other one, pair by pair.

    None where there is none, where there is only one equilibrium, and for more than two agents
    (risk dominance is not transitive and has no accepted extension by such products).
    """
    if count_agents(payoffs) != 2:
        return None
    return _beats_all(equilibria, lambda r, s: risk_dominates(payoffs, r, s, tol))


def _beats_all(equilibria: Sequence[Joint], beats: Any) -> Joint | None:
    if len(equilibria) < 2:
        return None
    for r in equilibria:
        if all(beats(r, s) for s in equilibria if s != r):
            return r
    return None


def common_optima(payoffs: Float[np.ndarray, "*A n"], tol: float = TOL) -> list[Joint]:
    """The joint actions that are the best of all for every agent at once."""
    return _where(_individual_optima(payoffs, tol).all(axis=-1))


def no_conflict(payoffs: Float[np.ndarray, "*A n"], tol: float = TOL) -> bool:
    """arg max_pi U_i(pi) = arg max_pi U_j(pi) for all agents i, j: they agree on what is best.

    A joint policy maximises U_i exactly when it plays only joint actions that maximise u_i, so
    comparing the sets of best joint actions decides it.
    """
    best = _individual_optima(payoffs, tol)
    return bool((best == best[..., :1]).all())


def _individual_optima(payoffs: np.ndarray, tol: float) -> np.ndarray:
    n = count_agents(payoffs)
    return payoffs >= payoffs.reshape(-1, n).max(axis=0) - tol


def maximin(
    payoffs: Float[np.ndarray, "*A n"], tol: float = TOL
) -> tuple[list[list[int]], list[float]]:
    """Each agent's safest own actions, arg max_{a_i} min_{a_-i} u_i, and what they guarantee."""
    n = count_agents(payoffs)
    worst = [payoffs[..., i].min(axis=tuple(j for j in range(n) if j != i)) for i in range(n)]
    safest = [[int(k) for k in np.flatnonzero(w >= w.max() - tol)] for w in worst]
    return safest, [float(w.max()) for w in worst]


def expected_payoffs(
    payoffs: Float[np.ndarray, "*A n"], policies: Sequence[np.ndarray]
) -> Float[np.ndarray, " n"]:
    """U_i(pi) of independent mixed policies pi_i, float [A_i]."""
    u = payoffs
    for policy in policies:
        u = np.tensordot(policy, u, axes=1)
    return u


def deviation_gain(
    payoffs: Float[np.ndarray, "*A n"], policies: Sequence[np.ndarray]
) -> Float[np.ndarray, " n"]:
    """max_{a_i} U_i(a_i, pi_-i) - U_i(pi) for each agent; pi is an eps-equilibrium, eps its max."""
    n = count_agents(payoffs)
    gains = []
    for i in range(n):
        u = np.moveaxis(payoffs[..., i], i, -1)
        for j in range(n):
            if j != i:
                u = np.tensordot(policies[j], u, axes=1)
        gains.append(u.max() - np.dot(u, policies[i]))
    return np.asarray(gains)


def mixed_equilibria(
    payoffs: Float[np.ndarray, "A1 A2 2"], tol: float = 1e-6
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Equilibria of a two-agent game, pure ones included, by support enumeration (nashpy).

    Every one returned is checked to leave no deviation gain above ``tol``. In a degenerate game
    there may be more of them than enumeration finds. The work is exponential in the number of
    actions.
    """
    try:
        import nashpy
    except ImportError:
        raise UsageError(f"mixed equilibria need nashpy: {how_to_install('analysis')}") from None
    game = nashpy.Game(payoffs[..., 0], payoffs[..., 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nashpy's word that a game is degenerate: see above
        found: list[Any] = list(game.support_enumeration())
    return [
        (np.asarray(p), np.asarray(q))
        for p, q in found
        if np.isfinite([*p, *q]).all() and deviation_gain(payoffs, (p, q)).max() <= tol
    ]


@dataclass(frozen=True)
class Equilibrium:
    """One pure equilibrium.

    Attributes:
        actions: the joint action, as indices.
        labels: the same, by name.
        payoffs: u_i for each agent.
        welfare: their sum.
        strict: every deviation loses.
        pareto_optimal: no joint action whatever Pareto-dominates it.
        dominated_by: otherwise, the dominating joint action of greatest welfare, by name.
        dominated_by_equilibrium: another equilibrium Pareto-dominates it.
        payoff_dominant: it Pareto-dominates every other equilibrium.
        risk_dominant: it risk-dominates every other equilibrium (two agents).
    """

    actions: Joint
    labels: tuple[str, ...]
    payoffs: tuple[float, ...]
    welfare: float
    strict: bool
    pareto_optimal: bool
    dominated_by: tuple[str, ...] | None
    dominated_by_equilibrium: bool
    payoff_dominant: bool
    risk_dominant: bool


@dataclass(frozen=True)
class GameReport:
    """What there is to say about a game.

    Attributes:
        agents: their names.
        action_labels: for each agent, the names of its actions.
        payoffs: float [A_1, ..., A_n, n].
        common: all agents always get the same payoff.
        constant_sum: the sum of all payoffs is the same for every joint action.
        no_conflict: all agents have the same best joint actions.
        equilibria: the pure equilibria.
        pareto_optimal: joint actions (by name) that no other dominates.
        welfare_optimal: joint actions (by name) of greatest sum.
        safest: each agent's maximin actions, by name.
        guaranteed: the payoff that each agent's maximin actions guarantee.
    """

    agents: tuple[str, ...]
    action_labels: tuple[tuple[str, ...], ...]
    payoffs: np.ndarray
    common: bool
    constant_sum: bool
    no_conflict: bool
    equilibria: tuple[Equilibrium, ...]
    pareto_optimal: tuple[tuple[str, ...], ...]
    welfare_optimal: tuple[tuple[str, ...], ...]
    safest: tuple[tuple[str, ...], ...]
    guaranteed: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it: lists, numbers, strings."""
        return plain(asdict(self))


def plain(value: Any) -> Any:
    """Nested dicts, sequences and arrays as JSON has them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def describe(
    payoffs: Float[np.ndarray, "*A n"],
    agents: Sequence[str] | None = None,
    action_labels: Sequence[Sequence[str]] | None = None,
    tol: float = TOL,
) -> GameReport:
    """All of the above for one game.

    Args:
        payoffs: float [A_1, ..., A_n, n].
        agents: names; default agent_0, agent_1, ...
        action_labels: names of each agent's actions; default their indices.
        tol: payoffs this close count as equal.
    """
    n = count_agents(payoffs)
    names = tuple(agents or (f"agent_{i}" for i in range(n)))
    labels = tuple(
        tuple(own) for own in action_labels or [map(str, range(k)) for k in payoffs.shape[:-1]]
    )
    optimal = pareto_optimal(payoffs, tol)
    welfare = social_welfare(payoffs)
    safest, guaranteed = maximin(payoffs, tol)
    return GameReport(
        agents=names,
        action_labels=labels,
        payoffs=payoffs,
        common=bool((np.ptp(payoffs, axis=-1) <= tol).all()),
        constant_sum=bool(np.ptp(welfare) <= tol),
        no_conflict=no_conflict(payoffs, tol),
        equilibria=_equilibria(payoffs, labels, optimal, tol),
        pareto_optimal=tuple(_named(a, labels) for a in _where(optimal)),
        welfare_optimal=tuple(_named(a, labels) for a in _where(welfare >= welfare.max() - tol)),
        safest=tuple(tuple(labels[i][k] for k in own) for i, own in enumerate(safest)),
        guaranteed=tuple(guaranteed),
    )


def _named(actions: Iterable[int], labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(own[k] for own, k in zip(labels, actions, strict=True))


def _equilibria(
    payoffs: np.ndarray, labels: Sequence[Sequence[str]], optimal: np.ndarray, tol: float
) -> tuple[Equilibrium, ...]:
    joint = pure_equilibria(payoffs, tol)
    best = payoff_dominant(payoffs, joint, tol)
    safest = risk_dominant(payoffs, joint, tol)
    values = np.stack([payoffs[a] for a in joint]) if joint else np.zeros((0, 1))
    among = undominated(values, tol)
    return tuple(
        Equilibrium(
            actions=a,
            labels=_named(a, labels),
            payoffs=tuple(float(u) for u in payoffs[a]),
            welfare=float(payoffs[a].sum()),
            strict=is_strict(payoffs, a, tol),
            pareto_optimal=bool(optimal[a]),
            dominated_by=None if optimal[a] else _named(_dominator(payoffs, a, tol), labels),
            dominated_by_equilibrium=not bool(among[k]),
            payoff_dominant=a == best,
            risk_dominant=a == safest,
        )
        for k, a in enumerate(joint)
    )


def _dominator(payoffs: np.ndarray, actions: Joint, tol: float) -> Joint:
    over = pareto_dominates(payoffs, payoffs[actions], tol)
    best = np.argmax(np.where(over, payoffs.sum(axis=-1), -np.inf))
    return tuple(int(k) for k in np.unravel_index(best, over.shape))
