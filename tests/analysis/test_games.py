"""Equilibria and their properties, against numbers worked out by hand."""

import json

import numpy as np
import pytest
from rich.console import Console

from coterie import envs
from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError
from coterie.games import solution_concepts as games
from coterie.show.numbers import number
from coterie.show.terminal.games import render_game


def payoffs(name):
    return envs.make(f"matrix/{name}").payoffs


def describe(name):
    game = envs.make(f"matrix/{name}")
    return games.describe(game.payoffs, game.agents, game.action_labels)


def equilibria(name):
    return {"".join(e.labels): e for e in describe(name).equilibria}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stag-hunt", [(0, 0), (1, 1)]),
        ("climbing", [(0, 0), (1, 1)]),
        ("linear", [(1, 1)]),
        ("monotonic", [(0, 0), (1, 1)]),  # at (A, A) either agent alone still gets 0: weak
        ("penalty-50", [(0, 2), (1, 1), (2, 0)]),
        ("prisoners-dilemma", [(1, 1)]),
        ("matching-pennies", []),
        ("rock-paper-scissors", []),
        ("battle-of-the-sexes", [(0, 0), (1, 1)]),
        ("chicken", [(0, 1), (1, 0)]),
    ],
)
def test_pure_equilibria(name, expected):
    assert games.pure_equilibria(payoffs(name)) == expected


def test_stag_hunt():
    found = equilibria("stag-hunt")
    assert found["AA"].pareto_optimal
    assert found["AA"].payoff_dominant
    assert not found["AA"].risk_dominant
    assert found["BB"].risk_dominant  # losses (2-0)(2-0) = 4 against (4-3)(4-3) = 1
    assert found["BB"].dominated_by == ("A", "A")
    assert found["BB"].dominated_by_equilibrium
    assert found["AA"].welfare == 8
    assert all(e.strict for e in found.values())


def test_climbing():
    found = equilibria("climbing")
    assert found["AA"].pareto_optimal
    assert found["AA"].payoff_dominant
    assert found["AA"].risk_dominant  # 41 * 41 against 37 * 37
    assert not found["BB"].pareto_optimal
    assert games.maximin(payoffs("climbing")) == ([[2], [2]], [0.0, 0.0])


def test_risk_dominance_changes_with_the_reward_of_the_stag():
    """Losses (x - 3)^2 against 2^2: the stag is risk-dominant exactly for x > 5."""
    hunt = payoffs("stag-hunt").copy()
    for stag, expected in [(4.9, (1, 1)), (5.0, None), (5.1, (0, 0))]:
        hunt[0, 0] = stag
        assert games.risk_dominant(hunt, [(0, 0), (1, 1)]) == expected


def test_risk_dominance_between_asymmetric_agents_is_of_the_product():
    """Deviating from (A, A) loses 3 and 1, from (B, B) 2 and 2: 3 < 4, though 3 + 1 = 2 + 2."""
    table = np.zeros((2, 2, 2))
    table[0, 0] = (3, 1)
    table[1, 1] = (2, 2)
    assert games.risk_dominant(table, games.pure_equilibria(table)) == (1, 1)


def test_prisoners_dilemma_equilibrium_is_dominated_by_no_equilibrium():
    (only,) = games.describe(payoffs("prisoners-dilemma")).equilibria
    assert not only.pareto_optimal
    assert only.dominated_by == ("0", "0")
    assert not only.dominated_by_equilibrium
    assert not only.payoff_dominant
    assert not only.risk_dominant


def test_penalty_has_two_best_equilibria_and_so_no_payoff_dominant_one():
    found = equilibria("penalty-50")
    assert {k for k, e in found.items() if e.pareto_optimal} == {"AC", "CA"}
    assert not any(e.payoff_dominant for e in found.values())


def test_weak_equilibria_and_the_tolerance():
    assert [e.strict for e in games.describe(payoffs("monotonic")).equilibria] == [False, True]
    nearly = np.array([[1.0, 1.0 + 1e-12], [0.0, 0.0]])[..., None].repeat(2, axis=-1)
    assert games.pure_equilibria(nearly) == [(0, 0), (0, 1)]
    assert games.pure_equilibria(nearly, tol=0.0) == [(0, 1)]


def test_deviation_gains():
    gains = games.deviation_gains(payoffs("prisoners-dilemma"))
    np.testing.assert_array_equal(gains[0, 0], [1, 1])
    np.testing.assert_array_equal(gains[0, 1], [2, 0])
    np.testing.assert_array_equal(gains[1, 1], [0, 0])


def test_three_agents():
    """Majority of three: paid 1 each when all agree, the odd one out alone loses 1."""
    table = np.zeros((2, 2, 2, 3))
    for a in np.ndindex(2, 2, 2):
        for i in range(3):
            table[(*a, i)] = 1.0 if len(set(a)) == 1 else -1.0 * (a.count(a[i]) == 1)
    assert games.pure_equilibria(table) == [(0, 0, 0), (1, 1, 1)]
    assert games.risk_dominant(table, [(0, 0, 0), (1, 1, 1)]) is None
    assert games.no_conflict(table)


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [
        ((2, 1), (1, 1), True),
        ((2, 2), (1, 1), True),
        ((1, 1), (1, 1), False),
        ((9, 0), (1, 1), False),
    ],
)
def test_pareto_dominance(u, v, expected):
    assert bool(games.pareto_dominates(np.array(u), np.array(v))) is expected


