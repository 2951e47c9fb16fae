"""Environments of Jumanji by name: the same as the package's own, with ends told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie.envs.scene import Picture
from coterie.jax_envs.making import quietly
from coterie.show.film.recording import record
from coterie.views.game import Game

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore::{kind}:(jumanji|esquilax)\b")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
] + [pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")]

TEAMS = {
    "LevelBasedForaging-v0": {"time_limit": 12, "grid_size": 6, "fov": 3, "force_coop": False},
    "RobotWarehouse-v0": {"time_limit": 12, "column_height": 2, "num_agents": 3},
    "Connector-v3": {"time_limit": 12, "grid_size": 5, "num_agents": 3},
    "Cleaner-v0": {"time_limit": 12, "num_rows": 4, "num_cols": 4, "num_agents": 2},
    "SearchAndRescue-v0": {"time_limit": 12},
    "MMST-v0": {"time_limit": 12, "num_nodes": 12, "num_edges": 18, "num_nodes_per_agent": 3},
    "MultiCVRP-v0": {"num_customers": 6},
}
SINGLE = {
    "BinPack-v2": {"max_num_items": 6, "max_num_ems": 12, "obs_num_ems": 8},
    "CVRP-v1": {"num_nodes": 5},
    "FlatPack-v0": {"num_row_blocks": 2, "num_col_blocks": 2},
    "Game2048-v1": {"board_size": 2},
    "GraphColoring-v1": {"num_nodes": 6},
    "JobShop-v0": {"num_jobs": 3, "num_machines": 2, "max_num_ops": 2},
    "Knapsack-v1": {"num_items": 8, "total_budget": 2.0},
    "Maze-v0": {"num_rows": 4, "num_cols": 5, "time_limit": 12},
    "Minesweeper-v0": {"num_rows": 3, "num_cols": 4, "num_mines": 2},
    "PacMan-v1": {"time_limit": 12},
    "RubiksCube-v0": {"time_limit": 12, "num_scrambles_on_reset": 2},
    "SlidingTilePuzzle-v0": {"grid_size": 3, "time_limit": 12},
    "Snake-v1": {"num_rows": 4, "num_cols": 4, "time_limit": 12},
    "Sokoban-v0": {"generator": "ToyGenerator", "time_limit": 12},
    "Sudoku-v0": {},
    "TSP-v1": {"num_cities": 5},
    "Tetris-v0": {"time_limit": 12},
}


def legal(key, mask, space) -> jax.Array:
    """A random legal action of one agent, counted from 0, or its choices and numbers."""
    if not space.choices:
        return jax.random.uniform(key, (len(space.low),), minval=-1.0)
    first, found = 0, []
    for own, count in zip(jax.random.split(key, len(space.choices)), space.choices, strict=True):
        flags = mask[first : first + count]
        found.append(jax.random.categorical(own, jnp.where(flags, 0.0, -1e9)))
        first += count
    return jnp.stack(found).astype(jnp.float32) if len(found) > 1 else found[0]


def both(name: str, options: dict, steps: int = 80, episodes: int = 3):
    """Random legal episodes in Coterie's environment and in the package's own, side by side.

    Returns: the environment; time steps of both, [E, T, ...], and whether each is live.
    """
    env = coterie.make(f"jumanji:{name}", **options)
    spec, theirs = env.spec(), env.inner
    spaces = spec.actions or [coterie.ActionSpace((k,)) for k in spec.action_counts]

    def step(carry, key):
        state, shown, own, live = carry
        mask = shown.action_mask
        mask = jnp.ones((spec.n_agents, spec.action_count), bool) if mask is None else mask
        keys = jax.random.split(key, spec.n_agents)
        rows = zip(keys, mask, spaces, strict=True)
        actions = jnp.stack([legal(k, row, space) for k, row, space in rows])
        state, shown = env.step(key, state, actions)
        own, theirs_shown = theirs.step(own, as_theirs(name, theirs, actions))
        over = theirs_shown.last()
        return (state, shown, own, live & ~over), (shown, theirs_shown, actions, own, live)

    def episode(key):
        start, key = jax.random.split(key)
        state, shown = env.reset(start)
        own, first = theirs.reset(start)
        begun = (state, shown, own, jnp.array(True))
        return first, jax.lax.scan(step, begun, jax.random.split(key, steps))[1]

    return env, jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(3), episodes))


def as_theirs(name: str, theirs, actions):
    """The package's action, written down here once more."""
    own = theirs.action_spec
    if name in TEAMS:
        return actions.astype(own.dtype)
    if name.startswith(("JobShop", "RubiksCube")):
        return actions[0].astype(own.dtype)
    if own.shape:  # row-major, the last choice fastest
        found, rest = [], actions[0]
        for count in np.asarray(own.num_values)[::-1].tolist():
            found.insert(0, rest % count)
            rest = rest // count
        return jnp.stack(found).astype(own.dtype)
    return actions[0].astype(own.dtype)


