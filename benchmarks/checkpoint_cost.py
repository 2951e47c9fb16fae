"""What safety costs: seconds and bytes of a checkpoint, and of looking at every number.

    python benchmarks/checkpoint_cost.py            a small run, and one with a large replay
    python benchmarks/checkpoint_cost.py --looking  training with and without the look for NaN

Prints one JSON document. The share is that of the saves in a whole run, at the default interval:
the one before the first step, and the others as ``runs._Loop._is_due`` says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coterie import make
from coterie.algorithms import make as make_algorithm
from coterie.runs.environments import make_game
from coterie.runs.loop import CHECKPOINTS, LARGE, SAVING_RATE, SAVING_SHARE
from coterie.storage import checkpoint
from coterie.training import loop as training
from coterie.training.finite import FiniteChecks
from coterie.training.loop import Program

CASES = {
    "small": ("ippo", "lbf/8x8-2p-3f", 1_000_000, {}),
    "replay of 1,000,000": ("vdn", "lbf/8x8-2p-3f", 4_000_000, {"buffer_size": 1_000_000}),
}
LOOKS = (
    ("vdn", "lbf/8x8-2p-3f"), ("qmix", "lbf/8x8-2p-3f"), ("ia2c", "lbf/8x8-2p-3f"),
    ("ippo", "mpe/simple-spread"),
)  # fmt: skip


def program_of(name: str, task: str, steps: int, settings: dict[str, Any]) -> Program:
    env = make(task)
    algorithm = make_algorithm(name, **settings).resolve(steps, env.spec().time_limit)
    reward = "sum" if algorithm.common_reward else None
    return Program(algorithm, make_game(algorithm, env, task, reward, "auto"), 1)


def cost(name: str, task: str, steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of this run, one seed of it, once it is learning."""
    program = program_of(name, task, steps, settings)
    state, iteration = program.init(0), 20_000 // program.steps_per_iteration
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        checkpoint.save(Path(folder), 0, (state,), {"iteration": 0})
        first = time.perf_counter() - begun
    state = jax.block_until_ready(program.advance(state, iteration, program.chunk))
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 10:
        iteration, done = iteration + program.chunk, done + program.chunk
        state = jax.block_until_ready(program.advance(state, iteration, program.chunk))
    rate = done * program.steps_per_iteration / (time.perf_counter() - begun)
    # As if replay were full: what was not written yet would be a hole in the file.
    state = jax.tree.map(lambda x: x if x.nbytes < 2**20 else jnp.ones_like(x), state)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, 6):
            begun = time.perf_counter()
            path = checkpoint.save(Path(folder), step, (state,), {"iteration": iteration})
            took.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        checkpoint.latest(Path(folder), (program.template(),))
        read, size = time.perf_counter() - begun, path.stat().st_size
    save, seconds = float(np.median(took)), steps / rate
    pause = size / SAVING_RATE / SAVING_SHARE if size > LARGE else 0.0
    saves = max(1, min(CHECKPOINTS, int(seconds / max(pause, 1e-9))))
    return {
        "bytes": size,
        "seconds to save the first": round(first, 3),
        "seconds to save": round(save, 3),
        "saves after the first": saves,
        "seconds to read": round(read, 3),
        "steps": steps,
        "steps per second": round(rate),
        "percent of the run": round(100 * (first + saves * save) / seconds, 2),
    }


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """What is compiled meanwhile does not look."""
    real = training.check_finite, training.any_failed, training.finite
    no = jnp.zeros((), bool)
    training.check_finite = lambda rollout, losses, parameters: FiniteChecks(
        observations=jnp.zeros(rollout.observations.shape[-2:-1], bool),
        central=no,
        rewards=jnp.zeros(rollout.rewards.shape[-1:], bool),
        losses=jnp.zeros(len(losses), bool),
        parameters=no,
    )
    training.any_failed, training.finite = lambda health: no, lambda tree: ~no
    yield
    training.check_finite, training.any_failed, training.finite = real


def looking(name: str, task: str, turns: int = 40) -> dict[str, Any]:
    """Processor time of a chunk with and without, turn by turn on the same state.

    One state for both, in the same memory: where its replay lies moves the time by more than what
    is looked for.
    """
    programs = {which: program_of(name, task, 10**6, {}) for which in ("with", "without")}
    chunk = programs["with"].chunk
    first = 20_000 // programs["with"].steps_per_iteration
    state = programs["with"].advance(programs["with"].init(0), first, chunk)
    with blind():
        state = programs["without"].advance(state, first + chunk, chunk)
    took: dict[str, list[float]] = {which: [] for which in programs}
    at = first + 2 * chunk
    for turn in range(turns):
        for which in list(programs)[:: 1 if turn % 2 else -1]:
            begun = time.process_time()
            state = jax.block_until_ready(programs[which].advance(state, at, chunk))
            took[which].append(time.process_time() - begun)
            at += chunk
    ratios = np.asarray(took["with"]) / np.asarray(took["without"])
    again = np.random.default_rng(0).choice(ratios, (10_000, turns))
    low, high = np.percentile(np.median(again, axis=1), [2.5, 97.5])
    return {
        "microseconds an iteration": {
            which: round(1e6 * float(np.median(seconds)) / chunk, 1)
            for which, seconds in took.items()
        },
        "percent": round(100 * float(np.median(ratios) - 1), 2),
        "ci95": [round(100 * float(x - 1), 2) for x in (low, high)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--looking", action="store_true")
    if parser.parse_args().looking:
        found = {f"{name} on {task}": looking(name, task) for name, task in LOOKS}
    else:
        found = {name: cost(*case) for name, case in CASES.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
