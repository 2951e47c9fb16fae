"""Going on with runs: begun or not, interrupted or complete, here or elsewhere."""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from probes import small
from quick import quick_compilation

import coterie
from coterie.cli.entry import main
from coterie.errors import NotFinite, UsageError
from coterie.runs import api
from coterie.runs.continuation import moved_sentence, note_session, resume_command
from coterie.storage import config_file
from coterie.storage.run_directory import RunDirectory
from coterie.training import loop as training

EACH = 16
STEPS = 8 * EACH
TINY = ["--environments", "4", "--rollout-steps", "4", "--hidden", "8", "--evaluations", "2",
        "--final-episodes", "3"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(training, "CHUNK_STEPS", EACH)
        yield


def start(out, report=None, algorithm=None, steps=STEPS, **more):
    options = {"evaluations": 2, "final_episodes": 4, "options": {"rounds": 3}} | more
    chosen = algorithm or small("ia2c")
    return coterie.train(chosen, "matrix/climbing", steps, out=out, report=report, **options)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    return start(tmp_path_factory.mktemp("calm") / "run")


def stop_at(event: str, number: int = signal.SIGINT):
    seen = []

    def report(now, facts):
        seen.append(now)
        if now == event and seen.count(event) == 2:
            os.kill(os.getpid(), number)

    return report


def contents(run: Path) -> dict[str, object]:
    """Every file but the clock's readings, and digests of lines that hold them."""
    clock = {"seconds", "steps_per_second", "steps_per_second_total", "elapsed_time", "digest"}

    def still(tree):
        if isinstance(tree, dict):
            return {k: still(v) for k, v in tree.items() if k not in clock}
        return tree

    found: dict[str, object] = {}
    for name in ("metrics.jsonl", "evaluations.json", "result.json"):
        lines = (run / name).read_text().splitlines() if name.endswith("l") else None
        parsed = map(json.loads, lines) if lines else [json.loads((run / name).read_text())]
        found[name] = [json.dumps(still(line)) for line in parsed]
    for path in run.glob("policy/**/*.safetensors"):
        found[str(path.relative_to(run))] = path.read_bytes()
    return found


# train(resume=True) ----------------------------------------------------------------------------


def test_the_same_line_begins_goes_on_and_shows_the_result(calm, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(coterie.Interrupted):
        start(run, stop_at("progress"), resume=True)  # nothing is there: it begins
    assert 0 < coterie.open_run(run).steps < STEPS
    done = start(run, resume=True)
    assert done.complete
    assert contents(run) == contents(calm.path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    shown = start(run, stop_at("progress"), resume=True)  # it is complete: nothing is trained
    assert shown.complete
    assert shown.metrics == json.loads(json.dumps(done.metrics))
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for lost in ("{", '{"metrics": {}}'):
        (run / "result.json").write_text(lost)
        assert coterie.open_run(run).metrics == {}
        assert start(run, resume=True).metrics == done.metrics  # evaluated again: the same
    assert coterie.open_run(run).metrics == json.loads(json.dumps(done.metrics))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"algorithm": small("ia2c", gamma=0.5)}, "gamma is 0.99, not 0.5"),
        ({"algorithm": small("maa2c")}, "algorithm is ia2c, not maa2c"),
        ({"steps": 2 * STEPS}, "steps is 128, not 256; resume --steps extends a run"),
        ({"seeds": 2, "seed": 1}, "seeds is 1, not 2, seed is 0, not 1"),
        ({"options": {"rounds": 4}}, "env.rounds is 3, not 4"),
        ({"reward": "sum"}, "reward is mean, not sum"),
        ({"final_episodes": 5}, "final_episodes is 4, not 5"),
    ],
)
def test_other_settings_are_refused_by_name(calm, more, sentence):
    before = (calm.path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=re.escape(sentence)) as error:
        start(calm.path, resume=True, **more)
    assert str(error.value).count(" is ") == sentence.count(" is ")
    assert (calm.path / "config.json").read_bytes() == before


