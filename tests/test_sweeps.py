"""Sweeps: cells from a file, processes that go on with them, what becomes of those that fail."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coterie
from coterie import UsageError
from coterie.sweeps.api import planned
from coterie.sweeps.directory import label_in_sweep, runs_of

TINY = {
    "algorithms": ["vdn", "ia2c"],
    "environments": ["matrix/climbing"],
    "steps": 400,
    "evaluations": 1,
    "evaluation_episodes": 2,
    "final_episodes": 2,
}
LONG = TINY | {"algorithms": ["ia2c"], "steps": 50_000_000}


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
        ({"grid": {"gama": [0.9]}}, "did you mean gamma?"),
        ({"grid": {"lr": 0.1}}, "must be a list of values"),
        ({"grid": {"lr": [0.1, 0.1]}}, "twice"),
        ({"grid": {"lr": []}}, "must be a list of values"),
        ({"lr": 0.1, "grid": {"lr": [0.1]}}, "leave one out"),
        ({"lr": -1.0}, "lr must be a number"),
        ({"vdn": 3}, "must be a table"),
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


def _begin(tmp_path: Path, tables: dict) -> tuple[subprocess.Popen, Path, Path]:
    """A sweep as a command, once its only cell has written a checkpoint."""
    file, out = tmp_path / "s.toml", tmp_path / "out"
    file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in tables.items()))
    words = [sys.executable, "-m", "coterie", "sweep", str(file), "--out", str(out)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    run = out / "cells" / "ia2c-matrix-climbing"
    _until(lambda: any(run.glob("checkpoints/*/state.safetensors")))
    return process, out, run


def _until(holds, seconds=120.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def _holder(run: Path) -> int:
    return json.loads((run / ".lock").read_text())["process"]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_killed_cell_goes_on_and_ctrl_c_saves(tmp_path):
    process, out, run = _begin(tmp_path, LONG)
    first = _holder(run)
    os.kill(first, signal.SIGKILL)
    _until(lambda: (run / ".lock").read_text() and _holder(run) != first)
    _until(lambda: "goes on from" in (out / "logs" / f"{run.name}.txt").read_text())
    _until(lambda: _holder(run))
    second = _holder(run)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped" in said
    assert not _is_alive(second)
    assert "coterie resume" in (out / "logs" / f"{run.name}.txt").read_text()  # it saved


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the cells on Linux")
def test_cells_end_with_a_sweep_that_is_killed(tmp_path):
    process, _, run = _begin(tmp_path, LONG)
    cell = _holder(run)
    process.kill()
    process.communicate()
    _until(lambda: not _is_alive(cell), 60)


@pytest.mark.slow
def test_jobs_of_an_array_begin_at_once_and_train_a_cell_each(tmp_path):
    file, out = tmp_path / "s.toml", tmp_path / "out"
    file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in TINY.items()))
    words = [sys.executable, "-m", "coterie", "sweep", str(file), "--out", str(out), "--cell"]
    jobs = [subprocess.Popen([*words, str(k)]) for k in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert all(coterie.open_run(run).complete for run in runs_of([out]))
    assert len(runs_of([out])) == 2
