"""Whether an environment keeps the promises that learning relies on.

``check_env`` plays random legal episodes and says, each in one sentence, what is wrong and what to
change. JAX environments are checked too; JAX is imported only for those.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Union

import numpy as np

from coterie.errors import EnvironmentFault, UsageError, described
from coterie.naming import PACKAGES, is_code, package_of
from coterie.python_envs.adapters.conventions import is_jax_env
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.lookup import open_factory, title
from coterie.python_envs.adapters.random_actions import random_actions
from coterie.python_envs.adapters.spaces import Nonsense
from coterie.python_envs.check.able import VECTORS, Able, listed
from coterie.python_envs.check.compiled import Compiled
from coterie.python_envs.check.findings import Beat, Finding, Report
from coterie.python_envs.check.observations import Held, OutsideSpace, outside_space, rounded
from coterie.python_envs.process import undisturbed
from coterie.shapes import Float32, Integer
from coterie.spec import EnvSpec, TimeStep

MOST_STEPS = 10_000
"""An episode without a time limit that is longer is taken to have no end."""

SLOW_SECONDS = 0.02
"""A step that takes longer is worth a word."""

_Actions = Union[Integer[np.ndarray, " N"], Float32[np.ndarray, "N P"]]


def check_env(
    environment: Any,
    episodes: int = 5,
    seed: int = 0,
    time_limit: int | None = None,
    tell: Callable[[Beat | Finding], None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Plays random legal episodes in this process, and reports what is wrong.

    Args:
        environment: an environment, a callable that returns one, a module of PettingZoo's kind,
            or a name.
        episodes: how many; their seeds are ``seed``, ``seed + 1``, ...
        time_limit: steps after which an episode is cut, as ``PythonEnv`` takes it.
        tell: called with every call before it is made, and with every finding once.
        options: keywords for what makes an environment that has a name.

    Raises:
        UsageError: the name leads nowhere, a package is missing, or a number makes no sense.
    """
    for word, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(f"{word} must be at least {least}; got {value}")
    with undisturbed():
        session = _Session(title(environment), time_limit, tell)
        return _check(environment, options or {}, episodes, seed, session)


def _check(
    environment: Any, options: Mapping[str, Any], episodes: int, seed: int, session: _Session
) -> Report:
    try:
        make, several = _maker(environment, options)
    except EnvironmentFault as fault:
        session.add(fault.what)
        return session.report()
    env = session.open(make)
    if env is None:
        return session.report()
    session.spec = env.spec
    for k in range(episodes):
        if not session.play(env, seed + k):
            break
    if session.complete is not None:
        _repeat(session, session.complete, env, make if several else None)
    session.look_back()
    session.close(env)
    return session.report()


def _repeat(
    session: _Session,
    first: _Episode,
    env: PythonEnv | Compiled,
    make: Callable[[], Any] | None,
) -> None:
    """The first episode once more: in another instance, and in the same after other episodes."""
    same, chance = True, "take all random numbers from a generator that reset(seed) seeds"
    if make is None:
        chance += ", and reset everything else"
    elif other := session.open(make):
        same = session.replay(other, first, ", in another instance,", chance)
        session.close(other)
        chance = "reset must forget all earlier episodes"
    if same:
        session.replay(env, first, ", after other episodes,", chance)


@dataclass
class _Episode:
    """What was done, and fingerprints of what was shown before and after each step."""

    seed: int
    actions: list[_Actions] = field(default_factory=list)
    prints: list[dict[str, int]] = field(default_factory=list)


