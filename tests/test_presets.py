"""Presets: data that resolves, what is given wins, and runs that record both."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from quick import quick_compilation

import coterie
from coterie import presets
from coterie.algorithms import algorithms, find
from coterie.cli import main
from coterie.errors import UsageError
from coterie.learners.parts import target_rate
from coterie.presets import OF_THE_RUN
from coterie.settings import fitted, hints

ROOT = Path(__file__).parent.parent
WHERE = {"matrix/climbing": 1, "lbf/8x8-3p-2f": 50, "mpe/simple-spread": 25}
"""An environment of each family, and its time limit."""
STATED = [(name, a) for name in presets.names() for a in presets.find(name).tables]
HAVING = [(p, a, e) for p, a in STATED for e in WHERE if presets.find(p).has(a, e)]
STEPS = 100_000


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


def made(preset: str, algorithm: str, environment: str = "lbf/8x8-3p-2f", **given):
    limit = WHERE[environment]
    return presets.find(preset).make(algorithm, STEPS, limit, given)


# The data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "algorithm", "environment"), HAVING)
def test_every_preset_makes_its_algorithms(preset, algorithm, environment):
    """Names and ranges of all its settings are those of the code, in every family."""
    found = made(preset, algorithm, environment)
    resolved = found.resolve(STEPS, WHERE[environment])
    assert resolved.name == algorithm
    stated = presets.find(preset).tables[algorithm]
    for name, value in stated.items():
        if name not in OF_THE_RUN and not isinstance(value, dict | str):
            assert getattr(resolved, name) == (tuple(value) if isinstance(value, list) else value)
    of_the_run = {n: v for n, v in stated.items() if n in OF_THE_RUN}
    found = presets.Chosen(algorithm, preset).of_the_run(None, None)
    assert found == (of_the_run.get("reward"), of_the_run.get("central", "auto"))


@pytest.mark.parametrize(("preset", "algorithm"), STATED)
def test_a_preset_says_of_every_setting_whose_it_is(preset, algorithm):
    """A setting that is new here is put into each preset's tables, or into its list ``ours``."""
    found = presets.find(preset)
    fields = {field.name for field in dataclasses.fields(find(algorithm))}
    said = found.tables[algorithm].keys() | set(found.ours)
    assert fields <= said, f"{preset}.toml says nothing of {sorted(fields - said)}"
    everywhere = {f.name for cls in algorithms().values() for f in dataclasses.fields(cls)}
    assert set(found.ours) <= everywhere


def lines(preset: str) -> dict[str, tuple[str | None, list[tuple[str, str, str]]]]:
    """By algorithm: whose table it takes over, and (source, setting, value) of each line."""
    text = (resources.files(presets) / f"{preset}.toml").read_text("utf-8")
    found = {}
    for algorithm, body in re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S):
        like = re.search(r'^like = "(\w+)"$', body, re.M)
        rows = re.findall(r"^(?!like)(\w+) = (.+?) +# (.+)$", body, re.M)
        each = [(source, name, in_words(value)) for name, value, source in rows]
        found[algorithm] = (like[1] if like else None, each)
        stated = [line for line in body.splitlines() if line and not line.startswith("like")]
        assert len(rows) == len(stated), f"a line of [{algorithm}] has no source"
    return found


def in_words(value: str) -> str:
    """A value of the file as the page shows it."""
    unit = re.fullmatch(r"\{ (\w+) = (\S+) \}", value)
    if unit is None:
        return value.strip('"')
    s = "" if unit[2] == "1" else "s"
    return {
        "episodes": f"{unit[2]} episode{s}",
        "per_episode": f"{unit[2]} per episode",
        "of_run": f"{unit[2]} of the run",
    }[unit[1]]


