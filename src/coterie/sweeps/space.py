"""The space of a search: for each setting, the values that it can have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from coterie.errors import UsageError
from coterie.settings import Range, fitted, hints, options_of, parts_of, shown
from coterie.text import did_you_mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Number = Annotated[float, Range()]
DIGITS = 4
"""Significant digits of proposed numbers, so that people can type them again."""
MOST_POINTS = 10**9
"""A range of more whole numbers, or steps, counts as one without end."""


@dataclass(frozen=True)
class _Given:
    """What stands in the file for a setting."""

    choices: Any = None
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Annotated[float, Range(0, above=True)] | None = None


@dataclass(frozen=True)
class Axis:
    """A setting that is searched for: choices, or the numbers from ``low`` to ``high``.

    Attributes:
        log: numbers are equally likely by their logarithm.
        step: only ``low``, ``low + step``, ... are proposed; None for all numbers, or, where
            ``low`` is a whole number, for all whole ones.
    """

    name: str
    choices: tuple[Any, ...] | None = None
    low: int | float = 0
    high: int | float = 0
    log: bool = False
    step: int | float | None = None

    @classmethod
    def read(cls, name: str, given: Any, hint: Any) -> Axis:
        """The axis that a table describes.

        Args:
            hint: the setting's declared kind; None where only the environment knows it.

        Raises:
            UsageError: it makes no sense, in one sentence.
        """
        where = f"{name} in [search.space]"
        if not isinstance(given, Mapping):
            raise UsageError(
                f"{where} must be a table such as {{low = 1, high = 10}} or "
                f"{{choices = [1, 2]}}; got {shown(given)}"
            )
        known = hints(_Given)
        for key in given:
            if key not in known:
                hint = did_you_mean(key, known, f"; it has {', '.join(known)}")
                raise UsageError(f"{where} has no key {key!r}{hint}")
        values = {
            key: fitted(f"{key} of {where}", v, known[key] if key != "choices" else object, True)
            for key, v in given.items()
        }
        found = _Given(**values)
        if found.choices is not None:
            if len(given) > 1:
                raise UsageError(f"{where} has choices and a range: leave one out")
            return cls(name, _choices(where, found.choices, hint))
        return _range(where, name, found, given, hint)

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return isinstance(self.low, int)

    def count(self) -> int | float:
        """How many values there are; infinity where the axis is continuous."""
        if self.choices is not None:
            return len(self.choices)
        if not self.whole and self.step is None:
            return math.inf
        count = int((_decimal(self.high) - _decimal(self.low)) / _decimal(self.step or 1)) + 1
        return count if count <= MOST_POINTS else math.inf

    def values(self) -> Iterator[Any]:
        """Its values in order, where there is an end to them."""
        if self.choices is not None:
            yield from self.choices
            return
        for k in range(int(self.count())):
            yield self._step(k)

    def _step(self, k: int) -> int | float:
        """``low`` and so many steps, as people write it: 0.3, and not 0.30000000000000004."""
        number = _decimal(self.low) + k * _decimal(self.step or 1)
        return int(number) if self.whole else float(number)

    def ends(self) -> tuple[Any, ...]:
        """The values that decide whether all of them make sense."""
        return (self.low, self.high) if self.choices is None else self.choices

    def distribution(self) -> BaseDistribution:
        """The same for Optuna; choices are known by their place."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices is not None:
            return CategoricalDistribution(tuple(range(len(self.choices))))
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def value(self, parameter: Any, digits: int = DIGITS) -> Any:
        """A value from what Optuna proposed, with so many significant digits."""
        if self.choices is not None:
            return self.choices[parameter]
        if self.whole:
            return parameter
        if self.step is not None:
            return self._step(round((parameter - self.low) / self.step))
        return min(max(float(f"{parameter:.{digits}g}"), float(self.low)), float(self.high))

    def parameter(self, value: Any) -> Any:
        """A value as Optuna knows it; UsageError if it is none of the axis."""
        if self.choices is not None:
            places = [k for k, choice in enumerate(self.choices) if _plain(choice) == _plain(value)]
            if places:
                return places[0]
        elif isinstance(value, int | float) and self.low <= value <= self.high:
            return value
        raise UsageError(f"{shown(value)} is no value of {self.name} in the search")

    def as_json(self) -> dict[str, Any]:
        """As ``sweep.json`` holds it."""
        if self.choices is not None:
            return {"choices": [_plain(choice) for choice in self.choices]}
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}

    @classmethod
    def of_json(cls, name: str, found: Mapping[str, Any]) -> Axis:
        """The axis that ``as_json`` wrote."""
        if "choices" in found:
            return cls(name, tuple(found["choices"]))
        return cls(name, None, **{key: found[key] for key in ("low", "high", "log", "step")})

    def __str__(self) -> str:
        if self.choices is not None:
            return f"{self.name} one of {', '.join(map(str, map(_plain, self.choices)))}"
        scale = ", log scale" if self.log else ""
        step = f" in steps of {self.step:g}" if self.step is not None else ""
        return f"{self.name} {self.low:g} to {self.high:g}{step}{scale}"


