"""One environment in a process of another Python, which is called from outside."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from coterie.errors import EnvironmentFault, UsageError
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.lookup import open_factory
from coterie.python_envs.adapters.making import made_within
from coterie.python_envs.adapters.rendering import make_rendering
from coterie.python_envs.process import within
from coterie.python_envs.workers.messages import error_content, pack, spec_content, unpack
from coterie.python_envs.workers.worker import OPENING
from coterie.spec import TimeStep

CALLS = frozenset({"reset", "step", "in_words", "frame", "frames_a_second", "close"})
ARRAYS = ("observations", "rewards", "action_mask", "alive", "central", "truncated_alone")
"""Fields of a time step that are arrays; the others are flags of the episode."""


def serve(connection: Any, job: dict[str, Any], buffer: Any) -> None:
    """Answers what the environment promises, and its spaces as data; then calls in, and what they
    return, until an empty message."""
    del buffer
    seconds, name = job.pop("seconds"), job["name"]
    try:
        env = _opened(seconds + OPENING, **job)
    except (UsageError, EnvironmentFault) as error:
        connection.send_bytes(pack({"raised": error_content(error)}))
        return
    connection.send_bytes(pack({"value": [spec_content(env.spec), env.spaces.data()]}))
    while message := connection.recv_bytes():
        (call, given), arrays = unpack(message)
        assert call in CALLS
        try:
            with within(seconds, name):
                answer = _packed(getattr(env, call)(*given, *arrays))
        except (UsageError, EnvironmentFault) as error:
            answer = pack({"raised": error_content(error)})
        connection.send_bytes(answer)


def _opened(
    seconds: float,
    name: str,
    options: Mapping[str, Any],
    adapter: Mapping[str, Any],
    rendering: bool = False,
) -> PythonEnv:
    with within(seconds, name):
        make = open_factory(name, options)
    make = functools.partial(make_rendering, make) if rendering else make
    made = made_within(name, make, seconds)
    with within(seconds, name):
        return PythonEnv(made, name=name, **adapter)


def _packed(value: Any) -> bytes:
    if isinstance(value, TimeStep):
        flags = [bool(value.terminated), bool(value.truncated)]
        return pack({"value": flags}, [getattr(value, name) for name in ARRAYS])
    if isinstance(value, np.ndarray):
        return pack({"value": None}, [value])
    return pack({"value": value})
