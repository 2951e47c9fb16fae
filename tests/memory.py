"""How much memory this process took. Imports nothing of Coterie.

``resource.getrusage`` does not say: a new program keeps the maximum of the process that started it,
and the maximum of earlier work hides what comes after.
"""

from pathlib import Path

PROCESS = Path("/proc/self")


def forget_peak() -> None:
    """``megabytes`` then counts from here."""
    (PROCESS / "clear_refs").write_text("5")


def megabytes() -> float:
    """The most memory that was in use at once, in MB of 2**20 bytes."""
    status = (PROCESS / "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
