"""What a run's seeds learned with, read from it: parameters, targets, reward moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.python_envs.training import PythonEnvProgram
from coterie.runs.run import Run
from coterie.spec import PythonEnvFactory
from coterie.storage import checkpoint, tree_files
from coterie.storage.config_file import identity
from coterie.storage.formats import RESUMED_BY, format_of, present_leaves
from coterie.storage.run_directory import RunDirectory
from coterie.training.devices import Devices, stack
from coterie.training.finite import without_replay
from coterie.training.state import read_state
from coterie.types import PyTree
from coterie.views.game import Game


def learner(run: Run, seed: int = 0) -> PyTree:
    """What seed number ``seed`` learned with at the end: parameters, targets, reward moments.

    Of a run that was opened from its directory it is that of ``learner.safetensors``, if there is
    one, or of the newest checkpoint.

    Raises:
        UsageError: no such seed.
        CheckpointError: the run has no good checkpoint.
    """
    check_seed(run, seed)
    return jax.tree.map(lambda x: x[seed], _learners(run))


def finalise(run: Run) -> None:
    """Drops a complete run's checkpoints, replay and all, for ``learner.safetensors``.

    Everything can still be read off the run, but it cannot be resumed any more.

    Raises:
        CheckpointError: it has no good checkpoint, or the file cannot be written.
    """
    assert run.path is not None
    directory = RunDirectory(run.path)
    every = _learners(run)
    about = {"run": identity(run.config), "env_steps": run.steps}
    tree_files.write_tree(directory.learner, every, about)
    checkpoint.drop(run.path)


def template(algorithm: Algorithm, game: Game, seeds: int, devices: int) -> tuple[PyTree, ...]:
    """Shapes and types of a run's states, one for each device."""
    if isinstance(game.env, PythonEnvFactory):
        return (PythonEnvProgram(algorithm, game, seeds).template(),)
    return Devices(algorithm, game, seeds, count=devices).template()


def _learners(run: Run) -> PyTree:
    """What all seeds learned with, [S, ...], without replay."""
    if run.learner is None:
        assert run.path is not None
        kept = RunDirectory(run.path).learner
        devices = 1 if kept.is_file() else run.config["lanes"]
        like = template(run.algorithm, run.game, run.config["seeds"], devices)
        former = format_of(run.config) in RESUMED_BY
        if kept.is_file():
            read = read_former if former else tree_files.read_tree
            learner, meta = read(kept, without_replay(like[0].learner))
            if meta.get("run") != identity(run.config):
                raise tree_files.CheckpointError(f"{kept} is of another run")
            run.learner = learner
        elif former:
            learners = tuple({"learner": without_replay(state.learner)} for state in like)
            parts = _newest(run, learners, read_former)
            run.learner = stack([part["learner"] for part in parts])
        else:
            states = _newest(run, like, read_state(run.algorithm, run.game))
            run.learner = stack([without_replay(state.learner) for state in states])
    return run.learner


Read = Callable[[Path, PyTree], tuple[PyTree, dict[str, Any]]]


def _newest(run: Run, like: PyTree, read: Read) -> PyTree:
    """The tree of the run's newest good checkpoint."""
    assert run.path is not None
    name = identity(run.config)

    def object_to(_: int, meta: dict[str, Any]) -> str | None:
        return None if meta.get("run") == name else "is of another run"

    return checkpoint.latest(run.path, like, object_to=object_to, read=read).tree


def read_former(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The leaves of ``like`` from a file of a former format, which may hold others beside them.

    What was one number of a learner and is one for each agent now is repeated for each agent.

    Raises:
        CheckpointMismatch: a leaf of ``like`` is not there, or has a shape that cannot be repeated.
    """
    arrays, meta = tree_files.read_arrays(path)
    wanted = map(tree_files.leaf_name, (p for p, _ in jax.tree_util.tree_leaves_with_path(like)))
    present = present_leaves(arrays, wanted)
    arrays = {present.get(name, name): array for name, array in arrays.items()}

    def leaf(key_path: Any, wanted: Any) -> Any:
        if not hasattr(wanted, "shape"):
            return wanted
        name = tree_files.leaf_name(key_path)
        found = arrays.get(name)
        if found is None or found.shape != wanted.shape[: found.ndim]:
            raise tree_files.CheckpointMismatch(
                f"{path} is of a former version, and {name} cannot be read from it"
            )
        more = wanted.shape[found.ndim :]
        return np.broadcast_to(found.reshape(found.shape + (1,) * len(more)), wanted.shape)

    return jax.tree_util.tree_map_with_path(leaf, like), meta


def check_seed(run: Run, seed: int) -> None:
    """UsageError unless the run has so many seeds."""
    if not 0 <= seed < run.config["seeds"]:
        raise UsageError(f"this run has seeds 0 to {run.config['seeds'] - 1}; got {seed}")
