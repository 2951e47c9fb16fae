"""How a run opens Python environments, with which settings, and what rewards they give."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.lookup import open_factory
from coterie.python_envs.adapters.making import adapted, made_within
from coterie.python_envs.other_python import OtherPython, interpreter
from coterie.python_envs.process import within
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
    adapt = functools.partial(PythonEnv, name=name, **adapter(python_env, state, combined, arrays))
    made = make_one(name, make, python_env) if made is None else made
    with within(python_env.step_timeout + OPENING, name):
        env = adapt(made)
        env.close()
    return PythonEnvFactory(
        name,
        adapted(make, adapt),
        env.spec,
        adapted(make, adapt, rendering=True),
        spaces=env.spaces.data(),
    )


def adapter(
    python_env: PythonEnvSettings, state: bool, combined: bool, arrays: bool
) -> dict[str, Any]:
    """What ``PythonEnv`` takes beside an environment and its name; JSON can say it."""
    limit = python_env.time_limit
    return {"time_limit": limit, "central": state, "combined": combined, "arrays": arrays}


def open_in_other_python(
    name: str,
    options: dict[str, Any],
    python_env: PythonEnvSettings,
    state: bool = False,
    combined: bool = True,
    arrays: bool = True,
) -> PythonEnvFactory:
    """``open_python_env`` of an environment that ``python_env.python`` imports, and this does not.

    Raises:
        UsageError: it is no such Python, or what ``find_factory`` raises.
        EnvironmentFault: as ``make_one``.
    """
    assert python_env.python is not None
    python, limits = interpreter(python_env.python), adapter(python_env, state, combined, arrays)
    other = OtherPython(python, name, options, limits, python_env.step_timeout)
    env = other.open()
    env.close()
    rendering = functools.partial(other.open, rendering=True)
    return PythonEnvFactory(name, other.open, env.spec, rendering, other, env.spaces_data)


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
    return made_within(name, make, (python_env or PythonEnvSettings()).step_timeout + OPENING)


def digest(spec: EnvSpec) -> str:
    """A digest of all that an environment promises."""
    promised = dataclasses.asdict(spec)
    for late in ("actions", "observations"):
        if not promised[late]:  # runs of version 0.1 recorded the digest without it
            del promised[late]
    return hashlib.sha256(json.dumps(promised).encode()).hexdigest()
