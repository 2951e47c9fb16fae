"""Making environments of other packages: names, options, and what their constructors raise."""

from __future__ import annotations

import contextlib
import enum
import importlib
import inspect
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from coterie.errors import UsageError, described
from coterie.naming import PACKAGES, unknown_option
from coterie.settings import fitted
from coterie.text import did_you_mean


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Lets a package print and warn nothing: standard output is for Coterie's results."""
    # Modules of JaxMARL put the latter two in place of the former.
    kept = {name: getattr(sys, name) for name in ("stdout", "stderr", "__stdout__", "__stderr__")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _put(dict.fromkeys(kept, io.StringIO()))
            yield
        finally:
            _put(kept)


def imported(package: str, module: str) -> ModuleType:
    """A module of a package of ``PACKAGES``, imported without a word of its own.

    Raises:
        UsageError: it, or what it imports, is broken.
    """
    with quietly():
        try:
            return importlib.import_module(module)
        except Exception as error:
            why = described(error)
            raise UsageError(f"{PACKAGES[package]} could not be imported: {why}") from error


def _put(streams: Mapping[str, Any]) -> None:
    for name, stream in streams.items():
        setattr(sys, name, stream)


def ignore_warnings_of(*packages: str) -> None:
    """From now on. What is traced warns in threads, too, where ``catch_warnings`` is not safe."""
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(packages)})\b")
    warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)


def check_name(package: str, name: str, known: Sequence[str]) -> None:
    """UsageError, with the nearest name, unless a package has an environment of this name."""
    if name in known:
        return
    lower = {each.lower(): each for each in known}
    near = did_you_mean(name.lower(), lower, cutoff=0.4)
    for small, each in lower.items():  # "smax" is SMAX, and not what else is spelt like it
        near = near.replace(f"mean {small}?", f"mean {package}:{each}?")
    title = PACKAGES[package]
    raise UsageError(f"{title} has no environment {name!r}{near or f'; it has {_listed(known)}'}")


def check_options(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """UsageError where an option is not known, or is more than numbers, words or lists of them."""
    if sentence := unknown_option(name, options, known):
        raise UsageError(sentence)
    for option, value in options.items():
        if not _is_plain(value):
            raise UsageError(
                f"{name}: {option} must be a number, a word, True, False, None or a list of such; "
                f"got {value!r:.60}"
            )


def keywords(*makers: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments of what makes an environment, with their defaults.

    Where a constructor takes any, it hands them on to the next base's.
    """
    found: dict[str, Any] = {}
    for make in makers:
        bases = make.__mro__ if isinstance(make, type) else (make,)
        for each in bases:
            if isinstance(each, type) and "__init__" not in vars(each):
                continue
            parameters = inspect.signature(each).parameters.values()
            own = {p.name: p.default for p in parameters if p.default is not p.empty}
            found |= {name: value for name, value in own.items() if name not in found}
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return found


def fitting(name: str, option: str, value: Any, default: Any) -> Any:
    """The value of an option, of the kind of its default: a list in place of an array is one.

    Raises:
        UsageError: it is of another kind.
    """
    if isinstance(default, bool | int | float | str) and not isinstance(default, enum.Enum):
        return fitted(f"{option} of {name}", value, type(default))
    if isinstance(default, jax.Array):
        with in_a_sentence(name, {option: value}):
            return jnp.asarray(value, default.dtype)
    return value


def chosen(name: str, option: str, value: Any, known: Mapping[str, Any]) -> Any:
    """What a word means where an option takes one of several; UsageError, with all, otherwise."""
    if isinstance(value, str) and value in known:
        return known[value]
    hint = did_you_mean(str(value), known, "")
    raise UsageError(f"{name} has no {option} {value!r:.60}{hint} (it has {_listed(list(known))})")


@contextlib.contextmanager
def in_a_sentence(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Says what a package raises as an environment is made.

    Raises:
        UsageError: it raised.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        given = ", ".join(f"{option} {value!r:.40}" for option, value in options.items())
        raise UsageError(
            f"{name} cannot be made{f' with {given}' if given else ''}: {described(error)}"
        ) from error


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
