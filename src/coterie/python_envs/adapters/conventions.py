"""The conventions of Python environments, as one: PettingZoo's two, and Gymnasium's two."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coterie.errors import UsageError
from coterie.python_envs.adapters.agent_spaces import Convention
from coterie.python_envs.adapters.refusals import reason
from coterie.python_envs.adapters.spaces import Nonsense, brief, gymnasium
from coterie.shapes import Bool, Float32


class RawStep(NamedTuple):
    """What the conventions show alike, one entry per agent; ``None`` for nothing shown.

    Attributes:
        present: agents that the environment lists.
        rewards, terminated, truncated: each agent's own.
        idle: agents that have no choice, because it is another's turn.
        vanished: agents that took part and are neither listed nor flagged any more.
        lingering: agents that are flagged and still listed.
        infos: what the environment calls so, as it came.
    """

    observations: Sequence[Any]
    rewards: Float32[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    masks: Sequence[Any]
    present: Bool[np.ndarray, " N"]
    idle: Bool[np.ndarray, " N"]
    vanished: Bool[np.ndarray, " N"]
    lingering: Bool[np.ndarray, " N"]
    infos: Any


class TupleHost:
    """Gymnasium with one space per agent: lists in and out, in the order of the agents.

    Args:
        time_limit: steps after which the environment itself truncates, where it says so.
    """

    def __init__(self, environment: Any, time_limit: int | None = None) -> None:
        self._environment, self.time_limit = environment, time_limit
        single = isinstance(environment, TeamOfOne)
        self.convention: Convention = "single" if single else "tuple"
        self.observation_spaces = _per_agent("observation", environment.observation_space)
        self.action_spaces = _per_agent("action", environment.action_space)
        n, m = len(self.observation_spaces), len(self.action_spaces)
        if n != m:
            raise UsageError(f"the environment has {n} observation spaces but {m} action spaces")
        self.agents = tuple(f"agent_{i}" for i in range(n))
        self._nobody, self._everybody = constant_flags(n)

    def reset(self, seed: int | None) -> RawStep:
        observations, info = _values("reset", self._environment.reset(seed=seed), _RESET)
        return self._shown(self._everybody, observations, 0.0, False, False, info)

    def step(self, actions: list[Any], alive: Bool[np.ndarray, " N"]) -> RawStep:
        # This convention asks every agent for an action, the dead too.
        return self._shown(alive, *_values("step", self._environment.step(actions), _STEP))

    def close(self) -> None:
        _close(self._environment)

    def _shown(
        self,
        acted: Bool[np.ndarray, " N"],
        observations: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        info: Any,
    ) -> RawStep:
        n = len(self.agents)
        masks = info.get("action_mask") if isinstance(info, Mapping) else None
        masks = [None] * n if masks is None else masks
        for what, given in (("observations", observations), ("action masks", masks)):
            if not hasattr(given, "__len__"):
                raise Nonsense(f"the {what} are a {type(given).__name__}, not one for each agent")
            if len(given) != n:
                raise Nonsense(f"there are {n} agents, but {len(given)} {what} were given")
        return RawStep(
            observations,
            _payments(rewards, acted),
            self._flags("terminated", terminated),
            self._flags("truncated", truncated),
            masks,
            self._everybody,
            self._nobody,
            self._nobody,
            self._nobody,
            info,
        )

    def last_infos(self, infos: Any, leaving: Bool[np.ndarray, " N"], over: bool) -> list[Any]:
        """The infos of a step that are logged: the only one, at an episode's end."""
        del leaving
        return [infos] if over else []

    def _flags(self, word: str, given: Any) -> Bool[np.ndarray, " N"]:
        if isinstance(given, (bool, np.bool_)):
            return self._everybody if given else self._nobody
        return _numbers(word, given, len(self.agents)).astype(bool)


