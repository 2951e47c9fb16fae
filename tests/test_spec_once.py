"""``spec()`` of a JAX environment is called once for each object, before anything is traced."""

import copy
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
from probes import small
from quick import quick_compilation

import coterie
from coterie.cli.entry import main
from coterie.envs.scene import Circle, Scene
from coterie.runs.api import open_run, resume, train
from coterie.show.film.recording import record
from coterie.views.game import Game

calls: dict[int, int] = {}
made: list[coterie.Environment] = []
"""Kept, so that no two have the same ``id``."""


@dataclass(frozen=True)
class Counted(coterie.Environment):
    """Counts the calls of its ``spec``, which computes with JAX and fails under a trace."""

    time_limit: int = 5
    agents = ("left", "right")

    def __post_init__(self):
        made.append(self)

    def spec(self):
        calls[id(self)] = calls.get(id(self), 0) + 1
        size = int(jnp.prod(jnp.array([2, 1])))  # concrete outside of a trace alone
        return coterie.EnvSpec(self.agents, (size, 1), (2, 2), size, self.time_limit, "mean")

    def reset(self, key):
        return jnp.zeros(()), self.show(jnp.zeros(2))

    def step(self, key, state, actions):
        return state, self.show(actions.astype(jnp.float32))

    def show(self, rewards):
        seen, no = jnp.ones(self.spec().central_size), jnp.array(False)
        return coterie.TimeStep((seen, seen[:1]), rewards, no, no, central=seen)

    def scene(self, state, actions=None):
        return Scene((Circle(0, 0, 1, "ink"),), 1, 1)


NAME = f"{__name__}:Counted"


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(autouse=True)
def every_object_was_asked_once():
    calls.clear()
    made.clear()
    yield
    assert made
    assert [calls.get(id(env), 0) for env in made] == [1] * len(made)


def test_a_check():
    assert coterie.check_env(Counted, episodes=2).ok
    assert coterie.check_env(Counted(), episodes=2).ok


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maa2c", "central_q"])
def test_training_going_on_evaluating_and_watching(name, tmp_path, capsys):
    """Central state and joint observation; one agent over joint actions."""
    env, asked = Counted(), {"evaluations": 1, "final_episodes": 2}
    train(small(name), env, 64, **asked, out=tmp_path / "run").evaluate(2)
    train(small(name), env, 64, **asked)
    resume(tmp_path / "run", 128, environment=Counted)
    run = open_run(tmp_path / "run", Counted)
    run.evaluate(2)
    run.evaluate(2, environment=Counted)
    assert record(run).episodes
    again = f"--environment {NAME}".split()
    assert main(["evaluate", str(tmp_path / "run"), *again, "--episodes", "2"]) == 0
    film = ["--out", str(tmp_path / "film.html")]
    assert main(["watch", str(tmp_path / "run"), *again, *film]) == 0
    capsys.readouterr()


def test_copies_are_asked_for_themselves():
    env = Counted()
    assert env.spec().time_limit == 5
    other = copy.copy(env)
    made.append(other)
    object.__setattr__(other, "time_limit", 7)
    assert (other.spec().time_limit, env.spec().time_limit) == (7, 5)


def test_what_an_environment_computes_of_its_own_spec_may_be_traced():
    env = Counted()
    game = Game(env)
    assert jax.jit(lambda x: x * env.spec().n_agents)(1) == 2
    assert jax.eval_shape(game.reset, jax.eval_shape(lambda: jax.random.key(0)))
    assert Game(env, joint=True).spec.n_agents == 1
