"""Matrix games: payoffs, ends, observations, and users' tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coterie import envs
from coterie.envs import matrix
from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError

KEY = jax.random.key(0)


def play(game, *joint):
    """Rewards [T, N] and the time steps of a sequence of joint actions."""
    step = jax.jit(game.step)
    state, first = jax.jit(game.reset)(KEY)
    seen = [first]
    for actions in joint:
        state, now = step(KEY, state, jnp.asarray(actions))
        seen.append(now)
    return seen


@pytest.mark.parametrize(
    ("name", "actions", "rewards"),
    [
        ("stag-hunt", (0, 1), (0, 3)),
        ("stag-hunt", (1, 0), (3, 0)),
        ("climbing", (0, 1), (-30, -30)),
        ("climbing", (2, 1), (6, 6)),
        ("climbing", (1, 2), (0, 0)),
        ("linear", (1, 0), (5, 5)),
        ("monotonic", (1, 1), (10, 10)),
        ("penalty-50", (0, 0), (-50, -50)),
        ("penalty-2.5", (2, 2), (-2.5, -2.5)),
        ("penalty--5", (0, 0), (5, 5)),
        ("penalty-0", (0, 2), (10, 10)),
        ("prisoners-dilemma", (0, 1), (-5, 0)),
        ("matching-pennies", (0, 1), (-1, 1)),
        ("rock-paper-scissors", (1, 0), (1, -1)),
        ("battle-of-the-sexes", (1, 1), (1, 2)),
        ("chicken", (0, 1), (7, 2)),
    ],
)
def test_named_payoffs(name, actions, rewards):
    _, step = play(envs.make(f"matrix/{name}"), actions)
    np.testing.assert_array_equal(step.rewards, rewards)
    assert bool(step.terminated)
    assert not bool(step.truncated)


def test_every_example_is_made_and_is_symmetric_or_common_where_it_should_be():
    for name in matrix.EXAMPLES:
        assert envs.make(f"matrix/{name}").spec().n_agents == 2
    for name in ("stag-hunt", "prisoners-dilemma", "rock-paper-scissors", "chicken"):
        u = envs.make(f"matrix/{name}").payoffs
        np.testing.assert_array_equal(u[..., 0], u[..., 1].T)


def test_customary_reward_follows_the_payoffs():
    assert envs.make("matrix/climbing").spec().reward == "mean"
    assert envs.make("matrix/stag-hunt").spec().reward == "individual"
    assert MatrixGame(np.ones((2, 2, 2)), agents=("a", "b")).spec().reward == "mean"


def test_unequal_action_counts_and_three_agents_pay_the_right_entry():
    payoffs = np.arange(2 * 3 * 4 * 3).reshape(2, 3, 4, 3).astype(float)
    game = MatrixGame(payoffs, agents=("a", "b", "c"))
    assert game.spec().action_counts == (2, 3, 4)
    for actions in [(0, 0, 0), (1, 2, 3), (1, 0, 2), (0, 2, 1)]:
        np.testing.assert_array_equal(play(game, actions)[1].rewards, payoffs[actions])


def test_single_shot_shows_only_the_constant():
    first, last = play(envs.make("matrix/climbing"), (0, 0))
    for step in (first, last):
        np.testing.assert_array_equal(step.observations, [[1.0], [1.0]])
        np.testing.assert_array_equal(step.central, [1.0])
    assert not bool(first.terminated)
    np.testing.assert_array_equal(first.rewards, [0, 0])


def test_repeated_game_shows_the_previous_joint_action_and_ends_at_its_last_round():
    game = MatrixGame([[1, 2, 3], [4, 5, 6]], rounds=3)
    steps = play(game, (1, 2), (0, 1), (1, 0))
    np.testing.assert_array_equal(steps[0].observations[0], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(steps[1].observations[1], [0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(steps[2].central, [1, 0, 0, 1, 0, 1])
    assert [bool(s.terminated) for s in steps] == [False, False, False, True]
    assert [float(s.rewards[0]) for s in steps] == [0, 6, 2, 4]
    assert game.spec().observation_sizes == (6, 6)
    assert game.spec().central_size == 6


def test_a_fresh_episode_forgets_the_last_one():
    game = envs.make("matrix/stag-hunt", rounds=2)
    state, _ = game.reset(KEY)
    game.step(KEY, state, jnp.array([1, 1]))
    again, first = game.reset(KEY)
    np.testing.assert_array_equal(first.observations[0], [0, 0, 0, 0, 1])
    assert int(again.played) == 0


def test_labels():
    assert envs.make("matrix/climbing").action_labels == (("A", "B", "C"),) * 2
    assert envs.make("matrix/chicken").action_labels[1] == ("Dare", "Yield")
    assert MatrixGame(np.zeros(28)).action_labels[0][25:] == ("Z", "AA", "AB")
    mixed = MatrixGame(np.zeros((1, 2)), actions=[["x"], ["y", "z"]])
    assert mixed.action_labels == (("x",), ("y", "z"))


def test_arrays_of_all_kinds_are_tables():
    for payoffs in (jnp.ones((2, 3)), np.ones((2, 3), np.int8), [np.ones(3), np.ones(3)]):
        assert MatrixGame(payoffs).payoffs.shape == (2, 3, 2)


def test_a_shape_with_two_readings_is_settled_by_the_agents():
    payoffs = np.arange(8.0).reshape(2, 2, 2)
    with pytest.raises(UsageError, match="2 players or the common payoff of 3"):
        MatrixGame(payoffs)
    assert MatrixGame(payoffs, agents=("a", "b")).payoffs.shape == (2, 2, 2)
    three = MatrixGame(payoffs, agents=("a", "b", "c"))
    assert three.payoffs.shape == (2, 2, 2, 3)
    assert three.common
    with pytest.raises(UsageError, match="do not fit 4 players"):
        MatrixGame(payoffs, agents=("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("payoffs", "said"),
    [
        ([[1, 2], [3]], r"payoffs\[1\] has shape \[1\]"),
        ([[1, "2"], [3, 4]], r"payoffs\[0\]\[1\] must be a finite number; got '2'"),
        ([[1, True], [3, 4]], r"payoffs\[0\]\[1\] must be a finite number; got True"),
        ([[1, None], [3, 4]], "must be a finite number"),
        ([[1, float("nan")], [3, 4]], "must be a finite number; got nan"),
        ([[1, 10**400], [3, 4]], "must be a finite number"),
        ([[1, 10**5000], [3, 4]], "got a huge number"),
        ([[1, 1e300], [3, 4]], "single precision"),
        (np.array([[1, np.inf]]), "must be finite"),
        (np.array([["a", "b"]]), "must be numbers"),
        (np.array([[1j]]), "must be numbers"),
        ([], "at least one action"),
        ([[], []], "at least one action"),
        (3.0, "at least one action"),
    ],
)
def test_malformed_tables_are_refused(payoffs, said):
    with pytest.raises(UsageError, match=said):
        MatrixGame(payoffs)


def test_deep_nesting_is_refused():
    deep = 1.0
    for _ in range(100):
        deep = [deep]
    with pytest.raises(UsageError, match="more than 32 lists deep"):
        MatrixGame(deep)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("stag-hnt", {}, "did you mean stag-hunt"),
        ("", {}, "it has stag-hunt"),
        ("penalty-", {}, "does not name a number"),
        ("penalty-nan", {}, "does not name a number"),
        ("penalty-1e999", {}, "does not name a number"),
        ("penalty-1_0", {}, "does not name a number"),
        ("nowhere.json", {}, "there is no payoff file nowhere.json"),
        ("climbing", {"rounds": 0}, "rounds must be"),
        ("climbing", {"players": 3}, "has 2 players, not 3"),
        ("climbing", {"round": 3}, "did you mean rounds"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, said):
    with pytest.raises(UsageError, match=said) as error:
        envs.make(f"matrix/{name}", **options)
    assert "\n" not in str(error.value)


def test_json_table(tmp_path):
    path = tmp_path / "game.json"
    path.write_text(
        json.dumps(
            {
                "payoffs": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
                "players": ["row", "column"],
                "actions": [["up", "down"], ["left", "right"]],
            }
        )
    )
    game = envs.make(f"matrix/{path}", rounds=2)
    assert game.agents == ("row", "column")
    assert game.action_labels == (("up", "down"), ("left", "right"))
    assert game.rounds == 2
    assert game.name == "game"
    np.testing.assert_array_equal(play(game, (1, 0))[1].rewards, [5, 6])


def test_json_number_of_players_or_option_settles_the_shape(tmp_path):
    path = tmp_path / "game.json"
    cube = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    path.write_text(json.dumps({"payoffs": cube}))
    with pytest.raises(UsageError, match=r"--env\.players"):
        envs.make(f"matrix/{path}")
    assert envs.make(f"matrix/{path}", players=3).spec().n_agents == 3
    path.write_text(json.dumps({"payoffs": cube, "players": 2}))
    assert envs.make(f"matrix/{path}").spec().n_agents == 2
    with pytest.raises(UsageError, match=r"2 players, but --env\.players says 3"):
        envs.make(f"matrix/{path}", players=3)


def test_numpy_tables(tmp_path):
    np.save(tmp_path / "one.npy", np.array([[1, 2, 3]]))
    assert envs.make(f"matrix/{tmp_path}/one.npy").spec().action_counts == (1, 3)
    np.savez(tmp_path / "bare.npz", np.array([[1, 2, 3]]))
    assert envs.make(f"matrix/{tmp_path}/bare.npz").spec().action_counts == (1, 3)
    cube = np.arange(8).reshape(2, 2, 2)
    np.savez(tmp_path / "two.npz", payoffs=cube, players=["a", "b"], actions=["x", "y"])
    game = envs.make(f"matrix/{tmp_path}/two.npz")
    assert (game.agents, game.action_labels[0]) == (("a", "b"), ("x", "y"))
    np.savez(tmp_path / "three.npz", payoffs=cube, players=3)
    assert envs.make(f"matrix/{tmp_path}/three.npz").spec().n_agents == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[1, 2]]", "holds an object"),
        ('{"payoff": [[1]]}', "holds an object"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"payoffs": [[1, NaN]]}', "must be a finite number"),
        ('{"payoffs": [[1, 2], [3]]}', "ragged"),
        ('{"payoffs": "x"}', "must be numbers"),
        ('{"payoffs": [[1, 2]], "agents": 2}', 'unknown entry "agents"'),
        ('{"payoffs": [[1, 2]], "players": ["a"]}', "do not fit 1 players"),
        ('{"payoffs": [[1, 2]], "players": ["a", "a"]}', "distinct names"),
        ('{"payoffs": [[1, 2]], "players": true}', '"players" must be'),
        ('{"payoffs": [[1, 2]], "actions": "AB"}', '"actions" must be a list'),
        ('{"payoffs": [[1, 2]], "actions": ["A", "B"]}', "player 1 has 1 actions"),
        ('{"payoffs": [[1, 2]], "actions": [["A"]]}', "one such list for each"),
        ('{"payoffs": [[1, 2]], "actions": [["A"], ["B", "B"]]}', "distinct names"),
        ('{"payoffs": [[1, 2]], "actions": [["A"], 3]}', "actions must be a list of names"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, said):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=said) as error:
        envs.make(f"matrix/{path}")
    assert "\n" not in str(error.value)
    assert "bad.json" in str(error.value)


class Bomb:
    """Unpickling this would create the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_loaded(tmp_path):
    for name in ("bad.npy", "bad.npz"):
        save = np.save if name.endswith("npy") else np.savez
        save(tmp_path / name, np.array([Bomb(tmp_path / "ran")], dtype=object), allow_pickle=True)
        with pytest.raises(UsageError, match="cannot be read as a NumPy file"):
            envs.make(f"matrix/{tmp_path}/{name}")
    assert not (tmp_path / "ran").exists()


def test_damaged_numpy_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", payoffs=np.arange(400.0).reshape(20, 20))
    whole = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "bad.npz"
    for content in (b"", b"PK", whole[: len(whole) // 2], b"\x93NUMPY\x01\x00\x02\x00{("):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read as a NumPy file"):
            envs.make(f"matrix/{path}")
    np.savez(path, a=np.ones(2), b=np.ones(2))
    with pytest.raises(UsageError, match="an array named payoffs; it has a, b"):
        envs.make(f"matrix/{path}")