def test_pareto_front_agrees_with_comparing_all_pairs():
    rng = np.random.default_rng(0)
    for n, high in [(2, 4), (3, 3), (1, 5)]:
        points = rng.integers(0, high, (60, n)).astype(float)
        slow = [not any(games.pareto_dominates(q, p) for q in points) for p in points]
        np.testing.assert_array_equal(games.undominated(points), slow)


def test_pareto_optimal_outcomes_of_chicken():
    expected = [[False, True], [True, True]]
    np.testing.assert_array_equal(games.pareto_optimal(payoffs("chicken")), expected)


@pytest.mark.parametrize(
    ("name", "agreed", "constant_sum"),
    [
        ("stag-hunt", True, False),
        ("climbing", True, False),
        ("prisoners-dilemma", False, False),
        ("battle-of-the-sexes", False, False),
        ("matching-pennies", False, True),
    ],
)
def test_no_conflict_and_constant_sum(name, agreed, constant_sum):
    report = games.describe(payoffs(name))
    assert (report.no_conflict, report.constant_sum) == (agreed, constant_sum)


def test_overlapping_but_unequal_optima_are_a_conflict():
    table = np.array([[[1.0, 1.0], [1.0, 0.0]]])
    assert games.common_optima(table) == [(0, 0)]
    assert not games.no_conflict(table)


def test_mixed_policies():
    hunt = payoffs("stag-hunt")
    uniform = np.array([0.5, 0.5])
    np.testing.assert_allclose(games.expected_payoffs(hunt, [uniform, uniform]), [2.25, 2.25])
    # against a uniform other, B pays 2.5 and A pays 2
    np.testing.assert_allclose(games.deviation_gain(hunt, [uniform, uniform]), [0.25, 0.25])
    mixed = np.array([2 / 3, 1 / 3])
    np.testing.assert_allclose(games.deviation_gain(hunt, [mixed, mixed]), 0, atol=1e-12)
    pure = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    np.testing.assert_allclose(games.deviation_gain(hunt, pure), [2, 1])


def test_deviation_gain_of_three_agents_agrees_with_pure_deviations():
    table = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    for a in [(0, 0, 0), (1, 2, 3), (0, 2, 1)]:
        policies = [np.eye(k)[x] for k, x in zip((2, 3, 4), a, strict=True)]
        np.testing.assert_allclose(
            games.deviation_gain(table, policies), games.deviation_gains(table)[a]
        )


def test_mixed_equilibria():
    pytest.importorskip("nashpy")
    ((p, q),) = games.mixed_equilibria(payoffs("rock-paper-scissors"))
    np.testing.assert_allclose([p, q], 1 / 3)
    hunt = games.mixed_equilibria(payoffs("stag-hunt"))
    assert sorted(round(float(p[0]), 6) for p, _ in hunt) == [0.0, 0.666667, 1.0]
    assert games.mixed_equilibria(payoffs("monotonic"))  # degenerate, and no warning


def test_report_is_json():
    report = describe("prisoners-dilemma")
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read["equilibria"][0]["labels"] == ["Defect", "Defect"]
    assert read["equilibria"][0]["payoffs"] == [-3, -3]
    assert read["payoffs"][0][1] == [-5, 0]
    assert read["welfare_optimal"] == [["Cooperate", "Cooperate"]]
    assert read["safest"] == [["Defect"], ["Defect"]]
    assert read["guaranteed"] == [-3, -3]


def test_a_table_without_the_agent_axis_is_refused():
    with pytest.raises(UsageError, match="must have shape"):
        games.describe(np.zeros((3, 3)))


def shown(game):
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(render_game(game))
    return capture.get()


def test_render_marks_the_equilibria():
    text = shown(envs.make("matrix/climbing"))
    assert "11‡" in text
    assert "7†" in text
    assert "−30" in text
    assert "dominated by (A, A)" in text
    assert "4, 4‡" in shown(envs.make("matrix/stag-hunt"))
    assert "No pure equilibrium" in shown(envs.make("matrix/matching-pennies"))


def test_render_takes_any_number_of_agents():
    assert "third plays B" in shown(MatrixGame(np.zeros((2, 2, 2)), agents=("a", "b", "third")))
    many = shown(MatrixGame(np.zeros((2,) * 7)))
    assert "too large to draw" in many
    assert "and 116 more" in many
    assert "3‡" in shown(MatrixGame([1.0, 2.0, 3.0]))


def test_render_shows_markup_in_names_as_it_is():
    game = MatrixGame([[1, 2], [3, 4]], agents=("[red]a", "b"), actions=["[b]x", "[/]"])
    text = shown(game)
    assert "[red]a" in text
    assert "[b]x" in text
    assert "[/]" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (-30, "−30"), (2.5, "2.5"), (1 / 3, "0.3333"), (123456.0, "123456")],
)
def test_number(value, text):
    assert number(float(value)) == text
