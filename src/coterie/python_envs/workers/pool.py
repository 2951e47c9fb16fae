"""Many Python environments stepped together, in this process or spread over worker processes.

Environments are rows of arrays (``Rows``), divided into groups. ``start(group)`` has a group's
environments carry out their commands, ``wait(group)`` returns when they have: in between the caller
is free, and other groups can be started. Which process an environment is in
changes nothing of what it does.

No line here imports JAX: worker processes read this file and should start at once.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import util
from multiprocessing.heap import Arena
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.python_envs.adapters.infos import Reported
from coterie.python_envs.other_python import start
from coterie.python_envs.process import (
    GRACE,
    LINGER,
    Worker,
    has_ended,
    how_it_ended,
    interrupts_held_back,
)
from coterie.python_envs.workers import serving
from coterie.python_envs.workers.messages import received, spec_content
from coterie.python_envs.workers.serving import Board, board_bytes
from coterie.python_envs.workers.worker import (
    RESET,
    STEPPED,
    Fault,
    Limits,
    Rows,
    close,
    make_rows,
    obey,
    slots_at,
    take_reports,
)
from coterie.spec import PythonEnvFactory

NOT_HERE = (
    "environments of another Python (--python) are stepped in its processes: give at least 1 worker"
)

Groups = Sequence[Sequence[int]]
"""The rows of each group; no row is in two."""


class VectorEnv(abc.ABC):
    """Environments by row, divided into groups, of which any can be on the move.

    Attributes:
        rows: their arrays; a group's are the caller's from ``wait`` to ``start``.
        reports: by row, what an environment reported of an episode that ended in its last step; of
            the group that was waited for last.
    """

    rows: Rows
    reports: dict[int, Reported]

    @abc.abstractmethod
    def start(self, group: int) -> None:
        """Has the group's environments carry out the commands in their rows."""

    @abc.abstractmethod
    def wait(self, group: int) -> list[Fault]:
        """Returns when they have, with the faults there were."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes all environments and ends all processes."""


class SerialVectorEnv(VectorEnv):
    """All environments in this process, one after the other."""

    def __init__(self, factory: PythonEnvFactory, groups: Groups, limits: Limits) -> None:
        spec = factory.promise
        self.rows = make_rows(spec, sum(map(len, groups)))
        self._limits, self.reports = limits, {}
        self._slots = [slots_at(factory.make, spec, self.rows, group, limits) for group in groups]

    def start(self, group: int) -> None:
        """Nothing: they move while they are waited for."""

    def wait(self, group: int) -> list[Fault]:
        faults = obey(self._slots[group])
        self.reports = take_reports(self._slots[group])
        return faults

    def close(self) -> None:
        for slots in self._slots:
            close(slots, self._limits.step)


