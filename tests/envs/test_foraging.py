"""Level-based foraging against its original, ``lbforaging`` 2.0.0, which is the judge."""

from __future__ import annotations

import dataclasses
from functools import cache

import gymnasium
import jax
import jax.numpy as jnp
import lbforaging  # noqa: F401  (registers the ids)
import numpy as np
import pytest
from lbforaging.foraging import ForagingEnv
from scipy.stats import chi2_contingency, chisquare

from coterie import envs
from coterie.envs import foraging
from coterie.envs.foraging import EAST, LOAD, NONE, NORTH, SOUTH, WEST, Foraging, Options, State
from coterie.errors import UsageError
from coterie.views.game import Game

TASKS = (
    "8x8-2p-3f",
    "8x8-2p-2f-coop",
    "10x10-3p-3f",
    "8x8-2p-2f-2s-coop",
    "15x15-4p-5f",
    "8x8-2p-3f-pen",
    "10x10-3p-3f-coop-pen",
    "6x9-3p-2f",
    "6x9-3p-2f-2s",
    "9x6-4p-3f-3s-pen",
    "8x8-1p-2f",
)
ALPHA = 1e-4  # some 50 comparisons are made


def settings(env: Foraging) -> dict:
    """The original's keyword arguments for the same task."""
    return {
        "players": env.players,
        "min_player_level": 1,
        "max_player_level": 2,
        "field_size": (env.rows, env.cols),
        "min_food_level": 1,
        "max_food_level": None,
        "max_num_food": env.food,
        "sight": env.sight or max(env.rows, env.cols),
        "max_episode_steps": env.time_limit,
        "force_coop": env.coop,
        "grid_observation": False,
        "penalty": env.penalty,
    }


def original(env: Foraging) -> ForagingEnv:
    judge = ForagingEnv(**settings(env))
    # its bounds swap rows and columns, which rejects observations of rectangular grids
    box = gymnasium.spaces.Box(-np.inf, np.inf, (3 * (env.food + env.players),), np.float32)
    judge.observation_space = gymnasium.spaces.Tuple([box] * env.players)
    return judge


def inject(judge: ForagingEnv, entities: np.ndarray) -> None:
    """Puts the original into the state ``entities`` [E, 3]."""
    foods, players = np.split(entities.astype(int), [judge.max_num_food])
    judge.field = np.zeros(judge.field_size, np.int32)
    for row, col, level in foods[foods[:, 2] > 0].tolist():
        judge.field[row, col] = level
    for player, (row, col, level) in zip(judge.players, players.tolist(), strict=True):
        player.setup((row, col), level, judge.field_size)
    judge._food_spawned = judge.field.sum()
    judge.current_step = 0
    judge._game_over = False
    judge._gen_valid_moves()


def read(judge: ForagingEnv) -> np.ndarray:
    """The original's state as ``entities`` [E, 3]."""
    foods = [(r, c, judge.field[r, c]) for r, c in zip(*np.nonzero(judge.field), strict=True)]
    foods += [foraging.MISSING] * (judge.max_num_food - len(foods))
    return np.array(foods + [(*p.position, p.level) for p in judge.players], np.float32)


@cache
def reset(env: Foraging):
    """Batched and compiled, once a task."""
    return jax.jit(jax.vmap(env.reset))


def starts(env: Foraging, count: int, seed: int) -> np.ndarray:
    """entities [count, E, 3] of fresh episodes."""
    return np.array(reset(env)(jax.random.split(jax.random.key(seed), count))[0].entities)


NEIGHBOURS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
AROUND = np.array([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)])


def crowded(env: Foraging, count: int, seed: int, beside_food: bool) -> np.ndarray:
    """Starts whose players stand side by side, often on one cell: beside a food, or anywhere."""
    rng = np.random.default_rng(seed)
    entities = starts(env, count, seed)
    last = np.array([env.rows, env.cols]) - 1
    for state in entities:
        foods = state[: env.food, :2]
        if beside_food:
            centre, steps = rng.choice(foods[foods[:, 0] >= 0]), NEIGHBOURS
        else:
            centre, steps = rng.integers(0, last + 1), AROUND
        places = np.clip(centre + steps, 0, last)
        places = places[~(places[:, None] == foods).all(-1).any(1)]
        state[env.food :, :2] = rng.choice(places, env.players)
        state[env.food :, 2] = rng.integers(1, 3, env.players)
    return entities


