"""A warm start: a new run begins with the networks of another, as far as their shapes agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.storage import checkpoint
from coterie.storage.config_file import identity
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import leaf_name, read_arrays
from coterie.training.devices import States
from coterie.types import PyTree
from coterie.views.game import Game

ABSENT = "that run has none"


class Source(NamedTuple):
    """Another run's networks.

    Attributes:
        arrays: [S, ...] what each seed learned with, by name.
        about: the run's directory, its name and its environment steps, for ``config.json``.
    """

    arrays: Mapping[str, np.ndarray]
    about: dict[str, Any]


def read_source(path: Path) -> Source:
    """What a run learned with at its newest good checkpoint; no code of it is needed.

    Raises:
        UsageError: there is no run.
        CheckpointError: it has no good checkpoint.
    """
    try:
        directory = RunDirectory.open(path)
        config = directory.config()
    except UsageError as error:
        raise UsageError(f"no networks to begin with (--init): {error}") from None
    if directory.learner.is_file():
        found, meta = read_arrays(directory.learner)
        parts = [found]
    else:
        restored = checkpoint.latest(path, None, read=lambda file, _: _learners(file))
        parts, meta = restored.tree, restored.meta
    if meta.get("run") != identity(config):
        raise UsageError(f"what {path} keeps is of another run")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    about = {"of": str(path), "run": identity(config), "env_steps": meta["env_steps"]}
    return Source(arrays, about)


def _learners(file: Path) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """The learner's arrays on each device in a checkpoint, without replay."""

    def wanted(name: str) -> bool:
        _, _, rest = name.partition("/learner/")
        return bool(rest) and not rest.startswith("replay/")

    arrays, meta = read_arrays(file, wanted)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        device, _, rest = name.partition("/learner/")
        parts.setdefault(device, {})[rest] = array
    return [parts[device] for device in sorted(parts, key=int)], meta


def networks(algorithm: Algorithm, game: Game) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The arrays of a learner that a warm start sets: by name, whose values it has, and its shape.

    These are parameters, what the policy holds beside them (statistics of observations), and what
    starts as a copy of them: target networks.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def look() -> None:
        learner = algorithm.init(jax.random.key(0), game)
        parts = algorithm.parameters(learner), algorithm.policy(learner)
        own = {id(leaf) for leaf in jax.tree.leaves(parts) if eqx.is_array(leaf)}
        first: dict[int, str] = {}
        for key_path, leaf in jax.tree_util.tree_leaves_with_path(learner):
            if id(leaf) in own:
                name = leaf_name(key_path)
                found[name] = first.setdefault(id(leaf), name), leaf.shape

    jax.eval_shape(look)
    return found


def compare(source: Source, algorithm: Algorithm, game: Game) -> dict[str, Any]:
    """What ``config.json`` records of a warm start: where from, what is taken and what is not.

    Raises:
        UsageError: nothing can be taken.
    """
    taken, not_taken = [], {}
    for name, (values, shape) in networks(algorithm, game).items():
        if name != values:
            continue
        array = source.arrays.get(values)
        if array is None:
            not_taken[name] = ABSENT
        elif array.shape[1:] != shape:
            not_taken[name] = f"{list(shape)} here, {list(array.shape[1:])} there"
        else:
            taken.append(name)
    if not taken:
        raise UsageError(
            f"no network of {source.about['of']} has the shapes of this run's: {_listed(not_taken)}"
        )
    return source.about | {"taken": taken, "not_taken": not_taken}


def sentences(recorded: dict[str, Any]) -> list[str]:
    """What a user should know of a warm start."""
    count = len(recorded["taken"]) + len(recorded["not_taken"])
    said = [
        f"begins with the networks of {recorded['of']} after {recorded['env_steps']:,} steps: "
        f"{len(recorded['taken'])} of {count} arrays are taken"
    ]
    if recorded["not_taken"]:
        said.append(f"not taken, begun anew: {_listed(recorded['not_taken'])}")
    return said


def _listed(reasons: Mapping[str, str]) -> str:
    """Arrays and why each is not taken; those of a network that is not there at all are one."""
    named = {
        "/".join(name.split("/")[: 2 if why == ABSENT else None]): why
        for name, why in reasons.items()
    }
    return "; ".join(f"{name} ({why})" for name, why in named.items())


def read_again(recorded: dict[str, Any]) -> Source:
    """The source of a run that was begun, and killed before its first checkpoint.

    Raises:
        UsageError: it is gone, or was trained on.
    """
    source = read_source(Path(recorded["of"]))
    if any(source.about[name] != recorded[name] for name in source.about):
        raise UsageError(
            f"{recorded['of']} is not as it was when this run was begun with its networks: begin "
            "again with another --out"
        )
    return source


def begin(
    states: States, source: Source, recorded: dict[str, Any], algorithm: Algorithm, game: Game
) -> States:
    """Untrained states with the networks that were taken; seeds in turn, if there are more here."""
    taken = {
        name: values
        for name, (values, _) in networks(algorithm, game).items()
        if values in recorded["taken"]
    }
    done = 0

    def one(learner: PyTree) -> PyTree:
        nonlocal done
        seeds = 0

        def leaf(key_path: Any, old: Any) -> Any:
            nonlocal seeds
            name = leaf_name(key_path)
            if name not in taken:
                return old
            seeds, array = len(old), source.arrays[taken[name]]
            new = array[np.arange(done, done + seeds) % len(array)]
            return jax.device_put(new.astype(old.dtype), old.sharding)

        changed = jax.tree_util.tree_map_with_path(leaf, learner)
        done += seeds
        return changed

    return tuple(eqx.tree_at(lambda s: s.learner, state, one(state.learner)) for state in states)