class WorkerVectorEnv(VectorEnv):
    """Every group's environments spread over worker processes, results in shared memory.

    Workers are spawned, never forked: JAX has threads. They end with this process, however that
    ends. A worker that dies or no longer answers takes its environments with it; it is spawned
    anew when it is next needed, with environments that wait for their reset.
    """

    def __init__(
        self, factory: PythonEnvFactory, groups: Groups, limits: Limits, workers: int
    ) -> None:
        self._factory, self._limits = factory, limits
        self._count = sum(map(len, groups))
        self._context = multiprocessing.get_context("spawn")
        # Unlinked as soon as it is made: it is gone when the last process that maps it is.
        self._memory = Arena(board_bytes(factory.promise, self._count, workers))
        board = Board(factory.promise, self._count, workers, self._memory.buffer)
        self.rows, self._beats, self._allowed = board.rows, board.beats, board.allowed
        # What does not divide evenly falls to the first worker of one group, the last of the next.
        parts = [
            np.array_split(np.asarray(group), workers)[:: -1 if g % 2 else 1]
            for g, group in enumerate(groups)
        ]
        self._rows_of = [[part[w].tolist() for part in parts] for w in range(workers)]
        self._workers: list[Worker | None] = [None] * workers
        self._pending: list[list[int]] = [[] for _ in range(workers)]
        self._answered: dict[tuple[int, int], tuple[list[Fault], dict[int, Reported]]] = {}
        self.reports = {}
        # Before multiprocessing joins its children, which would wait for us to let them go.
        self._end = util.Finalize(self, _dismiss, (self._workers,), exitpriority=10)

    def start(self, group: int) -> None:
        for w, rows in enumerate(self._rows_of):
            if not rows[group]:
                continue
            worker = self._workers[w] or self._spawn(w)
            self._pending[w].append(group)
            with contextlib.suppress(OSError):  # waiting for it will tell
                worker.connection.send_bytes(bytes([group]))

    def wait(self, group: int) -> list[Fault]:
        faults: list[Fault] = []
        self.reports = {}
        for w, rows in enumerate(self._rows_of):
            if not rows[group]:
                continue
            while (w, group) not in self._answered:
                self._hear(w)
            found, reports = self._answered.pop((w, group))
            faults += found
            self.reports |= reports
        # In the order in which they are found where environments move one after the other.
        return sorted(faults, key=lambda fault: fault.row)

    def close(self) -> None:
        self._end()

    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers if worker]

    def _spawn(self, w: int) -> Worker:
        self._beats[2 * w] = self._beats[2 * w + 1] = -1
        self._allowed[w] = self._limits.step + self._limits.opening
        with interrupts_held_back():
            # Before an interrupt is heard again: ``close`` must know of it.
            self._workers[w] = worker = self._started(w)
        return worker

    def _started(self, w: int) -> Worker:
        """A process that begins as worker w, of this Python or of another."""
        spec, other = self._factory.promise, self._factory.other_python
        place = {"rows": self._rows_of[w], "count": self._count}
        place |= {"number": w, "workers": len(self._workers)}
        if other:
            limits = (self._limits.step, self._limits.opening)
            job = {"source": other.source(), "spec": spec_content(spec), "limits": limits}
            return start(other.python, serving.__name__, job | place, self._memory.fd)
        ours, theirs = self._context.Pipe()
        task = serving.Task(self._factory.make, spec, self._limits, **place)
        process = self._context.Process(
            target=serving.work, args=(theirs, self._memory, task), daemon=True
        )
        process.start()
        theirs.close()
        return Worker(process, ours)

    def _hear(self, w: int) -> None:
        """Takes a worker's next answer; if none comes, the worker is given up."""
        worker = self._workers[w]
        assert worker is not None
        try:
            if (silent := self._wait_for(worker, w)) is not None:
                return self._give_up(w, f"its process did not answer for {silent:.0f} seconds")
            answer = received(worker.connection)
        except (EOFError, OSError):
            has_ended(worker.process, GRACE)
            return self._give_up(w, self._why_it_ended(w, worker.process.exitcode))
        faults, reports = json.loads(answer[1:]) if len(answer) > 1 else ((), ())
        self._pending[w].remove(answer[0])
        self._answered[w, answer[0]] = [Fault(*fault) for fault in faults], dict(reports)
        return None

    def _wait_for(self, worker: Worker, w: int) -> float | None:
        """Until a worker answers: None; or for how long it gave no sign of life, if for too long.

        Raises:
            EOFError: it has ended.
        """
        last, since = self._signs(w), time.monotonic()
        while not worker.connection.poll(min(1.0, self._limits.step)):
            if not worker.process.is_alive() and not worker.connection.poll(0):
                raise EOFError  # what its environments started may still hold the other end
            if (now := self._signs(w)) != last:
                last, since = now, time.monotonic()
            elif (silent := time.monotonic() - since) > last[-1] + GRACE:
                return silent
        return None

    def _signs(self, w: int) -> tuple[int, int, float]:
        """Which environment a worker is in, and how many seconds that may take.

        An alarm in the worker comes first, if it can. Between two environments a worker may take
        as long as for a step.
        """
        group, number = self._beats[2 * w], self._beats[2 * w + 1]
        return group, number, self._allowed[w] or self._limits.step

    def _moving(self, w: int) -> int | None:
        """The row whose environment a worker is in."""
        group, number = self._beats[2 * w], self._beats[2 * w + 1]
        return self._rows_of[w][group][number] if min(group, number) >= 0 else None

    def _why_it_ended(self, w: int, status: int | None) -> str:
        if self._beats[2 * w] < 0 and (status or 0) >= 0 and not self._factory.other_python:
            return (
                f"its worker process ended as it started (exit status {status}); a script that "
                'trains in worker processes must do so under if __name__ == "__main__":, and what '
                "makes the environment must be found in a module; workers 0 needs neither"
            )
        return f"its worker process ended ({how_it_ended(status)})"

    def _give_up(self, w: int, sentence: str) -> None:
        """Ends a worker; of all that was to answer one environment is at fault, others lost."""
        worker, self._workers[w] = self._workers[w], None
        assert worker is not None
        worker.end()
        waiting = {
            group: [row for row in self._rows_of[w][group] if self.rows.command[row]]
            for group in self._pending[w]
        }
        rows = [row for part in waiting.values() for row in part]
        moving = self._moving(w)
        culprit = moving if moving in rows else next(iter(rows), None)
        for group, part in waiting.items():
            faults = [
                Fault(row, self._step_of(row), None, sentence, lost=row != culprit) for row in part
            ]
            self._answered[w, group] = faults, {}
        self._pending[w].clear()

    def _step_of(self, row: int) -> int:
        begins = self.rows.command[row] in (RESET, STEPPED)
        return 0 if begins else int(self.rows.steps[row]) + 1


def _dismiss(all_workers: list[Worker | None]) -> None:
    """Lets workers close their environments, and ends those that do not."""
    workers = [worker for worker in all_workers if worker]
    try:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.connection.send_bytes(b"")
        deadline = time.monotonic() + GRACE + LINGER
        for worker in workers:
            has_ended(worker.process, deadline - time.monotonic())
    finally:
        all_workers[:] = [None] * len(all_workers)
        for worker in workers:
            worker.end()


def make_vector_env(
    factory: PythonEnvFactory, groups: Groups, limits: Limits, workers: int
) -> VectorEnv:
    """Environments in so many worker processes, at most one each; 0 steps them in this process."""
    workers = min(workers, max(map(len, groups)))
    if workers == 0 and factory.other_python:
        raise UsageError(NOT_HERE)
    if workers == 0:
        return SerialVectorEnv(factory, groups, limits)
    if not factory.other_python and not can_be_sent(factory.make):
        raise UsageError(
            f"{factory.name} cannot be sent to worker processes: make it in a function of a "
            "module, or step it in this process with workers 0"
        )
    return WorkerVectorEnv(factory, groups, limits, workers)


def can_be_sent(make: Callable[[], Any]) -> bool:
    """Whether another process can be sent what makes the environment."""
    inner: Any = make
    while isinstance(inner, functools.partial):
        if inner.func is copy.deepcopy:
            inner = type(inner.args[0])
        else:
            inner = inner.args[0] if inner.args and callable(inner.args[0]) else inner.func
    main = sys.modules.get("__main__")
    if getattr(inner, "__module__", "") == "__main__" and not hasattr(main, "__file__"):
        return False  # typed by hand: no other process can read it
    with contextlib.suppress(Exception):
        ForkingPickler.dumps(make)
        return True
    return False


def copies_of(environment: Any) -> Callable[[], Any]:
    """A factory of copies of an environment that was given as an object."""
    return functools.partial(copy.deepcopy, environment)
