"""A run that was cut off and resumed in another process is the uninterrupted one, byte for byte."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, game_for, quick_program, small
from quick import FLAGS
from resume_worker import CASES

from coterie.storage.tree_files import leaf_name

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"


def work(phase: str, folder: Path, cache: Path, cases: list[str]) -> None:
    paths = os.pathsep.join(map(str, (SOURCE, HERE)))
    subprocess.run(
        [sys.executable, str(HERE / "resume_worker.py"), phase, str(folder), str(cache), *cases],
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": FLAGS}, check=True,
    )  # fmt: skip


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_every_algorithm_goes_on_in_another_process_as_if_nothing_had_been(tmp_path, recurrent):
    """Every file: checkpoints, log, evaluations, policies. The worker's clock stands still.

    Each goes on from the files as they were after a checkpoint and some more lines of the log: what
    a kill leaves. The worker that goes on also shows that a checkpoint that lacks any one leaf of
    the state is refused.
    """
    cases = [case for case, (_, r) in CASES.items() if r == recurrent]
    assert len(cases) >= 12
    cache = tmp_path / "compiled"
    work("calm", tmp_path, cache, cases)
    for case in cases:
        cut, calm = (contents(tmp_path / which / case) for which in ("cut", "calm"))
        assert len(cut["metrics.jsonl"]) < len(calm["metrics.jsonl"])
        assert cut.keys() != calm.keys()  # other checkpoints
    work("resumed", tmp_path, cache, cases)
    for case in cases:
        assert contents(tmp_path / "cut" / case) == contents(tmp_path / "calm" / case), case


def named(state) -> dict[str, np.ndarray]:
    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return {leaf_name(path): np.asarray(plain(x)) for path, x in jax.tree.leaves_with_path(state)}


WITHOUT_EFFECT = {
    "vector/time_step/rewards", "vector/time_step/terminated", "vector/time_step/truncated",
    "vector/state/alive",
}  # fmt: skip
"""The first three are shown to nobody after the step that they are of; a view is kept whole. Who is
alive matters in games that flag the deaths of agents: Walk itself says at every step who lives."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qmix", "mappo"])
def test_every_leaf_of_the_state_matters(name):
    """Put back to what it was at the start, any leaf makes the run go on differently."""
    algorithm = small(name, recurrent=True, reward_scaling="scale", learning_starts=0,
                      target_interval=3)  # fmt: skip
    program = quick_program(algorithm, game_for(algorithm, Walk()))
    run_chunk = partial(program._run_chunk, program.algorithm)
    program._advance = jax.jit(run_chunk)  # buffers are not donated
    start = program.init(0)
    half = program.advance(start, 0, 7)
    calm = named(program.advance(half, 7, 3))
    names = list(named(start))
    leaves, form = jax.tree.flatten(half)
    old = jax.tree.leaves(start)
    changed = [n for n, a in named(half).items() if not np.array_equal(a, named(start)[n])]
    unnoticed = set()
    for name in changed:
        k = names.index(name)
        other = jax.tree.unflatten(form, [*leaves[:k], old[k], *leaves[k + 1 :]])
        after = named(program.advance(other, 7, 3))
        if all(np.array_equal(after[n], calm[n]) for n in calm):
            unnoticed.add(name)
    assert unnoticed <= WITHOUT_EFFECT
    parts = {"learner", "vector", "hidden_state", "key", "episodes", "losses"}
    assert {n.partition("/")[0] for n in changed} == parts
