"""What an environment promises, in words that need no compiler: worker processes read this file."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, Union

import numpy as np

from coterie.errors import UsageError
from coterie.shapes import Bool, Float, Num

Reward = Literal["individual", "sum", "mean"]
"""The rewards that learners get: each agent its own, or one common reward for all."""


@dataclass(frozen=True)
class ActionSpace:
    """What one agent decides at every step: choices among alternatives, numbers, or both.

    Attributes:
        choices: of how many alternatives each choice is.
        low, high: the bounds of each number; infinite where there is none. Actions are 32-bit
            floats, so bounds are refused that these do not hold or do not tell apart.
    """

    choices: tuple[int, ...] = ()
    low: tuple[float | int, ...] = ()
    high: tuple[float | int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "choices", _plain(tuple(self.choices)))
        if not self.choices and not self.low:
            raise UsageError("an action space must have a choice or a number")
        if any(count < 1 for count in self.choices):
            raise UsageError(f"each choice must have at least one alternative; got {self.choices}")
        largest = float(np.finfo(np.float32).max)
        for bound in (*self.low, *self.high):
            if math.isfinite(bound) and abs(bound) > largest:
                raise UsageError(
                    f"the bound {bound:g} is beyond 3.4e38, the largest of 32-bit floats: scale "
                    "the number, or give an infinite bound for none"
                )
        ordered = len(self.low) == len(self.high) and all(
            np.float32(low) < np.float32(high) for low, high in zip(self.low, self.high)
        )
        if not ordered:
            raise UsageError(
                "each number must have a low bound below its high one, also as 32-bit floats; got "
                f"{self.low}, {self.high}"
            )

    def __str__(self) -> str:
        """In a sentence, with all that tells one from another: "1 choice (of 3) and 2 continuous
        numbers (each from 0 to 1)"."""
        parts = []
        if self.choices:
            word = "choice" if len(self.choices) == 1 else "choices"
            parts.append(f"{len(self.choices)} {word} (of {', '.join(map(str, self.choices))})")
        if self.low:
            word = "number" if len(self.low) == 1 else "numbers"
            each = [_span(*bounds) for bounds in zip(self.low, self.high)]
            alike = len(each) > 1 and len(set(each)) == 1
            spans = f"each {each[0]}" if alike else ", ".join(each)
            parts.append(f"{len(self.low)} continuous {word} ({spans})")
        return " and ".join(parts)

    @property
    def is_single_choice(self) -> bool:
        """Whether an action is one number, counted from 0."""
        return len(self.choices) == 1 and not self.low

    @property
    def size(self) -> int:
        """Length of an action as a vector: its choices, counted from 0, then its numbers."""
        return len(self.choices) + len(self.low)

    def in_words(self, action: Sequence[float]) -> str:
        """An action vector, which may be padded, for pictures: its choices, then its numbers to two
        digits."""
        choices = [f"{x:g}" for x in action[: len(self.choices)]]
        numbers = [f"{x:.2f}".replace("-", "−") for x in action[len(self.choices) : self.size]]
        return " ".join(choices + numbers)

    @property
    def flags(self) -> int:
        """Length of an action mask: a flag for every alternative of every choice, then one for
        every number, which says whether it is decided."""
        return sum(self.choices) + len(self.low)


@dataclass(frozen=True)
class ObservationSpace:
    """What one agent observes where it is no plain vector: an image, or several arrays.

    Joint observations hold it flat, one array after the other: [N, O] of 32-bit floats, or, where
    an array is of pixels, of bytes, in which other arrays' floats take four each.

    Attributes:
        shapes: of each array; an image is (height, width), (height, width, channels) or, if it is
            a square with 1, 3 or 4 channels, (channels, height, width).
        dtypes: of each array, uint8 (pixels, learned from as numbers from 0 to 1) or float32.
        names: of each array, where a Python environment's space is a Dict; its keys.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ("float32",)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes, dtypes = _plain(tuple(self.shapes)), tuple(self.dtypes)
        if not shapes or any(size < 1 for shape in shapes for size in shape):
            raise UsageError(
                f"each array observed must have a shape of positive sizes; got {shapes}"
            )
        if len(dtypes) != len(shapes) or not {*dtypes} <= {"uint8", "float32"}:
            raise UsageError(
                f"each array observed must have a dtype, uint8 or float32; got {dtypes}"
            )
        if self.names and len(self.names) != len(shapes):
            raise UsageError(f"each array observed must have a name or none; got {self.names}")
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "dtypes", dtypes)

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: str = "float32") -> ObservationSpace:
        """Of a single array: ``ObservationSpace.of((64, 64, 3), "uint8")``."""
        return cls((shape,), (dtype,))

    def __str__(self) -> str:
        """In a sentence: "uint8 (64, 64, 3) and float32 (5,)"."""
        arrays = [f"{d} {s}" for s, d in zip(self.shapes, self.dtypes)]
        named = zip(self.names, arrays) if self.names else ()
        return " and ".join([f"{name} {array}" for name, array in named] or arrays)

    def __add__(self, other: ObservationSpace) -> ObservationSpace:
        """The arrays of both, without their names."""
        return ObservationSpace(self.shapes + other.shapes, self.dtypes + other.dtypes)

    @property
    def dtype(self) -> type[np.generic]:
        """Of the flat observation."""
        return np.uint8 if "uint8" in self.dtypes else np.float32

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of the flat observation that each array takes."""
        wide = 4 if self.dtype is np.uint8 else 1
        return tuple(
            math.prod(shape) * (1 if dtype == "uint8" else wide)
            for shape, dtype in zip(self.shapes, self.dtypes)
        )

    @property
    def size(self) -> int:
        """Length of the flat observation."""
        return sum(self.sizes)

    @property
    def floats(self) -> int:
        """How many of its numbers are floats, and no pixels."""
        each = zip(self.shapes, self.dtypes)
        return sum(math.prod(shape) for shape, dtype in each if dtype == "float32")


