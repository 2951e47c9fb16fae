"""The trainings that the experiments decomposition and igm share."""

from __future__ import annotations

from typing import Any

from coterie.lecture.base.experiment import Recipe

GAMES = ("linear", "monotonic", "climbing")
ALGORITHMS = ("vdn", "qmix")
UNIFORM: dict[str, Any] = {
    "epsilon_start": 1.0, "epsilon_end": 1.0, "reward_scaling": "none", "environments": 256,
    "learning_starts": 100_000, "buffer_size": 2_000_000, "batch_size": 512,
    "update_ratio": 1 / 512, "lr": 1e-3, "lr_end": 0.0, "sharing": "own",
}  # fmt: skip
"""Uniformly random behaviour; the learning rate ends at 0, and with it the minibatches' noise."""
SIZES: dict[str, dict[str, Any]] = {
    "vdn": {"batch_size": 2048},
    "qmix": {"hyper_hidden": 32, "mixer_embedding": 64},
}
"""The mixer's are the lecture's. Where residuals are large, so is the noise of a minibatch."""


ADDITIVE_MSE, MONOTONE_MSE = 175.09, 110.82
"""Published: the smallest mean squared residuals on climbing of additive and of monotone tables."""


def recipes() -> dict[str, Recipe]:
    """ "vdn climbing" and so on: each algorithm on each game."""
    return {
        f"{name} {game}": Recipe(
            name, f"matrix/{game}", 2_000_000, 5, UNIFORM | SIZES[name],
            quick_seeds=2, evaluations=1, final_episodes=32,
        )
        for game in GAMES
        for name in ALGORITHMS
    }  # fmt: skip
