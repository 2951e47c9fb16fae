"""Settings of Python environments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from coterie.errors import UsageError
from coterie.machine import usable_cores
from coterie.python_envs.workers.pool import NOT_HERE, can_be_sent
from coterie.settings import Interpreter, Restarts, TimeLimit, Timeout, Workers, check
from coterie.spec import PythonEnvFactory


@dataclass(frozen=True)
class PythonEnvSettings:
    """Settings of Python environments."""

    workers: Workers | None = None
    """Worker processes that step the environments; by default one for each core; 0 steps them in
    this process."""
    time_limit: TimeLimit | None = None
    """Steps of the longest episode: an episode that ends at this step counts as truncated, whatever
    the environment reports."""
    step_timeout: Timeout = 60.0
    """Seconds after which a step or reset that has not returned counts as failed."""
    restarts: Restarts = 0
    """How many environments that failed training replaces before it ends; the evaluation at the end
    may replace as many. Their episodes are dropped."""
    python: Interpreter | None = None
    """Another Python to run the environments in, such as old-env/bin/python: their packages need
    not be installed in this one."""

    def __post_init__(self) -> None:
        check(self)
        if self.python is not None and self.workers == 0:
            raise UsageError(NOT_HERE)

    def processes(self) -> int:
        """Worker processes, as a number."""
        return usable_cores() if self.workers is None else self.workers


def resolve_settings(
    python_env: PythonEnvSettings | None, environment: Any, name: str
) -> tuple[PythonEnvSettings | None, list[str]]:
    """The settings of a run, and sentences about them; None for a JAX environment.

    Raises:
        UsageError: settings of Python environments were given for a JAX environment.
    """
    if not isinstance(environment, PythonEnvFactory):
        if python_env not in (None, PythonEnvSettings()):
            raise UsageError(
                f"{name} is a JAX environment: workers, time_limit, step_timeout, restarts and "
                "python are settings of Python environments"
            )
        return None, []
    python_env = python_env or PythonEnvSettings()
    other = environment.other_python
    if python_env.workers is None and not other and not can_be_sent(environment.make):
        alone = dataclasses.replace(python_env, workers=0)
        return alone, [f"{name} cannot be sent to other processes: it is stepped in this one"]
    python = other.python if other else None
    return dataclasses.replace(python_env, workers=python_env.processes(), python=python), []
