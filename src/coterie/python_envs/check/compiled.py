"""A JAX environment played like a Python one, to be checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coterie.errors import EnvironmentFault, UsageError, described
from coterie.spec import TimeStep


class Compiled:
    """A JAX environment with the face of a Python environment."""

    def __init__(self, environment: Any, time_limit: int | None, name: str) -> None:
        import jax

        from coterie.ops.observations import finite
        from coterie.views.game import Game

        if time_limit is not None:
            raise UsageError(f"{name} is a JAX environment: its spec names the time limit")
        self.name, self.spec = name, environment.spec()
        game = Game(environment, "state" if self.spec.central_size else "none")
        self._split, self._key, self._fetch = jax.random.split, jax.random.key, jax.device_get
        self._reset, self._step = jax.jit(game.reset), jax.jit(game.step_env)
        space = self.spec.observation_space
        self._sound = jax.jit(lambda observations: finite(observations, space))
        self._chance: Any = None
        self._state: Any = None
        self._steps = 0

    def reset(self, seed: int) -> TimeStep:
        self._chance, self._steps = self._key(seed), 0
        return self._seen("reset", lambda key: self._reset(key))

    def step(self, actions: np.ndarray) -> TimeStep:
        self._steps += 1
        return self._seen("step", lambda key: self._step(key, self._state, actions))

    def close(self) -> None:
        """There is nothing to close."""

    def _seen(self, call: str, do: Callable[[Any], Any]) -> TimeStep:
        self._chance, key = self._split(self._chance)
        try:
            self._state, view = do(key)
        except Exception as error:
            raise self._fault(f"{call} raised {described(error)}") from error
        shown = self._fetch(view)
        seen = self._fetch(self._sound(shown.observations))
        for word, sound in (("observation", seen), ("reward", np.isfinite(shown.rewards))):
            for agent, own in zip(self.spec.agents, sound):
                if not own:
                    raise self._fault(f"the {word} holds NaN or infinity", agent)
        if not np.isfinite(shown.central).all():
            raise self._fault("the state holds NaN or infinity")
        if not (shown.terminated or shown.truncated):
            self._look_at_masks(shown)
        return shown

    def _look_at_masks(self, shown: TimeStep) -> None:
        if not self.spec.actions:
            stuck = shown.alive & ~shown.action_mask.any(1)
            if stuck.any():
                raise self._fault(
                    "the action mask forbids every action; one must be legal",
                    self.spec.agents[int(stuck.argmax())],
                )
        rows = zip(self.spec.agents, self.spec.actions, shown.action_mask)
        for agent, space, flags in rows:
            ends = np.cumsum(space.choices)
            parts = np.split(flags, ends)[: len(ends)]
            stuck = [k for k, part in enumerate(parts, 1) if not part.any()]
            if stuck and flags.any():  # an agent without any flag does not act
                raise self._fault(
                    f"the action mask forbids every alternative of choice {stuck[0]} of "
                    f"{len(parts)}; one must be legal, or no flag be set where the agent does not "
                    "act",
                    agent,
                )

    def _fault(self, what: str, agent: str | None = None) -> EnvironmentFault:
        return EnvironmentFault(what, self.name, agent, self._steps)
