"""Layer normalisation, normalised observations, preprocessed images and stacked frames."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import guests
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Tuple
from probes import small
from quick import quick_compilation

import coterie
from coterie import PythonEnvSettings, UsageError
from coterie.cli.entry import main
from coterie.envs.base import Environment
from coterie.learners.normalisation import make_normaliser
from coterie.networks.layers import MLP, LayerNorm
from coterie.networks.observation_statistics import ObservationStatistics
from coterie.ops.observations import flat, joined, split
from coterie.ops.running_statistics import Moments
from coterie.policies.acting import act
from coterie.python_envs.opening import open_python_env
from coterie.python_envs.training import HostDevice
from coterie.runs.learner import learner as learner_of
from coterie.spec import EnvSpec, ObservationSpace, TimeStep
from coterie.storage.files import seal
from coterie.training.finite import without_replay
from coterie.training.loop import Program
from coterie.training.rollout import scan_rollout
from coterie.training.state import init
from coterie.views.game import Game
from coterie.views.preprocessing import Preprocessing, area_resized, luminance
from coterie.views.vector import SEED_AXIS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


# Layer normalisation -----------------------------------------------------------------------------


def test_layer_norm_by_hand():
    """1, 3 has mean 2 and variance 1; scale and shift follow."""
    norm = LayerNorm(2)
    np.testing.assert_allclose(norm(jnp.array([[1.0, 3.0]])), [[-1, 1]], atol=1e-5)
    object.__setattr__(norm, "scale", jnp.array([2.0, 3.0]))
    object.__setattr__(norm, "shift", jnp.array([10.0, 20.0]))
    np.testing.assert_allclose(norm(jnp.array([5.0, 1.0])), [12, 17], atol=1e-4)


def test_layers_are_normalised_before_their_activation_and_the_last_is_not():
    mlp = MLP([3, 4, 5, 2], jax.random.key(0), "relu", layer_norm=True)
    x = jnp.array([0.5, -2.0, 1.0])
    expected = x
    for layer in mlp.layers[:-1]:
        y = np.asarray(expected @ layer.weight + layer.bias)
        expected = np.maximum((y - y.mean()) / np.sqrt(y.var() + 1e-5), 0)
    expected = expected @ mlp.layers[-1].weight + mlp.layers[-1].bias
    np.testing.assert_allclose(mlp(x), expected, rtol=1e-5)
    assert MLP([3, 4, 5, 2], jax.random.key(0)).norms == ()


@pytest.mark.parametrize("name", ["idqn", "ippo"])
def test_scales_and_shifts_are_learned_saved_and_in_the_recipe(name, tmp_path, monkeypatch):
    algorithm = small(name, layer_norm=True, hidden=(4, 6), **relu(name))
    run = trained(algorithm, tmp_path / "run")
    team = coterie.load(run)
    norms = team.policy.networks.body.norms
    assert [n.scale.shape[-1] for n in norms] == [4, 6]
    assert all(np.abs(np.asarray(n.shift)).max() > 0 for n in norms), "shifts learn"
    recipe_agrees(run, team, monkeypatch)


def relu(name: str) -> dict[str, str]:
    """The activation that the recipe of docs/formats.md has."""
    return {"activation": "relu"} if name == "ippo" else {}


def trained(
    algorithm, path: Path, environment: Any = "matrix/climbing", steps=64, **options
) -> Path:
    given: dict[str, Any] = {"evaluations": 1, "final_episodes": 0, "seeds": 1} | options
    coterie.train(algorithm, environment, steps, out=path, **given)
    return path


def recipe_agrees(run: Path, team, monkeypatch) -> None:
    """NumPy alone, as docs/formats.md shows it, computes what the team computes."""
    monkeypatch.chdir(run)
    page = (ROOT / "docs" / "formats.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names: dict = {}
    exec(next(block for block in blocks if "about = " in block), names)
    size = max(team.observation_sizes)
    for observation in (np.full(size, 0.3, np.float32), np.arange(size, dtype=np.float32)):
        seen = jnp.broadcast_to(observation, (len(team.agents), size))
        hidden_state = team.policy.initial_hidden_state()
        expected, _ = team.policy.step(hidden_state, seen, jnp.zeros(len(team.agents), bool))
        found, _ = names["scores"](1, observation, None)
        np.testing.assert_allclose(found, expected[1], atol=1e-4)


# Normalised observations -------------------------------------------------------------------------


@dataclass(frozen=True)
class Uneven(Environment):
    """Three agents see 2, 1 and 2 numbers far from 0; the second one dies at the second step."""

    rounds: int = 4
    states: bool = False

    def spec(self):
        return EnvSpec(
            agents=("a", "b", "c"), observation_sizes=(2, 1, 2), action_counts=(2, 2, 2),
            central_size=2 * self.states, time_limit=self.rounds, reward="sum",
        )  # fmt: skip

    def reset(self, key):
        x = 100 + 10 * jax.random.normal(key, (5,))
        return (jnp.zeros((), jnp.int32), x), self.shown(0, x)

    def step(self, key, state, actions):
        t, x = state[0] + 1, state[1] + jax.random.normal(key, (5,))
        return (t, x), self.shown(t, x, 0.1 * actions)

    def shown(self, t, x, rewards=None):
        return TimeStep(
            observations=(x[:2], 50 + x[2:3], x[3:]),
            rewards=jnp.zeros(3) if rewards is None else rewards,
            terminated=jnp.zeros((), bool),
            truncated=jnp.zeros((), bool),
            alive=jnp.array([True, False, True]) | (t < 2),
            central=x[:2] * 3 if self.states else None,
        )


def test_normalised_by_hand():
    """5 and 9 have mean 7 and deviation 2; 11 is 2 of them away, 1000 is clipped."""
    moments = Moments.empty(1).update(jnp.array([[5.0], [9.0]]), jnp.ones((2, 1), bool))
    x = jnp.array([[11.0], [1000.0], [-1000.0], [7.0]])
    np.testing.assert_allclose(moments.normalise(x), [[2], [10], [-10], [0]], rtol=1e-6)
    np.testing.assert_allclose(Moments.empty(1).normalise(x), [[10], [10], [-10], [7]])
    constant = Moments.empty(1).update(jnp.full((4, 1), 7.0), jnp.ones((4, 1), bool))
    np.testing.assert_allclose(constant.normalise(x), [[4], [10], [-10], [0]])


@pytest.mark.parametrize("index", [(0, 1, 2), (0, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_statistics_are_of_each_network_without_the_dead_and_padding(index):
    spec = Uneven().spec()
    rng = np.random.default_rng(0)
    seen = rng.normal(5, 3, (7, 4, 3, 2)).astype(np.float32)
    seen[..., 1, 1] = 0.0  # padding
    alive = rng.random((7, 4, 3)) < 0.7
    seen[~alive] = 0.0
    found = ObservationStatistics.empty(spec, index)
    for part in (slice(0, 3), slice(3, 7)):
        found = found.update(jnp.asarray(seen[part]), jnp.asarray(alive[part]))
    out = np.asarray(found.normalise(jnp.asarray(seen)))
    for agent, size in enumerate(spec.observation_sizes):
        for entry in range(size):
            values = np.concatenate([
                seen[..., j, entry][alive[..., j]]
                for j in range(3) if index[j] == index[agent] and entry < spec.observation_sizes[j]
            ])  # fmt: skip
            expected = (seen[..., agent, entry] - values.mean()) / values.std()
            np.testing.assert_allclose(out[..., agent, entry], expected, rtol=1e-4, atol=1e-5)
    assert not out[..., 1, 1].any(), "padding stays zero"


def test_floats_beside_pixels_are_normalised_and_pixels_stay():
    space = ObservationSpace(((2,), (2, 3), (1,)), ("float32", "uint8", "float32"))
    spec = EnvSpec(("a",), action_counts=(2,), observations=(space,))
    floats, pixels = np.array([[[4, 0]], [[6, 2]]], np.float32), np.arange(12, dtype=np.uint8)
    pixels = pixels.reshape(2, 1, 6)
    last = np.array([[[1]], [[3]]], np.float32)
    rows = joined([jnp.asarray(x) for x in (floats, pixels, last)])
    statistics = ObservationStatistics.empty(spec, (0,)).update(rows, jnp.ones((2, 1), bool))
    assert statistics.moments.mean.tolist() == [5, 1, 2]
    out = split(statistics.normalise(rows), space)
    np.testing.assert_allclose(out[0], [[[-1, -1]], [[1, 1]]])
    np.testing.assert_allclose(out[1].reshape(2, 1, 6), pixels / 255, rtol=1e-6)
    np.testing.assert_allclose(out[2], [[[-1]], [[1]]])


def an_iteration(algorithm, game, state):
    """A rollout, and the state after it was learned from."""
    schedules = {k: jnp.asarray(v[0]) for k, v in algorithm.schedules(np.zeros(1, int)).items()}
    _, act_key, learn_key = jax.random.split(state.key, 3)
    *_, rollout, _ = scan_rollout(
        algorithm, game, algorithm.policy(state.learner), state.vector, state.hidden_state,
        act_key, schedules,
    )  # fmt: skip
    learner, metrics = algorithm.learn(game, state.learner, rollout, learn_key, schedules)
    return rollout, learner, metrics


def one_seed(function):
    """Jitted, under the axis that compiled loops have."""
    batched = jax.jit(jax.vmap(function, axis_name=SEED_AXIS))
    return lambda tree: jax.tree.map(lambda x: x[0], batched(jax.tree.map(lambda x: x[None], tree)))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", ["ippo", "mappo"])
def test_the_ratio_is_1_at_first_with_normalisation(name, recurrent):
    """In its only update a rollout's policy says what it said when it acted; statistics move on."""
    algorithm = small(name, normalise_observations=True, recurrent=recurrent, sharing="shared",
                      epochs=1, minibatches=1)  # fmt: skip
    game = Game(Uneven(), "joint" if name == "mappo" else "none", "sum")
    state = one_seed(lambda key: init(algorithm, game, key))(jax.random.key(0))
    step = one_seed(lambda s: an_iteration(algorithm, game, s))
    for k in range(3):
        state = dataclasses.replace(state, key=jax.random.key(k))
        _, learner, metrics = step(state)
        assert abs(float(metrics["kl"])) < 1e-9
        assert float(metrics["clip_fraction"]) == 0
        moved = np.abs(learner.normaliser.agents.moments.mean - moments_of(state).mean)
        assert moved.max() > 1e-3
        state = dataclasses.replace(state, learner=learner)


