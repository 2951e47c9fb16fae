"""What this machine has: cores and memory, where the system tells. Imports no JAX."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may run on, which may be fewer than the machine has."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes of memory that a process can still get, where the system tells."""
    return _memory("MemAvailable", "SC_AVPHYS_PAGES")


def total_memory() -> int | None:
    """Bytes of memory of the machine, where the system tells."""
    return _memory("MemTotal", "SC_PHYS_PAGES")


def _memory(of_linux: str, pages: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(of_linux))
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