def points(axes: Sequence[Axis]) -> int | float:
    """How many combinations of values there are."""
    return math.prod(axis.count() for axis in axes)


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """All of them in order, where there is an end to them."""
    names = [axis.name for axis in axes]
    for values in _product([axis.values for axis in axes]):
        yield dict(zip(names, values, strict=True))


def _product(makers: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """As ``itertools.product``, which would make lists of all values first."""
    if not makers:
        yield ()
        return
    for rest in _product(makers[:-1]):
        for value in makers[-1]():
            yield (*rest, value)


def _choices(where: str, given: Any, hint: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple) or len(given) < 2:
        raise UsageError(f"choices of {where} must be a list of two values or more")
    each = f"each choice of {where}"
    found = tuple(v if hint is None else fitted(each, v, hint, toml=True) for v in given)
    if any(_plain(a) == _plain(b) for a, b in itertools.combinations(found, 2)):
        raise UsageError(f"choices of {where} has a value twice: {shown(list(given))}")
    return found


def _range(where: str, name: str, found: _Given, given: Mapping[str, Any], hint: Any) -> Axis:
    if found.low is None or found.high is None:
        raise UsageError(f"{where} needs low and high, or choices")
    whole = _is_whole(where, given, hint)
    low, high = (
        end if hint is None else fitted(f"{key} of {where}", end, hint, toml=True)
        for key, end in (("low", found.low), ("high", found.high))
    )  # fmt: skip
    if low >= high:
        raise UsageError(f"low of {where} must be less than high; got {low:g} and {high:g}")
    if found.log and low <= 0:
        raise UsageError(f"log of {where} needs low above 0; got {low:g}")
    if found.log and found.step is not None:
        raise UsageError(f"{where} has log and step: leave one out")
    kind = int if whole else float
    step = None if found.step is None else kind(found.step)
    if step is not None and (_decimal(high) - _decimal(low)) % _decimal(step):
        raise UsageError(f"high of {where} must be low plus whole steps of {step:g}")
    return Axis(name, None, kind(low), kind(high), found.log, step)


def _is_whole(where: str, given: Mapping[str, Any], hint: Any) -> bool:
    """Whether a range is of whole numbers: by the setting's kind, or else by how it is written."""
    numbers = [given[key] for key in ("low", "high", "step") if key in given]
    if hint is None:
        return all(isinstance(number, int) for number in numbers)
    kinds = {parts_of(option)[0] for option in options_of(hint)}
    if float in kinds:
        return False
    if int not in kinds:
        raise UsageError(f"{where} is no number: give choices in place of low and high")
    if not all(float(number).is_integer() for number in numbers):
        raise UsageError(f"low, high and step of {where} must be whole numbers")
    return True


def _decimal(number: int | float) -> Decimal:
    """As it is written, so that steps of 0.1 add up."""
    return Decimal(str(number))


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def with_values(axes: Sequence[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values as the axes have them; UsageError where one of them is none."""
    found = {}
    for axis in axes:
        parameter = axis.parameter(values.get(axis.name))
        found[axis.name] = axis.choices[parameter] if axis.choices is not None else parameter
    return found
