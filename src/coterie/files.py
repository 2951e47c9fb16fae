"""Files that are whole or not there at all, by one writer at a time.

Everything that Coterie keeps goes through here. A crash can fall between any two operations: what
stood under a name before stays there until all of the new content is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.errors import UsageError

try:
    import fcntl
except ImportError:  # no such locks on this system: nobody is kept out
    fcntl = None

LOCK = ".lock"
JSON_LIMIT = 10_000_000
"""Bytes of a JSON file of settings that are read at most; real ones have a few thousand."""
_DIGEST = "digest"


class _Raw(io.FileIO):
    """A file whose writes are visible as ``os.write``, so that tests can cut them off."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[io.BufferedRandom]:
    """A file to fill, which takes the name ``path`` when its bytes are on the disk.

    Raises:
        OSError: naming ``path``; what stood there before is untouched.
    """
    # One fixed name: what a killed run left behind is replaced, not collected. It is made anew,
    # so that a link of that name is never written through.
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        with io.BufferedRandom(_Raw(temporary, "x+")) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def make_directory(directory: Path, root: Path) -> None:
    """Makes a directory below ``root``, and what is missing between them; ``root`` must be there.

    A run directory that vanished under a run is an error, and not made anew without its past.
    """
    if directory.is_dir():
        return
    if directory != root:
        make_directory(directory.parent, root)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        sync_directory(directory.parent)
    elif not root.is_dir():
        raise FileNotFoundError(2, "the run directory is gone", str(root))


def sync_directory(directory: Path) -> None:
    """Makes a name in a directory survive a power cut (where directories can be opened)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_links(directory: Path) -> None:
    """UsageError if anything in a directory is a link: writing through it would leave the place."""
    for folder, directories, files in os.walk(directory):
        for name in (*directories, *files):
            if (path := Path(folder, name)).is_symlink():
                raise UsageError(f"{path} is a link, and nothing is written through links")


# Settings in JSON, with a digest -----------------------------------------------------------------


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the digest of all else in it."""
    return {k: v for k, v in content.items() if k != _DIGEST} | {_DIGEST: digest(content)}


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of the content without its digest, as JSON with sorted keys and without spaces."""
    rest = {k: v for k, v in content.items() if k != _DIGEST}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_sealed(path: Path) -> dict[str, Any]:
    """A JSON object as ``seal`` made it, without its digest.

    Raises:
        UsageError: it is damaged, or was changed by hand.
    """
    if (size := path.stat().st_size) > JSON_LIMIT:
        raise UsageError(f"{path} is damaged: {size:,} bytes are no settings")
    return parse_sealed(path.read_bytes(), path)


def parse_sealed(text: bytes, path: Path) -> dict[str, Any]:
    """``read_sealed`` of the bytes of a file, which ``path`` names in what is raised."""
    if len(text) > JSON_LIMIT:
        raise UsageError(f"{path} is damaged: {len(text):,} bytes are no settings")
    try:
        content = json.loads(text)
        found = digest(content) if isinstance(content, dict) else None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is damaged: not JSON") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: not a JSON object")
    if content.pop(_DIGEST, None) != found:
        raise UsageError(f"{path} is damaged or was changed: it differs from its digest")
    return content


# One writer --------------------------------------------------------------------------------------

_held: set[int] = set()


def _let_go() -> None:
    """In a forked child, which must not keep the lock when its parent is killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keeps every other process from writing to a directory; the system forgets a killed holder.

    Raises:
        UsageError: somebody else is writing there, or nothing can be written.
    """
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from None
    _held.add(descriptor)
    try:
        if not _lock(descriptor):
            raise UsageError(
                f"{directory} is being written to by {_holder(descriptor)}; "
                "wait until it is done, or stop it"
            )
        _sign(descriptor)
        try:
            yield
        finally:
            _wipe(descriptor)
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sign(descriptor: int) -> None:
    """Says who holds the lock: a courtesy, not a condition."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]
    about = {"process": os.getpid(), "host": socket.gethostname(), "command": command}
    _wipe(descriptor)
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _wipe(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        if descriptor in _held:
            os.ftruncate(descriptor, 0)


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        number, host, command = int(about["process"]), str(about["host"]), str(about["command"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
    words = f"process {number} on {host} ({command})"
    return "".join(c if c.isprintable() else "?" for c in words)
