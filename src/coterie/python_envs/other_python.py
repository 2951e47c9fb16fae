"""Another Python for environments (``--python``): what it is, and processes that are started in it.

It need not have Coterie, nor JAX: its processes read the files of this package that worker
processes read, from where this package lies.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np

import coterie
from coterie.errors import EnvironmentFault, UsageError
from coterie.python_envs.process import (
    GRACE,
    Worker,
    has_ended,
    how_it_ended,
    interrupts_held_back,
)
from coterie.python_envs.workers import single
from coterie.python_envs.workers.messages import PROTOCOL, error_of, pack, received, spec_of, unpack
from coterie.python_envs.workers.worker import OPENING
from coterie.shapes import Float32, Integer, UInt8
from coterie.spec import TimeStep

OLDEST = (3, 9)
"""The oldest Python that can read what worker processes read."""
_PATIENCE = 60.0
"""Seconds in which an interpreter must say what it is."""
_MARK = "coterie:"
_ASK = f"""
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
print("{_MARK}%d.%d" % tuple(sys.version_info[:2]))
try:
    import numpy
except Exception:
    kind, error = sys.exc_info()[:2]
    missing = getattr(error, "name", "") or (str(error).split() or [""])[-1]
    said = " ".join(str(error).split())[:200]
    print("{_MARK}none" if missing == "numpy" else "{_MARK}%s: %s" % (kind.__name__, said))
else:
    print("{_MARK}")
"""
"""Any Python since 2.7 can run it."""
_BEGIN = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
folder, target, descriptors = sys.argv[1], sys.argv[2], sys.argv[3:]
del sys.argv[1:]
if sys.path[:1] == [""]:
    del sys.path[0]
spec = spec_from_file_location(
    "coterie", folder + "/__init__.py", submodule_search_locations=[folder]
)
sys.modules["coterie"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from coterie.python_envs.workers.entry import main
main(target, *map(int, descriptors))
"""
"""It finds this package alone, and nothing that is installed beside it."""


@functools.cache
def interpreter(python: str) -> str:
    """The path of a Python in which environments can run, by its path or the name of a command.

    Raises:
        UsageError: there is no such program, or it is no Python, too old, or without NumPy.
    """
    if not hasattr(os, "fork"):
        raise UsageError("--python needs Linux or macOS")
    path = Path(os.path.expanduser(python))
    found = shutil.which(path)
    if found is None:
        if path.is_dir():
            raise UsageError(f"--python {python} is a folder: name the program in it, bin/python")
        if path.is_file():
            raise UsageError(f"--python {python} is not executable")
        raise UsageError(f"--python {python}: there is no such program")
    version, numpy = _about(python, os.path.abspath(found))
    if tuple(map(int, version.split("."))) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            f"--python {python} is Python {version}: environments need Python {oldest} or newer"
        )
    if numpy == "none":
        raise UsageError(
            f"--python {python} has no NumPy, which every environment needs: "
            f"{python} -m pip install numpy"
        )
    if numpy:
        raise UsageError(f"--python {python} cannot import its NumPy: {numpy}")
    return os.path.abspath(found)


