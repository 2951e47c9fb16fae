"""The particle environments against their original, ``mpe2`` 1.1.1, which is the judge."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import OPTIMISED, quick_compilation
from scipy.stats import chisquare, kstest

import coterie
from coterie import envs
from coterie.envs import mpe
from coterie.envs.mpe.particles import Particles
from coterie.envs.mpe.physics import State
from coterie.errors import UsageError
from coterie.python_envs.adapters.environment import make_factory
from coterie.spec import ActionSpace
from coterie.views.game import Game, GameState

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5
ALPHA = 1e-4  # some 40 comparisons are made
VERSIONS = {"simple-speaker-listener": 4}  # all others: 3

TASKS = (
    ("simple-speaker-listener", {}),
    ("simple-spread", {}),
    ("simple-spread", {"n": 5, "local_ratio": 0.2}),
    ("simple-spread", {"n": 1, "local_ratio": 1.0}),
    ("simple-adversary", {}),
    ("simple-adversary", {"n": 4}),
    ("simple-tag", {}),
    ("simple-tag", {"num_good": 2, "num_adversaries": 4, "num_obstacles": 3}),
    ("simple-tag", {"num_good": 1, "num_adversaries": 1, "num_obstacles": 0}),
    ("simple-reference", {}),
    ("simple-reference", {"local_ratio": 0.0}),
    *[
        (variant, {"continuous_actions": True})
        for variant in (
            "simple-speaker-listener", "simple-spread", "simple-adversary", "simple-tag",
            "simple-reference",
        )
    ],
)  # fmt: skip


def original(variant: str, options: dict):
    """The same task of mpe2, all its defaults, reset."""
    name = f"{variant.replace('-', '_')}_v{VERSIONS.get(variant, 3)}"
    settings = {"N" if k == "n" else k: v for k, v in options.items()}
    env = importlib.import_module(f"mpe2.{name}").parallel_env(**settings)
    env.reset(seed=0)
    return env


@dataclass
class Situation:
    """States [B, ...] in NumPy, in the fields of ``State``."""

    positions: np.ndarray
    velocities: np.ndarray
    said: np.ndarray
    goals: np.ndarray

    def at(self, index) -> Situation:
        return Situation(*(np.asarray(getattr(self, f.name))[index] for f in fields(self)))

    def flat(self) -> Situation:
        """Two leading axes become one."""
        arrays = [getattr(self, f.name) for f in fields(self)]
        return Situation(*(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in arrays))

    def state(self) -> State:
        """As JAX arrays; the class checks shapes only where it is called, so batches pass."""
        example = State(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros(1, int), jnp.zeros(1, int))
        arrays = [jnp.asarray(getattr(self, f.name)) for f in fields(self)]
        return jax.tree.unflatten(jax.tree.structure(example), arrays)


def situation(state: State) -> Situation:
    return Situation(*(np.array(getattr(state, f.name)) for f in fields(Situation)))


def joined(*situations: Situation) -> Situation:
    parts = [[getattr(s, f.name) for s in situations] for f in fields(Situation)]
    return Situation(*map(np.concatenate, parts))


def inject(judge, start: Situation) -> None:
    """Puts the original into one state."""
    world = judge.unwrapped.world
    n = len(world.agents)
    for i, agent in enumerate(world.agents):
        agent.state.p_pos = start.positions[i].astype(np.float64)
        agent.state.p_vel = start.velocities[i].astype(np.float64)
        if start.said.ndim == 1:
            agent.state.c = np.eye(world.dim_c + 1)[start.said[i]][: world.dim_c]
        else:
            agent.state.c = np.resize(start.said[i].astype(np.float64), world.dim_c)
    for i, landmark in enumerate(world.landmarks):
        landmark.state.p_pos = start.positions[n + i].astype(np.float64)
    if len(start.goals) == 1:
        goal = world.landmarks[start.goals[0]]
        for agent in world.agents:
            if hasattr(agent, "adversary"):
                agent.goal_a = goal
        if not hasattr(world.agents[0], "adversary"):
            world.agents[0].goal_b = goal
    for agent, goal in zip(world.agents, start.goals, strict=False):
        if len(start.goals) > 1:
            agent.goal_b = world.landmarks[goal]


def observed(judge) -> np.ndarray:
    """The original's observations in a row."""
    raw = judge.unwrapped
    return np.concatenate([raw.observe(name) for name in raw.possible_agents])