def compare(name: str, options: dict) -> None:
    env, (_, (ours, theirs, _, _, live)) = both(name, options)
    n, at = env.spec().n_agents, np.asarray(live)
    assert at.any()
    rewards = np.asarray(theirs.reward)
    wanted = rewards if rewards.ndim == 3 else np.repeat(rewards[..., None], n, axis=2)
    np.testing.assert_array_equal(np.asarray(ours.rewards)[at], wanted[at])
    if ours.action_mask is not None:
        flags = np.asarray(theirs.observation.action_mask).reshape(*at.shape, n, -1)
        np.testing.assert_array_equal(np.asarray(ours.action_mask)[at], flags[at])
    last, none = np.asarray(theirs.step_type == 2), np.asarray(theirs.discount) == 0
    whole = none.reshape(*at.shape, -1).all(-1)
    ends = [np.asarray(x) for x in (ours.terminated, ours.truncated)]
    if ends[0].ndim == 3:
        np.testing.assert_array_equal(ends[0][at], none[at])
        np.testing.assert_array_equal(ends[1][at], (last[..., None] & ~none)[at])
    else:
        np.testing.assert_array_equal(ends[0][at], (last & whole)[at])
        np.testing.assert_array_equal(ends[1][at], (last & ~whole)[at])
    assert (last & at).any(), "no episode ended, so no end was compared"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TEAMS, *SINGLE])
def test_rewards_masks_and_ends_are_those_of_the_package(name):
    compare(name, TEAMS.get(name) or SINGLE.get(name) or {})


def test_foraging_is_that_of_the_package():
    compare("LevelBasedForaging-v0", TEAMS["LevelBasedForaging-v0"])


def test_the_names_are_those_that_the_package_registers():
    with quietly():
        import jumanji
    from coterie.jax_envs import names

    assert set(names("jumanji")) == jumanji.registered_environments()
    listed = {name.partition("-")[0] for name in names("jumanji")}
    assert listed == {name.partition("-")[0] for name in {**TEAMS, **SINGLE}}


def test_agents_see_what_the_package_shows_them_and_nobody_elses_view():
    """The view of each, and the part of the time that has passed; of the warehouse's as it is."""
    env, (_, (ours, theirs, _, _, _)) = both("RobotWarehouse-v0", TEAMS["RobotWarehouse-v0"], 4, 2)
    own = np.asarray(theirs.observation.agents_view, np.float32)
    passed = np.arange(1, 5, dtype=np.float32)[None, :, None, None] / np.float32(12)
    wanted = np.concatenate([own, np.broadcast_to(passed, (2, 4, 3, 1))], axis=-1)
    np.testing.assert_allclose(np.asarray(ours.observations), wanted, rtol=1e-6)
    assert ours.central.shape[-1] == env.spec().central_size > 0


def test_each_wire_sees_itself_apart_from_the_others():
    env = coterie.make("jumanji:Connector-v3", **TEAMS["Connector-v3"])
    state, shown = env.reset(jax.random.key(0))
    image, grid = np.asarray(shown.observations[0]), np.asarray(state.grid)
    assert image.shape == (3, 5, 5, 6)
    for i in range(3):
        for what, code in enumerate((1, 2, 3)):  # path, head, target, as the package numbers them
            np.testing.assert_array_equal(image[i, :, :, what], grid == 3 * i + code)
            others = [grid == 3 * k + code for k in range(3) if k != i]
            np.testing.assert_array_equal(image[i, :, :, 3 + what], np.logical_or(*others))


def ended(name: str, actions, steps: int, **options):
    """The ends of one episode under these actions, up to the first."""
    game = Game(coterie.make(f"jumanji:{name}", **options))
    state, shown = jax.jit(game.reset)(jax.random.key(0))
    step = jax.jit(game.step_env)
    for t in range(steps):
        state, shown = step(jax.random.key(t), state, jnp.asarray(actions(state.env, shown)))
        if bool(shown.terminated) or bool(shown.truncated):
            break
    return t + 1, bool(shown.terminated), bool(shown.truncated), shown


def test_time_that_is_up_truncates_where_the_package_discounts_by_one():
    t, terminated, truncated, _ = ended(
        "LevelBasedForaging-v0", lambda state, shown: [0, 0], 20, time_limit=7
    )
    assert (t, terminated, truncated) == (7, False, True)


