"""Which equilibrium each algorithm selects (lecture, "Equilibrium Selection Problem")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie import envs
from coterie.envs.matrix import MatrixGame
from coterie.games.solution_concepts import describe
from coterie.lecture.base.blocks import ended, outcomes, tally
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.numbers import number
from coterie.show.report.blocks import Grid, Table

GAMES = {
    "stag-hunt": (("ia2c", "ippo", "pac"), 100_000),
    "climbing": (("ia2c", "maa2c", "pac"), 300_000),
}
"""The lecture's two games: who learns them, for how many steps."""


class Equilibria(Experiment):
    """Stag Hunt and Climbing: all equilibria, what they are, and who went where."""

    number = 4
    minutes = (4, 1.1)
    title = "The equilibrium selection problem"
    source = "Lecture, “The Equilibrium Selection Problem”"
    about = (
        "Both games have several pure Nash equilibria, one of them best for everybody. "
        "Learners that start close to uniformly random play go to the other one, where a mistake "
        "of one's partner costs less; Pareto actor-critic goes to the Pareto-optimal one."
    )

    def recipes(self) -> dict[str, Recipe]:
        size: dict[str, Any] = {"seeds": 20, "quick_seeds": 5, "final_episodes": 32}
        found = {}
        for game, (algorithms, steps) in GAMES.items():
            for name in algorithms:
                found[f"{game} {name}"] = Recipe(
                    name,
                    f"matrix/{game}",
                    steps,
                    **size,
                    quick_steps=100_000 if name == "pac" else min(steps, 200_000),
                    evaluations=40 if game == "climbing" else 20,
                )
        return found

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        numbers: Numbers = {}
        for game, (algorithms, _) in GAMES.items():
            env = _game(game)
            numbers[game] = {
                "theory": describe(env.payoffs, env.agents, env.action_labels).to_dict(),
                "ended": {name: outcomes(trained[f"{game} {name}"]) for name in algorithms},
            }
        return numbers

    def checks(self, numbers: Numbers) -> list[Check]:
        hunt, climbing = (numbers[game]["ended"] for game in GAMES)
        return [
            *(_theory(numbers[game]["theory"], game) for game in GAMES),
            _all_at(
                "Stag Hunt: Pareto actor-critic hunts the stag, (A, A)", hunt["pac"], [0, 0], ""
            ),
            *(
                _all_at(
                    f"Stag Hunt: {name} ends at the risk-dominant (B, B)", hunt[name], [1, 1], ""
                )
                for name in ("ia2c", "ippo")
            ),
            _all_at("Climbing: Pareto actor-critic ends at (A, A)", climbing["pac"], [0, 0], "11"),
            *(_dominated(f"Climbing: {name}", climbing[name]) for name in ("ia2c", "maa2c")),
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        pictures = [ended(_game(game), numbers[game]["ended"]) for game in GAMES]
        rows: list[list[Any]] = []
        for game in GAMES:
            for name, seeds in numbers[game]["ended"].items():
                for cell in sorted({s["labels"] for s in seeds}):
                    there = [s for s in seeds if s["labels"] == cell]
                    one = there[0]
                    pays = ", ".join(map(number, one["payoffs"]))
                    gain = max(one["gain"])
                    count = f"{len(there)} of {len(seeds)}"
                    kind = one["kind"].removesuffix(" equilibrium")
                    rows.append([game, name, ", ".join(cell), count, pays, kind, gain])
        headers = ["game", "algorithm", "ended at", "seeds", "payoffs", "equilibrium", "gain"]
        caption = (
            "Greedy play of the last policies. Gain: the most that one agent alone could add to "
            "its payoff by another action."
        )
        return [Grid(pictures, 2), Table(headers, rows, caption)]


def _game(name: str) -> MatrixGame:
    env = envs.make(f"matrix/{name}")
    assert isinstance(env, MatrixGame)
    return env


def _all_at(claim: str, seeds: list[dict[str, Any]], cell: list[int], published: str) -> Check:
    there = sum(s["actions"] == cell for s in seeds)
    return Check(
        f"{claim}, on at least 9 of 10 seeds", published, tally(seeds), there >= 0.9 * len(seeds)
    )


def _dominated(who: str, seeds: list[dict[str, Any]]) -> Check:
    near = sum(s["actions"] in ([1, 1], [2, 1]) for s in seeds)
    return Check(
        f"{who} mostly ends at (B, B) or on the way there, at (C, B), and never at (A, A)",
        "7 (centralised A2C)",
        tally(seeds),
        near > len(seeds) / 2 and all(s["actions"] != [0, 0] for s in seeds),
    )


def _theory(report: dict[str, Any], game: str) -> Check:
    """The lecture's equilibria of both games, and which of them dominates which."""
    found = {tuple(e["actions"]): e for e in report["equilibria"]}
    optimal = [a for a, e in found.items() if e["pareto_optimal"]]
    safe = [a for a, e in found.items() if e["risk_dominant"]]
    names = ", ".join("".join(e["labels"]) for e in found.values())
    return Check(
        f"{game}: (A, A) and (B, B) are the pure equilibria, only (A, A) is Pareto-optimal",
        "lecture",
        f"{names}; risk-dominant: {', '.join(''.join(found[a]['labels']) for a in safe)}",
        set(found) == {(0, 0), (1, 1)}
        and optimal == [(0, 0)]
        and (game != "stag-hunt" or safe == [(1, 1)]),
    )
