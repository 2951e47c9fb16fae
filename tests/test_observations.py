"""Images and observations of several arrays: layouts, convolutions, environments, files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.spaces import Tuple as TupleSpace

import coterie
from coterie.algorithms import algorithms, make
from coterie.envs.base import Environment
from coterie.errors import EnvironmentFault, NotFinite, UsageError
from coterie.learners.experience import blank_rollout
from coterie.networks.per_agent import PerAgent
from coterie.networks.torsos import Convolution, Impala, Plain, Torso, refusal
from coterie.ops.observations import flat, joined, split
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.workers.worker import make_rows
from coterie.runs.environments import open_environment
from coterie.spec import EnvSpec, ObservationSpace, TimeStep
from coterie.storage.files import seal
from coterie.views.game import Game

IMAGE = ObservationSpace.of((6, 6, 1), "uint8")
BOTH = ObservationSpace(((2,), (5, 7, 3), (1, 2)), ("float32", "uint8", "float32"))
FLOATS = ObservationSpace(((6, 6, 2), (3,)), ("float32",) * 2)


# Layouts -----------------------------------------------------------------------------------------


def arrays_of(space, *lead):
    rng = np.random.default_rng(1)
    return [
        rng.integers(0, 256, (*lead, *shape)).astype(np.uint8)
        if dtype == "uint8"
        else rng.normal(scale=1e30, size=(*lead, *shape)).astype(np.float32)
        for shape, dtype in zip(space.shapes, space.dtypes, strict=True)
    ]


@pytest.mark.parametrize("space", [IMAGE, BOTH, FLOATS])
def test_what_is_laid_out_is_read_back_to_the_bit(space):
    given = arrays_of(space, 4)
    row = flat(tuple(given) if len(given) > 1 else given[0], space, 4)
    assert row.shape == (4, space.size)
    assert row.dtype == space.dtype
    for x, y in zip(given, split(row, space), strict=True):
        if x.dtype == np.uint8:
            np.testing.assert_allclose(x / 255, y, rtol=1e-6)
        else:
            np.testing.assert_array_equal(x, y)


def test_sizes_by_hand():
    assert BOTH.sizes == (8, 105, 8)
    assert (FLOATS.size, FLOATS.dtype) == (75, np.float32)
    assert (IMAGE.size, IMAGE.dtype) == (36, np.uint8)
    assert str(BOTH) == "float32 (2,) and uint8 (5, 7, 3) and float32 (1, 2)"


def test_floats_beside_bytes_become_bytes_and_alone_stay():
    ids, row = jnp.eye(2), jnp.zeros((2, 3), jnp.uint8)
    assert joined([row, ids]).shape == (2, 11)
    assert joined([ids, ids]).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make_space", "says"),
    [
        (lambda: ObservationSpace.of((0, 3)), "positive sizes"),
        (lambda: ObservationSpace(((2,),), ("int8",)), "uint8 or float32"),
        (lambda: ObservationSpace(((2,), (3,)), ("uint8",)), "uint8 or float32"),
        (lambda: EnvSpec(("a", "b"), observations=(IMAGE, BOTH), action_counts=(2, 2)), "same sh"),
        (lambda: EnvSpec(("a",), (7,), (2,), observations=(IMAGE,)), "are not those of the spaces"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(make_space, says):
    with pytest.raises(UsageError, match=says):
        make_space()


# Convolutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "same"), [(8, 4, False), (4, 2, False), (3, 1, False), (3, 1, True)]
)
def test_convolutions_are_those_of_xla(kernel, stride, same):
    x = jax.random.normal(jax.random.key(0), (2, 21, 18, 3))
    ours = Convolution(kernel, 3, 5, jax.random.key(1), stride, same)
    ours = eqx.tree_at(lambda c: c.bias, ours, jnp.arange(5.0))
    weight = np.asarray(ours.weight).reshape(-1, 5)
    if stride > 1:  # patches hold blocks of pixels: block, place within it, channel
        blocks = kernel // stride
        weight = weight.reshape(blocks, blocks, stride, stride, 3, 5)
        weight = weight.transpose(0, 2, 1, 3, 4, 5)
    weight = weight.reshape(kernel, kernel, 3, 5)
    theirs = jax.lax.conv_general_dilated(
        x, weight, (stride, stride), "SAME" if same else "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(ours(x), theirs + np.arange(5), rtol=1e-4, atol=1e-4)


def test_the_torso_is_chosen_by_the_shape():
    def layers(shape, name="auto"):
        return Torso(ObservationSpace.of(shape), name, jax.random.key(0)).images[0]

    assert len(layers((84, 84, 4)).layers) == 3  # Nature
    assert len(layers((35, 40, 3)).layers) == 2
    assert layers((4, 9, 3)) is None
    assert layers((12,)) is None
    assert isinstance(layers((8, 8), "impala"), Impala)
    assert layers((84, 84), "flat") is None
    first = layers((3, 11, 11))
    assert isinstance(first, Plain)
    assert first.layers[0].weight.shape == (9 * 3, 16), "channels come first"
    assert (
        Torso(ObservationSpace.of((84, 84, 4)), "nature", jax.random.key(0)).features == 7 * 7 * 64
    )


def test_impalas_residual_layers_all_learn():
    torso = Torso(ObservationSpace.of((9, 12, 3), "uint8"), "impala", jax.random.key(0))
    x = jax.random.randint(jax.random.key(1), (2, 324), 0, 256).astype(jnp.uint8)
    assert torso(x).shape == (2, 2 * 2 * 32)  # 9 x 12, 5 x 6, 3 x 3, 2 x 2
    gradient = eqx.filter_grad(lambda t: jnp.mean(t(x) ** 2))(torso)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_channels_first_and_last_see_the_same():
    first = ObservationSpace.of((3, 11, 11))
    torso = Torso(first, "grid", jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 3, 11, 11))
    (layers,) = torso.images
    expected = layers(jnp.moveaxis(x, 1, -1)).reshape(2, -1)
    np.testing.assert_allclose(torso(x.reshape(2, -1)), expected, rtol=1e-6)


def test_the_first_features_are_as_large_as_the_image():
    """With weights of deviation √2/√inputs and ReLUs, squares keep their mean."""
    x = jax.random.normal(jax.random.key(1), (8, 84, 84, 4))
    torso = Torso(ObservationSpace.of((84, 84, 4)), "nature", jax.random.key(0))
    features = torso(x.reshape(8, -1))
    assert 0.5 < float(jnp.mean(features**2) / jnp.mean(x**2)) < 1.5


@pytest.mark.parametrize(
    ("shapes", "name", "says"),
    [
        (((7,),), "nature", "for images of the same shape"),
        (((7,), (35, 90, 3)), "nature", "at least 36 x 36; one here is 35 x 90"),
        (((7, 90),), "impala", "at least 8 x 8"),
        (((40, 40),), "impala", None),
        (((4, 4),), "auto", None),
    ],
)
def test_torsos_that_cannot_be_are_refused_in_a_sentence(shapes, name, says):
    told = refusal([ObservationSpace(shapes, ("float32",) * len(shapes))], name)
    assert (told is None) if says is None else says in told


def test_agents_that_share_a_torso_are_told_apart():
    networks = PerAgent((0, 0), IMAGE.size, 3, (8,), jax.random.key(0), space=IMAGE)
    same = jnp.full((2, IMAGE.size), 200, jnp.uint8)
    out, _ = networks.step(networks.initial_hidden_state(), same, jnp.zeros(2, bool))
    assert not np.allclose(out[0], out[1])


# Environments of ours ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bright(Environment):
    """Two agents see an image of noise, half of it brighter; the right action names that half.

    With hints they see another array, which says whether the action must be the other one.
    """

    hints: bool = False
    rounds: int = 4

    def spec(self):
        space = IMAGE
        if self.hints:
            space = ObservationSpace(((6, 6, 1), (1,)), ("uint8", "float32"))
        return EnvSpec(
            agents=("a", "b"),
            action_counts=(2, 2),
            time_limit=self.rounds,
            reward="mean",
            observations=(space, space),
        )

    def reset(self, key):
        state = jax.random.bernoulli(key, shape=(2, 2)).astype(jnp.int32)
        return state, self._shown(key, state, jnp.zeros(2))

    def step(self, key, state, actions):
        right = state[0] ^ state[1] if self.hints else state[0]
        after = jax.random.bernoulli(key, shape=(2, 2)).astype(jnp.int32)
        return after, self._shown(key, after, jnp.full(2, jnp.mean(actions == right)))

    def _shown(self, key, state, rewards):
        noise = jax.random.randint(key, (2, 6, 6, 1), 0, 100)
        half = (jnp.arange(6) // 3)[None, None, :, None] == state[0][:, None, None, None]
        image = (noise + 100 * half).astype(jnp.uint8)
        seen = (image, 2.0 * state[1][:, None] - 1) if self.hints else image
        never = jnp.zeros((), bool)
        return TimeStep(seen, rewards, never, never)


QUICK = {
    "gamma": 0.5, "environments": 8, "hidden": (16,), "buffer_size": 2000, "learning_starts": 200,
    "epsilon_steps": 4000, "batch_size": 32, "lr": 2e-3, "mixer_embedding": 8, "hyper_hidden": 8,
}  # fmt: skip


def quick(name, **settings):
    known = {*make(name).__dataclass_fields__}
    return make(name, **{k: v for k, v in (QUICK | settings).items() if k in known})


@pytest.mark.parametrize("name", algorithms())
def test_every_algorithm_learns_from_images(name, tmp_path):
    hints = name in ("ippo", "vdn", "mappo")
    steps = {"reinforce": 40_000, "coma": 40_000, "pac": 40_000}.get(name, 16_000)
    entropy = {"entropy": 0.01, "entropy_end": None, "target_tau": 0.1} if name == "pac" else {}
    algorithm = quick(name, **entropy)
    run = coterie.train(algorithm, Bright(hints), steps, out=tmp_path / "run", central="joint"
                        if algorithm.central else None)  # fmt: skip
    found = run.evaluate(episodes=100, which="last")
    assert found["eval/return/team_mean"]["mean"] > 3.4  # of 4; by chance 2


@pytest.mark.parametrize("name", ["qmix", "mappo"])
def test_an_interrupted_training_goes_on_to_the_same_numbers(name, tmp_path):
    def train(steps, out):
        algorithm = quick(name, recurrent=True, sharing="own", epsilon_steps=1000)
        return coterie.train(algorithm, Bright(True), steps, out=tmp_path / out, central="joint")

    train(2048, "whole")
    train(1024, "parts")
    coterie.resume(tmp_path / "parts", steps=2048, environment=Bright(True))
    teams = [coterie.load(tmp_path / out, which="last").policy for out in ("whole", "parts")]
    for a, b in zip(*map(jax.tree.leaves, teams), strict=True):
        np.testing.assert_array_equal(a, b)


def test_replay_holds_bytes():
    rollout = blank_rollout(Game(Bright(), central="joint"), 3, 0)
    for x, size in ((rollout.observations, 36), (rollout.next_central, 72)):
        assert x.dtype == jnp.uint8
        assert x.shape[-1] == size


def test_too_large_a_replay_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(UsageError, match=r"this needs .* GB, but only .* free: .*buffer"):
        coterie.train(make("vdn", buffer_size=10**9), Bright(), 100_000, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_shapes_are_refused_in_a_sentence():
    class Wrong(Bright):
        def _shown(self, key, state, rewards):
            seen = super()._shown(key, state, rewards)
            return TimeStep(seen.observations[:, 1:], rewards, seen.terminated, seen.truncated)

    with pytest.raises(UsageError, match=r"arrays of shapes \(2, 6, 6, 1\), agents first; got"):
        Game(Wrong()).trace()


# Environments of others --------------------------------------------------------------------------

PICTURE = Box(0, 255, (6, 6, 3), np.uint8)
HINT = Box(-1.0, 1.0, (2,), np.float32)


class Signs:
    """A PettingZoo environment; what its agents see is of the space that is given."""

    possible_agents = ("a", "b")
    metadata = {"name": "signs"}  # noqa: RUF012

    def __init__(self, **spaces):
        self.spaces = spaces

    def observation_space(self, agent):
        return self.spaces[agent]

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = ["a", "b"], 0
        self.rng = np.random.default_rng(seed)
        return self._seen(), {}

    def step(self, actions):
        paid = {a: float(actions[a] == self.side[a]) for a in self.agents}
        self.t += 1
        over, never = dict.fromkeys(self.agents, self.t == 4), dict.fromkeys(self.agents, False)
        seen = self._seen()
        self.agents = [] if self.t == 4 else self.agents
        return seen, paid, never, over, {}

    def _seen(self):
        self.side = {a: int(self.rng.integers(2)) for a in self.agents}
        return {a: self._of(self.spaces[a], self.side[a]) for a in self.agents}

    def _of(self, space, side):
        if isinstance(space, Dict):
            return {k: self._of(part, side) for k, part in space.spaces.items()}
        if isinstance(space, TupleSpace):
            return tuple(self._of(part, side) for part in space.spaces)
        noise = self.rng.random(space.shape)
        if space.dtype != np.uint8:
            return noise.astype(space.dtype)
        image = (100 * noise).astype(np.uint8)
        image[:, 3 * side : 3 * side + 3] += 100
        return image


def images():
    return Signs(a=PICTURE, b=PICTURE)


def pictures_and_hints():
    space = Dict({"picture": PICTURE, "hint": HINT})
    return Signs(a=space, b=space)


def test_spaces_with_images_keep_their_shapes_and_the_rest_are_vectors():
    def spec(a, b=None, **how):
        return PythonEnv(Signs(a=a, b=b or a), **how).spec

    assert spec(PICTURE).observations == (ObservationSpace.of((6, 6, 3), "uint8"),) * 2
    both = ObservationSpace(((2,), (6, 6, 3)), ("float32", "uint8"))
    named = dataclasses.replace(both, names=("hint", "picture"))  # a Dict is sorted by key
    assert spec(Dict({"picture": PICTURE, "hint": HINT})).observations[0] == named
    assert spec(TupleSpace((HINT, PICTURE))).observations[0] == both
    grid = Box(0.0, 1.0, (5, 6, 4), np.float32)
    assert spec(grid).observations[0] == ObservationSpace.of((5, 6, 4))
    for plain in (HINT, Box(0.0, 1.0, (9, 5), np.float32), Box(0, 1, (3, 3, 2), np.int8)):
        assert spec(plain).observations == ()
    for vectors in (spec(PICTURE, HINT), spec(PICTURE, arrays=False)):
        assert vectors.observations == ()
        assert vectors.observation_sizes[0] == 108


def test_what_an_environment_shows_comes_through_unchanged():
    env = PythonEnv(pictures_and_hints())
    seen = env.reset(3)
    shown = env.shown.observations
    assert seen.observations.dtype == np.uint8
    for row, own in zip(seen.observations, shown, strict=True):
        hint, picture = split(jnp.asarray(row), env.spec.observations[0])
        np.testing.assert_array_equal(hint, own["hint"])
        np.testing.assert_allclose(picture, own["picture"] / 255, rtol=1e-6)


def test_rows_between_processes_hold_bytes():
    spec = PythonEnv(images()).spec
    assert make_rows(spec, 3).start.observations.dtype == np.uint8
    assert make_rows(spec, 3).start.observations.nbytes == 3 * 2 * 108


def test_a_hint_that_is_not_finite_is_the_environments_fault():
    whole = Signs._of
    space = Dict({"picture": PICTURE, "hint": HINT})

    class Broken(Signs):
        def _of(self, space, side):
            seen = whole(self, space, side)
            if isinstance(space, Dict):
                seen["hint"][1] = np.nan
            return seen

    with pytest.raises(EnvironmentFault, match="NaN or infinity"):
        PythonEnv(Broken(a=space, b=space)).reset(0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("images") / "run"
    options = {"python_env": coterie.PythonEnvSettings(workers=0)}
    algorithm = quick("ippo", sharing="own", rollout_steps=8)
    # With some other seeds one of the agents has learned nothing after so few steps.
    coterie.train(algorithm, pictures_and_hints, 8000, seed=2, out=out, **options)
    return out


def test_a_team_acts_on_what_its_environment_shows(trained):
    team = coterie.load(trained)
    env = pictures_and_hints()
    seen, _ = env.reset(5)
    right = total = 0
    for _ in range(40):
        actions, _ = team.act(seen, team.initial_hidden_state())
        right += sum(actions[a] == env.side[a] for a in env.agents)
        total += 2
        seen, *_ = env.step(actions)
        if not env.agents:
            seen, _ = env.reset()
    assert right > 0.8 * total
    listed, _ = team.act([seen["a"], seen["b"]], team.initial_hidden_state())
    assert len(listed) == 2
    with pytest.raises(UsageError, match="agent a: the observation has no 'hint'"):
        team.act([np.zeros(108)] * 2, team.initial_hidden_state())


@pytest.fixture(scope="module")
def without_spaces(trained, tmp_path_factory):
    """The run as it was before policy files described the environment's spaces."""
    out = tmp_path_factory.mktemp("before") / "run"
    shutil.copytree(trained, out)
    path = out / "policy" / "policy.json"
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("spaces", "digest")}
    path.write_text(json.dumps(seal(kept)))
    return out


