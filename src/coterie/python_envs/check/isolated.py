"""A check in a process of its own: an environment that hangs or exits is reported, too."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Mapping
from typing import Any

from coterie.errors import UsageError
from coterie.naming import is_code
from coterie.python_envs.check import job as checking
from coterie.python_envs.check.findings import Beat, Finding, Report
from coterie.python_envs.other_python import interpreter, start
from coterie.python_envs.process import Worker, has_ended, interrupts_held_back
from coterie.python_envs.workers.messages import received


def check_apart(
    name: str,
    episodes: int = 5,
    seed: int = 0,
    time_limit: int | None = None,
    step_timeout: float = 60.0,
    options: Mapping[str, Any] | None = None,
    python: str | None = None,
) -> Report:
    """As ``check_env``, of an environment that has a name.

    Args:
        step_timeout: seconds after which a call that has not returned is given up.
        python: another Python in which it runs.

    Raises:
        UsageError: as ``check_env``.
    """
    if not step_timeout > 0:
        raise UsageError(f"step_timeout must be positive; got {step_timeout}")
    if python and not is_code(name):
        raise UsageError(f"{name} is a JAX environment: give no --python")
    job = {"environment": name, "episodes": episodes, "seed": seed, "time_limit": time_limit}
    job |= {"options": dict(options or {})}
    python = interpreter(python) if python else ""
    with contextlib.ExitStack() as stack:
        with interrupts_held_back():
            worker = _started(job, python)
            stack.callback(worker.end)
        return _listen(worker, name, step_timeout, python)


def _started(job: dict[str, Any], python: str) -> Worker:
    if python:
        return start(python, checking.__name__, job)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=checking.work, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the process does
    return Worker(process, ours)


def _listen(worker: Worker, name: str, step_timeout: float, python: str) -> Report:
    process, connection = worker
    last, found = Beat("its import", None), []
    while True:
        # Starting Python takes a while, and is not the environment's fault.
        if not connection.poll(step_timeout + (60.0 if last.call == "its import" else 0.0)):
            sentence = (
                f"{last.call} did not return within {step_timeout:g} seconds; find out what it "
                "waits for, or allow more (--step-timeout)"
            )
            return Report(name, (*found, Finding(sentence, step=last.step)))
        try:
            news = checking.news_of(received(connection), python)
        except (EOFError, OSError):
            has_ended(process, step_timeout)
            sentence = (
                f"{last.call} ended the whole process, with exit status {process.exitcode}; "
                "raise an exception instead"
            )
            return Report(name, (*found, Finding(sentence, step=last.step)))
        if isinstance(news, Report):
            return news
        if isinstance(news, Exception):
            raise news
        if isinstance(news, Finding):
            found.append(news)
        else:
            last = news
