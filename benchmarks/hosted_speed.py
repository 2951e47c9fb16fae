"""Training on a Python environment: steps per second, and what the time goes to.

    python benchmarks/hosted_speed.py [ENVIRONMENT [WORKERS]]

VDN, IA2C and IPPO at our defaults with 16 environments, after compilation, evaluation left out; the
environment is lbforaging's Foraging-8x8-2p-3f-v3 unless named. ``own`` is the share of the wall
clock that the environment's own code would take, spread over the workers, if they did nothing else;
the rest is lost to us. Beside it stands the environment in a plain loop of one process, random
actions, without us.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from coterie.lanes import one_core_per_seed

ENVIRONMENT = "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3"
SECONDS = 15.0


def plain(name: str) -> float:
    """Steps per second of one environment in a loop, random actions."""
    from coterie.envs.hosted import make_hosted

    env, rng = make_hosted(name)(), np.random.default_rng(0)
    counts = env.spec.action_counts
    shown, steps, start = env.reset(0), 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS / 3:
        if shown.terminated or shown.truncated:
            env.reset(steps)
        shown = env.step(rng.integers(0, counts))
        steps += 1
    env.close()
    return steps / spent


def trained(algorithm: str, name: str, workers: int) -> dict[str, Any]:
    """Figures of one algorithm."""
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
    busy, before, first = lanes.fleet.rows.busy.sum(), lanes.tallies(), iteration
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        count = max(1, lanes.program.chunk // 8)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    own = (lanes.fleet.rows.busy.sum() - busy) / max(workers, 1)
    split = {k: v - before[k] for k, v in lanes.tallies().items() if k.startswith("seconds_")}
    lanes.close()
    steps = (iteration - first) * each
    shares = {k.removeprefix("seconds_"): round(v / spent, 2) for k, v in split.items()}
    return {"steps_per_second": round(steps / spent), **shares, "own": round(own / spent, 2)}


def main() -> None:
    one_core_per_seed(1)
    name = sys.argv[1] if len(sys.argv) > 1 else ENVIRONMENT
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    report: dict[str, Any] = {"plain loop, steps per second": round(plain(name))}
    for algorithm in ("vdn", "ia2c", "ippo"):
        report[f"{algorithm}, {workers} workers"] = trained(algorithm, name, workers)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
