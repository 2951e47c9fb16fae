"""The contract of a JAX environment."""

from __future__ import annotations

import abc
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from coterie.envs.scene import Scene
from coterie.spec import EnvSpec
from coterie.types import Actions, PRNGKey, TimeStep


class Environment(abc.ABC):
    """A multi-agent environment written in JAX: three pure functions.

    ``reset`` and ``step`` see one environment (no batch axis) and are traced, so they must be
    pure and shape-stable. Time limit, padding, missing masks, automatic reset and common reward
    are not the environment's business: ``views/game.py`` adds them from the ``spec``.

    ``agents`` are the agents' names in the order of the agent axis N.
    """

    agents: tuple[str, ...]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "spec" in vars(cls):
            cls.spec = _asked_once(cls.spec)  # pyright: ignore[reportAttributeAccessIssue]

    @abc.abstractmethod
    def spec(self) -> EnvSpec:
        """Sizes, time limit, default reward.

        It is called once for each object, before anything of it is traced, so it may compute
        with JAX; what it returned then is what every later call returns.
        """

    @abc.abstractmethod
    def reset(self, key: PRNGKey) -> tuple[Any, TimeStep]:
        """Draws a start: the state (any PyTree of arrays) and its first time step."""

    @abc.abstractmethod
    def step(self, key: PRNGKey, state: Any, actions: Actions) -> tuple[Any, TimeStep]:
        """One joint action; ``truncated`` stays False unless the game itself cuts episodes."""

    def return_bounds(self) -> tuple[float, float] | None:
        """The least and the greatest return of the team in one episode, summed over agents.

        Intervals of returns are cut off there. None where it is not known.
        """
        return None

    def payoff_table(self) -> Float[np.ndarray, "*A n"] | None:
        """[A_1, ..., A_n, n], the rewards of each joint action, where those are all there is to the
        game; None where a state or chance matters."""
        return None

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        """What each agent's actions are called where they are shown; their numbers, if nothing."""
        return tuple(tuple(str(a) for a in range(k)) for k in self.spec().action_counts)

    def in_words(self, actions: Any) -> tuple[str, ...]:
        """What each agent does in a joint action [N] or [N, P], for pictures."""
        spec = self.spec()
        if not spec.actions:
            names = self.action_names()
            return tuple(names[i][int(a)] for i, a in enumerate(np.asarray(actions)))
        rows = zip(spec.actions, np.asarray(actions).tolist(), strict=True)
        return tuple(space.in_words(row) for space, row in rows)

    def scene(self, state: Any, actions: Sequence[Any] | None = None) -> Scene | None:
        """A picture of one state made of shapes; None where the environment has none.

        Called on the host, with NumPy arrays.

        Args:
            state: as ``reset`` or ``step`` gave it.
            actions: what the agents did to get there; None at an episode's start.
        """
        del state, actions
        return None

    def picture(self, state: Any) -> UInt8[np.ndarray, "H W 3"] | None:
        """A picture of one state made of pixels, for an environment that has no scenes; None where
        it has no pictures either.

        Called on the host, with NumPy arrays.
        """
        del state
        return None


def _asked_once(spec: Callable[[Any], EnvSpec]) -> Callable[[Any], EnvSpec]:
    """The method ``spec``, whose first answer for an object is remembered as long as it lives."""
    # Beside the objects, not in them: they may be frozen, and their copies may be changed.
    answers: dict[int, EnvSpec] = {}

    @functools.wraps(spec)
    def once(self: Any) -> EnvSpec:
        number = id(self)
        if number not in answers:
            answers[number] = spec(self)
            weakref.finalize(self, answers.pop, number, None).atexit = False
        return answers[number]

    return once
