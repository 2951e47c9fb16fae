"""What a user gives a team, lists or dicts or a single agent's, as rows of arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Num

from coterie.errors import UsageError
from coterie.python_envs.adapters.agent_spaces import AgentSpaces, forbids_all
from coterie.python_envs.adapters.spaces import Nonsense
from coterie.spec import EnvSpec, ObservationSpace
from coterie.text import did_you_mean

_LEFT_OUT = object()
"""Of an agent that a dict does not name."""


class Given(NamedTuple):
    """What a team acts on.

    Attributes:
        observations: flat and padded; zeros of agents that have none.
        mask: legal actions.
        alive: agents that have an observation.
        named: agents that were given at all; None says of one that it is not in the episode.
        answer: puts the agents' actions into the form of the observations.
    """

    observations: Num[np.ndarray, "N O"]
    mask: Bool[np.ndarray, "N A"]
    alive: Bool[np.ndarray, " N"]
    named: Bool[np.ndarray, " N"]
    answer: Callable[[list[Any]], Any]


class TeamInput:
    """Reads observations and masks of a team's agents.

    Args:
        spaces: of the environment, where they are known; else observations are arrays laid out as
            ``spec`` says, and actions are numbers counted from 0.
    """

    def __init__(self, spec: EnvSpec, spaces: AgentSpaces | None) -> None:
        self.spec = spec
        self._single = spaces is not None and spaces.convention == "single"
        self._choices = [space.choices for space in spec.actions]
        self._choices = self._choices or [(count,) for count in spec.action_counts]
        self.spaces = _Arrays(spec, self._choices) if spaces is None else spaces

    def read(self, observations: Any, action_masks: Any) -> Given:
        """See ``Team.act``.

        Raises:
            UsageError: something is missing, too much, or not of the agent's space.
        """
        if self._is_bare(observations):
            each, masks, answer = [observations], [action_masks], _only
        else:
            each = self._in_order(observations, "observations")
            free = [None] * len(each)
            masks = free if action_masks is None else self._in_order(action_masks, "action_masks")
            answer = list
            if isinstance(observations, Mapping):
                answer = _by_name({name: self.place(name) for name in observations})
        rows, own_masks = self._observed(each)
        alive = np.array([x is not _LEFT_OUT and x is not None for x in each])
        named = np.array([x is not _LEFT_OUT for x in each])
        mask = self._masks(masks, own_masks, alive)
        return Given(rows, mask, alive, named, answer)

    def place(self, name: Any, where: str = "") -> int:
        """Which agent has this name; UsageError if none has."""
        if str(name) in self.spec.agents:
            return self.spec.agents.index(str(name))
        known = f" (agents are {', '.join(self.spec.agents)})"
        hint = did_you_mean(str(name), self.spec.agents, known)
        raise UsageError(f"{f'{where}: ' if where else ''}there is no agent {name!r:.60}{hint}")

    def _in_order(self, given: Any, word: str) -> list[Any]:
        """What is given for each agent, in their order."""
        if isinstance(given, Mapping):
            each = [_LEFT_OUT] * self.spec.n_agents
            for name, own in given.items():
                each[self.place(name, word)] = own
            return each
        if not _is_listed(given) or len(given) != self.spec.n_agents:
            raise UsageError(f"{word} must hold one for each of {', '.join(self.spec.agents)}")
        return list(given)

    def _is_bare(self, observations: Any) -> bool:
        """Whether they are the observation of a single-agent environment itself.

        What could be both that and a list or dict of it is taken as the observation.
        """
        if not self._single:
            return False
        with contextlib.suppress(Nonsense):
            own, _ = self._split(0, observations)
            self.spaces.write(0, own, self._rows()[0])
            return True
        if isinstance(observations, Mapping):
            return not {*map(str, observations)} <= {*self.spec.agents}
        listed = _is_listed(observations) and len(observations) == 1
        return observations is not None and not listed

    def _rows(self) -> Num[np.ndarray, "N O"]:
        shape = (self.spec.n_agents, self.spec.observation_size)
        return np.zeros(shape, self.spec.observation_dtype)

    def _observed(self, each: list[Any]) -> tuple[Num[np.ndarray, "N O"], list[Any]]:
        """Rows of what the agents observe, and the masks that came with it."""
        rows, masks = self._rows(), [None] * len(each)
        for i, shown in enumerate(each):
            if shown is _LEFT_OUT or shown is None:
                continue
            try:
                own, masks[i] = self._split(i, shown)
                self._write(i, own, rows[i])
                if not np.isfinite(rows[i]).all():
                    raise Nonsense("the observation has a number that is not finite")
            except Nonsense as wrong:
                raise UsageError(f"agent {self.spec.agents[i]}: {wrong}") from wrong
        return rows, masks

    def _split(self, i: int, shown: Any) -> tuple[Any, Any]:
        """An observation and its mask, also where the mask that its space has is not there."""
        if isinstance(shown, Mapping) and "action_mask" in shown:
            return self.spaces.split(i, shown)
        return shown, None

    def _write(self, i: int, own: Any, out: np.ndarray) -> None:
        """An element of the agent's space, or its vector."""
        try:
            self.spaces.write(i, own, out)
        except Nonsense:
            size = self.spec.observation_sizes[i]
            flat = None if self.spec.observations else _numbers(own)
            if flat is None or flat.shape != (size,):
                raise
            out[:size] = flat

    def _masks(self, masks: list[Any], own: list[Any], alive: Any) -> Bool[np.ndarray, "N A"]:
        """What is legal; that is the first action alone where a mask forbids everything."""
        rows = self.spec.available_actions
        for i in np.flatnonzero(alive).tolist():
            agent, mask = self.spec.agents[i], masks[i]
            if mask is _LEFT_OUT and own[i] is None and self._choices[i]:
                raise UsageError(f"action_masks lack {agent}")
            mask = own[i] if mask is _LEFT_OUT or mask is None else mask
            if mask is None:
                continue
            try:
                flags = self._flags(i, mask)
            except Nonsense as wrong:
                raise UsageError(f"agent {agent}: {wrong}") from wrong
            if forbids_all(flags, self._choices[i]):
                rows[i, 0 if self.spec.actions else 1 :] = False
            else:
                rows[i, : len(flags)] = flags
        return rows

    def _flags(self, i: int, mask: Any) -> Bool[np.ndarray, " _"]:
        """A flag for each alternative, one choice after the other, from a mask that may be so."""
        flags = _numbers(mask)
        if self._choices[i] and flags is not None and flags.shape == (sum(self._choices[i]),):
            return flags.astype(bool)
        return self.spaces.legal(i, mask)


