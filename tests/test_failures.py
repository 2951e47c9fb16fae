"""What can happen to a running training: disks, directories, signals, clocks, large counts."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from probes import small
from quick import quick_compilation

from coterie import Interrupted
from coterie.cli import entry as cli
from coterie.runs import api, loop
from coterie.runs import config as configs
from coterie.runs import evaluation as run_evaluation
from coterie.runs.api import resume, train
from coterie.storage.checkpoint import latest, save
from coterie.storage.tree_files import CheckpointError, read_arrays
from coterie.training import loop as training
from coterie.training import state as training_state
from coterie.types import tree_bytes

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))
ALGORITHM = small("ia2c")
EACH = 16
"""Environment steps of an iteration."""
STEPS = 12 * EACH


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(training, "CHUNK_STEPS", EACH)
        yield


def start(out: Path, report=None, steps: int = STEPS, **more):
    options = {"evaluations": 3, "final_episodes": 4, "options": {"rounds": 3}} | more
    return train(ALGORITHM, "matrix/climbing", steps, out=out, report=report, **options)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    return start(tmp_path_factory.mktemp("calm") / "run").path


def lines(run: Path) -> list[dict]:
    clock = {"seconds", "steps_per_second", "steps_per_second_total", "digest"}
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in clock} for line in read]


def steps_of(run: Path) -> list[int]:
    return sorted(int(p.parent.name) for p in run.glob("checkpoints/*/state.safetensors"))


def same_state(run: Path, other: Path) -> None:
    step = steps_of(other)[-1]
    for a, b in zip(
        *(
            sorted(read_arrays(r / f"checkpoints/{step}/state.safetensors")[0].items())
            for r in (run, other)
        ),
        strict=True,
    ):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])


def at(event: str, times: int, work):
    """A report callback that does something at the so manyth of these events."""
    seen = []

    def report(now, facts):
        seen.append(now)
        if now == event and seen.count(event) == times:
            work()

    return report


# Disks and directories -------------------------------------------------------------------------


def test_a_full_disk_ends_a_run_in_one_sentence_and_loses_nothing(calm, tmp_path, capsys):
    """The limit on the size of files stands for the disk's end: the log still fits, a state not."""
    run = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))

    try:
        with pytest.raises(CheckpointError, match=r"^cannot write .*/144/state.*: File too large$"):
            start(run, at("saving", 4, full))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps_of(run) == [48, 96]
    assert not list(run.rglob("*.tmp"))
    resume(run)
    assert lines(run) == lines(calm)
    same_state(run, calm)


def mounted(place: Path, *options: str) -> bool:
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB, where one can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mounted(place, "-t", "tmpfs", "-o", "size=256k", "tmpfs"):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_saves_on_a_small_disk_keep_the_last_that_fitted(small_disk):
    """Two states of 100 kB fit, the third does not; then there is room again."""

    def tree(step):
        return {"a": np.full(12_500, step, np.float64)}

    for step in (1, 2):
        save(small_disk, step, tree(step), {})
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left on device"):
        save(small_disk, 3, tree(3), {})
    assert latest(small_disk, tree(0), warn=pytest.fail).step == 2
    assert steps_of(small_disk) == [1, 2]
    shutil.rmtree(small_disk / "checkpoints" / "1")
    save(small_disk, 4, tree(4), {})
    assert steps_of(small_disk) == [2, 4]


def test_a_read_only_disk_is_one_sentence(calm, small_disk, capsys):
    run = shutil.copytree(calm, small_disk / "run")
    assert mounted(small_disk, "-o", "remount,ro")
    assert cli.main(["resume", str(run)]) == 2
    assert capsys.readouterr().err == f"coterie: cannot write to {run}: Read-only file system\n"
    assert cli.main(["train", "vdn", "matrix/climbing", "--out", str(small_disk / "new")]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run), "--episodes", "2", "--json"]) == 0  # reading goes on


@pytest.mark.slow
def test_a_directory_that_vanishes_ends_the_run_and_is_not_made_anew(tmp_path, monkeypatch):
    for k, event in enumerate(("progress", "saving", "evaluation")):
        run = tmp_path / f"run{k}"
        vanish = at(event, 2, lambda run=run: shutil.rmtree(run))
        with pytest.raises((OSError, CheckpointError), match=r"No such file|is gone"):
            start(run, vanish)
        assert not run.exists()


# Signals ---------------------------------------------------------------------------------------


def stop(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("event", "times", "kept"), [("start", 1, 0), ("saving", 1, 0), ("saving", 3, 96),
                                 ("evaluation", 2, 64), ("progress", 5, 80)],
)  # fmt: skip
def test_a_signal_at_any_time_saves_first(calm, tmp_path, monkeypatch, number, event, times, kept):
    """While it compiles, saves, evaluates, trains: the state then is the newest checkpoint."""
    run = tmp_path / "run"
    report = at(event, times, lambda: stop(number))
    if event == "start":  # once the states are being made, which begins with compiling
        init = training.Program.init

        def compile_interrupted(self, seed):
            stop(number)
            return init(self, seed)

        monkeypatch.setattr(training.Program, "init", compile_interrupted)
        report = None
    with pytest.raises(Interrupted) as stopped:
        start(run, report)
    assert (stopped.value.path, stopped.value.steps) == (run, kept)
    assert stopped.value.resume == f"coterie resume {run}"
    assert steps_of(run)[-1] == kept
    monkeypatch.undo()
    resume(run)
    assert lines(run) == lines(calm)
    same_state(run, calm)


