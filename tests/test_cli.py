"""The command line: one clear sentence, the right exit status, one JSON document."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from quick import FLAGS, quick_compilation

import coterie
from coterie.algorithms import algorithms
from coterie.cli import table
from coterie.cli.commands import listing
from coterie.cli.commands.train import TrainArgs, train_groups
from coterie.cli.entry import HELP, main
from coterie.cli.parsing import parse, whole_number
from coterie.cli.table import COMMANDS
from coterie.errors import UsageError
from coterie.flags import flags
from coterie.show.numbers import clock, plural, short, size
from coterie.show.terminal.progress import TrainDisplay
from coterie.text import SYNONYMS, setting_meant

SMALL = ["--environments", "4", "--hidden", "8", "--batch-size", "16", "--buffer-size", "1e3",
         "--learning-starts", "50", "--update-ratio", ".25"]  # fmt: skip
SOURCE = str(Path(coterie.__file__).parent.parent)
TINY = [*SMALL, "--evaluations", "3", "--final-episodes", "5"]


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture
def call(capsys, monkeypatch):
    """``call(line)``: exit status, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(line.split())
        return status, *capsys.readouterr()

    return run


TITLE = r"^(.+) policies, of steps? [\d, ]+(?: \(by seed\))?$"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of two seeds, made by the command."""
    path = tmp_path_factory.mktemp("cli") / "run"
    line = ["train", "vdn", "matrix/climbing", "--steps", "400", "--seeds", "2"]
    assert main([*line, "--out", str(path), *TINY]) == 0
    return path


def refused(result: tuple[int, str, str], *sentence: str, status: int = 2) -> str:
    """The command answered nothing but one sentence."""
    code, out, err = result
    assert (code, out) == (status, ""), err
    assert re.fullmatch(r"coterie: [^\n]+\n", err), err
    for part in sentence:
        assert part in err
    return err


# Help ------------------------------------------------------------------------------------------


def test_help_names_every_command(call):
    status, out, _ = call("--help")
    assert (status, out) == (0, HELP)
    named = re.findall(r"^  (\w+) ", HELP.partition("\n\n  coterie")[0], re.M)
    assert [name for name in named if name != "coterie"] == list(COMMANDS)
    status, out, err = call("")
    assert (status, out, err) == (2, "", HELP)
    assert call("--version") == (0, f"coterie {coterie.__version__}\n", "")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(call, command):
    for line in (f"{command} --help", f"{command} -h"):
        status, out, err = call(line)
        assert (status, err) == (0, "")
        assert out.startswith(f"usage: coterie {command}")
        for flag in flags(COMMANDS[command].options):
            assert f"\n  {flag.name} " in out
        assert max(map(len, out.splitlines())) <= 100
        assert not re.search(r"[╭│]| $", out, re.M)


def test_train_help_shows_the_settings_of_what_is_named(call):
    _, general, _ = call("train --help")
    _, algorithm, _ = call("train qmix --help")
    _, whole, _ = call("train qmix lbf/8x8-2p-3f --help")
    assert "coterie list" in general
    assert "--gamma" not in general
    assert re.search(r"\nqmix\n  --gamma X +Discount factor γ \(default \S+, 0 to 1\)\n", algorithm)
    assert "--mixer-embedding N" in algorithm
    assert "--env.levels" not in algorithm
    assert re.search(r"\nlbf\n  --env.levels v3\|v2 ", whole)
    assert len(re.findall(r"^  --steps ", whole, re.M)) == 1
    refused(call("train qmixx --help"), "did you mean qmix?")


def test_every_setting_of_every_algorithm_is_explained():
    for name, cls in algorithms().items():
        missing = {flag.name for flag in flags(cls) if not re.match(r"\w.{8}", flag.help)}
        assert not missing, f"{name}: {missing}"


@dataclass(frozen=True)
class Kinds:
    """All kinds of fields.

    Attributes:
        size: how big, in
            metres.
        on: Switch it on.
    """

    size: float = 0.5
    n: int = 1_000_000
    on: bool = True
    off: bool = False
    path: Path | None = None
    layers: tuple[int, ...] = (8, 16)
    word: Literal["a", "b", "c"] = "b"
    """Which ``one``."""


def test_fields_become_flags():
    assert [tuple(flag) for flag in flags(Kinds, "env.")] == [
        ("--env.size", "X", "how big, in metres (default 0.5)"),
        ("--env.n", "N", "(default 1_000_000)"),
        ("--no-env.on", "", "Do not switch it on"),
        ("--env.off", "", ""),
        ("--env.path", "PATH", ""),
        ("--env.layers", "N ...", "(default 8 16)"),
        ("--env.word", "a|b|c", "Which one (default b)"),
    ]


def parsed(line: str) -> Kinds:
    return parse([("run", Kinds)], line.split(), "coterie x").run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Kinds()),
        ("--size -2 --n -1e3", Kinds(size=-2.0, n=-1000)),
        ("--size=1e-3 --n=1_000", Kinds(size=0.001, n=1000)),
        ("--n 1 --n 2", Kinds(n=2)),
        ("--no-on --off", Kinds(on=False, off=True)),
        ("--no-on --on --off --no-off", Kinds()),
        ("--layers 4 --size 1", Kinds(layers=(4,), size=1.0)),
        ("--layers", Kinds(layers=())),
        ("--layers 1 2 3", Kinds(layers=(1, 2, 3))),
        ("--layers=5", Kinds(layers=(5,))),
        ("--path a=b --word c", Kinds(path=Path("a=b"), word="c")),
        ("--path None", Kinds()),
    ],
)
def test_flags_become_fields(line, expected):
    assert parsed(line) == expected


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--size", "--size must be a number from -1e15 to 1e15; got nothing"),
        ("--size nan", "--size must be a number from -1e15 to 1e15; got nan"),
        ("--size None", "--size must be a number from -1e15 to 1e15; got None"),
        ("--n 1.5", "--n must be a whole number from -1e15 to 1e15; got 1.5"),
        ("--n 1e16", "--n must be a whole number from -1e15 to 1e15; got 1e16"),
        ("--n 1 2", "unexpected argument 2"),
        ("--on yes", "unexpected argument yes: --on is a switch, which takes no value"),
        ("--path=", "--path must be a path; got ''"),
        ("--no-on=no", "--no-on must be a switch, which takes no value; got no"),
        ("--layers 1 x", "--layers must be 0 to 1000 values, each a whole number"),
        ("--word d", "--word must be a, b or c; got d"),
        ("--wrod a", "unknown option --wrod; did you mean --word?"),
        ("--no-word", "unknown option --no-word"),
        ("-n 1", "unexpected argument -n"),
        ("--", "unexpected argument --"),
    ],
)
def test_flags_that_are_none_are_answered(line, sentence):
    with pytest.raises(UsageError) as caught:
        parsed(line)
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(" (see coterie x --help)")


@pytest.mark.parametrize(
    ("text", "number"),
    [("1000000", 10**6), ("1e6", 10**6), ("1_000", 1000), ("-3", -3), ("2.0", 2),
     ("12345678901234567891", 12345678901234567891)],
)  # fmt: skip
def test_whole_numbers_are_written_in_many_ways(text, number):
    assert whole_number(text) == number
    assert isinstance(whole_number(text), int)


@pytest.mark.parametrize("text", ["1.5", "inf", "nan", "1e-3", "six", ""])
def test_what_is_no_whole_number(text):
    with pytest.raises((ValueError, OverflowError)):
        whole_number(text)


# list and game ---------------------------------------------------------------------------------


def test_list_shows_modes_in_short_and_never_breaks_a_line(call):
    status, out, err = call("list")
    assert (status, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    for name, cls in algorithms().items():
        assert rows[name].split()[1:3] == [
            {"decentralised training and execution": "decentralised",
             "centralised training, decentralised execution": "CTDE",
             "centralised training and execution": "central"}[cls.mode],
            "common" if cls.common_reward else "any",
        ]  # fmt: skip
        assert len(rows[name]) <= 80
    assert "8x8-2p-3f" in rows["lbf/"]
    assert "climbing" in rows["matrix/"]
    assert not re.search(r" $", out, re.M)


def test_list_as_json(call):
    status, out, err = call("list --json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert {a["name"]: a["mode"] for a in found["algorithms"]} == {
        name: cls.mode for name, cls in algorithms().items()
    }
    for name in found["environments"]:
        coterie.make(name)


def test_game_draws_or_describes(call):
    status, out, _ = call("game climbing")
    assert status == 0
    assert "−30" in out
    assert "Pareto-optimal" in out
    _, prefixed, _ = call("game matrix/climbing")
    assert prefixed == out
    status, out, err = call("game climbing --json")
    assert (status, err) == (0, "")
    assert json.loads(out)["equilibria"]
    refused(call("game climbng"), "did you mean climbing?")


def test_game_of_a_run_says_what_it_learned(call, run):
    status, out, _ = call(f"game {run}")
    assert status == 0
    for word in ("climbing", "gain from deviating", "Q_tot, seed 1", "finds the optimum"):
        assert word in out
    status, out, _ = call(f"game {run} --json")
    found = json.loads(out)
    assert [play["seed"] for play in found["play"]] == [0, 1]
    q_tot, utilities = (found["decompositions"][0][k] for k in ("q_tot", "utilities"))
    np.testing.assert_allclose(q_tot, np.add.outer(*utilities), rtol=1e-5)
    assert found["game"]["no_conflict"] is True


# train, evaluate, plot -------------------------------------------------------------------------


def test_train_answers_on_stdout_and_talks_on_stderr(call, tmp_path):
    out_path = tmp_path / "a run"
    status = main(["train", "idqn", "matrix/stag-hunt", "--steps", "4e2", "--out", str(out_path),
                   "--reward", "individual", "--env.rounds", "2", *TINY])  # fmt: skip
    assert status == 0
    config = json.loads((out_path / "config.json").read_text())
    expected = {"steps": 400, "reward": "individual", "environment_options": {"rounds": 2}}
    assert {k: config[k] for k in ("steps", "reward")} == {
        k: expected[k] for k in ("steps", "reward")
    }
    assert config["environment_options"]["rounds"] == 2
    assert config["settings"]["hidden"] == [8]
    assert config["settings"]["buffer_size"] == 1000
    assert config["command"].startswith("coterie train idqn matrix/stag-hunt --steps 4e2 --out '")
    for file in ("metrics.jsonl", "evaluations.json", "policy/policy.json"):
        assert (out_path / file).is_file()


def test_what_training_shows(call, tmp_path):
    line = f"train vdn matrix/climbing --steps 400 --seeds 2 --out {tmp_path / 'run'}"
    status, out, err = call(" ".join([line, *TINY]))
    assert status == 0
    first, mode, reward, returns, *points, done = err.splitlines()
    assert first == "vdn on matrix/climbing · 2 agents · 2 seeds, 400 steps each"
    assert re.fullmatch(r"centralised training, decentralised execution · [\d.]+ MB", mode)
    assert reward == "reward: common, the mean over agents"
    assert returns == "returns: per agent, the mean"
    assert len(points) == 4
    spread = r"( \(\S+ to \S+ over seeds\))?"
    assert re.fullmatch(rf" +0 steps  return −?[\d.]+{spread}", points[0])
    pattern = rf" +400 steps  return \S+{spread}  exploring \S+(  \S+ steps/s  0:00 left)?"
    assert re.fullmatch(pattern, points[-1])
    assert re.fullmatch(r"done: 400 steps in 0:\d\d", done)
    steps = coterie.open_run(tmp_path / "run").policy_steps
    alike = steps["best"] == steps["last"]
    titles = re.findall(TITLE, out, re.M)
    assert titles == (["best and last"] if alike else ["best", "last"])
    rows = re.findall(r"^return per agent \(mean\), greedy +−?\d", out, re.M)
    assert len(rows) == len(titles)
    assert out.endswith(
        f"\n  coterie evaluate {tmp_path / 'run'}\n  coterie plot {tmp_path / 'run'}\n"
    )


def test_json_is_one_document_and_nothing_else(call, run, tmp_path):
    line = f"train vdn matrix/climbing --seeds 2 --steps 40 --out {tmp_path / 'run'} --json"
    status, out, _ = call(" ".join([line, *TINY]))
    answer = json.loads(out)
    assert status == 0
    assert answer["env_steps"] == 40
    assert answer["complete"] is True
    assert answer["run"] == str(tmp_path / "run")
    assert set(answer["metrics"]["eval/return/team_sum"]) >= {"mean", "iqm", "ci95", "per_seed"}
    assert answer["which"] == "best"
    assert answer["metrics"] == answer["policies"]["best"]["metrics"]
    assert answer["policies"]["last"]["env_steps"] == [40, 40]

    status, out, err = call(f"evaluate {run} --episodes 1e1 --which last --json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    metrics = coterie.open_run(run).evaluate(episodes=10, which="last")
    assert answer == {
        "metrics": json.loads(json.dumps(metrics)), "run": str(run), "which": "last",
        "environment": "matrix/climbing", "episodes": 10,
        "policies": {"last": {"env_steps": answer["policies"]["last"]["env_steps"],
                              "metrics": answer["metrics"]}},
    }  # fmt: skip


def test_evaluate_prints_a_table(call, run):
    status, out, err = call(f"evaluate {run} --episodes 3")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "matrix/climbing · 3 episodes of each seed's team"
    titles = re.findall(TITLE, out, re.M)
    steps = coterie.open_run(run).policy_steps
    alike = steps["best"] == steps["last"]
    assert titles == (["best and last"] if alike else ["best", "last"])
    rows = [line for line in out.splitlines() if line.startswith("return per agent (mean), greedy")]
    assert len(rows) == len(titles)
    assert re.search(r" [−\d.]+ +\S+ to \S+ +\S+ +\S.*$", rows[0])
    status, out, _ = call(f"evaluate {run} --episodes 3 --which last --metric eval/length")
    assert status == 0
    assert "best" not in out
    assert "episode length (steps), greedy" in out
    refused(call(f"evaluate {run} --episodes 3 --metric eval/lenght"), "there is no metric")


def test_evaluate_prints_the_metrics_asked_for_in_json_too(call, run):
    def names(flags):
        status, out, _ = call(f"evaluate {run} --episodes 3 --json {flags}")
        assert status == 0
        return list(json.loads(out)["metrics"])

    assert names("--metric eval/length") == ["eval/length"]
    assert all(name.startswith("eval/") for name in names("--greedy"))


def test_plot_draws(call, run, tmp_path):
    for suffix in ("png", "svg"):
        picture = tmp_path / f"curve.{suffix}"
        assert call(f"plot {run} --out {picture}") == (0, f"{picture}\n", "")
        assert picture.stat().st_size > 5_000


@pytest.mark.slow
def test_an_environment_of_the_users_is_found_in_the_current_folder(call, tmp_path, monkeypatch):
    source = (Path(__file__).parent.parent / "examples" / "two_doors.py").read_text()
    (tmp_path / "my_doors.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    line = " ".join(["train idqn my_doors:TwoDoors --steps 40 --out run --json", *TINY])
    status, out, err = call(line)
    assert status == 0, err
    assert set(json.loads(out)["metrics"]) >= {"eval/return/agent/left", "eval/length"}
    refused(call("evaluate run"), "give --environment my_doors:TwoDoors")
    status, out, _ = call("evaluate run --environment my_doors:TwoDoors --episodes 2 --json")
    assert json.loads(out)["metrics"]["eval/length"]["mean"] == 10
    status, out, err = call("resume run --environment my_doors:TwoDoors --steps 80 --json")
    assert json.loads(out)["env_steps"] == 80, err


def test_each_synonym_is_of_a_setting_that_there_is():
    groups = train_groups(["qmix", "matrix/climbing"], [])
    groups += train_groups(["ippo", "matrix/climbing"], [])
    named = {field.name for _, cls in (*groups, ("run", TrainArgs)) for field in fields(cls)}
    assert set(SYNONYMS.values()) <= named
    assert not SYNONYMS.keys() & named
    assert setting_meant("learning_rate", ["lr", "learning_starts"]) == "; did you mean lr?"
    assert setting_meant("gama", ["gamma"]) == "; did you mean gamma?"
    assert setting_meant("--gama", ["--gamma"]) == "; did you mean --gamma?"
    assert setting_meant("--batch-size", ["--resize"]) == ""


def test_a_broken_gymnasium_is_named_as_the_reason(tmp_path):
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium" / "__init__.py").write_text("raise RuntimeError('numpy ABI')")
    names = ("nosuch", "gymnasium:CartPole-v1", "matrix/climbimg")
    code = f"from coterie.cli.entry import main\nfor name in {names}: main(['train', 'ippo', name])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), SOURCE))},
    )  # fmt: skip
    nowhere, named, other = done.stderr.splitlines()
    why = "Gymnasium could not be imported: RuntimeError: numpy ABI (__init__.py, line 1)"
    assert nowhere == f"coterie: there is no environment 'nosuch', and {why}"
    assert named == f"coterie: {why}"
    assert "did you mean climbing?" in other


# Mistakes --------------------------------------------------------------------------------------

TRAIN = "train vdn matrix/climbing --out NEW"
MISTAKES = {
    # names
    "trian vdn matrix/climbing": "there is no command 'trian'; did you mean train?",
    "train vnd matrix/climbing": "there is no algorithm 'vnd'; did you mean vdn?",
    "train vdn lbr/8x8-2p-3f": "no environment 'lbr/8x8-2p-3f'; did you mean lbf/8x8-2p-3f?",
    "train vdn lfb/5x5-2p-1f": "no environment 'lfb/5x5-2p-1f'; did you mean lbf/5x5-2p-1f?",
    "train vdn pettingzoo:simple_spread_v3": "; did you mean mpe2.simple_spread_v3?",
    "train vdn lbf/8x8": "lbf/8x8: not the name of a task; write lbf/<rows>x<cols>",
    "train vdn matrix/climbimg": "matrix has no game 'climbimg'; did you mean climbing?",
    "train vdn json:lods": "json has no lods; did you mean loads?",
    "train vdn nowhere.to:find": "there is no module nowhere",
    "train vdn json:loads": "json:loads cannot make an environment",
    "train vdn gymnasium:lbforaging:Foraging-5x5-2p-1f-v3": "--reward sum or --reward mean",
    "train vdn gymnasium:lbforaging:Foraging-5x5-2p-1f-v3 --workers -1": "workers must be a whole",
    # words
    "train vdn": "usage: coterie train ALGORITHM ENVIRONMENT",
    "train": "usage: coterie train ALGORITHM ENVIRONMENT",
    "train vdn matrix/climbing runs/x": "unexpected 'runs/x'; usage: coterie train",
    "list all": "unexpected 'all'; usage: coterie list [--json]",
    "evaluate": "usage: coterie evaluate RUN",
    "plot": "usage: coterie plot RUN [RUN ...]",
    "plot --over lr runs/x": "options stand behind all names; usage: coterie plot RUN",
    "game": "usage: coterie game NAME|FILE|RUN",
    # flags
    f"{TRAIN} --lrr 3": "unknown option --lrr; did you mean --lr?",
    f"{TRAIN} --learning-rate 3": "unknown option --learning-rate; did you mean --lr?",
    f"{TRAIN} --num_envs 3": "unknown option --num-envs; did you mean --environments?",
    f"{TRAIN} --max-grad-norm x": "a number above 0, at most 1e15 or None; got x",
    f"{TRAIN} --env.round 3": "unknown option --env.round; did you mean --env.rounds?",
    f"{TRAIN} --mixer-embedding 3": "unknown option --mixer-embedding",
    f"{TRAIN} -x": "unexpected argument -x",
    f"{TRAIN} --json=yes": "--json must be a switch, which takes no value; got yes",
    f"{TRAIN} --json yes": "unexpected argument yes",
    f"{TRAIN} --lr": "--lr must be a number above 0, at most 1e6; got nothing",
    f"{TRAIN} --lr fast": "--lr must be a number above 0, at most 1e6; got fast",
    f"{TRAIN} --lr=fast": "--lr must be a number above 0, at most 1e6; got fast",
    f"{TRAIN} --steps 1.5": "--steps must be a whole number from 1 to 1e15; got 1.5",
    f"{TRAIN} --steps inf": "--steps must be a whole number from 1 to 1e15; got inf",
    f"{TRAIN} --batch_size x": "--batch-size must be a whole number from 1 to 1e9; got x",
    f"{TRAIN} --epsilon-steps half": "a whole number from 1 to 1e15; got half",
    f"{TRAIN} --hidden 64 wide": "1 to 64 values, each a whole number from 1 to 1e6; got 64 wide",
    f"{TRAIN} --sharing all": "--sharing must be own or shared; got all",
    f"{TRAIN} --reward team": "--reward must be individual, sum or mean; got team",
    "train vdn lbf/8x8-2p-3f --out NEW --env.levels v4": "--env.levels must be v3 or v2; got v4",
    # values
    f"{TRAIN} --gamma 2": "--gamma must be a number from 0 to 1; got 2",
    f"{TRAIN} --lr -1": "--lr must be a number above 0, at most 1e6; got -1",
    f"{TRAIN} --steps -5": "steps must be a whole number from 1 to 1e15; got -5",
    f"{TRAIN} --seeds 0": "seeds must be a whole number from 1 to 1e6; got 0",
    f"{TRAIN} --final-episodes -1": "--final-episodes must be a whole number from 0 to 1e9",
    f"{TRAIN} --env.rounds 0": "rounds must be a whole number from 1 to 1e6; got 0",
    f"{TRAIN} --groups a,b": "groups name unknown agents ['a', 'b']; the agents are",
    f"{TRAIN} --buffer-size 1e9 --seeds 9999": "GB of memory are free",
    "train vdn matrix/chicken --out NEW": "vdn needs a common reward",
    "train qmix matrix/chicken --out NEW": "--reward sum or --reward mean",
    # files
    "train vdn matrix/climbing --out RUN": "is a run already (train --resume goes on with it)",
    "train vdn matrix/climbing --out /proc/new": "cannot write to /proc/new",
    "train vdn matrix/BAD": "payoffs are ragged: payoffs[1] has shape [1], payoffs[0] has [2]",
    "train vdn matrix/nowhere.json": "there is no payoff file nowhere.json",
    "game nowhere.npy": "there is no payoff file nowhere.npy",
    "evaluate nowhere": "nowhere is not a run directory: there is no such directory",
    "evaluate BROKEN": "config.json is damaged: not JSON",
    "evaluate BARE": "holds no policy",
    "export nowhere --format onnx": "nowhere holds no policy: there is no such directory",
    "evaluate RUN --workers 2": "matrix/climbing is a JAX environment: workers, time_limit",
    "evaluate RUN --workers -1": "workers must be a whole number from 0 to 1,024; got -1",
    "evaluate RUN --episodes 0": "episodes must be a whole number from 1 to 1e9; got 0",
    "evaluate RUN --episodes 1e9": "GB of memory are free",
    "evaluate RUN --which first": "--which must be best or last",
    "evaluate RUN --environment lbf/8x8-2p-3f": "the team has observation sizes [1, 1], but lbf/8",
    "resume nowhere": "nowhere is not a run directory",
    "resume BROKEN": "config.json is damaged: not JSON",
    "resume RUN": "has its 400 steps already; extend it with more --steps",
    "resume RUN --steps -1": "steps must be a whole number from 1 to 1e15; got -1",
    "plot nowhere": "nowhere is not a run directory",
    "plot BROKEN": "config.json is damaged: not JSON",
    "plot RUN --out curve.txt": "curve.txt must be a file that ends in .png, .pdf or .svg",
    "plot RUN --metric eval/retrun": "did you mean eval/return/team_sum?",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(call, run, tmp_path, line):
    (tmp_path / "bad.json").write_text('{"payoffs": [[1, 2], [3]]}')
    for name, content in (("broken", "{"), ("bare", (run / "config.json").read_text())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    places = {"NEW": tmp_path / "new", "RUN": run, "BAD": tmp_path / "bad.json",
              "BROKEN": tmp_path / "broken", "BARE": tmp_path / "bare"}  # fmt: skip
    words = [
        re.sub("[A-Z]{3,}", lambda m: str(places.get(m[0], m[0])), word) for word in line.split()
    ]
    before = {f: f.read_bytes() for f in (*tmp_path.rglob("*"), *run.rglob("*")) if f.is_file()}
    refused(call(" ".join(words)), MISTAKES[line])
    assert before == {f: f.read_bytes() for f in before}
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_mistakes_are_one_sentence_in_any_locale(tmp_path, locale):
    wrong = {
        "--lr x": "--lr must be a number above 0, at most 1e6; got x",
        "--gamma 2": "--gamma must be a number from 0 to 1; got 2",
    }
    code = "import sys; from coterie.cli.entry import main; [main(a.split()) for a in sys.argv[1:]]"
    lines = [f"train vdn matrix/climbing {flag}" for flag in wrong]
    environment = {"PYTHONPATH": SOURCE, "LC_ALL": locale, "PYTHONUTF8": "0", "COLUMNS": "40"}
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], env=os.environ | environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    see = " (see coterie train vdn matrix/climbing --help)"
    assert done.stderr.splitlines() == [f"coterie: {sentence}{see}" for sentence in wrong.values()]


def test_failures_of_the_system_are_one_sentence_too(call, run, tmp_path):
    (tmp_path / "file").touch()
    refused(call(f"plot {run} --out /proc/curve.png"), "/proc/curve.png: No such", status=1)
    refused(call(f"plot {run} --out {tmp_path}/file/x.png"), "file: ", status=1)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((run / "config.json").read_text())
    (tmp_path / "bare" / "metrics.jsonl").write_text('{"env_steps": 40}\n')
    refused(call(f"resume {tmp_path / 'bare'}"), "there is no checkpoint in", status=1)


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (MemoryError(), 1, "MemoryError"),
        (RuntimeError("two\n  lines"), 1, "two lines"),
        (OSError(28, "No space left on device", "x"), 1, "x: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_errors(call, monkeypatch, error, status, sentence):
    def fail(*_):
        raise error

    command = table.Command(fail, listing.ListArgs, "coterie list", (0, 0))
    monkeypatch.setitem(COMMANDS, "list", command)
    assert refused(call("list"), status=status) == f"coterie: {sentence}\n"


def test_mistakes_of_coterie_itself_are_not_hidden(call, monkeypatch):
    command = table.Command(lambda *_: 1 / 0, listing.ListArgs, "coterie list", (0, 0))
    monkeypatch.setitem(COMMANDS, "list", command)
    with pytest.raises(ZeroDivisionError):
        call("list")


# The true command ------------------------------------------------------------------------------


def coterie_process(*args: str, cwd: Path, **more) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": SOURCE,
        "XLA_FLAGS": FLAGS,
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "coterie", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **(pipes | more))


def test_ctrl_c_keeps_everything_and_resume_goes_on(call, tmp_path):
    args = ["train", "idqn", "matrix/climbing", "--steps", "1e9", "--out", "run", *SMALL]
    process = coterie_process(*args, cwd=tmp_path)
    head = [process.stderr.readline() for _ in range(5)]  # the last: the evaluation at step 0
    assert head[4].split()[:2] == ["0", "steps"], head
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert re.search(
        r"^stopping after this chunk, with a checkpoint; ask once more to stop at once$", err, re.M
    )
    assert re.search(
        r"^stopped after [\d,]+ steps in \S+; continue with: coterie resume run$", err, re.M
    )
    assert "Traceback" not in err
    steps = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    status, out, err = call(f"resume {tmp_path / 'run'} --steps {steps + 40} --json")
    assert status == 0, err
    assert json.loads(out)["env_steps"] == steps + 40


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    process = coterie_process("train", "qmix", "--help", cwd=tmp_path)
    process.stdout.close()
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_help_does_not_wait_for_the_compiler(tmp_path):
    code = "import sys, coterie.cli.entry as c; c.main(['--help']); sys.exit('jax' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": SOURCE}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


# Words -----------------------------------------------------------------------------------------


def test_numbers_in_words():
    assert [short(x) for x in (0, 999.6, 1234, 999_960, 1.5e6, 2e9)] == [
        "0", "1k", "1.23k", "1M", "1.5M", "2G",
    ]  # fmt: skip
    assert [clock(x) for x in (0, 7.4, 59.6, 754, 3723)] == [
        "0:00",
        "0:07",
        "1:00",
        "12:34",
        "1:02:03",
    ]
    assert [size(x) for x in (2_000, 90_200_000, 138e6, 4.6e12)] == [
        "0.1 MB", "90.2 MB", "138 MB", "4600.0 GB",
    ]  # fmt: skip
    assert plural(1, "seed") == "1 seed"
    assert plural(2, "seed") == "2 seeds"


def test_lines_are_never_broken(capsys):
    long = "a/very/long/path" * 20
    TrainDisplay()("warning", {"sentence": f"[{long}] is damaged"})
    assert capsys.readouterr().err == f"warning: [{long}] is damaged\n"


@pytest.mark.parametrize(("seeds", "shown"), [([1.0, 3.0], "2 (1 to 3 over seeds)"), ([2.0], "2")])
def test_an_evaluation_is_a_line_that_shows_the_spread_over_seeds(capsys, seeds, shown):
    display, metric = TrainDisplay(), "eval/return/team_mean"
    facts = {"env_steps": 100, metric: 2.0, "per_seed": {metric: seeds}}
    display.metric = metric
    display("evaluation", facts)
    assert capsys.readouterr().err == f"   100 steps  return {shown}\n"


def test_a_terminal_shows_one_live_line_that_fits(monkeypatch):
    """Every frame of the bar is one line, at any width; warnings stand above it."""
    import io

    from rich.console import Console

    for width in (60, 80, 120):
        display = TrainDisplay()
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=width, highlight=False)
        display.console = display.bar.live.console = console
        display.live = True
        facts = {
            "eval/return/team_sum": -123.456,
            "train/return/team_sum": -123.456,
            "env_steps": 123_456_789,
            "seconds": 100_000.0,
            "seconds_environment": 1.0,
            "seconds_acting": 1.0,
            "seconds_learning": 1.0,
        }
        display.total = 10**9
        display.task = display.bar.add_task("", total=None)
        spent = {f"seconds_{word}": 0.0 for word in ("environment", "acting", "learning")}
        display.origin = {"env_steps": 0, "seconds": 0.0, **spent}
        display("progress", facts)
        with console.capture() as shown:
            console.print(display.bar.get_renderable())
        text = re.sub(r"\x1b\[[\d;]*m", "", shown.get()).rstrip("\n")
        assert "\n" not in text
        assert len(text) <= width
        assert "123M/1G" in text or width < 100
