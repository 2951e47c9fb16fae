"""Training steps per second of IDQN, VDN and QMIX on lbf/8x8-2p-3f.

    python benchmarks/training_speed.py

With one environment, 32 episodes of 50 steps a minibatch and one update an episode (as marl-book
and EPyMARL have it), networks 2x64, feed-forward and GRU; and with Coterie's defaults. Steps are
environment steps, end to end, after compilation.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from coterie.training.devices import Devices, one_core_per_seed

EPISODE = 50


def settings(recurrent: bool) -> dict[str, Any]:
    shared = {"environments": 1, "update_ratio": 1 / EPISODE, "learning_starts": 32 * EPISODE}
    if recurrent:
        return shared | {"recurrent": True, "sequence_length": EPISODE, "batch_size": 32}
    return shared | {"batch_size": 32 * EPISODE}


def rate(name: str, seconds: float = 8.0, seeds: int = 1, **own: Any) -> float:
    """Environment steps per second over all seeds."""
    from coterie import make
    from coterie.algorithms import make as make_algorithm
    from coterie.runs.environments import make_game

    algorithm = make_algorithm(name, buffer_size=100_000, **own).resolve(1_000_000)
    game = make_game(algorithm, make("lbf/8x8-2p-3f"), "lbf/8x8-2p-3f", None, "auto")
    lanes = Devices(algorithm, game, seeds)
    warm = -(-algorithm.learning_starts // lanes.program.steps_per_iteration) + 8
    state, iteration = lanes.init(0), 0
    while iteration < warm:
        count = min(lanes.program.chunk, warm - iteration)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    begin, start = iteration, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count = max(1, lanes.program.chunk // 16)
        state, iteration = lanes.advance(state, iteration, count), iteration + count
    return (iteration - begin) * lanes.program.steps_per_iteration * seeds / spent


def main() -> None:
    seeds = os.cpu_count() or 1
    one_core_per_seed(seeds)
    report: dict[str, Any] = {}
    for name in ("idqn", "vdn", "qmix"):
        report[f"{name}, one environment, feed-forward"] = round(rate(name, **settings(False)))
        report[f"{name}, one environment, GRU"] = round(rate(name, **settings(True)))
        report[f"{name}, our defaults, one seed"] = round(rate(name))
        report[f"{name}, our defaults, {seeds} seeds together"] = round(rate(name, seeds=seeds))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
