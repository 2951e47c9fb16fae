"""Games as the lecture prints them, for the terminal (rich)."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coterie.envs.matrix import MatrixGame
from coterie.games import solution_concepts as games
from coterie.show.numbers import number, plural
from coterie.show.terminal.console import line

OPTIMAL = "bold green"
DOMINATED = "yellow"

_MAX_ACTIONS = 12
"""Payoff tables with more rows or columns than this are not drawn."""
_MAX_SLICES = 8
_MAX_EQUILIBRIA = 12
_MAX_SUPPORT = 5
"""Mixed equilibria are listed up to this many actions: enumeration is exponential."""


def render_game(env: MatrixGame) -> RenderableType:
    """The payoff table with its equilibria marked, what marks them out, and the game's traits."""
    report = games.describe(env.payoffs, env.agents, env.action_labels)
    parts: list[RenderableType] = [_heading(env, report), *_payoffs(report), _legend(report)]
    parts += [_equilibria(report)] if report.equilibria else []
    parts += [*_mixed(report), _traits(report)]
    return Group(*(Padding(part, (0, 0, 1, 1)) for part in parts))


def _heading(env: MatrixGame, report: games.GameReport) -> Text:
    n = len(env.agents)
    kind = "common payoff" if report.common else "general sum"
    if report.constant_sum and not report.common:
        kind = f"constant sum {number(float(report.payoffs.sum(axis=-1).flat[0]))}"
        kind = "zero sum" if kind == "constant sum 0" else kind
    traits = [plural(n, "agent"), kind]
    traits += ["single-shot" if env.rounds == 1 else f"{env.rounds} rounds"]
    return line((env.name, "bold"), ("   " + " · ".join(traits), "dim"))


def _joint(labels: Sequence[str]) -> str:
    return f"({', '.join(labels)})" if len(labels) > 1 else labels[0]


def _paid(payoffs: Iterable[float], common: bool) -> str:
    texts = [number(float(u)) for u in payoffs]
    return texts[0] if common else ", ".join(texts)


# ---------------------------------------------------------------------------------------------
# The payoff table
# ---------------------------------------------------------------------------------------------


def _payoffs(report: games.GameReport) -> list[RenderableType]:
    """One table; for n > 2 agents one for each joint action of agents 3, ..., n."""
    counts = report.payoffs.shape[:-1]
    others = counts[2:]
    slices = int(np.prod(others, dtype=np.int64))
    if max(counts[:2]) > _MAX_ACTIONS or slices > _MAX_SLICES:
        size = " × ".join(str(k) for k in counts)
        return [line(f"{size} joint actions: too large to draw, equilibria only.", style="dim")]
    rest = list(itertools.product(*(range(k) for k in others)))
    tables = [_slice(report, actions) for actions in rest]
    return [tables[0]] if len(tables) == 1 else [Columns(tables, padding=(1, 4))]


def _slice(report: games.GameReport, rest: tuple[int, ...]) -> Table:
    """Rows: actions of the first agent; columns: of the second; the others play ``rest``."""
    agents, labels = report.agents, report.action_labels
    fixed = [f"{agents[i]} plays {labels[i][k]}" for i, k in enumerate(rest, start=2)]
    alone = len(agents) == 1
    corner = agents[0] if alone else f"{agents[0]} ↓  {agents[1]} →"
    table = Table(
        box=box.ROUNDED,
        title=line(", ".join(fixed)) if fixed else None,
        title_style="bold",
        title_justify="left",
        border_style="dim",
        show_lines=True,
        pad_edge=True,
    )
    table.add_column(line(corner, style="dim"), style="bold", justify="left")
    for label in ("payoff",) if alone else labels[1]:
        table.add_column(line(label, style="bold"), justify="center")
    marks = {e.actions: e for e in report.equilibria}
    for row, label in enumerate(labels[0]):
        joint = [(row,)] if alone else [(row, k, *rest) for k in range(len(labels[1]))]
        table.add_row(line(label), *(_cell(report, a, marks.get(a)) for a in joint))
    return table


def _cell(
    report: games.GameReport, actions: tuple[int, ...], equilibrium: games.Equilibrium | None
) -> Text:
    text = _paid(report.payoffs[actions], report.common)
    if equilibrium is None:
        return line(f" {text} ")
    # the blank before balances the mark after, so that numbers stay in the middle of the cell
    return line(f" {text}{_mark(equilibrium)}", style=_style(equilibrium))


