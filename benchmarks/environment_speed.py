"""Steps per second of lbf/8x8-2p-3f under random actions, side by side with the peers.

    pip install -c constraints.txt '.[bench]' && python benchmarks/environment_speed.py

Measures, in turns within one run so that a noisy machine is noisy for all:

* ours at K = 1, 16, 128, 1024, with automatic reset;
* ours without any reset: the ceiling (episodes simply go on);
* the original package in a Python loop, and Jumanji's foraging at the same K.

Each figure is the best of the rounds; ratios are medians over rounds of same-round ratios.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import coterie
from coterie.views.game import Game
from coterie.views.vector import SEED_AXIS, VectorState, init_vector, refill, step_vector

TASK, ACTIONS = "lbf/8x8-2p-3f", 6


def ours(task: str, k: int, steps: int, reset: bool) -> tuple[Callable[[], Any], int]:
    game = Game(coterie.make(task))
    counts = np.asarray(game.spec.action_counts)

    def rollout(vector: VectorState, key: Any) -> tuple[VectorState, Any]:
        if reset:
            vector = refill(game, vector)
        pool = vector.pool
        actions = jax.random.randint(key, (steps, k, len(counts)), 0, counts)
        keys = jax.random.split(key, (steps, k))

        def step(carry: Any, xs: Any) -> Any:
            vector, seen = carry
            if reset:
                vector, view = step_vector(game, vector, pool, xs[1], xs[0])
                shown = vector.time_step
            else:
                state, view = jax.vmap(game.step)(xs[1], vector, xs[0])
                vector, shown = state, view
            used = shown.observations.sum() + view.observations.sum() + view.rewards.sum()
            return (vector, seen + used), None

        start = vector if reset else vector.state
        (vector, seen), _ = jax.lax.scan(step, (start, jnp.zeros(())), (actions, keys))
        return vector, seen

    lift = jax.vmap(rollout, axis_name=SEED_AXIS)
    run = jax.jit(lift, donate_argnums=0) if reset else jax.jit(lift)
    make = jax.jit(jax.vmap(lambda key: init_vector(game, key, k, steps), axis_name=SEED_AXIS))
    held = {"state": make(jax.random.key(0)[None]), "n": 0}

    def once() -> Any:
        held["n"] += 1
        new, seen = run(held["state"], jax.random.key(held["n"])[None])
        if reset:
            held["state"] = new
        return seen

    return once, k * steps


def original(steps: int) -> tuple[Callable[[], Any], int]:
    import gymnasium

    env = gymnasium.make("lbforaging:Foraging-8x8-2p-3f-v3", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)

    def once() -> None:
        for actions in rng.integers(0, ACTIONS, (steps, 2)):
            *_, done, _, _ = env.step(actions)
            if done:
                env.reset()

    return once, steps


def jumanji_foraging(k: int, steps: int) -> tuple[Callable[[], Any], int]:
    from jumanji.environments import LevelBasedForaging
    from jumanji.environments.routing.lbf.generator import RandomGenerator
    from jumanji.wrappers import AutoResetWrapper

    env = AutoResetWrapper(
        LevelBasedForaging(
            RandomGenerator(grid_size=8, fov=8, num_agents=2, num_food=3, force_coop=False),
            time_limit=50,
        )
    )

    def rollout(state: Any, key: Any) -> Any:
        actions = jax.random.randint(key, (steps, k, 2), 0, ACTIONS)

        def step(carry: Any, action: Any) -> Any:
            state, seen = carry
            state, shown = jax.vmap(env.step)(state, action)
            used = shown.observation.agents_view.sum() + shown.reward.sum()
            return (state, seen + used), None

        (state, seen), _ = jax.lax.scan(step, (state, jnp.zeros(())), actions)
        return state, seen

    run = jax.jit(rollout)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), k))
    held = {"state": state, "n": 0}

    def once() -> Any:
        held["n"] += 1
        held["state"], seen = run(held["state"], jax.random.PRNGKey(held["n"]))
        return seen

    return once, k * steps


def measure(cases: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for once, _ in cases.values():
        jax.block_until_ready(once())
    for _ in range(rounds):
        for name, (once, steps) in cases.items():
            done, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < 0.4:
                jax.block_until_ready(once())
                done += steps
            rates[name].append(done / spent)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    batches = (1, 16, 128, 1024)
    cases = {}
    for k in batches:
        steps = max(50, 1000 // k)
        cases[f"coterie K={k}"] = ours(TASK, k, steps, reset=True)
        cases[f"coterie K={k}, no resets"] = ours(TASK, k, steps, reset=False)
        if not options.no_peers:
            cases[f"jumanji K={k}"] = jumanji_foraging(k, steps)
    if not options.no_peers:
        cases["lbforaging"] = original(500)
    rates = measure(cases, options.rounds)
    report = {name: round(max(r)) for name, r in rates.items()}

    def ratio(a: str, b: str) -> float:
        return round(float(np.median(np.array(rates[a]) / np.array(rates[b]))), 2)

    for k in batches:
        ours_name = f"coterie K={k}"
        report[f"ratio {ours_name} / no resets"] = ratio(ours_name, f"{ours_name}, no resets")
        if not options.no_peers:
            report[f"ratio {ours_name} / jumanji"] = ratio(ours_name, f"jumanji K={k}")
            report[f"ratio {ours_name} / lbforaging"] = ratio(ours_name, "lbforaging")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
