"""The table of training and execution modes (lecture, "Training and Execution Modes")."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coterie import envs
from coterie.algorithms import algorithms
from coterie.learners.contract import Algorithm
from coterie.lecture.base.experiment import Check, Experiment, Numbers, Scale
from coterie.policies.acting import act
from coterie.runs.environments import make_game
from coterie.runs.run import Run
from coterie.show.report.blocks import Table
from coterie.training.rollout import scan_rollout
from coterie.types import PyTree, Transition
from coterie.views.game import Game
from coterie.views.vector import SEED_AXIS, init_vector

GAME, ROUNDS = "matrix/climbing", 5
SMALL = {
    "hidden": (16,), "environments": 4, "minibatches": 1, "learning_starts": 1, "batch_size": 8,
    "buffer_size": 1000, "update_ratio": 1.0, "episode_steps": 10, "sharing": "own",
}  # fmt: skip
"""Sizes at which an update takes no time; what it depends on does not change with them."""

EXPECTED = {
    "decentralised training and execution": (False, False),
    "centralised training, decentralised execution": (True, False),
    "centralised training and execution": (True, True),
}
"""Mode -> whether the first agent learns from, and acts on, what only the others see."""


class Modes(Experiment):
    """One row for each algorithm, and what its first agent's update and actions depend on."""

    number = 1
    minutes = (7, 0.5)
    title = "Training and execution modes"
    source = "Lecture, “Training and Execution Modes”"
    about = (
        "What an agent may use while it learns and while it acts. Measured, not declared: one"
        " update is made twice on the same experience, the second time with other agents' "
        "observations (and z) disturbed, and it is seen whether the first agent's policy came"
        " out differently; then the same is done to its actions."
    )

    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        modes = list(EXPECTED)
        found = sorted(algorithms().items(), key=lambda pair: modes.index(pair[1].mode))
        return {name: _row(cls) for name, cls in found}

    def checks(self, numbers: Numbers) -> list[Check]:
        found = []
        for mode, (learns, acts) in EXPECTED.items():
            own = {name: row for name, row in numbers.items() if row["mode"] == mode}
            wrong = [
                name
                for name, row in own.items()
                if (row["learns_from_others"], row["acts_on_others"]) != (learns, acts)
            ]
            claim = (
                f"{mode.capitalize()}: an agent learns from "
                f"{'everybody’s' if learns else 'its own'} observations and acts on "
                f"{'everybody’s' if acts else 'its own'}"
            )
            measured = f"not so: {', '.join(wrong)}" if wrong else f"so: {', '.join(own)}"
            found.append(Check(claim, "lecture", measured, bool(own) and not wrong))
        return found

    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        words = {True: "everybody’s", False: "its own"}
        rows = [
            [
                name,
                r["mode"],
                words[r["learns_from_others"]],
                words[r["acts_on_others"]],
            ]
            for name, r in numbers.items()
        ]
        headers = ["algorithm", "mode", "learns from", "acts on"]
        return [
            Table(
                headers,
                rows,
                f"Observations that matter to the first agent, {GAME}, {ROUNDS} rounds.",
            )
        ]


def _row(cls: type[Algorithm]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    algorithm = cls(**{k: v for k, v in SMALL.items() if k in names}).resolve(1000, ROUNDS)
    game = make_game(algorithm, envs.make(GAME, rounds=ROUNDS), GAME, None, "auto")
    learns, acts = _dependence(algorithm, game)
    return {
        "mode": cls.mode,
        "learns_from_others": learns,
        "acts_on_others": acts,
    }


def _dependence(algorithm: Algorithm, game: Game) -> tuple[bool, bool]:
    """Whether the first agent's update, and its Q-values or logits, change with what others see."""
    time = algorithm.schedules(np.zeros(1, np.int64))
    schedules = {name: jnp.asarray(values)[0] for name, values in time.items()}

    def probe(key: Array) -> tuple[Array, Array]:
        init_key, env_key, act_key, learn_key, noise_key = jax.random.split(key, 5)
        learner = algorithm.init(init_key, game)
        policy = algorithm.policy(learner)
        steps, environments = algorithm.rollout_shape()
        vector = init_vector(game, env_key, environments, steps + 1)
        hidden_state = policy.initial_hidden_state(environments)
        _, _, rollout, _ = scan_rollout(
            algorithm, game, policy, vector, hidden_state, act_key, schedules
        )
        disturbed = _disturb(game, rollout, noise_key)

        def first_after(seen: Transition) -> PyTree:
            learnt, _ = algorithm.learn(game, learner, seen, learn_key, schedules)
            return jax.tree.map(lambda x: x[0], algorithm.policy(learnt))

        def first_outputs(seen: Transition) -> Array:
            observed = seen.observations[0], seen.action_mask[0]
            return act(policy, hidden_state, *observed, extras=lambda chosen, _: chosen.outputs)[2][
                :, 0
            ]

        return (
            _differ(first_after(rollout), first_after(disturbed)),
            _differ(first_outputs(rollout), first_outputs(disturbed)),
        )

    quickly = {"xla_backend_optimization_level": 0}
    run = jax.jit(jax.vmap(probe, axis_name=SEED_AXIS), compiler_options=quickly)
    learns, acts = run(jax.random.split(jax.random.key(0), 1))
    return bool(learns[0]), bool(acts[0])


def _disturb(game: Game, rollout: Transition, key: Array) -> Transition:
    """The same experience, had all agents but the first seen something else."""
    own = game.players.observation_sizes[0]

    def others(x: Float[Array, "*S N O"]) -> Array:
        noise = jax.random.normal(key, x.shape)
        spared = (
            jnp.arange(x.shape[-1]) < own if game.joint else jnp.arange(x.shape[-2])[:, None] < 1
        )
        return x + jnp.where(spared, 0.0, noise)

    def all_of(z: Float[Array, "*S Z"]) -> Array:
        return z + jax.random.normal(key, z.shape)

    return dataclasses.replace(
        rollout,
        observations=others(rollout.observations),
        next_observations=others(rollout.next_observations),
        central=all_of(rollout.central),
        next_central=all_of(rollout.next_central),
    )


def _differ(a: PyTree, b: PyTree) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.any(jnp.stack([jnp.any(x != y) for x, y in pairs]))
