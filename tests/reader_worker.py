"""Gives commands a run with something else in the place of a file, with little memory and time.

``python reader_worker.py FOLDER``; prints what each command answered as JSON. FOLDER holds a run
in ``run`` and a payoff file in ``game.json``.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
from memory import megabytes

from coterie.cli.entry import main

GIGABYTES, SECONDS = 16, 60
"""Of addresses, of which JAX alone takes several; and of a command."""
THINGS = ("FIFO", "directory", "zeros")
RUN = (
    "evaluate RUN --episodes 2", "watch RUN --out OUT.gif", "plot RUN --out OUT.png",
    "report RUN --out OUT.html", "resume RUN --steps 480", "game RUN",
)  # fmt: skip
COMMANDS = {
    "run/config.json": RUN,
    "run/metrics.jsonl": RUN,
    "run/evaluations.json": RUN,
    "run/policy/policy.json": RUN,
    "run/policy/seed-0/best.safetensors": RUN,
    "run/checkpoints/NEWEST/state.safetensors": RUN,
    "run/learner.safetensors": RUN,
    "game.json": ("game GAME", "train vdn matrix/GAME --steps 10"),
}


def put(path: Path, what: str) -> None:
    """Something else under the name of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 30 * 10**9)


def late(*_: object) -> None:
    raise SystemExit(f"it took more than {SECONDS} seconds")


def answer(command: str, home: Path) -> list[object]:
    """How a command ended, in how many seconds, and what it said to whom."""
    places = {"RUN": "run", "OUT": "out", "GAME": "game.json"}
    for word, name in places.items():
        command = command.replace(word, str(home / name))
    out, err, begun = io.StringIO(), io.StringIO(), time.monotonic()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: object = main(command.split())
    except BaseException as error:  # what no user should see
        status = repr(error)
    signal.alarm(0)
    return [status, time.monotonic() - begun, err.getvalue()]


def work(whole: Path, place: str, what: str) -> dict[str, list[object]]:
    """The answers of all commands that read a file."""
    answers = {}
    for command in COMMANDS[place]:
        home = whole.parent / "home"
        shutil.copytree(whole, home)
        newest = max(int(p.name) for p in (home / "run/checkpoints").iterdir())
        put(home / place.replace("NEWEST", str(newest)), what)
        answers[f"{what} · {place} · {command}"] = answer(command, home)
        shutil.rmtree(home)
    return answers


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 2**30, GIGABYTES * 2**30))
    result: dict[str, list[object]] = {}
    for place in sys.argv[2:] or COMMANDS:
        for what in THINGS:
            result |= work(Path(sys.argv[1]), place, what)
            jax.clear_caches()  # what was compiled for the commands before is not what files cost
    print(json.dumps({"answers": result, "megabytes": megabytes()}))