def test_what_follows_from_the_number_of_steps_is_not_a_difference_of_its_own(tmp_path):
    q = coterie.VDN(environments=4, hidden=(8,), batch_size=8, buffer_size=256, learning_starts=16)
    start(tmp_path / "run", algorithm=q, steps=64, final_episodes=0)
    with pytest.raises(UsageError) as error:
        start(tmp_path / "run", algorithm=q, steps=640, final_episodes=0, resume=True)
    assert str(error.value).count(" is ") == 1
    assert start(tmp_path / "run", algorithm=q, steps=64, final_episodes=0, resume=True).complete
    with pytest.raises(UsageError, match="name it"):
        start(None, resume=True)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param((".lock",), marks=pytest.mark.slow),
        (".lock", "config.json.tmp"),
    ],
)
def test_a_directory_that_holds_nothing_is_none(tmp_path, left):
    for resume in (False, True):
        run = tmp_path / str(resume)
        run.mkdir()
        for name in left:
            (run / name).write_text("{")
        assert start(run, final_episodes=0, resume=resume).complete


def test_a_run_that_was_begun_only_is_resumed_from_its_start(calm, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(calm.path / "config.json", run)
    assert RunDirectory(run).is_untrained()
    assert coterie.resume(run).complete
    assert contents(run) == contents(calm.path)
    # What has lost its checkpoints is another matter: it is not trained anew.
    shutil.rmtree(run / "checkpoints")
    assert not RunDirectory(run).is_untrained()


# Interruptions ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_a_loop_over_trainings(tmp_path, number):
    begun = []
    with pytest.raises(KeyboardInterrupt) as stopped:  # noqa: PT012
        for seed in range(3):
            begun.append(seed)
            start(tmp_path / str(seed), stop_at("progress", number), seed=seed)
    assert begun == [0]
    assert f"continue with: coterie resume {tmp_path / '0'}" in str(stopped.value)
    assert not coterie.open_run(tmp_path / "0").complete
    with pytest.raises(KeyboardInterrupt):
        coterie.resume(tmp_path / "0", report=stop_at("progress", number))
    assert coterie.resume(tmp_path / "0").complete
    with pytest.raises(KeyboardInterrupt, match=r"nothing is kept of it"):
        start(None, stop_at("progress", number))


@pytest.mark.slow
def test_a_run_that_was_extended_is_not_advised_to_be(tmp_path):
    run = tmp_path / "run"
    start(run)
    assert coterie.resume(run, STEPS + EACH).complete
    with pytest.raises(UsageError, match="steps is 144, not 128") as refused:
        start(run, resume=True)
    assert "extends" not in str(refused.value)


@pytest.mark.slow
def test_an_interruption_in_the_last_chunk_is_none_of_the_result(tmp_path):
    def report(event, facts):
        if event == "progress" and facts["env_steps"] == STEPS:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(coterie.Interrupted, match="continue with: coterie resume"):
        start(tmp_path / "judged later", report)
    assert coterie.resume(tmp_path / "judged later").metrics
    with pytest.raises(coterie.Interrupted, match="is complete") as stopped:
        start(tmp_path / "complete", report, final_episodes=0)
    assert stopped.value.resume is None
    assert stopped.value.complete
    for error in (stopped.value, NotFinite("the loss", 1, 240)):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["run", "a run; with (words)", "-run"])
