"""Heads of the user's own, in the place of the last layer."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_nets import Dueling, Recall
from probes import Walk, game_for, small
from test_own_networks import STEPS, TINY, arrays, assert_same

import coterie
from coterie import UsageError
from coterie.algorithms import algorithms
from coterie.cli.entry import main
from coterie.networks.own import OwnHead
from coterie.networks.per_agent import PerAgent
from coterie.storage.files import seal
from coterie.training import loop as training

PATH = "own_nets:Dueling"


def policy(head, index=(0, 1), **more):
    return PerAgent(index, 5, 3, (8,), jax.random.key(0), head=head, **more)


@pytest.mark.parametrize("index", [(0, 1, 2), (0, 0, 0), (0, 0, 1)], ids=["own", "shared", "group"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_outputs_are_those_of_the_head(index, recurrent):
    """By hand: V + A − mean A of the features before it, with each agent's parameters."""
    made = policy(Dueling, index, recurrent=recurrent)
    x = jax.random.normal(jax.random.key(1), (3, 5))
    hidden = made.initial_hidden_state() + 0.3 if recurrent else made.initial_hidden_state()
    outputs, after = made.step(hidden, x, jnp.zeros(3, bool))
    parameters = made.head.parameters
    body = made.networks.body
    for i, g in enumerate(index):
        features = after[i]
        if not recurrent:
            row = x[i]
            if index.count(g) > 1 or any(made.identify):
                ids = np.eye(3)[i] * made.identify[i]
                row = jnp.concatenate([row, ids])
            features = jax.nn.relu(row @ body.layers[0].weight[g] + body.layers[0].bias[g])
        value, advantage = (
            parameters[f"{name}/weight"][g] @ features + parameters[f"{name}/bias"][g]
            for name in ("value", "advantage")
        )
        np.testing.assert_allclose(outputs[i], value + advantage - advantage.mean(), atol=1e-5)
    assert made.hidden == (8,)


@pytest.mark.parametrize("name", algorithms())
def test_every_algorithm_takes_one_and_learns_it(name):
    """Traced: actors, critics and utilities have one, and the state keeps its form in training."""
    algorithm = small(name, head=Dueling)
    assert algorithm.settings()["head"] == PATH
    game = game_for(algorithm, Walk())
    made = jax.eval_shape(lambda key: algorithm.init(key, game), jax.random.key(0))
    assert isinstance(algorithm.policy(made).head, OwnHead)
    if getattr(made, "critic", None) is not None:
        assert isinstance(made.critic.head, OwnHead)
    program = training.Program(algorithm, game, 1, 4)
    before = program.template()
    schedules = algorithm.schedules(np.arange(program.chunk, dtype=np.int64))
    after, *_ = jax.eval_shape(
        partial(program._run_chunk, program.algorithm), before, schedules, np.int32(1)
    )
    assert jax.tree.structure(before) == jax.tree.structure(after)


class Short(Dueling):
    def __call__(self, features):
        return super().__call__(features)[:-1]


class Breaks(Dueling):
    def __call__(self, features):
        raise KeyError("the window")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (Short, r"must return 3 numbers, its argument outputs; it returned 2"),
        (lambda inputs, outputs, key: Recall(coterie.ObservationSpace.of((inputs,)), key),
         r"has a hidden state, which only a torso may have"),
        (Breaks, r"was called with a vector of features, float32 \(8,\): KeyError: 'the window'"),
        (lambda inputs, outputs: 3, r"raised as it was built: TypeError"),
        ("nowhere", r"head must be linear or module:Name of a network of your own"),
    ],
)  # fmt: skip
def test_what_is_no_head_is_refused_in_a_sentence(head, says):
    with pytest.raises(UsageError, match=says) as raised:
        policy(coterie.IDQN(head=head).head)
    assert "\n" not in str(raised.value)


def train(out, steps=STEPS, **own):
    return coterie.train(
        "ippo", "matrix/climbing", steps, settings=TINY | {"recurrent": False} | own, out=out,
        evaluations=2, evaluation_episodes=4, final_episodes=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("heads") / "run", head=Dueling)


def test_a_run_is_opened_only_with_its_head(run):
    assert run.metrics["eval_sampled/return/team_mean"]["mean"] > 4
    assert json.loads((run.path / "policy/policy.json").read_text())["head"] == PATH
    again = coterie.open_run(run.path, head=Dueling)
    assert_same(run, again)
    assert again.evaluate(4) == run.evaluate(4)
    for open_run in (coterie.open_run, coterie.load, coterie.resume):
        with pytest.raises(UsageError, match=f"the head of the run is {PATH}, .*: give --head"):
            open_run(run.path)
        with pytest.raises(UsageError, match="the torso of the run is auto, and no network"):
            open_run(run.path, head=Dueling, torso=Recall)
    team = coterie.load(run.path, which="last", head=PATH)
    actions, _ = team.act([[1.0], [1.0]], team.initial_hidden_state())
    one = jax.tree.map(lambda x: x[0], run.policies["last"])
    outputs, _ = one.step(one.initial_hidden_state(), jnp.ones((2, 1)), jnp.zeros(2, bool))
    assert actions == np.argmax(outputs, -1).tolist()


def test_a_run_goes_on_with_its_head(run, tmp_path):
    train(tmp_path / "run", STEPS // 2, head=Dueling)
    status = main(["resume", str(tmp_path / "run"), "--head", PATH, "--steps", str(STEPS)])
    assert status == 0
    again = coterie.open_run(tmp_path / "run", head=PATH)
    jax.tree.map(np.testing.assert_array_equal, arrays(run)["last"], arrays(again)["last"])


def test_commands_name_it(run, capsys):
    assert main(["evaluate", str(run.path), "--episodes", "2"]) == 2
    assert f"give --head {PATH}" in capsys.readouterr().err
    assert main(["evaluate", str(run.path), "--episodes", "2", "--head", PATH]) == 0


def test_both_may_be_ones_own(tmp_path):
    run = train(tmp_path / "run", 128, head=Dueling, torso=Recall, recurrent=True)
    coterie.open_run(run.path, head=Dueling, torso=Recall)
    with pytest.raises(UsageError, match="the torso of the run"):
        coterie.open_run(run.path, head=Dueling)


@pytest.mark.parametrize("head", [3, "", "linear:", ["own_nets:Dueling"]])
def test_a_description_of_no_head_is_refused(run, tmp_path, head):
    shutil.copytree(run.path, tmp_path / "run")
    about = tmp_path / "run/policy/policy.json"
    kept = json.loads(about.read_text())
    kept.pop("digest", None)
    about.write_text(json.dumps(seal(kept | {"head": head})))
    with pytest.raises(UsageError, match="do not fit together"):
        coterie.load(tmp_path / "run", head=Dueling)
