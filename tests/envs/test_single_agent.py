"""A single-agent Gymnasium environment is a team of one."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs import registration
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.wrappers import TimeLimit

import coterie
from coterie.errors import EnvironmentFault
from coterie.python_envs.adapters.environment import PythonEnv, make_factory
from coterie.spec import EnvSpec


class Walk(gymnasium.Env):
    """Shows how often it was stepped, and ends for good at a given step."""

    def __init__(self, end=99, action=None, reward=1.0, info=None):
        self.observation_space = Dict(place=Discrete(5), steps=Box(-9, 9, (1,)))
        self.action_space = action or Discrete(2, start=3)
        self.end, self.reward, self.info = end, reward, info or {}
        self.taken = []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), self.info

    def step(self, action):
        self.taken.append(action)
        self.t += 1
        return self.seen(), self.reward, self.t == self.end, False, self.info

    def seen(self):
        return {"place": self.t % 5, "steps": np.float32([self.t])}


def ends(env: PythonEnv, steps: int) -> list[tuple[bool, bool]]:
    env.reset(0)
    shown = [env.step(np.zeros(1, int)) for _ in range(steps)]
    return [(step.terminated, step.truncated) for step in shown]


def test_cartpole_through_the_bridge_is_cartpole():
    ours, theirs = make_factory("gymnasium:CartPole-v1")(), gymnasium.make("CartPole-v1")
    assert ours.spec == EnvSpec(("agent_0",), (4,), (2,), time_limit=500)
    for seed in (0, 1):
        shown = ours.reset(seed)
        expected, _ = theirs.reset(seed=seed)
        rng = np.random.default_rng(seed)
        while not (shown.terminated or shown.truncated):
            np.testing.assert_array_equal(shown.observations, expected[None])
            action = int(rng.integers(2))
            shown = ours.step(np.array([action]))
            expected, reward, terminated, truncated, _ = theirs.step(action)
            np.testing.assert_array_equal(shown.rewards, np.float32([reward]))
            assert (shown.terminated, shown.truncated) == (terminated, truncated)


def test_a_single_agents_time_out_is_truncated_and_an_end_at_the_limit_is_terminated():
    go, cut, end = (False, False), (False, True), (True, False)
    spec = registration.EnvSpec("Walk-v0", max_episode_steps=3)

    def limited(end):
        walk = Walk(end)
        walk.spec = spec
        return walk

    assert PythonEnv(TimeLimit(limited(99), 3)).spec.time_limit == 3
    assert ends(PythonEnv(TimeLimit(limited(99), 3)), 3) == [go, go, cut]
    assert ends(PythonEnv(TimeLimit(limited(3), 3)), 3) == [go, go, end]
    assert ends(PythonEnv(limited(99)), 3) == [go, go, cut]  # nothing but its spec says so
    assert ends(PythonEnv(limited(3), time_limit=3), 3) == [go, go, cut]  # named by the user
    assert PythonEnv(Walk()).spec.time_limit is None


@pytest.mark.parametrize(
    ("space", "combined", "action", "expected"),
    [
        (Discrete(2, start=3), True, [1], 4),
        (MultiDiscrete([2, 3]), True, [5], [1, 2]),
        (MultiDiscrete([2, 3]), False, [[1.0, 2.0]], [1, 2]),
        (MultiBinary(2), False, [[0.0, 1.0]], [0, 1]),
        (Box(-1, 1, (2,)), True, [[0.5, -1.0]], [0.5, -1.0]),
    ],
)
def test_the_environment_gets_an_action_of_its_own_space(space, combined, action, expected):
    walk = Walk(action=space)
    env = PythonEnv(walk, combined=combined)
    env.reset(0)
    env.step(np.asarray(action, env.spec.action_dtype))
    np.testing.assert_array_equal(walk.taken[0], expected)
    assert space.contains(walk.taken[0])


def test_observations_and_masks_of_a_team_of_one():
    env = PythonEnv(Walk(info={"action_mask": np.array([0, 1])}))
    shown = env.reset(0)
    np.testing.assert_array_equal(shown.observations, [[1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(shown.action_mask, [[False, True]])
    env = PythonEnv(Walk(info={"action_mask": np.array([1, 1, 0])}))
    with pytest.raises(EnvironmentFault, match="agent agent_0: the action mask has"):
        env.reset(0)


def test_a_team_of_one_has_a_common_reward_without_being_asked():
    """Also where random play never gets any, so that no play could show it."""
    run = coterie.train(
        coterie.VDN(environments=2, learning_starts=8, hidden=(4,)),
        lambda: TimeLimit(Walk(reward=0.0), 4), steps=16, evaluations=1, evaluation_episodes=1,
        final_episodes=1, python_env=coterie.PythonEnvSettings(workers=0, time_limit=4),
    )  # fmt: skip
    assert run.config["reward"] == "mean"


@pytest.mark.slow
def test_ippo_learns_cartpole():
    algorithm = coterie.IPPO(environments=64, rollout_steps=32, lr=3e-3, hidden=(64,))
    run = coterie.train(
        algorithm, "gymnasium:CartPole-v1", steps=40_000, evaluations=1, evaluation_episodes=2,
        final_episodes=20, python_env=coterie.PythonEnvSettings(workers=0),
    )  # fmt: skip
    # Random play keeps the pole up for about 22 steps.
    assert run.metrics["eval/return/team_mean"]["mean"] > 100
