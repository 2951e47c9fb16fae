"""Why something is no environment that Coterie can train in, and what to give instead.

Kinds are told apart by their attributes, so neither PettingZoo nor Gymnasium need be installed.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from coterie.naming import misnamed
from coterie.python_envs.adapters.spaces import gymnasium


def reason(thing: Any) -> str | None:
    """Why it is none, as a sentence; None if it may be one."""
    for refuse in (_plain_value, _vectorised, _of_other_jax, _dictionaries, _no_convention):
        if sentence := refuse(thing):
            return sentence
    return None


def missing_arguments(
    make: Callable[..., Any], options: dict[str, Any] | None = None
) -> str | None:
    """Why ``make(**options)`` cannot be called, as a sentence; None if it can, or nobody knows."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(**(options or {}))
    except TypeError as error:
        name = getattr(make, "__name__", type(make).__name__)
        return (
            f"{name}{signature} cannot be called without more arguments ({error}): give them as "
            "options (--env.NAME VALUE), or give a function that needs none"
        )
    return None


def _kind(thing: Any) -> str:
    return type(thing).__name__


def _title(thing: Any) -> str:
    """What a Gymnasium environment is registered as, or its class."""
    spec = getattr(thing, "spec", None)
    identity = getattr(spec, "id", None)
    return identity if isinstance(identity, str) else _kind(getattr(thing, "unwrapped", thing))


def _plain_value(thing: Any) -> str | None:
    if thing is None:
        return "None is no environment: a function that makes one has to return it"
    if isinstance(thing, type):
        return (
            f"{thing.__name__} is a class, not an environment: make one of it, {thing.__name__}()"
        )
    if isinstance(thing, os.PathLike):
        return misnamed(os.fspath(thing)) or f"{os.fspath(thing)} is a path, and no environment"
    if isinstance(thing, (list, tuple, dict, set)):
        return (
            f"a {_kind(thing)} is no environment: give one, or what makes one "
            "(Coterie makes as many of it as it needs)"
        )
    if isinstance(thing, (str, bytes, int, float, complex)):
        return f"{thing!r:.60} is no environment (it is of type {_kind(thing)})"
    return None


def _vectorised(thing: Any) -> str | None:
    if not isinstance(getattr(thing, "num_envs", None), int):
        return None
    return (
        f"{_title(thing)} is a vector of {thing.num_envs} environments: give what makes a single "
        "one (Coterie makes as many of it as it needs)"
    )


def _of_other_jax(thing: Any) -> str | None:
    """Environments that take keys and states: JaxMARL's, Jumanji's, gymnax's, Brax's, Pgx's."""
    if hasattr(thing, "possible_agents"):
        return None
    start = _arguments(getattr(thing, "reset", None)) or _arguments(getattr(thing, "init", None))
    step = _arguments(getattr(thing, "step", None))
    if not start or not any("state" in argument for argument in step):
        return None
    return (
        f"{_kind(thing)} is a JAX environment of another library (its reset takes {start[0]}, its "
        "step a state): wrap it in a class of coterie.Environment that names its agents and sizes "
        "(docs/add-an-environment.md)"
    )


def _arguments(method: Any) -> list[str]:
    """Names of the arguments that a method cannot do without."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]


def _dictionaries(thing: Any) -> str | None:
    if hasattr(thing, "possible_agents") or hasattr(thing, "agent_iter"):
        return None
    if not isinstance(getattr(thing, "action_space", None), gymnasium().spaces.Dict):
        return None
    return (
        f"{_title(thing)} has a Dict for its action space: give a PettingZoo environment "
        "(possible_agents, action_space(agent)) or a Tuple of one space for each agent if it is a "
        "team's, and a MultiDiscrete or a Box if it is one agent's"
    )


def _no_convention(thing: Any) -> str | None:
    if hasattr(thing, "possible_agents") or hasattr(thing, "agent_iter"):
        return None
    spaces = [getattr(thing, f"{word}_space", None) for word in ("observation", "action")]
    if not any(space is None or callable(space) for space in spaces):
        return None
    return (
        f"{_kind(thing)} is neither a PettingZoo environment (it has no possible_agents) nor a "
        "Gymnasium environment (it has no observation_space and action_space of its own)"
    )
