"""Torsos of the user's own: built, called, trained, kept in files, given again, refused."""

import functools
import json
import os
import shutil
import signal
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import own_nets
import pytest
from own_nets import WIDTH, Net, Recall
from probes import Walk, game_for, small

import coterie
from coterie.algorithms import algorithms
from coterie.cli import main
from coterie.errors import Interrupted, UsageError
from coterie.networks.own import OwnNetwork, OwnTorso
from coterie.networks.per_agent import PerAgent
from coterie.ops.observations import joined
from coterie.runs.learner import learner
from coterie.spec import ObservationSpace
from coterie.storage.files import seal
from coterie.training import loop as training

SPACE = ObservationSpace.of((5,))
TINY = {
    "recurrent": True, "environments": 8, "hidden": (8,), "rollout_steps": 8, "minibatches": 1,
    "epochs": 1, "lr": 0.01,
}  # fmt: skip
STEPS = 4096


def networks(index, torso, recurrent=False, space=SPACE):
    return PerAgent(
        index, space.size, 3, (4,), jax.random.key(0), recurrent, space=space, torso=torso
    )


def by_hand(policy, agent, features):
    """The layers behind the torso, of one agent's network."""
    g = policy.index[agent]
    if any(policy.identify):
        ids = np.eye(len(policy.index), dtype=np.float32)[agent] * policy.identify[agent]
        features = np.concatenate([features, ids])
    first, last = policy.networks.body.layers
    hidden = np.maximum(features @ first.weight[g] + first.bias[g], 0)
    return hidden @ last.weight[g] + last.bias[g]


@pytest.mark.parametrize("index", [(0, 1, 2), (0, 0, 0), (0, 0, 1)], ids=["own", "shared", "group"])
def test_each_agent_goes_through_its_own_network(index):
    policy = networks(index, Net)
    assert policy.networks.torso.features == WIDTH + 3 * any(policy.identify)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5))
    outputs, hidden = policy.step(policy.initial_hidden_state(2), x, jnp.zeros((2, 3), bool))
    assert hidden.shape == (2, 3, 0)
    parameters = policy.networks.torso.parameters
    assert parameters.keys() == {"layer/weight", "layer/bias"}
    for b in range(2):
        for i in range(3):
            w, shift = (parameters[f"layer/{name}"][index[i]] for name in ("weight", "bias"))
            features = np.maximum(w @ x[b, i] + shift, 0)
            np.testing.assert_allclose(outputs[b, i], by_hand(policy, i, features), atol=1e-5)


def test_a_hidden_state_of_its_own_starts_anew_with_every_episode():
    policy = networks((0, 1), Recall, recurrent=True)
    assert policy.networks.gru is None
    h = policy.initial_hidden_state(1)
    assert h.shape == (1, 2, WIDTH + 1)
    x = jax.random.normal(jax.random.key(1), (4, 1, 2, 5))
    start = jnp.zeros((4, 1, 2), bool).at[2, 0, 1].set(True)
    outputs, hidden_states = policy.unroll(h, x, start)
    parameters = policy.networks.torso.parameters
    for i in range(2):
        total, steps = np.ones(WIDTH), 0
        for t in range(4):
            if start[t, 0, i]:
                total, steps = np.ones(WIDTH), 0
            total = np.tanh(parameters["weight"][i] @ x[t, 0, i] + 0.5 * total)
            steps += 1
            np.testing.assert_allclose(outputs[t, 0, i], by_hand(policy, i, total), atol=1e-5)
            state = np.r_[steps, total]  # names in order
            np.testing.assert_allclose(hidden_states[t, 0, i], state, atol=1e-5)


def test_the_first_hidden_state_is_learned():
    policy = networks((0, 1), Recall, recurrent=True)
    x, start = jnp.ones((3, 1, 2, 5)), jnp.zeros((3, 1, 2), bool).at[1].set(True)

    def loss(policy):
        return jnp.sum(policy.unroll(jnp.zeros((1, 2, WIDTH + 1)), x, start)[1])

    gradient = eqx.filter_grad(loss)(policy).networks.torso.parameters
    assert all(np.abs(gradient["first"]).sum(-1) > 0)


