"""Anybody's spaces as vectors and numbered choices: Gymnasium's spaces in, NumPy's arrays out."""

from __future__ import annotations

import functools
import importlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from coterie.errors import UsageError, described
from coterie.python_envs.process import advice
from coterie.shapes import Bool
from coterie.spec import ActionSpace, ObservationSpace

ACTION_LIMIT = 1_000
"""Most actions one agent may have where they are the combinations of several choices."""

LEAST_IMAGE = 5
"""Smallest height and width of planes of numbers that count as an image."""

COUNTED = 2**24
"""Up to here 32-bit floats, which actions are, hold every whole number."""

Write = Callable[[Any, np.ndarray], None]
"""Writes an element of a space into a vector of its flat length; raises ``Nonsense``."""


class Nonsense(ValueError):
    """An environment gave what it did not promise.

    Attributes:
        agent: whose part it was; ``None`` if it is no single agent's.
    """

    def __init__(self, what: str, agent: str | None = None) -> None:
        super().__init__(what)
        self.agent = agent


class Flattener(NamedTuple):
    """How one agent's observation becomes a vector.

    Attributes:
        space: of the observation itself, without the mask.
        size: length of the vector.
        split: an observation and the action mask that it holds, ``None`` if it holds none.
        write: writes the observation itself.
        arrays: what it holds, where that is an image or has one.
        write_arrays: writes the observation itself as these arrays, flat.
    """

    space: Any
    size: int
    split: Callable[[Any], tuple[Any, Any]]
    write: Write
    arrays: ObservationSpace | None
    write_arrays: Write


@dataclass(frozen=True)
class Choice:
    """How one agent's action becomes what its environment takes.

    Attributes:
        space: what the agent decides.
        action: the environment's action, from a number counted from 0 where the space is a single
            choice, else from a vector of choices and numbers.
        parts: of how many alternatives each; several where the environment's action holds several.
    """

    space: ActionSpace
    action: Callable[[Any], Any]
    parts: tuple[int, ...]

    def legal(self, mask: Any) -> Bool[np.ndarray, " A"]:
        """Which alternatives a mask allows.

        Args:
            mask: a tuple of one mask for each part; or one flag for each alternative, which is a
                combination of parts where the space is a single choice.
        """
        if isinstance(mask, tuple) and len(self.parts) == len(mask) > 1:
            given = list(map(_flags, mask, self.parts))
            if not self.space.is_single_choice:
                return np.concatenate(given)
            return functools.reduce(np.logical_and.outer, given).ravel()
        if not self.space.choices:
            raise Nonsense("there is an action mask, but the action is continuous; give none")
        if len(self.space.choices) > 1:
            raise Nonsense(
                f"the action mask must be a tuple of one mask for each of {len(self.parts)} choices"
            )
        count = sum(self.space.choices)  # there is one
        tuples = f", or be a tuple of one mask for each of {len(self.parts)} choices"
        return _flags(mask, count, tuples if len(self.parts) > 1 else "")


def flattener(agent: str, space: Any) -> Flattener:
    """How agent's observations of ``space`` become vectors.

    A ``Dict`` that holds ``action_mask`` beside other entries is split into the two.

    Raises:
        UsageError: they have no fixed length.
    """
    inner, split = space, _plain
    if isinstance(space, gymnasium().spaces.Dict) and "action_mask" in space.spaces:
        rest = {key: part for key, part in space.spaces.items() if key != "action_mask"}
        if len(rest) == 1:
            ((key, inner),) = rest.items()
            split = functools.partial(_masked, key)
        elif rest:
            inner, split = gymnasium().spaces.Dict(rest), functools.partial(_masked, None)
    size, write = vector("observation", inner, f"agent {agent}'s ")
    return Flattener(inner, size, split, write, *_arrays("observation", inner))


def vector(word: str, space: Any, whose: str = "the ") -> tuple[int, Write]:
    """Length of a space's elements as vectors, and what writes them.

    Args:
        word: what an element is called.

    Raises:
        UsageError: they have no fixed length.
    """
    spaces = gymnasium().spaces
    refused = f"{whose}{word} space {brief(space)} is not supported: "
    if not isinstance(space, spaces.Space):
        raise UsageError(refused + "it is not a Gymnasium space")
    if not space.is_np_flattenable:
        raise UsageError(
            refused + "it has no fixed length; pad it in the environment to a Box of fixed shape"
        )
    size = spaces.flatdim(space)
    if size < 1:
        raise UsageError(refused + "it is empty")
    return size, _writer(word, space)