@dataclass(frozen=True)
class EnvSpec:
    """What an environment promises before its first reset.

    Attributes:
        agents: the agents' names; their order is the agent axis N.
        observation_sizes: length of each agent's observation o_i.
        action_counts: |A_i| of each agent; where actions are vectors, the length of its mask.
        central_size: length of the environment's own state vector, offered as centralised
            information z; 0 when it offers none.
        time_limit: steps after which an episode is cut (a truncation); ``None`` for no limit.
        reward: the environment's default reward for learners.
        actions: the agents' action spaces, where not all of them are single choices; joint actions
            are then vectors [N, P] of 32-bit floats. Empty where they are numbers [N].
        observations: the agents' observation spaces, instead of ``observation_sizes``, where they
            are images or hold several arrays; they must be equal. Empty where they are vectors.
    """

    agents: tuple[str, ...]
    observation_sizes: tuple[int, ...] = ()
    action_counts: tuple[int, ...] = ()
    central_size: int = 0
    time_limit: int | None = None
    reward: Reward = "individual"
    actions: tuple[ActionSpace, ...] = ()
    observations: tuple[ObservationSpace, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", tuple(self.actions))
        object.__setattr__(self, "observations", tuple(self.observations))
        if self.observations:
            if len(set(self.observations)) > 1:
                raise UsageError(
                    "agents must observe arrays of the same shapes and dtypes; got "
                    f"{', '.join(map(str, self.observations))}"
                )
            given = tuple(_plain(self.observation_sizes))
            sizes = tuple(space.size for space in self.observations)
            object.__setattr__(self, "observation_sizes", sizes)
            if given not in ((), sizes):
                raise UsageError(f"observation_sizes {given} are not those of the spaces")
        if self.actions:
            given = tuple(_plain(self.action_counts))
            object.__setattr__(self, "action_counts", tuple(a.flags for a in self.actions))
            if given not in ((), self.action_counts):
                raise UsageError(f"action_counts {given} are not those of the action spaces")
            if all(space.is_single_choice for space in self.actions):
                object.__setattr__(self, "actions", ())
        for field in ("observation_sizes", "action_counts", "central_size", "time_limit"):
            object.__setattr__(self, field, _plain(getattr(self, field)))
        n = len(self.agents)
        if n == 0 or len(set(self.agents)) != n:
            raise UsageError(f"agents must be distinct names, at least one; got {self.agents}")
        for field in ("observation_sizes", "action_counts"):
            sizes = getattr(self, field)
            if len(sizes) != n or min(sizes) < 1:
                raise UsageError(
                    f"{field} must be {n} positive numbers, one per agent; got {sizes}"
                )
        if self.time_limit is not None and self.time_limit < 1:
            raise UsageError(f"time_limit must be at least 1 step or None; got {self.time_limit}")
        if self.reward not in ("individual", "sum", "mean"):
            raise UsageError(f"reward must be individual, sum or mean; got {self.reward!r}")

    @property
    def n_agents(self) -> int:
        return len(self.agents)

    @property
    def observation_size(self) -> int:
        """O, the padded observation length."""
        return max(self.observation_sizes)

    @property
    def observation_space(self) -> ObservationSpace | None:
        """Of every agent, where observations are no vectors."""
        return self.observations[0] if self.observations else None

    @property
    def observation_dtype(self) -> type[np.generic]:
        """Of joint observations [N, O]: 32-bit floats, or bytes where pixels are observed."""
        return self.observations[0].dtype if self.observations else np.float32

    @property
    def action_count(self) -> int:
        """A, the padded number of actions."""
        return max(self.action_counts)

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of a joint action: [N], or [N, P] where actions are vectors."""
        sizes = [space.size for space in self.actions]
        return (self.n_agents, max(sizes)) if sizes else (self.n_agents,)

    @property
    def action_dtype(self) -> type[np.generic]:
        """Of joint actions: whole numbers, or floats where they are vectors."""
        return np.float32 if self.actions else np.int32

    @property
    def available_actions(self) -> np.ndarray:
        """bool [N, A]: the actions each agent has at all, before any per-state mask."""
        return np.arange(self.action_count)[None, :] < np.asarray(self.action_counts)[:, None]


def _span(low: float, high: float) -> str:
    """Bounds in a sentence, exactly."""
    least, most = (f"{x:g}" if float(f"{x:g}") == x else repr(x) for x in (low, high))
    if math.isinf(low) and math.isinf(high):
        return "without bounds"
    if math.isinf(low) or math.isinf(high):
        return f"at most {most}" if math.isinf(low) else f"at least {least}"
    return f"from {least} to {most}"


def _plain(sizes: Any) -> Any:
    """Sizes as Python's own integers, where they were computed with NumPy or JAX."""
    if isinstance(sizes, (tuple, list)):
        return tuple(map(_plain, sizes))
    try:
        return operator.index(sizes)
    except TypeError:
        return sizes


class Observation(NamedTuple):
    """What agents act on: arrays of NumPy or JAX, with any leading axes.

    Attributes:
        observations: [..., N, O]; zeros for agents that are not alive.
        action_mask: [..., N, A], legal actions; of agents that are not alive action 0 alone, or
            no flag at all where actions are vectors (``ActionSpace.flags``).
        alive: [..., N].
        central: [..., Z], centralised information z; per agent, [..., N, Z], where those that were
            truncated alone see other last moments than the rest.
    """

    observations: Any
    action_mask: Any
    alive: Any
    central: Any


if TYPE_CHECKING:  # what an environment leaves out is there once ``Game`` has completed the step
    _Vectors = Any
    _Flags = Any
    _Mask = Any
    _Each = Any
    _State = Any
else:
    # Shapes are checked by ``Game``.
    _Vectors = Union[Num[Any, "..."], tuple[Num[Any, "..."], ...]]
    _Flags = Union[Bool[Any, "*S"], Bool[Any, "*S N"], bool]
    _Mask = Optional[Bool[Any, "*S N A"]]
    _Each = Optional[Bool[Any, "*S N"]]
    _State = Optional[Num[Any, "*S Z"]]


@dataclass(frozen=True, eq=False)
class TimeStep:
    """What an environment shows after a reset or a step; arrays of JAX, or of NumPy.

    An environment gives the first four fields, and those of ``action_mask``, ``alive`` and
    ``central`` that it has; observations of unequal length are a tuple of vectors.
    ``views.game.Game`` completes it: padded, masked, time-limited, nothing left out.

    Attributes:
        observations: [N, O], or a tuple of N vectors.
        rewards: [N], of the step just taken (zeros after a reset).
        terminated: the state is terminal: nothing follows, the bootstrap is cut.
        truncated: the episode was cut though the game could go on; the bootstrap stays.
            Each of the two is one flag for the whole episode or one per agent, [N]. With flags
            per agent the episode ends when no agent is left; flags of agents that left before are
            ignored. Completed, they are of the episode, and never both.
        action_mask: [N, A], legal actions. Where actions are vectors (``ActionSpace.flags``), an
            agent that decides nothing at this step has no flag set.
        alive: [N], agents that still take part. Without it they are, after flags per agent, those
            that were never flagged, and otherwise all.
        central: [Z], centralised information z (the environment's state).
        truncated_alone: [N], agents that were truncated in this step while others go on. Worked
            out from the flags; ``Game`` keeps it where it makes a difference to learning.
        final: the next observation from each agent's point of view, which differs from
            ``observation`` for those truncated alone; ``Game`` sets it beside ``truncated_alone``.
        info: numbers by name, always of the same names; those of an episode's last step are logged
            as ``eval/info/NAME`` and ``train/info/NAME``. Of JAX environments only.
    """

    observations: _Vectors
    rewards: Float[Any, "*S R"]
    terminated: _Flags
    truncated: _Flags
    action_mask: _Mask = None
    alive: _Each = None
    central: _State = None
    truncated_alone: _Each = None
    final: Observation | None = None
    info: dict[str, Any] | None = None

    @property
    def observation(self) -> Observation:
        """What agents act on next, where the episode goes on; of a completed step."""
        return Observation(self.observations, self.action_mask, self.alive, self.central)

    @property
    def next_observation(self) -> Observation:
        """What is learned from: the next observation from each agent's point of view."""
        return self.observation if self.final is None else self.final

    def onward(self) -> TimeStep:
        """The part that is acted on next."""
        return dataclasses.replace(self, truncated_alone=None, final=None, info=None)


@dataclass(frozen=True)
class PythonEnvFactory:
    """A Python environment as a run knows it: what it promises and how one is made.

    Attributes:
        name: what it is recorded under.
        make: makes one; pickled to send it to worker processes.
        promise: what each one made promises.
        make_rendering: makes one that renders; None where that is not known.
        other_python: where it runs, if that is another Python
            (``python_envs.other_python.OtherPython``); what is made here is called from here.
        spaces: its agents' observation and action spaces as data; None where that is not known.
    """

    name: str
    make: Callable[[], Any]
    promise: EnvSpec
    make_rendering: Callable[[], Any] | None = None
    other_python: Any = None
    spaces: dict[str, Any] | None = None

    def spec(self) -> EnvSpec:
        """Sizes, time limit, default reward."""
        return self.promise
