"""Anybody's Python environments: Gymnasium with one space per agent, PettingZoo in parallel.

This file hosts one environment in the calling process: actions in, NumPy arrays out, agents as
an array axis. ``make_hosted`` returns a factory that pickles, so the same environments can be
opened in other processes. Gymnasium is imported only when an environment is opened.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Integer

from coterie.errors import UsageError
from coterie.spec import EnvSpec

__all__ = ["HostedEnvironment", "HostedStep", "make_hosted", "open_factory"]

_EXTRAS = {"gymnasium": "hosted", "pettingzoo": "hosted", "lbforaging": "lbforaging", "mpe2": "mpe"}


class HostedStep(NamedTuple):
    """What a hosted environment shows after a reset or a step; ``TimeStep`` says what each means.

    Attributes:
        observations: flattened and padded with zeros; zero for an agent that is not alive.
        rewards: of the step just taken, the death step included; zero for one dead before it.
        terminated: every agent still alive ended in a terminal state.
        truncated: the episode ended otherwise. Never both.
        action_mask: legal actions; all that an agent has where the environment gives no mask.
        alive: agents that go on; at the end of an episode those that did not die before the
            others, and where it was truncated those that did not die in that step. An agent the
            environment truncates alone, while others go on, counts as dead.
        central: the environment's ``state()``, flattened; of length 0 where it has none.
    """

    observations: Float32[np.ndarray, "N O"]
    rewards: Float32[np.ndarray, " N"]
    terminated: bool
    truncated: bool
    action_mask: Bool[np.ndarray, "N A"]
    alive: Bool[np.ndarray, " N"]
    central: Float32[np.ndarray, " Z"]


class HostedEnvironment:
    """One Gymnasium or PettingZoo environment with agents as an array axis.

    Args:
        environment: a PettingZoo ``ParallelEnv``, or a Gymnasium environment whose observation
            and action spaces are a ``Tuple`` or a list of one space per agent (lbforaging).
        time_limit: steps after which an episode is cut. An environment that ends by itself at
            exactly this step is taken to have run out of time, so its ``terminated`` counts as
            ``truncated``: lbforaging and others report a time-out as terminated. What truly ends
            at that very step is not told apart.

    Raises:
        UsageError: it is neither, or a space cannot be an observation vector or an action.
    """

    def __init__(self, environment: Any, time_limit: int | None = None) -> None:
        self._host = _adapt(environment)
        agents = self._host.agents
        observed = [
            _vector_space(agent, space)
            for agent, space in zip(agents, self._host.observation_spaces, strict=True)
        ]
        chosen = [
            _action_range(agent, space)
            for agent, space in zip(agents, self._host.action_spaces, strict=True)
        ]
        self._spaces = [space for space, _, _ in observed]
        self._masked = [masked for _, masked, _ in observed]
        self._starts = [start for start, _ in chosen]
        self.spec = EnvSpec(
            agents=agents,
            observation_sizes=tuple(size for _, _, size in observed),
            action_counts=tuple(count for _, count in chosen),
            time_limit=time_limit,
        )
        self._flatten = _gymnasium().spaces.flatten
        self._alive = self._seen = np.zeros(len(agents), bool)
        self._steps = 0

    def reset(self, seed: int | None = None) -> HostedStep:
        """Starts an episode; the seed goes to the environment's own ``reset``."""
        shown = self._host.reset(seed)
        self._steps = 0
        self._alive = self._seen = shown.present
        return self._show(shown, np.zeros(self.spec.n_agents, np.float32), False, False)

    def step(self, actions: Integer[np.ndarray, " N"]) -> HostedStep:
        """One joint action, counted from 0 for every agent; a dead agent's is ignored."""
        own = [int(a) + start for a, start in zip(actions, self._starts, strict=True)]
        before = self._alive
        shown = self._host.step(own, before)
        self._steps += 1
        newcomers = shown.present & ~self._seen
        staying = (before & ~shown.terminated & ~shown.truncated) | newcomers
        over = not staying.any()
        all_died = over and bool(shown.terminated[before].all())
        timed_out = self._steps == self.spec.time_limit
        if all_died:
            self._alive = before
        else:
            self._alive = before & ~shown.terminated if over else staying
        self._seen = self._seen | newcomers
        terminated = all_died and not timed_out
        truncated = (over or timed_out) and not terminated
        rewards = np.where(before, shown.rewards, np.float32(0))
        return self._show(shown, rewards, terminated, truncated)

    def close(self) -> None:
        """Closes the environment."""
        self._host.close()

    def _show(
        self,
        shown: _Shown,
        rewards: Float32[np.ndarray, " N"],
        terminated: bool,
        truncated: bool,
    ) -> HostedStep:
        observations = np.zeros((self.spec.n_agents, self.spec.observation_size), np.float32)
        masks = self.spec.available_actions
        for i in np.flatnonzero(self._alive).tolist():
            seen, mask = shown.observations[i], shown.masks[i]
            if self._masked[i] and seen is not None:
                seen, mask = seen["observation"], seen["action_mask"]
            if seen is not None:
                vector = self._flatten(self._spaces[i], seen)
                observations[i, : len(vector)] = vector
            if mask is not None:
                self._write_mask(masks, i, mask, terminated or truncated)
        return HostedStep(
            observations,
            rewards,
            terminated,
            truncated,
            masks,
            self._alive,
            np.zeros(self.spec.central_size, np.float32),
        )

    def _write_mask(self, masks: Any, i: int, mask: Any, ended: bool) -> None:
        agent, count = self.spec.agents[i], self.spec.action_counts[i]
        own = np.asarray(mask, bool)
        if own.shape != (count,):
            raise UsageError(
                f"agent {agent} has {count} actions, but its action mask has shape {own.shape}"
            )
        # Nothing is chosen after the end, and many games then forbid everything.
        if own.any():
            masks[i, :count] = own
        elif not ended:
            raise UsageError(f"agent {agent}'s action mask forbids every action")