def as_state(entities: np.ndarray, env: Foraging) -> State:
    make = jax.vmap(State) if entities.ndim == 3 else State
    entities = jnp.asarray(entities, jnp.float32)
    return make(entities, entities[..., : env.food, 2].sum(-1))


def play(env: Foraging, entities: np.ndarray, actions: np.ndarray):
    """Ours from ``entities`` [B, E, 3] with ``actions`` [T, B, N]; results carry [T, B]."""
    key = jax.random.key(0)

    def step(state, joint):
        state, shown = jax.vmap(env.step, in_axes=(None, 0, 0))(key, state, joint)
        return state, (state.entities, shown)

    run = jax.jit(lambda state, joint: jax.lax.scan(step, state, joint)[1])
    return jax.tree.map(np.asarray, run(as_state(entities, env), jnp.asarray(actions)))


def draw_actions(shape: tuple[int, ...], load: float, seed: int) -> np.ndarray:
    """Uniform actions, of which a part ``load`` are replaced by LOAD."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < load, LOAD, rng.integers(0, 6, shape))


def towards(env: Foraging, entities: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """``actions`` [B, N], but neighbours 0 and 1 walk towards each other: they swap."""
    actions = actions.copy()
    if env.players > 1:
        apart = entities[:, env.food + 1, :2] - entities[:, env.food, :2]
        walks = (
            (-1, 0, NORTH, SOUTH),
            (1, 0, SOUTH, NORTH),
            (0, -1, WEST, EAST),
            (0, 1, EAST, WEST),
        )
        for row, col, there, back in walks:
            actions[(apart == (row, col)).all(1), :2] = there, back
    return actions


def situations(env: Foraging) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Starts [B, E, 3], actions [T, B, N] and the steps to play: walks, then crowds."""
    groups = [  # entities, part of LOAD actions, steps
        (starts(env, 100, 1)[:30], 0.2, 25),
        (crowded(env, 100, 2, beside_food=True), 0.7, 6),
        (crowded(env, 100, 3, beside_food=False), 0.0, 6),
    ]
    actions = [draw_actions((25, len(e), env.players), load, 4) for e, load, _ in groups]
    actions[2][0] = towards(env, groups[2][0], actions[2][0])
    lengths = [steps for e, _, steps in groups for _ in e]
    return np.concatenate([e for e, _, _ in groups]), np.concatenate(actions, 1), lengths


def judged(env: Foraging, entities: np.ndarray, actions: np.ndarray, lengths: list[int]):
    """The original's side of ``play``: one row a step played, and the (t, b) of each row."""
    judge = original(env)
    rows, at = [], []
    for b, length in enumerate(lengths):
        inject(judge, entities[b])
        before = entities[b]
        for t in range(length):
            seen, rewards, done, _, _ = judge.step(actions[t, b].tolist())
            after = read(judge)
            rows.append((before, after, np.stack(seen), np.array(rewards), done))
            at.append((t, b))
            before = after
            if done:
                break
    return [np.stack(column) for column in zip(*rows, strict=True)], tuple(np.array(at).T)


def happenings(env: Foraging, before, after, actions, rewards) -> dict[str, int]:
    """How often what happened, told from the original's side; leading axis: steps."""
    foods, old, new = before[:, : env.food], before[:, env.food :, :2], after[:, env.food :, :2]
    near = np.abs(old[:, :, None] - foods[:, None, :, :2]).sum(-1) == 1
    tried = (near & (foods[:, None, :, 2] > 0)).any(2) & (actions == LOAD)
    walked = (old != new).any(-1)
    i, j = np.triu_indices(env.players, 1)
    swapped = (old[:, i] == new[:, j]).all(-1) & (old[:, j] == new[:, i]).all(-1)
    together = (new[:, i] == new[:, j]).all(-1)
    return {
        "loads": (rewards > 0).any(1).sum(),
        "joint loads": ((rewards > 0).sum(1) > 1).sum(),
        "failed loads": (tried & (rewards <= 0)).any(1).sum(),
        "swaps": (swapped & walked[:, i]).sum(),
        "overlaps": (together & (walked[:, i] | walked[:, j])).sum(),
    }


