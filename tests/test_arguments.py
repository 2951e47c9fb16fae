"""Numbers of algorithms are arguments of compiled programs: one program for all their values."""

import dataclasses
import math

import jax
import numpy as np
import pytest

import coterie
from coterie.algorithms import algorithms, make
from coterie.algorithms.idqn import IDQN
from coterie.runs.environments import make_game
from coterie.training.loop import Program

SMALL = {"environments": 2, "hidden": (4,)}
"""Of every algorithm."""
STEPS = 200


def small(name, **settings):
    own = make(name).settings()
    if "buffer_size" in own:
        settings = {"buffer_size": 64, "batch_size": 4, "learning_starts": 4} | settings
    if "minibatches" in own:
        settings = {"minibatches": 1, "epochs": 1} | settings
    return make(name, **SMALL, **settings).resolve(STEPS, time_limit=1)


def program(algorithm):
    environment = coterie.make("matrix/climbing")
    return Program(algorithm, make_game(algorithm, environment, "matrix/climbing", None, "auto"), 1)


def with_other_numbers(algorithm):
    half = {name: value / 2 for name, value in algorithm.numbers().items()}
    return dataclasses.replace(algorithm, **half)


def lowered(algorithm, made=None):
    made = made or program(algorithm)
    schedules = algorithm.schedules(np.arange(made.chunk, dtype=np.int64))
    return made._advance.lower(made.template(), schedules, np.int32(0)).as_text()


@pytest.mark.parametrize("name", algorithms())
def test_other_numbers_are_the_same_program(name):
    algorithm = small(name)
    assert {"gamma", "lr"} <= algorithm.numbers().keys()
    assert lowered(algorithm) == lowered(with_other_numbers(algorithm))


def test_what_is_decided_by_is_another_program():
    """Otherwise the test before says nothing."""
    assert lowered(small("vdn")) != lowered(small("vdn", double_q=False))
    assert lowered(small("vdn")) != lowered(small("vdn", max_grad_norm=None))


def learned(algorithm, iterations=12):
    made = program(algorithm)
    state = made.init(0)
    for iteration in range(iterations):
        state = made.advance(state, iteration, 1)
    trained = jax.tree.leaves(algorithm.policy(state.learner))
    untrained = jax.tree.leaves(algorithm.policy(made.init(0).learner))
    assert not all(map(np.array_equal, trained, untrained))
    return trained


@pytest.mark.parametrize("name", ["idqn", "qmix", "ia2c", "mappo", "pac"])
def test_every_number_counts_as_a_constant_does(name, monkeypatch):
    algorithm = with_other_numbers(small(name))
    as_arguments = learned(algorithm)
    monkeypatch.setattr(type(algorithm), "numbers", lambda self: {})
    for a, b in zip(as_arguments, learned(algorithm), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_target_interval_replaces_the_usual_tau_only():
    assert "target_tau" in small("vdn").numbers()
    assert "target_tau" not in small("vdn", target_interval=5).numbers()
    for tau in (0.01, 0.5):
        learned(small("vdn", target_interval=5, target_tau=tau), iterations=12)


@pytest.mark.parametrize("name", ["vdn", "maa2c", "pac", "coma"])
def test_with_a_target_interval_other_numbers_are_the_same_program_too(name):
    algorithm = small(name, target_interval=5)
    assert "gamma" in algorithm.numbers()
    made = program(algorithm)
    assert lowered(algorithm, made) == lowered(with_other_numbers(algorithm))
    assert made._advance._numbers == algorithm.numbers()  # not given up


KEPT = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looking(IDQN):
    """Does with a number what raises nothing, and means something else, where it is traced."""

    def target(self, batch, next_values):
        assert isinstance(self.gamma, float)
        assert not hasattr(self.gamma, "shape")
        assert f"{self.gamma}" == "0.5"
        assert KEPT.setdefault("gamma", self.gamma) == 0.5
        return batch.rewards + self.gamma * next_values


def test_an_algorithm_outside_the_package_sees_plain_numbers():
    settings = SMALL | {"buffer_size": 64, "batch_size": 4, "learning_starts": 4}
    for _ in range(2):
        lowered(Looking(gamma=0.5, **settings).resolve(STEPS))
    assert KEPT == {"gamma": 0.5}


def test_a_class_asks_for_arguments_and_its_subclass_asks_anew():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Asks(IDQN):
        numbers_as_arguments = True

    class Inherits(Asks):
        pass

    assert Asks().numbers() == IDQN().numbers() != {}
    assert Inherits().numbers() == {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deciding(IDQN):
    """Decides by the value of a number while it is compiled."""

    numbers_as_arguments = True

    def target(self, batch, next_values):
        if self.gamma == 0.5:
            return batch.rewards
        return batch.rewards + self.gamma * next_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing(IDQN):
    """Needs a number as text, and one of Python's own, while it is compiled."""

    numbers_as_arguments = True

    def target(self, batch, next_values):
        discount = float(f"{self.gamma:.2f}") + 0 * math.log(self.gamma)
        return batch.rewards + discount * next_values


@pytest.mark.parametrize("kind", [Deciding, Writing])
def test_an_algorithm_that_needs_a_number_s_value_has_it_as_a_constant(kind):
    settings = SMALL | {"buffer_size": 64, "batch_size": 4, "learning_starts": 4}
    algorithms = [kind(gamma=g, **settings).resolve(STEPS) for g in (0.5, 0.25)]
    texts = [lowered(algorithm) for algorithm in algorithms]
    assert texts[0] != texts[1]
    made = program(algorithms[0])
    lowered(algorithms[0], made)
    assert made._advance._numbers == {}
