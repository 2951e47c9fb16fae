"""What a run learned of a matrix game, for the terminal (rich)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from coterie.analysis.igm import (
    Decomposition,
    Verdict,
    has_joint_value,
    learned_decomposition,
    learned_verdict,
)
from coterie.analysis.learned import Play, learned_play, single_shot
from coterie.errors import UsageError
from coterie.runs.run import Run
from coterie.show.numbers import number
from coterie.show.terminal.console import line

Tables = list[tuple[Decomposition, Verdict]]


def learned(run: Run) -> tuple[list[Play], Tables]:
    """Each seed's play, and of a joint value (VDN, QMIX) its decomposition with the verdict on it.

    Raises:
        UsageError: the run is not on a single-shot matrix game.
    """
    plays = learned_play(run)
    if not has_joint_value(run):
        return plays, []
    seeds = range(run.config["seeds"])
    try:
        return plays, [(learned_decomposition(run, k), learned_verdict(run, k)) for k in seeds]
    except UsageError:  # too many actions for the bound: the tables alone would be as long
        return plays, []


def render_learned(run: Run) -> RenderableType:
    """Where each seed ended, and the decomposition of each."""
    plays, tables = learned(run)
    labels = single_shot(run).action_labels
    title = f"{run.config['algorithm']}, last policies"
    parts: list[RenderableType] = [line(title, style="bold"), _plays(plays)]
    if tables:
        parts.append(_verdicts(tables))
    if len(labels) == 2:
        parts += [_decomposition(k, found, labels) for k, (found, _) in enumerate(tables)]
    return Group(*(Padding(part, (0, 0, 1, 1)) for part in parts))


def to_dict(run: Run) -> dict[str, Any]:
    """The same for a program."""
    plays, tables = learned(run)
    return {
        "algorithm": run.config["algorithm"],
        "play": [play.to_dict() for play in plays],
        "decompositions": [found.to_dict() | {"verdict": v.to_dict()} for found, v in tables],
    }


def _plays(plays: Sequence[Play]) -> Table:
    drawn = any(play.sampled for play in plays)
    table = _table("seed", "plays", "payoffs", "which is", "gain from deviating")
    if drawn:
        table.add_column("payoffs, sampled")
        table.add_column("gain from deviating")
    for play in plays:
        cells = [str(play.seed), ", ".join(play.labels), _numbers(play.payoffs), play.kind]
        cells.append(_numbers(play.gain))
        if play.sampled:
            cells += [_numbers(play.sampled.payoffs), _numbers(play.sampled.gain)]
        table.add_row(*map(line, cells))
    return table


def _verdicts(tables: Tables) -> Table:
    table = _table(
        "seed", "IGM", "monotone", "finds the optimum", "mean sq. residual", "best additive",
        "best monotone",
    )  # fmt: skip
    for k, (_, v) in enumerate(tables):
        yes = ["yes" if x else "no" for x in (v.igm, v.monotone, v.finds_optimum)]
        table.add_row(str(k), *yes, *map(number, (v.mse, v.additive_mse, v.monotone_mse)))
    return table


def _decomposition(seed: int, found: Decomposition, labels: Sequence[Sequence[str]]) -> Table:
    """Q_tot with the agents' utilities as heads, as the lecture draws it."""
    rows, columns = found.utilities
    table = _table(f"Q_tot, seed {seed}", "", *_heads(labels[1], columns))
    for r, label in enumerate(labels[0]):
        cells = [line(label), line(number(rows[r]), style="dim")]
        for c in range(len(columns)):
            style = "bold" if (r, c) == found.greedy else ""
            cells.append(line(number(found.q_tot[r, c]), style=style))
        table.add_row(*cells)
    return table


def _heads(labels: Sequence[str], utilities: Float[np.ndarray, " A"]) -> list[Text]:
    """Column heads: an action and its utility."""
    return [line(a, " ", (number(float(u)), "dim")) for a, u in zip(labels, utilities, strict=True)]


def _table(*headers: str | Text) -> Table:
    columns = map(Column, headers)
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(number(round(x, 6)) for x in values)