def _mark(equilibrium: games.Equilibrium) -> str:
    return "‡" if equilibrium.pareto_optimal else "†"


def _style(equilibrium: games.Equilibrium) -> str:
    return OPTIMAL if equilibrium.pareto_optimal else DOMINATED


def _legend(report: games.GameReport) -> Text:
    if not report.equilibria:
        return line("No pure equilibrium.", style="dim")
    return line(
        ("‡", OPTIMAL),
        " Pareto-optimal equilibrium   ",
        ("†", DOMINATED),
        " Pareto-dominated equilibrium",
    )


# ---------------------------------------------------------------------------------------------
# What is said below it
# ---------------------------------------------------------------------------------------------


def _equilibria(report: games.GameReport) -> RenderableType:
    """The pure equilibria, one a line, with what distinguishes each."""
    table = _list("Equilibrium")
    table.add_column("Payoff" if report.common else "Payoffs", justify="right")
    if not report.common:
        table.add_column("Welfare", justify="right")
    table.add_column("Properties")
    best_first = sorted(report.equilibria, key=lambda e: (-e.welfare, e.actions))
    for e in best_first[:_MAX_EQUILIBRIA]:
        cells = [line(_joint(e.labels) + _mark(e), style=_style(e))]
        cells += [line(_paid(e.payoffs, report.common))]
        cells += [] if report.common else [line(number(e.welfare))]
        table.add_row(*cells, line(_properties(e)))
    more = len(best_first) - _MAX_EQUILIBRIA
    return table if more <= 0 else Group(table, line(f"... and {more} more", style="dim"))


def _properties(e: games.Equilibrium) -> str:
    words = ["strict" if e.strict else "weak"]
    words += ["payoff-dominant"] if e.payoff_dominant else []
    words += ["risk-dominant"] if e.risk_dominant else []
    words += [f"dominated by {_joint(e.dominated_by)}"] if e.dominated_by else []
    return ", ".join(words)


def _mixed(report: games.GameReport) -> list[RenderableType]:
    """Properly mixed equilibria of a small two-agent game, where nashpy is installed."""
    counts = report.payoffs.shape[:-1]
    small = len(counts) == 2 and max(counts) <= _MAX_SUPPORT
    if not small or importlib.util.find_spec("nashpy") is None:
        return []
    found = [p for p in games.mixed_equilibria(report.payoffs) if min(max(x) for x in p) < 1 - 1e-9]
    if not found:
        return []
    table = _list("Mixed equilibrium", *[""] * (len(counts) - 1))
    table.add_column("Payoff" if report.common else "Payoffs", justify="right")
    for policies in found[:_MAX_EQUILIBRIA]:
        who = zip(report.agents, report.action_labels, policies, strict=True)
        cells = [line(f"{agent}: {_policy(labels, p)}") for agent, labels, p in who]
        paid = games.expected_payoffs(report.payoffs, policies)
        table.add_row(*cells, line(_paid(paid, report.common)))
    return [table]


def _list(*headers: str) -> Table:
    """A table without frame, its heading underlined."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.border_style = "dim"
    for header in headers:
        table.add_column(header)
    return table


def _policy(labels: Sequence[str], policy: np.ndarray) -> str:
    return ", ".join(
        f"{label} {p:.3g}" for label, p in zip(labels, policy, strict=True) if p > 1e-9
    )


def _traits(report: games.GameReport) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    guaranteed = _paid(report.guaranteed, len(set(report.guaranteed)) == 1)
    agreed = "yes, all agents have the same best joint actions" if report.no_conflict else "no"
    table.add_row("Greatest welfare", line(_greatest(report)))
    table.add_row(
        "Safest actions", line(f"{_safest(report)}, which guarantee a payoff of {guaranteed}")
    )
    table.add_row("No-conflict game", agreed)
    return table


def _greatest(report: games.GameReport) -> str:
    best = report.welfare_optimal
    if len(best) > 1 and report.constant_sum:
        return "every joint action"
    names = [_joint(a) for a in best[:_MAX_SLICES]]
    return ", ".join(names) + (f" and {len(best) - _MAX_SLICES} more" * (len(best) > _MAX_SLICES))


def _safest(report: games.GameReport) -> str:
    pairs = zip(report.safest, report.action_labels, strict=True)
    return _joint(["any" if len(own) == len(every) > 1 else "|".join(own) for own, every in pairs])
