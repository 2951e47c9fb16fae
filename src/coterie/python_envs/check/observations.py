"""Observations outside their declared space, though they fit into vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coterie.python_envs.adapters.spaces import gymnasium


class Held:
    """Arrays as they were shown, to see whether the environment changes them afterwards."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, np.ndarray, np.ndarray]] = []

    def keep(self, agents: Sequence[str], observations: Sequence[Any]) -> None:
        """Remembers what is shown now, and forgets the rest."""
        seen = zip(agents, observations)
        self._pairs = [(a, x, x.copy()) for a, shown in seen for x in _arrays(shown)]

    def changed(self) -> set[str]:
        """Agents whose last observation is another one now."""
        return {a for a, x, copy in self._pairs if not np.array_equal(x, copy, equal_nan=True)}


def _arrays(seen: Any) -> Iterator[np.ndarray]:
    if isinstance(seen, np.ndarray) and seen.dtype.kind in "biuf":
        yield seen
    elif isinstance(seen, (Mapping, tuple, list)):
        for part in seen.values() if isinstance(seen, Mapping) else seen:
            yield from _arrays(part)


class OutsideSpace(NamedTuple):
    """Where an observation lies outside its space.

    Attributes:
        sentence: what is wrong and what to change.
        violation: whether that breaks a promise.
        field: which part of the observation it is, where the observation has parts.
    """

    sentence: str
    violation: bool
    field: str = ""


def outside_space(space: Any, seen: Any, word: str = "the observation") -> Iterator[OutsideSpace]:
    """Where an observation lies outside its space.

    What has no place in a vector at all is found when it is written into one.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from outside_space(part, seen[key], f"{word}'s {key!r}")
    elif isinstance(space, spaces.Tuple):
        for k, (part, own) in enumerate(zip(space.spaces, seen)):
            yield from outside_space(part, own, f"{word}, part {k},")
    elif isinstance(space, spaces.Box):
        yield from _outside_box(space, np.asarray(seen), word)


def _outside_box(space: Any, given: np.ndarray, word: str) -> Iterator[OutsideSpace]:
    if given.dtype != space.dtype:
        harmless = np.can_cast(given.dtype, space.dtype, "same_kind")
        sentence = f"{word} is {given.dtype} where its space is {space.dtype}; make them agree"
        if harmless:
            sentence += " (Coterie casts it, others may not)"
        yield OutsideSpace(sentence, not harmless, word)
    outside = (given < space.low) | (given > space.high)
    if outside.any():
        where = _first(outside)
        value, low, high = (float(x[where]) for x in (given, space.low, space.high))
        sentence = (
            f"{word} holds {value:g} at index {list(where)}, outside its space, which "
            f"goes from {low:g} to {high:g} there; clip it, or widen the space"
        )
        yield OutsideSpace(sentence, True, word)
    yield from rounded(given, word)


def rounded(given: np.ndarray, word: str) -> Iterator[OutsideSpace]:
    """Numbers that become others as 32-bit floats, which is what is learned from.

    A violation where they are integers: such numbers mean something each. Of larger floats only
    those are named whose unit, or all of which, is lost.
    """
    if given.dtype.kind in "iu":
        lost = ~_is_exact(given)
    elif given.dtype.kind == "f" and given.dtype.itemsize > 4:
        with np.errstate(over="ignore", under="ignore"):
            kept = given.astype(np.float32)
        large = np.isfinite(kept) & (np.abs(given) > _WHOLE)
        lost = (kept != given) & (large | (kept == 0))
    else:
        return
    if lost.any():
        where = _first(lost)
        value, kept = given[where].item(), float(given[where].astype(np.float32))
        sentence = (
            f"{word} holds {value} at index {list(where)}, which becomes {kept:.15g} in the 32-bit "
            "floats that are learned from; scale it, count it from a nearer zero, or give it "
            "in parts"
        )
        yield OutsideSpace(sentence, given.dtype.kind in "iu", word)


_WHOLE = 2**24
"""Up to here, and down to its negative, 32-bit floats hold every whole number."""


def _is_exact(given: np.ndarray) -> Any:
    """Which integers a 32-bit float holds: their digits in base 2, zeros at the end left out, are
    at most 24."""
    wide = given.astype(np.int64) if given.dtype.kind == "i" else given
    size = np.abs(wide).astype(np.uint64)
    with np.errstate(over="ignore"):  # of 0, which has no lowest digit
        lowest = np.maximum(size & (~size + np.uint64(1)), np.uint64(1))
    return size // lowest < _WHOLE


def _first(where: Any) -> tuple[int, ...]:
    return tuple(np.argwhere(where)[0].tolist())