def test_the_command_that_is_printed_works(tmp_path, monkeypatch, capsys, folder):
    """On code of the user's, in a folder whose name a shell would take apart."""
    source = (Path(__file__).parent.parent / "examples" / "two_doors.py").read_text()
    (tmp_path / "their_doors.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    advance = training.Program.advance

    def stopped(self, state, iteration, count):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, state, iteration, count)

    monkeypatch.setattr(training.Program, "advance", stopped)
    line = ["train", "ia2c", "their_doors:TwoDoors", "--steps", "128", f"--out={folder}", *TINY]
    assert main([*line, "--json"]) == 130
    monkeypatch.setattr(training.Program, "advance", advance)
    printed, said = capsys.readouterr()
    stopped_at = json.loads(printed)
    assert stopped_at["complete"] is False
    policies = stopped_at["policies"]
    assert policies["last"] == {"env_steps": [stopped_at["env_steps"]], "metrics": {}}
    assert stopped_at["which"] in policies
    (printed,) = re.findall(r"; continue with: coterie (.*)\n", said)
    assert main([*shlex.split(printed), "--json"]) == 0, said
    assert json.loads(capsys.readouterr().out)["complete"] is True
    # The same line again, with --resume, shows the result; in one document.
    assert main([*line, "--resume", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["complete"] is True
    assert answer["metrics"]
    assert main([*line, "--resume", "--gamma", "0.5"]) == 2
    assert "gamma is 0.99, not 0.5" in capsys.readouterr().err


def test_what_no_command_can_name_is_continued_in_python():
    assert resume_command(Path("x y"), {}) == "coterie resume 'x y'"
    gym = {"environment": "gymnasium:a-v1"}
    named = "coterie resume x --environment gymnasium:a-v1"
    assert resume_command(Path("x"), gym, "gymnasium:a-v1") == named
    for thing in (object(), lambda: None, Path):
        said = resume_command(Path("x"), {"environment": "m:thing"}, thing)
        assert said == "coterie.resume('x', environment=...) in Python, with the same environment"
    script = {"algorithm": "__main__:A", "torso": "nets:Net"}
    said = resume_command(Path("x"), script | gym, "gymnasium:a-v1")
    assert said == (
        "coterie.resume('x', algorithm=..., torso='nets:Net', environment='gymnasium:a-v1') in "
        "Python, with the same algorithm"
    )


# Elsewhere -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_version_or_machine_is_said_and_recorded(tmp_path, monkeypatch):
    run, here = tmp_path / "run", api.place()
    with pytest.raises(coterie.Interrupted):
        start(run, stop_at("progress"))
    config = RunDirectory(run).config()
    assert config["sessions"] == [{"env_steps": 0, **here}]
    name = config_file.identity(config)
    there = {
        "versions": here["versions"] | {"jax": "9.9"},
        "machine": here["machine"] | {"cores": 77},
    }
    monkeypatch.setattr(api, "place", lambda: there)
    said = []
    with pytest.raises(coterie.Interrupted) as stopped:
        coterie.resume(run, report=lambda e, f: said.append((e, f)) or stop_at_once(e))
    (warning,) = [f["sentence"] for e, f in said if e == "warning"]
    assert f"jax {here['versions']['jax']} (now 9.9), cores " in warning
    assert "(now 77)" in warning
    assert "numpy" not in warning
    assert [s["machine"]["cores"] for s in RunDirectory(run).config()["sessions"]][1:] == [77]
    assert RunDirectory(run).config()["sessions"][1]["env_steps"] < stopped.value.steps
    assert config_file.identity(RunDirectory(run).config()) == name
    said.clear()
    coterie.resume(run, report=lambda e, f: said.append((e, f)))  # nothing has changed since
    assert not [e for e, _ in said if e == "warning"]
    assert len(RunDirectory(run).config()["sessions"]) == 2


def stop_at_once(event):
    if event == "progress":
        os.kill(os.getpid(), signal.SIGINT)


def test_what_is_not_known_does_not_differ():
    now = {"versions": {"jax": "1"}, "machine": {"cores": 2}}
    assert moved_sentence({}, now) is None
    assert moved_sentence({"versions": None, "machine": 3}, now) is None
    assert moved_sentence({"versions": {"jax": "1"}}, now) is None
    hostile = moved_sentence({"versions": {"jax": "\x1b[2J" * 99}}, now)
    assert hostile is not None
    assert hostile.isprintable()


def test_sessions_stay_few():
    config: dict = {}
    for k in range(3000):
        note_session(config, k, {"versions": {"jax": str(k)}, "machine": {}})
    steps = [s["env_steps"] for s in config["sessions"]]
    assert steps[0] == 0
    assert steps[1:] == list(range(2000, 3000))
