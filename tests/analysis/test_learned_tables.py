"""What VDN and QMIX learn of matrix games under uniformly random behaviour, against the truth.

Two phases: large steps to come near, then small ones on large minibatches to average out the noise
of sampling; with 30 between neighbouring payoffs, one phase of either kind stays tenths away.

Games of one size are learned at once, in one compiled program.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import OPTIMISED

import coterie
from coterie.games import decomposition
from coterie.training import loop as training
from coterie.training import state as training_state
from coterie.views.game import Game
from coterie.views.vector import SEED_AXIS

# The time limit is for machines that do other things too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = {
    "sharing": "own",
    "epsilon_start": 1.0,
    "epsilon_end": 1.0,
    "epsilon_steps": 1,
    "reward_scaling": "none",
    "learning_starts": 20_000,
    "environments": 512,
    "buffer_size": 1_000_000,
    "update_ratio": 1 / 64,
    "lr": 1e-3,
}
QMIX = {"hyper_hidden": 32, "mixer_embedding": 64}
"""The lecture's sizes (SETTINGS leave its 2 x 64 utilities)."""
FINE = {"update_ratio": 1 / 2048, "lr": 1e-4, "batch_size": 4096}
NEAR = 400_000
SIZES = {("linear", "monotonic"): 600_000, ("climbing",): 1_400_000}
"""Games of equally many actions, and the steps after which they are learned."""
SEEDS = 2


class OneOf(coterie.Environment):
    """One of several games of one size, by a number that the compiled program is given."""

    def __init__(self, games, which):
        self.games, self.which = games, which
        self.agents = games[0].agents

    def spec(self):
        return self.games[0].spec()

    def reset(self, key):
        return self.games[0].reset(key)

    def step(self, key, state, actions):
        each = [game.step(key, state, actions) for game in self.games]
        return jax.tree.map(lambda *x: jnp.stack(x)[self.which], *each)


@functools.cache
def learn(name: str, games: tuple[str, ...]):
    """What the algorithm has learned of each game with each seed: ``read``, each [G * S, ...]."""
    near = coterie.QMIX(**SETTINGS, **QMIX) if name == "qmix" else coterie.VDN(**SETTINGS)
    made = [coterie.make(f"matrix/{game}") for game in games]
    which = jnp.repeat(jnp.arange(len(games)), SEEDS)
    keys = jnp.tile(jax.vmap(jax.random.key)(jnp.arange(SEEDS)), len(games))

    def game(k):
        return Game(OneOf(made, k), "state" if near.central else "none", "mean")

    def begin(key):
        return training_state.init(near, game(0), key)

    state, steps = jax.jit(jax.vmap(begin, axis_name=SEED_AXIS))(keys), 0
    for algorithm, until in ((near, NEAR), (dataclasses.replace(near, **FINE), SIZES[games])):

        def iterate(k, state, now, algorithm=algorithm):
            return training.iterate(algorithm, game(k), state, now)[0]

        every = jax.vmap(iterate, (0, 0, None), axis_name=SEED_AXIS)

        def advance(state, clock, every=every):
            return jax.lax.scan(lambda s, now: (every(which, s, now), None), state, clock)[0]

        each = int(np.prod(algorithm.rollout_shape()))
        clock = algorithm.schedules(np.arange(steps // each, -(-until // each)))
        run = jax.jit(advance, donate_argnums=0, compiler_options=OPTIMISED)
        state, steps = run(state, clock), -(-until // each) * each
    found = jax.jit(jax.vmap(functools.partial(read, near)))(state.learner.values)
    return jax.tree.map(np.asarray, found)


def read(algorithm, values):
    """Utilities [N, A] of the agents and joint values [A, A]."""
    one = jnp.ones((2, 1))
    scores, _ = values.utility.step(values.utility.initial_hidden_state(), one, jnp.zeros(2, bool))
    joint = jnp.stack(jnp.meshgrid(*scores, indexing="ij"), axis=-1)
    z = jnp.ones((*joint.shape[:-1], 1 if algorithm.central else 0))
    return scores, algorithm.joint(values.mixer, joint, z)[..., 0]


def tables(name: str, game: str):
    """Each seed's utilities [A] of both agents, and joint values [A, A]."""
    games = next(games for games in SIZES if game in games)
    utilities, q_tot = learn(name, games)
    own = slice(games.index(game) * SEEDS, (games.index(game) + 1) * SEEDS)
    return zip(map(list, utilities[own]), q_tot[own], strict=True)


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
