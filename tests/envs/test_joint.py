"""The team as one agent: numbering, masks, the dead, what it is paid, whole rollouts of it."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, collector, game_for, random_learner, small

import coterie
from coterie.algorithms import find
from coterie.errors import UsageError
from coterie.spec import EnvSpec
from coterie.views.joint_actions import JointView
from coterie.views.steps import learner_rewards


def team_of(*counts):
    names = tuple(f"agent{i}" for i in range(len(counts)))
    return JointView(EnvSpec(names, tuple(range(1, len(counts) + 1)), counts, time_limit=9))


@pytest.mark.parametrize("counts", [(3,), (2, 3), (3, 1, 2), (2, 3, 2, 4)])
def test_joint_actions_are_numbered_row_by_row_and_back(counts):
    team = team_of(*counts)
    everything = list(itertools.product(*(range(k) for k in counts)))
    assert team.count == len(everything) == team.spec.action_count
    parts = team.split(jnp.arange(team.count)[:, None])
    np.testing.assert_array_equal(parts, everything)
    np.testing.assert_array_equal(
        np.ravel_multi_index(np.asarray(parts).T, counts), range(team.count)
    )


def test_the_team_sees_what_all_see():
    team = team_of(2, 3)
    assert team.spec.n_agents == 1
    assert team.spec.observation_sizes == (4,)
    assert team.spec.time_limit == 9
    seen = team.observe(jnp.arange(12.0).reshape(3, 2, 2))
    np.testing.assert_array_equal(seen, np.arange(12.0).reshape(3, 1, 4))


def test_a_joint_action_is_legal_if_it_is_for_everybody():
    """The dead one, who has no legal action, does action 0."""
    team = team_of(2, 3)
    masks = jnp.array([
        [[True, True, False], [True, True, True]],
        [[False, True, False], [True, False, True]],
        [[False, False, False], [False, True, True]],
        [[False, False, False], [False, False, False]],
    ])  # fmt: skip
    expected = [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(team.mask(masks)[:, 0], np.array(expected, bool))


@pytest.mark.parametrize("name", ["central_q", "central_a2c"])
@pytest.mark.parametrize("reward", ["sum", "mean"])
def test_rollouts_of_a_team(name, reward):
    """One agent sees and does all; the record keeps every agent's own reward; pay is common."""
    algorithm = small(name, environments=6, update_ratio=1 / 60, rollout_steps=10)
    game = game_for(algorithm, Walk(), reward)
    learner = random_learner(algorithm, game)
    seen, totals, *_ = collector(algorithm, game)(algorithm.policy(learner), [0.5])
    leaves = {k: v for k, v in vars(seen).items() if k != "extras" and v is not None}
    seen = {k: v[0, 0] for k, v in leaves.items()}
    steps = seen["actions"].shape[0]
    assert seen["observations"].shape == (steps, 6, 1, 15)
    assert seen["actions"].shape == (steps, 6, 1)
    assert seen["rewards"].shape == (steps, 6, 3)
    parts = np.array(game.team.split(jnp.asarray(seen["actions"])))
    legal = np.take_along_axis(seen["action_mask"], seen["actions"][..., None], -1)
    assert legal.all()
    t = seen["observations"][..., 0, 1]
    assert ((parts[..., 1] > 0) | (t % 2 == 0)).all(), "agent b's action 0 is illegal at odd times"
    assert (parts[..., 2] == 0).any()
    over = seen["terminated"]
    expected = parts + 10.0 * np.arange(3) + 100.0 * over[..., None]
    np.testing.assert_array_equal(seen["rewards"], expected)
    paid = learner_rewards(jnp.asarray(seen["rewards"]), game)
    total = expected.sum(-1, keepdims=True) / (1 if reward == "sum" else 3)
    np.testing.assert_allclose(paid, total, rtol=1e-6)
    assert totals.returns.shape[-1] == 3
    assert seen["alive"].all(), "the team lives while one of its agents does"


@pytest.mark.parametrize("name", ["central_q", "central_a2c"])
def test_the_number_of_joint_actions_is_said_and_limited(name):
    algorithm = find(name)()
    (note,) = algorithm.remarks(game_for(algorithm, coterie.make("matrix/climbing")))
    assert note.startswith("9 joint actions")
    narrow = find(name)(max_joint_actions=23)
    with pytest.raises(UsageError, match=r"24 joint actions.*--max-joint-actions"):
        narrow.remarks(game_for(narrow, Walk()))
