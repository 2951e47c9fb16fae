"""How often and how long policies are judged, where nobody said so."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import coterie
from coterie.algorithms import make
from coterie.python_envs.settings import PythonEnvSettings


class Walk:
    """Two agents; every episode takes as many steps as it was made for."""

    possible_agents = ("left", "right")

    def __init__(self, length: int = 500) -> None:
        self.length, self.steps, self.agents = length, 0, []

    def observation_space(self, agent):
        return Box(0, 1, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def _each(self, value):
        return dict.fromkeys(self.possible_agents, value)

    def reset(self, seed=None, options=None):
        self.steps, self.agents = 0, list(self.possible_agents)
        return self._each(np.zeros(1, np.float32)), self._each({})

    def step(self, actions):
        self.steps += 1
        over = self.steps >= self.length
        if over:
            self.agents = []
        shown = self._each(np.full(1, self.steps / self.length, np.float32))
        return shown, self._each(1.0), self._each(False), self._each(over), self._each({})

    def close(self):
        pass


class Begun(Exception):
    """The run is about to begin."""


def settings(algorithm: str, environment, steps: int, **asked) -> tuple[tuple[int, ...], list[str]]:
    """Points, episodes of each, episodes at the end; and what the user is told."""
    told = []

    def report(event, facts):
        if event == "start":
            told.append(facts)
        if event == "note":
            told.append(facts["sentence"])

    def begin(*_):
        raise Begun

    made = make(algorithm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coterie.runs.api.Loop", begin)
        with pytest.raises(Begun):
            coterie.train(made, environment, steps, report=report, reward="sum", **asked)
    names = ("evaluations", "evaluation_episodes", "final_episodes")
    return tuple(told[0][name] for name in names), told[1:]


USUAL = (20, 32, 320)


def test_a_compiled_environment_is_judged_as_often_as_usual():
    assert settings("ippo", "matrix/climbing", 100_000) == (USUAL, [])
    asked = settings("ippo", "matrix/climbing", 100_000, evaluations=3, evaluation_episodes=7)
    assert asked == ((3, 7, 320), [])


@pytest.mark.parametrize(
    ("algorithm", "length", "steps", "expected"),
    [
        # 10 greedy episodes of 500 steps are half of 10,000 steps: so many at the end, and as
        # few as there may be on the way.
        pytest.param("idqn", 500, 10_000, (1, 8, 16), marks=pytest.mark.slow),
        ("idqn", 500, 200_000, (5, 32, 200)),
        # A policy that draws is judged twice.
        ("ippo", 500, 200_000, (5, 16, 100)),
        pytest.param("idqn", 500, 1_000_000, USUAL, marks=pytest.mark.slow),
        ("idqn", 10, 20_000, USUAL),
    ],
)
def test_judging_takes_hardly_more_steps_than_training(algorithm, length, steps, expected):
    found, told = settings(algorithm, lambda: Walk(length), steps)
    assert found == expected
    assert any(f"an episode takes about {length} steps" in line for line in told) == (
        expected != USUAL
    )
    points, each, final = found
    played = (each * (points + 1) + final) * length * (1 + (algorithm == "ippo"))
    assert played <= steps or found == (1, 8, 16), "no fewer than that"


def test_a_time_limit_is_the_length_of_an_episode():
    found, told = settings(
        "idqn", lambda: Walk(500), 20_000, python_env=PythonEnvSettings(time_limit=10)
    )
    assert found == USUAL
    assert not any("an episode takes" in line for line in told)


def test_what_is_asked_for_is_what_is_done():
    asked = {"evaluations": 7, "evaluation_episodes": 3, "final_episodes": 0}
    assert settings("idqn", lambda: Walk(500), 1_000, **asked)[0] == (7, 3, 0)
    assert settings("idqn", lambda: Walk(500), 1_000, final_episodes=0)[0] == (1, 8, 0)


@pytest.mark.parametrize("name", ["evaluations", "evaluation_episodes"])
def test_none_at_all_is_refused(name):
    with pytest.raises(
        coterie.UsageError, match=f"{name} must be a whole number from 1 to .*; got 0"
    ):
        coterie.train(coterie.IDQN(), "matrix/climbing", 100, **{name: 0})