class TeamOfOne:
    """A single-agent Gymnasium environment in the convention of one space per agent."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.observation_space = [environment.observation_space]
        self.action_space = [environment.action_space]

    def reset(self, seed: int | None) -> Any:
        observation, info = _values("reset", self._environment.reset(seed=seed), _RESET)
        return [observation], _of_one(info)

    def step(self, actions: list[Any]) -> Any:
        observation, *facts, info = _values("step", self._environment.step(actions[0]), _STEP)
        return [observation], *facts, _of_one(info)

    def close(self) -> None:
        _close(self._environment)


class ParallelHost:
    """PettingZoo's ParallelEnv: dictionaries by agent, of those that take part.

    Args:
        convention: ``aec`` where it was made of one in which agents move one after the other.
    """

    time_limit: int | None = None

    def __init__(self, environment: Any, convention: Convention) -> None:
        self._environment = environment
        self.convention: Convention = convention
        self._turn = _turn(environment)
        self._names = list(environment.possible_agents)
        self.agents = tuple(str(name) for name in self._names)
        self.observation_spaces = [environment.observation_space(a) for a in self._names]
        self.action_spaces = [environment.action_space(a) for a in self._names]
        self._possible = frozenset(self._names)
        self._nobody, _ = constant_flags(len(self._names))

    def reset(self, seed: int | None) -> RawStep:
        observations, infos = _values("reset", self._environment.reset(seed=seed), _RESET)
        return self._shown(self._nobody, observations, {}, {}, {}, infos)

    def step(self, actions: list[Any], alive: Bool[np.ndarray, " N"]) -> RawStep:
        chosen = {a: actions[i] for i, a in enumerate(self._names) if alive[i]}
        return self._shown(alive, *_values("step", self._environment.step(chosen), _STEP))

    def close(self) -> None:
        _close(self._environment)

    def _shown(
        self,
        acted: Bool[np.ndarray, " N"],
        observations: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        infos: Any,
    ) -> RawStep:
        names, live = self._names, self._environment.agents
        by_agent = (observations, rewards, terminated, truncated, infos)
        for word, given in zip(_STEP, by_agent):
            if not isinstance(given, Mapping):
                raise Nonsense(f"{word} are a {type(given).__name__}, not dictionaries by agent")
        for where, given in (("agents", live), *zip(_STEP[:4], by_agent[:4])):
            if not self._possible.issuperset(given):
                stranger = next(a for a in given if a not in self._possible)
                raise Nonsense(
                    f"it appears in {where}, but is not among possible_agents", str(stranger)
                )
        present = np.asarray([a in live for a in names], bool)
        cut = self._flags(truncated)
        flagged = self._flags(terminated)
        vanished = lingering = idle = self._nobody
        if np.count_nonzero(acted > present) or flagged is not cut:
            vanished = acted & ~present & ~flagged & ~cut
            flagged = flagged | vanished  # an agent that vanishes without a flag has died
            lingering = present & (flagged | cut)
        if self._turn:
            mover = self._turn()
            idle = np.asarray([a != mover for a in names], bool)
        return RawStep(
            [observations.get(a) for a in names],
            self._paid(acted, rewards),
            flagged,
            cut,
            [(infos.get(a) or {}).get("action_mask") for a in names],
            present,
            idle,
            vanished,
            lingering,
            infos,
        )

    def last_infos(self, infos: Any, leaving: Bool[np.ndarray, " N"], over: bool) -> list[Any]:
        """The infos of a step that are logged: those of the agents that leave in it."""
        del over
        return [infos.get(self._names[i]) for i in np.flatnonzero(leaving).tolist()]

    def _flags(self, given: Mapping[Any, Any]) -> Bool[np.ndarray, " N"]:
        """A flag per agent; ``_nobody`` itself if it is nobody's."""
        if not any(given.values()):
            return self._nobody
        return np.asarray([given.get(a, False) for a in self._names], bool)

    def _paid(self, acted: Bool[np.ndarray, " N"], rewards: Any) -> Float32[np.ndarray, " N"]:
        paid = np.zeros(len(self._names), np.float32)
        for i in np.flatnonzero(acted).tolist():
            name = self._names[i]
            if name not in rewards:
                raise Nonsense("no reward was given; every agent that acted needs one", str(name))
            paid[i] = _number(rewards[name], str(name))
        return paid


def adapt(environment: Any) -> TupleHost | ParallelHost:
    """The environment behind one face, whatever its convention.

    Environments that move one agent at a time go through PettingZoo's own conversions:
    ``aec_to_parallel`` where their metadata calls them parallelizable, otherwise
    ``turn_based_aec_to_parallel``.

    Raises:
        UsageError: it follows none.
    """
    with warnings.catch_warnings():
        # Wrappers of Gymnasium before 1.0 warn when they are asked for what they do not have.
        warnings.filterwarnings("ignore", ".*from other wrappers is deprecated")
        return _adapted(environment)


def _adapted(environment: Any) -> TupleHost | ParallelHost:
    kind = type(environment).__name__
    if is_jax_env(environment):
        raise UsageError(f"{kind} is a JAX environment: use it as it is")
    if sentence := reason(environment):
        raise UsageError(sentence)
    if hasattr(environment, "agent_iter"):
        return ParallelHost(_in_parallel(environment), "aec")
    if hasattr(environment, "possible_agents"):
        return ParallelHost(environment, "parallel")
    if is_single_agent(environment):
        return TupleHost(TeamOfOne(environment), _own_limit(environment))
    return TupleHost(environment)


def is_single_agent(environment: Any) -> bool:
    """Whether its spaces are one agent's: no action space for each of several."""
    spaces = gymnasium().spaces
    seen = getattr(environment, "observation_space", None)
    action = getattr(environment, "action_space", None)
    is_one = isinstance(action, spaces.Space) and not isinstance(action, spaces.Tuple)
    return is_one and isinstance(seen, spaces.Space)


