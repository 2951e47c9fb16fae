"""Environments in worker processes of another Python: the same results, faults and promises.

Most tests take this Python for the other one: its workers are started and spoken to as those of
any. What only an older one shows is tested in a virtual environment of old packages (``old``).
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import guests
import numpy as np
import pytest
from probes import small
from test_unruly import is_gone

import coterie
from coterie import EnvironmentFault, PythonEnvSettings, UsageError
from coterie.python_envs import other_python
from coterie.python_envs.check.isolated import check_apart
from coterie.python_envs.opening import find_factory, open_in_other_python, open_python_env
from coterie.python_envs.workers.messages import (
    error_content,
    error_of,
    pack,
    spec_content,
    spec_of,
    unpack,
)
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, STEP, Limits
from coterie.spec import ActionSpace, EnvSpec, ObservationSpace

HERE = Path(__file__).parent
ROOM = """
import numpy as np
from gymnasium.spaces import Box, Discrete


class Room:
    possible_agents = ["left", "right"]
    metadata = {"render_fps": 7}

    def __init__(self, size=3, render_mode=None):
        self.size, self.render_mode, self.agents = size, render_mode, []

    def observation_space(self, agent):
        return Box(-9, 9, (2,), np.float32)

    def action_space(self, agent):
        return Discrete(self.size)

    def reset(self, seed=None, options=None):
        self.rng, self.agents, self.t = np.random.default_rng(seed), [*self.possible_agents], 0
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.t += 1
        acted, over = self.agents, self.t == 5
        rewards = {agent: float(actions[agent] == self.goal) for agent in acted}
        self.agents = [] if over else acted
        infos = {agent: {"goal": self.goal} for agent in acted}
        flags = dict.fromkeys(acted, over), dict.fromkeys(acted, False)
        return self.look(), rewards, *flags, infos

    def look(self):
        self.goal = int(self.rng.integers(self.size))
        return {agent: np.float32([self.goal, self.t]) for agent in self.possible_agents}

    def render(self):
        return np.full((4, 6, 3), [self.goal, self.t, 7], np.uint8)

    def close(self):
        pass
