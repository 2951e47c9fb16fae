"""How a run opens Python environments, with which settings, and what rewards they give."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

from coterie.errors import EnvironmentFault, UsageError, described
from coterie.python_envs.adapters.environment import PythonEnv, open_factory
from coterie.python_envs.adapters.rendering import make_rendering
from coterie.python_envs.process import OutOfTime, within
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.worker import OPENING
from coterie.spec import EnvSpec, PythonEnvFactory


def is_python_environment(thing: Any) -> bool:
    """Whether an object is (or looks like) a PettingZoo or Gymnasium environment."""
    if isinstance(thing, type | str):
        return False
    return hasattr(thing, "possible_agents") or (
        hasattr(thing, "action_space") and hasattr(thing, "observation_space")
    )


def open_python_env(
    name: str,
    make: Callable[[], Any],
    python_env: PythonEnvSettings | None = None,
    state: bool = False,
    made: Any = None,
    combined: bool = True,
    arrays: bool = True,
) -> PythonEnvFactory:
    """A Python environment, of which one is made to see what it promises.

    Args:
        make: makes the environment as its author meant it.
        state: whether its ``state()`` is wanted.
        made: one that was made already; it is closed.
        combined, arrays: see ``PythonEnv``.
    """
    python_env = python_env or PythonEnvSettings()
    host = functools.partial(
        PythonEnv,
        time_limit=python_env.time_limit,
        name=name,
        central=state,
        combined=combined,
        arrays=arrays,
    )
    made = make_one(name, make, python_env) if made is None else made
    with within(python_env.step_timeout + OPENING, name):
        env = host(made)
        env.close()
    return PythonEnvFactory(
        name,
        functools.partial(_make, make, host),
        env.spec,
        functools.partial(_make_rendering, make, host),
        env.spaces.data(),
    )


def find_factory(
    name: str, options: dict[str, Any], python_env: PythonEnvSettings | None = None
) -> Callable[[], Any]:
    """What makes the environment of this name, which is imported; see ``open_factory``.

    Raises:
        UsageError: there is no such module, id or callable, or a package is not installed.
        EnvironmentFault: its module raises, or is not imported in time.
    """
    with within((python_env or PythonEnvSettings()).step_timeout + OPENING, name):
        return open_factory(name, options)


def make_one(
    name: str, make: Callable[[], Any], python_env: PythonEnvSettings | None = None
) -> Any:
    """What a user's callable makes.

    Raises:
        EnvironmentFault: it raises, or does not return in time.
    """
    with within((python_env or PythonEnvSettings()).step_timeout + OPENING, name):
        try:
            return make()
        except (UsageError, EnvironmentFault, KeyboardInterrupt, OutOfTime):
            raise
        except BaseException as error:
            what = f"raised as it was made: {described(error)}"
            raise EnvironmentFault(what, name) from error


def _make(make: Callable[[], Any], host: Callable[[Any], PythonEnv]) -> PythonEnv:
    return host(make())


def _make_rendering(make: Callable[[], Any], host: Callable[[Any], PythonEnv]) -> PythonEnv:
    return host(make_rendering(make))


def digest(spec: EnvSpec) -> str:
    """A digest of all that an environment promises."""
    promised = dataclasses.asdict(spec)
    for late in ("actions", "observations"):
        if not promised[late]:  # runs of version 0.1 recorded the digest without it
            del promised[late]
    return hashlib.sha256(json.dumps(promised).encode()).hexdigest()