def state_of(environment: Any) -> Callable[[], Any] | None:
    """What gives the environment's state, where its author has written it."""
    base = getattr(environment, "unwrapped", environment)
    written = getattr(type(base), "state", None)
    # PettingZoo's own classes have a state() that only refuses.
    if not callable(written) or getattr(written, "__module__", "") == "pettingzoo.utils.env":
        return None
    return environment.state if hasattr(type(environment), "state") else base.state


_LARGEST = float(np.finfo(np.float32).max)
_RESET = ("observations", "infos")
_STEP = ("observations", "rewards", "terminations", "truncations", "infos")


def _values(call: str, given: Any, expected: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(given, (tuple, list)) or len(given) != len(expected):
        count = f"{len(given)} values" if isinstance(given, tuple) else type(given).__name__
        raise Nonsense(f"{call} returned {count}; it must return {', '.join(expected)}")
    return tuple(given)


def constant_flags(n: int) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """A flag per agent that is always down, and one that is always up."""
    down, up = np.zeros(n, bool), np.ones(n, bool)
    down.flags.writeable = up.flags.writeable = False
    return down, up


def _payments(rewards: Any, acted: Bool[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
    """One reward per agent; one for all counts for each.

    Those of agents that are dead are 0 unless they are finite numbers.
    """
    n = len(acted)
    if isinstance(rewards, (list, tuple)) and len(rewards) == n and all(map(_payable, rewards)):
        return np.asarray(rewards, np.float32)  # by far the most frequent, and much faster
    return _numbers("reward", rewards, n, acted)


def _payable(reward: Any) -> bool:
    number = isinstance(reward, (float, int, np.floating, np.integer))
    return number and bool(abs(reward) <= _LARGEST)


def _numbers(
    word: str, values: Any, n: int, counts: Bool[np.ndarray, " N"] | None = None
) -> Float32[np.ndarray, " N"]:
    """One number per agent, where one for all stands for each.

    Args:
        counts: the agents whose numbers must be finite, all unless given; the others' become 0.
    """
    try:
        given = np.asarray(values)
    except ValueError:
        given = np.asarray(None)
    if given.dtype.kind not in "biuf":
        raise Nonsense(f"{word} is {values!r:.40}, not a number; make it one")
    if given.shape not in ((), (n,)):
        raise Nonsense(f"{word} has shape {given.shape}; one for all or one per agent is needed")
    usable = np.abs(given) <= _LARGEST  # NaN is not
    if counts is not None:
        given = np.where(usable | counts, given, 0)
        usable = usable | ~counts
    if not usable.all():
        raise Nonsense(f"{word} is {values!r:.40}; make it a finite number of 32 bits")
    return np.broadcast_to(given.astype(np.float32), n)


def _number(reward: Any, agent: str) -> float:
    if _payable(reward):
        return float(reward)
    try:
        return float(_numbers("reward", reward, 1)[0])
    except Nonsense as error:
        raise Nonsense(str(error), agent) from None


def _of_one(info: Any) -> Any:
    """An info whose action mask is that of each of one agents."""
    if not isinstance(info, Mapping) or info.get("action_mask") is None:
        return info
    return {**info, "action_mask": [info["action_mask"]]}


def _own_limit(environment: Any) -> int | None:
    """Steps after which Gymnasium's registry says that it truncates; None where it does not."""
    limit = getattr(getattr(environment, "spec", None), "max_episode_steps", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _close(environment: Any) -> None:
    """Not every environment holds something that needs closing."""
    close = getattr(environment, "close", None)
    if close is not None:
        close()


def is_jax_env(environment: Any) -> bool:
    """Whether it is one of Coterie's own kind."""
    # Whoever has made a JAX environment has imported its base; workers should not import JAX.
    base = sys.modules.get("coterie.envs.base")
    return base is not None and isinstance(environment, base.Environment)


def _in_parallel(environment: Any) -> Any:
    from pettingzoo.utils import conversions

    together = getattr(environment, "metadata", {}).get("is_parallelizable", False)
    convert = conversions.aec_to_parallel if together else conversions.turn_based_aec_to_parallel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what cannot be drawn, which is not asked for
        return convert(environment)


def _turn(environment: Any) -> Callable[[], Any] | None:
    """What names the agent whose turn it is; None where all move at once."""
    conversions = sys.modules.get("pettingzoo.utils.conversions")
    if conversions and isinstance(environment, conversions.turn_based_aec_to_parallel_wrapper):
        return lambda: environment.aec_env.agent_selection
    return None


def _per_agent(word: str, space: Any) -> list[Any]:
    if isinstance(space, gymnasium().spaces.Tuple):
        return list(space.spaces)
    if isinstance(space, (list, tuple)):
        return list(space)
    raise UsageError(
        f"the {word} space is {brief(space)}, not a Tuple or a list with one space per agent"
    )
