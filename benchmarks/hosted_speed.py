"""Training on a Python environment: steps per second, and what the time goes to.

    python benchmarks/hosted_speed.py [ENVIRONMENT [WORKERS [ALGORITHM ...]]] [--environments K]

VDN, IA2C and IPPO (unless named) at our defaults with 16 environments (unless said), after
compilation, evaluation left out; the environment is lbforaging's Foraging-8x8-2p-3f-v3 unless
another is named.

``own`` is the processor time of the environment's own code for one step, resets included, as
measured in the workers while training goes on; ``lost`` is the share of the workers' wall clock
that it does not fill. ``random play`` is the same step by random legal actions in a plain loop, in
as many processes at once, by the wall clock, alone and as we show it to a learner: it plays other
situations, so that it can differ either way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from coterie.training.devices import one_core_per_seed

ENVIRONMENT = "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3"
SECONDS = 15.0
PROCESSES = 64
"""Processes of environments whose time can be kept."""


def timed(source: Any, note: Any, clock: Any) -> Any:
    """The environment, with the seconds of each call of its own code given to ``note``."""

    def wrap(call: Any) -> Any:
        def wrapped(*args: Any, **more: Any) -> Any:
            began = clock()
            try:
                return call(*args, **more)
            finally:
                note(clock() - began)

        return wrapped

    for word in ("step", "reset", "observe", "state"):
        if hasattr(source, word):
            setattr(source, word, wrap(getattr(source, word)))
    return source


def in_worker(make: Any, path: str) -> Any:
    """The environment, adding its processor time to this process's number in a file."""
    sums = np.memmap(path, np.float64, "r+", shape=(PROCESSES,))
    slot = os.getpid() % PROCESSES

    def note(seconds: float) -> None:
        sums[slot] += seconds

    env = make()
    timed(env._host._environment, note, time.thread_time)
    return env


def random_play(name: str) -> tuple[float, float]:
    """Seconds of one environment in a loop, random legal actions: its own a step, and with ours."""
    from coterie.python_envs.adapters.environment import PythonEnv, open_factory

    inside: list[float] = []
    env = PythonEnv(timed(open_factory(name)(), inside.append, time.perf_counter))
    rng = np.random.default_rng(0)
    shown, steps, total = env.reset(0), 0, 0.0
    inside.clear()
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS / 3:
        actions = np.where(shown.action_mask, rng.random(shown.action_mask.shape), -1).argmax(1)
        began = time.perf_counter()
        shown = env.step(actions)
        if shown.terminated or shown.truncated:
            shown = env.reset(steps)
        total, steps = total + time.perf_counter() - began, steps + 1
    env.close()
    return sum(inside) / steps, total / steps


def at_once(name: str, processes: int) -> tuple[float, float]:
    """``random_play`` in so many processes at once, on average: they slow each other down."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        own, ours = zip(*pool.map(random_play, [name] * processes), strict=True)
    return float(np.mean(own)), float(np.mean(ours))


def trained(
    algorithm: str, name: str, workers: int, environments: int, path: str
) -> dict[str, Any]:
    """Figures of one algorithm; ``path`` is a file in which workers note their seconds."""
    from coterie.algorithms import make
    from coterie.python_envs.settings import PythonEnvSettings, resolve_settings
    from coterie.python_envs.training import HostDevice
    from coterie.runs.environments import make_game, open_environment
    from coterie.spec import PythonEnvFactory

    made = make(algorithm, environments=environments).resolve(1_000_000)
    env, _ = open_environment(name, {})
    python_env, _ = resolve_settings(PythonEnvSettings(workers=workers), env, name)
    assert python_env is not None
    own = np.memmap(path, np.float64, "w+", shape=(PROCESSES,))
    game = make_game(made, env, name, "sum", "auto")
    assert isinstance(game.env, PythonEnvFactory)
    game = replace(game, env=replace(game.env, make=partial(in_worker, game.env.make, path)))
    lanes = HostDevice(made, game, 1, 0, 32, python_env, print)
    each, chunk = lanes.program.steps_per_iteration, lanes.program.chunk
    state, iteration = lanes.init(0), 0
    warm = getattr(made, "learning_starts", 0) // each + 2
    while iteration < warm:
        count = min(chunk, warm - iteration)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    before, busy, first = lanes.tallies(), own.sum(), iteration
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        state, iteration = lanes.advance(state, iteration, chunk), iteration + chunk
    busy = own.sum() - busy
    split = {k: v - before[k] for k, v in lanes.tallies().items() if k.startswith("seconds_")}
    lanes.close()
    steps = (iteration - first) * each
    shares = {k.removeprefix("seconds_"): round(v / spent, 2) for k, v in split.items()}
    return {
        "steps_per_second": round(steps / spent),
        **shares,
        "own microseconds a step": round(1e6 * busy / steps),
        "lost": round(1 - busy / spent / max(workers, 1), 2),
    }


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("environment", nargs="?", default=ENVIRONMENT)
    asked.add_argument("workers", nargs="?", type=int, default=2)
    asked.add_argument("algorithms", nargs="*", default=["vdn", "ia2c", "ippo"])
    asked.add_argument("--environments", type=int, default=16)
    given = asked.parse_args()
    one_core_per_seed(1, python_env=True)
    name, workers = given.environment, given.workers
    own, ours = at_once(name, max(workers, 1))
    report: dict[str, Any] = {
        "random play, microseconds a step": {"own": round(1e6 * own), "ours": round(1e6 * ours)}
    }
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in given.algorithms:
            report[f"{algorithm}, {workers} workers"] = trained(
                algorithm, name, workers, given.environments, os.path.join(folder, algorithm)
            )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
