"""Names of the last version still work, and say which name has taken their place."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie.learners.experience import blank_rollout
from coterie.policies.distributions import Categorical, EpsilonGreedy
from coterie.runs.team import Team
from coterie.views.game import Game


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Team:
    folder = tmp_path_factory.mktemp("run")
    coterie.train(
        coterie.VDN(recurrent=True, hidden=(4,), environments=2, sequence_length=4),
        "matrix/climbing", steps=40, evaluations=1, final_episodes=0, out=folder / "run",
    )  # fmt: skip
    return coterie.load(folder / "run")


def test_a_teams_memory_is_its_hidden_state(team):
    with pytest.warns(DeprecationWarning, match="Team.initial_memory is now initial_hidden_state"):
        before = team.initial_memory()
    np.testing.assert_array_equal(before, team.initial_hidden_state())
    seen = [np.ones(1)] * 2
    with pytest.warns(DeprecationWarning, match="the argument memory is now hidden_state"):
        actions, after = team.act(seen, memory=before)
    expected, hidden_state = team.act(seen, before)
    assert actions == expected
    np.testing.assert_array_equal(after, hidden_state)


def test_fields_of_transitions():
    rollout = blank_rollout(Game(coterie.make("matrix/climbing")), 2, 3)
    rollout = dataclasses.replace(rollout, extras=jnp.ones(2))
    with pytest.warns(DeprecationWarning, match="Transition.memory is now hidden_state"):
        assert rollout.memory is rollout.hidden_state
    with pytest.warns(DeprecationWarning, match="Transition.behaviour is now extras"):
        assert rollout.behaviour is rollout.extras


def test_hosting_is_python_env():
    with pytest.warns(DeprecationWarning, match="coterie.Hosting is now PythonEnvSettings"):
        settings = coterie.Hosting(workers=0)
    assert settings == coterie.PythonEnvSettings(workers=0)
    with (
        pytest.warns(DeprecationWarning, match="the argument hosting is now python_env"),
        pytest.raises(coterie.UsageError, match="is a JAX environment: workers"),
    ):
        coterie.train("vdn", "matrix/climbing", 100, hosting=settings)


def test_an_algorithms_clock_is_its_schedules():
    with pytest.warns(DeprecationWarning, match="Mine.clock is now schedules"):

        class Mine(coterie.VDN):
            def clock(self, iterations):
                return {"asked": iterations}

    assert Mine().schedules(np.arange(2)).keys() == {"asked"}


def test_what_a_subclass_adds_to_the_former_clock():
    with pytest.warns(DeprecationWarning, match="Mine.clock is now schedules"):

        class Mine(coterie.VDN):
            def clock(self, iterations):
                return super().clock(iterations) | {"asked": iterations}

    algorithm = Mine().resolve(1000)
    with pytest.warns(DeprecationWarning, match="clock is now schedules"):
        found = algorithm.schedules(np.arange(2))
    assert {"asked", "epsilon", "updates"} <= found.keys()
    with pytest.warns(DeprecationWarning, match="clock is now schedules"):
        assert coterie.VDN().resolve(1000).clock(np.arange(2)).keys() == found.keys() - {"asked"}


def test_a_distribution_made_from_outputs_is_acted_by():
    with pytest.warns(DeprecationWarning, match="Mine.distribution is now behaviour"):

        class Mine(coterie.IA2C):
            def distribution(self, outputs, mask, schedules):
                return Categorical(outputs / schedules["heat"], mask)

    said = Categorical(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 3), bool))
    acted = Mine().behaviour(said, {"heat": jnp.asarray(2.0)})
    np.testing.assert_array_equal(acted.outputs, 0.5 * np.ones((1, 2, 3)))
    assert coterie.IA2C().behaviour(said, {}) is said


def test_what_a_subclass_changes_in_the_former_distribution():
    with pytest.warns(DeprecationWarning, match="Mine.distribution is now behaviour"):

        class Mine(coterie.VDN):
            def distribution(self, outputs, mask, schedules):
                return super().distribution(2 * outputs, mask, schedules)

    said = Categorical(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 3), bool))
    with pytest.warns(DeprecationWarning, match="distribution is now behaviour"):
        acted = Mine().behaviour(said, {"epsilon": jnp.asarray(0.5)})
    assert isinstance(acted, EpsilonGreedy)
    np.testing.assert_array_equal(acted.outputs, 2 * said.outputs)


def test_of_two_names_the_present_one_decides():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Both(coterie.VDN):
            def schedules(self, iterations):
                return {"present": iterations}

            def clock(self, iterations):
                return {"former": iterations}

    assert Both().schedules(np.arange(2)).keys() == {"present"}


def test_an_argument_under_both_names_is_refused():
    settings = coterie.PythonEnvSettings()
    with pytest.raises(TypeError, match="hosting is the former name of python_env: give one"):
        coterie.train("vdn", "matrix/climbing", 100, hosting=settings, python_env=settings)
