"""Trains every algorithm, feed-forward and recurrent, in one process, or resumes them in another.

``python resume_worker.py calm|resumed FOLDER CACHE [CASE ...]``: one run directory a case, in
``FOLDER/calm``; ``FOLDER/cut`` holds what a kill would have left of it, and is resumed.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from probes import small
from quick import trace_quickly

from coterie.algorithms import algorithms
from coterie.runs import api, plan
from coterie.runs.api import resume, train
from coterie.storage import tree_files as checkpoint
from coterie.storage.checkpoint import latest
from coterie.storage.tree_files import CheckpointMismatch, read_arrays, write_tree

CASES = {f"{name}{'-recurrent' * r}": (name, r) for name in algorithms() for r in (False, True)}
ITERATIONS = 12
DIAGNOSTICS = {name for cls in algorithms().values() for name in cls.diagnostics}


def prepare(cache: str) -> None:
    """What is compiled is kept for the other processes; a clock that stands still."""
    trace_quickly()
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    plan.EPISODES = 2
    api.checkpoints.latest = drop_each_leaf  # type: ignore[assignment]
    os.fsync = lambda _: None  # power stays on
    time.perf_counter = lambda: 0.0


def drop_each_leaf(run_dir: Path, like, *others):
    """The newest checkpoint, once it is shown that it must hold every leaf of the state."""
    restored = latest(run_dir, like, *others)
    arrays, meta = read_arrays(run_dir / "checkpoints" / str(restored.step) / "state.safetensors")
    leaves = {checkpoint.leaf_name(path): x for path, x in jax.tree.leaves_with_path(restored.tree)}
    assert arrays.keys() == leaves.keys()
    lacking = run_dir.parent / "lacking.safetensors"
    for name in leaves:
        write_tree(lacking, {n: x for n, x in leaves.items() if n != name}, meta)
        *_, field, last = name.split("/")
        if field == "losses" and last in DIAGNOSTICS:
            found = jax.tree.leaves_with_path(others[-1](lacking, like)[0])
            (value,) = (x for path, x in found if checkpoint.leaf_name(path) == name)
            assert np.isnan(value).all()
            continue
        with pytest.raises(CheckpointMismatch, match=f"lacks {re.escape(name)}: it is"):
            others[-1](lacking, like)
    lacking.unlink()
    return restored


def begin(case: str, calm: Path, cut: Path) -> None:
    """Trains to the end; a copy of all files as they are once more was logged than was saved."""
    name, recurrent = CASES[case]
    scaling = "scale" if recurrent else "standardise"
    algorithm = small(name, recurrent=recurrent, reward_scaling=scaling, buffer_size=256)
    time_limit = 3
    algorithm = algorithm.resolve(10**4, time_limit)
    steps, environments = algorithm.rollout_shape()
    total = ITERATIONS * steps * environments

    def report(event: str, facts: dict) -> None:
        # After the checkpoint at the half.
        if event == "progress" and facts["env_steps"] >= 0.7 * total and not cut.exists():
            shutil.copytree(calm, cut)

    train(
        algorithm, "matrix/climbing", total, seeds=1, seed=3, out=calm, report=report,
        options={"rounds": time_limit}, evaluations=2, final_episodes=0,
    )  # fmt: skip


def main(phase: str, folder: str, cache: str, *cases: str) -> None:
    prepare(cache)
    calm, cut = Path(folder) / "calm", Path(folder) / "cut"
    cut.mkdir(exist_ok=True)
    for case in cases or CASES:
        if phase == "resumed":
            resume(cut / case)
        else:
            begin(case, calm / case, cut / case)


if __name__ == "__main__":
    main(*sys.argv[1:])
