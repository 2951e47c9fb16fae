"""Numbers in what Python environments call ``info``, for the log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

import numpy as np

BOOKKEEPING = frozenset(
    {
        "TimeLimit.truncated", "action_mask", "episode", "final_info", "final_obs",
        "final_observation", "terminal_observation",
    }
)  # fmt: skip
"""Entries that libraries put beside those of an environment's author."""
MOST_NAMES, LONGEST_NAME = 100, 100
"""Of an episode's entries so many are kept, with names of at most so many characters."""

Reported = dict[str, Optional[float]]
"""By name a finite number; None for an entry that is none."""


def reported(infos: Iterable[Any]) -> Reported:
    """The mean of each entry over the infos that hold a number under its name.

    Numbers are ``int``, ``float``, ``bool`` and NumPy's scalars. An entry that is a mapping stands
    for its own entries, as ``name/entry``; one within it for nothing.
    """
    found: dict[str, list[float]] = {}
    for info in infos:
        for name, value in _entries(info):
            if name in found or len(found) < MOST_NAMES:
                found.setdefault(name, []).extend(_number(value))
    return {name: math.fsum(own) / len(own) if own else None for name, own in found.items()}


def _entries(info: Any) -> Iterator[tuple[str, Any]]:
    for name, value in _named(info):
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", x) for inner, x in _named(value))
        else:
            yield name, value


def _named(info: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(info, Mapping):
        return
    for name, value in info.items():
        named = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME
        if named and name not in BOOKKEEPING and not name.startswith("_"):
            yield name, value


def _number(value: Any) -> list[float]:
    """A number as a float, as the only entry; nothing if it is none, or not finite."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        return []
    try:
        number = float(value)
    except OverflowError:
        return []
    # The sum of a hundred thousand of them must be finite, too.
    return [number] if abs(number) < 1e300 else []
