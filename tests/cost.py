"""Runs a command and prints what it cost: seconds, processor seconds, memory of all its processes.

    python tests/cost.py .venv/bin/python -m pytest -n 2

Memory is the proportional set size (a page that n processes share counts one nth in each), summed
over the command and its descendants, at its peak; it is read once a second, on Linux only.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Cost:
    """``processor`` seconds are those of all processes that were waited for.

    ``status`` is the command's exit status, None where it was killed at its time limit.
    """

    status: int | None
    seconds: float
    processor: float
    megabytes: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.1f} s {self.processor:7.1f} s of processors {self.megabytes:6.0f} MB"
        )


def tree(root: int) -> list[int]:
    """The process, those it started, those they started, and so on."""
    found = [root]
    for process in found:
        with contextlib.suppress(OSError):  # it has ended
            for children in (PROCESSES / str(process)).glob("task/*/children"):
                found += map(int, children.read_text().split())
    return found


def megabytes(root: int) -> float:
    """Proportional set size of a tree of processes; 0 where it cannot be read."""
    total = 0
    for process in tree(root):
        with contextlib.suppress(OSError):
            lines = (PROCESSES / str(process) / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure(command: list[str], limit: float = float("inf"), **popen) -> Cost:
    """Runs the command in a process group of its own, which is killed after ``limit`` seconds."""
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, process_group=0, **popen)
    ended, status, used = 0, 0, None
    try:
        while not ended and time.monotonic() - start < limit:
            peak = max(peak, megabytes(process.pid))
            time.sleep(min(1.0, max(0.1, time.monotonic() - start)))
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
    finally:
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
            _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # not to be waited for again
    return Cost(
        process.returncode if ended else None,
        time.monotonic() - start,
        used.ru_utime + used.ru_stime,
        peak,
    )


if __name__ == "__main__":
    cost = measure(sys.argv[1:])
    print(cost)
    sys.exit(cost.status)
