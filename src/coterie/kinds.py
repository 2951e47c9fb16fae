"""Whether values read from a file are of the kinds that a dataclass declares."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Literal

MOST = 2**53
"""The greatest number in a file, and far more than any setting means."""
LONGEST = 1000
"""Entries of a list, characters of a word."""


def misfits(cls: type, values: dict[str, Any]) -> list[str]:
    """Names of the values that their field of the dataclass ``cls`` cannot hold.

    Sizes are checked with the kinds, so that nothing that a file says makes memory be asked for
    before it is known to be sensible. Names that are no field are none of this function's business.
    """
    hints = _hints(cls)
    return [k for k, value in values.items() if k in hints and not fits(value, hints[k])]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a kind: numbers, words, bools, None, tuples and choices of them."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, option) for option in options)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in options)
    if origin is tuple:
        short = isinstance(value, tuple) and len(value) <= LONGEST
        return short and all(fits(x, options[0]) for x in value)
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and len(value) <= LONGEST
    if hint is int:
        return type(value) is int and abs(value) <= MOST
    if hint is float:  # not NaN; a whole number is one too
        return type(value) in (int, float) and value == value and not MOST < abs(value) < 1e308
    return False
