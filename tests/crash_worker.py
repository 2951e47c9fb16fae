"""Saves again and again, each time killed at another operation on files; prints what was left.

``python crash_worker.py FOLDER``. Children are forked before JAX is started, and end with
``os._exit`` like a killed process: nothing is flushed, closed or tidied up.

``python crash_worker.py FOLDER begin``: a training, and what a kill at each of its operations on
files would leave, which is a copy of its directory just before; then every copy is gone on with.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from coterie.storage import checkpoint, files
from coterie.storage.checkpoint import latest, save

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


# A training, from the making of its directory on ------------------------------------------------


class Copies:
    """Copies of a directory before each operation on files in it; equal ones once."""

    def __init__(self, run: Path, home: Path):
        self.run, self.home, self.on = run, home, False
        self.kept: dict[str, Path] = {}
        self.operations = 0
        for name in CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))
        sys.addaudithook(self._hook)

    def _wrapped(self, real):
        def call(*args, **more):
            self.take()
            return real(*args, **more)

        return call

    def _hook(self, event: str, arguments: tuple) -> None:
        if event in ("open", "os.scandir", "shutil.rmtree"):
            self.take()

    def take(self) -> None:
        if not self.on or not self.run.exists():
            return
        self.on = False
        self.operations += 1
        digest = hashlib.sha256()
        for path in sorted(self.run.rglob("*")):
            digest.update(str(path.relative_to(self.run)).encode())
            digest.update(path.read_bytes() if path.is_file() else b"")
        if digest.hexdigest() not in self.kept:
            copy = self.home / str(len(self.kept))
            shutil.copytree(self.run, copy)
            self.kept[digest.hexdigest()] = copy
        self.on = True


def begin(folder: Path) -> None:
    """Prints, of each copy, what is in it and how both ways to go on with it ended."""
    import time

    import jax

    import coterie
    from coterie.training import loop as training

    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    time.perf_counter = lambda: 0.0
    training.CHUNK_STEPS = 16
    algorithm = coterie.IA2C(environments=4, rollout_steps=4, hidden=(6,))

    def train(out: Path, **more):
        return coterie.train(
            algorithm, "matrix/climbing", 32, out=out, evaluations=1, evaluation_episodes=2,
            final_episodes=2, options={"rounds": 3}, **more,
        )  # fmt: skip

    def contents(run: Path) -> dict[str, str]:
        files = (p for p in run.rglob("*") if p.is_file() and p.name != ".lock")
        return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    train(folder / "calm")
    calm = contents(folder / "calm")
    (folder / "copies").mkdir()
    copies = Copies(folder / "run", folder / "copies")
    copies.on = True
    train(folder / "run")
    copies.on = False
    for k, copy in enumerate(copies.kept.values()):
        begun = (copy / "config.json").is_file()
        facts = {"files": len(contents(copy)), "begun": begun}
        second = shutil.copytree(copy, copy.with_name(copy.name + "-resumed"))
        facts["again"] = train(copy, resume=True).complete
        facts["different"] = sorted(dict(contents(copy).items() ^ calm.items()))
        if facts["files"] < 5 or k % 8 == 0:  # enough of those that have a checkpoint
            with contextlib.suppress(coterie.UsageError):  # it has its steps already
                coterie.resume(second) if begun else train(second)
            gone_on = contents(second).items() ^ calm.items()
            facts["resumed"] = sorted(dict(gone_on).keys() - {"result.json", "result.json.tmp"})
        print(json.dumps(facts))
    print(json.dumps({"operations": copies.operations}))


if __name__ == "__main__":
    work = begin if sys.argv[2:] == ["begin"] else main
    work(Path(sys.argv[1]))
