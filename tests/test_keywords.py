"""Keyword arguments of Python environments: --env.NAME VALUE, and ``options``."""

import functools
import json

import guests
import pytest
from mpe2 import simple_spread_v3

import coterie
from coterie import UsageError
from coterie.cli import main
from coterie.cli.parsing import parse
from coterie.python_envs.adapters.lookup import open_factory
from coterie.python_envs.settings import PythonEnvSettings

SPREAD = "pettingzoo:mpe2.simple_spread_v3"
SMALL = {"environments": 2, "rollout_steps": 8, "minibatches": 1}
FEW = {"evaluations": 1, "evaluation_episodes": 2, "final_episodes": 0}


@pytest.fixture
def call(capsys):
    """Runs the command: exit status, standard output, standard error."""

    def run(*words):
        status = main(words)
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("8", 8), ("0.5", 0.5), ("1e3", 1000.0), ("-2", -2), ("True", True), ("false", False),
        ("None", None), ("", True), ("8 9", [8, 9]), ("[8, 'a']", [8, "a"]), ("human", "human"),
        ("a b", ["a", "b"]), ("'8'", "8"), ("os.getcwd()", "os.getcwd()"),
    ],
)  # fmt: skip
def test_values_are_literals(words, value):
    words = [words] if words.startswith("[") else words.split()
    found = parse([("env", dict)], ["--env.max-cycles", *words, "--env.N=3"], "coterie train")
    assert found.env == {"max_cycles": value, "N": 3}
    assert type(found.env["max_cycles"]) is type(value)


def test_flags_without_the_prefix_are_still_unknown():
    with pytest.raises(UsageError, match=r"^unknown option --n "):
        parse([("env", dict)], ["--n", "3"], "coterie train")


def test_keywords_reach_workers_and_every_later_command(tmp_path, call):
    out = str(tmp_path / "run")
    words = ["--environments", "2", "--rollout-steps", "8", "--minibatches", "1", "--steps", "64"]
    words += ["--evaluations", "1", "--evaluation-episodes", "2", "--final-episodes", "0"]
    words += ["--workers", "1", "--out"]
    status, *_ = call("train", "ippo", SPREAD, *words, out, "--env.N", "2", "--env.max_cycles", "9")
    assert status == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["environment_options"] == {"N": 2, "max_cycles": 9}
    run = coterie.open_run(out, SPREAD)
    assert len(run.game.spec.agents) == 2
    assert run.evaluate(episodes=2)["eval/length"]["mean"] == 9
    assert call("evaluate", out, "--environment", SPREAD, "--episodes", "2")[0] == 0
    assert call("resume", out, "--environment", SPREAD, "--steps", "96")[0] == 0
    own = PythonEnvSettings(workers=1)
    again = {"options": {"N": 3, "max_cycles": 9}, "steps": 96, "out": out, "resume": True, **FEW}
    with pytest.raises(UsageError, match=r"settings: env.N is 2, not 3"):
        coterie.train(coterie.IPPO(**SMALL), SPREAD, python_env=own, **again)
    assert run.evaluate(episodes=2, environment=SPREAD)["eval/length"]["mean"] == 9
    # Another environment, given in place of the run's own, has its own keywords.
    small = functools.partial(simple_spread_v3.parallel_env, N=2, max_cycles=5)
    run = coterie.open_run(out, small())
    assert run.evaluate(episodes=2)["eval/length"]["mean"] == 5


def test_a_callable_takes_options_and_an_environment_none(tmp_path):
    own = PythonEnvSettings(workers=0)
    train = functools.partial(coterie.train, coterie.IPPO(**SMALL), python_env=own, steps=32, **FEW)
    given = {"N": 2, "max_cycles": 6}
    run = train(simple_spread_v3.raw_env, options=given, out=tmp_path / "run")
    assert len(run.game.spec.agents) == 2
    assert run.evaluate(episodes=2)["eval/length"]["mean"] == 6
    run = coterie.open_run(tmp_path / "run", simple_spread_v3.raw_env)
    assert run.evaluate(episodes=2)["eval/length"]["mean"] == 6
    made = simple_spread_v3.parallel_env()
    with pytest.raises(UsageError, match=r"is made already: give N to what makes it$"):
        train(made, options={"N": 2})


@pytest.mark.parametrize(
    ("name", "keyword", "sentence"),
    [
        (SPREAD, "max_cycle", r"^pettingzoo:mpe2.simple_spread_v3 has no keyword argument "
         r"'max_cycle'; did you mean max_cycles\? \(it takes N, local_ratio, max_cycles, "),
        ("mpe2.simple_spread_v3:env", "size", r"'size' \(it takes N, local_ratio, "),
        ("gymnasium:CartPole-v1", "sutton", r"'sutton' \(it takes sutton_barto_reward, "),
        ("guests:Relay", "size", r"^guests:Relay has no .* argument 'size' \(it takes none\)$"),
    ],
)  # fmt: skip
def test_unknown_keywords_are_answered_with_those_that_exist(name, keyword, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_factory(name, {keyword: 3})


def test_gymnasium_makes_with_keywords():
    env = open_factory("gymnasium:CartPole-v1", {"max_episode_steps": 7})()
    assert env.spec.max_episode_steps == 7
    env.close()


def test_check_takes_keywords(call):
    status, out, _ = call("check", SPREAD, "--env.N", "2", "--env.max_cycles", "4", "--json")
    assert status in (0, 1)
    assert json.loads(out)["spec"]["agents"] == ["agent_0", "agent_1"]


def test_families_keep_their_own_flags(call):
    status, _, err = call("check", "lbf/5x5-2p-1f", "--env.size", "3")
    assert status == 2
    assert "unknown option --env.size" in err


class Named(guests.Relay):
    """Its keywords are called as Coterie's own arguments are."""

    def __init__(self, name="b", module=0, attribute=0):
        super().__init__()
        assert (name, module, attribute) == ("a", 1, 2)


def test_keywords_may_have_any_name():
    given = {"name": "a", "module": 1, "attribute": 2}
    assert isinstance(open_factory("test_keywords:Named", given)(), Named)