def test_arrays_are_read_alike_without_the_environments_spaces(trained, without_spaces):
    now, before = coterie.load(trained), coterie.load(without_spaces)
    seen, _ = pictures_and_hints().reset(3)
    rows = [team._input.read(seen, None).observations for team in (now, before)]
    np.testing.assert_array_equal(*rows)
    with pytest.raises(UsageError, match="must be a dict with hint, picture; got ndarray"):
        before.act([np.zeros(108)] * 2, before.initial_hidden_state())


def test_an_interrupted_training_in_a_python_environment_goes_on(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    coterie.resume(tmp_path / "run", steps=8512, environment=pictures_and_hints)
    assert coterie.load(tmp_path / "run", which="last").env_steps >= 8512


def test_a_run_of_version_0_1_sees_vectors_as_it_did(tmp_path):
    """Its configuration names no observation spaces."""
    out, settings = tmp_path / "run", coterie.PythonEnvSettings(workers=0)
    vectors, _ = open_environment(images, {}, settings, arrays=False)
    coterie.train(quick("ippo"), vectors, 256, out=out, python_env=settings)
    assert "observations" not in json.loads((out / "config.json").read_text())["sizes"]
    run = coterie.open_run(out, environment=images)
    assert run.game.players.observations == ()
    assert run.evaluate(episodes=4, environment=images)["eval/length"]["mean"] == 4
    coterie.resume(out, steps=512, environment=images)
    assert coterie.load(out, which="last").observation_sizes == (108, 108)


def test_pixels_that_are_no_bytes_are_refused(trained, without_spaces):
    class Scaled(Signs):
        def _of(self, space, side):
            return super()._of(space, side).astype(np.float32) / 255

    with pytest.raises(EnvironmentFault, match="float32, but its space is of bytes from 0 to 255"):
        PythonEnv(Scaled(a=PICTURE, b=PICTURE)).reset(0)

    class Floats(Bright):
        def _shown(self, key, state, rewards):
            step = super()._shown(key, state, rewards)
            return dataclasses.replace(step, observations=step.observations / 255)

    with pytest.raises(UsageError, match="must be uint8 arrays; got float32"):
        Game(Floats()).trace()
    seen, _ = pictures_and_hints().reset(0)
    for run, words in ((trained, "its space is of bytes from 0 to 255"),
                       (without_spaces, "of whole numbers from 0 to 255; got")):  # fmt: skip
        team = coterie.load(run)
        for wrong in (0.5, np.nan, -1, 300):
            seen["b"]["picture"] = np.full((6, 6, 3), wrong)
            with pytest.raises(UsageError, match=f"agent b: .*{words}"):
                team.act(seen, team.initial_hidden_state())


def test_arrays_are_found_by_their_names(without_spaces):
    """In whatever order a dict holds them."""
    team = coterie.load(without_spaces)
    seen, _ = pictures_and_hints().reset(0)
    turned = {a: dict(reversed(own.items())) for a, own in seen.items()}
    assert list(turned["a"]) != list(seen["a"])
    one, other = (team._input.read(given, None).observations for given in (seen, turned))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, PythonEnv(pictures_and_hints()).reset(0).observations)
    del turned["b"]["hint"]
    with pytest.raises(UsageError, match="a dict with hint, picture; got picture"):
        team.act(turned, team.initial_hidden_state())
    with pytest.raises(UsageError, match="arrays of numbers; got"):
        team.act([{"hint": None, "picture": [[1], [2, 3]]}] * 2, team.initial_hidden_state())


