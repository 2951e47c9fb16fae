"""What agents observe and do in their environment, as rows of arrays and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from coterie.errors import UsageError
from coterie.python_envs.adapters.space_data import NotData, from_data, to_data
from coterie.python_envs.adapters.spaces import choice, flattener, gymnasium
from coterie.shapes import Bool
from coterie.spec import EnvSpec

Convention = Literal["parallel", "aec", "tuple", "single"]
"""How an environment gives observations and takes actions: PettingZoo's dictionaries by agent, of
all at once or of one after the other; Gymnasium's, one for each agent, or those of the only one."""
MOST_BYTES = 1_000_000
"""A longer description is not kept; real ones have a few hundred."""


class AgentSpaces:
    """The spaces of all agents, and how their elements become rows of arrays and back.

    An environment that trains and a loaded team read the same things by it.

    Args:
        observation_spaces, action_spaces: Gymnasium's, one for each agent.
        combined: the combinations of an agent's choices (MultiDiscrete, MultiBinary) are one
            numbered action; else the agent decides each by itself, and actions are vectors.
        arrays: where all agents observe images, or images and vectors, of the same shapes, these
            keep their shapes and dtypes; else every observation is a vector of floats.

    Attributes:
        flatteners: how each agent's observations become vectors.
        choices: how each agent's actions become what the environment takes.
        spec: sizes of observations and actions.

    Raises:
        UsageError: a space cannot be an observation vector or an action.
    """

    def __init__(
        self,
        agents: Sequence[str],
        observation_spaces: Sequence[Any],
        action_spaces: Sequence[Any],
        convention: Convention,
        combined: bool = True,
        arrays: bool = True,
    ) -> None:
        self.observation_spaces = tuple(observation_spaces)
        self.action_spaces = tuple(action_spaces)
        self.convention = convention
        self.flatteners = [flattener(*each) for each in zip(agents, observation_spaces)]
        self.choices = [choice(*each, combined) for each in zip(agents, action_spaces)]
        kinds = {one.arrays for one in self.flatteners}
        as_arrays = arrays and len(kinds) == 1 and None not in kinds
        self._write = [one.write_arrays if as_arrays else one.write for one in self.flatteners]
        self.spec = EnvSpec(
            agents=tuple(agents),
            observation_sizes=() if as_arrays else tuple(one.size for one in self.flatteners),
            observations=tuple(one.arrays for one in self.flatteners if one.arrays and as_arrays),
            actions=tuple(one.space for one in self.choices),
        )

    def split(self, i: int, shown: Any) -> tuple[Any, Any]:
        """Agent i's observation itself, and the action mask that it holds; None if it holds
        none."""
        return self.flatteners[i].split(shown)

    def write(self, i: int, own: Any, out: np.ndarray) -> None:
        """Writes agent i's observation itself into a row; ``Nonsense`` if it is no element."""
        self._write[i](own, out[: self.spec.observation_sizes[i]])

    def legal(self, i: int, mask: Any) -> Bool[np.ndarray, " A"]:
        """Which of agent i's alternatives a mask allows; ``Nonsense`` if that does not fit."""
        return self.choices[i].legal(mask)

    def actions(self, joint: Any) -> list[Any]:
        """What the environment takes of each agent, from a joint action [N] or [N, P]."""
        each: Any = joint
        if self.spec.actions:
            sizes = [space.size for space in self.spec.actions]
            each = [
                a[:size] if size > 1 or one.space.low else a[0]
                for a, size, one in zip(joint, sizes, self.choices)
            ]
        return [one.action(a) for a, one in zip(each, self.choices)]

    def data(self) -> dict[str, Any] | None:
        """All of it in JSON; None where a space is of no known kind."""
        try:
            found = {
                "convention": self.convention,
                "observations": [to_data(space) for space in self.observation_spaces],
                "actions": [to_data(space) for space in self.action_spaces],
            }
        except NotData:
            return None
        return found if len(json.dumps(found)) <= MOST_BYTES else None

    @classmethod
    def of_data(cls, data: Any, spec: EnvSpec) -> AgentSpaces:
        """The spaces that ``data`` gave.

        Args:
            spec: sizes of the observations and actions that a policy knows.

        Raises:
            NotData: it is no such data, or of other sizes.
        """
        gymnasium()  # that it is missing is no fault of the data
        n, words = spec.n_agents, ("observations", "actions")
        if not isinstance(data, dict) or data.get("convention") not in get_args(Convention):
            raise NotData("it names no convention")
        if any(not isinstance(data.get(word), list) or len(data[word]) != n for word in words):
            raise NotData("it does not hold one space for each agent")
        # Beside what an agent observes, the space of its observations may hold its mask.
        sizes = zip(spec.observation_sizes, spec.action_counts)
        seen = [from_data(x, sum(k)) for x, k in zip(data["observations"], sizes)]
        done = [from_data(x, k) for x, k in zip(data["actions"], spec.action_counts)]
        combined, arrays = not spec.actions, bool(spec.observations)
        try:
            found = cls(spec.agents, seen, done, data["convention"], combined, arrays)
        except UsageError as error:
            raise NotData(str(error)) from error
        if found.spec != spec or (found.convention == "single" and n > 1):
            raise NotData("its spaces are of other sizes")
        return found


def forbids_all(flags: Bool[np.ndarray, " A"], choices: Sequence[int]) -> bool:
    """Whether flags leave one of these choices, each of so many alternatives, without any."""
    parts = np.split(flags, np.cumsum(choices)[:-1])
    return not all(np.count_nonzero(part) for part in parts)
