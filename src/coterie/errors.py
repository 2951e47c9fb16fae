"""Errors that a user, or a user's environment, can cause."""

from __future__ import annotations

import traceback
from pathlib import Path


class UsageError(ValueError):
    """Something the user asked for cannot be done; the message says what, and what would work.

    The command line prints it as its only line and exits with status 2.
    """


class NoPictures(UsageError):
    """The environment cannot be drawn."""


class NotEnoughMemory(UsageError):
    """What was asked for needs more memory than is free."""


class DamagedFile(UserWarning):
    """Part of a file is damaged, missing or without a digest; the message says which and what.

    The reader leaves out what is damaged. ``warnings.simplefilter("error", DamagedFile)``
    makes it an error; the command line prints it to standard error.
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a training; the message says what was kept, and what continues it.

    It is a ``KeyboardInterrupt``: a loop over trainings ends too, unless it catches that.

    Attributes:
        path: the run directory, which holds everything up to ``steps``; None if there is none.
        steps: environment steps done, per seed.
        total: environment steps that were asked for, per seed.
        resume: what continues the run: a command, or a call in Python; None where nothing can.
        complete: the training had made all its steps, and the run directory holds all of it.
    """

    def __init__(self, path: Path | None, steps: int, total: int, resume: str | None):
        super().__init__(path, steps, total, resume)  # so it survives being pickled
        self.path, self.steps, self.total, self.resume = path, steps, total, resume
        self.complete = path is not None and resume is None

    def __str__(self) -> str:
        done = f"training was interrupted after {self.steps:,} of {self.total:,} steps"
        if self.path is None:
            return f"{done}; nothing is kept of it, as it has no run directory (out)"
        if self.complete:
            return f"{done}; the run in {self.path} is complete"
        return f"{done}; continue with: {self.resume}"


class NotFinite(RuntimeError):
    """A number that learning depends on is NaN or infinite; training stopped in that rollout.

    Attributes:
        what: the quantity, and of which agents.
        seed: which seed of the run.
        step: environment steps of that seed after the rollout in which it happened.
    """

    def __init__(self, what: str, seed: int, step: int):
        super().__init__(what, seed, step)
        self.what, self.seed, self.step = what, seed, step

    def __str__(self) -> str:
        return (
            f"{self.what} is not finite in seed {self.seed} at step {self.step:,}: training "
            "stopped before anything was saved of it"
        )


class EnvironmentFault(RuntimeError):
    """An environment failed, or returned what it must not; the message names environment, step and
    agent.

    Attributes:
        what: what happened, as the rest of a sentence.
        environment: its name.
        agent: the agent whose part was at fault; ``None`` if it is no single agent's.
        step: steps taken in the episode, the faulty one included; 0 is the reset,
            ``None`` where it is not known.
        seed: the episode's, where it is known.
        original: the environment's own traceback, where it cannot travel as ``__cause__``.
    """

    def __init__(
        self,
        what: str,
        environment: str,
        agent: str | None = None,
        step: int | None = None,
        seed: int | None = None,
        original: str = "",
    ) -> None:
        # All of it are arguments of the base: so it survives being pickled.
        super().__init__(what, environment, agent, step, seed, original)
        self.what, self.environment, self.agent = what, environment, agent
        self.step, self.seed, self.original = step, seed, original

    def __str__(self) -> str:
        when = {None: "", 0: ", reset"}.get(self.step, f", step {self.step}")
        episode = f" of the episode with seed {self.seed}" if self.seed is not None else ""
        whose = f", agent {self.agent}" if self.agent is not None else ""
        return f"{self.environment}{when}{episode}{whose}: {self.what}"


def described(error: BaseException) -> str:
    """An exception in one line, with the file and line where it was raised."""
    said = " ".join(str(error).split())
    kind = type(error).__name__
    return (f"{kind}: {said}" if said else kind) + place(error)


def place(error: BaseException) -> str:
    """`` (file, line n)`` where an exception was raised; empty where its own words say it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ")
    ]
    if not frames or (isinstance(error, SyntaxError) and error.filename):
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
