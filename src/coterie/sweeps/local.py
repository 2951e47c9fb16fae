"""Cells as processes of this machine: one core each, or one GPU each where JAX has some."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from coterie.sweeps.engine import Engine, Job, Tell
from coterie.sweeps.process import CellProcess, Ending, has_cuda_plugin, may_use_cuda


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
    if not (has_cuda_plugin() and may_use_cuda()):
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


class Local(Engine):
    """Processes of this machine, at most one in each slot."""

    def __init__(self, places: Sequence[Slot], tell: Tell):
        super().__init__(tell)
        self._free = list(places)
        self._running: list[tuple[Job, Slot, CellProcess]] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.ask_to_stop(at_once=False)  # after an error of ours

    def has_room(self) -> bool:
        return bool(self._free)

    def start(self, job: Job) -> None:
        slot = self._free.pop(0)
        process = CellProcess(
            job.cell.command(job.path), job.log, core=slot.core, variables=slot.variables
        )
        self._running.append((job, slot, process))

    def is_busy(self) -> bool:
        return bool(self._running)

    def ended(self) -> list[tuple[Job, Ending]]:
        found = []
        for entry in list(self._running):
            job, slot, process = entry
            if (ending := process.ending()) is not None:
                self._running.remove(entry)
                self._free.append(slot)
                found.append((job, ending))
        return found

    def ask_to_stop(self, at_once: bool) -> None:
        for _, _, process in self._running:
            process.ask_to_stop()