class _Arrays:
    """In the place of ``AgentSpaces`` where a team knows arrays and numbers only."""

    def __init__(self, spec: EnvSpec, choices: Sequence[Sequence[int]]) -> None:
        self.spec, self.choices = spec, choices

    def split(self, i: int, shown: Any) -> tuple[Any, Any]:
        del i
        return shown, None

    def write(self, i: int, own: Any, out: np.ndarray) -> None:
        if self.spec.observations:
            out[:] = _flat(own, self.spec.observations[i])
            return
        row, size = _numbers(own), self.spec.observation_sizes[i]
        if row is None or row.shape != (size,):
            got = type(own).__name__ if row is None else f"shape {row.shape}"
            raise Nonsense(f"the observation must be a vector of {size} numbers; got {got}")
        out[:size] = row

    def legal(self, i: int, mask: Any) -> Bool[np.ndarray, " A"]:
        """Refuses: masks that fit were read before."""
        if not self.choices[i]:
            raise Nonsense(
                "it has no choices, so there is nothing to mask: give None for it in action_masks"
            )
        count, found = sum(self.choices[i]), _numbers(mask)
        got = type(mask).__name__ if found is None else f"shape {found.shape}"
        raise Nonsense(f"the action mask must hold {count} flags; got {got}")

    def actions(self, joint: Any) -> list[Any]:
        if not self.spec.actions:
            return joint.tolist()
        return [row[: s.size] for row, s in zip(joint, self.spec.actions, strict=True)]


def _is_listed(given: Any) -> bool:
    array = isinstance(given, np.ndarray | jax.Array) and given.ndim > 0
    return array or isinstance(given, list | tuple)


def _only(actions: list[Any]) -> Any:
    return actions[0]


def _by_name(places: dict[Any, int]) -> Callable[[list[Any]], dict[Any, Any]]:
    return lambda actions: {name: actions[i] for name, i in places.items()}


def _flat(own: Any, space: ObservationSpace) -> np.ndarray:
    """One agent's observation, an array or several, laid out flat."""
    if space.names:
        if not isinstance(own, Mapping) or not {*space.names} <= {*own}:
            found = ", ".join(map(str, own)) if isinstance(own, Mapping) else type(own).__name__
            raise Nonsense(
                f"the observation must be a dict with {', '.join(space.names)}; got {found}"
            )
        own = tuple(own[name] for name in space.names)
    elif isinstance(own, Mapping):
        raise Nonsense(
            f"the observation must be {space}, and its mask, if it has one, be given in "
            f"action_masks; got a dict with {', '.join(map(str, own))}"
        )
    given = [_numbers(x) for x in (own if isinstance(own, tuple) else (own,))]
    arrays = [x for x in given if x is not None]
    if len(arrays) < len(given):
        raise Nonsense(f"the observation must be arrays of numbers; got {own!r:.40}")
    if tuple(x.shape for x in arrays) != space.shapes:
        shapes = ", ".join(str(x.shape) for x in arrays)
        raise Nonsense(f"the observation must be {space}; got shape {shapes}")
    for x, dtype in zip(arrays, space.dtypes, strict=True):
        if dtype == "uint8" and (x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255):
            raise Nonsense(f"images must be of whole numbers from 0 to 255; got {x.dtype}")
    parts = [x.astype(dtype) for x, dtype in zip(arrays, space.dtypes, strict=True)]
    return np.concatenate([np.ascontiguousarray(x).view(space.dtype).ravel() for x in parts])


def _numbers(given: Any) -> np.ndarray | None:
    """An array of numbers; None if it is none."""
    with contextlib.suppress(ValueError, TypeError):
        found = np.asarray(given)
        if found.dtype.kind in "biuf":
            return found
    return None
