"""The checkpoints of a run, one folder a step: written whole, and the newest good one read."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from coterie.errors import UsageError
from coterie.storage.files import make_directory, sync_directory
from coterie.storage.tree_files import (
    CheckpointError,
    CheckpointMismatch,
    read_layout,
    read_tree,
    reading,
    write_tree,
    writing,
)
from coterie.types import PyTree

logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What ``latest`` found."""

    step: int
    tree: PyTree
    meta: dict[str, Any]


def save(run_dir: Path, step: int, tree: PyTree, meta: dict[str, Any], keep: int = 2) -> Path:
    """Writes ``checkpoints/<step>/state.safetensors``, then removes older checkpoints.

    The newest ``keep`` checkpoints up to ``step`` whose header and length are sound stay; later
    steps, left by a damaged file that a resume went behind, are not touched.

    Returns:
        The file written.
    """
    if keep < 2:
        raise UsageError(f"keep must be at least 2 checkpoints, one to fall back on; got {keep}")
    path = _state_path(run_dir, step)
    with writing(path):
        make_directory(path.parent, run_dir)
    write_tree(path, tree, meta)
    earlier = [s for s in _steps(run_dir) if s <= step]
    sound = [s for s in earlier if _is_sound(_state_path(run_dir, s))]
    for old in earlier:
        if len(sound) >= keep and old < sound[keep - 1]:
            _remove(_state_path(run_dir, old))
    return path


def latest(
    run_dir: Path,
    like: PyTree,
    warn: Callable[[str], None] = logger.warning,
    object_to: Callable[[int, dict[str, Any]], str | None] = lambda step, meta: None,
    read: Callable[[Path, PyTree], tuple[PyTree, dict[str, Any]]] = read_tree,
) -> Restored:
    """The newest good checkpoint; ``warn`` is called with every damaged one passed over.

    A step without a state file is a save that never finished, and is passed over silently.

    Args:
        object_to: given a step and its metadata, says why the file does not belong there, if so.
        read: reads a file as ``read_tree`` does.

    Raises:
        CheckpointMismatch: the newest good checkpoint holds another tree than ``like``.
        CheckpointError: there is none, or none is good.
    """
    steps = [s for s in _steps(run_dir) if os.path.lexists(_state_path(run_dir, s))]
    reasons = []
    for step in steps:
        try:
            restored = Restored(step, *read(_state_path(run_dir, step), like))
            if objection := object_to(step, restored.meta):
                raise CheckpointError(f"{_state_path(run_dir, step)} {objection}")
            return restored
        except CheckpointMismatch:
            raise
        except CheckpointError as error:
            warn(f"{error}; trying the checkpoint before it")
            reasons.append(str(error))
    if not reasons:
        raise CheckpointError(f"there is no checkpoint in {run_dir}")
    raise CheckpointError(f"no checkpoint in {run_dir} is good: {'; '.join(reasons)}")


def drop(run_dir: Path) -> None:
    """Removes all checkpoints, the oldest first; there need not be any."""
    for step in reversed(_steps(run_dir)):
        _remove(_state_path(run_dir, step))
    with contextlib.suppress(OSError):  # something of the user's may be in there
        (run_dir / "checkpoints").rmdir()


# Below: every operation on files. A crash can fall between any two of them.


def _state_path(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / str(step) / "state.safetensors"


def _steps(run_dir: Path) -> list[int]:
    """Steps with a directory, finished or not, newest first."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(run_dir / "checkpoints")
        return sorted((int(n) for n in names if n.isdecimal() and str(int(n)) == n), reverse=True)
    return []


def _is_sound(path: Path) -> bool:
    """Header and length are good; the tensors are not read."""
    try:
        with reading(path) as file:
            read_layout(path, file)
    except CheckpointError:
        return False
    return True


def _remove(state: Path) -> None:
    try:
        # First, so that a half-removed checkpoint is never taken for a good one.
        state.unlink(missing_ok=True)
        sync_directory(state.parent)
        shutil.rmtree(state.parent)
    except OSError as error:
        logger.warning("cannot remove the old checkpoint %s: %s", state.parent, error)
