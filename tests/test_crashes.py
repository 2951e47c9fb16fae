"""Killed at any moment, nothing is lost that was reported as kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick import FLAGS

HERE = Path(__file__).parent
SOAK = HERE.parent / "benchmarks" / "soak.py"
OLDEST = ["checkpoints/0/state.safetensors"]
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))


def run(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": PATHS, "XLA_FLAGS": FLAGS},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_save_killed_at_any_operation_loses_nothing(tmp_path):
    """At each, and once more with the write at which it happens half done."""
    lines = [line.split() for line in run(HERE / "crash_worker.py", tmp_path).splitlines()]
    killed = [line for line in lines if line[0] == "9"]
    reported = [line for line in lines if line[0] == "0"]
    assert len(killed) > 40
    assert len(reported) == 2  # the saves that were let be
    for _, step, right, kept, newest, after, left in lines:
        assert step in ("20", "30")
        assert right == "True"
        assert int(kept) >= 2
        assert (newest, left) == ("40", "[]")
        assert int(after) >= 2
    assert {line[1] for line in reported} == {"30"}
    assert {line[1] for line in killed} == {"20", "30"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_any_operation_is_gone_on_with(tmp_path):
    """From the making of its directory to its result: by resume, or by the line that began it."""
    *copies, last = map(json.loads, run(HERE / "crash_worker.py", tmp_path, "begin").splitlines())
    assert last["operations"] > 100
    assert sum(copy["different"] == OLDEST for copy in copies) < 12
    assert len(copies) > 25
    assert sum("resumed" in copy for copy in copies) > 15
    assert sum(not copy["begun"] for copy in copies) >= 2  # nothing, a lock, half a configuration
    assert sum(copy["begun"] and copy["files"] < 3 for copy in copies) >= 2  # no checkpoint yet
    for copy in copies:
        assert copy["again"] is True
        # Killed after the last save, before the oldest checkpoint was removed, it keeps that.
        assert copy["different"] in ([], OLDEST)
        assert copy.get("resumed", []) in ([], OLDEST)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_fifteen_times_is_the_calm_one(tmp_path):
    """Every file of it, byte for byte; the clock of both stands still."""
    found = json.loads(run(SOAK, "--kills", 15, "--out", tmp_path / "soak"))
    assert found["kills"] == 15
    assert found["different"] == []
    assert found["files"] > 8
    assert found["resumed"] > 9