def moments_of(state) -> Moments:
    return state.learner.normaliser.agents.moments


@pytest.mark.parametrize("name", ["idqn", "qmix", "maa2c", "reinforce", "central_a2c", "coma"])
def test_statistics_are_those_of_the_living_in_rollouts(name):
    algorithm = small(name, normalise_observations=True).resolve(1000, 4)
    central = "state" if name in ("qmix", "maa2c", "coma") else "none"
    game = Game(Uneven(states=True), central, "sum", joint=algorithm.joint_view)
    state = one_seed(lambda key: init(algorithm, game, key))(jax.random.key(0))
    rollout, learner, _ = one_seed(lambda s: an_iteration(algorithm, game, s))(state)
    seen, alive = np.asarray(rollout.observations), np.asarray(rollout.alive)
    mean = np.asarray(learner.normaliser.agents.moments.mean).reshape(alive.shape[-1], -1)
    for agent in range(alive.shape[-1]):
        expected = seen[..., agent, :][alive[..., agent]].mean(0)
        np.testing.assert_allclose(mean[agent], expected, rtol=1e-4)
    if central == "state":
        expected = np.asarray(rollout.central).reshape(-1, 2).mean(0)
        np.testing.assert_allclose(learner.normaliser.state.mean, expected, rtol=1e-4)