def choice(agent: str, space: Any, combined: bool = True) -> Choice:
    """How agent's actions of ``space`` are counted, or what numbers they are.

    Args:
        combined: the combinations of several choices are one choice; else each is by itself.

    Raises:
        UsageError: they are neither numbers nor choices, or more than ``ACTION_LIMIT``
            combinations.
    """
    spaces = gymnasium().spaces
    refused = f"agent {agent}'s action space {brief(space)} is not supported: "
    if isinstance(space, spaces.Discrete):
        count = int(space.n)
        action = functools.partial(_shifted, int(space.start))
        return Choice(ActionSpace((count,)), action, (count,))
    if isinstance(space, spaces.Box):
        return _numbers(space, refused)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        parts = _parts(space)
        if not combined and len(parts) > 1:
            return Choice(ActionSpace(tuple(parts)), _separate(space), tuple(parts))
        count = math.prod(parts)
        if count > ACTION_LIMIT:
            raise UsageError(
                refused + f"its combinations are {count} actions, and at most {ACTION_LIMIT} can "
                "be told apart; make the choices one after the other, or fewer"
            )
        return Choice(ActionSpace((count,)), _combination(space, parts), tuple(parts))
    raise UsageError(
        refused + "each agent's actions must be Discrete, MultiDiscrete, MultiBinary or Box"
    )


def not_finite(seen: Any) -> str:
    """What is wrong with numbers that are not finite as 32-bit floats, and what to change."""
    if _is_finite(seen):
        return "a number beyond 3.4e38, the largest of 32-bit floats; scale it"
    return "NaN or infinity; make every number finite"


def _is_finite(seen: Any) -> bool:
    if isinstance(seen, (Mapping, tuple, list)):
        return all(map(_is_finite, seen.values() if isinstance(seen, Mapping) else seen))
    try:
        return bool(np.isfinite(seen).all())
    except TypeError:  # it is no number
        return True


def brief(space: Any) -> str:
    """A space in a sentence."""
    text = " ".join(repr(space).split())
    return text if len(text) <= 60 else type(space).__name__


def gymnasium(extra: str = "python-envs") -> Any:
    """The package, imported on first use.

    Args:
        extra: the one that installs it, with what else is needed.

    Raises:
        UsageError: it is not installed, or broken.
    """
    try:
        return importlib.import_module("gymnasium")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "gymnasium":
            how = advice("gymnasium", extra)
            raise UsageError(f"a Python environment needs gymnasium: {how}") from error
        raise UsageError(f"Gymnasium could not be imported: {described(error)}") from error


def _plain(seen: Any) -> tuple[Any, Any]:
    return seen, None


def _masked(key: str | None, seen: Any) -> tuple[Any, Any]:
    if not isinstance(seen, dict) or "action_mask" not in seen:
        raise Nonsense("the observation is no dictionary that holds 'action_mask'")
    return (_entry(seen, key) if key is not None else seen), seen["action_mask"]


def _entry(seen: Any, key: str) -> Any:
    if not isinstance(seen, dict) or key not in seen:
        raise Nonsense(f"the observation has no {key!r}, which its space has")
    return seen[key]


def _writer(word: str, space: Any) -> Write:
    spaces = gymnasium().spaces
    if isinstance(space, spaces.Box):
        return functools.partial(_write_box, word, space.shape, _has_pixels(space))
    if isinstance(space, spaces.Dict):
        return _in_turn(word, space.spaces, _entry)
    if isinstance(space, spaces.Tuple):
        return _in_turn(word, dict(enumerate(space.spaces)), _item)
    return functools.partial(_write_flat, word, space)


def _in_turn(word: str, parts: Any, get: Callable[[Any, Any], Any]) -> Write:
    sizes = [gymnasium().spaces.flatdim(part) for part in parts.values()]
    ends = list(itertools.accumulate(sizes))
    places = [
        (key, _writer(word, part), slice(end - size, end))
        for (key, part), size, end in zip(parts.items(), sizes, ends)
    ]

    def write(seen: Any, out: np.ndarray) -> None:
        for key, writer, place in places:
            writer(get(seen, key), out[place])

    return write


def _item(seen: Any, k: int) -> Any:
    if not isinstance(seen, (tuple, list)) or k >= len(seen):
        raise Nonsense("the observation is no tuple of the parts that its space has")
    return seen[k]


def _arrays(word: str, space: Any) -> tuple[ObservationSpace | None, Write]:
    """The images, and vectors beside them, that elements of a space hold, and what writes them."""
    spaces = gymnasium().spaces
    parts: dict[Any, Any] = {None: space}
    get: Callable[[Any, Any], Any] = _whole
    if isinstance(space, spaces.Dict):
        parts, get = space.spaces, _entry
    elif isinstance(space, spaces.Tuple):
        parts, get = dict(enumerate(space.spaces)), _item
    if not any(map(_is_image, parts.values())):
        return None, _writer(word, space)
    parts = {key: part for key, part in parts.items() if spaces.flatdim(part)}
    shapes, dtypes, writers = [], [], []
    for part in parts.values():
        pixels = _is_image(part) and _has_pixels(part)
        shapes.append(part.shape if _is_image(part) else (spaces.flatdim(part),))
        dtypes.append("uint8" if pixels else "float32")
        writers.append(
            functools.partial(_write_pixels, word, part.shape) if pixels else _writer(word, part)
        )
    names = tuple(map(str, parts)) if isinstance(space, spaces.Dict) else ()
    arrays = ObservationSpace(tuple(shapes), tuple(dtypes), names)
    ends = list(itertools.accumulate(arrays.sizes))
    places = [slice(end - size, end) for end, size in zip(ends, arrays.sizes)]

    def write(seen: Any, out: np.ndarray) -> None:
        for key, dtype, writer, place in zip(parts, arrays.dtypes, writers, places):
            writer(get(seen, key), out[place].view(dtype))

    return arrays, write