"""
"""The text of a module that no process but those of the other Python may import."""


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """The other Python finds modules of these folders."""
    (tmp_path / "room_of_other_python.py").write_text(ROOM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(tmp_path)]))
    yield
    assert "room_of_other_python" not in sys.modules


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """A virtual environment of this Python with packages that Coterie does not allow."""
    place = tmp_path_factory.mktemp("old")
    made = subprocess.run([sys.executable, "-m", "venv", str(place)], capture_output=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "--retries", "0", "numpy<2", "gymnasium<1"]
    if made.returncode or subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("no virtual environment with old packages: pip cannot install them here")
    return python


ROOM_NAME = "room_of_other_python:Room"


def opened(name, python=sys.executable, options=None, **settings):
    settings = PythonEnvSettings(python=python, **settings)
    return open_in_other_python(name, options or {}, settings)


def here(name):
    return open_python_env(name, find_factory(name, {}))


def is_ended(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_gone(pid)


def walk(factory, commands, rows=3, limits=None, workers=2):
    """All that the rows show and the faults of these commands; workers are as many."""
    seen = []
    limits = limits or Limits(60.0)
    with contextlib.closing(make_vector_env(factory, [range(rows)], limits, workers)) as env:
        env.rows.seed[:] = np.arange(rows)
        for command in commands:
            env.rows.command[:], env.rows.actions[:] = command, 1
            env.start(0)
            faults = env.wait(0)
            shown = [np.copy(x) for x in (*env.rows.start, *env.rows.next_observation)]
            shown += [np.copy(env.rows.rewards), np.copy(env.rows.digest)]
            seen.append((shown, env.reports, [fault._replace(original="") for fault in faults]))
    return seen


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        x[1:] == y[1:] and all(map(np.array_equal, x[0], y[0])) for x, y in zip(a, b, strict=True)
    )


# What is said ------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were_sent():
    arrays = [
        np.float32([[np.inf, np.nan], [0.1, -0.0]]), np.zeros((0, 3), bool), np.array(True),
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3)[:, ::-1],
    ]  # fmt: skip
    content, found = unpack(pack({"a": [1, None, 0.1]}, arrays))
    assert content == {"a": [1, None, 0.1]}
    for sent, come in zip(arrays, found, strict=True):
        assert come.dtype == sent.dtype
        assert come.shape == sent.shape
        assert come.tobytes() == sent.tobytes()
        assert come.flags.writeable


@pytest.mark.parametrize(
    "spec",
    [
        EnvSpec(("a", "b"), (3, 4), (2, 5), central_size=7, time_limit=9, reward="sum"),
        EnvSpec(("a",), (3,), actions=(ActionSpace((2, 3), (-np.inf, 0.1), (1e-7, np.inf)),)),
        EnvSpec(("a",), action_counts=(2,), observations=(
            ObservationSpace(((4, 5, 3), (2,)), ("uint8", "float32"), ("eye", "ear")),)),
    ],
)  # fmt: skip
def test_a_promise_comes_back_as_it_was_sent(spec):
    assert spec_of(json.loads(json.dumps(spec_content(spec)))) == spec


@pytest.mark.parametrize(
    "error", [UsageError("no"), coterie.errors.NoPictures("dark"),
              EnvironmentFault("fell", "room", "left", 3, 5, "trace")],
)  # fmt: skip
def test_errors_come_back_as_they_were_raised(error):
    found = error_of(json.loads(json.dumps(error_content(error))))
    assert (type(found), found.args) == (type(error), error.args)


def test_another_protocol_is_answered_with_one_sentence(monkeypatch):
    factory = opened(ROOM_NAME)
    monkeypatch.setattr(other_python, "PROTOCOL", 99)
    for do in (
        lambda: opened(ROOM_NAME), lambda: walk(factory, [RESET]),
        lambda: check_apart(ROOM_NAME, python=sys.executable),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"protocol 1, but this one speaks 99.* begin again"):
            do()


# The same environments ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["guests:Relay", "guests:Score"])
def test_steps_are_those_of_this_python(name):
    other, own = opened(name), here(name)
    assert other.promise == own.promise
    commands = [RESET, *[STEP] * 9]
    assert same(walk(other, commands), walk(own, commands))


SLOW = [pytest.param("hang_in_step", marks=pytest.mark.slow)]


@pytest.mark.parametrize("fault", ["wrong_shape", "exit_in_step", *SLOW])
def test_faults_are_those_of_this_python(fault):
    name, limits = f"faulty:{fault}", Limits(1.0)
    found = [walk(f, [RESET, *[STEP] * 3], 1, limits, 1) for f in (opened(name), here(name))]
    assert same(*found)
    assert any(faults for *_, faults in found[0])


@pytest.mark.parametrize("fault", ["nan_observation", "exit_in_step", *SLOW])
def test_checks_are_those_of_this_python(fault):
    def checked(python=None):
        report = check_apart(f"faulty:{fault}", step_timeout=1.0, python=python)
        return [f for f in report.findings if "a step takes" not in f.sentence], report.spec

    assert checked(sys.executable) == checked()


def test_calls_return_what_they_do_in_this_python():
    with contextlib.closing(opened("guests:Relay").make()) as env:
        own = here("guests:Relay").make()
        steps = [(env.reset(1), own.reset(1))]
        while not (steps[-1][1].terminated or steps[-1][1].truncated):
            steps.append(tuple(one.step(np.int32([0, 0, 0])) for one in (env, own)))
    assert len(steps) == 8
    for found, expected in steps:
        for field in dataclasses.fields(expected):
            a, b = getattr(found, field.name), getattr(expected, field.name)
            assert np.array_equal(a, b), field.name
            assert type(a) is type(b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None)


def test_pictures_and_calls_are_those_of_the_environment():
    factory = opened(ROOM_NAME, options={"size": 4})
    assert factory.promise.action_counts == (4, 4)
    env = factory.make_rendering()
    try:
        first = env.reset(3)
        step = env.step(np.int32([1, 3]))
        assert env.in_words(np.int32([1, 3])) == ("1", "3")
        assert env.frames_a_second() == 7
        goal = int(step.observations[0, 0])
        assert np.array_equal(env.frame(), np.full((4, 6, 3), [goal, 1, 7]))
        assert list(step.rewards) == [float(a == first.observations[0, 0]) for a in (1, 3)]
        assert (step.terminated, step.truncated) == (False, False)
    finally:
        env.close()


def test_an_environment_that_hangs_or_dies_as_it_is_called_is_named():
    with contextlib.closing(opened("faulty:hang_in_reset", step_timeout=1.0).make()) as env:
        with pytest.raises(EnvironmentFault, match="did not return within 1 seconds"):
            env.reset(0)
        assert env.in_words(np.int32([0, 1])) == ("0", "1")
    with contextlib.closing(opened("faulty:exit_in_step").make()) as env:
        env.reset(0)
        for _ in range(2):
            env.step(np.int32([0, 0]))
        with pytest.raises(EnvironmentFault, match=r"its process ended \(exit status 7\)"):
            env.step(np.int32([0, 0]))
    with pytest.raises(EnvironmentFault, match="raised as it was made: LookupError: no such map"):
        opened("faulty:raise_in_init")


# Their processes ---------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_named_and_replaced():
    factory = opened(ROOM_NAME)
    with contextlib.closing(make_vector_env(factory, [range(2)], Limits(60.0), 1)) as env:
        move = functools.partial(moved, env)
        assert move(RESET) == []
        (pid,) = env.processes()
        assert os.getsid(pid) == pid  # Ctrl-C in a terminal does not reach it
        os.kill(pid, signal.SIGKILL)
        faults = move(STEP)
        assert [f.what for f in faults] == ["its worker process ended (SIGKILL)"] * 2
        assert [f.lost for f in faults] == [False, True]
        assert move(RESET) == []
        (other,) = env.processes()
    assert is_gone(pid)
    assert is_gone(other)


def moved(env, command):
    env.rows.command[:] = command
    env.start(0)
    return env.wait(0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("what", ["pool", "single", "hang"])
def test_workers_end_with_a_parent_that_is_killed(what, tmp_path):
    code = f"""
