"""What every algorithm of the directory promises; a new file is found and tested by itself."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, game_for, quick, small

import coterie
from coterie.algorithms import algorithms, find, make
from coterie.errors import UsageError
from coterie.learners.contract import Mode
from coterie.training import evaluate
from coterie.training import loop as training
from coterie.training import state as training_state
from coterie.views.vector import SEED_AXIS

NAMES = list(algorithms())


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    cls = find(name)
    algorithm = cls()
    assert algorithm.name == name
    assert cls.mode in typing.get_args(Mode)
    assert isinstance(cls.common_reward, bool)
    assert cls.__doc__.strip()
    resolved = algorithm.resolve(10**9, 50)
    assert resolved.resolve(5, 7) == resolved, "fixed once"
    assert {f.name for f in dataclasses.fields(cls)} == set(algorithm.settings())
    with pytest.raises(dataclasses.FrozenInstanceError):
        algorithm.gamma = 0.5


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_json(name):
    algorithm = small(name)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in algorithm.settings().items()}
    assert make(name, **settings) == algorithm


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gama": 0.9}, "gamma"),
        ({"hiden": (8,)}, "hidden"),
        ({"gamma": 1.5}, "gamma"),
        ({"lr": 0.0}, "lr"),
        ({"lr_end": -1e-4}, "lr_end"),
        ({"lr_end": float("nan")}, "lr_end"),
        ({"lr_steps": 0}, "lr_steps"),
        ({"environments": 0}, "environments"),
        ({"hidden": ()}, "hidden"),
    ],
)
def test_wrong_settings_are_refused_by_name(name, settings, says):
    if "groups" in settings and find(name).joint_view:
        says = "sharing"  # which is no setting of theirs
    with pytest.raises(UsageError, match=says):
        make(name, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"batch_size": 10**9},
        {"buffer_size": 3},
        {"update_ratio": -1.0},
        {"target_interval": 0},
        {"target_tau": 1.5},
        {"epsilon_end": -0.1},
        {"recurrent": True, "sequence_length": 0},
        {"max_grad_norm": 0.0},
        {"learning_starts": -1},
        {"epsilon_steps": -5},
        {"update_ratio": 1e-9},
    ],
)
def test_wrong_settings_of_replay_and_time_are_refused(settings):
    with pytest.raises(UsageError, match=list(settings)[-1]):
        make("vdn", **settings)


@pytest.mark.parametrize("wrong", ["vnd", "q-mix", "IDQNN"])
def test_unknown_algorithms_name_the_nearest(wrong):
    nearest = {"vnd": "vdn", "q-mix": "qmix", "IDQNN": "idqn"}[wrong]
    with pytest.raises(UsageError, match=f"did you mean {nearest}"):
        find(wrong)


def trainer(algorithm, game):
    """``train(clock)``: the learner before and after so many iterations, the policy and the summed
    losses after each, and episodes played: of one seed, checked for keys used twice.

    The checker takes what ``vmap`` over seeds does to keys for a use, so there is none here.
    """

    def run(_, key, clock):
        state = training_state.init(algorithm, game, key)

        def body(state, now):
            state, _ = training.iterate(algorithm, game, state, now)
            return state, (algorithm.policy(state.learner), state.losses)

        after, each = jax.lax.scan(body, state, clock)
        played = evaluate.play(game, algorithm.policy(after.learner), after.evaluation_key, 2)
        return state.learner, after.learner, each, played

    alone = quick(jax.vmap(run, (0, None, None), out_axes=None, axis_name=SEED_AXIS))

    def train(clock):
        with jax.debug_key_reuse(True):
            out = alone(jnp.zeros(1), jax.random.key(0), jax.tree.map(jnp.asarray, clock))
        return jax.tree.map(np.asarray, out)

    return train


def check_training(algorithm, train, iterations=10):
    before, after, (_, losses), (returns, *_) = train(algorithm.schedules(np.arange(iterations)))
    losses = {name: x[-1] for name, x in losses.items()}
    for x in jax.tree.leaves((after, losses, returns)):
        assert np.isfinite(x).all()
    due = algorithm.updates(iterations)
    assert due > 0
    assert losses["updates"] == due
    assert set(losses) == set(algorithm.metrics + algorithm.diagnostics)
    parameters = (algorithm.policy(before), algorithm.policy(after))
    for old, new in zip(*map(jax.tree.leaves, parameters), strict=True):
        assert not np.array_equal(old, new), "every parameter learns"


def test_the_check_for_keys_used_twice_works():
    def reckless(key):
        return jax.random.uniform(key) + jax.random.normal(key)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        quick(reckless)(jax.random.key(0))


@functools.cache
def on_climbing(name):
    """The algorithm and its trainer, one for all schedules: those reach it by the clock alone."""
    env = coterie.make("matrix/climbing")
    algorithm = small(name).resolve(1000, env.spec().time_limit)
    return algorithm, trainer(algorithm, game_for(algorithm, env, "mean"))


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_on_climbing(name):
    check_training(*on_climbing(name))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_once_the_learning_rate_is_zero(name):
    algorithm, train = on_climbing(name)
    still = small(name, lr_end=0.0, lr_steps=1, learning_starts=1).resolve(1000, 1)
    assert still.rollout_shape() == algorithm.rollout_shape()
    *_, (policies, losses), _ = train(still.schedules(np.arange(10)))
    early, late = 0, 2
    assert min(losses["updates"][early], losses["updates"][late]) > 0
    for x in jax.tree.leaves(policies):
        np.testing.assert_allclose(x[early], x[late], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["vdn", "ia2c"])
def test_the_learning_rate_moves_linearly_in_steps_and_stays(name):
    algorithm = small(name, lr=1e-2, lr_end=1e-3, environments=5, rollout_steps=1, update_ratio=0.2)
    rate = algorithm.resolve(20, 1).schedules(np.arange(7))["rate"]
    np.testing.assert_allclose(rate, [1, 0.775, 0.55, 0.325, 0.1, 0.1, 0.1], rtol=1e-6)
    assert algorithm.resolve(20, 1).resolve(10**6, 1).lr_steps == 20, "fixed when the run starts"
    constant = dataclasses.replace(algorithm, lr_end=None).resolve(20, 1)
    np.testing.assert_array_equal(constant.schedules(np.arange(7))["rate"], np.ones(7))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"recurrent": True, "groups": ("a,c",), "double_q": True}, id="recurrent-grouped"
        ),
        pytest.param(
            {"sharing": "shared", "target_tau": 0.1, "max_grad_norm": None},
            id="shared",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "reinforce" else pytest.mark.slow) for n in NAMES]
)
def test_it_trains_on_unequal_mortal_masked_agents(name, settings):
    if find(name).joint_view:
        settings = {k: v for k, v in settings.items() if k != "groups"}
    algorithm = small(name, **settings).resolve(1000, Walk().spec().time_limit)
    check_training(algorithm, trainer(algorithm, game_for(algorithm, Walk())))


def test_the_log_shows_schedules_as_the_last_rollout_used_them():
    """Each rollout makes 64 steps: after half of 640 the rate is half-way to a fifth."""
    vdn = make(
        "vdn", lr=0.01, lr_end=0.002, lr_steps=640, epsilon_start=0.5, epsilon_end=0.1,
        epsilon_steps=320, environments=64, update_ratio=1 / 64,
    )  # fmt: skip
    assert vdn.rollout_shape() == (1, 64)
    assert vdn.logged_schedules(5) == pytest.approx({"learning_rate": 0.006, "epsilon": 0.1})
    ia2c = make(
        "ia2c", lr=0.01, lr_end=0.002, lr_steps=640, entropy=0.5, entropy_end=-0.5,
        entropy_steps=640, rollout_steps=4, environments=16,
    )  # fmt: skip
    expected = {"learning_rate": 0.006, "entropy_weight": 0.0}
    assert ia2c.logged_schedules(5) == pytest.approx(expected, abs=1e-7)
    assert make("reinforce", episode_steps=4).logged_schedules(0).keys() == expected.keys()
