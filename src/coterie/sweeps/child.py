"""Where a cell's process begins: on its core, and ending with the sweep; then it is the command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
import threading


def main(core: str, parent: str, pipe: str, *args: str) -> None:
    """Runs ``coterie ARGS``.

    Args:
        core: a core's number, or nothing.
        parent: the sweep's process.
        pipe: descriptor of a pipe that closes when the sweep ends.
    """
    _end_with(int(parent), int(pipe))
    if core and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # taken away since the sweep began
            os.sched_setaffinity(0, {int(core)})
    sys.argv = ["coterie", *args]
    runpy.run_module("coterie", run_name="__main__")


def _end_with(parent: int, pipe: int) -> None:
    """SIGTERM when the sweep's process is gone: the run saves, as after Ctrl-C."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                raise SystemExit(130)
            return

    def watch() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