def test_time_that_is_up_terminates_where_the_package_discounts_by_zero():
    t, terminated, truncated, _ = ended(
        "RobotWarehouse-v0", lambda state, shown: [0] * 4, 20, time_limit=7
    )
    assert (t, terminated, truncated) == (7, True, False)


def test_an_illegal_move_terminates_a_cleaning():
    t, terminated, truncated, _ = ended("Cleaner-v0", lambda state, shown: [0, 0, 0], 5)
    assert (t, terminated, truncated) == (1, True, False)


def test_a_wire_that_is_connected_leaves_and_the_others_go_on():
    there_is = []

    def towards(state, shown):
        """The first wire moves to its target, the others wait."""
        there_is.append(np.asarray(shown.alive).tolist())
        legal = np.asarray(shown.action_mask)[0]
        here, there = (np.asarray(x)[0] for x in (state.agents.position, state.agents.target))
        moves = np.array([[0, 0], [-1, 0], [0, 1], [1, 0], [0, -1]])
        far = np.abs(here + moves - there).sum(1) + 100 * ~legal
        return [int(far[1:].argmin()) + 1 if legal[1:].any() else 0, 0, 0]

    t, terminated, truncated, shown = ended("Connector-v3", towards, 30, grid_size=6, num_agents=3,
                                            time_limit=12)  # fmt: skip
    assert (t, terminated, truncated) == (12, False, True)
    assert there_is[0] == [True, True, True]
    assert there_is[-1] == np.asarray(shown.alive).tolist() == [False, True, True]


def test_masks_of_joint_actions_are_kept():
    """Each combination of choices is an action of its own, so no illegal one can be taken."""
    env = coterie.make("jumanji:Tetris-v0")
    assert env.spec().action_counts == (40,)
    state, shown = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(shown.action_mask)[0], np.ravel(state.action_mask))
    assert env.in_words(jnp.array([13])) == ("1 3",)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("warehouse", {}, "RobotWarehouse-v0"),
        ("Snake-v1", {"num_row": 4}, "did you mean num_rows?"),
        ("Snake-v1", {"viewer": "os"}, "has no option 'viewer'; it has num_rows, num_cols"),
        ("Snake-v1", {"num_rows": "many"}, "must be a whole number"),
        ("Connector-v3", {"reward_fn": "os.system"}, "it has DenseRewardFn"),
        ("LevelBasedForaging-v0", {"num_agents": 0}, "Number of agents must be positive"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(name, options, said):
    with pytest.raises(coterie.UsageError, match=r"(?i)jumanji") as caught:
        coterie.make(f"jumanji:{name}", **options)
    assert said in str(caught.value)


TINY = {"steps": 64, "evaluations": 1, "evaluation_episodes": 2, "final_episodes": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LevelBasedForaging-v0", {"time_limit": 12, "num_agents": 3}),
        ("Connector-v3", {"time_limit": 12, "grid_size": 5, "num_agents": 3}),
    ],
)
def test_a_team_trains_goes_on_is_evaluated_and_watched(name, options, tmp_path):
    algorithm = coterie.MAPPO(environments=2, rollout_steps=16, hidden=(8,))
    run = coterie.train(algorithm, f"jumanji:{name}", out=tmp_path / "run", options=options, **TINY)
    assert run.config["environment_options"] == options
    again = coterie.resume(tmp_path / "run", steps=128)
    assert again.steps == 128
    assert np.isfinite(again.evaluate(episodes=2)["eval/return/team_mean"]["mean"])
    frames = record(again).episodes[0]
    assert isinstance(frames[0].scene.shapes[0], Picture)
    assert frames[0].scene.shapes[0].png != frames[-1].scene.shapes[0].png


def test_a_picture_is_drawn_without_a_window_and_leaves_pyplot_as_it_was():
    import matplotlib
    import matplotlib.pyplot as plt

    env = coterie.make("jumanji:Maze-v0", num_rows=4, num_cols=5)
    state, _ = env.reset(jax.random.key(0))
    before = matplotlib.get_backend(), plt.isinteractive(), plt.get_fignums()
    picture = env.picture(jax.device_get(state))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3  # walls, ways, agent, target
    assert (matplotlib.get_backend(), plt.isinteractive(), plt.get_fignums()) == before


def test_a_name_without_the_package_is_answered_with_it():
    with pytest.raises(coterie.UsageError, match="of Jumanji: name it jumanji:Snake-v1"):
        coterie.make("Snake-v1")