def test_critics_see_the_joint_observation_as_its_agents_see_their_own():
    algorithm = coterie.MAA2C(normalise_observations=True)
    game = Game(Uneven(), "joint", "sum")
    normaliser = make_normaliser(algorithm, game)
    assert normaliser is not None
    rng = np.random.default_rng(0)
    seen = rng.normal(100, 5, (6, 3, 2)).astype(np.float32)
    agents = normaliser.agents.update(jnp.asarray(seen), jnp.ones((6, 3), bool))
    normaliser = dataclasses.replace(normaliser, agents=agents)
    np.testing.assert_array_equal(
        normaliser.central(game, jnp.asarray(seen.reshape(6, 6))),
        agents.normalise(jnp.asarray(seen)).reshape(6, 6),
    )


@pytest.mark.parametrize("name", ["vdn", "ippo"])
def test_normalisation_is_saved_frozen_and_in_the_recipe(name, tmp_path, monkeypatch):
    algorithm = small(name, normalise_observations=True, hidden=(4,), sharing="shared",
                      **relu(name))  # fmt: skip
    run = trained(algorithm, tmp_path / "run", "lbf/5x5-2p-1f", 600)
    team = coterie.load(run, which="last")
    before = jax.tree.map(np.copy, team.policy.statistics)
    assert (np.asarray(before.moments.count) > 0).all()
    kept = learner_of(coterie.open_run(run)).normaliser.agents
    jax.tree.map(np.testing.assert_array_equal, kept, before)
    observations = [np.arange(9.0), np.ones(9)]
    first = team.act(observations, team.initial_hidden_state())[0]
    coterie.open_run(run).evaluate(4)
    assert team.act(observations, team.initial_hidden_state())[0] == first
    jax.tree.map(np.testing.assert_array_equal, coterie.load(run, which="last").policy.statistics,
                 before)  # fmt: skip
    recipe_agrees(run, coterie.load(run), monkeypatch)