@pytest.mark.parametrize("preset", presets.names())
def test_the_page_shows_what_the_file_says_with_its_sources(preset):
    page = (ROOT / "docs" / "presets.md").read_text()
    section = re.search(rf"^## {preset}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert section
    shown = {}
    pattern = r"^`(\w+)`(?:, as `(\w+)`)?[^\n]*\n((?:\n\|[^\n]*(?:\n\|[^\n]*)*)?)"
    for algorithm, like, table in re.findall(pattern, section[1], re.M):
        rows = re.findall(r"^\| (.+?) \| `(\w+)` \| (.+?) \|$", table, re.M)
        shown[algorithm] = (like or None, rows)
    assert shown == lines(preset)
    about = re.search(rf"^\| `{preset}` \| .+? \| (.+?) \| (.+?) \|$", page, re.M)
    assert about
    found = presets.find(preset)
    assert set(about[1].split(", ")) == found.tables.keys()
    assert about[2] == (", ".join(found.families) or "any")


@pytest.mark.parametrize(
    ("environment", "batch", "ratio", "starts", "rollout"),
    [("lbf/8x8-3p-2f", 1600, 1 / 50, 1600, 50), ("mpe/simple-spread", 800, 1 / 25, 800, 25)],
)
def test_episodes_are_those_of_the_time_limit(environment, batch, ratio, starts, rollout):
    vdn = made("epymarl", "vdn", environment)
    assert (vdn.batch_size, vdn.update_ratio) == (batch, ratio)
    assert vdn.learning_starts == starts
    assert vdn.rollout_shape() == (rollout, 1)  # one update after an episode of one environment
    assert made("epymarl", "ia2c", environment).rollout_shape() == (rollout, 10)


def test_shares_are_of_the_run():
    assert made("marl-book", "vdn").epsilon_steps == STEPS // 2
    assert made("jaxmarl", "qmix", "mpe/simple-spread").epsilon_steps == STEPS // 10
    assert made("epymarl", "pac").entropy_steps == 80_000


def test_the_slides_exact_form():
    ia2c = made("lecture", "ia2c")
    assert (ia2c.rollout_steps, ia2c.n_steps, ia2c.gae_lambda) == (1, 1, None)
    assert (ia2c.entropy, ia2c.max_grad_norm, ia2c.reward_scaling) == (0.0, None, "none")
    assert (ia2c.target_interval, ia2c.target_tau, ia2c.sharing) == (None, None, "own")
    idqn = made("lecture", "idqn")
    assert (idqn.rollout_shape(), idqn._updates_per_rollout(), idqn.learning_starts) == (
        (1, 1),
        1,
        0,
    )
    assert (idqn.double_q, idqn.reward_scaling, idqn.max_grad_norm) == (False, "none", None)


# What is given wins ------------------------------------------------------------------------------


def another(value, hint):
    """A value of the same kind that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and value:
        return value * 2 if isinstance(value, int) else value / 2
    words = ("own", "shared", "scale", "none", "tanh", "relu", "flat", "their:Network")
    for change in (3, 0.25, *words, (5, 7)):
        with contextlib.suppress(UsageError):
            if (found := fitted("it", change, hint)) != value:
                return found
    raise AssertionError(f"nothing differs from {value} in {hint}")


CONTRADICTING = {
    "gae_lambda",
    "n_steps",
    "target_tau",
    "target_interval",
    "minibatches",
    "least_std",
}
"""Settings of which only some go with others; what is given of them is below."""


@pytest.mark.parametrize(("preset", "algorithm"), STATED)
def test_what_is_given_wins_setting_by_setting(preset, algorithm):
    where = "mpe/simple-spread" if preset == "jaxmarl" else "lbf/8x8-3p-2f"
    usual = made(preset, algorithm, where)
    for name, hint in hints(find(algorithm)).items():
        if name in CONTRADICTING or name == "groups":
            continue
        given = another(getattr(usual, name), hint)
        found = made(preset, algorithm, where, **{name: given})
        assert found == dataclasses.replace(usual, **{name: given}), name


def test_what_is_given_wins_where_settings_depend_on_each_other():
    given = {"gae_lambda": 0.9, "n_steps": 1, "target_tau": None, "target_interval": 3}
    found = made("epymarl", "ippo", **given, minibatches=5)
    assert {name: getattr(found, name) for name in given} == given
    assert found.minibatches == 5
    with pytest.raises(UsageError, match=r"n_steps 10 and gae_lambda 0\.9 contradict"):
        made("epymarl", "coma", gae_lambda=0.9)


# Runs --------------------------------------------------------------------------------------------

QUICK = {"evaluations": 1, "evaluation_episodes": 2, "final_episodes": 2}
SMALL = {"hidden": (4,)}
PAC = ("pac", "matrix/climbing", 200)


class Stopped(Exception):
    pass


def planned(algorithm, environment="matrix/climbing", steps=100, **asked):
    """The configuration of a training that is stopped as it starts."""
    seen = {}

    def report(event, facts):
        seen.update(facts)
        raise Stopped(event)

    with pytest.raises(Stopped, match="start"):
        coterie.train(algorithm, environment, steps, report=report, **QUICK, **asked)
    return seen


def config_of(path: Path):
    return json.loads((path / "config.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "run"
    coterie.train(*PAC, preset="epymarl", out=path, settings=SMALL, **QUICK)
    return path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_records_the_preset_and_what_came_out_of_it(run):
    config = config_of(run)
    assert config["preset"] == "epymarl"
    expected = presets.find("epymarl").make("pac", 200, 1, SMALL).resolve(200, 1)
    assert config["settings"] == json.loads(json.dumps(expected.settings()))
    assert (config["settings"]["hidden"], config["settings"]["entropy"]) == ([4], 20.0)
    assert config["settings"]["entropy_steps"] == 160
    assert (config["reward"], config["central"]) == ("sum", "joint")


def test_such_a_run_is_opened_evaluated_and_resumed_without_its_preset(run, monkeypatch):
    def gone(name):
        raise AssertionError("a recorded run needs no preset")

    monkeypatch.setattr(presets, "find", gone)
    opened = coterie.open_run(run)
    assert opened.config["preset"] == "epymarl"
    assert "eval_sampled/return/team_mean" in opened.evaluate(episodes=2)
    assert coterie.load(run).agents
    assert coterie.resume(run, 400).steps >= 400
    assert config_of(run)["preset"] == "epymarl"


def test_train_takes_a_run_up_by_its_settings_with_or_without_the_preset(run):
    again = {"out": run, "resume": True, **QUICK}
    assert coterie.train(*PAC, preset="epymarl", settings=SMALL, **again).complete
    config = config_of(run)
    stored = {k: tuple(v) if isinstance(v, list) else v for k, v in config["settings"].items()}
    as_stored = {"settings": stored, "reward": "sum", "central": "joint"}
    assert coterie.train(*PAC, **as_stored, **again).complete
    with pytest.raises(UsageError, match=r"of other settings: entropy is 20\.0, not 3\.0 "):
        coterie.train(*PAC, preset="epymarl", settings=SMALL | {"entropy": 3.0}, **again)


def test_more_steps_are_named_alone_not_what_follows_from_them(run):
    asked = {"preset": "epymarl", "settings": SMALL, "out": run, "resume": True, **QUICK}
    with pytest.raises(UsageError, match=r"settings: steps is 200, not 400; resume --steps"):
        coterie.train("pac", "matrix/climbing", 400, **asked)


def test_a_setting_that_was_given_is_named_where_it_differs(run):
    asked = {"preset": "epymarl", "out": run, "resume": True, **QUICK}
    given = SMALL | {"entropy_steps": 7}
    with pytest.raises(UsageError, match="steps is 200, not 400, entropy_steps is 160, not 7;"):
        coterie.train("pac", "matrix/climbing", 400, settings=given, **asked)


def test_a_run_without_a_preset_records_none():
    config = planned("vdn", settings=SMALL)
    assert (config["settings"]["hidden"], "preset" in config) == ([4], False)


def test_a_run_says_whose_settings_it_has():
    def report(event, facts):
        if "settings are those of lecture where none are given" in facts.get("sentence", ""):
            raise Stopped(event)

    with pytest.raises(Stopped, match="note"):
        coterie.train("vdn", "matrix/climbing", 100, preset="lecture", report=report)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("sum", "joint")),
        ({"reward": "individual"}, ("individual", "joint")),
        ({"reward": "mean", "central": "joint"}, ("mean", "joint")),
        ({"central": "auto"}, ("sum", "state")),
    ],
)
def test_reward_and_central_that_are_given_win(given, found):
    config = planned("maa2c", "lbf/5x5-2p-1f", preset="epymarl", **given)
    assert (config["reward"], config["central"]) == found


TRAINED = [
    ("epymarl", "maa2c", "lbf/5x5-2p-1f"), ("epymarl", "idqn", "lbf/5x5-2p-1f"),
    ("epymarl", "mappo", "lbf/5x5-2p-1f"), ("epymarl", "pac", "lbf/5x5-2p-1f"),
    ("marl-book", "qmix", "lbf/5x5-2p-1f"), ("marl-book", "ippo", "lbf/5x5-2p-1f"),
    ("jaxmarl", "idqn", "mpe/simple-spread"), ("jaxmarl", "mappo", "mpe/simple-spread"),
    ("lecture", "ia2c", "lbf/5x5-2p-1f"), ("lecture", "idqn", "lbf/5x5-2p-1f"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "algorithm", "environment"), TRAINED)
def test_they_train(preset, algorithm, environment, tmp_path):
    """Every preset with an algorithm of each base: a short training makes updates."""
    given = {"hidden": (8,)}
    if "learning_starts" in hints(find(algorithm)):
        given |= {"learning_starts": 0, "buffer_size": 5000}
    asked = {"options": {"time_limit": 4}, "settings": given, "out": tmp_path / "run", **QUICK}
    assert coterie.train(algorithm, environment, 400, preset=preset, **asked).complete
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line).get("updates", 0) for line in log) > 0


# The command line --------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """``asked(line)``: what a command line asks ``train`` for, its report and its name left out."""

    def ask(line: str) -> dict[str, Any]:
        found = {}

        def train(*names, **more):
            found.update(more)
            raise Stopped

        monkeypatch.setattr("coterie.runs.api.train", train)
        with pytest.raises(Stopped):
            main(["train", *line.split()])
        return {n: v for n, v in found.items() if n not in ("report", "command", "out", *QUICK)}

    return ask


def test_flags_win_over_the_preset(asked, monkeypatch):
    given = "--no-recurrent --normalise-advantages --entropy .5 --n-steps 2 --reward mean"
    found = asked(f"ippo matrix/climbing --preset=epymarl --env.rounds 2 {given}")
    monkeypatch.undo()
    config = planned("ippo", **found | {"steps": 100})
    assert config["preset"] == "epymarl"
    settings = config["settings"]
    assert (settings["recurrent"], settings["normalise_advantages"]) == (False, True)
    assert (settings["entropy"], settings["n_steps"], config["reward"]) == (0.5, 2, "mean")
    assert (settings["rollout_steps"], settings["lr"]) == (2, 0.0003)  # an episode; the preset's
    assert (settings["gae_lambda"], config["central"]) == (None, "none")


def test_a_flag_wins_where_it_is_the_default(asked):
    """What is given counts, not what differs from a default."""
    usual = coterie.IA2C()
    given = f"--n_steps {usual.n_steps} --entropy={usual.entropy} --no-recurrent"
    assert asked(f"ia2c matrix/climbing --preset epymarl {given}")["settings"] == {
        "n_steps": usual.n_steps, "entropy": usual.entropy, "recurrent": False,
    }  # fmt: skip


@pytest.mark.slow
def test_the_command_trains_evaluates_and_goes_on_with_a_preset(tmp_path):
    out = str(tmp_path / "run")
    flags = [word for n, v in QUICK.items() for word in (f"--{n.replace('_', '-')}", str(v))]
    line = ["train", "ippo", "matrix/climbing", "--steps", "40", "--preset", "epymarl"]
    assert main([*line, "--hidden", "4", "--out", out, *flags]) == 0
    assert main(["evaluate", out, "--episodes", "2"]) == 0
    assert main(["resume", out, "--steps", "80"]) == 0
    assert config_of(tmp_path / "run")["preset"] == "epymarl"


def test_help_lists_the_presets(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    about = shown[shown.index("--preset") : shown.index("--reward")]
    assert all(name in about for name in presets.names())


# Refusals ----------------------------------------------------------------------------------------

MISTAKES = {
    "vdn matrix/climbing --preset epymral": "no preset 'epymral'; did you mean epymarl? (known: ",
    "reinforce matrix/climbing --preset epymarl": (
        "preset epymarl has no settings for reinforce; it has some for coma, ia2c, idqn, ippo, "
        "maa2c, mappo, pac, qmix, vdn in any environment, and no preset for reinforce"
    ),
    "ippo lbf/8x8-3p-2f --preset jaxmarl": (
        "preset jaxmarl has no settings for ippo in lbf/8x8-3p-2f; it has some for idqn, ippo, "
        "mappo, qmix, vdn in mpe/*, jaxmarl:MPE_*, and epymarl, marl-book for ippo in lbf/8x8-3p-2f"
    ),
    "ippo matrix/climbing --preset epymarl --gamma 2": "gamma must be a number from 0 to 1; got 2",
    "coma matrix/climbing --preset epymarl --gae-lambda .9": "n_steps 10 and gae_lambda 0.9",
    "ippo matrix/climbing --preset": "--preset must be a name of at most 1000 characters",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(line, tmp_path, capsys):
    assert main(["train", *line.split(), "--out", str(tmp_path / "new")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("coterie: ")
    assert err.count("\n") == 1
    assert MISTAKES[line] in err
    assert not (tmp_path / "new").exists()


def test_episodes_of_no_known_length_are_refused():
    with pytest.raises(UsageError, match="preset marl-book counts in episodes, and this"):
        presets.find("marl-book").make("vdn", 100, None, {})
    own = {"batch_size": 8, "buffer_size": 100, "update_ratio": 1.0, "sequence_length": 1}
    assert presets.find("marl-book").make("vdn", 100, None, own).batch_size == 8


@pytest.mark.parametrize("more", [{"preset": "epymarl"}, {"settings": {"lr": 1e-3}}])
def test_an_algorithm_that_is_made_already_takes_no_settings(more):
    with pytest.raises(UsageError, match="for the name or the class of an algorithm"):
        coterie.train(coterie.VDN(), "matrix/climbing", 100, **more)


def test_what_is_no_algorithm_preset_or_settings_is_refused():
    """In a process of its own, where Coterie alone checks types."""
    code = """
import coterie
for algorithm, more in [
    (coterie.Run, {}), (None, {}), ("ia2c", {"preset": 3}), ("ia2c", {"preset": ""}),
    ("ia2c", {"settings": [("lr", 1.0)]}), ("ia2c", {"settings": {"lr": "fast"}}),
    ("ia2c", {"preset": "epymarl", "settings": {"lr": "fast"}}),
]:
    try:
        coterie.train(algorithm, "matrix/climbing", 100, **more)
    except coterie.UsageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = (
        "algorithm must be an algorithm, such as coterie.IA2C(gamma=0.95), its class or its name, "
    )
    made += "such as 'ia2c'; got"
    assert done.stdout.splitlines() == [
        f"{made} <class 'coterie.runs.run.Run'>",
        f"{made} None",
        "preset must be a name of at most 1000 characters or None; got 3",
        "preset must be a name of at most 1000 characters or None; got ''",
        "settings must be values by name; got [('lr', 1.0)]",
        "lr must be a number above 0, at most 1e6; got 'fast'",
        "lr must be a number above 0, at most 1e6; got 'fast'",
    ]


class Mine(coterie.VDN):
    """Of no file of ``coterie.algorithms``."""


def test_a_class_counts_as_its_name_or_is_made():
    chosen = presets.Chosen(coterie.VDN, "epymarl", {"lr": 1e-3})
    assert (chosen.algorithm, chosen.given) == ("vdn", {"lr": 1e-3})
    own = presets.Chosen(Mine, None, {"lr": 1e-3})
    assert (own.algorithm, own.given) == (Mine(lr=1e-3), {})
    with pytest.raises(UsageError, match="a preset has settings of Coterie's algorithms; got Mine"):
        presets.Chosen(Mine, "epymarl")
    with pytest.raises(UsageError, match="Mine has no setting 'lrr'; did you mean lr"):
        presets.Chosen(Mine, None, {"lrr": 1e-3})
    with pytest.raises(UsageError, match="ValueBased is a base of algorithms"):
        presets.Chosen(coterie.VDN.__mro__[1])


def test_settings_of_a_named_algorithm_are_those_it_has():
    with pytest.raises(UsageError, match="vdn has no setting 'entorpy'"):
        coterie.train("vdn", "matrix/climbing", 100, settings={"entorpy": 1})
    with pytest.raises(UsageError, match="vdn has no setting 'clip'"):
        coterie.train("vdn", "matrix/climbing", 100, preset="epymarl", settings={"clip": 1})
    with pytest.raises(UsageError, match="there is no algorithm 'vnd'; did you mean vdn"):
        coterie.train("vnd", "matrix/climbing", 100)


def test_a_target_interval_that_is_given_takes_the_place_of_the_preset_s_moving_average():
    preset = presets.find("epymarl")
    assert preset.make("ia2c", 10_000, 50, {}).target_tau is not None
    made = preset.make("ia2c", 10_000, 50, {"target_interval": 200})
    assert (made.target_interval, made.target_tau) == (200, None)
    both = preset.make("ia2c", 10_000, 50, {"target_interval": 200, "target_tau": 0.5})
    assert both.target_tau == 0.5


@pytest.mark.parametrize("tau", [0.5, 0.01])
def test_a_moving_average_that_is_given_takes_the_place_of_the_preset_s_interval(tau):
    made = presets.find("epymarl").make("vdn", 10_000, 50, {"target_tau": tau})
    assert (made.target_interval, target_rate(made)) == (None, tau)
