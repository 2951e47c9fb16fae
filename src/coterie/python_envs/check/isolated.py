"""A check in a process of its own: an environment that hangs or exits is reported, too."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from coterie.errors import UsageError, described
from coterie.python_envs.check.check import check_env
from coterie.python_envs.check.findings import Beat, Finding, Report
from coterie.python_envs.process import become_worker, has_ended, interrupts_held_back, kill_worker


def check_apart(
    name: str,
    episodes: int = 5,
    seed: int = 0,
    time_limit: int | None = None,
    step_timeout: float = 60.0,
    options: Mapping[str, Any] | None = None,
) -> Report:
    """As ``check_env``, of an environment that has a name.

    Args:
        step_timeout: seconds after which a call that has not returned is given up.

    Raises:
        UsageError: as ``check_env``.
    """
    if not step_timeout > 0:
        raise UsageError(f"step_timeout must be positive; got {step_timeout}")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_check, args=(sender, name, episodes, seed, time_limit, options), daemon=True
    )
    with interrupts_held_back():
        process.start()
    sender.close()  # so that the pipe ends when the process does
    try:
        return _listen(receiver, process, name, step_timeout)
    finally:
        kill_worker(process)


def _listen(receiver: Connection, process: Any, name: str, step_timeout: float) -> Report:
    last, found = Beat("its import", None), []
    while True:
        # Starting Python takes a while, and is not the environment's fault.
        if not receiver.poll(step_timeout + (60.0 if last.call == "its import" else 0.0)):
            sentence = (
                f"{last.call} did not return within {step_timeout:g} seconds; find out what it "
                "waits for, or allow more (--step-timeout)"
            )
            return Report(name, (*found, Finding(sentence, step=last.step)))
        try:
            news = receiver.recv()
        except EOFError:
            has_ended(process, step_timeout)
            sentence = (
                f"{last.call} ended the whole process, with exit status {process.exitcode}; "
                "raise an exception instead"
            )
            return Report(name, (*found, Finding(sentence, step=last.step)))
        if isinstance(news, Report):
            return news
        if isinstance(news, UsageError):
            raise news
        if isinstance(news, str):
            raise RuntimeError(news)
        if isinstance(news, Finding):
            found.append(news)
        else:
            last = news


def _check(
    sender: Connection, name: str, episodes: int, seed: int, time_limit: int | None,
    options: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    become_worker()
    try:
        sender.send(check_env(name, episodes, seed, time_limit, sender.send, options))
    except UsageError as error:
        sender.send(error)
    except Exception as error:
        sender.send(described(error))
