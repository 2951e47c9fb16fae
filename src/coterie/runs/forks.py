"""A fork: a copy of a run that goes on with other settings, in a directory of its own."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from coterie.algorithms import known_settings
from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.settings import fitted, hints
from coterie.storage import checkpoint as checkpoints
from coterie.storage.config_file import identity, readable
from coterie.storage.files import sync_directory
from coterie.storage.formats import FORMAT
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import leaf_name
from coterie.types import PyTree


def changed(
    algorithm: Algorithm, settings: Mapping[str, Any], steps: int, time_limit: int | None
) -> Algorithm:
    """The algorithm with other settings.

    Args:
        steps, time_limit: as for ``Algorithm.resolve``.

    Raises:
        UsageError: it has no such setting, or not with such a value, or nothing would change.
    """
    declared = hints(type(algorithm))
    known_settings(type(algorithm), settings, algorithm.name)
    values = {name: fitted(name, value, declared[name]) for name, value in settings.items()}
    found = dataclasses.replace(algorithm, **values)
    if found == algorithm:
        raise UsageError("the run has these settings already: a fork needs others")
    return found.resolve(steps, time_limit)


def config_of(config: dict[str, Any], path: Path, after: Algorithm, steps: int) -> dict[str, Any]:
    """What ``config.json`` of the fork holds.

    Args:
        path: the run that is forked.
        after: its algorithm, with the new settings.
        steps: environment steps of each seed at the fork.
    """
    before, now = config["settings"], json.loads(json.dumps(after.settings()))
    differ = {k: [before.get(k), v] for k, v in now.items() if before.get(k) != v}
    fork = {"of": str(path), "run": identity(config), "env_steps": steps, "changed": differ}
    return readable(config | {"format": FORMAT, "settings": now, "fork": fork})


def check_arrays(
    before: Algorithm, after: Algorithm, states: PyTree, wanted_states: PyTree
) -> None:
    """UsageError unless what was learned fits the algorithm with the new settings.

    Args:
        states, wanted_states: shapes of the states before and after.
    """
    old, new = before.settings(), after.settings()
    names = " and ".join(name for name in new if old.get(name) != new[name])
    if before.rollout_shape() != after.rollout_shape():
        raise UsageError(
            f"a fork cannot change {names}: rollouts would have another shape; train --init RUN "
            "begins anew with the run's networks"
        )
    shapes, wanted = _shapes(states), _shapes(wanted_states)
    if differ := [name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)]:
        raise UsageError(
            f"a fork cannot change {names}: what the run holds has other arrays ({differ[0]}); "
            "train --init RUN begins anew with the run's networks that fit"
        )


def _shapes(state: PyTree) -> dict[str, tuple[Any, ...]]:
    return {
        leaf_name(key_path): (leaf.shape, str(leaf.dtype))
        for key_path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if hasattr(leaf, "shape")
    }


def write(
    source: RunDirectory,
    out: Path,
    config: dict[str, Any],
    restored: checkpoints.Restored,
) -> RunDirectory:
    """Makes the directory of a fork: the log up to its checkpoint, evaluations, the checkpoint.

    It appears at once, whole. A checkpoint belongs to one run, so it is written anew.
    """
    RunDirectory(out).check_blank("--fork")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}") from None
    made = place / "run"
    try:
        directory = RunDirectory.create(made)
        directory.run = identity(config)
        meta = restored.meta
        known = itertools.islice(source.lines(), meta["log_lines"])
        directory.log([line for line in known if line["env_steps"] <= restored.step])
        directory.write_evaluations(meta["evaluations"])
        size, digest = directory.sync_log()
        meta |= {
            "run": identity(config), "log_bytes": size, "log_digest": digest,
            "log_lines": directory.logged,
        }  # fmt: skip
        checkpoints.save(made, restored.step, restored.tree, meta)
        directory.write_config(config)
        RunDirectory(out).remove_blank()
        made.rename(out)
        sync_directory(out.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return RunDirectory(out)
