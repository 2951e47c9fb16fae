"""Kills a training at random moments until it is done, and compares it with the calm one.

    python benchmarks/soak.py --kills 300
    python benchmarks/soak.py --every-call      (with strace: a save killed at each system call)

Prints one JSON document; exit status 1 if anything was lost. This process imports JAX but does not
start it, and forks every attempt: so an attempt costs a second and not ten.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import coterie
from coterie.runs import loop, plan
from coterie.storage import checkpoint
from coterie.training import loop as training

KINDS = ("write", "pwrite64", "fsync", "rename", "unlink", "unlinkat", "rmdir", "mkdir", "openat",
         "close", "lseek", "read", "newfstatat", "ftruncate", "getdents64")  # fmt: skip
"""System calls on files."""


def forked(work) -> int:
    """A child that does the work and ends like a killed process: nothing is tidied up."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(status)
    return child


# A training --------------------------------------------------------------------------------------


def attempt(run: Path, cache: Path, kills: int, events: int | None = None) -> None:
    """Begins the run, or goes on with it; ``events`` is a pipe that is told of what happens."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    time.perf_counter = lambda: 0.0
    training.CHUNK_STEPS, plan.EPISODES = 32, 4
    loop.CHECKPOINTS = loop.LOG_POINTS = 2 * kills

    def report(event: str, facts: dict) -> None:
        if events is not None:
            os.write(events, event[:1].encode())

    if (run / "config.json").is_file():
        coterie.resume(run, report=report)
        return
    coterie.train(
        coterie.VDN(environments=4, hidden=(8,), batch_size=8, buffer_size=256, update_ratio=1 / 4,
                    learning_starts=16, sharing="shared"),
        "matrix/climbing", 64 * kills, out=run, options={"rounds": 3}, evaluations=6,
        final_episodes=4, report=report,
    )  # fmt: skip


def train_killed(run: Path, cache: Path, kills: int, seed: int, until: float) -> dict:
    """Trains the run, killed so often; where the kills fell, by the event before."""
    chance = random.Random(seed)
    fell, attempts, resumed = collections.Counter(), 0, 0
    while True:
        more = fell.total() < kills and time.monotonic() < until
        listen, tell = os.pipe()
        resumed += bool(list(run.glob("checkpoints/*/state.safetensors")))
        attempts += 1
        child = forked(lambda tell=tell: attempt(run, cache, kills, tell))
        os.close(tell)
        spare, last = chance.randrange(14), "begin"
        while more and spare and (event := os.read(listen, 1)):
            last, spare = event.decode(), spare - 1
        if more and not spare:
            # Not just behind the event: wherever the next hundredth of a second leads to.
            time.sleep(chance.random() * (0.02 if last != "begin" else 2.0))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(listen)
        if os.WIFSIGNALED(status):
            fell[last] += 1
            print(f"kill {fell.total()}", file=sys.stderr)
        elif status:
            raise SystemExit(f"attempt {attempts} failed")
        else:
            return {"attempts": attempts, "resumed": resumed, "fell": dict(fell)}


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def soak(out: Path, kills: int, seed: int, minutes: float) -> dict:
    cache, begun = out / "compiled", time.monotonic()
    _, status = os.waitpid(forked(lambda: attempt(out / "calm", cache, kills)), 0)
    if status:
        raise SystemExit("the calm run failed")
    facts = train_killed(out / "killed", cache, kills, seed, begun + 60 * minutes)
    calm, killed = contents(out / "calm"), contents(out / "killed")
    different = [n for n in calm.keys() | killed.keys() if calm.get(n) != killed.get(n)]
    # The holder of the lock is another process each time; a killed one leaves its name.
    different = sorted(n for n in different if n != ".lock")
    lines = calm["metrics.jsonl"].count(b"\n")
    return {
        "kills": sum(facts["fell"].values()), **facts, "files": len(calm), "log_lines": lines,
        "different": different, "seconds": round(time.monotonic() - begun),
    }  # fmt: skip


# A save ------------------------------------------------------------------------------------------


def tree(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"small": rng.normal(size=3), "large": rng.integers(0, 9, 20_000, np.int32)}


def traced_save(run: Path, *options: str) -> list[str]:
    """A save under strace; its system calls on files."""

    def work() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        checkpoint.save(run, 30, tree(30), {"step": 30})

    child = forked(work)
    os.waitpid(child, os.WUNTRACED)
    log = run.parent / "calls"
    tracer = subprocess.Popen(
        ["strace", "-p", str(child), "-o", str(log), "-e", f"trace={','.join(KINDS)}", *options],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr
    tracer.stderr.readline()  # attached
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    tracer.communicate()
    return [line.split("(")[0] for line in log.read_text().splitlines() if "(" in line]


def every_call(out: Path) -> dict:
    whole = out / "whole"
    whole.mkdir(parents=True)
    for step in (10, 20):
        checkpoint.save(whole, step, tree(step), {"step": step})
    run, found, lost = out / "run", collections.Counter(), []
    shutil.copytree(whole, run)
    calls = collections.Counter(traced_save(run))
    for name, count in calls.items():
        for n in range(1, count + 1):
            shutil.rmtree(run)
            shutil.copytree(whole, run)
            traced_save(run, "-e", f"inject={name}:signal=KILL:when={n}")
            step, got, _ = checkpoint.latest(run, tree(0))
            found[step] += 1
            if any(not np.array_equal(x, tree(step)[k]) for k, x in got.items()):
                lost.append([name, n])
    return {"calls": dict(calls), "kills": found.total(), "newest": found, "lost": lost}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10**6, help="no kills after these")
    parser.add_argument("--every-call", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="coterie-soak-"))
    found = (
        every_call(out) if asked.every_call else soak(out, asked.kills, asked.seed, asked.minutes)
    )
    print(json.dumps(found))
    return 1 if found.get("different") or found.get("lost") else 0


if __name__ == "__main__":
    sys.exit(main())