def test_a_signal_in_the_final_evaluation_loses_no_training(calm, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def interrupted(*_):
        stop(signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(run_evaluation, "evaluate_jax_env", interrupted)
    # As in a terminal: a process that a shell runs in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start(run)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert steps_of(run)[-1] == STEPS
    resume(run)
    assert lines(run) == lines(calm)
    found, wanted = (
        json.loads((r / "evaluations.json").read_text())["matrix"]["climbing"]["ia2c"]["seed_0"]
        for r in (run, calm)
    )
    assert found["absolute_metrics"] == wanted["absolute_metrics"]


def test_calls_of_the_program_become_short_where_iterations_are_long(tmp_path, monkeypatch):
    """Whoever asks a run to stop waits for one call: it is halved after each that took too long."""
    monkeypatch.setattr(training, "CHUNK_STEPS", 64 * EACH)
    counts, now = [], [0.0]
    advance = training.Program.advance

    def slow(self, state, iteration, count):
        counts.append(count)
        now[0] += 0.4 * count
        return advance(self, state, iteration, count)

    monkeypatch.setattr(training.Program, "advance", slow)
    monkeypatch.setattr(loop, "LOG_POINTS", 1)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    start(tmp_path / "run", steps=40 * EACH, evaluations=1, final_episodes=0)
    assert sum(counts) == 40
    assert counts[:4] == [1, 2, 4, 8]
    assert counts[4:8] == [4, 8, 4, 8]  # 3.2 s are too long, 1.6 s are not


@pytest.mark.parametrize(
    ("large", "seconds", "kept"),
    [(False, 1, [144, 192]), (True, 1, [0, 192]), (True, 8, [96, 192]), (True, 1000, [176, 192])],
)
def test_large_states_are_saved_more_seldom_and_slow_runs_more_often(
    tmp_path, monkeypatch, large, seconds, kept
):
    """Four marks, 48 steps apart; an iteration of 16 takes so many seconds, a large state 40 s."""
    now = [0.0]
    advance = training.Program.advance

    def slow(self, state, iteration, count):
        now[0] += seconds * count
        return advance(self, state, iteration, count)

    monkeypatch.setattr(training.Program, "advance", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(loop, "LARGE", 0 if large else 1e9)

    def size(tree):
        return 100_000_000 if isinstance(tree[0], training_state.TrainState) else tree_bytes(tree)

    monkeypatch.setattr(loop, "tree_bytes", size)
    monkeypatch.setattr(loop, "SAVING_RATE", 250e6)
    run = start(tmp_path / "run", final_episodes=0).path
    assert steps_of(run) == kept


# Clocks and counts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "jump", [-1e6, *(pytest.param(jump, marks=pytest.mark.slow) for jump in (1e6, 0.0))]
)
def test_a_clock_that_jumps_changes_nothing_but_times(calm, tmp_path, monkeypatch, jump):
    """Back, forth, or standing still: the log's seconds never fall."""
    readings = iter(range(10**9))
    monkeypatch.setattr(time, "perf_counter", lambda: 5.0 + jump * (next(readings) // 9))
    monkeypatch.setattr(time, "time", lambda: -jump * next(readings))
    run = start(tmp_path / "run").path
    assert lines(run) == lines(calm)
    seconds = [
        x["seconds"]
        for x in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "seconds" in x
    ]
    assert seconds == sorted(seconds)
    assert np.isfinite(seconds).all()


@pytest.mark.parametrize(
    "border", [2**31, *(pytest.param(2**k, marks=pytest.mark.slow) for k in (32, 40))]
)
def test_counts_go_on_beyond_what_32_bits_hold(calm, tmp_path, border):
    """A run that is made to be just below, in iterations and in steps, and goes on across."""
    for unit in (EACH, 1):
        run = shutil.copytree(calm, tmp_path / f"run{unit}")
        shift_to(run, border // unit - 3)
        seen = []

        def report(event, facts, seen=seen):
            seen.extend([facts["env_steps"]] if event == "progress" else [])

        done = resume(run, steps=(border // unit + 3) * EACH, report=report)
        first = (border // unit - 2) * EACH
        assert seen == [first + k * EACH for k in range(6)]
        assert done.steps == seen[-1] == steps_of(run)[-1]
        last = [line for line in lines(run) if "updates" in line][-1]
        assert (last["env_steps"], last["updates"]) == (seen[-1], seen[-1] // EACH)
        arrays, meta = read_arrays(run / f"checkpoints/{done.steps}/state.safetensors")
        assert meta["env_steps"] == done.steps
        assert all(np.isfinite(x).all() for name, x in arrays.items() if "score" not in name)


def shift_to(run: Path, iteration: int) -> None:
    """The newest checkpoint as if it had been made after so many iterations."""
    config = api.RunDirectory.open(run).config()
    program = api.Devices(*configs.restore(config), config["seeds"]).program
    step, tree, meta = latest(run, (program.template(),))
    step = iteration * EACH
    shutil.rmtree(run / "checkpoints")
    meta |= {"iteration": iteration, "env_steps": step}
    save(run, step, tree, meta)
