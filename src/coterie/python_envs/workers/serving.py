"""The life of a worker process that steps environments, in this Python or in another."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.making import making
from coterie.python_envs.process import LINGER, become_worker, end_within
from coterie.python_envs.workers.messages import spec_of
from coterie.python_envs.workers.worker import (
    Limits,
    Rows,
    close,
    make_rows,
    obey,
    rows_bytes,
    slots_at,
    take_reports,
)
from coterie.spec import EnvSpec


class Board:
    """Shared memory, in which a vector environment and its workers see each other.

    Attributes:
        rows: of all environments.
        beats: of each worker which environment it is in: the group, and the number in its part of
            it; -1 for none.
        allowed: of each worker how many seconds that may take, 0 between two environments.
    """

    def __init__(self, spec: EnvSpec, count: int, workers: int, buffer: Any) -> None:
        memory = memoryview(buffer).cast("B")
        self.beats = memory[: 16 * workers].cast("q")
        self.allowed = memory[16 * workers : 24 * workers].cast("d")
        self.rows: Rows = make_rows(spec, count, memory[_head(workers) :])


def board_bytes(spec: EnvSpec, count: int, workers: int) -> int:
    """Bytes of a board."""
    return _head(workers) + rows_bytes(spec, count)


def _head(workers: int) -> int:
    return -(-24 * workers // 64) * 64


@dataclass(frozen=True)
class Task:
    """What a worker gets when it starts.

    Attributes:
        rows: of its environments, by group.
        count, workers: how many environments and workers there are.
        number: the worker's own.
    """

    make: Callable[[], PythonEnv]
    spec: EnvSpec
    limits: Limits
    rows: Sequence[Sequence[int]]
    count: int
    number: int
    workers: int


def work(connection: Any, memory: Any, task: Task) -> None:
    """A worker process of this Python; ``memory`` is a ``multiprocessing.heap.Arena``."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    become_worker(parent.sentinel)
    try:
        _serve(connection, memory.buffer, task)
    finally:
        end_within(LINGER, 0)


def serve(connection: Any, job: dict[str, Any], buffer: Any) -> None:
    """The same in another Python; ``job`` holds the task, but for ``make`` its ``source``."""
    source, spec, limits = job.pop("source"), spec_of(job.pop("spec")), Limits(*job.pop("limits"))
    _serve(connection, buffer, Task(lambda: making(**source)(), spec, limits, **job))


def _serve(connection: Any, buffer: Any, task: Task) -> None:
    """Groups' numbers in, the same numbers out, followed by any faults and any reports of episodes,
    until all is closed."""
    board = Board(task.spec, task.count, task.workers, buffer)
    slots = [slots_at(task.make, task.spec, board.rows, part, task.limits) for part in task.rows]
    beats, allowed, number = board.beats, board.allowed, task.number
    process = os.getpid()

    def beat(slot: int) -> None:
        beats[2 * number + 1] = slot

    def allow(seconds: float) -> None:
        allowed[number] = seconds

    allow(0.0)
    with contextlib.suppress(EOFError, OSError):
        while message := connection.recv_bytes():
            beats[2 * number] = message[0]
            faults = obey(slots[message[0]], beat, allow)
            if os.getpid() != process:
                os._exit(0)  # a copy that an environment made of this process, and did not end
            reports = [*take_reports(slots[message[0]]).items()]
            news = json.dumps([faults, reports]).encode() if faults or reports else b""
            connection.send_bytes(message + news)
    for part in slots:
        close(part, task.limits.step)