def make_hosted(name: str, time_limit: int | None = None) -> Callable[[], HostedEnvironment]:
    """A factory of the environment ``name``, which is looked up now; the factory pickles.

    Args:
        name: ``gymnasium:<id>``, ``gymnasium:<module>:<id>`` (the module registers the id when
            imported), ``pettingzoo:<module>`` (with a ``parallel_env``), or
            ``package.module:callable`` (anything that returns an environment).
        time_limit: see ``HostedEnvironment``.

    Raises:
        UsageError: there is no such module, id or callable, or a package is not installed.
    """
    return functools.partial(_open_hosted, open_factory(name), time_limit)


def open_factory(name: str) -> Callable[[], Any]:
    """As ``make_hosted``, but of the environment as its author made it."""
    kind, _, rest = name.partition(":")
    if not rest:
        raise UsageError(
            f"{name!r} names no environment; a hosted one is gymnasium:id, "
            "gymnasium:module:id, pettingzoo:module or package.module:callable"
        )
    if kind == "gymnasium":
        _check_gymnasium_id(name, rest)
        return functools.partial(_open_gymnasium, name, rest)
    module, attribute = (rest, "parallel_env") if kind == "pettingzoo" else (kind, rest)
    _find_callable(name, module, attribute)
    return functools.partial(_open_callable, name, module, attribute)


