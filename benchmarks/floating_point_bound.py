"""How close training comes to the floating-point work that its networks need.

    python benchmarks/floating_point_bound.py
    python benchmarks/floating_point_bound.py --quick

For each work, one seed on one core:

* needed: floating-point operations of the products x @ W that an environment step needs, by a
  formula from the networks' shapes: one forward pass of the actors to act; for each update a
  forward pass of every network that the loss asks, and the two products of its backward pass
  (dL/dW and dL/dx, the latter not for the first layer) for those that are trained;
* bound: steps per second if these products were all there is, each at the rate that the same
  product reaches alone in the same process;
* share: measured steps per second as a share of the bound. What is left is the environment, the
  optimiser, activations, gathers and random numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any

WORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "IA2C, foraging": ("ia2c", "lbf/8x8-2p-3f", {"environments": 10}),
    "IPPO, foraging": ("ippo", "lbf/8x8-2p-3f", {"environments": 10, "hidden": (128, 128)}),
    "IPPO, spread": ("ippo", "mpe/simple-spread", {"environments": 128}),
    "IDQN, foraging": ("idqn", "lbf/8x8-2p-3f", {"hidden": (128, 128)}),
    "QMIX, foraging": ("qmix", "lbf/8x8-2p-3f", {"hidden": (128, 128)}),
    "VDN with GRU, speaker-listener": (
        "vdn", "mpe/simple-speaker-listener",
        {"recurrent": True, "environments": 8, "hidden": (64,), "sequence_length": 25,
         "batch_size": 32, "update_ratio": 1 / 200},
    ),
}  # fmt: skip
SHORT = {"buffer_size": 50_000, "learning_starts": 5_000}
"""Of value-based algorithms, so that measuring starts early."""

Product = tuple[int, int, int, int]
"""x [G, M, I] @ W [G, I, O]: networks G, rows M of each, inputs I, outputs O."""


def layers(networks: Any) -> list[tuple[int, int, int]]:
    """(G, I, O) of every linear layer, in order; G networks side by side."""
    import jax

    from coterie.networks.layers import Linear

    found = jax.tree.leaves(networks, is_leaf=lambda x: isinstance(x, Linear))
    shapes = [x.weight.shape for x in found if isinstance(x, Linear)]
    return [s if len(s) == 3 else (1, *s) for s in shapes]


def forward(networks: Any, rows: int) -> Counter[Product]:
    """The products of a forward pass on so many rows, spread evenly over networks side by side."""
    return Counter((g, max(rows // g, 1), i, o) for g, i, o in layers(networks))


def backward(networks: Any, rows: int) -> Counter[Product]:
    """Those of its backward pass."""
    found: Counter[Product] = Counter()
    for index, (g, i, o) in enumerate(layers(networks)):
        m = max(rows // g, 1)
        found[g, i, m, o] += 1  # xᵀ [I, M] @ dy [M, O]
        if index:
            found[g, m, o, i] += 1  # dy [M, O] @ Wᵀ [O, I]
    return found


def times(products: Counter[Product], count: float) -> dict[Product, float]:
    return {product: n * count for product, n in products.items()}


def needed(algorithm: Any, game: Any, learner: Any) -> dict[Product, float]:
    """How often each product is needed in one iteration: a rollout and its updates."""
    from coterie.learners.value_based import ValueBased

    steps, environments = algorithm.rollout_shape()
    agents = game.spec.n_agents
    total: Counter[Product] = Counter()
    policy = algorithm.policy(learner)
    total.update(times(forward(policy, environments * agents), steps))
    if isinstance(algorithm, ValueBased):
        length = algorithm.sequence_length if algorithm.recurrent else 1
        rows = algorithm.batch_size * length
        updates = algorithm._updates_per_rollout()
        utility, mixer = learner.values.utility, learner.values.mixer
        # o and o' by θ where they are no sequence; o' by θ̄.
        asked = 1 if algorithm.recurrent else 1 + algorithm.double_q
        for networks, n, by_theta in ((utility, rows * agents, asked), (mixer, rows, 1)):
            total.update(times(forward(networks, n), updates * (by_theta + 1)))
            total.update(times(backward(networks, n), updates))
        return dict(total)
    passes, parts = algorithm.passes()
    rows = steps * environments * agents
    total.update(times(forward(learner.critic, rows + environments * agents), 1))
    for networks in (policy, learner.critic):
        total.update(times(forward(networks, rows // parts), passes * parts))
        total.update(times(backward(networks, rows // parts), passes * parts))
    return dict(total)


def seconds_of(product: Product, least: float = 0.02) -> float:
    """Seconds that one such product takes, the best of five measurements."""
    import jax
    import jax.numpy as jnp

    g, m, i, o = product
    flops = 2 * g * m * i * o
    repeats = max(1, int(least * 50e9 / flops))
    x, w = jnp.ones((2, g, m, i)), jnp.ones((2, g, i, o))
    of_x, of_w = (1, 0) if m < o else (0, 1)  # the smaller one changes, so that no product is saved

    @jax.jit
    def run(x: Any, w: Any) -> Any:
        again = lambda k, _: x[k % 2 * of_x] @ w[k % 2 * of_w]  # noqa: E731
        return jax.lax.fori_loop(0, repeats, again, x[0] @ w[0])

    run(x, w).block_until_ready()
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        run(x, w).block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return best / (repeats + 1)


def row(work: str, seconds: float) -> dict[str, Any]:
    """One measurement, in this process."""
    from coterie.training.devices import Devices, one_core_per_seed

    one_core_per_seed(1)
    import jax

    import coterie
    from coterie.algorithms import make as make_algorithm
    from coterie.runs.environments import make_game

    name, task, settings = WORKS[work]
    algorithm = make_algorithm(name)
    more = SHORT if hasattr(algorithm, "buffer_size") else {}
    algorithm = make_algorithm(name, **settings, **more).resolve(1_000_000)
    game = make_game(algorithm, coterie.make(task), task, None, "auto")
    devices = Devices(algorithm, game, 1)
    states, iteration = devices.init(0), 0
    each, chunk = devices.program.steps_per_iteration, devices.program.chunk
    warm = getattr(algorithm, "learning_starts", 0) // each + 2
    while iteration < warm:
        count = min(chunk, warm - iteration)
        states, iteration = devices.advance(states, iteration, count), iteration + count
    first, begun = iteration, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        count = max(chunk // 8, 1)
        states, iteration = devices.advance(states, iteration, count), iteration + count
    speed = (iteration - first) * each / spent
    learner = jax.tree.map(lambda x: x[0], states[0].learner)
    products = needed(algorithm, game, learner)
    flops = sum(2 * g * m * i * o * n for (g, m, i, o), n in products.items())
    least = sum(seconds_of(product) * n for product, n in products.items())
    return {
        "work": work,
        "steps/s": round(speed),
        "needed kFLOP/step": round(flops / each / 1e3, 1),
        "products GFLOP/s": round(flops / least / 1e9, 1),
        "bound steps/s": round(each / least),
        "share": round(speed * least / each, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8.0, help="of training, for each work")
    parser.add_argument("--quick", action="store_true", help="one work, half a second")
    parser.add_argument("--row", choices=list(WORKS))
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row(options.row, options.seconds)))
        return
    seconds = 0.5 if options.quick else options.seconds
    for work in list(WORKS)[: 1 if options.quick else None]:
        words = ["--seconds", str(seconds), "--row", work]
        subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