@pytest.mark.parametrize("variant", TASKS)
def test_equals_the_original_step_for_step(variant):
    env = envs.make(f"lbf/{variant}", time_limit=10**6)
    entities, actions, lengths = situations(env)
    (before, after, seen, rewards, done), at = judged(env, entities, actions, lengths)
    led_to, shown = play(env, entities, actions)
    assert len(done) > 1000
    np.testing.assert_array_equal(led_to[at], after)
    np.testing.assert_array_equal(shown.central[at], after.reshape(len(after), -1))
    np.testing.assert_array_equal(shown.observations[at], seen)
    np.testing.assert_allclose(shown.rewards[at], rewards, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(shown.terminated[at], done)
    assert not shown.truncated.any()
    happened = happenings(env, before, after, actions[at], rewards)
    least = {"loads": 20, "failed loads": 10}
    if env.players > 1:
        least |= {"joint loads": 10, "swaps": 10}
    if env.players > 2:
        least |= {"overlaps": 5}
    assert all(happened[name] >= n for name, n in least.items()), happened


@pytest.mark.parametrize("variant", ["8x8-2p-3f", "6x9-3p-2f-2s"])
def test_first_observation_equals_the_original(variant):
    env = envs.make(f"lbf/{variant}")
    judge = original(env)
    keys = jax.random.split(jax.random.key(5), 100)
    state, shown = reset(env)(keys)
    for b in range(100):
        inject(judge, np.asarray(state.entities[b]))
        np.testing.assert_array_equal(shown.observations[b], np.stack(judge._make_gym_obs()))
        assert judge._food_spawned == state.spawned[b]
    np.testing.assert_array_equal(shown.central, state.entities.reshape(100, -1))
    assert not shown.rewards.any()
    assert not shown.terminated.any()
    assert not shown.truncated.any()


def test_ends_equal_the_original_time_limit_included():
    """The original calls a time-out terminated; ours truncates."""
    env = envs.make("lbf/5x5-2p-1f", time_limit=20)
    game, judge, key = Game(env, central="state"), original(env), jax.random.key(0)
    step, begin = jax.jit(game.step), jax.jit(game.reset)
    ends = {"terminated": 0, "truncated": 0}
    for seed in range(20):
        state, _ = begin(jax.random.key(seed))
        inject(judge, np.asarray(state.env.entities))
        for joint in draw_actions((20, 2), 0.3, seed):
            state, shown = step(key, state, jnp.asarray(joint))
            done = judge.step(joint.tolist())[2]
            assert bool(shown.terminated | shown.truncated) == done
            assert bool(shown.terminated) == (judge.field.sum() == 0)
            if done:
                ends["terminated"] += int(shown.terminated)
                ends["truncated"] += int(shown.truncated)
                break
    assert min(ends.values()) >= 3, ends


def test_alone_batched_and_doubly_batched_agree():
    """``batch_last`` changes layouts, never values; the step needs no randomness."""
    env = envs.make("lbf/8x8-3p-3f-2s")
    entities = crowded(env, 6, 7, beside_food=True)
    actions = jnp.asarray(draw_actions((6, 3), 0.4, 8))
    state, keys = as_state(entities, env), jax.random.split(jax.random.key(0), 6)
    flat = jax.jit(jax.vmap(env.step))(keys, state, actions)

    def fold(tree):
        return jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), tree)

    doubly = jax.jit(jax.vmap(jax.vmap(env.step)))(fold(keys), fold(state), fold(actions))
    step, other = jax.jit(env.step), jax.random.key(99)
    single = [step(other, jax.tree.map(lambda x, b=b: x[b], state), actions[b]) for b in range(6)]
    jax.tree.map(np.testing.assert_array_equal, fold(flat), doubly)
    jax.tree.map(np.testing.assert_array_equal, flat, jax.tree.map(lambda *x: np.stack(x), *single))
    shared = jax.jit(jax.vmap(env.step, in_axes=(None, 0, None)))(other, state, actions[0])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), shared, single[0])


# ---------------------------------------------------------------- by hand


