"""What processes of two Pythons say to each other: JSON with arrays behind it, never pickles.

A message is bytes over a ``multiprocessing.connection.Connection``, which Pythons of all versions
frame alike.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Iterable
from typing import Any

import numpy as np

from coterie.errors import EnvironmentFault, NoPictures, UsageError, described
from coterie.spec import ActionSpace, EnvSpec, ObservationSpace

PROTOCOL = 1
"""Number of this way to speak: of jobs, rows of arrays, calls and answers."""
REFUSED = b"\xff"
"""In front of a sentence that says why a process does not begin; no other message begins so."""

_ERRORS = {kind.__name__: kind for kind in (UsageError, NoPictures, EnvironmentFault)}


def pack(content: Any, arrays: Iterable[np.ndarray] = ()) -> bytes:
    """JSON, and arrays of any shapes."""
    arrays = [np.ascontiguousarray(array).reshape(np.shape(array)) for array in arrays]
    head = json.dumps([content, [[array.dtype.str, array.shape] for array in arrays]])
    return b"".join([head.encode(), b"\n", *(array.tobytes() for array in arrays)])


def unpack(message: bytes) -> tuple[Any, list[np.ndarray]]:
    """What ``pack`` was given."""
    head, _, rest = message.partition(b"\n")
    content, about = json.loads(head)
    arrays, begin = [], 0
    for dtype, shape in about:
        array = np.zeros(shape, np.dtype(dtype))
        array.ravel().view(np.uint8)[:] = np.frombuffer(rest, np.uint8, array.nbytes, begin)
        arrays.append(array)
        begin += array.nbytes
    return content, arrays


def received(connection: Any) -> bytes:
    """The next message.

    Raises:
        UsageError: the other process does not begin, for the reason that it gives.
        EOFError: it has ended.
    """
    message: bytes = connection.recv_bytes()
    if message[:1] == REFUSED:
        raise UsageError(message[1:].decode())
    return message


def error_content(error: BaseException) -> list[Any]:
    """An exception as content of a message."""
    if isinstance(error, EnvironmentFault):
        *args, original = error.args
        if cause := error.__cause__:
            text = traceback.format_exception(type(cause), cause, cause.__traceback__)
            original = original or "".join(text)
        return [type(error).__name__, [*args, original]]
    if type(error).__name__ in _ERRORS:
        return [type(error).__name__, [str(error)]]
    return ["", [described(error)]]


def error_of(content: Any, python: str = "") -> Exception:
    """The exception; ``python`` is where the other process runs, if that is to be said."""
    name, args = content
    kind = _ERRORS.get(name, RuntimeError)
    if kind is UsageError and python:
        return kind(f"{args[0]} (in {python})")
    return kind(*args)


def spec_content(spec: EnvSpec) -> dict[str, Any]:
    """What an environment promises, as content of a message."""
    return dataclasses.asdict(spec)


def spec_of(content: dict[str, Any]) -> EnvSpec:
    """What an environment promises, from the content of a message."""
    found = {name: _tuples(value) for name, value in content.items()}
    for name, kind in (("actions", ActionSpace), ("observations", ObservationSpace)):
        found[name] = tuple(
            kind(**{field: _tuples(value) for field, value in space.items()})
            for space in content[name]
        )
    return EnvSpec(**found)


def _tuples(value: Any) -> Any:
    """Tuples, of which JSON has made lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