def test_images_come_as_floats_and_ids_do_not():
    space = ObservationSpace(((2, 3), (4,)), ("uint8", "float32"))
    seen = []

    class Looks(Net):
        def __init__(self, space, key):
            seen.append(space)
            super().__init__(space, key)

        def __call__(self, observation):
            return observation

    policy = networks((0, 0), Looks, space=space)
    assert seen[0].shapes == space.shapes
    assert set(seen[0].dtypes) == {"float32"}
    pixels, floats = np.arange(6, dtype=np.uint8), np.float32([0.5, -1e9, 3.0, 0.0])
    row = joined([jnp.asarray(pixels), jnp.asarray(floats), jnp.asarray([1.0, 0.0])])
    one = jax.tree.map(lambda x: x[0], policy.networks.torso)
    np.testing.assert_allclose(one(row), [*(pixels / 255), *floats, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("name", algorithms())
def test_every_algorithm_takes_one_for_actors_and_critics(name):
    algorithm = small(name, torso=Net)
    assert algorithm.settings()["torso"] == "own_nets:Net"
    assert json.dumps(algorithm.settings())
    game = game_for(algorithm, Walk())
    made = jax.eval_shape(lambda key: algorithm.init(key, game), jax.random.key(0))
    torso = algorithm.policy(made).networks.torso
    assert isinstance(torso, OwnTorso)
    assert torso.space.shapes == ((game.spec.observation_size,),)
    critic = getattr(made, "critic", None)
    if critic is not None and algorithm.central:
        first, z, *_ = critic.networks.torso.space.shapes
        assert (first, z) == ((game.spec.observation_size,), (game.central_size,))


@pytest.mark.parametrize("name", ["idqn", "qmix", "coma", "central_a2c"])
def test_a_hidden_state_of_its_own_goes_through_rollouts_replay_and_updates(name):
    """Traced: the state that comes out of training is like the one that went in."""
    algorithm = small(name, torso=Recall, recurrent=True)
    program = training.Program(algorithm, game_for(algorithm, Walk()), 1, 4)
    state = program.template()
    assert state.hidden_state.shape[-1] == WIDTH + 1
    schedules = algorithm.schedules(np.arange(program.chunk, dtype=np.int64))
    after, *_ = jax.eval_shape(
        functools.partial(program._run_chunk, program.algorithm), state, schedules, np.int32(1)
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)


# Refusals ----------------------------------------------------------------------------------------


class Wrong(Net):
    def __call__(self, observation):
        return observation[:, None]


class Flags(Net):
    def __call__(self, observation):
        return observation > 0


class Raises(Net):
    def __call__(self, observation):
        raise KeyError("the door")


class Counts(eqx.Module):
    order: jax.Array

    def __init__(self, space, key):
        self.order = jnp.arange(3)

    def __call__(self, observation):
        return observation


class Twice(eqx.Module):
    """Two parameters whose paths are written alike."""

    parts: dict

    def __init__(self, space, key):
        self.parts = {"x/y": jnp.zeros(2), "x": {"y": jnp.ones(2)}}

    def __call__(self, observation):
        return observation


class Forgets(Recall):
    def __call__(self, observation, hidden_state):
        return observation


class Changes(Recall):
    def __call__(self, observation, hidden_state):
        return observation, hidden_state["sum"]


@pytest.mark.parametrize(
    ("torso", "recurrent", "says"),
    [
        (lambda space, key: 3, False, r"<lambda> must build an Equinox module .* built a int"),
        (lambda space: 3, False, r"raised as it was built: TypeError: .*2 were given"),
        (Wrong, False, r"one vector of floats .* returned float32 \(5, 1\)"),
        (Flags, False, r"one vector of floats .* returned bool \(5,\)"),
        (Raises, False, r"float32 \(5,\): KeyError: 'the door' \(test_own_networks.py, line \d+\)"),
        (Counts, False, "holds order, an array of int32"),
        (Twice, False, "holds two parameters whose path is parts/x/y: rename one"),
        (Forgets, True, r"must return \(features, hidden state\); it returned float32 \(5,\)"),
        (Changes, True, r"a hidden state like its initial one, a dict .* returned float32 \(6,\)"),
        (Recall, False, r"has a hidden state, .* \(--recurrent\)"),
    ],
)
def test_what_is_no_torso_is_refused_in_a_sentence(torso, recurrent, says):
    with pytest.raises(UsageError, match=says) as raised:
        networks((0, 1), torso, recurrent)
    assert "\n" not in str(raised.value)
    if torso is Raises:
        assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("torso", "says"),
    [
        ("natur", "torso must be auto, .* or module:Name of a network of your own; got 'natur'"),
        (3, "torso must be auto"),
        (None, "torso must be auto"),
        (Net(SPACE, jax.random.key(0)), "give the class Net"),
        ("nowhere.to:Net", "there is no module nowhere"),
        ("own_nets:Nett", "own_nets has no Nett; did you mean Net"),
        ("own_nets:NUMBER", "NUMBER of own_nets is not callable"),
        ("raises_at_once:Net", "raised as it was imported: RuntimeError: no"),
        ("a b:Net", "not the name of a module"),
    ],
)
def test_what_cannot_be_found_is_refused_in_a_sentence(torso, says, tmp_path, monkeypatch):
    (tmp_path / "raises_at_once.py").write_text("raise RuntimeError('no')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=says):
        coterie.train("ippo", "matrix/climbing", 100, settings={"torso": torso})


def test_paths_that_lead_nowhere_are_known_to():
    paths = [OwnNetwork.read(make) for make in (Net, lambda: 0, functools.partial(Net, width=3))]
    assert [p.importable for p in paths] == [True, False, False]
    assert paths[0].path == "own_nets:Net"
    assert paths[2].path == "own_nets:Net(...)"


# In runs -----------------------------------------------------------------------------------------


def train(out=None, steps=STEPS, torso=Recall):
    return coterie.train(
        "ippo", "matrix/climbing", steps, settings=TINY | {"torso": torso}, out=out,
        evaluations=2, evaluation_episodes=4, final_episodes=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("own") / "run")


def arrays(run):
    return {name: jax.tree.leaves(policy) for name, policy in run.policies.items()}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, arrays(a), arrays(b))


def test_it_learns_and_is_opened_as_it_was(run):
    """Random play gets less than -2 for each agent."""
    assert run.metrics["eval_sampled/return/team_mean"]["mean"] > 4
    assert (
        json.loads((run.path / "config.json").read_text())["settings"]["torso"] == "own_nets:Recall"
    )
    for torso in (Recall, "own_nets:Recall"):
        again = coterie.open_run(run.path, torso=torso)
        assert_same(run, again)
        assert again.evaluate(4) == run.evaluate(4)
    same = jax.tree.leaves(learner(again)), jax.tree.leaves(learner(run))
    jax.tree.map(np.testing.assert_array_equal, *same)


def test_a_loaded_team_acts_as_the_trained_one(run):
    team = coterie.load(run.path, which="last", torso=Recall)
    policy = jax.tree.map(lambda x: x[0], run.policies["last"])
    h = hidden = team.initial_hidden_state()
    assert np.any(h != 0)
    for _ in range(3):
        actions, h = team.act([[1.0], [1.0]], h)
        outputs, hidden = policy.step(hidden, jnp.ones((2, 1)), jnp.zeros(2, bool))
        assert actions == np.argmax(outputs, -1).tolist()
        np.testing.assert_allclose(h, hidden, rtol=1e-5)


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(run, tmp_path, monkeypatch):
    advance = training.Program.advance

    def stopped(self, state, iteration, count):
        if iteration > STEPS // 64 // 3:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, state, iteration, count)

    monkeypatch.setattr(training.Program, "advance", stopped)
    with pytest.raises(Interrupted, match=r"resume .* --torso own_nets:Recall$") as stop:
        train(tmp_path / "run")
    assert 0 < stop.value.steps < STEPS
    monkeypatch.setattr(training.Program, "advance", advance)
    with pytest.raises(UsageError, match="give --torso own_nets:Recall"):
        coterie.resume(tmp_path / "run")
    with pytest.raises(UsageError, match="cannot be own_nets:Net"):
        coterie.resume(tmp_path / "run", torso=Net)
    assert_same(run, coterie.resume(tmp_path / "run", torso=Recall))


def test_another_network_is_refused(run, monkeypatch):
    for open_run in (coterie.open_run, coterie.load):
        with pytest.raises(UsageError, match="only if you name it: give --torso own_nets:Rec"):
            open_run(run.path)
        with pytest.raises(UsageError, match="is own_nets:Recall, and cannot be own_nets:Net"):
            open_run(run.path, torso="own_nets:Net")
        with pytest.raises(UsageError, match="torso must be"):
            open_run(run.path, torso=3)

    class Wider(Recall):
        def __init__(self, space, key):
            self.weight, self.first = jnp.ones((9, space.size)), jnp.ones(9)

    monkeypatch.setattr(own_nets, "Recall", Wider)
    for open_run in (coterie.open_run, coterie.load):
        with pytest.raises(UsageError, match=r"own_nets:Recall has other parameters .* is float32"):
            open_run(run.path, torso="own_nets:Recall")
    with pytest.raises(UsageError, match="own_nets:Recall has other parameters"):
        coterie.resume(run.path, 2 * STEPS, torso="own_nets:Recall")


def test_no_file_of_a_run_makes_anything_be_imported(run, tmp_path, monkeypatch):
    """Not even where all of them name a module that there is."""
    told = f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
    code = told + "from own_nets import Recall as Net\n"
    (tmp_path / "evil_net.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(run.path, tmp_path / "run")
    for name in ("config.json", "policy/policy.json"):
        path = tmp_path / "run" / name
        text = path.read_text().replace("own_nets:Recall", "evil_net:Net")
        path.write_text(json.dumps(seal(json.loads(text))))
    for use in (coterie.open_run, coterie.load, coterie.resume):
        with pytest.raises(UsageError, match="evil_net"):
            use(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "imported").exists()
    assert coterie.load(tmp_path / "run", torso="evil_net:Net")
    assert (tmp_path / "imported").exists()  # now that it was named
    del sys.modules["evil_net"]


def test_a_report_shows_an_episode_only_with_it(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    line = ["report", str(run.path), "--out", str(page)]
    assert main(line) == 0
    asks = "<code>--torso own_nets:Recall</code> shows an episode"
    assert asks in page.read_text()
    assert 'class="viewer"' not in page.read_text()
    assert main([*line, "--torso", "own_nets:Recall"]) == 0
    assert asks not in page.read_text()
    assert 'class="viewer"' in page.read_text()
    assert main([*line, "--torso", "own_nets:Net"]) == 2
    assert "no run has the torso own_nets:Net; theirs: own_nets:Recall" in capsys.readouterr().err


@pytest.mark.parametrize("torso", [3, "", "auto:", "nature", ["own_nets:Recall"]])
def test_a_description_of_no_torso_is_refused(run, tmp_path, torso):
    shutil.copytree(run.path, tmp_path / "run")
    path = tmp_path / "run" / "policy" / "policy.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"torso": torso})))
    with pytest.raises(UsageError):
        coterie.load(tmp_path / "run", torso=Recall)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    shutil.copy(str(own_nets.__file__), tmp_path / "their_nets.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tiny = [
        "--environments",
        "8",
        "--hidden",
        "8",
        "--rollout-steps",
        "8",
        "--minibatches",
        "1",
        "--epochs",
        "1",
    ]
    asked = [
        "--evaluations",
        "1",
        "--evaluation-episodes",
        "4",
        "--final-episodes",
        "4",
        "--out",
        "run",
    ]
    line = ["train", "ippo", "matrix/climbing", "--torso", "their_nets:Net", "--steps", "128"]
    assert main([*line, *tiny, *asked]) == 0
    said = capsys.readouterr()
    assert "coterie evaluate run --torso their_nets:Net" in said.out + said.err
    for command in (["evaluate", "run", "--episodes", "4"], ["game", "run"]):
        assert main(command) == 2
        assert "give --torso their_nets:Net" in capsys.readouterr().err
        assert main([*command, "--torso", "their_nets:Net", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
    assert main(["completion", "--words", *line[:4], ""]) == 0
    assert capsys.readouterr().out.split() == ["auto", "nature", "impala", "grid", "flat"]
    assert main([*line[:4], "natur"]) == 2
    assert "--torso must be auto, nature" in capsys.readouterr().err


def test_a_run_without_one_is_given_none(tmp_path):
    small_run = {k: v for k, v in TINY.items() if k != "recurrent"}
    coterie.train("ippo", "matrix/climbing", 64, settings=small_run, out=tmp_path / "run",
                  evaluations=1, evaluation_episodes=4, final_episodes=0)  # fmt: skip
    for use in (coterie.open_run, coterie.load):
        with pytest.raises(UsageError, match="torso of the run is auto, and no network of your"):
            use(tmp_path / "run", torso=Net)