def full_state(judge) -> np.ndarray:
    """z, read off the original: positions, velocities, words of the speakers."""
    world = judge.unwrapped.world
    parts = [entity.state.p_pos for entity in world.entities]
    parts += [agent.state.p_vel for agent in world.agents if agent.movable]
    parts += [agent.state.c for agent in world.agents if not agent.silent]
    return np.concatenate(parts)


def starts(env, count: int, seed: int) -> Situation:
    keys = jax.random.split(jax.random.key(seed), count)
    return situation(jax.jit(jax.vmap(env.reset))(keys)[0])


def wild(env, count: int, seed: int) -> Situation:
    """Fast bodies anywhere, often out of bounds; any word was said."""
    rng = np.random.default_rng(seed)
    start = starts(env, count, seed)
    area = rng.uniform(0.5, 3, (count, 1, 1))
    start.positions = (area * rng.uniform(-1, 1, start.positions.shape)).astype(np.float32)
    bodies = env.world.agents.values()
    moves = np.array([body.push > 0 for body in bodies])[:, None]
    start.velocities = (rng.normal(size=start.velocities.shape) * moves).astype(np.float32)
    speaks = np.array([body.speaks for body in bodies])
    if env.continuous_actions:
        words = rng.uniform(size=start.said.shape)
        start.said = np.where(speaks[:, None], words, 0).astype(np.float32)
    else:
        words = rng.integers(0, max(env.world.words, 1), start.said.shape)
        start.said = np.where(speaks, words, -1).astype(np.int32)
    return start


def crowded(env, count: int, seed: int) -> Situation:
    """As ``wild``, but all within a fifth, so that whatever collides does."""
    rng = np.random.default_rng(seed)
    start = wild(env, count, seed)
    centre = rng.uniform(-1, 1, (count, 1, 2))
    start.positions = centre + rng.uniform(-0.2, 0.2, start.positions.shape)
    start.positions = start.positions.astype(np.float32)
    return start


