"""What a Ray worker does on its node. No line here imports JAX, which the cell's process does."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from coterie.errors import UsageError
from coterie.storage.files import held_by, read_bytes
from coterie.sweeps.process import POLL, CellProcess, Ending, has_cuda_plugin


class CellKilled(Exception):
    """A cell's process did not end by itself; says what ended it."""


class Shared(NamedTuple):
    """A directory that all nodes must see, and what it holds if they do.

    Attributes:
        path: the sweep's directory.
        token: random; the content of the file ``name`` in it.
    """

    path: Path
    token: str
    name: str = ".ray"

    def check(self, node: str) -> None:
        """UsageError, naming the node, where another directory or none has this path."""
        with contextlib.suppress(UsageError):
            if read_bytes(self.path / self.name, len(self.token)).decode() == self.token:
                return
        raise UsageError(
            f"the Ray node {node} does not see {self.path}: the directory of a sweep must be "
            "shared by all nodes, under the same path"
        )


class Node(NamedTuple):
    """What a node says of itself."""

    coterie: str
    sees_the_lock: bool
    has_cuda: bool


def probe(shared: Shared, node: str, answer: str) -> Node:
    """Looks at the directory from this node.

    Args:
        node: its name in sentences.
        answer: the name of a file to write there.

    Raises:
        UsageError: it is not shared.
    """
    from coterie import __version__

    shared.check(node)
    try:
        (shared.path / answer).write_text(shared.token)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"the Ray node {node} cannot write to {shared.path}: {why}") from None
    return Node(__version__, held_by(shared.path) is not None, has_cuda_plugin())


def train(
    shared: Shared,
    command: Sequence[str],
    log: Path,
    variables: Mapping[str, str],
    directory: Path,
) -> Ending:
    """Runs a cell's command, and makes it save when the task is cancelled.

    Args:
        directory: where it runs, if it exists here; otherwise in the sweep's.

    Raises:
        CellKilled: the command was ended by a signal.
    """
    shared.check(socket.gethostname())
    directory = directory if directory.is_dir() else shared.path
    with _cancelled() as is_cancelled:
        process = CellProcess(command, log, variables=variables, directory=directory)
        asked = False
        while (ending := process.ending()) is None:
            if is_cancelled() and not asked:
                process.ask_to_stop()
                asked = True
            time.sleep(POLL)
    if ending.status is None:
        raise CellKilled(ending.said)
    return ending


@contextlib.contextmanager
def _cancelled() -> Iterator[Callable[[], bool]]:
    """Whether ``ray.cancel`` was called, by which Ray interrupts this process.

    A handler of our own: where a shell started Ray in the background, interrupts are ignored.
    """
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: found.append(number))
    try:
        yield lambda: bool(found)
    finally:
        signal.signal(signal.SIGINT, before)
