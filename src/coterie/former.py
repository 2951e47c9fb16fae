"""Names of version 0.1 that users can have written: they work until version 0.3, with a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def warn_former(former: str, present: str, stacklevel: int = 3) -> None:
    """Says which name has taken the place of one that the caller's caller used."""
    sentence = f"{former} is now {present}; the former name goes with version 0.3"
    warnings.warn(sentence, DeprecationWarning, stacklevel=stacklevel)


def former_arguments(**present: str) -> Callable[[Function], Function]:
    """Lets a function take arguments under their former names: ``former="present"``."""

    def wrap(function: Function) -> Function:
        @functools.wraps(function)
        def accepting(*args: Any, **given: Any) -> Any:
            for former in present.keys() & given.keys():
                if present[former] in given:
                    raise TypeError(f"{former} is the former name of {present[former]}: give one")
                warn_former(f"the argument {former}", present[former])
                given[present[former]] = given.pop(former)
            return function(*args, **given)

        return accepting  # pyright: ignore[reportReturnType]

    return wrap


def under_former_name(function: Function, former: str, present: str) -> Function:
    """The function, which warns where it is called by its former name."""

    @functools.wraps(function)
    def warning(*args: Any, **given: Any) -> Any:
        warn_former(former, present)
        return function(*args, **given)

    return warning  # pyright: ignore[reportReturnType]


def former_attribute(former: str, present: str) -> Any:
    """A property, or a method, under its former name."""

    def read(self: Any) -> Any:
        warn_former(f"{type(self).__name__}.{former}", present)
        return getattr(self, present)

    return property(read, doc=f"The former name of ``{present}``.")
