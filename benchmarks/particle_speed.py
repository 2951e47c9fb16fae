"""Steps per second of the particle environments under random actions, beside ``mpe2``.

    pip install -c constraints.txt '.[bench,mpe]' && python benchmarks/particle_speed.py

Measures, in turns within one run so that a noisy machine is noisy for all: ours at K = 1, 64, 1024
with automatic reset, and the original in a Python loop. A step is one of the whole environment.
Each figure is the best of the rounds; ratios are medians over rounds of same-round ratios.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from environment_speed import measure, ours

ORIGINALS = {
    "mpe/simple-speaker-listener": "mpe2.simple_speaker_listener_v4",
    "mpe/simple-spread": "mpe2.simple_spread_v3",
    "mpe/simple-adversary": "mpe2.simple_adversary_v3",
    "mpe/simple-tag": "mpe2.simple_tag_v3",
    "mpe/simple-reference": "mpe2.simple_reference_v3",
}


def original(task: str, steps: int) -> tuple[Callable[[], Any], int]:
    env = importlib.import_module(ORIGINALS[task]).parallel_env()
    env.reset(seed=0)
    agents = env.possible_agents
    rng = np.random.default_rng(0)
    counts = [env.action_space(agent).n for agent in agents]

    def once() -> None:
        for actions in rng.integers(0, counts, (steps, len(agents))):
            env.step(dict(zip(agents, actions, strict=True)))
            if not env.agents:
                env.reset()

    return once, steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=["mpe/simple-speaker-listener"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    batches = (1, 64, 1024)
    report = {}
    for task in options.tasks:
        cases = {f"{task} K={k}": ours(task, k, max(50, 1000 // k), reset=True) for k in batches}
        rates = measure(cases | {f"{task} mpe2": original(task, 500)}, options.rounds)
        report |= {name: round(max(r)) for name, r in rates.items()}
        theirs = np.array(rates[f"{task} mpe2"])
        for name in cases:
            report[f"ratio {name} / mpe2"] = round(float(np.median(rates[name] / theirs)), 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
