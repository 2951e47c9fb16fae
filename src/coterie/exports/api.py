"""``coterie.export``: a trained team in a form that other programs play."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from coterie.errors import UsageError
from coterie.exports import onnx_model, page, stablehlo
from coterie.exports.portable import Portable, portable
from coterie.runs.api import open_run
from coterie.runs.environments import Opened
from coterie.runs.run import Run
from coterie.runs.team import Team, load
from coterie.storage.files import replacing

Format = Literal["numpy", "onnx", "stablehlo", "html"]
"""A folder with a module and a file of arrays, or one file."""
ENDINGS: dict[Format, str] = {
    "onnx": ".onnx", "stablehlo": ".stablehlo", "html": ".html", "numpy": "",
}  # fmt: skip

_FILES = {".npz", ".npy", ".py", *ENDINGS.values()} - {""}
"""Endings that no folder has."""


def export(
    run: str | Path,
    format: Format,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    which: str | None = None,
    environment: Opened | None = None,
    algorithm: Any = None,
    torso: Any = None,
    head: Any = None,
    python: str | None = None,
) -> Path:
    """Writes a team as a file for other programs; it acts greedily there, as ``Team.act`` does.

    Args:
        run: a run directory.
        format: ``numpy``: a folder with a module that needs NumPy alone, and its arrays; ``onnx``;
            ``stablehlo``: a function that ``jax.export`` reads; ``html``: a page that plays
            foraging or a matrix game with you.
        out: the file, or of ``numpy`` the folder; ``team`` with the format's ending unless given.
            An export that stands there is replaced.
        seed: number of the team, counted from 0.
        which: ``best`` or ``last`` policies; those that stand for the run unless given.
        torso, head: those of the run; needed where they are networks of the user's own.
        environment, algorithm, python: those of the run, as ``open_run`` takes them; needed by
            ``html`` alone, where they are the user's own.

    Returns:
        what was written.

    Raises:
        UsageError: the format cannot hold this team, or ``out`` is no place for it.
    """
    if format not in get_args(Format):
        raise UsageError(f"format must be one of {', '.join(get_args(Format))}; got {format!r}")
    out = Path(f"team{ENDINGS[format]}" if out is None else out)
    _check_place(out, format)
    team = load(run, seed, which, torso=torso, head=head)
    own = {"algorithm": algorithm, "torso": torso, "head": head, "python": python}
    contents = _WRITERS[format](team, partial(open_run, run, environment, **own))
    folder = out if format == "numpy" else out.parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(folder / (name or out.name)) as file:
            file.write(content)
    return out


def _check_place(out: Path, format: Format) -> None:
    """UsageError where something would be lost, or another ending misleads."""
    ending = ENDINGS[format]
    if ending and (out.suffix != ending or out.is_dir()):
        raise UsageError(f"{out} must be a file that ends in {ending}, as the format is {format}")
    if not ending and out.suffix in _FILES and not out.is_dir():
        raise UsageError(
            f"{out} must be a folder, as the format is numpy: leave out the ending {out.suffix}"
        )
    if not ending and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; the format numpy is a folder with two files")
    there = {path.name for path in out.iterdir()} if not ending and out.exists() else set()
    if more := there - {"team.py", "team.npz", "__pycache__"}:
        raise UsageError(f"{out} holds {min(more)}, so it is no export: name a new folder")


Opener = Callable[[], Run]
"""Opens the team's run, with the code that was passed."""


def _numpy(team: Team, run: Opener) -> dict[str, bytes]:
    del run
    found = portable(team)
    file = io.BytesIO()
    arrays: Mapping[str, Any] = found.arrays | {"about": np.array(json.dumps(found.about))}
    np.savez(file, allow_pickle=False, **arrays)
    module = (files("coterie.exports") / "numpy_team.py").read_bytes()
    return {"team.npz": file.getvalue(), "team.py": module}


def _onnx(team: Team, run: Opener) -> dict[str, bytes]:
    del run
    return {"": onnx_model.model(portable(team))}


def _stablehlo(team: Team, run: Opener) -> dict[str, bytes]:
    del run
    return {"": stablehlo.serialised(team)}


def _html(team: Team, run: Opener) -> dict[str, bytes]:
    found: Portable = portable(team)
    opened = run()
    title = f"{opened.config['algorithm']} on {opened.config['environment']}"
    return {"": page.page(found, opened.game.env, title).encode()}


_WRITERS: dict[Format, Callable[[Team, Opener], dict[str, bytes]]] = {
    "numpy": _numpy, "onnx": _onnx, "stablehlo": _stablehlo, "html": _html,
}  # fmt: skip
