"""``coterie export``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.cli.printing import answer
from coterie.errors import UsageError
from coterie.settings import Seed
from coterie.text import visible


@dataclass(frozen=True)
class ExportArgs:
    """Writes a trained team for other programs: ONNX, StableHLO, NumPy, or a page that plays."""

    format: Literal["numpy", "onnx", "stablehlo", "html"] | None = None
    """numpy: a folder with a module that needs NumPy alone, and its arrays. onnx, stablehlo: a file
    for a runtime or compiler. html: a page that plays foraging or a matrix game with you. Required,
    unless the ending of --out says it."""
    out: Path | None = None
    """File to write, or of numpy the folder; by default team, with the ending of the format."""
    seed: Seed = 0
    """Number of the team, counted from 0."""
    which: Literal["best", "last"] | None = None
    """Policies with the best evaluation during training, or the last ones; by default the best, and
    the last in games where the interests of agents conflict."""
    environment: str | None = None
    """Environment of the run; the format html requires it if it is defined in your own code."""


NEXT = {
    "html": "open it in a browser, which needs no network: it plays with you",
    "numpy": "copy the folder wherever you like; team.py says how to use it",
}
"""What to do with an export, where its format does not say it."""


def command_export(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.exports.api import ENDINGS, export

    own = parsed.run
    ending = "" if own.out is None else own.out.suffix
    named = [name for name, its in ENDINGS.items() if its == ending and ending]
    chosen: Any = own.format or next(iter(named), None)
    if chosen is None:
        raise UsageError(f"--format must be given: one of {', '.join(ENDINGS)}")
    team = {"seed": own.seed, "which": own.which, "environment": own.environment}
    out = export(names[0], chosen, own.out, **team, **asdict(parsed.code))
    answer(visible(out))
    if next_step := NEXT.get(chosen):
        print(next_step, file=sys.stderr)
