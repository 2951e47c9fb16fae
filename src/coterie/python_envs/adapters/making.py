"""What makes an environment of a name, as a run asked for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from coterie.errors import EnvironmentFault, UsageError, described
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.lookup import open_factory
from coterie.python_envs.adapters.rendering import make_rendering
from coterie.python_envs.process import OutOfTime, within


def making(
    name: str, options: Mapping[str, Any], adapter: Mapping[str, Any]
) -> Callable[[], PythonEnv]:
    """A function that makes one environment of this name, which is looked up now.

    Args:
        options: keywords for what makes it.
        adapter: what ``PythonEnv`` takes beside the environment and its name.

    Raises:
        UsageError: there is no such module, id, callable or keyword, or a package is not installed.
        EnvironmentFault: its module raises as it is imported.
    """
    make = open_factory(name, options)
    return adapted(make, functools.partial(PythonEnv, name=name, **adapter))


def made_within(name: str, make: Callable[[], Any], seconds: float) -> Any:
    """What a user's callable makes within so many seconds.

    Raises:
        UsageError, NoPictures: as it raised them.
        EnvironmentFault: it raises anything else, or does not return in time.
    """
    with within(seconds, name):
        try:
            return make()
        except (UsageError, EnvironmentFault, KeyboardInterrupt, OutOfTime):
            raise
        except BaseException as error:
            what = f"raised as it was made: {described(error)}"
            raise EnvironmentFault(what, name) from error


def adapted(
    make: Callable[[], Any], adapt: Callable[[Any], PythonEnv], rendering: bool = False
) -> Callable[[], PythonEnv]:
    """A function that makes one environment and adapts it; it pickles if both can."""
    return functools.partial(_make_rendering if rendering else _make, make, adapt)


def _make(make: Callable[[], Any], adapt: Callable[[Any], PythonEnv]) -> PythonEnv:
    return adapt(make())


def _make_rendering(make: Callable[[], Any], adapt: Callable[[Any], PythonEnv]) -> PythonEnv:
    return adapt(make_rendering(make))
