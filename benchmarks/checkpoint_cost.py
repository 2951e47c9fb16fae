"""What safety costs: seconds and bytes of a checkpoint, and of looking at every number.

    python benchmarks/checkpoint_cost.py            a small run, and a replay of 1,000,000 transitions
    python benchmarks/checkpoint_cost.py --looking  training with and without the look for NaN

Prints one JSON document. The share is that of the saves in a whole run, at the default interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coterie import checkpoint, make, training
from coterie.algorithms import make as make_algorithm
from coterie.runs import CHECKPOINTS, make_game
from coterie.training import Program

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
    state = jax.block_until_ready(program.advance(state, iteration, program.chunk))
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 10:
        iteration, done = iteration + program.chunk, done + program.chunk
        state = jax.block_until_ready(program.advance(state, iteration, program.chunk))
    rate = done * program.steps_per_iteration / (time.perf_counter() - begun)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, 6):
            begun = time.perf_counter()
            path = checkpoint.save(Path(folder), step, (state,), {"iteration": iteration})
            took.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        checkpoint.latest(Path(folder), (program.template(),))
        read, size = time.perf_counter() - begun, path.stat().st_size
    save = float(np.median(took))
    return {
        "bytes": size,
        "seconds to save": round(save, 3),
        "seconds to read": round(read, 3),
        "steps": steps,
        "steps per second": round(rate),
        "percent of the run": round(100 * (CHECKPOINTS + 1) * save / (steps / rate), 2),
    }


def blind(program: Program) -> None:
    """The program without the look."""
    well = training.good(program.algorithm, program.game)
    real = training.examine
    training.examine = lambda *_: jax.tree.map(jnp.asarray, well)
    program._advance.lower(
        program.template(), program.algorithm.clock(np.arange(program.chunk)), np.int32(1)
    )
    training.examine = real


def looking(name: str, task: str, turns: int = 30) -> dict[str, Any]:
    """Seconds of a chunk with and without, turn by turn in one process."""
    programs = {
        "with": program_of(name, task, 10**6, {}),
        "without": program_of(name, task, 10**6, {}),
    }
    blind(programs["without"])
    states = {which: program.init(0) for which, program in programs.items()}
    took: dict[str, list[float]] = {which: [] for which in programs}
    chunk = programs["with"].chunk
    first = 20_000 // programs["with"].steps_per_iteration
    for turn in range(turns + 1):
        order = list(programs)[:: 1 if turn % 2 else -1]
        for which in order:
            begun = time.perf_counter()
            state = programs[which].advance(states[which], first + turn * chunk, chunk)
            states[which] = jax.block_until_ready(state)
            took[which].append(time.perf_counter() - begun)
    best = {which: min(seconds[1:]) for which, seconds in took.items()}
    return {
        "microseconds an iteration": {w: round(1e6 * s / chunk, 1) for w, s in best.items()},
        "percent": round(100 * (best["with"] / best["without"] - 1), 2),
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