import os, signal, sys
from coterie.python_envs import other_python
from coterie.python_envs.opening import open_in_other_python
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, STEP, Limits
name = "faulty:hang_in_step" if {what!r} == "hang" else {ROOM_NAME!r}
factory = open_in_other_python(name, {{}}, PythonEnvSettings(python=sys.executable))
if {what!r} == "single":
    print(factory.make()._worker.process.pid, flush=True)
else:
    env = make_vector_env(factory, [range(2)], Limits(600.0), 2)
    for command in (RESET, *[STEP] * 3):
        env.rows.command[:] = command
        env.start(0)
        if command == RESET:
            env.wait(0)
    print(*env.processes(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    paths = os.pathsep.join([*os.environ["PYTHONPATH"].split(os.pathsep), str(HERE.parent / "src")])
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    pids = list(map(int, killed.stdout.split()))
    assert pids
    assert all(map(is_ended, pids))


# What cannot be ----------------------------------------------------------------------------------


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: str(p / "none"), "there is no such program"),
        (str, "is a folder: name the program in it"),
        (lambda p: str(p / "room_of_other_python.py"), "is not executable"),
        (lambda p: script(p / "x", "#!/bin/sh\necho hello\n"), "is not a Python interpreter: as"),
        (lambda p: script(p / "x", "\0\1"), "is not a Python interpreter: "),
        (lambda p: script(p / "x", "#!/bin/sh\necho coterie:3.8\necho coterie:\n"),
         "is Python 3.8: environments need Python 3.9 or newer"),
        (lambda p: script(p / "x", "#!/bin/sh\necho coterie:3.9\necho coterie:none\n"),
         "has no NumPy, which every environment needs: "),
        (lambda p: script(p / "x", "#!/bin/sh\necho coterie:3.9\necho coterie:E: so\n"),
         "cannot import its NumPy: E: so"),
    ],
)  # fmt: skip
def test_what_is_no_python_for_environments_is_refused(make, sentence, tmp_path):
    python = make(tmp_path)
    with pytest.raises(UsageError, match=re.escape(f"--python {python}")) as refused:
        opened(ROOM_NAME, python)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("rooom_of_other_python:Room", {}, "there is no module rooom_of_other_python"),
        ("room_of_other_python:Roon", {}, "has no Roon; did you mean Room?"),
        (ROOM_NAME, {"sise": 3}, "has no keyword argument 'sise'; did you mean size?"),
        ("gymnasium:CartPole-v7", {}, "did you mean gymnasium:CartPole-v1?"),
    ],
)
def test_what_the_other_python_does_not_find_is_named(name, options, sentence):
    with pytest.raises(UsageError) as refused:
        opened(name, options=options)
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(f"(in {sys.executable})")


class Maker:
    def make(self):
        return guests.Dice()


@pytest.mark.parametrize(
    "environment",
    [lambda: guests.Dice(), guests.Dice(), functools.partial(guests.Dice), Maker().make],
)
def test_what_has_no_name_is_refused(environment):
    given = f"name, and the {type(environment).__name__} that was given has none: write a function"
    with pytest.raises(UsageError, match=given):
        coterie.train("ippo", environment, 8, python_env=PythonEnvSettings(python=sys.executable))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match="give at least 1 worker"):
        PythonEnvSettings(python=sys.executable, workers=0)
    with pytest.raises(UsageError, match="give at least 1 worker"):
        make_vector_env(opened(ROOM_NAME), [range(1)], Limits(60.0), 0)
    with pytest.raises(UsageError, match="is a JAX environment"):
        coterie.train("ippo", "matrix/climbing", 8, python_env=PythonEnvSettings(python="python"))
    with pytest.raises(UsageError, match="is a JAX environment: give no --python"):
        check_apart("matrix/climbing", python=sys.executable)


# Whole runs --------------------------------------------------------------------------------------

SMALL = {"evaluations": 1, "evaluation_episodes": 2, "final_episodes": 2}


def trained(name, out, python=None, steps=32, **more):
    settings = PythonEnvSettings(workers=2, python=python)
    return coterie.train(small("ippo"), name, steps, out=out, python_env=settings, **SMALL, **more)


