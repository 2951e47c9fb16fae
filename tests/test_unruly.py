"""What an environment does to its process reaches neither the command nor other environments."""

import contextlib
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import unruly
from quick import FLAGS

import coterie
from coterie import EnvironmentFault
from coterie.python_envs.opening import open_python_env
from coterie.python_envs.workers import pool as fleets
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, STEP, Limits
from coterie.spec import PythonEnvFactory

PLACES = unruly.PLACES


def each(quick: Sequence[tuple], *all_of: Sequence) -> list:
    """Every combination; all but the quick ones are run with the slow tests."""
    return [
        pytest.param(*one, marks=() if one in quick else pytest.mark.slow)
        for one in itertools.product(*all_of)
    ]


def hosted(name: str) -> PythonEnvFactory:
    """Promises as ``guests:Dice`` does; what misbehaves is not opened here."""
    sound = open_python_env(name, unruly.Dice)
    inner = functools.partial(sound.make.func, getattr(unruly, name), *sound.make.args[1:])
    return PythonEnvFactory(name, inner, sound.promise)


def move(vector_env, command: int) -> list:
    vector_env.rows.command[:] = command
    vector_env.start(0)
    return vector_env.wait(0)


def play(vector_env) -> list:
    """The first faults in a few steps."""
    for command in (RESET, STEP, STEP):
        if faults := move(vector_env, command):
            return faults
    return []


@contextlib.contextmanager
def opened(name: str, workers: int, limits: Limits, count: int = 1):
    with contextlib.closing(
        make_vector_env(hosted(name), [range(count)], limits, workers)
    ) as vector_env:
        yield vector_env