# Images and frames -------------------------------------------------------------------------------


def test_luminance_by_hand():
    """0.299 · 10 + 0.587 · 20 + 0.114 · 30 = 18.15; 0.299 · 255 = 76.2; 0.114 · 255 = 29.07."""
    rgb = jnp.array([[10, 20, 30], [255, 255, 255], [255, 0, 0], [0, 0, 255]], jnp.uint8)
    found = luminance(rgb)
    assert found.dtype == jnp.uint8
    assert found.ravel().tolist() == [18, 255, 76, 29]


def test_areas_by_hand():
    """3 rows become 2: the middle one counts half in each, (0 + 90/2) / 1.5 = 30."""
    image = jnp.array([0, 90, 200], jnp.uint8).reshape(3, 1, 1)
    assert area_resized(image, 2, 1).ravel().tolist() == [30, 163]  # (45 + 200) / 1.5 = 163.3
    blocks = jnp.array([[1, 2, 9, 9], [3, 5, 9, 8]], jnp.uint8)[..., None]
    found = area_resized(blocks, 1, 2)
    assert (found.shape, found.dtype) == ((1, 2, 1), jnp.uint8)
    assert found.ravel().tolist() == [3, 9]  # 2.75 and 8.75
    assert area_resized(blocks, 2, 4).tolist() == blocks.tolist()


