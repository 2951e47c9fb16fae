"""Algorithms of the user's own: trained by their path, kept in runs, passed again, refused."""

import ast
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import own_algorithms
import pytest
from own_algorithms import Half
from own_nets import Net
from quick import quick_compilation
from test_own_networks import arrays, assert_same

import coterie
from coterie.analysis.igm import learned_decomposition, learned_utilities
from coterie.cli.entry import main
from coterie.errors import UsageError
from coterie.runs.learner import learner
from coterie.runs.user_code import recorded_code
from coterie.show.report.of_runs import report
from coterie.storage.files import seal
from coterie.training import loop as training

ROOT = Path(__file__).parent.parent
PATH = "their_qtran:QTRAN"
AGAIN = ["--algorithm", PATH]
TINY = {"environments": 4, "hidden": (4,), "learning_starts": 20, "batch_size": 4}
FLAGS = shlex.split(
    "--environments 4 --hidden 4 --learning-starts 20 --batch-size 4 --joint-width 4 "
    "--epsilon-steps 100 --reward mean --evaluations 2 --evaluation-episodes 4 --final-episodes 4"
)
TRAIN = ["train", PATH, "matrix/climbing", "--steps", "400", "--seeds", "2", *FLAGS]


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The current folder, with the example in it and a run of it by the command line."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(ROOT / "examples" / "qtran.py", home / "their_qtran.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", list(sys.path))
        assert main([*TRAIN, "--out", "run"]) == 0
        yield home


def config_of(path):
    return json.loads((Path(path) / "config.json").read_text())


def train(algorithm=Half, out=None, environment="matrix/climbing", **more):
    asked = {"reward": "mean", "evaluations": 1, "evaluation_episodes": 4, "final_episodes": 4}
    settings = TINY if isinstance(algorithm, type | str) else None
    return coterie.train(algorithm, environment, 200, settings=settings, out=out, **asked | more)


# Through every command ---------------------------------------------------------------------------


def test_files_hold_its_path_and_settings(folder):
    config = config_of("run")
    assert config["algorithm"] == PATH
    assert config["settings"]["joint_width"] == 4
    assert recorded_code(config) == {"algorithm": PATH}


@pytest.mark.parametrize(
    "line",
    ["evaluate run --episodes 4", "watch run --out it.html", "resume run --steps 500", "game run"],
)
def test_commands_need_its_path_again(folder, line, capsys):
    shutil.rmtree("copy", ignore_errors=True)
    shutil.copytree("run", "copy")
    line = shlex.split(line.replace("run", "copy"))
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said == (
        f"coterie: the algorithm of the run is {PATH}, which is imported only if you name it: "
        f"give --algorithm {PATH}\n"
    )
    assert main([*line, *AGAIN]) == 0
    assert main([*line, "--algorithm", "own_algorithms:Half"]) == 2
    assert f"is {PATH}, and cannot be own_algorithms:Half" in capsys.readouterr().err


def test_curves_need_the_log_only_and_an_episode_its_path(folder, capsys):
    assert main(["plot", "run", "--out", "curves.png"]) == 0
    assert main(["report", "run", "--out", "page.html"]) == 0
    asks = f"<code>--algorithm {PATH}</code> shows an episode"
    assert asks in Path("page.html").read_text()
    assert main(["report", "run", "--out", "page.html", *AGAIN]) == 0
    assert asks not in Path("page.html").read_text()
    assert 'class="viewer"' in Path("page.html").read_text()
    assert main(["report", "run", "--out", "page.html", "--algorithm", "a:B"]) == 2
    assert f"no run has the algorithm a:B; theirs: {PATH}" in capsys.readouterr().err


def test_next_commands_name_it(folder, capsys):
    assert main([*TRAIN, "--out", "run", "--resume"]) == 0  # it is complete: the result again
    said = capsys.readouterr().out
    (printed,) = re.findall(r"^  coterie (evaluate .*)$", said, re.M)
    assert printed == f"evaluate run --algorithm {PATH}"
    assert main(shlex.split(printed)) == 0


