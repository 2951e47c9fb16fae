"""What a page is made of. All text is plain: what looks like markup is shown, not obeyed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from coterie.errors import UsageError
from coterie.show.curves import Curve, Scale
from coterie.show.film.recording import Recording

Number = float | int
Cell = str | Number | None
Verdict = Literal["passed", "failed", "not run"]


@dataclass(frozen=True)
class Text:
    """Paragraphs, parted by empty lines; ``code`` between backticks, **bold** between stars."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table that its reader can sort by any column; None is an empty cell, sorted last.

    Attributes:
        headers: [C]; rows: [R][C]; numbers are aligned, and sorted as numbers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for k, row in enumerate(self.rows):
            _expect(len(row) == len(self.headers), f"row {k} has {len(row)} cells, "
                    f"the table {len(self.headers)} columns")  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """Curves whose values are read off under the pointer, one panel an environment.

    Attributes:
        panels: curves by panel title; a label has one colour throughout.
        y_title: what is drawn.
        references: labelled horizontal lines in every panel, such as published numbers.
        scale: what lies across, if not environment steps.
    """

    panels: Mapping[str, Sequence[Curve]]
    y_title: str
    references: Mapping[str, Number] = field(default_factory=dict)
    caption: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Matrix:
    """Numbers by row and column, coloured by size: payoffs, decompositions, residuals.

    Attributes:
        values: [R][C]; rows, columns: their labels.
        texts: [R][C], what stands in the cells instead of the numbers that colour them.
        notes: [R][C], a few words below a number, such as "Nash".
        marked: cells (row, column) that are framed.
        row_values, column_values: [R] and [C] numbers beside the labels: utilities around a sum.
        scale: ``diverging`` colours by sign, around zero.
        full: the size that has the full colour; that of the largest number unless given.
        agents: who chooses the row, and who the column.
    """

    values: Sequence[Sequence[Number]] | np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    notes: Sequence[Sequence[str]] | None = None
    marked: Collection[tuple[int, int]] = ()
    row_values: Sequence[Number] | np.ndarray | None = None
    column_values: Sequence[Number] | np.ndarray | None = None
    scale: Literal["sequential", "diverging"] = "sequential"
    caption: str = ""
    texts: Sequence[Sequence[str]] | None = None
    agents: tuple[str, str] | None = None
    full: Number | None = None

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        tables = (("values", self.values), ("notes", self.notes), ("texts", self.texts))
        for word, table in tables:
            if table is not None:
                fits = len(table) == shape[0] and all(len(line) == shape[1] for line in table)
                _expect(fits, f"{word} must be {shape[0]} by {shape[1]}, as the labels are")
        for word, heads, n in (
            ("row_values", self.row_values, shape[0]),
            ("column_values", self.column_values, shape[1]),
        ):
            _expect(heads is None or len(heads) == n, f"{word} must be {n} numbers")


@dataclass(frozen=True)
class Grid:
    """Blocks side by side, at most ``columns`` of them; below each other where it is narrow."""

    blocks: Sequence[Block]
    columns: int


@dataclass(frozen=True)
class Viewer:
    """Episodes to play: step by step or in a run, ``fps`` frames a second at normal speed."""

    recording: Recording
    caption: str = ""
    fps: Number = 4


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str
    caption: str = ""


@dataclass(frozen=True)
class Settings:
    """Names and values, folded away; mappings within are flattened to dotted names."""

    settings: Mapping[str, Any]
    title: str = "Settings"


Block = Text | Table | Curves | Matrix | Grid | Viewer | Command | Settings


@dataclass(frozen=True)
class Section:
    """A part of a page, listed in its contents with its verdict."""

    title: str
    blocks: Sequence[Block]
    verdict: Verdict | None = None
    summary: str = ""


def _expect(holds: bool, sentence: str) -> None:
    if not holds:
        raise UsageError(sentence)