def test_halves_are_rounded_up_however_large_the_image():
    for size in (10, 84, 210):
        image = jnp.tile(jnp.array([[6, 7], [7, 6]], jnp.uint8), (size // 2, size // 2))
        assert (area_resized(image[..., None], size // 2, size // 2) == 7).all()


def spec_of(*spaces):
    return EnvSpec(("a", "b"), action_counts=(2, 2), observations=(*spaces,) * 2)


RGB = ObservationSpace.of((6, 8, 3), "uint8")
RGB_FIRST = ObservationSpace.of((3, 8, 8), "uint8")
SEVERAL = ObservationSpace(
    ((2,), (6, 8, 3), (5, 4, 2), (4, 6)), ("float32", "uint8", "float32", "uint8"), tuple("vrfp")
)


@pytest.mark.parametrize(
    ("how", "space", "shapes"),
    [
        ({"grey": True}, RGB, ((6, 8, 1),)),
        ({"resize": (3, 4)}, RGB, ((3, 4, 3),)),
        ({"grey": True, "resize": (2, 2), "frame_stack": 4}, RGB, ((2, 2, 4),)),
        ({"grey": True}, RGB_FIRST, ((8, 8, 1),)),
        ({"frame_stack": 2}, RGB_FIRST, ((8, 8, 6),)),
        ({"frame_stack": 3}, SEVERAL, ((6,), (6, 8, 9), (5, 4, 6), (4, 6, 3))),
        ({"grey": True, "resize": (4, 3)}, SEVERAL, ((2,), (4, 3, 1), (5, 4, 2), (4, 3, 1))),
    ],
)
def test_what_is_seen_by_hand(how, space, shapes):
    """Arrays go in and come out of flat rows; frames stand along channels, the newest last."""
    done, spec = Preprocessing(**how), spec_of(space)
    rng = np.random.default_rng(0)
    steps = [
        [
            rng.integers(0, 256, (2, *shape)).astype(np.uint8) if dtype == "uint8"
            else rng.normal(size=(2, *shape)).astype(np.float32)
            for shape, dtype in zip(space.shapes, space.dtypes, strict=True)
        ]
        for _ in range(4)
    ]  # fmt: skip
    seen = frames = None
    for step in steps:
        row = flat(tuple(step) if len(step) > 1 else step[0], space, 2)
        seen, frames = done.look(spec, row, frames=frames)
    assert seen is not None
    after = done.spec(spec).observations[0]
    assert after.shapes == shapes
    assert (after.names, after.dtypes) == (space.names, space.dtypes)
    assert seen.dtype == space.dtype
    for k, found in enumerate(split(seen, after)):
        last = [one_frame(done, step[k]) for step in steps[-done.frame_stack :]]
        expected = np.concatenate(last, axis=-1) if done.frame_stack > 1 else last[0]
        scale = 255 if expected.dtype == np.uint8 else 1
        np.testing.assert_allclose(
            np.asarray(found), expected.reshape(found.shape) / np.float32(scale), rtol=1e-6
        )


def one_frame(done, x):
    """What becomes of an array [N, ...] without memory, in NumPy."""
    if x.shape[1] == 3:
        x = np.moveaxis(x, 1, -1)
    if done.frame_stack > 1 and x.ndim == 3:
        x = x[..., None]
    if x.dtype != np.uint8:
        return x
    if done.grey and x.shape[-1] == 3:
        x = np.asarray(luminance(jnp.asarray(x)))
    if done.resize:
        x = x if x.ndim == 4 else x[..., None]
        x = np.asarray(area_resized(jnp.asarray(x), *done.resize))
    return x


def test_vectors_of_unequal_size_stand_one_after_the_other():
    done, spec = Preprocessing(frame_stack=2), Uneven().spec()
    assert done.spec(spec).observation_sizes == (4, 2, 4)
    first, frames = done.look(spec, jnp.array([[1, 2], [3, 0], [4, 5]]) * 1.0)
    assert first.tolist() == [[1, 2, 1, 2], [3, 3, 0, 0], [4, 5, 4, 5]]
    second, _ = done.look(spec, jnp.array([[6, 7], [8, 0], [9, 10]]) * 1.0, frames=frames)
    assert second.tolist() == [[1, 2, 6, 7], [3, 8, 0, 0], [4, 5, 9, 10]]


@dataclass(frozen=True)
class Camera(Environment):
    """Two agents see an image and a number that tell the episode and the step apart."""

    rounds: int = 3

    def spec(self):
        return EnvSpec(
            agents=("a", "b"), action_counts=(2, 2), time_limit=self.rounds, reward="sum",
            observations=(ObservationSpace(((4, 6, 3), (1,)), ("uint8", "float32")),) * 2,
        )  # fmt: skip

    def reset(self, key):
        state = jax.random.randint(key, (), 1, 20), jnp.zeros((), jnp.int32)
        return state, self.shown(state, jnp.zeros(2))

    def step(self, key, state, actions):
        state = state[0], state[1] + 1
        return state, self.shown(state, 1.0 * actions)

    def shown(self, state, rewards):
        level = 10 * state[0] + state[1]
        image = jnp.broadcast_to(level, (2, 4, 6, 3)).at[1].add(3).astype(jnp.uint8)
        never = jnp.zeros((), bool)
        return TimeStep((image, jnp.full((2, 1), level / 10.0)), rewards, never, never)


def levels(observations, frames: int):
    """[..., K] what frames of ``Camera`` show agent a, from its number and its image."""
    rows = np.asarray(observations)[..., 0, :]
    numbers = np.ascontiguousarray(rows[..., -4 * frames :]).view(np.float32) * 10
    pixels = rows[..., : -4 * frames].reshape(*rows.shape[:-1], -1, frames)
    np.testing.assert_allclose(numbers, pixels[..., 0, :], atol=1e-3)
    return pixels[..., 0, :].astype(int)


@pytest.mark.parametrize("stacked", [2, 3])
def test_a_truncated_step_shows_the_frames_of_the_episode_that_ended(stacked):
    """And the next one begins with its own first frame, however it was reset."""
    algorithm = small("ippo", rollout_steps=8)
    done = Preprocessing(grey=True, resize=(2, 3), frame_stack=stacked)
    game = Game(Camera(), "joint", "sum", preprocessing=done)
    state = one_seed(lambda key: init(algorithm, game, key))(jax.random.key(0))
    rollout, *_ = one_seed(lambda s: an_iteration(algorithm, game, s))(state)
    seen, after = (levels(x, stacked) for x in (rollout.observations, rollout.next_observations))
    assert rollout.truncated.any(0).all()
    t = 0
    for step in range(8):
        number = seen[step, :, -1] // 10
        expected = [number * 10 + max(t - k, 0) for k in range(stacked - 1, -1, -1)]
        np.testing.assert_array_equal(seen[step], np.stack(expected, -1))
        expected = [number * 10 + max(t + 1 - k, 0) for k in range(stacked - 1, -1, -1)]
        np.testing.assert_array_equal(after[step], np.stack(expected, -1))
        assert bool(rollout.truncated[step].all()) == (t == 2)
        t = (t + 1) % 3
    z = np.asarray(rollout.next_central).reshape(*rollout.next_observations.shape)
    np.testing.assert_array_equal(z, rollout.next_observations)


class PythonCamera:
    """``Camera`` as a PettingZoo environment; its first level is that of a test's."""

    possible_agents = ("a", "b")
    metadata = {"name": "camera"}  # noqa: RUF012
    level = 7

    def observation_space(self, agent):
        pixels, number = Box(0, 255, (4, 6, 3), np.uint8), Box(-100, 100, (1,), np.float32)
        return Tuple((pixels, number))

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = ["a", "b"], 0
        return self.seen(), {}

    def step(self, actions):
        self.t += 1
        seen, over = self.seen(), self.t == 3
        rewards = {a: float(actions[a]) for a in self.agents}
        truncated = dict.fromkeys(self.agents, over)
        never = dict.fromkeys(self.agents, False)
        self.agents = [] if over else self.agents
        return seen, rewards, never, truncated, {}

    def seen(self):
        level = 10 * self.level + self.t
        return {
            a: (np.full((4, 6, 3), level + 3 * i, np.uint8), np.array([level / 10], np.float32))
            for i, a in enumerate(self.agents)
        }


@dataclass(frozen=True)
class SameCamera(Camera):
    """Every episode as ``PythonCamera`` has it."""

    def reset(self, key):
        state = jnp.int32(PythonCamera.level), jnp.zeros((), jnp.int32)
        return state, self.shown(state, jnp.zeros(2))


ALL = {"grey": True, "resize": (2, 3), "frame_stack": 2, "normalise_observations": True}
DONE = Preprocessing(grey=True, resize=(2, 3), frame_stack=2)


@pytest.mark.parametrize("name", ["mappo", "vdn", "central_a2c"])
def test_a_python_environment_is_seen_as_its_compiled_twin(name):
    """Equal parameters, statistics and evaluations, after episodes that end within rollouts."""
    algorithm = small(name, recurrent=True, sharing="shared", rollout_steps=8, learning_starts=8,
                      update_ratio=1 / 8, **ALL)  # fmt: skip
    game = Game(SameCamera(), "joint" if algorithm.central else "none", "sum",
                joint=algorithm.joint_view, preprocessing=DONE)  # fmt: skip
    limit = PythonEnvSettings(time_limit=3, workers=0)  # replay then keeps every last step of both
    hosted = dataclasses.replace(game, env=open_python_env("camera", PythonCamera, limit))
    host = HostDevice(algorithm, hosted, 1, 3, 4, limit, pytest.fail)
    states, program = host.init(3), Program(algorithm, game, 1, 4)
    compiled = program.init(3)
    for i in range(4):
        states = host.advance(states, i, 1)
        compiled = program.advance(compiled, i, 1)
    assert float(np.max(states[0].episodes.count)) >= 8
    assert (np.asarray(compiled.learner.normaliser.agents.moments.count) > 0).all()
    ours, theirs = (
        jax.tree.leaves(eqx.filter(without_replay(s.learner), eqx.is_array))
        for s in (compiled, states[0])
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    _, played = host.evaluate(states, 0)
    _, twin = program.evaluate(compiled, 0)
    np.testing.assert_allclose(played["eval"][0], twin["eval"][0])
    host.close()


@pytest.mark.parametrize("name", ["ippo", "vdn", "central_q"])
def test_a_loaded_team_acts_as_it_was_evaluated(name, tmp_path):
    """On what the environment shows, step by step; each episode from a new hidden state."""
    algorithm = small(name, recurrent=True, **ALL | {"frame_stack": 3})
    run = trained(algorithm, tmp_path / "run", Camera(), 256, central="auto")
    team, game = coterie.load(run, which="last"), coterie.open_run(run, environment=Camera()).game
    assert team.preprocessing == game.preprocessing == Preprocessing(True, (2, 3), 3)
    policy = team.policy
    for seed in range(3):
        state, shown = game.reset(jax.random.key(seed))
        hidden, remembered = policy.initial_hidden_state(), team.initial_hidden_state()
        for _ in range(3):
            image, number = Camera().shown(state.env, jnp.zeros(2)).observations
            given = [(np.asarray(image[i]), np.asarray(number[i])) for i in range(2)]
            again, _ = team.act(given, remembered)
            chosen, remembered = team.act(given, remembered)
            assert chosen == again, "acting changes nothing but what it returns"
            actions, hidden, _ = act(policy, hidden, shown.observations, shown.action_mask)
            assert game.own_actions(actions).tolist() == chosen
            np.testing.assert_allclose(remembered.hidden_state, hidden, atol=1e-6)
            state, shown = game.step(jax.random.key(0), state, actions)


def test_a_loaded_team_forgets_who_is_gone_as_training_does(tmp_path):
    """Of an agent that died all frames are 0 in training, also those of its life."""
    algorithm = small("central_q", frame_stack=2, learning_starts=20)
    own = {"python_env": coterie.PythonEnvSettings(workers=0), "reward": "sum"}
    few = {"evaluations": 1, "evaluation_episodes": 2, "final_episodes": 0}
    run = coterie.train(algorithm, guests.Relay, 64, out=tmp_path / "run", **own, **few)
    team, game = coterie.load(tmp_path / "run", which="last"), run.game
    rng = np.random.default_rng(0)
    mask = jnp.asarray(game.players.available_actions)
    for _ in range(40):
        remembered, frames, start = team.initial_hidden_state(), None, None
        for alive in (np.ones(3, bool), np.array([True, True, False])):
            shown = [np.float32(rng.normal(size=k) * 5) for k in (2, 3, 4)]
            padded = np.stack([np.pad(x, (0, 4 - len(x))) for x in shown]) * alive[:, None]
            given = [x if there else None for x, there in zip(shown, alive, strict=True)]
            chosen, remembered = team.act(given, remembered)
            seen, frames = game.look(jnp.asarray(padded), jnp.asarray(alive), frames, start)
            seen, start = game.see(seen, mask, jnp.asarray(alive), None), jnp.zeros((), bool)
            hidden = team.policy.initial_hidden_state()
            actions, _, _ = act(team.policy, hidden, seen.observations, seen.action_mask)
            own = zip(game.own_actions(actions).tolist(), alive, strict=True)
            assert chosen == [action if there else None for action, there in own]


ONE_BY_ONE = [
    {"grey": True}, {"resize": (2, 3)}, {"frame_stack": 3}, {"normalise_observations": True},
    {"layer_norm": True},
]  # fmt: skip


SETTINGS = [pytest.param(how, id=next(iter(how)), marks=pytest.mark.slow) for how in ONE_BY_ONE] + [
    pytest.param(ALL, id="all")
]


@pytest.mark.parametrize("python", [False, True], ids=["compiled", "python"])
@pytest.mark.parametrize("name", ["ippo", "vdn"])
@pytest.mark.parametrize("how", SETTINGS)
def test_an_interrupted_training_goes_on_to_the_same_numbers(how, name, python, tmp_path):
    if python and how not in (ALL, {"frame_stack": 3}):
        pytest.skip("what is remembered is elsewhere only with stacked frames")
    environment = PythonCamera if python else Camera()
    options: Any = {"environment": environment}
    more = {"python_env": PythonEnvSettings(workers=0)} if python else {}
    algorithm = small(name, recurrent=name == "vdn", reward_scaling="scale", **how)
    algorithm = dataclasses.replace(algorithm, **(
        {"rollout_steps": 5} if name == "ippo" else {}
    )).resolve(400, 3)  # fmt: skip
    trained(algorithm, tmp_path / "whole", environment, 400, reward="sum", **more)
    trained(algorithm, tmp_path / "parts", environment, 200, reward="sum", **more)
    coterie.resume(tmp_path / "parts", steps=400, **options)
    whole, parts = (
        jax.tree.leaves(coterie.load(tmp_path / out, which="last").policy)
        for out in ("whole", "parts")
    )
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


def test_off_nothing_is_said_or_kept(tmp_path):
    run = trained(small("ippo"), tmp_path / "run")
    about = json.loads((run / "policy" / "policy.json").read_text())
    assert not about.keys() & {"layer_norm", "normalise_observations", "preprocessing"}
    state = jax.eval_shape(lambda k: init(small("ippo"), Game(Camera()), k), jax.random.key(0))
    assert state.learner.normaliser is None
    assert state.vector.state.frames is None
    assert state.learner.actor.networks.body.norms == ()


@pytest.mark.parametrize(
    ("settings", "environment", "says"),
    [
        ({"grey": True}, "matrix/climbing", "--grey is for RGB images of bytes"),
        ({"resize": (2, 2)}, "matrix/climbing", "--resize is for images of bytes"),
        ({"resize": (4, 7)}, Camera(), "one here is 4 x 6: choose at most that"),
        ({"resize": (3, 6), "frame_stack": 2}, Camera(), r"\(3, 6, 6\), whose channels could"),
        ({"torso": "grid", "resize": (2, 3)}, Camera(), "at least 5 x 5; one here is 2 x 3"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(settings, environment, says, tmp_path):
    with pytest.raises(UsageError, match=says) as refusal:
        coterie.train(
            small("ippo", **settings), environment, 64, out=tmp_path / "run", reward="sum"
        )
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frame_stack": 0}, "frame_stack must be a whole number from 1 to 64; got 0"),
        ({"resize": (2,)}, "resize must be 2 values"),
        ({"resize": (0, 3)}, "resize must be 2 values"),
    ],
)
def test_settings_have_their_ranges(settings, says):
    with pytest.raises(UsageError, match=says):
        small("vdn", **settings)


def test_pixels_alone_have_no_statistics(tmp_path):
    class Pixels(Camera):
        def spec(self):
            spaces = (ObservationSpace.of((4, 6, 3), "uint8"),) * 2
            return dataclasses.replace(super().spec(), observation_sizes=(), observations=spaces)

        def shown(self, state, rewards):
            shown = super().shown(state, rewards)
            return dataclasses.replace(shown, observations=shown.observations[0])

    with pytest.raises(UsageError, match="agents observe pixels only"):
        trained(small("vdn", normalise_observations=True), tmp_path / "run", Pixels())


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm": 1}, {"normalise_observations": "yes"}, {"preprocessing": []},
        {"preprocessing": {"frame_stack": 0}}, {"preprocessing": {"frame_stack": 10**12}},
        {"preprocessing": {"resize": [10**9, 3]}}, {"preprocessing": {"resize": [3]}},
        {"preprocessing": {"resize": [4, 7]}}, {"preprocessing": {"colour": True}},
        {"preprocessing": {"grey": None}},
    ],
    ids=str,
)  # fmt: skip
def test_policy_files_that_say_something_impossible_are_refused(change, trained_camera, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_camera, run)
    path = run / "policy" / "policy.json"
    about = json.loads(path.read_text()) | change
    path.write_text(json.dumps(seal({k: v for k, v in about.items() if k != "digest"})))
    with pytest.raises(UsageError, match="is damaged"):
        coterie.load(run)


@pytest.fixture(scope="module")
def trained_camera(tmp_path_factory):
    out = tmp_path_factory.mktemp("camera") / "run"
    return trained(small("vdn", **ALL), out, Camera(), 64)


def test_flags_reach_the_configuration(trained_camera, tmp_path):
    settings = json.loads((trained_camera / "config.json").read_text())["settings"]
    assert (settings["resize"], settings["frame_stack"]) == ([2, 3], 2)
    command = ["train", "vdn", "matrix/climbing", "--steps", "64", "--out", str(tmp_path / "run"),
               "--frame-stack", "2", "--normalise-observations", "--layer-norm", "--hidden", "4",
               "--learning-starts", "16", "--seeds", "1", "--evaluations", "1",
               "--final-episodes", "0"]  # fmt: skip
    assert main(command) == 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["frame_stack"], settings["normalise_observations"]) == (2, True)
    assert settings["layer_norm"] is True
    assert main([*command[:3], "--resize", "2", "3", "--steps", "9"]) == 2