def test_its_settings_are_flags(folder, capsys):
    assert main(["train", PATH, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"\n{PATH}\n" in said
    assert "--joint-width N" in said
    assert main(["completion", "--words", "train", PATH, "matrix/climbing", "--joint"]) == 0
    assert capsys.readouterr().out == "--joint-width\n"
    assert main([*TRAIN, "--joint-widht", "4"]) == 2
    assert "did you mean --joint-width?" in capsys.readouterr().err
    assert main([*TRAIN, "--greedy-weight", "-1"]) == 2
    assert "--greedy-weight must be a number from 0 to 1e15" in capsys.readouterr().err
    assert main([*TRAIN, "--preset", "epymarl"]) == 2
    assert "a preset has settings of Coterie's algorithms" in capsys.readouterr().err


def test_other_settings_are_another_run(folder, capsys):
    for more, says in (
        (["--joint-width", "5"], "joint_width is 4, not 5"),
        (["--steps", "600"], "steps is 400, not 600; resume --steps extends"),
    ):
        assert main([*TRAIN, *more, "--out", "run", "--resume"]) == 2
        assert says in capsys.readouterr().err
    assert main(["train", "vdn", *TRAIN[2:5], "--reward", "mean", "--out", "run", "--resume"]) == 2
    assert f"algorithm is {PATH}, not vdn" in capsys.readouterr().err


# A run goes on -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume", "train"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(folder, how, monkeypatch, capsys):
    out, advance = f"stopped-{how}", training.Program.advance

    def stopped(self, state, iteration, count):
        if iteration > 30:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, state, iteration, count)

    monkeypatch.setattr(training.Program, "advance", stopped)
    assert main([*TRAIN, "--out", out]) == 130
    printed = f"coterie resume {out} --algorithm {PATH}"
    assert printed in capsys.readouterr().err
    monkeypatch.setattr(training.Program, "advance", advance)
    again = shlex.split(printed)[1:] if how == "resume" else [*TRAIN, "--out", out, "--resume"]
    assert main(again) == 0
    runs = [coterie.open_run(path, algorithm=PATH) for path in ("run", out)]
    assert_same(*runs)
    jax.tree.map(np.testing.assert_array_equal, *map(learner, runs))


@pytest.mark.slow
def test_a_run_is_extended_to_what_a_longer_one_would_have_been(folder):
    """But for what follows from the number of steps, which is given."""
    assert main([*TRAIN, "--out", "longer", "--steps", "600"]) == 0
    shutil.copytree("run", "extended")
    coterie.resume("extended", 600, algorithm=PATH)
    last = [arrays(coterie.open_run(p, algorithm=PATH))["last"] for p in ("longer", "extended")]
    jax.tree.map(np.testing.assert_array_equal, *last)


# In Python ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return train(Half(**TINY, factor=0.25), tmp_path_factory.mktemp("half") / "run")


def test_a_run_is_opened_with_its_class(half):
    assert config_of(half.path)["algorithm"] == "own_algorithms:Half"
    for algorithm in (Half, "own_algorithms:Half"):
        again = coterie.open_run(half.path, algorithm=algorithm)
        assert again.algorithm == half.algorithm
        assert type(again.algorithm) is Half
        assert again.algorithm.factor == 0.25
        assert_same(half, again)
        assert again.evaluate(4) == half.evaluate(4)
    for use in (coterie.open_run, coterie.resume):
        with pytest.raises(UsageError, match=r"give --algorithm own_algorithms:Half$"):
            use(half.path)
        with pytest.raises(UsageError, match="cannot be own_algorithms:Inherits"):
            use(half.path, algorithm=own_algorithms.Inherits)
        with pytest.raises(UsageError, match=r"algorithm must be the class .* got Half\("):
            use(half.path, algorithm=half.algorithm)
        with pytest.raises(UsageError, match="the torso of the run is auto"):
            use(half.path, algorithm=Half, torso=Net)


def test_teams_need_no_algorithm(half):
    team = coterie.load(half.path, which="last")
    policy = jax.tree.map(lambda x: x[0], half.policies["last"])
    seen = half.game.reset(jax.random.key(0))[1].observations
    outputs, _ = policy.step(policy.initial_hidden_state(), seen, jax.numpy.zeros(2, bool))
    actions, _ = team.act([*np.asarray(seen)], team.initial_hidden_state())
    assert actions == np.argmax(outputs, -1).tolist()


@pytest.mark.filterwarnings("ignore::coterie.errors.DamagedFile")  # of its log, of another run
def test_no_file_of_a_run_makes_it_be_imported(half, tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    (tmp_path / "evil_algorithm.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "from own_algorithms import Half as There\n\nclass Half(There):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(half.path, tmp_path / "run")
    for name in ("config.json", "policy/policy.json"):
        path = tmp_path / "run" / name
        text = path.read_text().replace("own_algorithms:Half", "evil_algorithm:Half")
        path.write_text(json.dumps(seal(json.loads(text))))
    run = str(tmp_path / "run")
    coterie.load(run)
    for command in ("evaluate", "watch", "resume", "game"):
        assert main([command, run]) == 2
    for command, out in (("plot", "c.png"), ("report", "p.html")):
        main([command, run, "--out", str(tmp_path / out)])
    assert not mark.exists()
    coterie.open_run(run, algorithm="evil_algorithm:Half")
    assert mark.exists()  # now that it was named
    del sys.modules["evil_algorithm"]


@pytest.mark.slow
def test_a_class_without_a_path_is_opened_in_python(tmp_path):
    class Local(Half):
        pass

    run = train(Local, tmp_path / "run")
    with pytest.raises(UsageError, match=r"cannot be imported by a path: .* \(algorithm=\.\.\.\)"):
        coterie.open_run(run.path)
    assert_same(run, coterie.open_run(run.path, algorithm=Local))


@pytest.mark.slow
def test_other_code_of_ones_own_beside_it(tmp_path, capsys):
    run = train(Half(**TINY, torso=Net), tmp_path / "run")
    both = "--algorithm own_algorithms:Half --torso own_nets:Net"
    assert main(["evaluate", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "is own_algorithms:Half, its torso own_nets:Net, which are imported only if" in said
    assert said.endswith(f"give {both}\n")
    with pytest.raises(UsageError, match=r"the torso of the run .*: give --torso own_nets:Net$"):
        coterie.open_run(run.path, algorithm=Half)
    assert main(["evaluate", str(run.path), "--episodes", "2", *both.split()]) == 0
    page = report([run.path], tmp_path / "page.html", algorithm=Half, torso=Net)
    assert 'class="viewer"' in page.read_text()


@pytest.mark.slow
def test_a_run_of_the_package_is_given_none(tmp_path):
    run = train(coterie.VDN, tmp_path / "run")
    for algorithm in (Half, coterie.VDN):
        with pytest.raises(UsageError, match="algorithm of the run is vdn, and no class of your"):
            coterie.open_run(run.path, algorithm=algorithm)


@pytest.mark.slow
def test_python_environments(tmp_path, capsys):
    """Interrupted by nothing, but extended; the environment and the class are named together."""
    serial = coterie.PythonEnvSettings(workers=0)
    run = train(Half, tmp_path / "run", "guests:Relay", python_env=serial)
    assert main(["resume", str(run.path), "--steps", "300"]) == 2
    both = "--algorithm own_algorithms:Half --environment guests:Relay"
    assert capsys.readouterr().err.endswith(f"give {both}\n")
    assert main(["resume", str(run.path), "--steps", "300", *both.split()]) == 0
    again = coterie.open_run(run.path, "guests:Relay", algorithm=Half)
    assert 300 <= again.steps < 310


# What it learned ---------------------------------------------------------------------------------


def test_tables_of_a_joint_value_of_utilities(half, folder, capsys):
    """QTRAN's loss learns another joint value than the sum of utilities."""
    assert learned_decomposition(half).q_tot.shape == (3, 3)
    assert main(["game", str(half.path), "--algorithm", "own_algorithms:Half", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["decompositions"]) == 1
    qtran = coterie.open_run("run", algorithm=PATH)
    assert [len(u) for u in learned_utilities(qtran, 1)] == [3, 3]
    with pytest.raises(UsageError, match=f"{PATH} learns no joint value of utilities"):
        learned_decomposition(qtran)
    assert main(["game", "run", *AGAIN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decompositions"] == []
    assert len(found["play"]) == 2


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_algorithms.Half", "one of your own is named module:Class, own_algorithms:Half"),
        ("own_algorithms:Hallf", "own_algorithms has no Hallf; did you mean Half"),
        ("nowhere.to:Half", "there is no module nowhere"),
        ("own_algorithmz:Half", "there is no module own_algorithmz; did you mean own_algorithms"),
        ("own_algorithms.py:Half", "is a file, .* own_algorithms:Half"),
        ("raises_at_once:A", r"was imported: RuntimeError: no \(raises_at_once.py, line 1\)"),
        ("a b:Half", "not the name of a module"),
        (":Half", "not the name of a module"),
        ("own_algorithms:", "has no"),
        ("own_algorithms:NUMBER", "NUMBER of own_algorithms is not callable"),
        ("own_algorithms:make", "own_algorithms:make is no algorithm"),
        ("own_nets:Net", "own_nets:Net is no algorithm"),
        ("own_algorithms:Breaks", r"made: KeyError: 'no such setting' \(own_algorithms.py, line"),
        ("own_algorithms:Exits", r"raised as it was trained: SystemExit: 3 \(own_algorithms.py, l"),
        ("own_algorithms:Made", r"is own_algorithms:make.<locals>.Inner, which no command could"),
        ("own_algorithms:Base", "is a base of algorithms, .* does not define joint, step_loss, ta"),
        ("own_algorithms:NoMode", "must have the class attribute mode, one of 'decentralised"),
        ("own_algorithms:NoReward", "must have the class attribute common_reward"),
        ("own_algorithms:Undecorated", r"factor of .* is no setting yet: put @dataclass"),
        (
            "own_algorithms:Untyped",
            "gamma of own_algorithms:Untyped has no type, and so chang",
        ),
        ("own_algorithms:Table", "the setting table of own_algorithms:Table has no default"),
        ("own_algorithms:Required", "the setting needed of .* has no default"),
        ("own_algorithms:Call", "the setting call of .* is declared as .*object.*, and settings"),
        ("own_algorithms:Numbers", r"the setting choice of .* is declared as .*Literal\[1, 2\]"),
        ("own_algorithms:Unknown", "the type of a setting of .* cannot be read: .*'Nowhere'"),
        ("own_algorithms:Steps", "the setting steps of .* has a name that has another meaning"),
        ("own_algorithms:Name", "the setting name of .* has a name that has another meaning"),
        ("own_algorithms:Out", "--out of Out is a flag of the command itself: give the setting ou"),
    ],
)
def test_what_is_no_algorithm_is_refused_in_a_sentence(name, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "raises_at_once.py").write_text("raise RuntimeError('no')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(Path(__file__).parent)
    out = tmp_path / "run"
    assert main(["train", name, "matrix/climbing", "--steps", "100", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert re.search(says, said)
    assert said.count("\n") == 1
    assert not out.exists()


def test_what_is_made_already_is_refused_in_a_sentence_too():
    for wrong, says in (
        (own_algorithms.Call(), "the setting call of"),
        (own_algorithms.NoMode(), "must have the class attribute mode"),
    ):
        with pytest.raises(UsageError, match=says):
            train(wrong)


def test_what_it_raises_is_said_with_its_line(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"^own_algorithms:Raises raised as it was trained: KeyError: 'no such loss' "
        r"\(own_algorithms.py, line \d+\)$",
    ) as raised:
        train(own_algorithms.Raises, tmp_path / "run")
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            own_algorithms.Narrow,
            r"TypeError: Narrow.joint\(\) takes 2 positional .* \(.*, line \d+",
        ),
        (own_algorithms.Flat, r"(TypeCheck|Type|Value)Error: .*\(.*, line \d+\)$"),
    ],
)
def test_what_does_not_fit_is_said_of_the_class(kind, says):
    name = f"own_algorithms:{kind.__name__}"
    with pytest.raises(UsageError, match=f"^{name} has a method that does not fit .*{says}"):
        train(kind)


def test_errors_of_callbacks_stay_what_they_are():
    def broken(event):
        raise ValueError("mine")

    algorithm = Half(**TINY)
    with pytest.raises(ValueError, match="mine"):
        coterie.train(algorithm, "matrix/climbing", 100, reward="mean", callback=broken)


def changed(monkeypatch, **fields):
    """The class as its author changed it since."""
    made = dataclasses.make_dataclass(
        "Half", [(n, type(v), dataclasses.field(default=v)) for n, v in fields.items()],
        bases=(coterie.VDN,), frozen=True, kw_only=True,
    )  # fmt: skip
    made.__module__, made.__qualname__ = "own_algorithms", "Half"
    monkeypatch.setattr(own_algorithms, "Half", made)


def test_a_class_that_changed_its_settings_since(half, monkeypatch, caplog):
    for fields, says in (
        (
            {"factr": 0.5, "kind": "plain"},
            "has no setting factor, .* trained with; did you mean fa",
        ),
        ({"factor": 1}, "own_algorithms:Half has no setting kind, which the run was trained with$"),
        ({"factor": "a", "kind": "b"}, "Half does not take the settings of the run: factor must"),
    ):
        changed(monkeypatch, **fields)
        with pytest.raises(UsageError, match=says):
            coterie.open_run(half.path, algorithm="own_algorithms:Half")
    changed(monkeypatch, factor=0.5, kind="plain", further=3)
    run = coterie.open_run(half.path, algorithm="own_algorithms:Half")
    assert run.algorithm.further == 3
    assert "has the setting further, which the run does not state: it is 3" in caplog.text


def test_a_class_with_other_parameters_since(half, tmp_path, monkeypatch):
    class Wider(Half):
        def make_mixer(self, key, game):
            return jax.random.normal(key, (3,))

    Wider.__qualname__ = "Half"
    Wider.__module__ = "own_algorithms"
    monkeypatch.setattr(own_algorithms, "Half", Wider)
    shutil.copytree(half.path, tmp_path / "run")
    with pytest.raises(UsageError, match="own_algorithms:Half has other parameters than the run"):
        coterie.resume(tmp_path / "run", 400, algorithm="own_algorithms:Half")


# What may be imported ----------------------------------------------------------------------------


def test_examples_import_what_the_page_lists():
    page = (ROOT / "docs" / "add-an-algorithm.md").read_text()
    rows = re.findall(r"^\| `(coterie[\w.]*)` \| (.*) \|$", page, re.M)
    public = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    for module, names in public.items():
        found = __import__(module, fromlist=["*"])
        assert names <= set(dir(found)), module
    examples = [(ROOT / "examples" / name).read_text() for name in ("qtran.py", "seac.py")]
    shown = re.findall(r"^```python\n(\"\"\".*?)^```$", page, re.M | re.S)
    assert len(shown) == 2
    for code in (*examples, *shown):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("coterie"):
                assert {name.name for name in node.names} <= public[node.module], node.module
