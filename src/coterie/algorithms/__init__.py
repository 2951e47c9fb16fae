"""Learning algorithms. Each file here without a leading underscore is one, found by its name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Mapping
from typing import Any

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm, Mode
from coterie.module_paths import path_of
from coterie.settings import RUN, hints, is_kind
from coterie.storage.formats import refuse_former
from coterie.text import did_you_mean, setting_meant

__all__ = ["Algorithm", "algorithms", "check_class", "find", "make", "title"]


def names() -> list[str]:
    """Every algorithm of this package, whose name is its file's."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def algorithms() -> dict[str, type[Algorithm]]:
    """Every algorithm of this package by its name."""
    return {name: find(name) for name in names()}


def find(name: str) -> type[Algorithm]:
    """The algorithm's class; UsageError naming the nearest otherwise."""
    known = names()
    if name not in known:
        hint = did_you_mean(name.lower(), known, cutoff=0.3)
        if "." in name:
            module, _, kind = name.rpartition(".")
            hint = f"; one of your own is named module:Class, {module}:{kind}"
        raise UsageError(
            f"there is no algorithm {name!r}{hint} (known: {', '.join(known)}; one of your "
            "own is module:Class)"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Algorithm) and c.__module__ == module.__name__
    )


def check_class(kind: type[Algorithm]) -> None:
    """UsageError unless a class of the user's is an algorithm, with all that one has to define."""
    path = path_of(kind)
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise UsageError(
            f"{path} is a base of algorithms, and no algorithm itself: it does not define "
            f"{', '.join(missing)}"
        )
    if getattr(kind, "mode", None) not in typing.get_args(Mode):
        modes = "', '".join(typing.get_args(Mode))
        raise UsageError(f"{path} must have the class attribute mode, one of '{modes}'")
    if not isinstance(getattr(kind, "common_reward", None), bool):
        raise UsageError(f"{path} must have the class attribute common_reward, True or False")
    declared, known = inspect.get_annotations(kind), {f.name for f in dataclasses.fields(kind)}
    fields = [name for name, hint in declared.items() if "ClassVar" not in str(hint)]
    if fields and "__dataclass_fields__" not in vars(kind):
        raise UsageError(
            f"{fields[0]} of {path} is no setting yet: put @dataclass(frozen=True, kw_only=True) "
            "above the class"
        )
    if untyped := sorted(known & vars(kind).keys() - declared.keys()):
        raise UsageError(
            f"{untyped[0]} of {path} has no type, and so changes nothing: declare it as in the "
            f"base, {untyped[0]}: TYPE = VALUE"
        )
    _check_settings(kind, path)


def _check_settings(kind: type[Algorithm], path: str) -> None:
    """UsageError unless all settings of a class can be flags, and come back from a file."""
    try:
        declared = hints(kind)
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(f"the type of a setting of {path} cannot be read: {said}") from error
    for field in dataclasses.fields(kind):
        what = f"the setting {field.name} of {path}"
        if field.default is dataclasses.MISSING or not field.init:
            raise UsageError(f"{what} has no default value")
        if not is_kind(declared[field.name]):
            raise UsageError(
                f"{what} is declared as {field.type!s:.60}, and settings are numbers, words, True "
                "or False, one of several words (Literal), or tuples of these (tuple[int, ...])"
            )
        if field.name in (*RUN, "reward", "central") or hasattr(Algorithm, field.name):
            raise UsageError(f"{what} has a name that has another meaning: rename it")


def title(algorithm: type[Algorithm]) -> str:
    """What the name stands for: how the algorithm's file begins."""
    doc = sys.modules[algorithm.__module__].__doc__ or ""
    return re.split(r" \(|\.\n|\.$|\n", doc.strip())[0]


def make(name: str, **settings: Any) -> Algorithm:
    """The algorithm with these settings; UsageError for an unknown name or setting."""
    cls = find(name)
    return cls(**known_settings(cls, settings, name))


def known_settings(
    cls: type[Algorithm], settings: Mapping[str, Any], name: str = ""
) -> Mapping[str, Any]:
    """The settings, if the algorithm has all of them; UsageError naming the nearest otherwise."""
    known = [field.name for field in dataclasses.fields(cls)]
    for setting in settings:
        if setting not in known:
            refuse_former([setting])
            hint = setting_meant(setting, known)
            raise UsageError(f"{name or cls.__name__} has no setting {setting!r}{hint}")
    return settings