class _Session:
    """Everything that is played and found in one check."""

    def __init__(
        self,
        name: str,
        time_limit: int | None,
        tell: Callable[[Beat | Finding], None] | None,
    ) -> None:
        self.complete: _Episode | None = None
        self.spec: EnvSpec | None = None
        self._name, self._time_limit = name, time_limit
        self._tell = tell or (lambda news: None)
        self._found: dict[tuple[str, str | None, str], Finding] = {}
        self._seconds: list[float] = []
        self._ends: list[tuple[int, bool]] = []
        self._able = Able()
        self._is_jax = False
        self._apart: PythonEnv | None = None

    def open(self, make: Callable[[], Any]) -> PythonEnv | Compiled | None:
        """The environment behind one face; None if it cannot be had."""
        self._tell(Beat("making it", None))
        try:
            made = make()
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            self.add(f"it cannot be made: {described(error)}")
            return None
        try:
            if is_jax_env(made):
                self._is_jax = True
                env = Compiled(made, self._time_limit, self._name)
                self._able.see(env.spec)
                return env
            return self._python_env(made)
        except UsageError as error:
            self.add(str(error))
        except EnvironmentFault as fault:
            self.add(fault.what, fault.agent, fault.step)
        except (Exception, SystemExit) as error:
            self.add(f"it cannot be opened: {described(error)}")
        return None

    def _python_env(self, made: Any) -> PythonEnv:
        """It as most algorithms see it, where there are two ways."""
        apart = PythonEnv(made, self._time_limit, self._name, combined=False)
        self._able.see(apart.spec)
        if not apart.spec.actions or any(space.low for space in apart.spec.actions):
            return apart
        try:
            combined = PythonEnv(made, self._time_limit, self._name)
        except UsageError as error:
            self._able.single = str(error)
            return apart
        self._able.single, self._apart = None, apart
        return combined

    def play(self, env: PythonEnv | Compiled, seed: int) -> bool:
        """One episode of random legal actions; whether it makes sense to play more."""
        rng, episode, held = np.random.default_rng(seed), _Episode(seed), Held()

        def choose(shown: TimeStep) -> _Actions:
            if isinstance(env, PythonEnv) and env.shown is not None:
                held.keep(env.spec.agents, env.shown.observations)
            episode.actions.append(random_actions(env.spec, shown.action_mask, rng))
            return episode.actions[-1]

        shown = None
        try:
            for t, shown in self._steps(env, seed, choose):
                self._look(env, held, t, shown)
                episode.prints.append(_print(shown, env.spec.agents))
        except EnvironmentFault as fault:
            self.add(fault.what, fault.agent, fault.step)
            return True
        if not shown or not (shown.terminated or shown.truncated):
            self.add(
                f"the episode goes on after {MOST_STEPS} steps of random play; end it in the "
                "environment, or name a time limit"
            )
            return False
        self._ends.append((len(episode.actions), shown.terminated))
        self.complete = self.complete or episode
        return True

    def replay(self, env: PythonEnv | Compiled, episode: _Episode, where: str, advice: str) -> bool:
        """Whether the same seed and actions show the same again."""
        actions = iter(episode.actions)
        try:
            steps = self._steps(env, episode.seed, lambda shown: next(actions))
            for expected, (t, shown) in zip(episode.prints, steps):
                found = _print(shown, env.spec.agents)
                differing = [word for word in expected if expected[word] != found[word]]
                if differing:
                    self.add(
                        f"the same seed and actions{where} gave other {differing[0]}; {advice}",
                        step=t,
                    )
                    return False
        except EnvironmentFault as fault:
            self.add(
                f"the same seed and actions{where} gave another result: {fault.what}; {advice}",
                fault.agent, fault.step,
            )  # fmt: skip
            return False
        return True

    def _steps(
        self,
        env: PythonEnv | Compiled,
        seed: int,
        choose: Callable[[TimeStep], _Actions],
    ) -> Iterator[tuple[int, TimeStep]]:
        """The steps of one episode and what they showed; it is left when it does not end."""
        self._tell(Beat("reset", 0))
        shown = env.reset(seed)
        yield 0, shown
        for t in range(1, MOST_STEPS + 1):
            if shown.terminated or shown.truncated:
                return
            actions = choose(shown)
            self._tell(Beat("step", t))
            began = time.perf_counter()
            shown = env.step(actions)
            self._seconds.append(time.perf_counter() - began)
            yield t, shown

    def close(self, env: PythonEnv | Compiled) -> None:
        self._tell(Beat("close", None))
        try:
            env.close()
        except EnvironmentFault as fault:
            self.add(fault.what)

    def look_back(self) -> None:
        """What only several episodes show."""
        lengths = {length for length, _ in self._ends}
        only_terminated = all(terminated for _, terminated in self._ends)
        length = max(lengths, default=0)
        if len(self._ends) >= 3 and lengths == {length} and only_terminated and length > 1:
            self.add(
                f"every episode terminated after exactly {length} steps, as if it ran out of "
                f"time; {self._about_time(length)}",
                violation=False,
            )
        seconds = self._median_seconds()
        if seconds > SLOW_SECONDS and not self._is_jax:
            self.add(
                f"a step takes {1000 * seconds:.0f} ms, {1 / seconds:.0f} a second, and "
                "learning will wait for it; profile the environment, or use more workers",
                violation=False,
            )

    def _about_time(self, length: int) -> str:
        """What to do about a time-out that is reported as a termination."""
        if package := package_of(self._name):
            return (
                f"{PACKAGES[package]} does not tell this from an end of the game, so learners "
                "expect no rewards after it"
            )
        limit = f"time_limit={length} in its spec" if self._is_jax else f"--time-limit {length}"
        return f"a time-out must be reported as truncated: do that, or name the limit ({limit})"

    def report(self) -> Report:
        """What was found so far."""
        return Report(
            self._name, tuple(self._found.values()), self.spec,
            tuple(length for length, _ in self._ends), len(self._seconds), self._median_seconds(),
            "" if self.spec is None else str(self._able),
        )  # fmt: skip

    def add(
        self,
        sentence: str,
        agent: str | None = None,
        step: int | None = None,
        violation: bool = True,
        field: str = "",
    ) -> None:
        """Notes a finding, the first of its kind only: numbers do not make another kind."""
        kind = (re.sub(r"[-+.\d]+(e[-+]\d+)?", "#", sentence), agent, field)
        if kind not in self._found:
            self._found[kind] = Finding(sentence, violation, agent, step)
            self._tell(self._found[kind])

    def _median_seconds(self) -> float:
        # The first one may have compiled or loaded something.
        return float(np.median(self._seconds[1:])) if len(self._seconds) > 1 else 0.0

    def _look(self, env: PythonEnv | Compiled, held: Held, step: int, shown: TimeStep) -> None:
        """At what the environment itself showed, before any of it was padded or cast."""
        for agent in sorted(held.changed()):
            self.add(
                "the step changed the array that the last step returned; return a copy "
                "(Coterie makes its own, others may not)",
                agent, step, violation=False,
            )  # fmt: skip
        if not isinstance(env, PythonEnv) or env.shown is None:
            return
        raw = env.shown
        for i in np.flatnonzero(raw.vanished).tolist():
            self.add(
                "it is no longer in agents but was neither terminated nor truncated; set one of "
                "the two in the step in which it leaves",
                env.spec.agents[i], step,
            )  # fmt: skip
        for i in np.flatnonzero(raw.lingering).tolist():
            self.add(
                "it is terminated or truncated but still in agents; remove it from agents in "
                "that step",
                env.spec.agents[i], step,
            )  # fmt: skip
        for i in np.flatnonzero(shown.alive).tolist():
            if raw.observations[i] is not None:
                inner, mask = env.spaces.split(i, raw.observations[i])
                mask = raw.masks[i] if mask is None else mask
                if self._apart and mask is not None and not raw.idle[i]:
                    self._look_at_mask(self._apart, i, mask, step)
                for outside in outside_space(env.spaces.flatteners[i].space, inner):
                    self._add_outside(outside, step, env.spec.agents[i])
        for outside in rounded(np.asarray(env.stated), "the state"):
            self._add_outside(outside, step)

    def _look_at_mask(self, apart: PythonEnv, i: int, mask: Any, step: int) -> None:
        """As algorithms see it that decide each choice by itself; the others have accepted it."""
        try:
            apart.spaces.legal(i, mask)
        except Nonsense as error:
            self._able.vectors = self._able.vectors or f"agent {apart.spec.agents[i]}: {error}"
            self.add(
                f"{listed(VECTORS)} cannot play: {error}",
                apart.spec.agents[i], step, violation=False,
            )  # fmt: skip

    def _add_outside(self, outside: OutsideSpace, step: int, agent: str | None = None) -> None:
        self.add(outside.sentence, agent, step, outside.violation, outside.field)


def _print(shown: TimeStep, agents: tuple[str, ...]) -> dict[str, int]:
    """A fingerprint of each part; the parts themselves may be large."""
    parts = {
        f"{word} of agent {agent}": zlib.crc32(np.ascontiguousarray(own).data)
        for word, each in (
            ("observations", shown.observations), ("rewards", shown.rewards),
            ("action masks", shown.action_mask), ("alive flags", shown.alive),
        )
        for agent, own in zip(agents, each)
    }  # fmt: skip
    ends = 2 * shown.terminated + shown.truncated
    return {**parts, "ends of episodes": ends, "states": zlib.crc32(shown.central.data)}


def _maker(environment: Any, options: Mapping[str, Any]) -> tuple[Callable[[], Any], bool]:
    """What makes it, and whether there can be several of it."""
    if isinstance(environment, str) and not is_code(environment):
        from coterie.jax_envs import make

        return (lambda: make(environment, **options)), True
    if isinstance(environment, (str, ModuleType, type)) or not hasattr(environment, "reset"):
        return open_factory(environment, options), True
    return (lambda: environment), False
