"""Cells as processes of this machine: one core each, or one GPU each where JAX has some."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.python_envs.process import INTERRUPTS, how_it_ended
from coterie.storage.files import held_by
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.cells import Cell

STOPPED = 130
"""Exit status of a run that has saved and ended because it was asked to."""
TRIES = 3
"""So often a cell whose process was killed is tried without getting any further."""
LOCK_SECONDS = 60.0
"""So long a cell waits while another process writes to its directory."""
_POLL = 0.1


@dataclass
class Job:
    """A cell on its way.

    Attributes:
        status: ``waiting``, ``running``, ``done``, ``failed`` or ``stopped``.
        problem: why it failed, a sentence.
        tries: how often in a row it was killed without getting any further.
    """

    cell: Cell
    path: Path
    log: Path
    status: str = "waiting"
    problem: str = ""
    tries: int = 0
    begun: float = 0.0
    locked_since: float | None = None
    at: int = -1
    """Steps of its newest checkpoint when it was last started."""

    def is_done(self) -> bool:
        """Whether its run is complete."""
        directory = RunDirectory(self.path)
        try:
            return directory.holds_a_run() and directory.is_finished(directory.config())
        except UsageError:  # damaged: the run says so itself when it is to go on
            return False


class Slot:
    """A place for one process at a time."""

    def __init__(self, core: int | None, gpu: str | None):
        self.core = "" if core is None else str(core)
        self.variables = {"PJRT_NPROC": "1"} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}


def slots(workers: int | None) -> list[Slot]:
    """Places for so many processes: by default one for each GPU, or else for each core."""
    if graphics := _gpus():
        count = workers or len(graphics)
        return [Slot(None, graphics[k % len(graphics)]) for k in range(count)]
    usable = getattr(os, "sched_getaffinity", None)
    cores = sorted(usable(0)) if usable else [None] * (os.cpu_count() or 1)
    return [Slot(cores[k % len(cores)], None) for k in range(workers or len(cores))]


def _gpus() -> list[str]:
    """The GPUs that JAX would use, by the names that CUDA_VISIBLE_DEVICES takes."""
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if not any(map(importlib.util.find_spec, plugins)):
        return []
    if os.environ.get("JAX_PLATFORMS", "cuda").partition(",")[0] not in ("cuda", "gpu"):
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


class Local:
    """Processes of this machine, at most one in each slot.

    ``tell`` is called with a job whose status has changed, and may return further jobs.
    """

    def __init__(self, places: Sequence[Slot], tell: Callable[[Job], Iterable[Job] | None]):
        self.free = list(places)
        self.tell = tell
        self.queue: list[Job] = []
        self.running: list[tuple[Job, Slot, subprocess.Popen[bytes], int]] = []
        self.stopping = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Goes on with all of them, until each is done, failed, or stopped."""
        reading, writing = os.pipe()
        self.queue = list(jobs)
        try:
            with self._interrupts():
                self._run(self.queue, reading)
        finally:
            for _, _, process, _ in self.running:  # after an error of ours
                process.terminate()
            os.close(writing)
            os.close(reading)

    def _run(self, queue: list[Job], pipe: int) -> None:
        while self.running or (queue and not self.stopping):
            for job in list(queue):
                if not self.free or self.stopping:
                    break
                if job.begun <= time.monotonic():
                    queue.remove(job)
                    if self._is_free(job, queue):
                        self._start(job, pipe)
            time.sleep(_POLL)
            for entry in [e for e in self.running if e[2].poll() is not None]:
                self.running.remove(entry)
                job, slot, process, offset = entry
                self.free.append(slot)
                self._ended(job, process.returncode, _last_sentence(job.log, offset), queue)
        for job in list(queue):
            self._set(job, "stopped")

    def _is_free(self, job: Job, queue: list[Job]) -> bool:
        """Whether nobody else writes to the cell; if somebody does, it waits for its turn."""
        if (holder := held_by(job.path)) is None:
            return True
        job.locked_since = job.locked_since or time.monotonic()
        if time.monotonic() - job.locked_since > LOCK_SECONDS:
            seconds = f"{LOCK_SECONDS:g} seconds"
            self._set(job, "failed", f"{job.path} was written to by {holder} for {seconds}")
        else:
            job.begun = time.monotonic() + 0.5
            queue.append(job)
        return False

    def _start(self, job: Job, pipe: int) -> None:
        slot = self.free.pop(0)
        job.at = RunDirectory(job.path).newest_checkpoint()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            offset = log.tell()
            words = [slot.core, str(os.getpid()), str(pipe), *job.cell.command(job.path)]
            process = subprocess.Popen(
                [sys.executable, "-m", "coterie.sweeps.child", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                pass_fds=(pipe,) if os.name == "posix" else (),
                env=os.environ | slot.variables, start_new_session=True,
            )  # fmt: skip
        self.running.append((job, slot, process, offset))
        self._set(job, "running")

    def _ended(self, job: Job, status: int, said: str, queue: list[Job]) -> None:
        if job.is_done():
            return self._set(job, "done")
        if self.stopping:
            return self._set(job, "stopped")
        if status >= 0 and status != STOPPED and held_by(job.path) is None:
            why = said or f"its process ended with {how_it_ended(status)}"
            return self._set(job, "failed", why)
        if status < 0 or status == STOPPED:
            further = RunDirectory(job.path).newest_checkpoint() > job.at
            job.tries = 0 if further else job.tries + 1
            if job.tries >= TRIES:
                how = f"its process ended {TRIES} times without getting any further"
                return self._set(job, "failed", f"{how} ({how_it_ended(status)})")
        queue.append(job)
        return self._set(job, "waiting")

    def _set(self, job: Job, status: str, problem: str = "") -> None:
        job.status, job.problem = status, problem
        self.queue += self.tell(job) or ()

    @contextlib.contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM go to every cell, which saves; the second one ends them at once."""

        def ask(number: int, frame: Any) -> None:
            del number, frame
            self.stopping = True
            for _, _, process, _ in self.running:
                process.terminate()

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, ask) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _last_sentence(log: Path, offset: int) -> str:
    """What the command said last, without its name before it."""
    with log.open("rb") as file:
        file.seek(max(offset, file.seek(0, os.SEEK_END) - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    said = next((line for line in reversed(lines) if line), "")
    return said.removeprefix("coterie: ")
