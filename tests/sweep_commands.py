"""What tests of sweeps share: sweeps as commands, their cells' processes, their logs."""

import json
import subprocess
import sys
import time
from pathlib import Path

from coterie.sweeps import engine

TINY = {
    "algorithms": ["vdn", "ia2c"],
    "environments": ["matrix/climbing"],
    "steps": 400,
    "evaluations": 1,
    "evaluation_episodes": 2,
    "final_episodes": 2,
}
LONG = TINY | {"algorithms": ["ia2c"], "steps": 50_000_000}
TIMES = {"seconds", "steps_per_second", "steps_per_second_total", "digest"}


SCRIPT = """
import sys
from coterie.cli import main
from coterie.sweeps import api, engine
engine.LOCK_SECONDS = api.LOCK_SECONDS = float(sys.argv.pop(1))
sys.exit(main())
"""


def begin(
    folder: Path,
    tables: dict,
    *flags: str,
    out: Path | None = None,
    lock_seconds: float = engine.LOCK_SECONDS,
) -> subprocess.Popen:
    """``coterie sweep`` on these tables, in a process group of its own."""
    file = folder / "s.toml"
    file.write_text("\n".join(f"{k} = {_toml(v)}" for k, v in tables.items()))
    out = out or folder / "out"
    words = [sys.executable, "-c", SCRIPT, str(lock_seconds), "sweep", str(file)]
    words += ["--out", str(out), *flags]
    return subprocess.Popen(
        words, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def until(holds, seconds=120.0):
    """Waits for it; returns what it returned."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def has_checkpoint(run: Path) -> bool:
    return any(run.glob("checkpoints/*/state.safetensors"))


def holder(run: Path) -> int:
    """The process that has signed the run's lock; 0 if nobody has."""
    lock = run / ".lock"
    text = lock.read_text() if lock.exists() else ""
    return json.loads(text)["process"] if text else 0


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended may be there still, until somebody asks how it did."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True)
    return not found.stdout.startswith(b"Z") and bool(found.stdout)


def cell_processes(run: Path) -> list[int]:
    """The processes of a cell, from the moment that they are started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"coterie.sweeps.child" in words and str(run).encode() in words:
            found.append(int(path.parent.name))
    return found


def without_times(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
