"""Where a worker process of another Python begins; it has read nothing of Coterie before.

What worker processes read runs on Python 3.9, with NumPy and the environment's own packages.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import sys
from multiprocessing.connection import Connection

from coterie.python_envs.process import LINGER, become_worker, end_within
from coterie.python_envs.workers.messages import PROTOCOL, REFUSED


def main(target: str, connection: int, parent: int, memory: int) -> None:
    """Does its job, which is the first message.

    Args:
        target: the module whose ``serve`` is to be called.
        connection, parent, memory: file descriptors: of the connection, of a pipe that closes when
            the parent ends, of shared memory (-1 for none).
    """
    for descriptor in (connection, parent, *([memory] if memory >= 0 else [])):
        os.set_inheritable(descriptor, False)  # what environments start has no part in them
    become_worker(parent)
    speaker = Connection(connection)
    try:
        protocol, folders, job = json.loads(speaker.recv_bytes())
        if protocol != PROTOCOL:
            speaker.send_bytes(REFUSED + _of_two(protocol).encode())
            return
        # Last, as for the command: no file there takes the place of a package.
        sys.path += [folder for folder in folders if folder not in sys.path]
        buffer = None if memory < 0 else mmap.mmap(memory, 0)
        importlib.import_module(target).serve(speaker, job, buffer)
    except (EOFError, OSError):  # the parent has ended
        return
    finally:
        end_within(LINGER, 0)


def _of_two(protocol: int) -> str:
    return (
        f"a worker process speaks protocol {PROTOCOL}, but this one speaks {protocol}: Coterie was "
        "installed anew since it began; begin again (a run directory goes on with resume)"
    )
