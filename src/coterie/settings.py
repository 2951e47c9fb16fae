"""Settings: each is declared once, as a field of a dataclass, with its kind and its range.

    gamma: Annotated[float, Range(0, 1)] = 0.95

Constructors (``check``), the command line with its ``--help``, and all readers of a configuration
all go by this declaration. So whatever can be asked for can be written, and read again.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from coterie.errors import UsageError

MOST = 10**15
"""The greatest number of any setting; single precision and 64-bit integers hold sums of such."""
LONGEST = 1000
"""Entries of a list, characters of a word."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``, or, of a list or a word, how long it may be.

    Attributes:
        above: ``least`` itself is not one of them.
    """

    least: int | float = -MOST
    most: int | float = MOST
    above: bool = False

    def __contains__(self, value: int | float) -> bool:
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        if self.above:
            return f"above {short(self.least)}, at most {short(self.most)}"
        return f"from {short(self.least)} to {short(self.most)}"


class Kind(abc.ABC):
    """A kind of values with a reading of its own, declared as ``Annotated[..., Kind]``.

    Attributes:
        words: what a value must be, in a sentence.
        placeholder: what stands for a value in the help.
    """

    words: ClassVar[str]
    placeholder: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def read(cls, value: Any) -> Kind | None:
        """The value as one of this kind; None where it is none.

        Raises:
            UsageError: it is none, and the sentence says why.
        """


def own_kind(hint: Any) -> type[Kind] | None:
    """The ``Kind`` that a hint declares, if it does."""
    more = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return next((m for m in more if isinstance(m, type) and issubclass(m, Kind)), None)


def short(value: int | float) -> str:
    """A number as people write it: 0.5, 65,536, 1e9."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:g}"
    digits = str(int(value))
    zeros = len(digits) - len(digits.rstrip("0"))
    return f"{digits[:-zeros]}e{zeros}" if zeros >= 6 else f"{int(value):,}"


class Arithmetic:
    """Marks a setting whose value is only computed with, never decided by; use ``ARITHMETIC``."""


ARITHMETIC = Arithmetic()
"""Compiled programs take such a setting as an argument, so that one program serves all its values
(of a class outside the package where it sets ``numbers_as_arguments``).

    gamma: Annotated[float, Range(0, 1), ARITHMETIC] = 0.99
"""


def is_arithmetic(hint: Any) -> bool:
    """Whether a declared kind is marked ``ARITHMETIC``."""
    return typing.get_origin(hint) is Annotated and ARITHMETIC in typing.get_args(hint)[1:]


def arithmetic(settings: Any) -> dict[str, float]:
    """The settings marked ``ARITHMETIC`` that are numbers, by name."""
    declared = hints(type(settings))
    values = {name: getattr(settings, name) for name in declared if is_arithmetic(declared[name])}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