def draw_actions(env, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if env.continuous_actions:
        size = (*shape, *env.spec().action_shape)
        steps = np.random.default_rng(seed).integers(0, 4096, size, endpoint=True)
        return (steps / 4096).astype(np.float32)  # exact in learners' units, too
    counts = env.spec().action_counts
    return np.random.default_rng(seed).integers(0, counts, (*shape, len(counts)))


@dataclass
class Record:
    """What the original did: every array [T, B, ...]; ``before`` is each step's injected state."""

    actions: np.ndarray
    before: Situation
    seen: np.ndarray
    rewards: np.ndarray
    central: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def read(judge, start: Situation) -> Situation:
    """The original's state; what it holds as objects is as in ``start``."""
    world = judge.unwrapped.world
    if start.said.ndim == 1:
        said = [a.state.c.argmax() if a.state.c.any() else -1 for a in world.agents]
    else:
        said = [a.state.c[: start.said.shape[-1]] for a in world.agents]
    return Situation(
        np.array([entity.state.p_pos for entity in world.entities]),
        np.array([agent.state.p_vel for agent in world.agents]),
        np.array(said, np.int32 if start.said.ndim == 1 else np.float64),
        start.goals,
    )


def ends(flags: dict) -> bool:
    assert len(set(flags.values())) == 1
    return flags.popitem()[1]


def episode(judge, start: Situation, actions: np.ndarray, rounded: bool) -> list[tuple]:
    """One of the original's episodes: a tuple of ``Record``'s fields for each step."""
    judge.reset()
    inject(judge, start)
    names, rows = judge.possible_agents, []
    goals = np.eye(len(judge.unwrapped.world.landmarks))[start.goals].reshape(-1)
    for joint in actions:
        before = read(judge, start)
        if rounded:
            before.positions, before.velocities = map(
                np.float32, (before.positions, before.velocities)
            )
            inject(judge, before)
        spaces = [judge.action_space(name) for name in names]
        chosen = {
            name: a[: space.shape[0]] if space.shape else int(a)
            for name, a, space in zip(names, joint, spaces, strict=True)
        }
        seen, rewards, terminated, truncated, _ = judge.step(chosen)
        row = np.concatenate([seen[name] for name in names])
        paid = [rewards[name] for name in names]
        z = np.concatenate([full_state(judge), goals])
        rows.append((joint, before, row, paid, z, ends(terminated), ends(truncated)))
    assert not judge.agents
    return rows


@cache
def record(task: int, rounded: bool) -> tuple[Particles, Record]:
    """Whole episodes of the original from fresh, wild and crowded starts, as many of each.

    ``rounded`` puts the original into single precision before each step, so that both step from
    the same state: between bodies that all but coincide, a rounded position turns a force.
    """
    variant, options = TASKS[task]
    env, judge = envs.make(f"mpe/{variant}", **options), original(variant, options)
    count = 4 if options else 12
    start = joined(*(kind(env, count, seed) for seed, kind in enumerate((starts, wild, crowded))))
    actions = draw_actions(env, (3 * count, 25), 4)
    rows = [episode(judge, start.at(b), joint, rounded) for b, joint in enumerate(actions)]
    columns = [list(zip(*steps, strict=True)) for steps in zip(*rows, strict=True)]  # [T][field][B]
    fields_of = [[steps[k] for steps in columns] for k in range(len(columns[0]))]
    situations = [joined(*(s.at(None) for s in steps)) for steps in fields_of[1]]
    before = Situation(
        *(np.stack([getattr(s, f.name) for s in situations]) for f in fields(Situation))
    )
    arrays = [np.array(column) for k, column in enumerate(fields_of) if k != 1]
    return env, Record(arrays[0], before, *arrays[1:])


def in_a_row(observations, sizes: tuple[int, ...]) -> np.ndarray:
    """Padded observations [..., N, O] without their padding, all agents in a row."""
    own = [observations[..., i, :k] for i, k in enumerate(sizes)]
    return np.concatenate(own, -1)


def as_learned(env: Particles, actions: np.ndarray) -> jax.Array:
    """Actions as learners have them, in units in which bounds are ±1."""
    return jnp.asarray(2 * actions - 1 if env.continuous_actions else actions)


def deviations(env: Particles, view, judged: Record) -> dict[str, np.ndarray]:
    """The largest deviation of each kind, for each environment at each step."""
    ours = {
        "observations": in_a_row(np.asarray(view.observations), env.spec().observation_sizes),
        "rewards": view.rewards,
        "central": view.central,
    }
    theirs = {"observations": judged.seen, "rewards": judged.rewards, "central": judged.central}
    return {name: np.abs(ours[name] - theirs[name]).max(-1, initial=0) for name in ours}


def play(env: Particles, judged: Record):
    """Ours over the same episodes, injected only at their starts; views [T, B]."""
    game = Game(env, central="state")
    state = GameState(judged.before.at(0).state(), jnp.zeros(judged.actions.shape[1], jnp.int32))

    def step(state, actions):
        return jax.vmap(game.step, in_axes=(None, 0, 0))(jax.random.key(0), state, actions)

    whole = jax.jit(lambda s, a: jax.lax.scan(step, s, a), compiler_options=OPTIMISED)
    return whole(state, as_learned(env, judged.actions))[1]


each_task = pytest.mark.parametrize(
    "task",
    [
        pytest.param(
            k, id=f"{variant}{list(options.values()) or ''}",
            marks=pytest.mark.slow if options else (),
        )
        for k, (variant, options) in enumerate(TASKS)
    ],
)  # fmt: skip


def test_every_scenario_is_judged():
    assert {variant for variant, _ in TASKS} == set(mpe.EXAMPLES) == set(mpe.scenarios())


@each_task
def test_each_step_equals_the_original(task):
    """From hundreds of states, each injected into ours: the original's episodes, step by step."""
    env, judged = record(task, True)
    game, (steps, count, *shape) = Game(env, central="state"), judged.actions.shape
    t = jnp.asarray(np.repeat(np.arange(steps, dtype=np.int32), count))
    state = GameState(judged.before.flat().state(), t)
    actions = as_learned(env, judged.actions.reshape(-1, *shape))
    step = jax.jit(jax.vmap(game.step, in_axes=(None, 0, 0)))
    _, view = step(jax.random.key(0), state, actions)
    view = jax.tree.map(lambda x: np.asarray(x).reshape(steps, count, *x.shape[1:]), view)
    for name, off in deviations(env, view, judged).items():
        assert off.max() < TOLERANCE, name
    np.testing.assert_array_equal(view.terminated, judged.terminated)
    np.testing.assert_array_equal(view.truncated, judged.truncated)
    assert not judged.terminated.any()
    assert (judged.truncated == (np.arange(25) == 24)[:, None]).all()


@each_task
def test_whole_episodes_equal_the_original(task):
    """Without contacts, rounding stays small; contacts amplify it, but not the rules.

    In double precision, that of the original, the same code follows it through all contacts.
    """
    env, judged = record(task, False)
    single = deviations(env, play(env, judged), judged)
    with jax.enable_x64():
        double = deviations(env, play(env, judged), judged)
    contacts = any(body.collides for body in env.world.agents.values()) and env.spec().n_agents > 1
    for name, off in single.items():
        worst = np.quantile(off.max(0), 0.9) if contacts else off.max()
        assert worst < TOLERANCE, name
    for name, off in double.items():  # what is shown is rounded to single precision
        assert off.max() < 1e-6, name


def test_the_comparison_meets_contacts_bounds_and_speed_limits():
    """What could go wrong unseen did happen in the episodes that were compared."""
    _, spread = record(1, True)
    _, tag = record(6, True)
    assert (spread.rewards.min(-1) < spread.rewards.max(-1)).sum() > 20  # unequal collisions
    catches = tag.rewards[..., 0]
    assert set(np.unique(catches)) >= {0, 10}
    outside = tag.rewards[..., 3] + catches
    assert (outside < -0.1).sum() > 50
    assert (outside < -10.1).sum() > 5  # capped, and the other coordinate
    speed = np.linalg.norm(tag.before.velocities[1:], axis=-1)
    assert (np.abs(speed[..., :3] - 1.0) < 1e-9).sum() > 50
    assert (np.abs(speed[..., 3] - 1.3) < 1e-9).sum() > 5


@each_task
def test_first_observations_equal_the_original(task):
    variant, options = TASKS[task]
    env, judge = envs.make(f"mpe/{variant}", **options), original(variant, options)
    game = Game(env, central="state")
    keys = jax.random.split(jax.random.key(9), 20)
    state, view = jax.jit(jax.vmap(game.reset))(keys)
    start, seen = situation(state.env), np.asarray(view.observations)
    for b in range(20):
        inject(judge, start.at(b))
        theirs = np.concatenate([judge.unwrapped.observe(name) for name in judge.possible_agents])
        ours = in_a_row(seen[b], env.spec().observation_sizes)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        goals = np.eye(env.world.landmarks)[start.goals[b]].reshape(-1)
        z = np.concatenate([full_state(judge), goals])
        np.testing.assert_allclose(view.central[b], z, rtol=0, atol=1e-6)
    assert not np.asarray(view.rewards).any()
    assert not np.asarray(view.terminated | view.truncated).any()


@each_task
def test_sizes_and_names_are_those_of_the_original(task):
    variant, options = TASKS[task]
    spec, judge = envs.make(f"mpe/{variant}", **options).spec(), original(variant, options)
    names = judge.possible_agents
    assert spec.agents == tuple(names)
    assert spec.observation_sizes == tuple(judge.observation_space(a).shape[0] for a in names)
    if "continuous_actions" in options:
        for space, name in zip(spec.actions, names, strict=True):
            box = judge.action_space(name)
            assert space == ActionSpace(low=tuple(box.low.tolist()), high=tuple(box.high.tolist()))
    else:
        assert spec.action_counts == tuple(int(judge.action_space(a).n) for a in names)
    assert spec.time_limit == judge.unwrapped.max_cycles == 25
    competes = variant in ("simple-adversary", "simple-tag")
    assert spec.reward == ("individual" if competes else "mean")


@pytest.mark.parametrize(
    ("variant", "observations", "actions", "central"),
    [
        ("simple-speaker-listener", (3, 11), (3, 5), 18),
        ("simple-spread", (18,) * 3, (5,) * 3, 18),
        ("simple-adversary", (8, 10, 10), (5,) * 3, 18),
        ("simple-tag", (16, 16, 16, 14), (5,) * 4, 20),
        ("simple-reference", (21, 21), (50, 50), 40),
    ],
)
def test_sizes_stated_in_the_documentation(variant, observations, actions, central):
    spec = envs.make(f"mpe/{variant}").spec()
    assert spec.observation_sizes == observations
    assert spec.action_counts == actions
    assert spec.central_size == central
    page = (ROOT / "docs" / "environments-mpe.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `mpe/{variant}`"))
    stated = [[int(x) for x in cell.split(",")] for cell in row.split("|")[3:6]]
    assert stated == [[*observations], [*actions], [central]]


