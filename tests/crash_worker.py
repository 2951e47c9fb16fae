"""Saves again and again, each time killed at another operation on files; prints what was left.

``python crash_worker.py FOLDER``. Children are forked before JAX is started, and end with
``os._exit`` like a killed process: nothing is flushed, closed or tidied up.
"""

import itertools
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from coterie import checkpoint, files
from coterie.checkpoint import latest, save

CALLS = ("write", "fsync", "close", "replace", "mkdir", "open", "unlink", "rmdir", "listdir")
"""Functions of ``os`` that a save calls; opening and reading files is noticed by an audit hook."""
KILLED = 9


def tree(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"small": rng.normal(size=3), "large": rng.integers(0, 9, 20_000, np.int32)}


def die_at(n: int, torn: bool) -> None:
    """From now on the process ends at its ``n``-th operation; ``torn``: a write is half done."""
    count = itertools.count()

    def step() -> bool:
        return next(count) == n

    def wrap(name: str):
        real = getattr(os, name)

        def call(*args, **more):
            if step():
                if torn and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os._exit(KILLED)
            return real(*args, **more)

        return call

    def hook(event: str, _: tuple) -> None:
        if event in ("open", "os.scandir", "shutil.rmtree") and step():
            os._exit(KILLED)

    for name in CALLS:
        setattr(os, name, wrap(name))
    sys.addaudithook(hook)


def sound(run: Path) -> list[int]:
    return [
        s for s in checkpoint._steps(run) if checkpoint._is_sound(checkpoint._state_path(run, s))
    ]


def saved_and_killed(run: Path, n: int, torn: bool) -> int:
    """A child that saves step 30; how it ended: 0 where nothing was left to be killed at."""
    child = os.fork()
    if not child:
        die_at(n, torn)
        save(run, 30, tree(30), {"step": 30})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    assert files.os is os
    whole = folder / "whole"
    whole.mkdir()
    for step in (10, 20):
        save(whole, step, tree(step), {"step": step})
    for torn in (False, True):
        for n in itertools.count():
            run = folder / "run"
            shutil.copytree(whole, run)
            status = saved_and_killed(run, n, torn)
            found = latest(run, tree(0), warn=lambda sentence: print("WARNED", sentence))
            right = all(np.array_equal(a, tree(found.step)[k]) for k, a in found.tree.items())
            kept = sound(run)
            save(run, 40, tree(40), {"step": 40})
            after = sound(run)
            left = [p.name for p in run.rglob("*.tmp") if p.parent.name == "40"]
            print(status, found.step, right, len(kept), after[0], len(after), left)
            shutil.rmtree(run)
            if status == 0:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
