"""What VDN and QMIX learn of matrix games under uniformly random behaviour, against the truth.

Two phases: large steps to come near, then small ones on large minibatches to average out the noise
of sampling; with 30 between neighbouring payoffs, one phase of either kind stays tenths away.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import quick

import coterie
from coterie.analysis import decomposition
from coterie.envs.views import Game
from coterie.training import Program

SETTINGS = {
    "epsilon_start": 1.0,
    "epsilon_end": 1.0,
    "epsilon_steps": 1,
    "standardise_rewards": False,
    "learning_starts": 20_000,
    "environments": 64,
    "buffer_size": 1_000_000,
    "update_ratio": 1 / 64,
    "lr": 1e-3,
}
QMIX = {"hyper_hidden": 32, "mixer_embedding": 64}
"""The lecture's sizes (SETTINGS leave its 2 x 64 utilities)."""
FINE = {"update_ratio": 1 / 2048, "lr": 1e-4, "batch_size": 4096}
NEAR, DONE = 400_000, 1_400_000


@functools.cache
def tables(name: str, game: str):
    """Each seed's utilities [A] of both agents, and joint values [A, A]."""
    env = coterie.make(f"matrix/{game}")
    near = coterie.QMIX(**SETTINGS, **QMIX) if name == "qmix" else coterie.VDN(**SETTINGS)
    state, steps = None, 0
    for algorithm, until in ((near, NEAR), (dataclasses.replace(near, **FINE), DONE)):
        program = Program(algorithm, Game(env, "state" if near.central else "none", "mean"), 2)
        program._init = quick(program._init.__wrapped__)
        state = program.init(0) if state is None else state
        done, total = steps // program.steps_per_iteration, program.iterations(until)
        while done < total:
            count = min(program.chunk, total - done)
            state = program.advance(state, done, count)
            done += count
        steps = done * program.steps_per_iteration
    return [read(near, jax.tree.map(lambda x, k=k: x[k], state.learner.values)) for k in range(2)]


def read(algorithm, values):
    one = jnp.ones((2, 1))
    scores, _ = values.utility.step(values.utility.initial_memory(), one, jnp.zeros(2, bool))
    joint = jnp.stack(jnp.meshgrid(*scores, indexing="ij"), axis=-1)
    z = jnp.ones((*joint.shape[:-1], 1 if algorithm.central else 0))
    return list(np.asarray(scores)), np.asarray(algorithm.joint(values.mixer, joint, z)[..., 0])


def truth(game: str) -> np.ndarray:
    return coterie.make(f"matrix/{game}").payoffs[..., 0]


@pytest.mark.parametrize("game", ["linear", "monotonic", "climbing"])
def test_vdn_learns_the_best_additive_fit(game):
    fit = decomposition.additive_fit(truth(game)).q_tot
    for utilities, q_tot in tables("vdn", game):
        np.testing.assert_allclose(q_tot, fit, atol=0.15)
        assert decomposition.igm_holds(utilities, q_tot)


@pytest.mark.parametrize("game", ["linear", "monotonic"])
def test_qmix_learns_monotone_games_exactly(game):
    for utilities, q_tot in tables("qmix", game):
        np.testing.assert_allclose(q_tot, truth(game), atol=0.1)
        assert decomposition.is_monotone(q_tot, utilities, 1e-4)


def test_qmix_cannot_represent_climbing():
    """Monotone, so no better than the best monotone fit, 110.8, and never greedy at (A, A)."""
    for utilities, q_tot in tables("qmix", "climbing"):
        assert decomposition.is_monotone(q_tot, utilities, 1e-4)
        mse = decomposition.mse(truth("climbing"), q_tot)
        assert 110.8 - 1e-3 < mse < 175.1, "better than any sum"
        assert [int(np.argmax(u)) for u in utilities] != [0, 0]
