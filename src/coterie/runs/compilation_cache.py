"""Compiled programs, kept on disk between processes in a directory of the user's alone.

JAX finds a program again by its code, the versions of JAX and its compiler, the devices and the
compiler's flags; the directory's name adds the processor, whose instructions the code uses.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import stat
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax

from coterie.errors import UsageError

SWITCH = "COTERIE_COMPILATION_CACHE"
"""The environment variable: ``off``, or the directory that holds the cache."""
LARGEST = 2_000_000_000
"""Bytes that all programs may take; the oldest are removed above it."""
SHORTEST = 0.1
"""Seconds of compilation below which a program is not kept."""
CHECKED = "checked"
"""The file whose time says up to when the files beside it were read through."""


@functools.cache
def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles, unless the user has decided about JAX's cache or against it.

    A directory that is not the user's alone is not used, as what is in it is executed.
    """
    if decided():
        return
    try:
        folder = prepared()
    except UsageError as error:
        warnings.warn(str(error), stacklevel=2)
        return
    except OSError:  # a read-only home: nothing is kept
        return
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def decided() -> str | None:
    """What the user has decided about compiled programs, as words; None if nothing."""
    config: Any = jax.config  # its attributes are not declared
    if os.environ.get(SWITCH) == "off":
        return f"off ({SWITCH})"
    if not config.jax_enable_compilation_cache:
        return "off (JAX_ENABLE_COMPILATION_CACHE)"
    chosen = config.jax_compilation_cache_dir
    return f"{chosen} (JAX's own setting)" if chosen else None


def prepared() -> Path:
    """The directory for programs of this machine, made and tidied.

    Raises:
        UsageError: it is not the user's alone.
        OSError: it cannot be made or written.
    """
    root = _root()
    folder = root / _machine()
    for each in (root, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in (root, folder):
        if problem := _exposed(each):
            raise UsageError(
                f"compiled programs are not kept, as {each} {problem}: make it yours alone "
                f"(chmod 700), or set {SWITCH} to another directory or to off"
            )
    _remove_damaged(folder)
    _remove_oldest(root)
    return folder


def _root() -> Path:
    if given := os.environ.get(SWITCH):
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "coterie" / "programs"


def _machine() -> str:
    """A name for the kind of processor: its model and the instructions that it has."""
    told = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        for word in ("model name", "flags", "Features"):
            told += [line for line in lines if line.startswith(word)][:1]
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    return f"{platform.machine() or 'machine'}-{digest}"


def _exposed(folder: Path) -> str:
    """Why it is no directory, itself and no link, that this user alone may enter; or nothing."""
    if not hasattr(os, "getuid"):
        return ""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is a link"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if not (open_to := stat.S_IMODE(found.st_mode) & 0o077):
        return ""
    return "can be written by others" if open_to & 0o022 else "can be read by others"


def _remove_damaged(folder: Path) -> None:
    """Reads through the files that are new since the last time: a process may have been killed
    while it wrote one, and JAX would never write it again."""
    stamp = folder / CHECKED
    before = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch(mode=0o600)
    for file in folder.glob("*-cache"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime >= before - 2 and not _is_whole(file.read_bytes()):
                file.unlink()


def _is_whole(data: bytes) -> bool:
    if data[:1] != b"\x78":  # another compression than zlib's, which ends without a check
        return bool(data)
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True


def _remove_oldest(root: Path) -> None:
    files = [(file.stat(), file) for file in root.glob("*/*-cache")]
    total = sum(about.st_size for about, _ in files)
    for about, file in sorted(files, key=lambda x: x[0].st_mtime):
        if total <= LARGEST:
            return
        file.unlink(missing_ok=True)
        total -= about.st_size
