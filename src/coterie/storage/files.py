"""Files that are whole or not there at all, by one writer at a time.

Everything that Coterie keeps goes through here. A crash can fall between any two operations: what
stood under a name before stays there until all of the new content is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import operator
import os
import shlex
import socket
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coterie.errors import DamagedFile, UsageError

LOCK = ".lock"
JSON_LIMIT = 10_000_000
"""Bytes of a JSON file of settings that are read at most; real ones have a few thousand."""
_DIGEST = "digest"
_BLANKS = b" \t"
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


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
    if not (as_directory := _flags("O_DIRECTORY")):
        return
    descriptor = os.open(directory, os.O_RDONLY | as_directory)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_within(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())


WANDB = Path("trackers", "wandb")
"""In a run directory: where Weights & Biases writes, and nobody else."""


def refuse_links(directory: Path) -> None:
    """UsageError if anything in a directory is a link: writing through it would leave the place."""
    for folder, directories, files in os.walk(directory):
        of_wandb = Path(folder).is_relative_to(directory / WANDB)
        for name in (*directories, *files):
            if (path := Path(folder, name)).is_symlink():
                # W&B makes links to its newest files, of which some are elsewhere.
                if of_wandb and (not path.is_dir() or _is_within(path, directory)):
                    continue
                raise UsageError(f"{path} is a link, and nothing is written through links")


def _flags(*names: str) -> int:
    """Flags of ``os.open`` by name; a system that lacks one does without, as Windows does."""
    return functools.reduce(operator.or_, (getattr(os, name, 0) for name in names), 0)


WRITING = os.O_RDWR | os.O_CREAT | _flags("O_NOFOLLOW", "O_BINARY")
"""Flags that make a file where there is none, and follow no link."""


def _open(path: Path, flags: int, mode: int) -> int:
    """``os.open``; a link is not followed by ``WRITING`` where the system has no flag for that."""
    if flags & os.O_CREAT and not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link", str(path))
    return os.open(path, flags, mode)


# Reading what may be anything ---------------------------------------------------------------------


def warn(sentence: str) -> None:
    """Says that something of a file is damaged or missing, and that reading goes on without it."""
    warnings.warn(sentence, DamagedFile, stacklevel=2)


def opened(path: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """A regular file, unbuffered, opened without ever waiting: for a FIFO's other end, say.

    Args:
        flags: of ``os.open``; a file that they make is not followed through a link.

    Raises:
        OSError: there is none, it is not a regular file, or it cannot be opened; ``strerror`` is
            the rest of a sentence.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer, and a device may do as it likes.
    quick = _flags("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
    try:
        descriptor = _open(path, flags | quick, 0o666)
    except IsADirectoryError as error:
        raise OSError(error.errno, "it is a directory, not a file", str(path)) from None
    file = io.FileIO(descriptor, "r+" if flags & os.O_RDWR else "r")
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise OSError(22, f"it is {kind}, not a file", str(path))
    return file


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        UsageError: it is larger, or cannot be read.
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > limit else read_at_most(file, limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if max(size, len(content)) > limit:
        size = max(size, len(content))
        raise UsageError(f"{path} is damaged: it has {size:,} bytes, more than {limit:,}")
    return content


def read_at_most(file: io.FileIO, count: int) -> bytes:
    """The next ``count`` bytes, or as many as there are."""
    pieces = []
    while count and (piece := file.read(min(count, 2**20))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def parse_json(content: bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is not JSON, or nested or with numbers beyond what Python reads.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
        UsageError: it cannot be read, is damaged, or was changed by hand.
    """
    return parse_sealed(read_bytes(path, JSON_LIMIT), path)


def parse_sealed(text: bytes, path: Path) -> dict[str, Any]:
    """``read_sealed`` of the bytes of a file, which ``path`` names in what is raised."""
    if len(text) > JSON_LIMIT:
        raise UsageError(f"{path} is damaged: {len(text):,} bytes are no settings")
    try:
        content = parse_json(text)
        found = digest(content) if isinstance(content, dict) else None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is damaged: not JSON") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: not a JSON object")
    if content.pop(_DIGEST, None) != found:
        raise UsageError(f"{path} is damaged or was changed: it differs from its digest")
    return content


# JSON whose entries are all spoken for, with a digest in blanks -----------------------------------


def seal_in_blanks(body: bytes, run: str) -> bytes:
    """JSON with a last line of 256 blanks: the bits of its digest, a space for 0, a tab for 1.

    For a format of others in which every entry means something; readers of JSON skip blanks.

    Args:
        run: names the run that it is of; the SHA-256 is of that, a line break and ``body``.
    """
    return body + b"\n" + _in_blanks(body, run) + b"\n"


def open_blanks(content: bytes, run: str) -> tuple[bytes, bool | None]:
    """The JSON, and whether its digest is right; None if it has none."""
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    if not last or last.strip(_BLANKS):
        return content, None
    return body, last == _in_blanks(body, run)


def _in_blanks(body: bytes, run: str) -> bytes:
    number = int.from_bytes(hashlib.sha256(run.encode() + b"\n" + body).digest(), "big")
    return f"{number:0256b}".encode().translate(bytes.maketrans(b"01", _BLANKS))


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
        descriptor = _open(directory / LOCK, WRITING, 0o644)
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


def held_by(directory: Path) -> str | None:
    """Who is writing to a directory, in words; None if nobody is."""
    try:
        descriptor = _open(directory / LOCK, WRITING & ~os.O_CREAT, 0o644)
    except OSError:
        return None
    try:
        return None if _lock(descriptor) else _holder(descriptor)
    finally:
        os.close(descriptor)


def has_locks(directory: Path) -> bool:
    """Whether a directory in which somebody has written is on a file system with locks."""
    try:
        descriptor = _open(directory / LOCK, WRITING & ~os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        _try_to_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int) -> bool:
    try:
        return _try_to_lock(descriptor)
    except OSError:  # a file system without locks
        return True


def _try_to_lock(descriptor: int) -> bool:
    """Whether nobody else holds it; OSError where there are no locks."""
    from filelock import lock_descriptor  # a command that writes nothing should not wait for it

    return lock_descriptor(descriptor, blocking=False)


def _sign(descriptor: int) -> None:
    """Says who holds the lock: a courtesy, not a condition."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]
    about = {"process": os.getpid(), "host": socket.gethostname(), "command": command}
    _wipe(descriptor)
    with contextlib.suppress(OSError):
        _content(descriptor).write(json.dumps(about).encode())


def _wipe(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        if descriptor in _held:
            _content(descriptor).truncate()


def _holder(descriptor: int) -> str:
    try:
        # Windows lets nobody else read the first byte, which is what is locked there.
        about = json.loads(b"{" + _content(descriptor, 1).read(4096))
        number, host, command = int(about["process"]), str(about["host"]), str(about["command"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
    words = f"process {number} on {host} ({command})"
    return "".join(c if c.isprintable() else "?" for c in words)


def _content(descriptor: int, start: int = 0) -> io.FileIO:
    """The file of a descriptor, which stays open, from a byte on."""
    file = io.FileIO(descriptor, "r+", closefd=False)
    file.seek(start)
    return file