# Kinds that several settings have -----------------------------------------------------------------

Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, MOST, above=True)]
Rate = Annotated[float, Range(0, 1e6, above=True)]
"""A learning rate."""
EndRate = Annotated[float, Range(0, 1e6)]
Part = Annotated[float, Range(0, 1, above=True)]
Weight = Annotated[float, Range(0, MOST)]
StepCount = Annotated[int, Range(1, MOST)]
"""Environment steps; they are counted in 64 bits."""
Count = Annotated[int, Range(1, 10**9)]
"""How many there are of something that has a place in an array, or is counted in 32 bits."""
Width = Annotated[int, Range(1, 10**6)]
"""Units of a layer."""
JointActions = Annotated[int, Range(1, 10**7)]
"""A table of so many is made."""
Agents = Annotated[int, Range(1, 1000)]
Layers = Annotated[tuple[Width, ...], Range(1, 64)]
TimeLimit = Annotated[int, Range(1, 10**6)]
"""Steps of an episode; an evaluation plays them all before it can be interrupted."""
Seeds = Annotated[int, Range(1, 10**6)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Evaluations = Annotated[int, Range(1, 10**5)]
Episodes = Annotated[int, Range(1, 10**9)]
NoOrMoreEpisodes = Annotated[int, Range(0, 10**9)]
Workers = Annotated[int, Range(0, 1024)]
Timeout = Annotated[float, Range(0, 10**6, above=True)]
"""Seconds."""
Restarts = Annotated[int, Range(0, 10**9)]
Interpreter = Annotated[str, Range(1, 4096)]
"""The path of a program, or a command's name."""
Name = Annotated[str, Range(1, LONGEST)]
EnvironmentName = Annotated[str, Range(1, 4096)]
"""It may be the path of a file of payoffs."""


RUN: dict[str, Any] = {
    "steps": StepCount,
    "seeds": Seeds,
    "seed": Seed,
    "evaluations": Evaluations,
    "evaluation_episodes": Episodes,
    "final_episodes": NoOrMoreEpisodes,
}
"""What a run is asked for beside its algorithm and environment."""


# Checking -----------------------------------------------------------------------------------------


def check(settings: Any) -> None:
    """Sees to it that a settings dataclass holds what it declares; for its ``__post_init__``.

    Numbers of NumPy's, and whole numbers in place of fractions, become Python's own of the kind
    declared: only so are they the same when they come back from a file.

    Raises:
        UsageError: naming the first field that holds something else.
    """
    for name, hint in hints(type(settings)).items():
        object.__setattr__(settings, name, fitted(name, getattr(settings, name), hint))


def fitted(name: str, value: Any, hint: Any, toml: bool = False) -> Any:
    """The value as one of the kind that ``hint`` declares.

    Args:
        toml: the sentence speaks of a TOML file, which has true and false, lists, and no None.

    Raises:
        UsageError: it is none; the sentence calls it ``name``.
    """
    found = _fit(value, hint)
    if found is _NONE:
        wanted = " or ".join(map(_toml_words, options_of(hint))) if toml else words(hint)
        got = str(value).lower() if toml and isinstance(value, bool) else shown(value)
        raise UsageError(f"{name} must be {wanted}; got {got}")
    return found


def is_list(hint: Any) -> bool:
    """Whether values of a declared kind are lists."""
    return any(typing.get_origin(parts_of(option)[0]) is tuple for option in options_of(hint))


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """What the fields of a dataclass declare, by name, ranges included."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


_NONE = object()


def _fit(value: Any, hint: Any) -> Any:
    """The value as one of a kind; ``_NONE`` where it is none."""
    if kind := own_kind(hint):
        return _NONE if (found := kind.read(value)) is None else found
    hint, limits = parts_of(hint)
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next((v for o in options if (v := _fit(value, o)) is not _NONE), _NONE)
    if typing.get_origin(hint) is Literal:
        return value if isinstance(value, str) and value in options else _NONE
    if typing.get_origin(hint) is tuple:
        return _fit_all(value, options[0], limits)
    if hint in (None, type(None)):
        return None if value is None else _NONE
    if hint is bool:
        return bool(value) if isinstance(value, bool | np.bool_) else _NONE
    if hint in (int, float):
        return _fit_number(value, hint, limits)
    if isinstance(value, hint):
        return value if not isinstance(value, str) or len(value) in limits else _NONE
    return _NONE


def _fit_all(value: Any, kind: Any, limits: Range) -> Any:
    if not isinstance(value, tuple | list) or len(value) not in limits:
        return _NONE
    found = tuple(_fit(x, kind) for x in value)
    return _NONE if any(x is _NONE for x in found) else found


def _fit_number(value: Any, kind: type, limits: Range) -> Any:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return _NONE
    if isinstance(value, np.number) and not isinstance(value, np.integer | np.floating):
        return _NONE
    value = value.item() if isinstance(value, np.number) else value
    # Compared before it is converted: a long integer is no float, and NaN is in no range.
    if not isinstance(value, int | float) or value not in limits:
        return _NONE
    if kind is float:
        return float(value)
    return int(value) if value == math.floor(value) else _NONE


def parts_of(hint: Any) -> tuple[Any, Range]:
    """A declared kind without its range, and the range."""
    if typing.get_origin(hint) is Annotated:
        kind, *more = typing.get_args(hint)
        return kind, next((m for m in more if isinstance(m, Range)), _usual(kind))
    return hint, _usual(hint)


def options_of(hint: Any) -> tuple[Any, ...]:
    """The kinds of a union, None left out; the kind itself where there is one only."""
    kind, _ = parts_of(hint)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return tuple(option for option in typing.get_args(kind) if option is not type(None))
    return (hint,)


def _usual(kind: Any) -> Range:
    sized = kind is str or typing.get_origin(kind) is tuple
    return Range(0, LONGEST) if sized else Range()


def is_kind(hint: Any) -> bool:
    """Whether values of a declared kind can be told on a command line and kept in a file."""
    if own_kind(hint):
        return True
    hint, _ = parts_of(hint)
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return all(option is type(None) or is_kind(option) for option in options)
    if typing.get_origin(hint) is Literal:
        return all(isinstance(option, str) for option in options)
    if typing.get_origin(hint) is tuple:
        return options[1:] == (...,) and is_kind(options[0])
    return hint in (bool, int, float, str)


# In words -----------------------------------------------------------------------------------------


def words(hint: Any) -> str:
    """What a setting must be: "a number from 0 to 1 or None"."""
    if kind := own_kind(hint):
        return kind.words
    hint, limits = parts_of(hint)
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join("None" if o is type(None) else words(o) for o in options)
    if typing.get_origin(hint) is Literal:
        *others, last = map(str, options)
        return f"{', '.join(others)} or {last}" if others else last
    if typing.get_origin(hint) is tuple:
        least, most = limits.least, limits.most
        count = f"{least}" if least == most else f"{least} to {most}"
        return f"{count} values, each {words(options[0])}"
    if hint is int:
        return f"a whole number {limits}"
    if hint is float:
        return f"a number {limits}"
    if hint is str:
        return f"a name of at most {limits.most} characters"
    return {bool: "True or False"}.get(hint, f"a {getattr(hint, '__name__', hint)}".lower())


def _toml_words(hint: Any) -> str:
    if parts_of(hint)[0] is bool:
        return "true or false"
    return f"a list of {words(hint)}" if is_list(hint) else words(hint)


def shown(value: Any) -> str:
    """A value in a message, short however long it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = repr(value)
    except ValueError:  # holds a number too long to be written out
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def span(hint: Any) -> str:
    """The range of a setting as ``--help`` shows it; empty where nobody would leave it."""
    if own_kind(hint):
        return ""
    hint, limits = parts_of(hint)
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next((text for o in options if (text := span(o))), "")
    if typing.get_origin(hint) is tuple:
        return span(options[0])
    if hint not in (int, float) or limits.most >= 10**5:
        return ""
    return f"{'above ' if limits.above else ''}{short(limits.least)} to {short(limits.most)}"
