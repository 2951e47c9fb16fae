"""Returns of a run's policies for the terminal: whose, of which step, played how, which return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from coterie.errors import UsageError
from coterie.runs.evaluation import interests_conflict, team_return
from coterie.runs.run import Run
from coterie.show.metrics import PLAY, check_asked, in_words
from coterie.show.numbers import folded, interval, number, of_steps
from coterie.show.terminal.console import line
from coterie.training.evaluate import INFO, return_metrics


def render_returns(
    run: Run,
    results: Mapping[str, Mapping[str, Any]],
    metric: str | None = None,
    greedy: bool = False,
) -> RenderableType:
    """A table for each kind of policies, one for both where they are the same: sampled play first,
    greedy beside it.

    Args:
        results: by ``best`` and ``last``, what ``Run.evaluate`` returns.
        metric: the one to show, such as ``eval/length``; the run's own unless given.
        greedy: show greedy play only.
    """
    names = chosen_metrics(run, next(iter(results.values())), metric, greedy)
    parts: list[RenderableType] = []
    together = [list(results)] if run.last_is_best else [[which] for which in results]
    for which in together:
        parts += [line()] * bool(parts)
        parts += [line(policies(run, *which), style="bold"), _table(results[which[0]], names)]
    return Group(*parts)


def check_metric(run: Run, metric: str | None, greedy: bool) -> None:
    """UsageError where an evaluation cannot have this metric: to be asked before it is made."""
    check_asked(metric, greedy)
    agents, plays = run.game.players.agents, ["eval"] + ["eval_sampled"] * run.stochastic
    nothing = np.zeros((1, len(agents))), np.zeros(1)
    names = [name for play in plays for name in return_metrics(play, agents, *nothing)]
    reported = metric is not None and metric.startswith(tuple(play + INFO for play in plays))
    if metric is not None and metric not in names and not reported:
        raise UsageError(f"there is no metric {metric!r}; there are {', '.join(names)}")


def asked_metrics(metrics: Mapping[str, Any], metric: str | None, greedy: bool) -> dict[str, Any]:
    """Of an evaluation's metrics the one asked for, those of greedy play, or all.

    Raises:
        UsageError: the environment reported nothing under the name that was asked for.
    """
    if metric is None:
        return {n: m for n, m in metrics.items() if n.startswith("eval/") or not greedy}
    if metric not in metrics:
        known = [name for name in metrics if INFO in name]
        there = f"there are {', '.join(known)}" if known else "it reports nothing"
        raise UsageError(f"the environment reported no {metric!r}; {there}")
    return {metric: metrics[metric]}


def chosen_metrics(
    run: Run, metrics: Mapping[str, Any], metric: str | None, greedy: bool
) -> list[str]:
    """The metrics to show: the one asked for, or the run's returns and the episodes' length."""
    if metric is not None:
        return [metric]
    shown = [team_return(run.game.players)]
    if interests_conflict(run.game):
        named = (name.partition("/")[2] for name in metrics)
        shown = list(dict.fromkeys(name for name in named if name.startswith("return/agent/")))
    plays = ["eval"] if greedy else list(PLAY)
    names = [f"{play}/{name}" for name in (*shown, "length") for play in plays]
    return [name for name in names if name in metrics]


def policies(run: Run, *which: str) -> str:
    """The policies of all seeds in words: "best policies, of steps 4,000, 1,000 (by seed)"."""
    return f"{' and '.join(which)} policies{of_steps(run.policy_steps.get(which[0], []))}"


def cells(metrics: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headers; a row for each metric: its name, mean, interval, and each of several seeds."""
    seeds = max(metrics[name]["seeds"] for name in names)
    over = "95% interval over " + ("seeds" if seeds > 1 else "episodes")
    headers = ["", "mean", over] + ["IQM", f"each of {seeds} seeds"] * (seeds > 1)
    rows = []
    for m, name in ((metrics[name], name) for name in names):
        ends = m["ci95"] if seeds > 1 else m.get("ci95_episodes")
        row = [in_words(name), number(m["mean"]), interval(ends)]
        rows.append(row + ([number(m["iqm"]), folded(m["per_seed"])] if seeds > 1 else []))
    return headers, rows


def _table(metrics: Mapping[str, Any], names: Sequence[str]) -> Table:
    headers, rows = cells(metrics, names)
    table = Table(*headers, box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name, mean, *rest in rows:
        table.add_row(name, line(mean, style="bold"), *rest)
    return table