def step_once(variant: str, entities: list, actions: list):
    env = envs.make(f"lbf/{variant}")
    state = as_state(np.array(entities, np.float32), env)
    return jax.jit(env.step)(jax.random.key(0), state, jnp.array(actions))


def test_reward_of_a_joint_load_by_hand():
    """Food 3 of 6 spawned, loaders of level 1 and 2: 1·3/(3·6) and 2·3/(3·6)."""
    foods = [[1, 1, 1], [3, 3, 3], [6, 6, 2]]
    state, shown = step_once("8x8-2p-3f", [*foods, [3, 2, 1], [4, 3, 2]], [LOAD, LOAD])
    np.testing.assert_allclose(shown.rewards, [1 / 6, 1 / 3], rtol=1e-6)
    assert not shown.terminated
    expected = [[1, 1, 1], [6, 6, 2], [-1, -1, 0], [3, 2, 1], [4, 3, 2]]
    np.testing.assert_array_equal(state.entities, expected)
    np.testing.assert_array_equal(
        shown.observations[1], np.array(expected)[[0, 1, 2, 4, 3]].reshape(-1)
    )


def test_last_food_terminates():
    missing = [-1, -1, 0]
    entities = [[3, 3, 2], missing, missing, [3, 2, 1], [4, 3, 2]]
    _, shown = step_once("8x8-2p-3f", entities, [NONE, LOAD])
    np.testing.assert_allclose(shown.rewards, [0, 1], rtol=1e-6)
    assert shown.terminated


@pytest.mark.parametrize(("variant", "paid"), [("8x8-2p-1f-pen", -0.1), ("8x8-2p-1f", 0.0)])
def test_penalty_of_a_failed_load_by_hand(variant, paid):
    """Level 1 and a bystander fail at food 2; loading at no food costs nothing."""
    entities = [[3, 3, 2], [3, 2, 1], [4, 3, 2]]
    _, shown = step_once(variant, entities, [LOAD, NONE])
    np.testing.assert_allclose(shown.rewards, [paid, 0], atol=1e-7)
    _, shown = step_once(variant, [[3, 3, 2], [6, 2, 1], [4, 3, 2]], [LOAD, NONE])
    np.testing.assert_allclose(shown.rewards, [0, 0])


def test_swap_follow_and_collision_by_hand():
    food = [[6, 6, 1]]
    swap, _ = step_once("8x8-3p-1f", [*food, [2, 2, 1], [2, 3, 1], [5, 0, 1]], [EAST, WEST, WEST])
    np.testing.assert_array_equal(swap.entities[1:, :2], [[2, 3], [2, 2], [5, 0]])
    # 1 and 2 want (2, 4) and stay; 0 walks onto 1, since 1 no longer claims its own cell
    pile, _ = step_once("8x8-3p-1f", [*food, [2, 2, 1], [2, 3, 1], [1, 4, 1]], [EAST, EAST, SOUTH])
    np.testing.assert_array_equal(pile.entities[1:, :2], [[2, 3], [2, 3], [1, 4]])
    # food blocks: 0 stays and thereby claims its cell, so 1 stays too
    food = [[2, 3, 1]]
    wall, _ = step_once("8x8-3p-1f", [*food, [2, 2, 1], [1, 2, 1], [0, 7, 1]], [EAST, SOUTH, NORTH])
    np.testing.assert_array_equal(wall.entities[1:, :2], [[2, 2], [1, 2], [0, 7]])


def test_partial_view_at_the_wall_by_hand():
    """In the corner a player 4 away is seen (coordinate 4 <= 2·sight), food 3 away is not."""
    entities = [[3, 1, 2], [6, 6, 1], [0, 0, 1], [4, 0, 2]]
    _, shown = step_once("8x8-2p-2f-2s", entities, [NONE, NONE])
    none = [-1, -1, 0]
    expected = [[*none, *none, 0, 0, 1, 4, 0, 2], [1, 1, 2, *none, 2, 0, 2, *none]]
    np.testing.assert_array_equal(shown.observations, expected)


# ---------------------------------------------------------------- starts