def _whole(seen: Any, key: Any) -> Any:
    del key
    return seen


def _is_image(space: Any) -> bool:
    """A Box of pixels, or of planes of numbers that are large enough for convolutions."""
    if not isinstance(space, gymnasium().spaces.Box):
        return False
    if len(space.shape) == 2:
        return _has_pixels(space)
    return len(space.shape) == 3 and (_has_pixels(space) or sorted(space.shape)[1] >= LEAST_IMAGE)


def _has_pixels(space: Any) -> bool:
    return space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())


def _write_pixels(word: str, shape: tuple[int, ...], seen: Any, out: np.ndarray) -> None:
    given = _array(word, shape, seen)
    if given.dtype != np.uint8 and (
        given.dtype.kind not in "iu" or given.min() < 0 or given.max() > 255
    ):
        raise Nonsense(
            f"the {word} is {given.dtype}, but its space is of bytes from 0 to 255; make the two "
            "agree"
        )
    out[:] = given.ravel()


def _write_box(word: str, shape: tuple[int, ...], pixels: bool, seen: Any, out: np.ndarray) -> None:
    given = _array(word, shape, seen)
    if pixels:
        np.divide(given.ravel(), np.float32(255), out=out, dtype=np.float32)
    elif given.dtype.itemsize > out.dtype.itemsize:
        with np.errstate(over="ignore"):  # what does not fit is infinite, and reported as that
            out[:] = given.ravel()
    else:
        out[:] = given.ravel()


def _array(word: str, shape: tuple[int, ...], seen: Any) -> np.ndarray:
    """An element of a Box as an array, if it is one."""
    try:
        given = np.asarray(seen)
    except ValueError:
        given = np.asarray(None)
    if given.dtype.kind not in "biuf":
        raise Nonsense(f"the {word} is {_kind(seen)}, not an array of numbers")
    if given.shape != shape:
        raise Nonsense(
            f"the {word} has shape {given.shape}, but its space has {shape}; make the two agree"
        )
    return given


def _write_flat(word: str, space: Any, seen: Any, out: np.ndarray) -> None:
    if not space.contains(seen):
        raise Nonsense(
            f"the {word} {_kind(seen)} is not in its space, {brief(space)}; make the two agree"
        )
    out[:] = gymnasium().spaces.flatten(space, seen)


def _kind(seen: Any) -> str:
    text = " ".join(repr(seen).split())
    return text if len(text) <= 40 else f"a {type(seen).__name__}"


def _flags(mask: Any, count: int, instead: str = "") -> Bool[np.ndarray, " _"]:
    try:
        given = np.asarray(mask, bool)
    except ValueError:
        given = np.zeros(())
    if given.shape != (count,):
        raise Nonsense(
            f"the action mask has shape {given.shape}, but must hold one flag for each of "
            f"{count} actions{instead}"
        )
    return given


def _numbers(space: Any, refused: str) -> Choice:
    """A Box: numbers within bounds, rounded where its dtype is of integers."""
    low, high = (np.asarray(x, np.float64).ravel() for x in (space.low, space.high))
    if not low.size:
        raise UsageError(refused + "it is empty")
    if not (low < high).all():
        raise UsageError(refused + "a number in it cannot vary: its bounds are equal")
    whole = space.dtype.kind in "iu"
    if whole and (np.maximum(-low, high) > COUNTED).any():
        raise UsageError(
            refused
            + f"its whole numbers go beyond {COUNTED:,}, up to which 32-bit floats tell them "
            "apart; give closer bounds, or count in larger units"
        )
    try:
        numbers = ActionSpace(low=tuple(low.tolist()), high=tuple(high.tolist()))
    except UsageError as error:
        raise UsageError(refused + str(error)) from None

    def action(row: np.ndarray) -> np.ndarray:
        # Rounded to 32 bits, a number may lie beyond bounds of 64.
        given = np.clip(row.astype(np.float64), low, high)
        if whole:
            given = np.rint(given)
        return given.astype(space.dtype).reshape(space.shape)

    return Choice(numbers, action, ())


def _shifted(start: int, action: Any) -> int:
    return int(action) + start


def _parts(space: Any) -> list[int]:
    if isinstance(space, gymnasium().spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    return [int(k) for k in space.nvec.ravel()]


def _combination(space: Any, parts: list[int]) -> Callable[[int], np.ndarray]:
    start = getattr(space, "start", np.zeros(space.shape, space.dtype))

    def action(number: int | np.integer) -> np.ndarray:
        each = np.asarray(np.unravel_index(int(number), parts), space.dtype)
        return each.reshape(space.shape) + start

    return action


def _separate(space: Any) -> Callable[[np.ndarray], np.ndarray]:
    start = getattr(space, "start", np.zeros(space.shape, space.dtype))
    return lambda row: row.astype(space.dtype).reshape(space.shape) + start
