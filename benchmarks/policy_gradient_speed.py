"""Training steps per second of IA2C and IPPO on lbf/8x8-2p-3f beside what their products cost.

    python benchmarks/policy_gradient_speed.py

IA2C with 10 environments and rollouts of 10 steps, IPPO with 1,024 environments; networks 2x64, own
parameters, ReLU. The ceiling is the time of the same work's matrix products alone, timed one shape
after the other in this run: acting, values, and forward and backward passes of every update. Steps
are environment steps of one seed, end to end, after compilation. The peers' figures were measured
earlier on a machine like this one.
"""

from __future__ import annotations

import functools
import json
import time
from typing import Any

PEERS = {"ia2c": {"marl-book": 4000, "EPyMARL": 2200}, "ippo": {"marl-book": 3300, "EPyMARL": 1400}}
SETTINGS: dict[str, dict[str, Any]] = {
    "ia2c": {"environments": 10, "rollout_steps": 10, "activation": "relu"},
    "ippo": {"environments": 1024, "rollout_steps": 32, "activation": "relu"},
    "ippo, 10 environments": {
        "environments": 10, "rollout_steps": 32, "activation": "relu", "minibatches": 5,
    },
}  # fmt: skip
AGENTS, OBSERVATION, ACTIONS = 2, 15, 6


def rate(algorithm: Any, seconds: float = 8.0) -> float:
    """Environment steps per second of one seed."""
    import jax

    from coterie import make
    from coterie.runs.environments import make_game
    from coterie.training.loop import Program

    name = "lbf/8x8-2p-3f"
    program = Program(algorithm, make_game(algorithm, make(name), name, None, "auto"), 1)
    state = program.advance(program.init(0), 0, program.chunk)
    iteration = program.chunk
    jax.block_until_ready(state.losses)
    begin, start = iteration, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        state = program.advance(state, iteration, program.chunk)
        jax.block_until_ready(state.losses)
        iteration += program.chunk
    return (iteration - begin) * program.steps_per_iteration / spent


@functools.cache
def product_seconds(rows: int, inner: int, columns: int, agents: int = AGENTS) -> float:
    """Seconds of one product [rows, inner] x [inner, columns] for each agent."""
    import jax
    import jax.numpy as jnp

    repeats = max(1, min(512, 2**22 // (rows * (inner + columns) * agents)))
    a = jax.random.normal(jax.random.key(0), (repeats, agents, rows, inner))
    b = jax.random.normal(jax.random.key(1), (agents, inner, columns))
    run = jax.jit(lambda a, b: jax.lax.map(lambda x: jnp.matmul(x, b), a))
    run(a, b).block_until_ready()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        run(a, b).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times) / repeats


def network_seconds(rows: int, outputs: int, backward: bool) -> float:
    """One network's products for so many rows; going back, two more for each but the input's."""
    total = 0.0
    for k, (i, j) in enumerate(((OBSERVATION, 64), (64, 64), (64, outputs))):
        total += product_seconds(rows, i, j)
        if backward:
            total += product_seconds(i, rows, j)
            total += product_seconds(rows, j, i) if k else 0.0
    return total


def ceiling(algorithm: Any) -> float:
    """Steps per second if nothing but the products took time."""
    steps, environments = algorithm.rollout_shape()
    epochs, minibatches = algorithm.passes()
    rows = steps * environments
    seconds = steps * network_seconds(environments, ACTIONS, backward=False)
    seconds += 2 * network_seconds(rows, 1, backward=False)
    update = [network_seconds(rows // minibatches, out, backward=True) for out in (ACTIONS, 1)]
    return rows / (seconds + epochs * minibatches * sum(update))


def main() -> None:
    from coterie.algorithms import make as make_algorithm

    report: dict[str, Any] = {}
    for title, settings in SETTINGS.items():
        name = title.partition(",")[0]
        algorithm = make_algorithm(name, **settings)
        measured, most = rate(algorithm), ceiling(algorithm)
        report[f"{title}: steps/s"] = round(measured)
        report[f"{title}: steps/s of its matrix products alone"] = round(most)
        report[f"{title}: share of that ceiling"] = round(measured / most, 2)
        if algorithm.environments == 10:
            for peer, speed in PEERS[name].items():
                report[f"{title}: ratio to {peer}"] = round(measured / speed, 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