class _Shown(NamedTuple):
    """What the two conventions show alike, one entry per agent; ``None`` for nothing shown.

    ``present`` are the agents the environment lists; the flags are each agent's own.
    """

    observations: Sequence[Any]
    rewards: Float32[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    masks: Sequence[Any]
    present: Bool[np.ndarray, " N"]


class _TupleHost:
    """Gymnasium with one space per agent: lists in and out, in the order of the agents."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.observation_spaces = _per_agent("observation", environment.observation_space)
        self.action_spaces = _per_agent("action", environment.action_space)
        n, m = len(self.observation_spaces), len(self.action_spaces)
        if n != m:
            raise UsageError(f"the environment has {n} observation spaces but {m} action spaces")
        self.agents = tuple(f"agent_{i}" for i in range(n))

    def reset(self, seed: int | None) -> _Shown:
        observations, info = self._environment.reset(seed=seed)
        return self._shown(observations, 0.0, False, False, info)

    def step(self, actions: list[int], alive: Bool[np.ndarray, " N"]) -> _Shown:
        del alive  # this convention asks every agent for an action
        return self._shown(*self._environment.step(actions))

    def close(self) -> None:
        self._environment.close()

    def _shown(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, info: Any
    ) -> _Shown:
        n = len(self.agents)
        masks = info.get("action_mask", [None] * n)
        for what, given in (("observations", observations), ("action masks", masks)):
            if len(given) != n:
                raise UsageError(f"the environment has {n} agents but gave {len(given)} {what}")
        return _Shown(
            observations,
            _each("reward", rewards, np.float32, n),
            _each("terminated", terminated, bool, n),
            _each("truncated", truncated, bool, n),
            masks,
            np.ones(n, bool),
        )


class _ParallelHost:
    """PettingZoo's ParallelEnv: dictionaries by agent, of those that take part."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._names = list(environment.possible_agents)
        self.agents = tuple(str(name) for name in self._names)
        self.observation_spaces = [environment.observation_space(a) for a in self._names]
        self.action_spaces = [environment.action_space(a) for a in self._names]

    def reset(self, seed: int | None) -> _Shown:
        observations, infos = self._environment.reset(seed=seed)
        return self._shown(observations, {}, {}, {}, infos)

    def step(self, actions: list[int], alive: Bool[np.ndarray, " N"]) -> _Shown:
        chosen = {a: actions[i] for i, a in enumerate(self._names) if alive[i]}
        return self._shown(*self._environment.step(chosen))

    def close(self) -> None:
        self._environment.close()

    def _shown(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, infos: Any
    ) -> _Shown:
        names, live = self._names, self._environment.agents
        strangers = [a for a in live if a not in names]
        if strangers:
            raise UsageError(f"agent {strangers[0]} is not among the environment's possible_agents")
        cut = [bool(truncated.get(a, False)) for a in names]
        # An agent that vanishes without a flag has died.
        died = [bool(terminated.get(a, a not in live and not cut[i])) for i, a in enumerate(names)]
        return _Shown(
            [observations.get(a) for a in names],
            np.asarray([rewards.get(a, 0.0) for a in names], np.float32),
            np.asarray(died, bool),
            np.asarray(cut, bool),
            [infos.get(a, {}).get("action_mask") for a in names],
            np.asarray([a in live for a in names], bool),
        )


def _adapt(environment: Any) -> _TupleHost | _ParallelHost:
    kind = type(environment).__name__
    if _is_native(environment):
        raise UsageError(f"{kind} is a native environment: use it as it is, without hosting")
    if hasattr(environment, "agent_iter"):
        raise UsageError(
            f"{kind} moves one agent at a time; convert it with aec_to_parallel or "
            "turn_based_aec_to_parallel of pettingzoo.utils.conversions"
        )
    if hasattr(environment, "possible_agents"):
        return _ParallelHost(environment)
    spaces = [getattr(environment, f"{word}_space", None) for word in ("observation", "action")]
    if not any(space is None or callable(space) for space in spaces):
        return _TupleHost(environment)
    raise UsageError(
        f"{kind} is neither a PettingZoo ParallelEnv (it has no possible_agents) nor a Gymnasium "
        "environment (it has no observation_space and action_space of its own)"
    )


def _is_native(environment: Any) -> bool:
    # Whoever has made a native one has imported its base; workers should not import JAX.
    base = sys.modules.get("coterie.envs.base")
    return base is not None and isinstance(environment, base.Environment)


def _per_agent(word: str, space: Any) -> list[Any]:
    if isinstance(space, _gymnasium().spaces.Tuple):
        return list(space.spaces)
    if isinstance(space, list | tuple):
        return list(space)
    raise UsageError(
        f"the {word} space is {_brief(space)}, not a Tuple or a list with one space per agent"
    )


def _vector_space(agent: str, space: Any) -> tuple[Any, bool, int]:
    """The space to flatten, whether an action mask came with it, and its flat length."""
    spaces = _gymnasium().spaces
    masked = isinstance(space, spaces.Dict) and set(space) == {"observation", "action_mask"}
    inner = space["observation"] if masked else space
    refused = f"agent {agent}'s observation space {_brief(inner)} is not supported: "
    if not isinstance(inner, spaces.Space):
        raise UsageError(refused + "it is not a Gymnasium space")
    if not inner.is_np_flattenable:
        raise UsageError(refused + "it has no fixed length, so it is no observation vector")
    size = spaces.flatdim(inner)
    if size < 1:
        raise UsageError(refused + "it is empty")
    return inner, masked, size


def _action_range(agent: str, space: Any) -> tuple[int, int]:
    """First action and number of actions."""
    if not isinstance(space, _gymnasium().spaces.Discrete):
        raise UsageError(
            f"agent {agent}'s action space {_brief(space)} is not supported: "
            "actions must be one Discrete choice per agent"
        )
    return int(space.start), int(space.n)


def _brief(space: Any) -> str:
    text = " ".join(repr(space).split())
    return text if len(text) <= 60 else type(space).__name__


def _each(word: str, values: Any, dtype: Any, n: int) -> np.ndarray:
    """One value per agent, where one for all stands for each."""
    given = np.asarray(values, dtype)
    if given.shape not in ((), (n,)):
        raise UsageError(f"{word} has shape {given.shape}; one for all or one per agent is needed")
    return np.broadcast_to(given, n)


def _open_hosted(make: Callable[[], Any], time_limit: int | None) -> HostedEnvironment:
    return HostedEnvironment(make(), time_limit)


def _open_gymnasium(name: str, identity: str) -> Any:
    gymnasium = _gymnasium()
    try:
        # The checker knows one agent only, and warns of every list of rewards.
        return gymnasium.make(identity, disable_env_checker=True)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _not_importable(name, identity, error) from error


def _open_callable(name: str, module: str, attribute: str) -> Any:
    make = _find_callable(name, module, attribute)
    try:
        return make()
    except ImportError as error:
        raise _not_importable(name, module, error) from error


def _check_gymnasium_id(name: str, rest: str) -> None:
    gymnasium = _gymnasium()
    module, _, identity = rest.rpartition(":")
    if module:
        _import(name, module)
    try:
        gymnasium.spec(identity)
    except gymnasium.error.Error as error:
        prefix = f"gymnasium:{module}:" if module else "gymnasium:"
        near = difflib.get_close_matches(identity, gymnasium.registry, n=1, cutoff=0.7)
        hint = f"did you mean {prefix}{near[0]}?" if near else "it is not registered"
        if not module:
            hint += " (where a package registers the id: gymnasium:<package>:<id>)"
        raise UsageError(f"Gymnasium has no environment {identity!r}; {hint}") from error


def _find_callable(name: str, module: str, attribute: str) -> Callable[[], Any]:
    found: Any = _import(name, module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{name}: {module} has no {attribute}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{name}: {attribute} of {module} is not callable")
    return found


def _import(name: str, module: str) -> ModuleType:
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"{name}: {module!r} is not the name of a module")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _not_importable(name, module, error) from error


def _not_importable(name: str, module: str, error: Exception) -> UsageError:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing in _EXTRAS:
        extra = _EXTRAS[missing]
        return UsageError(f"{name} needs {missing}: pip install 'coterie[{extra}]'")
    if missing and f"{module}.".startswith(f"{missing}."):
        return UsageError(f"{name}: there is no module {missing}")
    if missing:
        return UsageError(f"{name}: {module} needs {missing}, which is not installed")
    return UsageError(f"{name}: {module} cannot be imported: {' '.join(str(error).split())}")


def _gymnasium() -> Any:
    return _import("a hosted environment", "gymnasium")
