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
    env, (first, (ours, theirs, _, _, live)) = both(name, options)
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
