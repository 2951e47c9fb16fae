"""How observations stray from what was promised, though they fit into vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coterie.envs._spaces import gymnasium


class Held:
    """Arrays as they were shown, to see whether the environment changes them afterwards."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, np.ndarray, np.ndarray]] = []

    def keep(self, agents: Sequence[str], observations: Sequence[Any]) -> None:
        """Remembers what is shown now, and forgets the rest."""
        seen = zip(agents, observations, strict=True)
        self._pairs = [(a, x, x.copy()) for a, shown in seen for x in _arrays(shown)]

    def changed(self) -> set[str]:
        """Agents whose last observation is another one now."""
        return {a for a, x, copy in self._pairs if not np.array_equal(x, copy, equal_nan=True)}


def _arrays(seen: Any) -> Iterator[np.ndarray]:
    if isinstance(seen, np.ndarray) and seen.dtype.kind in "biuf":
        yield seen
    elif isinstance(seen, Mapping | tuple | list):
        for part in seen.values() if isinstance(seen, Mapping) else seen:
            yield from _arrays(part)


def strays(space: Any, seen: Any) -> Iterator[tuple[str, bool]]:
    """How an observation strays from its space: sentences, and whether each is a violation.

    What has no place in a vector at all is found when it is written into one.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from strays(part, seen[key])
    elif isinstance(space, spaces.Tuple):
        for part, own in zip(space.spaces, seen, strict=False):
            yield from strays(part, own)
    elif isinstance(space, spaces.Box):
        yield from _strays_from_box(space, np.asarray(seen))


def _strays_from_box(space: Any, given: np.ndarray) -> Iterator[tuple[str, bool]]:
    if given.dtype != space.dtype:
        harmless = np.can_cast(given.dtype, space.dtype, "same_kind")
        yield (
            f"the observation is {given.dtype} where its space is {space.dtype}; make them agree"
            + (" (Coterie casts it, others may not)" if harmless else ""),
            not harmless,
        )
    outside = (given < space.low) | (given > space.high)
    if outside.any():
        where = tuple(np.argwhere(outside)[0].tolist())
        value, low, high = (float(x[where]) for x in (given, space.low, space.high))
        yield (
            f"the observation holds {value:g} at index {list(where)}, outside its space, which "
            f"goes from {low:g} to {high:g} there; clip it, or widen the space",
            True,
        )
