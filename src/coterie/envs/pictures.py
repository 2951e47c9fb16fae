"""How the families of JAX environments are drawn: a grid, a plane, a payoff table. NumPy.

What a thing is shows in its shape as well as in its colour: agents are discs, rivals carry a
triangle, food stands on its corner, landmarks are squares, goals are ringed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from coterie.envs.scene import (
    Circle,
    Label,
    Line,
    Polygon,
    Rect,
    Role,
    Scene,
    Shape,
    diamond,
    triangle,
)
from coterie.text import clipped, visible

MAX_CHOICES = 12
"""Payoff tables with more rows or columns are drawn as lists of choices."""
_TABLE_LETTERS, _CHOICE_LETTERS = 24, 16
"""Longer names of agents and actions are cut."""


# A grid ------------------------------------------------------------------------------------------


def grid(
    rows: int, cols: int, foods: np.ndarray, players: np.ndarray, loading: Iterable[int]
) -> Scene:
    """Foods and players [M, 3] (row, column, level) on a grid; the players ``loading`` are ringed.

    A thing's big number is its level; players are numbered in their corner.
    """
    shapes: list[Shape] = [Rect(0, 0, cols, rows, "board")]
    shapes += [Line(0, r, cols, r, "rule", 0.02) for r in range(rows + 1)]
    shapes += [Line(c, 0, c, rows, "rule", 0.02) for c in range(cols + 1)]
    for row, col, level in foods.tolist():
        if level > 0:
            x, y = col + 0.5, row + 0.5
            shapes += [diamond(x, y, 0.42, "food"), _level(x, y, level)]
    busy = set(loading)
    tag = float(np.clip(0.19 * max(rows, cols) / 8, 0.19, 0.3))
    for i, (row, col, level) in enumerate(players.tolist()):
        x, y = col + 0.52, row + 0.55
        shapes += [Circle(x, y, 0.28, "agent"), _level(x, y, level)]
        shapes += [Circle(x, y, 0.365, "goal", 0.08)] * (i in busy)
        shapes += [Label(col + 0.16, row + 0.14, f"#{i}", tag, "ink", bold=True)]
    return Scene(tuple(shapes), cols + 0.2, rows + 0.2, -0.1, -0.1)


def _level(x: float, y: float, level: float) -> Label:
    return Label(x, y, f"{level:.0f}", 0.38, "paper", bold=True)


# A plane -----------------------------------------------------------------------------------------

REACH = 1.2
"""Half the side of the square that is visible; a larger one is shown to show all bodies."""
COAST = 0.25
"""Seconds of flight that a velocity's arrow shows."""


def plane(
    agents: Sequence[tuple[str, float]],
    landmarks: Sequence[float],
    positions: np.ndarray,
    velocities: np.ndarray,
    words: Sequence[str | None],
    goals: Sequence[tuple[int, str]],
    walls: bool = False,
) -> Scene:
    """Bodies on a plane whose y points up.

    Args:
        agents: (name, radius) of each; an adversary is known by its name.
        landmarks: radius of each.
        positions: [E, 2] agents, then landmarks; velocities: [N, 2].
        words: what each agent says, if anything.
        goals: (landmark, what it is called).
        walls: the landmarks are obstacles.
    """
    spots = (positions * [1, -1]).astype(float)
    half = max(REACH, float(np.abs(spots).max()) + 0.25)
    shapes = _axes()
    n = len(agents)
    for k, (spot, radius) in enumerate(zip(spots[n:].tolist(), landmarks, strict=True)):
        shapes += _landmark(spot, radius, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k % 26], walls)
    for k, (landmark, title) in enumerate(goals):
        shapes += _goal(spots[n + landmark].tolist(), k, title)
    for k, (name, radius) in enumerate(agents):
        shapes += _body(name, radius, spots[k].tolist(), (velocities[k] * [1, -1]).tolist())
    for (name, radius), (x, y) in zip(agents, spots.tolist(), strict=False):
        shapes += [Label(x, y + radius + 0.055, name, 0.078, "ink")]
    for spot, word in zip(spots.tolist(), words, strict=False):
        shapes += _speech(spot, word) if word is not None else []
    return Scene(tuple(shapes), 2 * half, 2 * half, -half, -half)


def _axes() -> list[Shape]:
    """The ground and the axes, beyond what is visible, and the square in which all starts."""
    far = 1000.0
    return [
        Rect(-far, -far, 2 * far, 2 * far, "board"),
        Line(-far, 0, far, 0, "rule", 0.008),
        Line(0, -far, 0, far, "rule", 0.008),
        Rect(-1, -1, 2, 2, "rule", 0.008),
    ]


def _landmark(spot: list[float], radius: float, letter: str, wall: bool) -> list[Shape]:
    x, y = spot
    if wall:
        return [Circle(x, y, radius, "landmark"), Label(x, y, letter, 0.11, "paper", bold=True)]
    half = max(radius, 0.055)
    square = Rect(x - half, y - half, 2 * half, 2 * half, "landmark", corner=0.012)
    return [square, Label(x, y, letter, 0.09, "ink", bold=True)]


def _goal(spot: list[float], k: int, title: str) -> list[Shape]:
    """A ring, wider for a second goal, which may be the same landmark."""
    x, y = spot
    ring = 0.115 + 0.05 * k
    return [
        Circle(x, y, ring, "goal", 0.028),
        Label(x, y + 0.19 + 0.1 * k, title, 0.078, "ink"),
    ]