def numbers(run: Path) -> list[dict]:
    """The log without times."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in x.items() if "second" not in k and k != "digest"} for x in lines]


def policies(run: Path) -> dict[str, bytes]:
    return {p.name + p.parent.name: p.read_bytes() for p in run.glob("policy/*/*.safetensors")}


@pytest.mark.slow
def test_a_run_is_that_of_this_python_and_starts_no_program_that_it_names(tmp_path):
    own, other, started = tmp_path / "own", tmp_path / "other", tmp_path / "started"
    noting = f'#!/bin/sh\ntouch {started}\nexec {sys.executable} "$@"\n'
    python = script(tmp_path / "python", noting)
    trained("guests:Dice", own)
    trained("guests:Dice", other, python)
    started.unlink()
    assert numbers(own) == numbers(other)
    assert policies(own) == policies(other) != {}
    hosting = json.loads((other / "config.json").read_text())["hosting"]
    assert hosting["python"] == python
    flags = re.escape(f"--python {python}")
    with pytest.raises(UsageError, match=f"give --environment guests:Dice {flags}"):
        coterie.open_run(other)
    with pytest.raises(UsageError, match=f"only if you name it: give {flags}"):
        coterie.open_run(other, "guests:Dice")
    assert not started.exists()
    found = coterie.open_run(other, "guests:Dice", python=sys.executable).evaluate(4)
    assert found == coterie.open_run(own, "guests:Dice").evaluate(4)
    assert found == coterie.open_run(own, "guests:Dice", python=python).evaluate(4)
    assert found == coterie.open_run(other, guests.Dice, python=sys.executable).evaluate(4)


@pytest.mark.slow
def test_a_run_that_ctrl_c_stops_goes_on_as_if_nothing_had_been(tmp_path):
    """Its environment is imported by no process but the workers."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = ["--steps", "6000", "--environments", "4", "--hidden", "8", "--evaluations", "2",
             "--evaluation-episodes", "2", "--final-episodes", "2", "--workers", "2",
             "--python", sys.executable]  # fmt: skip
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(HERE.parent / "src")])
    command = [sys.executable, "-m", "coterie"]
    start = functools.partial(
        subprocess.Popen, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    train = [*command, "train", "ippo", ROOM_NAME, *flags, "--out"]
    training = start([*train, str(stopped)])
    log = stopped / "metrics.jsonl"
    while training.poll() is None and not (log.exists() and log.stat().st_size > 1_000):
        time.sleep(0.02)
    workers = children(training.pid)
    os.killpg(training.pid, signal.SIGINT)
    _, said = training.communicate(timeout=120)
    assert training.returncode == 130, said
    assert "Traceback" not in said
    assert f"--environment {ROOM_NAME} --python {sys.executable}" in said
    assert workers
    assert all(map(is_ended, workers))
    resume = [*command, "resume", str(stopped), "--environment", ROOM_NAME]
    assert f"give --python {sys.executable}" in start(resume).communicate(timeout=120)[1]
    for again in (start([*resume, "--python", sys.executable]), start([*train, str(whole)])):
        _, said = again.communicate(timeout=200)
        assert again.returncode == 0, said
    assert policies(stopped) == policies(whole) != {}
    assert [x for x in numbers(stopped) if "eval/length" in x] == [
        x for x in numbers(whole) if "eval/length" in x
    ]


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


@pytest.mark.slow
def test_old_packages_give_the_numbers_of_new_ones(old, tmp_path):
    version = [
        old,
        "-c",
        "import numpy, gymnasium; print(numpy.__version__, gymnasium.__version__)",
    ]
    numpy, gymnasium = subprocess.check_output(version, text=True).split()
    assert (numpy[0], gymnasium[0]) == ("1", "0")
    own, other = tmp_path / "own", tmp_path / "other"
    for name in ("guests:Relay", "gymnasium:CartPole-v1"):
        trained(name, own / name)
        trained(name, other / name, old)
        assert numbers(own / name) == numbers(other / name)
        assert policies(own / name) == policies(other / name) != {}
    assert check_apart("gymnasium:CartPole-v1", python=old).ok
    report = check_apart("faulty:wrong_shape", python=old)
    assert report == check_apart("faulty:wrong_shape") or report.findings


@pytest.mark.slow
def test_packages_that_the_other_python_lacks_are_named(old, tmp_path):
    with pytest.raises(UsageError, match=r"needs pettingzoo: .*/bin/python -m pip install petting"):
        opened("pettingzoo:pettingzoo.butterfly.pistonball_v6", old)
    with pytest.raises(UsageError, match=r"needs lbforaging: .*/bin/python -m pip install lbfor"):
        opened("gymnasium:lbforaging:Foraging-8x8-2p-3f-v3", old)
