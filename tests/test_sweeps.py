"""Sweeps: cells from a file, processes that go on with them, what becomes of those that fail."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from sweep_commands import (
    LONG,
    TINY,
    begin,
    cell_processes,
    has_checkpoint,
    holder,
    is_alive,
    until,
)

import coterie
from coterie import UsageError
from coterie.cli.entry import main
from coterie.storage.config_file import encoded
from coterie.storage.files import has_locks, only_writer, seal
from coterie.sweeps import engine, estimates
from coterie.sweeps.api import planned
from coterie.sweeps.directory import label_in_sweep, runs_of
from coterie.sweeps.engine import Job
from coterie.sweeps.local import Local, slots

NAME = "ia2c-matrix-climbing"


def test_cells_are_all_combinations_with_readable_names():
    cells = planned(
        TINY
        | {
            "environments": ["matrix/climbing", "lbf/5x5-2p-1f"],
            "grid": {"lr": [1e-3, 0.01]},
            "vdn": {"gamma": 0.5, "grid": {"double-q": [True, False]}},
            "ia2c": {"lr": 0.1},
        }
    )
    assert len(cells) == 2 * 2 * 2 + 2
    assert cells[1].name == "vdn-matrix-climbing-lr-0.001-double_q-false"
    assert cells[1].varied == {"lr": 0.001, "double_q": False}
    assert cells[0].settings["gamma"] == 0.5
    words = cells[1].command(Path("o"))
    assert words[:3] == ["train", "vdn", "matrix/climbing"]
    assert "--no-double-q" in words
    assert words[-3:] == ["--out", "o", "--resume"]
    assert [c.varied for c in cells if c.algorithm == "ia2c"] == [{}, {}]  # its table has a value


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"algorithms": []}, "needs algorithms"),
        ({"lrr": 1e-3}, "did you mean lr?"),
        ({"learning-rate": 1e-3}, "did you mean lr?"),
        ({"quark": 3}, "(coterie train vdn matrix/climbing --help lists them)"),
        ({"grid": {"gama": [0.9]}}, "did you mean gamma?"),
        ({"grid": {"lr": 0.1}}, "must be a list of values"),
        ({"grid": {"lr": [0.1, 0.1]}}, "twice"),
        ({"grid": {"lr": []}}, "must be a list of values"),
        ({"lr": 0.1, "grid": {"lr": [0.1]}}, "leave one out"),
        ({"lr": -1.0}, "lr must be a number"),
        ({"lr": [0.1, 0.01]}, "got [0.1, 0.01]; values to compare belong in the table [grid]"),
        ({"hidden": [[8], [16]]}, "values to compare belong in the table [grid]"),
        ({"grid": {"hidden": [64, 128]}}, "each value of hidden in a grid must be a list of 1 to"),
        ({"max_grad_norm": "x"}, "max_grad_norm must be a number above 0, at most 1e15; got 'x'"),
        ({"recurrent": 1}, "recurrent must be true or false; got 1"),
        ({"gamma": True}, "; got true"),
        ({"vdn": 3}, "must be a table"),
        ({"ippo": {"lr": 0.1}}, "table [ippo], and ippo is not among its algorithms"),
        ({"vdn": {"search": {}}}, "[vdn.search] needs a table [search]"),
        ({"env": {"nothing": 3}}, "env.nothing"),
        ({"algorithms": ["vdnn"]}, "did you mean vdn?"),
        ({"environments": ["lbff/5x5-2p-1f"]}, "there is no environment"),
        ({"steps": "many"}, "steps must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tables, sentence):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as refused:
        planned(TINY | tables)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("key", ["algorithms", "environments"])
def test_a_missing_list_is_named_and_what_may_be_meant_by_it(key):
    rest = {name: value for name, value in TINY.items() if name != key}
    with pytest.raises(UsageError, match=f"^a sweep needs {key}, a list of names$"):
        planned(rest)
    with pytest.raises(UsageError, match=f"no key '{key[:-1]}'; did you mean {key}"):
        planned(rest | {key[:-1]: TINY[key]})
    with pytest.raises(UsageError, match=rf"needs {key}, a list of names; got \[3\]"):
        planned(rest | {key: [3]})


def test_a_dry_run_with_a_name_that_there_is_not_ends_with_status_1(tmp_path, capsys):
    file = tmp_path / "s.toml"
    file.write_text('algorithms = ["ia2c"]\nenvironments = ["matrix/climing"]\n')
    assert main(["sweep", str(file), "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "did you mean climbing?" in said
    assert "memory: not known\n" in said
    assert "time: nothing can be trained\n" in said
    assert main(["sweep", str(file), "--dry-run", "--json"]) == 1


def test_a_dry_run_refuses_a_directory_as_the_sweep_does(tmp_path, capsys):
    file = tmp_path / "s.toml"
    file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in TINY.items()))
    assert main(["sweep", str(file), "--dry-run", "--out", str(tmp_path)]) == 2
    assert "is no sweep; choose another --out" in capsys.readouterr().err
    assert not (tmp_path / "sweep.json").exists()


def test_only_runs_of_the_sweeps_own_cells_shorten_what_is_left(tmp_path):
    (cell,) = planned(TINY | {"algorithms": ["idqn"], "steps": 400, "seeds": 2})
    with zipfile.ZipFile(Path(__file__).parent / "runs_format_1" / "runs.zip") as file:
        file.extractall(tmp_path, [name for name in file.namelist() if name.startswith("idqn/")])
    (tmp_path / "cells").mkdir()
    run = (tmp_path / "idqn").rename(tmp_path / "cells" / "idqn-of-other-settings")
    assert estimates.estimate([cell], (), tmp_path).unknown == (("idqn", "matrix/climbing"),)
    run.rename(run.with_name(cell.name))
    expected = estimates.estimate([cell], (), tmp_path)
    assert (expected.seconds, expected.complete) == (0.0, (cell.name,))


def test_states_are_looked_at_for_so_long_and_once_of_each_kind(monkeypatch):
    monkeypatch.setattr(estimates, "SECONDS", 0.3)
    (cell,) = planned(TINY | {"algorithms": ["ia2c"]})
    end = time.monotonic() + 20

    def forever():
        while time.monotonic() < end:
            yield cell

    states = estimates.states_of(forever())
    assert states.partial
    assert time.monotonic() < end
    assert states.bytes is not None


def _statuses(sweep):
    return {job.cell.algorithm: job.status for job in sweep.jobs}


@pytest.mark.slow
def test_a_sweep_trains_goes_on_and_keeps_the_sentences_of_what_fails(tmp_path):
    out = tmp_path / "sweep"
    tables = TINY | {"seeds": 2, "algorithms": ["ia2c", "pac"], "pac": {"reward": "sum"}}
    tables |= {"init": str(tmp_path / "none")}
    failed = coterie.sweep(tables, out)
    assert set(_statuses(failed).values()) == {"failed"}
    assert all("none" in job.problem and "\n" not in job.problem for job in failed.jobs)
    with pytest.raises(UsageError, match="is no sweep"):
        coterie.sweep(TINY, tmp_path)

    out = tmp_path / "other"
    tables = TINY | {"seeds": 2, "algorithms": ["ia2c"], "grid": {"lr": [0.1]}}
    assert coterie.sweep(tables, out).complete
    kept = (out / "cells" / "ia2c-matrix-climbing-lr-0.1" / "metrics.jsonl").read_bytes()
    changes = []
    again = coterie.sweep(tables, out, report=lambda job, _: changes.append(job))
    assert again.complete
    assert changes == []  # nothing was started
    assert (runs_of([out])[0] / "metrics.jsonl").read_bytes() == kept
    assert label_in_sweep(runs_of([out])[0]) == "ia2c · lr 0.1"
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    result = coterie.open_run(runs_of([out])[0]).metrics
    per_seed = result["eval_sampled/return/team_mean"]["per_seed"]
    assert [float(row["value"]) for row in rows] == per_seed
    assert [(row["lr"], row["seed"], row["status"]) for row in rows] == [
        ("0.1", "0", "done"), ("0.1", "1", "done")]  # fmt: skip
    with pytest.raises(UsageError, match="other settings"):
        coterie.sweep(tables | {"steps": 800}, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_cell_goes_on_and_ctrl_c_saves(tmp_path, number):
    process = begin(tmp_path, LONG)
    run, log = tmp_path / "out" / "cells" / NAME, tmp_path / "out" / "logs" / f"{NAME}.txt"
    until(lambda: has_checkpoint(run))
    first = holder(run)
    os.kill(first, number)
    until(lambda: holder(run) not in (0, first) and "goes on from" in log.read_text())
    second = holder(run)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped" in said
    assert not is_alive(second)
    saved = 1 + (number == signal.SIGTERM)
    assert log.read_text().count("coterie resume") == saved


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the cells on Linux")
def test_cells_end_with_a_sweep_that_is_killed(tmp_path):
    process = begin(tmp_path, LONG)
    run = tmp_path / "out" / "cells" / NAME
    until(lambda: has_checkpoint(run))
    cell = holder(run)
    process.kill()
    process.communicate()
    until(lambda: not is_alive(cell), 60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_cell_killed_again_and_again_is_given_up_and_begun_again_by_the_same_command(tmp_path):
    """The first one is killed where its directory has no checkpoint yet; others go on meanwhile."""
    tables = TINY | {"algorithms": ["ia2c", "pac"], "pac": {"init": str(tmp_path / "none")}}
    process = begin(tmp_path, tables, "--workers", "1")
    run = tmp_path / "out" / "cells" / NAME
    for k in range(engine.TRIES):
        (cell,) = until(lambda: cell_processes(run))
        until(lambda k=k: k or (run / "config.json").exists())
        os.kill(cell, signal.SIGKILL)
        until(lambda cell=cell: not is_alive(cell))
    assert not has_checkpoint(run)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ended 3 times without getting any further (SIGKILL)" in said
    again = begin(tmp_path, tables)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 1
    assert f"{NAME} done" in said
    assert coterie.open_run(run).complete
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert "none" in rows[1]["problem"]


@pytest.mark.slow
def test_a_lock_is_waited_for_and_its_holder_named(tmp_path):
    run = tmp_path / "out" / "cells" / NAME
    run.mkdir(parents=True)
    (tmp_path / "out" / "sweep.json").write_bytes(encoded(seal({"cells": []})))
    with only_writer(run):
        process = begin(tmp_path, LONG, lock_seconds=0.5)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"was written to by process {os.getpid()} on" in said


def test_jobs_that_the_callback_returns_are_done_besides(tmp_path, monkeypatch):
    """Here they fail at once, as another process writes to their directories."""
    monkeypatch.setattr(engine, "LOCK_SECONDS", -1.0)
    jobs = [Job(cell, tmp_path / cell.name, tmp_path / "log") for cell in planned(TINY)]
    told = []

    def tell(job):
        told.append(job)
        return jobs[1:] if job is jobs[0] else None

    with contextlib.ExitStack() as stack:
        for job in jobs:
            job.path.mkdir()
            stack.enter_context(only_writer(job.path))
        Local(slots(1), tell).run(jobs[:1])
    assert told == jobs
    assert all(job.status == "failed" for job in jobs)


def test_a_cell_has_a_gpu_of_its_own_where_jax_has_a_plugin(tmp_path, monkeypatch):
    (tmp_path / "jax_cuda12_plugin.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-5f")
    assert [slot.variables for slot in slots(None)] == [
        {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "GPU-5f"}]  # fmt: skip
    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in slots(3)] == ["1", "GPU-5f", "1"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert slots(1)[0].variables == {"PJRT_NPROC": "1"}
    assert slots(1)[0].core


@pytest.mark.slow
def test_jobs_of_an_array_begin_at_once_and_train_a_cell_each(tmp_path):
    file, out = tmp_path / "s.toml", tmp_path / "out"
    file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in TINY.items()))
    words = [sys.executable, "-m", "coterie", "sweep", str(file), "--out", str(out), "--cell"]
    jobs = [subprocess.Popen([*words, str(k)]) for k in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert all(coterie.open_run(run).complete for run in runs_of([out]))
    assert len(runs_of([out])) == 2


def test_a_file_system_without_locks_is_known(tmp_path, monkeypatch):
    def refuse(descriptor, *, blocking):
        raise OSError(95, "Operation not supported")

    with only_writer(tmp_path):
        assert has_locks(tmp_path)
        monkeypatch.setattr("filelock.lock_descriptor", refuse)
        assert not has_locks(tmp_path)
