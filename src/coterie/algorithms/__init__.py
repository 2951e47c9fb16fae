"""Learning algorithms. Each file here without a leading underscore is one, found by its name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Mapping
from typing import Any

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.storage.formats import refuse_former
from coterie.text import did_you_mean

__all__ = ["Algorithm", "algorithms", "find", "make", "title"]


def algorithms() -> dict[str, type[Algorithm]]:
    """Every algorithm of this package by its name, which is its file's name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {name: find(name) for name in names}


def find(name: str) -> type[Algorithm]:
    """The algorithm's class; UsageError naming the nearest otherwise."""
    known = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    if name not in known:
        hint = did_you_mean(name.lower(), known, cutoff=0.3)
        raise UsageError(
            f"there is no algorithm {name!r}{hint} (known: {', '.join(sorted(known))})"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Algorithm) and c.__module__ == module.__name__
    )


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
            hint = did_you_mean(setting, known)
            raise UsageError(f"{name or cls.__name__} has no setting {setting!r}{hint}")
    return settings
