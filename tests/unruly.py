"""Environments that misbehave towards the process they are in; found under their names here.

Each does something ``where`` it is told: in its constructor (``init``), ``reset``, ``step`` or
``close``. ``unruly:WHAT_WHERE`` is a factory of one.
"""

import asyncio
import atexit
import ctypes
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

from guests import Dice

PLACES = ("init", "reset", "step", "close")
out = sys.stdout


def shout():
    """Writes to standard output in every way."""
    print("SHOUTED by print")
    print("SHOUTED into an object kept from before", file=out)
    sys.__stdout__.write("SHOUTED into the first object\n")
    os.write(1, b"SHOUTED into the descriptor\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"SHOUTED by C")
    libc.fflush(None)
    subprocess.run(["echo", "SHOUTED by another process"], check=True)
    thread = threading.Thread(target=print, args=["SHOUTED by a thread"])
    thread.start()
    thread.join()


def wait():
    time.sleep(600)


def leave_a_thread():
    threading.Thread(target=wait).start()


def hang_at_exit():
    atexit.register(wait)


def leave_a_child():
    """It holds every descriptor of this process open."""
    subprocess.Popen(["sleep", "600"], close_fds=False)


def fork():
    """A copy of this process that does not end by itself."""
    if os.fork() == 0:
        wait()


def move_away():
    os.chdir("/")


def take_signals():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def hold_the_interpreter():
    """In C, where neither a signal nor another thread gets a turn."""
    sum(itertools.repeat(0, 10**15))


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def leave():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


def cancel():
    raise asyncio.CancelledError


def end():
    os._exit(7)


WAYS = {
    f.__name__: f
    for f in (shout, wait, leave_a_thread, hang_at_exit, leave_a_child, fork, move_away,
              take_signals, hold_the_interpreter, stop, leave, interrupt, cancel, end)
}  # fmt: skip


class Unruly(Dice):
    """Does something once, where it is told; in a worker process alone if it is told so."""

    def __init__(self, what: str, where: str) -> None:
        self.what, self.where = what, where
        self._do("init")
        super().__init__()

    def reset(self, seed=None, options=None):
        self._do("reset")
        return super().reset(seed)

    def step(self, actions):
        self._do("step")
        return super().step(actions)

    def close(self):
        self._do("close")

    def _do(self, now: str) -> None:
        if now == self.where:
            WAYS[self.what]()


class Everywhere(Dice):
    """Shouts wherever it is called."""

    def __init__(self):
        shout()
        super().__init__()

    def observation_space(self, agent):
        print("SHOUTED for a space")
        return super().observation_space(agent)

    def reset(self, seed=None, options=None):
        shout()
        return super().reset(seed)

    def step(self, actions):
        print("SHOUTED at a step")
        os.write(1, b"SHOUTED at a step\n")
        return super().step(actions)

    def close(self):
        shout()


class Settled(Dice):
    """Goes to a directory of its own as it is made, and fails where that is not the current one."""

    def __init__(self):
        os.chdir("/usr")
        super().__init__()

    def reset(self, seed=None, options=None):
        assert os.getcwd() == "/usr"
        return super().reset(seed)

    def step(self, actions):
        assert os.getcwd() == "/usr"
        return super().step(actions)


def __getattr__(name: str) -> functools.partial:
    what, _, where = name.rpartition("_")
    if what not in WAYS or where not in PLACES:
        raise AttributeError(name)
    return functools.partial(Unruly, what, where)
