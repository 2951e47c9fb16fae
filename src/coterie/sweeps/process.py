"""A cell's command as a process. No line here imports JAX: Ray's workers read this file, too."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

POLL = 0.1
"""Seconds between two looks at a process."""


def has_cuda_plugin() -> bool:
    """Whether JAX could use a GPU of NVIDIA."""
    return any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))


def may_use_cuda() -> bool:
    """Whether ``JAX_PLATFORMS`` lets it."""
    return os.environ.get("JAX_PLATFORMS", "cuda").partition(",")[0] in ("cuda", "gpu")


class Ending(NamedTuple):
    """How a cell's process ended.

    Attributes:
        status: exit status; None if it was killed.
        said: the last sentence of the command, or what killed it.
    """

    status: int | None
    said: str = ""


class CellProcess:
    """``coterie COMMAND`` in a process that ends with this one; its log is its standard error."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        core: str = "",
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ):
        """Starts it.

        Args:
            core: the only one that it runs on, or nothing.
            variables: set in its environment.
            directory: where it runs.
        """
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        reading, self._writing = os.pipe()
        with log.open("ab") as file:
            self._offset = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "coterie.sweeps.child", core, str(os.getpid()), str(reading),
                 *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, cwd=directory,
                pass_fds=(reading,) if os.name == "posix" else (),
                env=os.environ | (variables or {}), start_new_session=True,
            )  # fmt: skip
        os.close(reading)

    def ask_to_stop(self) -> None:
        """It saves and ends; asked once more, it ends at once."""
        self._process.terminate()

    def ending(self) -> Ending | None:
        """None while it runs."""
        if (status := self._process.poll()) is None:
            return None
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        if status < 0:
            return Ending(None, signal.Signals(-status).name)
        return Ending(status, self._last_sentence())

    def _last_sentence(self) -> str:
        """What the command said last, without its name before it."""
        with self._log.open("rb") as file:
            file.seek(max(self._offset, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        said = next((line for line in reversed(lines) if line), "")
        return said.removeprefix("coterie: ")