def test_unequal_spaces_are_padded_and_masked():
    game = Game(envs.make("mpe/simple-speaker-listener"))
    state, first = game.reset(jax.random.key(0))
    _, view = game.step(jax.random.key(0), state, jnp.array([2, 4]))
    for shown in (first, view):
        assert shown.observations.shape == (2, 11)
        assert not shown.observations[0, 3:].any()
        np.testing.assert_array_equal(shown.action_mask, [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        assert shown.alive.all()
    np.testing.assert_array_equal(first.observations[1, 8:], [0, 0, 0])  # nothing was said
    np.testing.assert_array_equal(view.observations[1, 8:], [0, 0, 1])


# ---------------------------------------------------------------- starts


@each_task
def test_starts_are_distributed_as_the_original(task):
    variant, options = TASKS[task]
    env = envs.make(f"mpe/{variant}", **options)
    start = starts(env, 5000, 21)
    n, landmarks = len(env.agents), env.world.landmarks
    reach = np.ones(n + landmarks)
    if variant == "simple-tag":
        reach[n:] = 0.9
    scaled = start.positions / reach[:, None].astype(np.float32)
    assert (np.abs(scaled) <= 1).all()
    assert kstest(scaled.reshape(-1), "uniform", args=(-1, 2)).pvalue > ALPHA
    for axis in (0, 1):  # independent of each other
        assert np.abs(np.corrcoef(scaled[..., axis].T) - np.eye(n + landmarks)).max() < 0.08
    assert not start.velocities.any()
    assert (start.said == (0 if env.continuous_actions else -1)).all()
    pairs = start.goals @ landmarks ** np.arange(start.goals.shape[1])
    counts = np.bincount(pairs, minlength=landmarks ** start.goals.shape[1])
    assert len(counts) == 1 or chisquare(counts).pvalue > ALPHA


def test_starts_of_the_original_have_these_bounds():
    for task in (0, 1, 4, 6, 9):
        variant, options = TASKS[task]
        judge = original(variant, options)
        place = []
        for _ in range(200):
            judge.reset()
            place.append([entity.state.p_pos for entity in judge.unwrapped.world.entities])
        reach = np.abs(place).max((0, 2))
        expected = envs.make(f"mpe/{variant}").world.each("reach")
        assert (reach <= expected).all()
        assert (reach > 0.97 * expected).all()


# ---------------------------------------------------------------- by hand


def alone(variant: str, positions, velocities, actions, goals=(), **options):
    """One step from a state; rewards of it as a list."""
    env = envs.make(f"mpe/{variant}", **options)
    n = len(env.agents)
    speeds = np.zeros((n, 2)) if velocities is None else velocities
    arrays = np.float32(positions), np.float32(speeds), np.full(n, -1), np.array(goals, int)
    state = Situation(arrays[0], arrays[1], np.int32(arrays[2]), np.int32(arrays[3])).state()
    state, shown = jax.jit(env.step)(jax.random.key(0), state, jnp.asarray(actions))
    return state, shown


@pytest.mark.parametrize(
    ("action", "push"), [(0, (0, 0)), (1, (-1, 0)), (2, (1, 0)), (3, (0, -1)), (4, (0, 1))]
)
def test_moves_by_hand(action, push):
    """x + 0.1 v first, with the old v; then 0.75 v + 0.1 · 5."""
    entities = [[0, 0], [0.5, 0.5], [0, 1], [1, 1], [1, 0]]
    state, shown = alone(
        "simple-speaker-listener", entities, [[0, 0], [1, -2]], [1, action], goals=[2]
    )
    np.testing.assert_allclose(state.positions[1], [0.6, 0.3], atol=1e-6)
    expected = [0.75 + 0.5 * push[0], -1.5 + 0.5 * push[1]]
    np.testing.assert_allclose(state.velocities[1], expected, atol=1e-6)
    np.testing.assert_allclose(shown.rewards, [-0.25, -0.25], atol=1e-6)  # 0.4² + 0.3², squared
    np.testing.assert_allclose(shown.observations[0], [0.15, 0.15, 0.65])
    np.testing.assert_array_equal(shown.observations[1][8:], [0, 1, 0])


def test_words_and_moves_of_one_number():
    entities = [[0, 0], [0.3, 0.4], [0, 1], [1, 1], [1, 0]]
    state, shown = alone("simple-reference", entities, None, [5 * 7 + 2, 4], goals=[0, 2])
    np.testing.assert_array_equal(state.said, [7, 0])
    np.testing.assert_allclose(state.velocities, [[0.5, 0], [0, 0.5]], atol=1e-6)
    heard = np.stack([o[-10:] for o in shown.observations])
    np.testing.assert_array_equal(heard.argmax(1), [0, 7])
    np.testing.assert_array_equal(heard.sum(1), [1, 1])
    own = -np.hypot(0.3, 0.6), -1.0  # the other's distance to the goal one knows
    np.testing.assert_allclose(shown.rewards, np.mean(own) / 2 + np.array(own) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "cost"), [(0.5, 0), (0.89, 0), (0.95, 0.5), (1.25, np.exp(0.5)), (2.5, 10), (90, 10)]
)
def test_running_away_from_tag_costs(x, cost):
    entities = [[0, 0], [0, 0.5], [0, -0.5], [-x, 0.2], [0.5, 0.5], [-0.5, -0.5]]
    _, shown = alone("simple-tag", entities, None, [0, 0, 0, 0])
    np.testing.assert_allclose(shown.rewards, [0, 0, 0, -cost], atol=1e-5)


def test_catches_pay_every_hunter():
    """Two hunters touch the hunted, one is far away and paid as much."""
    entities = [[-0.12, 0], [0.12, 0], [0.5, 0.5], [0, 0], [-0.5, 0.5], [-0.5, -0.5]]
    _, shown = alone("simple-tag", entities, None, [0, 0, 0, 0])
    np.testing.assert_array_equal(shown.rewards, [20, 20, 20, -20])


def test_two_bodies_in_one_point_do_not_push():
    """The original divides by zero there, and everything is NaN from then on."""
    entities = [[0, 0], [0, 0], [0.5, 0], [1, 0], [0, 1], [1, 1]]
    state, shown = alone("simple-spread", entities, None, [0, 0, 0])
    np.testing.assert_allclose(state.velocities, 0, atol=1e-6)
    assert np.isfinite(shown.observations).all()
    np.testing.assert_allclose(shown.rewards[0] - shown.rewards[2], -0.5)  # they collide


def test_alone_batched_and_doubly_batched_agree():
    env = envs.make("mpe/simple-tag")
    start = crowded(env, 6, 7).state()
    actions = jnp.asarray(draw_actions(env, (6,), 8))
    key = jax.random.key(0)
    batched = jax.vmap(env.step, in_axes=(None, 0, 0))
    flat = jax.jit(batched)(key, start, actions)

    def fold(tree):
        return jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), tree)

    doubly = jax.jit(jax.vmap(batched, in_axes=(None, 0, 0)))(key, fold(start), fold(actions))
    step, other = jax.jit(env.step), jax.random.key(99)
    single = [step(other, jax.tree.map(lambda x, b=b: x[b], start), actions[b]) for b in range(6)]

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6)

    jax.tree.map(close, fold(flat), doubly)
    jax.tree.map(close, flat, jax.tree.map(lambda *x: np.stack(x), *single))


