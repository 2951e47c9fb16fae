"""Ctrl-C at any moment of the start of worker processes ends no worker, and leaves none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))
EVERY = [f"{0.02 * k:g}" for k in range(40)]
"""Seconds; at the last of them a worker has started, on a quiet machine."""


def start(*arguments: str) -> tuple[dict, str]:
    """What ``interrupt_worker`` found, and what it and its workers printed on standard error."""
    done = subprocess.run(
        [sys.executable, str(HERE / "interrupt_worker.py"), *arguments], text=True,
        env=os.environ | {"PYTHONPATH": PATHS}, capture_output=True, start_new_session=True,
        timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def check(moments: list[str], raising: bool, other: bool = False) -> None:
    answer, errors = start(*["other"][: int(other)], *["raising"][: int(raising)], *moments)
    assert "Traceback" not in errors, errors
    assert answer["left"] == []
    assert [faults for _, faults in answer["found"]] == [[]] * len(answer["found"])
    assert answer["heard"] >= len(moments)
    if not raising:
        assert len(answer["found"]) == len(moments)


@pytest.mark.parametrize("raising", [False, True])
def test_no_worker_dies_of_ctrl_c_as_it_starts(raising):
    check(["spawn", "0.05", "0.2"], raising)


@pytest.mark.parametrize("raising", [False, True])
def test_no_worker_of_another_python_dies_of_ctrl_c_as_it_starts(raising):
    check(["0.005", "0.05", "0.2"], raising, other=True)


@pytest.mark.slow
@pytest.mark.parametrize("raising", [False, True])
def test_no_worker_dies_of_ctrl_c_at_any_moment_of_its_start(raising):
    check(["spawn", *EVERY], raising)
