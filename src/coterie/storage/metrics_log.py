"""``metrics.jsonl``: one JSON object a line, appended, each with its number and a digest.

A line ends in ``"digest": "17:0123456789abcdef"``: its number in the log, from 1, and the first 16
digits of the SHA-256 of the run's name, the number and all of the line before that entry. So each
line is verified by itself, and what is missing, repeated or of another run is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.storage.files import WRITING, opened, parse_json, read_at_most

LINE_LIMIT = 2**24
"""Bytes of a line; what is longer is damage."""
GIVEN_UP = 2**28
"""Bytes without the end of a line, or of lines that are no good, after which the rest is left."""
_PIECE = 2**16
_PER_LINE = 1000
"""A line that is no good counts for so many bytes more."""
_NAMED = 3
"""Line numbers in a sentence; of the others it says how many."""
_MARK = b', "digest": "'
_SEAL = re.compile(rb'([1-9]\d{0,15}):([0-9a-f]{16})"\}\s*')


def sealed(line: dict[str, Any], number: int, run: str) -> bytes:
    """A line of the log, its end included."""
    text = json.dumps(line).encode()[:-1]
    return text + f', "digest": "{number}:{_digest(text, number, run)}"}}\n'.encode()


def _digest(text: bytes, number: int, run: str) -> str:
    return hashlib.sha256(f"{run}\n{number}\n".encode() + text).hexdigest()[:16]


# Writing ------------------------------------------------------------------------------------------

_WRITING = WRITING | os.O_APPEND


def append(path: Path, lines: list[dict[str, Any]], first: int, run: str) -> None:
    """Writes lines at the end of the log; ``first`` is the number of the first one."""
    content = b"".join(sealed(line, first + k, run) for k, line in enumerate(lines))
    with io.BufferedWriter(opened(path, _WRITING)) as file:
        file.write(content)


def sync(path: Path) -> tuple[int, str]:
    """Bytes of the log, all of them on the disk, and their SHA-256."""
    with opened(path, _WRITING) as file:
        os.fsync(file.fileno())
        size = file.seek(0, os.SEEK_END)
        return size, _digest_of_all(file)


def cut(path: Path, size: int, known: str) -> str | None:
    """Cuts the log back to what a checkpoint knew, its length and SHA-256; says what is wrong.

    A log that was cut within a line loses the rest of that line too.
    """
    with opened(path, _WRITING) as file:
        if (there := file.seek(0, os.SEEK_END)) < size:
            file.truncate(_end_of_last_line(file, there))
            return "metrics.jsonl had lost lines; it goes on without them"
        file.truncate(size)
        if _digest_of_all(file) != known:
            return "metrics.jsonl is not what was logged: it was damaged or changed"
    return None


def _digest_of_all(file: io.FileIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _end_of_last_line(file: io.FileIO, end: int) -> int:
    """Where the last whole line ends, looking back from ``end``."""
    while end:
        start = max(0, end - _PIECE)
        file.seek(start)
        if (found := read_at_most(file, end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


# Reading ------------------------------------------------------------------------------------------


@dataclass
class _Places:
    """Lines of a kind, by their places in the file, from 1."""

    first: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, place: int) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(place)

    def are(self, what: str) -> str:
        if self.count < 2:
            return f"line {self.first[0]} is {what}" if self.count else ""
        more = f" and {self.count - _NAMED} more" if self.count > _NAMED else ""
        return f"lines {', '.join(map(str, self.first))}{more} are {what}"


@dataclass
class _Findings:
    """What stands in a log."""

    damaged: _Places = field(default_factory=_Places)
    repeated: _Places = field(default_factory=_Places)
    misplaced: _Places = field(default_factory=_Places)
    unsealed: int = 0
    numbers: set[int] = field(default_factory=set)
    """Of the good lines."""
    last: int = 0
    """The greatest of them."""
    given_up: int = 0
    """The line from which on the file was not read."""

    def sentences(self, path: Path) -> Iterator[str]:
        gone = self.last - len(self.numbers) - self.damaged.count
        said = [
            self.damaged.are("damaged"),
            self.repeated.are("repeated"),
            self.misplaced.are("out of order"),
            f"{gone} line{'s are' if gone > 1 else ' is'} missing" if gone > 0 else "",
            f"from line {self.given_up} on it is no log" if self.given_up else "",
        ]
        if what := ", ".join(x for x in said if x):
            yield f"{path} is damaged: {what}; every good line is read once"
        if self.unsealed:
            yield (
                f"{path} holds {self.unsealed} line{'s' * (self.unsealed > 1)} without a digest, "
                "of an older version: damage in them cannot be noticed"
            )


def read(
    path: Path, run: str, unsealed: bool, warn: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """The good lines of a log, as they were logged; at the end ``warn`` is called with all others.

    A last line without an end is one that is being written, and left out. Memory is taken for one
    line at a time, and a file that is no log is not read to its end.

    Args:
        run: names the run; lines of another one are damage.
        unsealed: lines without a digest are taken too.
    """
    found = _Findings()
    try:
        with opened(path) as file:
            yield from _good(file, run, unsealed, found)
    except FileNotFoundError:
        return
    except OSError as error:
        warn(f"cannot read {path}: {error.strerror or error}")
    for sentence in found.sentences(path):
        warn(sentence)


def _good(file: io.FileIO, run: str, unsealed: bool, found: _Findings) -> Iterator[dict[str, Any]]:
    bad = 0
    for place, text in enumerate(_split(file), 1):
        if text is None or bad > GIVEN_UP:
            found.given_up = place
            return
        number, line = _verified(text, run, unsealed)
        bad = 0 if line is not None else bad + len(text) + _PER_LINE
        if line is None:
            found.damaged.add(place)
        elif number in found.numbers:
            found.repeated.add(place)
        else:
            found.unsealed += number is None
            number = number or found.last + 1
            if number < found.last:
                found.misplaced.add(place)
            found.numbers.add(number)
            found.last = max(found.last, number)
            yield line


def _split(file: io.FileIO) -> Iterator[bytes | None]:
    """Lines with their ends; b"" for one that is too long; None and no more where none ends."""
    skipped = 0
    with io.BufferedReader(file, _PIECE) as reader:
        while text := reader.readline(LINE_LIMIT):
            if text.endswith(b"\n"):
                yield b"" if skipped else text
                skipped = 0
            elif len(text) < LINE_LIMIT:
                if skipped or not text.startswith(b"{") or b"\0" in text:
                    yield b""
            elif (skipped := skipped + LINE_LIMIT) > GIVEN_UP:
                yield None
                return


def _verified(text: bytes, run: str, unsealed: bool) -> tuple[int | None, dict[str, Any] | None]:
    """A line's number, if it has a digest; and the line, if it is good."""
    head, mark, tail = text.rpartition(_MARK)
    seal = _SEAL.fullmatch(tail) if mark else None
    if seal is None:
        return None, _parsed(text) if unsealed else None
    number = int(seal[1])
    if _digest(head, number, run).encode() != seal[2]:
        return None, None
    return number, _parsed(head + b"}")


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The line if it is one of numbers of a seed at a step."""
    try:
        line = parse_json(text)
        whole = isinstance(line, dict) and all(
            type(line[name]) is int and 0 <= line[name] < 2**63 for name in ("seed", "env_steps")
        )
        return line if whole and all(map(_is_number, line.values())) else None
    except (ValueError, KeyError):
        return None


def _is_number(value: Any) -> bool:
    """One that is also a float, or none at all."""
    return value is None or type(value) is float or (type(value) is int and abs(value) < 10**308)