# ---------------------------------------------------------------- hosted


@pytest.mark.parametrize("task", [k for k, (_, options) in enumerate(TASKS) if not options])
def test_the_original_can_be_hosted(task):
    variant, _ = TASKS[task]
    env = envs.make(f"mpe/{variant}")
    name = f"pettingzoo:mpe2.{variant.replace('-', '_')}_v{VERSIONS.get(variant, 3)}"
    hosted, spec = make_factory(name)(), env.spec()
    for field in ("agents", "observation_sizes", "action_counts"):
        assert getattr(hosted.spec, field) == getattr(spec, field)
    for seed in (0, None):
        shown = hosted.reset(seed)
        for t, joint in enumerate(draw_actions(env, (25,), 31)):
            assert not shown.truncated, t
            shown = hosted.step(joint)
            assert not shown.terminated, t
            assert shown.alive.all()
        assert shown.truncated
    hosted.close()


@pytest.mark.slow
def test_a_team_is_evaluated_in_the_original(tmp_path):
    """Unequal spaces all the way: trained here, played there, at returns that agree."""
    settings = {"environments": 4, "learning_starts": 100, "buffer_size": 400, "hidden": (8,)}
    with quick_compilation(tmp_path / "compiled"):
        run = coterie.train(
            coterie.VDN(**settings),
            "mpe/simple-speaker-listener",
            400,
            evaluations=1,
            final_episodes=0,
            out=tmp_path / "run",
        )
        here = run.evaluate(320, seed=1)
    name = "pettingzoo:mpe2.simple_speaker_listener_v4"
    there = run.evaluate(60, environment=name, seed=1)
    assert here["eval/length"]["mean"] == there["eval/length"]["mean"] == 25
    for metrics in (here, there):
        paid = [metrics[f"eval/return/agent/{a}"]["mean"] for a in ("speaker_0", "listener_0")]
        assert paid[0] == pytest.approx(paid[1], rel=1e-5)
    name = "eval/return/team_sum"
    low, high = here[name]["ci95_episodes"]
    assert abs(here[name]["mean"] - there[name]["mean"]) < 3 * (high - low)