def _about(python: str, path: str) -> tuple[str, str]:
    """The version of an interpreter, and what is wrong with its NumPy."""
    not_one = f"--python {python} is not a Python interpreter"
    try:
        answer = subprocess.run(
            [path, "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            env=_environment(),
        )
    except OSError as error:
        raise UsageError(f"{not_one}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        what = f"it did not say its version within {_PATIENCE:g} seconds"
        raise UsageError(f"{not_one}: {what}") from error
    lines = answer.stdout.decode(errors="replace").splitlines()
    said = [line[len(_MARK) :] for line in lines if line.startswith(_MARK)]
    if len(said) < 2:
        raise UsageError(f"{not_one}: asked for its version, it ended with {answer.returncode}")
    return said[0], said[1]


def _environment() -> dict[str, str]:
    """This process's environment variables, without what only this Python can use."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}


# Its processes -----------------------------------------------------------------------------------


class OtherProcess:
    """A process of another Python with the face of ``multiprocessing.Process``."""

    def __init__(self, command: list[str], descriptors: list[int]) -> None:
        parent, self._alive = os.pipe()  # it reads the end of this process in that of the pipe
        try:
            self._popen = subprocess.Popen(
                [*command, *map(str, [descriptors[0], parent, *descriptors[1:]])],
                stdin=subprocess.DEVNULL,
                pass_fds=[parent, *(each for each in descriptors if each >= 0)],
                env=_environment(),
            )
        except BaseException:
            os.close(self._alive)
            raise
        finally:
            os.close(parent)
        self.pid = self._popen.pid

    @property
    def exitcode(self) -> int | None:
        return self._popen.poll()

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def join(self, seconds: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        os.close(self._alive)


def start(python: str, target: str, job: dict[str, Any], memory: int = -1) -> Worker:
    """Starts a process of another Python, in which ``target.serve`` does the job.

    To be called with ``interrupts_held_back``.

    Args:
        python: as ``interpreter`` gives it.
        job: whatever JSON can say.
        memory: the file descriptor of shared memory.

    Raises:
        UsageError: it cannot be started any more, or JSON cannot say the job.
    """
    try:
        message = json.dumps([PROTOCOL, _folders(), job]).encode()
    except (TypeError, ValueError) as error:
        what = f"options reach another Python as JSON, which cannot say one: {error}"
        raise UsageError(what) from error
    ours, theirs = Pipe()
    command = [python, "-c", _BEGIN, str(Path(coterie.__file__).parent), target]
    try:
        process = OtherProcess(command, [theirs.fileno(), memory])
    except OSError as error:
        raise UsageError(f"--python {python} cannot be started: {error.strerror}") from error
    finally:
        theirs.close()
    with contextlib.suppress(OSError):  # whoever listens is told
        ours.send_bytes(message)
    return Worker(process, ours)


def _folders() -> list[str]:
    """Where the user's own modules may lie: the current folder, and that of a script."""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
    folders = []
    with contextlib.suppress(OSError):  # the current folder does not exist any more
        folders = [os.getcwd()]
        folders += [os.path.dirname(os.path.abspath(script))] if script else []
    return folders


@dataclass(frozen=True)
class OtherPython:
    """A Python environment that another Python opens by its name.

    Attributes:
        python: the interpreter's path, as ``interpreter`` gives it.
        options: keywords for what makes the environment.
        adapter: what ``PythonEnv`` takes beside it.
        seconds: what a step or reset may take.
    """

    python: str
    name: str
    options: dict[str, Any]
    adapter: dict[str, Any]
    seconds: float

    def source(self) -> dict[str, Any]:
        """Arguments of ``adapters.making.making``."""
        return {"name": self.name, "options": self.options, "adapter": self.adapter}

    def open(self, rendering: bool = False) -> RemoteEnv:
        """Opens one, in a process of its own.

        Raises:
            UsageError, EnvironmentFault: as in this process, or its process ended.
        """
        return RemoteEnv(self, rendering)


class RemoteEnv:
    """An environment in a process of another Python: a ``PythonEnv`` that is called from here."""

    def __init__(self, other: OtherPython, rendering: bool) -> None:
        self.name, self._python, self._seconds = other.name, other.python, other.seconds
        job = {**other.source(), "rendering": rendering, "seconds": other.seconds}
        with contextlib.ExitStack() as stack:
            with interrupts_held_back():
                self._worker = start(other.python, single.__name__, job)
                stack.callback(self._end)
            spec, self.spaces_data = self._answer(self._seconds + OPENING)[0]
            self.spec = spec_of(spec)
            stack.pop_all()

    def reset(self, seed: int | None = None) -> TimeStep:
        return self._step(self._call("reset", seed))

    def step(self, actions: Integer[np.ndarray, " N"] | Float32[np.ndarray, "N P"]) -> TimeStep:
        return self._step(self._call("step", arrays=[actions]))

    def in_words(self, actions: Any) -> tuple[str, ...]:
        return tuple(self._call("in_words", arrays=[np.asarray(actions)])[0])

    def frame(self) -> UInt8[np.ndarray, "H W 3"]:
        return self._call("frame")[1][0]

    def frames_a_second(self) -> float | None:
        return self._call("frames_a_second")[0]

    def close(self) -> None:
        if self._worker.connection.closed:
            return
        try:
            self._call("close")
            self._worker.connection.send_bytes(b"")
            has_ended(self._worker.process, GRACE)
        finally:
            self._end()

    def _call(self, call: str, *given: Any, arrays: Any = ()) -> tuple[Any, list[np.ndarray]]:
        with contextlib.suppress(OSError):  # listening tells why
            self._worker.connection.send_bytes(pack([call, given], arrays))
        return self._answer(self._seconds)

    def _answer(self, seconds: float) -> tuple[Any, list[np.ndarray]]:
        """What the process answers; where it does not, it is ended."""
        process, connection = self._worker
        try:
            if not connection.poll(seconds + GRACE):
                what = f"its process did not answer for {seconds + GRACE:.0f} seconds"
                raise EnvironmentFault(what, self.name)
            content, arrays = unpack(received(connection))
        except (EOFError, OSError) as error:
            has_ended(process, GRACE)
            what = f"its process ended ({how_it_ended(process.exitcode)})"
            self._end()
            raise EnvironmentFault(what, self.name) from error
        except BaseException:
            self._end()
            raise
        if "raised" in content:
            raise error_of(content["raised"], self._python)
        return content["value"], arrays

    def _step(self, answer: tuple[Any, list[np.ndarray]]) -> TimeStep:
        (terminated, truncated), arrays = answer
        shown = dict(zip(single.ARRAYS, arrays, strict=True))
        return TimeStep(terminated=terminated, truncated=truncated, **shown)

    def _end(self) -> None:
        if not self._worker.connection.closed:
            self._worker.end()