def _body(name: str, radius: float, spot: list[float], velocity: list[float]) -> list[Shape]:
    x, y = spot
    dx, dy = velocity[0] * COAST, velocity[1] * COAST
    rival = name.startswith("adversary")
    role: Role = "rival" if rival else "agent"
    shapes: list[Shape] = [Circle(x, y, radius, role)]
    shapes += [triangle(x, y, 0.72 * radius, "paper")] * rival
    if dx * dx + dy * dy > 1e-4:
        shapes += [Line(x, y, x + dx, y + dy, "ink", 0.018, head=True)]
    return shapes


def _speech(spot: list[float], word: str) -> list[Shape]:
    """A bubble above the speaker."""
    x, y = spot
    half = 0.055 * len(word) / 2 + 0.05
    bubble = Rect(x - half, y - 0.29, 2 * half, 0.15, "choice", corner=0.05)
    stem = Polygon((x - 0.03, y - 0.145, x + 0.03, y - 0.145, x, y - 0.09), "choice")
    return [stem, bubble, Label(x, y - 0.213, word, 0.095, "ink", bold=True)]


# A payoff table ----------------------------------------------------------------------------------


def payoffs(
    agents: Sequence[str],
    labels: Sequence[Sequence[str]],
    table: np.ndarray,
    chosen: Sequence[int] | None,
    common: bool,
) -> Scene:
    """A game in strategic form and the joint action chosen in it, if one was.

    Args:
        labels: the names of each agent's actions.
        table: [A_1, ..., A_n, n].
        common: all agents always get the same payoff, so that one number is shown.
    """
    small = len(agents) == 2 and max(table.shape[:2]) <= MAX_CHOICES
    most = _TABLE_LETTERS if small else _CHOICE_LETTERS
    agents = [clipped(visible(agent), most) for agent in agents]
    labels = [[clipped(visible(label), most) for label in own] for own in labels]
    if small:
        return _table(agents, labels, table, chosen, common)
    return _choices(agents, labels, table, chosen)


def _table(
    agents: Sequence[str],
    labels: Sequence[Sequence[str]],
    table: np.ndarray,
    chosen: Sequence[int] | None,
    common: bool,
) -> Scene:
    """Rows are the first agent's actions, columns the second's; the unit is a row's height."""
    rows, cols = table.shape[:2]
    texts = [[_paid(table[r, c], common) for c in range(cols)] for r in range(rows)]
    wide = _room(labels[1], *texts)
    left, top = _room(labels[0], [agents[0]]), 1.5
    right, bottom = left + cols * wide, top + rows
    middles = [left + (c + 0.5) * wide for c in range(cols)]
    row, col = (None, None) if chosen is None else chosen
    shapes: list[Shape] = [Rect(left, top, cols * wide, rows, "board")]
    shapes += [Line(left, top + r, right, top + r, "rule", 0.02) for r in range(1, rows)]
    shapes += [Line(x - wide / 2, top, x - wide / 2, bottom, "rule", 0.02) for x in middles[1:]]
    if row is not None and col is not None:
        cell = (left + col * wide, top + row, wide, 1)
        shapes += [Rect(*cell, "choice"), Rect(*cell, "ink", 0.07)]
    shapes += [Label(left / 2, 1.1, agents[0], 0.3, "faint")]
    shapes += [Label((left + right) / 2, 0.45, agents[1], 0.3, "faint")]
    shapes += [Label(middles[c], 1.1, labels[1][c], 0.38, bold=c == col) for c in range(cols)]
    for r in range(rows):
        shapes += [Label(left / 2, top + r + 0.5, labels[0][r], 0.38, bold=r == row)]
        for c in range(cols):
            bold = (r, c) == (row, col)
            shapes += [Label(middles[c], top + r + 0.5, texts[r][c], 0.44, bold=bold)]
    return Scene(tuple(shapes), right + 0.2, bottom + 0.2)


def _room(*texts: Sequence[str]) -> float:
    """The width of a column that holds any of these."""
    return max(1.3, 0.27 * max(len(text) for line in texts for text in line) + 0.5)


def _choices(
    agents: Sequence[str],
    labels: Sequence[Sequence[str]],
    table: np.ndarray,
    chosen: Sequence[int] | None,
) -> Scene:
    """One line for each agent: its name, its action and how many it has, its payoff."""
    paid = None if chosen is None else table[tuple(chosen)]
    shapes: list[Shape] = [Rect(0, 0, 11, len(agents) + 0.4, "board", corner=0.15)]
    for i, (agent, own) in enumerate(zip(agents, labels, strict=True)):
        y = i + 0.7
        shapes += [Label(2, y, agent, 0.36)]
        if chosen is not None and paid is not None:
            shapes += [Rect(4, y - 0.38, 4, 0.76, "choice", corner=0.2)]
            shapes += [Label(6, y, own[chosen[i]], 0.4, bold=True)]
            shapes += [Label(9.5, y, _paid(paid[i : i + 1], common=True), 0.4)]
        else:
            shapes += [Label(6, y, f"{len(own)} actions", 0.36, "faint")]
    return Scene(tuple(shapes), 11, len(agents) + 0.4)


def _paid(rewards: np.ndarray, common: bool) -> str:
    shown = rewards[:1] if common else rewards
    return ", ".join(f"{r:g}" for r in shown).replace("-", "−")