def test_an_empty_part_beside_an_image_is_left_out():
    space = Dict({"picture": PICTURE, "nothing": Box(0.0, 1.0, (0,), np.float32)})
    (found, _) = PythonEnv(Signs(a=space, b=space)).spec.observations
    assert found == ObservationSpace(((6, 6, 3),), ("uint8",), ("picture",))


def test_a_hint_of_ours_that_is_not_finite_is_named(tmp_path):
    class Broken(Bright):
        def _shown(self, key, state, rewards):
            step = super()._shown(key, state, rewards)
            image, hint = step.observations
            hint = jnp.where(jnp.arange(2)[:, None] == 1, jnp.nan, hint)
            return dataclasses.replace(step, observations=(image, hint))

    with pytest.raises(NotFinite, match="the observation of b is not finite"):
        coterie.train(quick("ippo"), Broken(True), 1000, out=tmp_path / "run")
    report = coterie.check_env(Broken(True))
    assert any("NaN or infinity" in str(finding) for finding in report.findings)


def test_teams_are_told_what_other_environments_show(trained):
    run = coterie.open_run(trained, environment=pictures_and_hints)
    with pytest.raises(UsageError, match=r"observes hint .* but .* shows uint8 \(6, 6, 3\)"):
        run.evaluate(episodes=1, environment=images)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("observation_spaces", []),
        ("observation_spaces", "Box"),
        ("observation_spaces", [{"shapes": [[6, 6, 3]], "dtypes": ["uint8"], "names": []}] * 2),
        (
            "observation_spaces",
            [{"shapes": [[2], [-6, 6, 3]], "dtypes": ["float32", "uint8"], "names": []}] * 2,
        ),
        (
            "observation_spaces",
            [{"shapes": [[2], [6, 6, 3]], "dtypes": ["float32", "int8"], "names": []}] * 2,
        ),
        (
            "observation_spaces",
            [{"shapes": [[2.0], [6, 6, 3]], "dtypes": ["float32"] * 2, "names": []}] * 2,
        ),
        ("observation_sizes", [7, 7]),
        ("torso", "nature"),
        ("torso", "none"),
        ("torso", None),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(key, value, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "policy" / "policy.json"
    described = json.loads(path.read_text())
    assert key in described
    path.write_text(json.dumps(seal(described | {key: value})))
    with pytest.raises(UsageError):
        coterie.load(tmp_path / "run")


def test_a_torso_that_does_not_fit_is_refused_by_the_training(tmp_path):
    with pytest.raises(UsageError, match="--torso nature takes images of at least 36 x 36"):
        coterie.train("ippo", Bright(), 100, settings={"torso": "nature"}, out=tmp_path / "run")
    with pytest.raises(UsageError, match="for images of the same shape"):
        coterie.train("ippo", "matrix/climbing", 100, settings={"torso": "impala"})
