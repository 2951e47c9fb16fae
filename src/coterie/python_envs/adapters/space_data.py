"""Gymnasium's spaces as data, and back: plain JSON, from which nothing but spaces is made."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np

from coterie.python_envs.adapters.spaces import gymnasium

Data = dict[str, Any]


class NotData(ValueError):
    """A space that has no description, or a description that is of no space."""


def to_data(space: Any) -> Data:
    """A space in JSON: its kind, as Gymnasium calls it, and what makes it.

    Raises:
        NotData: it is of another kind, or has keys that JSON does not keep.
    """
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": space.dtype.name,
            "low": _bounds(space.low),
            "high": _bounds(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        start = getattr(space, "start", np.zeros_like(space.nvec))
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": start.tolist(),
            "dtype": space.dtype.name,
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Text):
        return {
            "kind": "Text",
            "min_length": space.min_length,
            "max_length": space.max_length,
            "characters": "".join(space.character_list),
        }
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [to_data(part) for part in space.spaces]}
    if isinstance(space, spaces.Dict) and all(type(key) in (str, int) for key in space.spaces):
        return {"kind": "Dict", "spaces": [[k, to_data(part)] for k, part in space.spaces.items()]}
    raise NotData(f"a {type(space).__name__} has no description")


def from_data(data: Any, most: int) -> Any:
    """The space that ``to_data`` described.

    Args:
        most: numbers that its elements may hold, so that no file makes the reader allocate more.

    Raises:
        NotData: the description is of no space, or of one that holds more.
    """
    try:
        with np.errstate(all="ignore"):
            space = _made(data, most)
        same = to_data(space) == data
    # Gymnasium checks some of its arguments with assertions.
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
        RecursionError,
    ) as error:  # fmt: skip
        raise NotData(f"a description is of no space: {error}") from error
    if not same:
        raise NotData("a description is of another space than it says")
    return space


def _bounds(bounds: np.ndarray) -> Any:
    """Bounds in JSON, one where all are equal: null for infinity, which JSON does not have."""
    each = [x if math.isfinite(x) else None for x in bounds.ravel().tolist()]
    return each[0] if each and len(set(each)) == 1 else each


def _made(data: Any, most: int) -> Any:
    spaces = gymnasium().spaces
    kind, given = data["kind"], {name: value for name, value in data.items() if name != "kind"}
    if kind == "Box":
        return _box(most, **given)
    if kind == "Discrete":
        return spaces.Discrete(given["n"], start=given["start"])
    if kind == "MultiDiscrete":
        dtype = _dtype(given["dtype"])
        nvec, start = (np.array(given[name], dtype) for name in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, dtype=dtype, start=start)
    if kind == "MultiBinary":
        shape = _checked_shape(given["shape"], most)
        return spaces.MultiBinary(shape if len(shape) != 1 else shape[0])
    if kind == "Text":
        lengths = {name: given[name] for name in ("min_length", "max_length")}
        return spaces.Text(**lengths, charset=given["characters"])
    if kind == "Tuple":
        return spaces.Tuple(_parts(given["spaces"], most))
    if kind == "Dict":
        keys = [key for key, _ in given["spaces"]]
        parts = _parts([part for _, part in given["spaces"]], most)
        return spaces.Dict(OrderedDict(zip(keys, parts)))  # the order is kept
    raise NotData(f"there is no space {kind!r:.40}")


def _parts(described: Any, most: int) -> list[Any]:
    made = []
    for data in described:
        made.append(_made(data, most))
        most -= gymnasium().spaces.flatdim(made[-1])
    return made


def _box(most: int, shape: Any, dtype: Any, low: Any, high: Any) -> Any:
    size, kind = _checked_shape(shape, most), _dtype(dtype)

    def bounds(given: Any, absent: float) -> np.ndarray:
        if isinstance(given, list):
            numbers = [absent if x is None else x for x in given]
            return np.array(numbers, kind).reshape(size)
        return np.full(size, absent if given is None else given, kind)

    return gymnasium().spaces.Box(
        bounds(low, -math.inf), bounds(high, math.inf), tuple(size), kind.type
    )


def _dtype(name: Any) -> np.dtype[Any]:
    found = np.dtype(name)
    if found.kind not in "biuf":  # text takes as much memory as its dtype says
        raise NotData(f"its dtype {name!r:.40} is of no numbers")
    return found


def _checked_shape(shape: Any, most: int) -> list[int]:
    if (
        not isinstance(shape, list)
        or not all(type(size) is int and size >= 0 for size in shape)
        or math.prod(shape) > most
    ):
        raise NotData(f"its shape {shape!r:.60} does not fit")
    return shape