# ---------------------------------------------------------------- names and options


def test_scenarios_are_listed():
    assert mpe.EXAMPLES == (
        "simple-adversary",
        "simple-reference",
        "simple-speaker-listener",
        "simple-spread",
        "simple-tag",
    )
    assert mpe.FAMILY in envs.families()


@pytest.mark.parametrize(
    ("variant", "options", "said"),
    [
        ("simple-speaker-listner", {}, "did you mean simple-speaker-listener"),
        ("", {}, "it has simple-adversary"),
        ("physics", {}, "no scenario"),
        ("simple-tag", {"n": 3}, "no option 'n'; it has time_limit, continuous_actions, num_good"),
        ("simple-speaker-listener", {"local_ratio": 0.5}, "no option 'local_ratio'"),
        ("simple-spread", {"n": 0}, "n must be a whole number from 1 to 1,000 or None; got 0"),
        ("simple-adversary", {"n": 0}, "n must be a whole number from 1"),
        (
            "simple-spread",
            {"local_ratio": 1.5},
            "local_ratio must be a number from 0 to 1 or None; got 1.5",
        ),
        ("simple-reference", {"local_ratio": -1.0}, "local_ratio must be a number from 0 to 1"),
        ("simple-tag", {"num_good": 0}, "num_good must be a whole number from 1"),
        ("simple-tag", {"num_adversaries": 0}, "num_adversaries must be a whole number from 1"),
        ("simple-tag", {"num_obstacles": -1}, "num_obstacles must be a whole number from 0"),
        ("simple-tag", {"time_limit": 0}, "time_limit must be a whole number from 1"),
        ("simple-tag", {"max_cycles": 9}, "no option 'max_cycles'"),
    ],
)
def test_bad_names_and_options_are_refused_in_one_sentence(variant, options, said):
    with pytest.raises(UsageError) as refused:
        envs.make(f"mpe/{variant}", **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_time_limit_is_an_option():
    game = Game(envs.make("mpe/simple-spread", time_limit=2))
    step = jax.jit(game.step)
    state, view = game.reset(jax.random.key(0))
    cuts = []
    for _ in range(2):
        state, view = step(jax.random.key(0), state, jnp.zeros(3, jnp.int32))
        cuts.append(bool(view.truncated))
    assert cuts == [False, True]
