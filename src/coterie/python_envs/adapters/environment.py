"""Anybody's Python environments: PettingZoo's and Gymnasium's.

This file hosts one environment in the calling process: actions in, NumPy arrays out, agents as
an array axis. ``make_factory`` returns a factory that pickles, so the same environments can be
opened in other processes. Neither JAX nor, before an environment is opened, Gymnasium is
imported.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from coterie.errors import EnvironmentFault, described
from coterie.python_envs.adapters import rendering
from coterie.python_envs.adapters.agent_spaces import AgentSpaces, forbids_all
from coterie.python_envs.adapters.conventions import RawStep, adapt, constant_flags, state_of
from coterie.python_envs.adapters.infos import Reported, reported
from coterie.python_envs.adapters.lookup import open_factory, title
from coterie.python_envs.adapters.spaces import (
    Nonsense,
    Write,
    gymnasium,
    not_finite,
    vector,
)
from coterie.shapes import Bool, Float32, Integer, UInt8
from coterie.spec import TimeStep


class PythonEnv:
    """One Gymnasium or PettingZoo environment with agents as an array axis.

    Whatever goes wrong inside the environment, or with what it shows, is an
    ``EnvironmentFault`` that says at which step and with which agent.

    Its steps are complete. Rewards of the dead are those of the environment. Masks allow all
    that an agent has where the environment gives none. Where it is another's turn and the action is
    ignored they allow the first action alone, or nothing if actions are vectors. At the end of an
    episode those count as alive that did not die before the others; where it was truncated, those
    that did not die in that step. Who was truncated alone is not alive any more, but observation
    and mask are still the last ones.

    Args:
        environment: a PettingZoo ``ParallelEnv`` or ``AECEnv``, a Gymnasium environment whose
            observation and action spaces are a ``Tuple`` or a list of one space per agent, or a
            single-agent Gymnasium environment, which is a team of one.
        time_limit: steps after which an episode is cut. An environment that ends by itself at
            exactly this step is taken to have run out of time, so its ``terminated`` counts as
            ``truncated``: lbforaging and others report a time-out as terminated. What truly ends
            at that very step is not told apart. Unless given it is the ``max_episode_steps`` of a
            single-agent environment's ``spec``; its own flags then hold at that step, too.
        name: what messages call it.
        combined, arrays: see ``AgentSpaces``.
        central: whether to show its ``state()``, if it has one. Where it names no
            ``state_space`` it is reset once, to see how long its state is.

    Attributes:
        spaces: how agents' observations become rows of arrays, and rows their actions.
        shown: what the environment itself showed last; ``None`` before the first reset.
        stated: what its ``state()`` gave last; empty where it is not asked.
        reported: once an episode is over, the numbers in the infos of its end: each agent's of the
            step in which it left, or the only one of all.

    Raises:
        UsageError: it is neither, or a space cannot be an observation vector or an action.
    """

    def __init__(
        self,
        environment: Any,
        time_limit: int | None = None,
        name: str | None = None,
        central: bool = True,
        combined: bool = True,
        arrays: bool = True,
    ) -> None:
        self.name = title(environment) if name is None else name
        self._environment = environment
        self._host = host = adapt(environment)
        agents = host.agents
        self.spaces = AgentSpaces(
            agents,
            host.observation_spaces,
            host.action_spaces,
            host.convention,
            combined,
            arrays,
        )
        self._steps = 0
        self._limit_given = time_limit is not None
        self._over = True
        self._nobody, _ = constant_flags(len(agents))
        self._alive = self._listed = self._cut = self._nobody
        self.shown: RawStep | None = None
        self.stated: Any = ()
        self.reported: Reported = {}
        self._infos: list[Any] = []
        self._state, central_size, self._write_state = self._find_state(environment, central)
        self.spec = dataclasses.replace(
            self.spaces.spec,
            central_size=central_size,
            time_limit=host.time_limit if time_limit is None else time_limit,
        )
        self._available = self.spec.available_actions
        self._shape = (self.spec.n_agents, self.spec.observation_size)

    def reset(self, seed: int | None = None) -> TimeStep:
        """Starts an episode; the seed goes to the environment's own ``reset``."""
        self._steps, self._over = 0, False
        try:
            shown = self._host.reset(seed)
        except (Exception, SystemExit) as error:
            raise self._fault_of("reset", error) from error
        self._alive = self._listed = shown.present
        self._cut = self._nobody
        self._infos = []
        return self._show(shown, np.zeros(self.spec.n_agents, np.float32), False, False)

    def step(self, actions: Integer[np.ndarray, " N"] | Float32[np.ndarray, "N P"]) -> TimeStep:
        """One joint action, counted from 0 or as vectors within their bounds; a dead agent's is
        ignored."""
        if self._over:
            raise RuntimeError(f"{self.name}: the episode is over; reset starts the next one")
        own = self.spaces.actions(actions)
        before = self._alive
        self._steps += 1
        try:
            shown = self._host.step(own, before)
        except (Exception, SystemExit) as error:
            raise self._fault_of("step", error) from error
        staying, cut, leaving = before, self._nobody, self._nobody
        if np.count_nonzero(shown.terminated) or np.count_nonzero(shown.truncated):
            staying = before & ~shown.terminated & ~shown.truncated
            cut = before & shown.truncated & ~shown.terminated
            leaving = before & ~staying
        if np.count_nonzero(shown.present > self._listed):
            staying = staying | (shown.present & ~self._listed)
        ended = not np.count_nonzero(staying)
        all_died = ended and bool(shown.terminated[before].all())
        timed_out = self._steps == self.spec.time_limit
        if all_died:
            self._alive = before
        else:
            self._alive = before & ~shown.terminated if ended else staying
        self._listed = shown.present
        self._cut = self._nobody if ended else cut
        terminated = all_died and not (timed_out and self._limit_given)
        truncated = (ended or timed_out) and not terminated
        self._over = terminated or truncated
        self._note(shown.infos, before if self._over else leaving)
        return self._show(shown, shown.rewards, terminated, truncated)

    def _note(self, infos: Any, leaving: Bool[np.ndarray, " N"]) -> None:
        """Keeps what agents that leave, or the environment at the end, report of the episode."""
        if np.count_nonzero(leaving):
            self._infos += self._host.last_infos(infos, leaving, self._over)
        if self._over:
            self.reported = reported(self._infos)

    def in_words(self, actions: Any) -> tuple[str, ...]:
        """What each agent does in a joint action, for pictures: in the environment's own terms."""
        if self.spec.actions:
            rows = zip(self.spec.actions, np.asarray(actions).tolist())
            return tuple(space.in_words(row) for space, row in rows)
        return tuple(" ".join(map(str, np.ravel(a).tolist())) for a in self.spaces.actions(actions))

    def frame(self) -> UInt8[np.ndarray, "H W 3"]:
        """What the environment renders, where it was made to; NoPictures if it does not."""
        return rendering.frame(self._environment)

    def frames_a_second(self) -> float | None:
        """The speed that the environment names for its pictures."""
        return rendering.frames_a_second(self._environment)

    def close(self) -> None:
        """Closes the environment."""
        self._over = True
        try:
            self._host.close()
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"close raised {described(error)}", self.name) from error

    def _fault_of(self, call: str, error: BaseException) -> EnvironmentFault:
        if isinstance(error, Nonsense):
            return self._fault(str(error), error.agent)
        return self._fault(f"{call} raised {described(error)}")

    def _fault(self, what: str, agent: str | None = None) -> EnvironmentFault:
        return EnvironmentFault(what, self.name, agent, self._steps)

    def _find_state(
        self, environment: Any, wanted: bool
    ) -> tuple[Callable[[], Any] | None, int, Write]:
        """What gives the state, its length, and what writes it."""
        state = state_of(environment) if wanted else None
        if state is None:
            return None, 0, _write_nothing
        space = getattr(environment, "state_space", None)
        if space is None:
            try:
                self._host.reset(0)
                seen = np.asarray(state())
            except (Exception, SystemExit) as error:
                raise self._fault_of("reset", error) from error
            space = gymnasium().spaces.Box(-np.inf, np.inf, seen.shape)
        return state, *vector("state", space)

    def _show(
        self,
        shown: RawStep,
        rewards: Float32[np.ndarray, " N"],
        terminated: bool,
        truncated: bool,
    ) -> TimeStep:
        self.shown = shown
        observations = np.zeros(self._shape, self.spec.observation_dtype)
        masks = self._available.copy()
        for i in np.flatnonzero(self._alive | self._cut).tolist():
            try:
                mask = self._see(i, shown.observations[i], observations[i], terminated)
                mask = shown.masks[i] if mask is None else mask
                if shown.idle[i]:
                    masks[i, 0 if self.spec.actions else 1 :] = False
                elif mask is not None:
                    self._allow(i, mask, masks[i])
            except Nonsense as error:
                raise self._fault(str(error), self.spec.agents[i]) from error
        sound = self._finite(observations)
        if not sound.all():
            worst = int(np.argmin(sound))
            raise self._fault(
                f"the observation holds {not_finite(shown.observations[worst])}",
                self.spec.agents[worst],
            )
        central = self._central()
        return TimeStep(
            observations, rewards, terminated, truncated, masks, self._alive, central, self._cut
        )

    def _see(self, i: int, seen: Any, out: np.ndarray, terminated: bool) -> Any:
        """Writes the observation of agent i; the action mask that came with it, if one did."""
        if seen is None:
            if terminated:  # nobody learns from what is seen in a terminal state
                return None
            raise Nonsense(
                "no observation was given; every agent that goes on, or is truncated, needs one"
            )
        own, mask = self.spaces.split(i, seen)
        self.spaces.write(i, own, out)
        return mask

    def _finite(self, observations: np.ndarray) -> Bool[np.ndarray, " N"]:
        """Whose observations are finite numbers."""
        found, first = np.ones(len(observations), bool), 0
        if observations.dtype == np.float32:
            if np.count_nonzero(np.isfinite(observations)) < observations.size:
                found &= np.isfinite(observations).all(1)
            return found
        space = self.spec.observations[0]
        for dtype, size in zip(space.dtypes, space.sizes):
            if dtype == "float32":
                found &= np.isfinite(observations[:, first : first + size].view(dtype)).all(1)
            first += size
        return found

    def _allow(self, i: int, mask: Any, out: np.ndarray) -> None:
        legal = self.spaces.legal(i, mask)
        # Nothing is chosen after the end, and many games then forbid everything.
        if not forbids_all(legal, self.spaces.choices[i].space.choices):
            out[: len(legal)] = legal
        elif not self._over and not self._cut[i]:
            raise Nonsense("the action mask forbids every action; one must be legal")

    def _central(self) -> Float32[np.ndarray, " Z"]:
        central = np.zeros(self.spec.central_size, np.float32)
        if self._state is not None:
            try:
                self.stated = self._state()
                self._write_state(self.stated, central)
            except (Exception, SystemExit) as error:
                raise self._fault_of("state", error) from error
            if not np.isfinite(central).all():
                raise self._fault(f"the state holds {not_finite(self.stated)}")
        return central


def make_factory(
    source: Any, time_limit: int | None = None, central: bool = True
) -> Callable[[], PythonEnv]:
    """A factory of one environment, which is looked up now; the factory pickles if its source can.

    Args:
        source: ``gymnasium:<id>``, ``gymnasium:<module>:<id>`` (the module registers the id when
            imported), ``pettingzoo:<module>`` (with a ``parallel_env``, ``env`` or ``raw_env``),
            ``pettingzoo:<id>``, ``package.module:callable`` (anything that returns an
            environment); or such a module or callable itself.
        time_limit, central: see ``PythonEnv``.

    Raises:
        UsageError: there is no such module, id or callable, or a package is not installed.
    """
    return functools.partial(_open, open_factory(source), time_limit, title(source), central)


def _open(make: Callable[[], Any], time_limit: int | None, name: str, central: bool) -> PythonEnv:
    return PythonEnv(make(), time_limit, name, central)


def _write_nothing(seen: Any, out: np.ndarray) -> None:
    del seen, out
