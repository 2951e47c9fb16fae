"""Training on a Python environment: steps per second, and what the time goes to.

    python benchmarks/hosted_speed.py [ENVIRONMENT [WORKERS [ALGORITHM ...]]]

VDN, IA2C and IPPO (unless named) at our defaults with 16 environments, after compilation,
evaluation left out; the environment is lbforaging's Foraging-8x8-2p-3f-v3 unless named. Before it,
as many processes as workers step the environment at once in a plain loop with random legal actions:
``own`` is what a step takes there, ``ours`` the same as we show it to a learner. ``lost`` is the
share of those processes' steps per second that training does not reach.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from coterie.lanes import one_core_per_seed

ENVIRONMENT = "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3"
SECONDS = 15.0


def plain(name: str) -> tuple[float, float]:
    """Seconds of one environment in a loop, random legal actions: its own a step, and with ours."""
    from coterie.envs.hosted import HostedEnvironment, open_factory

    source, inside = open_factory(name)(), 0.0

    def timed(call: Any) -> Any:
        def wrapped(*args: Any, **more: Any) -> Any:
            nonlocal inside
            began = time.perf_counter()
            try:
                return call(*args, **more)
            finally:
                inside += time.perf_counter() - began

        return wrapped

    for word in ("step", "reset", "observe", "state"):
        if hasattr(source, word):
            setattr(source, word, timed(getattr(source, word)))
    env, rng = HostedEnvironment(source), np.random.default_rng(0)
    shown, steps, total, inside = env.reset(0), 0, 0.0, 0.0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS / 3:
        actions = np.where(shown.action_mask, rng.random(shown.action_mask.shape), -1).argmax(1)
        began = time.perf_counter()
        shown = env.step(actions)
        if shown.terminated or shown.truncated:
            shown = env.reset(steps)
        total, steps = total + time.perf_counter() - began, steps + 1
    env.close()
    return inside / steps, total / steps


def plain_at_once(name: str, processes: int) -> tuple[float, float]:
    """``plain`` in so many processes at once, on average: they slow each other down."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        own, ours = zip(*pool.map(plain, [name] * processes), strict=True)
    return float(np.mean(own)), float(np.mean(ours))


def trained(algorithm: str, name: str, workers: int, own: float) -> dict[str, Any]:
    """Figures of one algorithm, where a step of the environment takes ``own`` seconds."""
    from coterie.algorithms import make
    from coterie.hosted_lanes import HostedLanes
    from coterie.hosting import Hosting, settle
    from coterie.runs import make_game, open_environment

    made = make(algorithm, environments=16).resolve(1_000_000)
    env, _ = open_environment(name, {})
    hosting, _ = settle(Hosting(workers=workers), env, name)
    assert hosting is not None
    game = make_game(made, env, name, "sum", "auto")
    lanes = HostedLanes(made, game, 1, 0, 32, hosting, print)
    each = lanes.program.steps_per_iteration
    state, iteration = lanes.init(0), 0
    warm = getattr(made, "learning_starts", 0) // each + 2
    while iteration < warm:
        count = min(lanes.program.chunk, warm - iteration)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    before, first = lanes.tallies(), iteration
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        count = max(1, lanes.program.chunk // 8)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    split = {k: v - before[k] for k, v in lanes.tallies().items() if k.startswith("seconds_")}
    lanes.close()
    steps = (iteration - first) * each
    shares = {k.removeprefix("seconds_"): round(v / spent, 2) for k, v in split.items()}
    return {
        "steps_per_second": round(steps / spent),
        **shares,
        "lost": round(1 - steps / spent * own / max(workers, 1), 2),
    }


def main() -> None:
    one_core_per_seed(1, hosted=True)
    name = sys.argv[1] if len(sys.argv) > 1 else ENVIRONMENT
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    own, ours = plain_at_once(name, max(workers, 1))
    report: dict[str, Any] = {
        "microseconds a step": {"own": round(1e6 * own), "ours": round(1e6 * ours)}
    }
    for algorithm in sys.argv[3:] or ("vdn", "ia2c", "ippo"):
        report[f"{algorithm}, {workers} workers"] = trained(algorithm, name, workers, own)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