def original_starts(env: Foraging, count: int, seed: int) -> np.ndarray:
    """entities [count, E, 3] of the original, each as a fresh environment would start."""
    judge = original(env)
    judge.seed(seed)
    found = []
    for _ in range(count):
        for player in judge.players:
            player.position = None
        judge.reset()
        found.append(read(judge))
    return np.stack(found)


def assert_same_frequencies(a: np.ndarray, b: np.ndarray) -> None:
    """Two-sample chi-square over the values that occur often enough."""
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    table = np.stack([np.bincount(c, minlength=len(values)) for c in np.split(codes, [len(a)])])
    rare = table.sum(0) < 10
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] > 1:
        assert chi2_contingency(table).pvalue > ALPHA, table


def statistics(env: Foraging, entities: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared between starts: integer codes, one an episode.

    Never several foods of an episode at once: they share S, and chi-square needs independence.
    """
    foods, players = entities[:, : env.food], entities[:, env.food :]
    levels = players[..., 2]
    weakest = np.sort(levels, 1)[:, :3].sum(1)
    exists = foods[..., 2] > 0
    apart = np.abs(players[:, 0, :2] - players[:, -1, :2])
    spread = np.abs(foods[:, 0, :2] - foods[:, -1, :2])
    nearest = np.abs(foods[:, :, None, :2] - players[:, None, :, :2]).sum(-1).min((1, 2))
    return {
        "player levels": levels @ 10.0 ** np.arange(env.players),
        "first player's cell": players[:, 0, :2] @ [100, 1],
        "last player's cell": players[:, -1, :2] @ [100, 1],
        "players apart": apart @ [100, 1],
        "first food's level and S": 100 * weakest + foods[:, 0, 2],
        "last food's level and S": 100 * weakest + foods[:, -1, 2],
        "first food's cell": foods[:, 0, :2] @ [100, 1],
        "last food's cell": foods[:, -1, :2] @ [100, 1],
        "foods apart": (spread @ [100, 1])[exists[:, -1]],
        "foods placed": exists.sum(1),
        "nearest food": nearest,
    }


@pytest.mark.parametrize(
    ("variant", "count"),
    [("8x8-2p-3f", 2500), ("5x5-2p-2f", 1000), ("6x9-4p-2f", 1500), ("8x8-3p-2f-coop", 1000)],
)
def test_starts_are_distributed_as_the_original(variant, count):
    env = envs.make(f"lbf/{variant}")
    ours = statistics(env, starts(env, 20_000, 11))
    theirs = statistics(env, original_starts(env, count, 12))
    for name in ours:
        assert_same_frequencies(ours[name], theirs[name])
    if variant == "5x5-2p-2f":
        assert set(np.unique(ours["foods placed"])) == {1, 2}


@pytest.mark.parametrize(("variant", "fewer"), [("15x15-4p-5f", False), ("5x5-3p-4f", True)])
def test_starts_are_legal(variant, fewer):
    env = envs.make(f"lbf/{variant}")
    for state in starts(env, 500, 13):
        foods, players = state[: env.food], state[env.food :]
        exists = foods[:, 2] > 0
        assert fewer or exists.all()
        assert (np.sort(~exists) == ~exists).all()
        assert (foods[~exists] == foraging.MISSING).all()
        place = foods[exists, :2]
        assert ((place >= 1) & (place <= [env.rows - 2, env.cols - 2])).all()
        distance = ((place[:, None] - place) ** 2).sum(-1)
        assert (distance + 99 * np.eye(len(place)) > 4).all()
        assert (np.diff(place @ [env.cols, 1]) > 0).all()
        assert len({tuple(p) for p in players[:, :2]}) == env.players
        assert not {tuple(p) for p in players[:, :2]} & {tuple(p) for p in place}
        assert np.isin(players[:, 2], (1, 2)).all()


@pytest.mark.parametrize(("levels", "below"), [("v3", 0), ("v2", 1)])
def test_food_levels_are_uniform_up_to_the_rule(levels, below):
    """U{1..S}, or U{1..S-1} but at least 1, for every S that two players can have."""
    env = envs.make("lbf/8x8-2p-3f", levels=levels)
    entities = starts(env, 5000, 14)
    weakest = entities[:, 3:, 2].sum(1)
    for s in (2, 3, 4):
        counts = np.bincount(entities[weakest == s][:, :3, 2].astype(int).reshape(-1))[1:]
        assert len(counts) == s - below
        assert len(counts) == 1 or chisquare(counts).pvalue > ALPHA


def test_level_rules_at_their_edges():
    one = starts(envs.make("lbf/8x8-1p-1f", levels="v2"), 200, 15)
    assert (one[:, 0, 2] == 1).all()
    assert set(one[:, 1, 2]) == {1, 2}
    for levels in ("v2", "v3"):
        coop = starts(envs.make("lbf/8x8-4p-2f-coop", levels=levels), 500, 16)
        weakest = np.sort(coop[:, 2:, 2], 1)[:, :3].sum(1)
        assert set(weakest) == {3, 4, 5, 6}
        assert (coop[:, :2, 2] == weakest[:, None]).all()


# ---------------------------------------------------------------- names


def test_spec():
    spec = envs.make("lbf/10x10-3p-4f", time_limit=25).spec()
    assert spec.agents == ("agent_0", "agent_1", "agent_2")
    assert spec.observation_sizes == (21, 21, 21)
    assert spec.action_counts == (6, 6, 6)
    assert (spec.central_size, spec.time_limit, spec.reward) == (21, 25, "sum")


@pytest.mark.parametrize(
    ("variant", "registered"),
    [
        ("8x8-2p-3f", "Foraging-8x8-2p-3f-v3"),
        ("8x8-2p-2f-coop-2s", "Foraging-2s-8x8-2p-2f-coop-v3"),
        ("8x8-2p-2f-2s-coop", "Foraging-2s-8x8-2p-2f-coop-v3"),
        ("10x10-3p-3f-2s", "Foraging-2s-10x10-3p-3f-v3"),
        ("15x15-4p-3f-coop", "Foraging-15x15-4p-3f-coop-v3"),
    ],
)
def test_names_mean_what_the_registered_ids_mean(variant, registered):
    assert settings(envs.make(f"lbf/{variant}")) == gymnasium.spec(registered).kwargs


def test_suffixes_in_any_order():
    expected = Foraging(8, 9, 2, 3, coop=True, sight=4, penalty=0.1)
    for variant in ("8x9-2p-3f-coop-4s-pen", "8x9-2p-3f-pen-coop-4s", "8x9-2p-3f-4s-pen-coop"):
        assert envs.make(f"lbf/{variant}") == expected


@pytest.mark.parametrize("variant", foraging.EXAMPLES)
def test_examples_can_be_made(variant):
    assert isinstance(envs.make(f"lbf/{variant}"), Foraging)


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("8x8", "<rows>x<cols>-<players>p-<food>f"),
        ("", "<rows>x<cols>-<players>p-<food>f"),
        ("Foraging-8x8-2p-3f-v3", "<rows>x<cols>-<players>p-<food>f"),
        ("8x8-2p-3f-", "<rows>x<cols>-<players>p-<food>f"),
        ("8x8-2p-3f-grid", "-grid"),
        ("8x8-2p-3f-coop-coop", "-coop"),
        ("8x8-2p-3f-2s-3s", "-3s"),
        ("8x8-2p-3f-0s", "sight"),
        ("2x8-2p-3f", "3x3"),
        ("8x8-0p-3f", "players"),
        ("3x3-10p-1f", "players"),
        ("8x8-2p-0f", "foods"),
    ],
)
def test_bad_names_are_refused_in_one_sentence(variant, said):
    with pytest.raises(UsageError) as refused:
        envs.make(f"lbf/{variant}")
    message = str(refused.value)
    assert message.startswith(f"lbf/{variant}: ")
    assert said in message
    assert "\n" not in message


def test_bad_options_are_refused():
    with pytest.raises(UsageError, match="time_limit"):
        envs.make("lbf/8x8-2p-3f", time_limit=0)
    with pytest.raises(UsageError, match="v3 or v2"):
        Foraging(8, 8, 2, 3, levels="v1")
    with pytest.raises(UsageError, match="time_limit"):
        envs.make("lbf/8x8-2p-3f", time_limits=3)
    assert {f.name for f in dataclasses.fields(Options)} == {"levels", "time_limit"}
