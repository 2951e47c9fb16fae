"""What several experiments show alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coterie.analysis.learned import learned_play
from coterie.envs.matrix import MatrixGame
from coterie.games.solution_concepts import describe
from coterie.runs.evaluation import headline
from coterie.runs.run import Run
from coterie.show.curves import aggregate, series
from coterie.show.film.recording import record
from coterie.show.metrics import bounds, in_words
from coterie.show.numbers import folded, interval, number, proportion
from coterie.show.report.blocks import Curves, Matrix, Table, Viewer
from coterie.statistics import Bounds, summarise


def learning_curves(
    trained: Mapping[str, Run],
    metric: str,
    references: Mapping[str, float],
    caption: str,
) -> Curves:
    """A metric of runs against environment steps, one panel an environment."""
    panels: dict[str, list[Any]] = {}
    for run in trained.values():
        assert run.path is not None
        within = bounds(run.config, metric)
        curve = aggregate(run.config["algorithm"], series(run.path, metric), within)
        panels.setdefault(run.config["environment"], []).append(curve)
    title = in_words(metric)
    return Curves(panels, title, references=dict(references), caption=caption)


def final_returns(run: Run, which: str = "last", episodes: int = 320) -> list[float]:
    """Each seed's return, by the metric and the play that stand for the run."""
    metric = headline(run.game, run.stochastic)
    return run.evaluate(episodes, which)[metric]["per_seed"]


def outcomes(run: Run) -> list[dict[str, Any]]:
    """What each seed's team plays greedily at the end of training on a matrix game."""
    return [
        {"actions": list(play.actions), "labels": "".join(play.labels), "kind": play.kind,
         "payoffs": list(play.payoffs), "gain": list(play.gain)}
        for play in learned_play(run, which="last")
    ]  # fmt: skip


def mean_payoff(played: Iterable[Mapping[str, Any]]) -> list[float]:
    """Each seed's greedy return per agent."""
    return [float(np.mean(p["payoffs"])) for p in played]


def share(played: Sequence[Mapping[str, Any]], payoff: float) -> float:
    """The share of seeds whose greedy return per agent is this payoff."""
    return float(np.mean(np.isclose(mean_payoff(played), payoff)))


def tally(played: Sequence[Mapping[str, Any]]) -> str:
    """Where seeds ended: "7 on 17 of 20 (62 to 97%), 6 on 3 of 20 (3 to 38%)"."""
    counts = Counter(round(x, 3) for x in mean_payoff(played))
    each = counts.most_common()
    return ", ".join(f"{number(x)} on {proportion(k, len(played))}" for x, k in each)


def ended(env: MatrixGame, played: Mapping[str, Sequence[Mapping[str, Any]]]) -> Matrix:
    """A two-player game's payoffs and equilibria, and how many seeds ended at each outcome."""
    report = describe(env.payoffs, env.agents, env.action_labels)
    marks = {e.actions: e for e in report.equilibria}
    rows, columns = env.action_labels
    notes = []
    for r in range(len(rows)):
        line = []
        for c in range(len(columns)):
            words = (
                ["Nash" + ", Pareto\u2011optimal" * marks[r, c].pareto_optimal]
                if (r, c) in marks
                else []
            )
            words += [
                f"{name}: {k}\u00a0of\u00a0{len(seeds)}"
                for name, seeds in played.items()
                if (k := sum(s["actions"] == [r, c] for s in seeds))
            ]
            line.append("\n".join(words))
        notes.append(line)
    paid = "Payoff of each agent" if env.common else f"Payoffs of {' and '.join(env.agents)}"
    return Matrix(
        values=env.payoffs.mean(axis=-1).tolist(),
        rows=list(rows),
        columns=list(columns),
        title=env.name,
        texts=None if env.common else [[_pair(cell) for cell in line] for line in env.payoffs],
        notes=notes,
        marked={(a[0], a[1]) for a in marks},
        scale="diverging" if env.payoffs.min() < 0 else "sequential",
        agents=(env.agents[0], env.agents[1]),
        caption=f"{paid}. Framed: pure Nash equilibria; below: seeds that ended there.",
    )


def _pair(payoffs: np.ndarray) -> str:
    return ", ".join(map(number, payoffs))


def summary_table(
    results: Mapping[str, Sequence[float]],
    what: str,
    caption: str = "",
    within: Bounds | None = None,
) -> Table:
    """Mean, interquartile mean, interval and every seed of several algorithms.

    Args:
        within: what the numbers can be at least and at most; intervals stay between them.
    """
    rows: list[list[Any]] = []
    for name, per_seed in results.items():
        s = summarise(per_seed, within)
        rows.append([name, s["mean"], interval(s["ci95"]), s["iqm"], s["seeds"], folded(per_seed)])
    headers = ["algorithm", what, "95% interval", "IQM", "seeds", "each seed"]
    return Table(headers, rows, caption)


def episode(run: Run, per_seed: Sequence[float], who: str) -> Viewer:
    """An episode of the best seed's team, played as its policies act."""
    best = int(np.argmax(per_seed))
    recording = record(run, seed=best)
    return Viewer(recording, f"{who}: {recording.title}.")
