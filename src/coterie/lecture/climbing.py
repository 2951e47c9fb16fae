"""Learning curves in the climbing game (lecture, "Pareto Actor-Critic")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.lecture.base.blocks import (
    ended,
    episode,
    final_returns,
    learning_curves,
    mean_payoff,
    outcomes,
    share,
    summary_table,
    tally,
)
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Recipe, Scale
from coterie.runs.run import Run
from coterie.show.metrics import bounds
from coterie.show.numbers import number

BEST, SAFE = 11.0, 7.0
"""Per agent: the lecture's curves of Pareto-AC and of centralised A2C end here."""


class Climbing(Experiment):
    """Centralised A2C climbs to the middle equilibrium, Pareto actor-critic to the best one."""

    number = 3
    minutes = (3, 0.6)
    title = "Equilibrium selection: learning curves in the climbing game"
    source = "Lecture, “Pareto Actor-Critic for Equilibrium Selection in Climbing Game”"
    about = (
        "Two agents get a common reward. A miscoordinated try for the best outcome (A, A) costs"
        " 30, so learners drift to a safer one. Pareto actor-critic assumes that the others "
        "play what is best for all, and goes for 11."
    )

    def recipes(self) -> dict[str, Recipe]:
        size: dict[str, Any] = {
            "seeds": 20,
            "quick_seeds": 5,
            "evaluations": 40,
            "final_episodes": 32,
        }
        return {
            name: Recipe(name, "matrix/climbing", 300_000, **size, quick_steps=quick)
            for name, quick in (("maa2c", 200_000), ("pac", 100_000))
        }

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        ended = {name: outcomes(run) for name, run in trained.items()}
        return ended | {"sampled": {name: final_returns(run) for name, run in trained.items()}}

    def checks(self, numbers: Numbers) -> list[Check]:
        pac, maa2c = numbers["pac"], numbers["maa2c"]
        return [
            Check(
                "Pareto actor-critic ends at 11 on at least 9 of 10 seeds",
                number(BEST),
                tally(pac),
                share(pac, BEST) >= 0.9,
            ),
            Check(
                f"Centralised A2C mostly ends at 7, and at 11 on none of these {len(maa2c)} seeds",
                number(SAFE),
                tally(maa2c),
                share(maa2c, SAFE) > 0.5 and share(maa2c, BEST) == 0,
            ),
        ]

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        greedy = {name: mean_payoff(numbers[name]) for name in trained}
        returns = numbers["sampled"]
        env: Any = trained["pac"].game.env
        within = bounds(trained["pac"].config, "eval/return/team_mean")
        published = {"lecture, Pareto-AC": BEST, "lecture, A2C": SAFE}
        return [
            learning_curves(
                trained,
                "eval_sampled/return/team_mean",
                published,
                "Policies sampled; their greedy play is in the table.",
            ),
            summary_table(
                returns, "sampled return", "Per agent: the last policies, sampled.", within
            ),
            summary_table(greedy, "greedy return", "Per agent: the last policies, greedy.", within),
            ended(env, {name: numbers[name] for name in trained}),
            episode(trained["pac"], returns["pac"], "A team of Pareto actor-critic"),
        ]
