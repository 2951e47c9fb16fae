"""Starts worker processes while Ctrl-C arrives; for a session of its own, whose group gets it.

Arguments: moments in seconds after a start at which it arrives; ``spawn`` for the moment at which
a worker's process has just been made. ``other`` first: workers are of another Python (this one,
started as that). ``raising`` before the moments: Ctrl-C raises KeyboardInterrupt, as it
does outside of a training.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import resource_tracker, util

import guests

from coterie.python_envs.opening import open_in_other_python, open_python_env
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, Limits

heard: list[int] = []


def interrupt() -> None:
    os.killpg(0, signal.SIGINT)


def interrupting(spawn):
    """multiprocessing's own function, followed by Ctrl-C where it has made a worker."""

    def spawned(path, args, descriptors):
        pid = spawn(path, args, descriptors)
        if any("spawn_main" in str(arg) for arg in args):
            interrupt()
        return pid

    return spawned


def start(hosted, moment: str) -> list:
    """The faults of two workers that start while Ctrl-C arrives."""
    # As if nothing had been started before: the next start is also that of this helper.
    resource_tracker._resource_tracker._stop()
    spawn, timer = util.spawnv_passfds, threading.Timer(0, lambda: None)
    if moment == "spawn":
        util.spawnv_passfds = interrupting(spawn)
    else:
        timer = threading.Timer(float(moment), interrupt)
    timer.start()
    try:
        with contextlib.closing(make_vector_env(hosted, [range(2)], Limits(60.0), 2)) as vector_env:
            vector_env.rows.command[:] = RESET
            vector_env.start(0)
            return vector_env.wait(0)
    finally:
        timer.join()
        util.spawnv_passfds = spawn


def opened(other: bool):
    if not other:
        return open_python_env("guests:Dice", guests.Dice)
    return open_in_other_python("guests:Dice", {}, PythonEnvSettings(python=sys.executable))


def main(moments: list[str]) -> None:
    other = moments[0] == "other"
    moments = moments[other:]
    raising = moments[0] == "raising"
    if raising:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    hosted, found = opened(other), []
    for moment in moments[raising:]:
        try:
            found.append([moment, start(hosted, moment)])
        except KeyboardInterrupt:
            heard.append(signal.SIGINT)
    left = [process.pid for process in multiprocessing.active_children()]
    left += [process.pid for process in subprocess._active]
    print(json.dumps({"found": found, "heard": len(heard), "left": left}))


if __name__ == "__main__":
    main(sys.argv[1:])