@contextlib.contextmanager
def at_most(seconds: float):
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def is_gone(pid: int) -> bool:
    """Whether no process is left, after a while, of the session that a worker made for itself."""
    deadline = time.monotonic() + 10
    while session(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not session(pid)


def session(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
            found += [int(stat.parent.name)] if int(own) == pid and state != "Z" else []
    return found


# Ends -------------------------------------------------------------------------------------------

ENDS = {
    "leave": r"SystemExit: 3 \(unruly.py, line ",
    "interrupt": r"KeyboardInterrupt \(unruly.py, line ",
    "cancel": r"CancelledError \(unruly.py, line ",
    "end": r"its worker process ended \(exit status 7\)",
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("where", PLACES[:3])
@pytest.mark.parametrize("what", ENDS)
def test_what_would_end_the_process_is_a_named_fault(what, where, workers, monkeypatch):
    if (what, workers) == ("end", 0):
        pytest.skip("os._exit in this process would end the tests with it")
    # As a training does, which asks itself to stop at the first Ctrl-C.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with opened(f"{what}_{where}", workers, Limits(60.0)) as vector_env:
            (fault,) = play(vector_env)
    finally:
        signal.signal(signal.SIGINT, before)
    assert fault.step == (where == "step")
    assert not fault.lost
    assert re.search(ENDS[what], fault.what), fault.what


@pytest.mark.parametrize("what", ["leave", "cancel"])
@pytest.mark.parametrize("where", ["init", "close"])
def test_what_would_end_this_process_as_it_is_opened_is_named(what, where):
    name = f"unruly:{what}_{where}"
    with pytest.raises(EnvironmentFault, match=ENDS[what]):
        coterie.train(coterie.IPPO(), name, 100)
    if what == "leave":
        assert any("SystemExit: 3" in f.sentence for f in coterie.check_env(name).findings)


def test_a_module_that_would_end_this_process_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaving.py").write_text("import sys, os\nos.chdir('/')\nsys.exit(3)")
    here = os.getcwd()
    with pytest.raises(EnvironmentFault, match=r"imported: SystemExit: 3 \(leaving.py, line 3\)"):
        coterie.train(coterie.IPPO(), "leaving:make", 100)
    assert os.getcwd() == here


# Directories ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", PLACES)
def test_the_directory_is_put_back(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    with opened(f"move_away_{where}", 0, Limits(60.0)) as vector_env:
        assert play(vector_env) == []
        assert os.getcwd() == here
    assert os.getcwd() == here
    open_python_env("x", getattr(unruly, f"move_away_{where}"))
    assert os.getcwd() == here
    coterie.check_env(getattr(unruly, f"move_away_{where}"), episodes=1)
    assert os.getcwd() == here


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_stays_in_its_own_directory(workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    with opened("Settled", workers, Limits(60.0), count=2) as vector_env:
        assert play(vector_env) == []
    assert os.getcwd() == here


def test_handlers_of_ctrl_c_are_put_back_where_it_is_opened():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    open_python_env("x", unruly.take_signals_init)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# What is left behind ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "where"),
    each(
        [("leave_a_thread", "init"), ("hang_at_exit", "step"), ("leave_a_child", "reset")],
        ["leave_a_thread", "hang_at_exit", "leave_a_child", "fork"],
        PLACES,
    ),
)
def test_a_worker_ends_with_all_that_its_environment_started(what, where):
    with opened(f"{what}_{where}", 1, Limits(60.0)) as vector_env:
        assert play(vector_env) == []
        (pid,) = vector_env.processes()
        begun = time.monotonic()
    assert time.monotonic() - begun < fleets.GRACE + fleets.LINGER + 5
    assert is_gone(pid)


@pytest.mark.parametrize("what", ["leave_a_child", "fork"])
def test_a_worker_that_dies_is_noticed_though_its_children_hold_its_pipe(what):
    with opened(f"{what}_reset", 1, Limits(60.0)) as vector_env:
        assert move(vector_env, RESET) == []
        (pid,) = vector_env.processes()
        os.kill(pid, signal.SIGKILL)
        with at_most(20):
            (fault,) = move(vector_env, STEP)
        assert fault.what == "its worker process ended (SIGKILL)"
        assert is_gone(pid)


def test_ctrl_c_does_not_reach_a_worker_whose_environment_takes_signals():
    with opened("take_signals_reset", 1, Limits(60.0)) as vector_env:
        assert move(vector_env, RESET) == []
        (pid,) = vector_env.processes()
        assert os.getpgid(pid) == os.getsid(pid) == pid != os.getpgid(0)
        assert move(vector_env, STEP) == []


# Stopped workers --------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(fleets, "GRACE", 0.5)


@pytest.mark.parametrize(
    ("what", "where"),
    each(
        [("hold_the_interpreter", "step"), ("stop", "reset")],
        ["stop", "hold_the_interpreter"],
        PLACES,
    ),
)
def test_a_worker_that_stands_still_is_noticed_within_its_limit(what, where, hasty):
    limits = Limits(1.5, opening=20.0 if where == "init" else 600.0)
    with opened(f"{what}_{where}", 1, limits) as vector_env:
        if where in ("step", "close"):
            assert move(vector_env, RESET) == []
        if where != "close":
            with at_most(limits.step + (limits.opening if where == "init" else 0) + 15):
                (fault,) = move(vector_env, STEP if where == "step" else RESET)
            assert fault.what.startswith("its process did not answer for ")
            assert not fault.lost
        begun = time.monotonic()
    assert time.monotonic() - begun < 15


@pytest.mark.slow
def test_a_worker_that_is_stopped_with_nothing_to_do_is_noticed_within_its_limit(hasty):
    with opened("Dice", 1, Limits(1.5, opening=600.0)) as vector_env:
        assert play(vector_env) == []
        (pid,) = vector_env.processes()
        for command in (STEP, RESET):
            os.kill(pid, signal.SIGSTOP)
            with at_most(15):
                (fault,) = move(vector_env, command)
            assert fault.what.startswith("its process did not answer for ")
            assert move(vector_env, RESET) == []
            assert vector_env.processes() != [pid]
            (pid,) = vector_env.processes()


def test_closing_in_this_process_has_a_limit():
    with opened("wait_close", 0, Limits(0.5)) as vector_env:
        assert move(vector_env, RESET) == []
        begun = time.monotonic()
    assert time.monotonic() - begun < 15


# Commands ---------------------------------------------------------------------------------------

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))
PLAY = str(HERE / "play_command.py")


def command(*args: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    """A command in a process of its own, in a folder of its own."""
    return subprocess.run(
        [sys.executable, PLAY, *args], cwd=folder, text=True, capture_output=True, timeout=250,
        env=os.environ | {"PYTHONPATH": PATHS, "XLA_FLAGS": FLAGS},
    )  # fmt: skip


def answer(done: subprocess.CompletedProcess, status: int = 0) -> dict:
    """The one JSON document of a command; what environments shouted is on standard error."""
    assert done.returncode == status, done.stderr
    assert "SHOUTED" in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_an_environment_prints_is_not_in_the_answer(workers):
    done = command("play", "unruly:Everywhere", workers)
    assert answer(done, 5) == {"played": "unruly:Everywhere"}
    for way in ("print", "into an object", "into the first", "into the descriptor", "by C",
                "by another process", "by a thread", "at a step", "for a space"):  # fmt: skip
        assert re.search(f"^SHOUTED {way}|^SHOUTED by {way}", done.stderr, re.M), way


def test_what_a_module_prints_is_not_in_the_answer(tmp_path):
    source = "import unruly\nunruly.shout()\nmake = unruly.Dice\n"
    (tmp_path / "loud.py").write_text(source)
    for args, status in ((("play", "loud:make", "1"), 5), (("check", "loud:make", "--json"), 0)):
        assert answer(command(*args, folder=tmp_path), status)


def test_an_answer_into_a_pipe_that_is_closed_is_no_mistake():
    with subprocess.Popen(
        [sys.executable, PLAY, "play", "guests:Dice", "0"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": PATHS}, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() in (1, 5)


@pytest.mark.parametrize(
    ("what", "where", "workers"),
    each(
        [("leave_a_thread", "init", "1"), ("hang_at_exit", "step", "0")],
        ["leave_a_thread", "hang_at_exit"],
        PLACES,
        ["0", "1"],
    ),
)
def test_a_command_ends_with_its_status_whatever_is_left_running(what, where, workers):
    done = command("play", f"unruly:{what}_{where}", workers)
    assert (done.returncode, done.stderr) == (5, "")
    assert json.loads(done.stdout) == {"played": f"unruly:{what}_{where}"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_command_answers_with_one_document(workers, tmp_path):
    name, small = "unruly:Everywhere", ["--environments", "2", "--hidden", "4"]
    again = ["--environment", name, "--workers", workers]
    train = ["train", "ia2c", name, "--steps", "40", "--out", "run", "--workers", workers]
    for args in (
        [*train, *small, "--evaluations", "1", "--final-episodes", "2"],
        ["evaluate", "run", *again, "--episodes", "2"],
        ["resume", "run", *again, "--steps", "80"],
    ):
        assert answer(command(*args, "--json", folder=tmp_path))["metrics"]
    done = command("watch", "run", "--environment", name, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    done = command("report", "run", folder=tmp_path)
    assert done.stdout == "report.html\n"
    assert (tmp_path / "report.html").is_file()
