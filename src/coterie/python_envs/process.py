"""What somebody's environment may do to the process it runs in, and what is undone or bounded.

In this process its code runs ``within`` a limit, with a directory of its own; in a worker process
it may do as it likes (``become_worker``). No line here imports JAX: worker processes read this file
and should start at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection as connections
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

from coterie.errors import EnvironmentFault, UsageError, described
from coterie.extras import how_to_install

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
"""Signals that a command answers, and its worker processes leave to it."""


# In the process that calls it --------------------------------------------------------------------


class OutOfTime(BaseException):
    """Raised by the alarm inside the environment; no ``except Exception`` there catches it."""


@contextlib.contextmanager
def alarm() -> Iterator[Callable[[float], None]]:
    """A function that has ``OutOfTime`` raised so many seconds later, unless it is called again.

    With 0 seconds it is not raised any more. It does nothing where signals do not reach Python
    code: outside the main thread, and on Windows.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield lambda seconds: None
        return
    allowed = 0.0

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime(f"did not return within {allowed:g} seconds")

    def arm(seconds: float) -> None:
        nonlocal allowed
        allowed = seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield arm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def within(seconds: float, name: str) -> Iterator[None]:
    """Code of the environment ``name`` in this process, which it neither ends nor changes.

    Raises:
        EnvironmentFault: it takes longer, where alarms can ring, or raises anything, ``SystemExit``
            included; Ctrl-C stays what it is.
        UsageError: as the code raised it.
    """
    with undisturbed(), alarm() as arm:
        arm(seconds)
        try:
            yield
        except (UsageError, EnvironmentFault, KeyboardInterrupt):
            raise
        except OutOfTime as late:
            raise EnvironmentFault(str(late), name) from late
        except BaseException as error:
            raise EnvironmentFault(f"raised {described(error)}", name) from error


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """The current directory, and what answers Ctrl-C and SIGTERM, are afterwards as before."""
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    main = threading.current_thread() is threading.main_thread()
    try:
        with OwnDirectory():
            yield
    finally:
        for number, handler in handlers.items():
            if main and handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


class OwnDirectory:
    """The current directory of one environment, entered before its code runs and left after it.

    Where the code went is where it is when it runs again, and no other code is.
    """

    def __init__(self) -> None:
        self._own: str | None = None
        self._outer: str | None = None

    def __enter__(self) -> None:
        self._outer = _directory()
        if self._own is not None:
            _change_to(self._own)

    def forget(self) -> None:
        """The environment is gone: another one begins where the process is."""
        self._own = None
        if self._outer is not None:
            _change_to(self._outer)

    def __exit__(self, *_: Any) -> None:
        self._own = now = _directory()
        if now == self._outer:
            self._own = None
        elif self._outer is not None:
            _change_to(self._outer)


def _directory() -> str | None:
    """The current directory; None where it does not exist any more."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _change_to(directory: str) -> None:
    with contextlib.suppress(OSError):  # it does not exist any more
        os.chdir(directory)


def end_within(seconds: float, status: int) -> None:
    """This process, which is about to end, ends after so many seconds at the latest.

    Threads that user code left running and its exit handlers would otherwise keep it alive.
    """
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def advice(package: str, extra: str) -> str:
    """What installs a package that an environment needs: beside Coterie, or in another Python.

    Args:
        extra: of Coterie, which includes it.
    """
    if importlib.util.find_spec("jax"):
        return how_to_install(extra)
    return f"{sys.executable} -m pip install {package}"


# Around a worker process -------------------------------------------------------------------------

GRACE = 3.0
"""Seconds a worker is given beyond an environment's limit to say so itself, and to close."""
LINGER = 1.0
"""Seconds in which a worker's process must end once its environments are closed."""


class Worker(NamedTuple):
    """A worker process, as ``multiprocessing.Process`` is one, and a ``Connection`` to it."""

    process: Any
    connection: Any

    def end(self) -> None:
        """Ends it, and all that its environments started."""
        kill_worker(self.process)
        self.process.close()
        self.connection.close()


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until what happens here is done, as a worker process is started.

    The worker begins with both blocked, until it ignores them (``become_worker``).
    """
    held: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {n: h for n in INTERRUPTS if callable(h := signal.getsignal(n))}
    # Blocking them here is not enough: any other thread may take them, and handlers run in this.
    for number in handlers:
        signal.signal(number, lambda number, frame: held.append(number))
    try:
        with _blocked():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    # multiprocessing starts this helper before its first process, and unblocks both signals then.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker(parent: int) -> None:
    """Makes this process one that Ctrl-C does not reach, that answers nothing and outlives nobody.

    Args:
        parent: what ``multiprocessing.connection.wait`` finds ready once the parent has ended.

    It gets a session of its own, so whatever its environments start can be ended with it.
    """
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):
            os.setsid()
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # standard output is for the command's answer
    _end_with_parent(parent)


def _end_with_parent(parent: int) -> None:
    """Nothing is left behind, even if an environment hangs as the parent is killed."""

    def watch() -> None:
        connections.wait([parent])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # also from code that never lets a thread of ours run
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def has_ended(process: Any, seconds: float) -> bool:
    """Waits so long for a process to end, and no longer where its children hold its pipes."""
    deadline = time.monotonic() + seconds
    while process.is_alive():
        if (left := deadline - time.monotonic()) <= 0:
            return False
        process.join(min(left, 0.05))
    return True


def how_it_ended(status: int | None) -> str:
    """In a sentence: a signal, or an exit status."""
    return signal.Signals(-status).name if status and status < 0 else f"exit status {status}"


def kill_worker(process: Any) -> None:
    """Ends a process that has called ``become_worker``, and all that its environments started."""
    if process.pid is None:  # it was never started
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
