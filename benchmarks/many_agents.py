"""Training with 2 to 128 agents: steps per second, memory, and the time to compile.

    python benchmarks/many_agents.py
    python benchmarks/many_agents.py --quick

IPPO and VDN on foraging (a 30x30 grid, half as many foods as players) and on simple-spread, one
seed, with 16 environments; VDN replays at most 2,000 transitions. Each row is measured in a process
of its own:

* steps/s: environment steps of the whole team, after compilation;
* state: what a checkpoint holds; working: temporaries and outputs of the compiled programs, as the
  memory check counts them; peak: the most memory that the process had resident;
* compile: processor seconds of tracing and compiling training and evaluation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "ippo": {"environments": 16, "rollout_steps": 32},
    "vdn": {"buffer_size": 2_000, "batch_size": 32, "learning_starts": 512},
}
TASKS = ("lbf", "spread")
AGENTS = (2, 4, 8, 16, 32, 64, 128)


def row(algorithm_name: str, task: str, agents: int, seconds: float) -> dict[str, Any]:
    """One measurement, in this process."""
    import coterie
    from coterie.algorithms import make as make_algorithm
    from coterie.runs.environments import make_game
    from coterie.training.devices import Devices

    name, options = "mpe/simple-spread", {"n": agents}
    if task == "lbf":
        name, options = f"lbf/30x30-{agents}p-{max(agents // 2, 1)}f", {}
    algorithm = make_algorithm(algorithm_name, **SETTINGS[algorithm_name]).resolve(1_000_000)
    game = make_game(algorithm, coterie.make(name, **options), name, None, "auto")
    devices = Devices(algorithm, game, 1)
    begun = time.process_time()
    working = devices.working_bytes()
    compiled = time.process_time() - begun
    states, iteration = devices.init(0), 0
    each = devices.program.steps_per_iteration
    warm = getattr(algorithm, "learning_starts", 0) // each + 2
    while iteration < warm:
        states, iteration = devices.advance(states, iteration, 1), iteration + 1
    first, begun = iteration, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        states, iteration = devices.advance(states, iteration, 1), iteration + 1
    status = Path("/proc/self/status").read_text()
    return {
        "algorithm": algorithm_name,
        "task": task,
        "agents": agents,
        "steps/s": round((iteration - first) * each / spent),
        "state MB": round(devices.bytes() / 1e6, 1),
        "working MB": round(working / 1e6, 1),
        "peak MB": round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6),
        "compile s": round(compiled, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of training, for each row")
    parser.add_argument("--quick", action="store_true", help="2 and 8 agents, half a second each")
    parser.add_argument("--row", nargs=3, metavar=("ALGORITHM", "TASK", "AGENTS"))
    options = parser.parse_args()
    if options.row:
        algorithm, task, agents = options.row
        print(json.dumps(row(algorithm, task, int(agents), options.seconds)))
        return
    counts, seconds = ((2, 8), 0.5) if options.quick else (options.agents, options.seconds)
    for task in TASKS:
        for algorithm in SETTINGS:
            for agents in counts:
                words = ["--seconds", str(seconds), "--row", algorithm, task, str(agents)]
                subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
