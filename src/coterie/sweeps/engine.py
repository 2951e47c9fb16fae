"""What becomes of a sweep's cells as their processes end; an engine says where these run."""

from __future__ import annotations

import abc
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.python_envs.process import INTERRUPTS
from coterie.storage.files import held_by
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.cells import Cell
from coterie.sweeps.process import POLL, Ending

STOPPED = 130
"""Exit status of a run that has saved and ended because it was asked to."""
TRIES = 3
"""So often a cell whose process was killed is tried without getting any further."""
LOCK_SECONDS = 60.0
"""So long a cell waits while another process writes to its directory."""


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


Tell = Callable[[Job], Iterable[Job] | None]
"""Called with a job whose status has changed; returns jobs to do besides, if there are any."""


class Engine(abc.ABC):
    """Goes on with cells until each is done, failed, or stopped."""

    def __init__(self, tell: Tell):
        self._tell = tell
        self._queue: list[Job] = []
        self._asked = 0
        """How often it was asked to stop."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Goes on with all of them, and with those that ``tell`` returns.

        Ctrl-C and SIGTERM make every cell save and stop; the second one ends them at once.
        """
        self._queue = list(jobs)
        if self._queue:
            with self.opened(), self._interrupts():
                self._run()

    # Where cells run ------------------------------------------------------------------------------

    @abc.abstractmethod
    def opened(self) -> AbstractContextManager[None]:
        """What processes need, meanwhile; afterwards none is left running."""

    @abc.abstractmethod
    def has_room(self) -> bool:
        """Whether one more process may be started."""

    @abc.abstractmethod
    def start(self, job: Job) -> None:
        """Starts the process of a cell."""

    @abc.abstractmethod
    def is_busy(self) -> bool:
        """Whether there are processes."""

    @abc.abstractmethod
    def ended(self) -> list[tuple[Job, Ending]]:
        """The cells whose processes have ended since the last call."""

    @abc.abstractmethod
    def ask_to_stop(self, at_once: bool) -> None:
        """Every process saves and ends, or ends at once."""

    # What becomes of them -------------------------------------------------------------------------

    def _run(self) -> None:
        heard = 0
        while self.is_busy() or (self._queue and not self._asked):
            self._start_some()
            time.sleep(POLL)
            for k in range(heard, heard := self._asked):
                self.ask_to_stop(at_once=k > 0)
            for job, ending in self.ended():
                self._decide(job, ending)
        for job in list(self._queue):
            self._set(job, "stopped")

    def _start_some(self) -> None:
        for job in list(self._queue):
            if self._asked or not self.has_room():
                return
            if job.begun <= time.monotonic():
                self._queue.remove(job)
                if self._is_free(job):
                    job.at = RunDirectory(job.path).newest_checkpoint()
                    self.start(job)
                    self._set(job, "running")

    def _is_free(self, job: Job) -> bool:
        """Whether nobody else writes to the cell; if somebody does, it waits for its turn."""
        if (holder := held_by(job.path)) is None:
            job.locked_since = None
            return True
        job.locked_since = job.locked_since or time.monotonic()
        if time.monotonic() - job.locked_since > LOCK_SECONDS:
            seconds = f"{LOCK_SECONDS:g} seconds"
            self._set(job, "failed", f"{job.path} was written to by {holder} for {seconds}")
        else:
            job.begun = time.monotonic() + 0.5
            self._queue.append(job)
        return False

    def _decide(self, job: Job, ending: Ending) -> None:
        if job.is_done():
            return self._set(job, "done")
        if self._asked:
            return self._set(job, "stopped")
        # A folder shared over a network may not show at once what a process of another node wrote.
        stopped = ending.status in (None, STOPPED, 0)
        if not stopped and held_by(job.path) is None:
            why = ending.said or f"its process ended with exit status {ending.status}"
            return self._set(job, "failed", why)
        if stopped:
            further = RunDirectory(job.path).newest_checkpoint() > job.at
            job.tries = 0 if further else job.tries + 1
            if job.tries >= TRIES:
                how = ending.said if ending.status is None else f"exit status {ending.status}"
                times = f"its process ended {TRIES} times without getting any further"
                return self._set(job, "failed", f"{times} ({how})")
        self._queue.append(job)
        return self._set(job, "waiting")

    def _set(self, job: Job, status: str, problem: str = "") -> None:
        job.status, job.problem = status, problem
        self._queue += self._tell(job) or ()

    @contextlib.contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Counts Ctrl-C and SIGTERM, which the loop answers."""

        def ask(number: int, frame: Any) -> None:
            del number, frame
            self._asked += 1

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, ask) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
