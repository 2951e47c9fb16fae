"""How a run hosts Python environments: settings, opening them, what they pay."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.envs._seat import OPENING, within
from coterie.envs.fleet import Hosted, can_be_sent, copies_of
from coterie.envs.hosted import HostedEnvironment
from coterie.errors import EnvironmentFault, UsageError, described
from coterie.spec import EnvSpec

PROBE_EPISODES, PROBE_STEPS = 5, 1_000
"""Random play that looks whether all agents are paid alike: at most so much."""


@dataclass(frozen=True)
class Hosting:
    """Settings of hosted (Python) environments."""

    workers: int | None = None
    """Processes the environments are spread over, one a core unless given; 0 for none but this."""
    time_limit: int | None = None
    """The longest episode: an episode that ends at this step is truncated, whatever it reports."""
    step_timeout: float = 60.0
    """Seconds an environment may take for one step or reset before it counts as stuck."""
    restarts: int = 0
    """How many faulty environments training replaces, their episodes dropped, before it gives up;
    the evaluation at the end may replace as many."""

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("restarts", 0), ("time_limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")
        if not 0 < self.step_timeout < float("inf"):
            raise UsageError(f"step_timeout must be positive; got {self.step_timeout}")

    def processes(self) -> int:
        """Worker processes, as a number."""
        return (os.cpu_count() or 1) if self.workers is None else self.workers


def settle(
    hosting: Hosting | None, environment: Any, name: str
) -> tuple[Hosting | None, list[str]]:
    """The settings of a run, and sentences about them; None for a native environment.

    Raises:
        UsageError: settings of hosted environments were given for a native one.
    """
    if not isinstance(environment, Hosted):
        if hosting not in (None, Hosting()):
            raise UsageError(
                f"{name} is compiled: workers, time_limit, step_timeout and restarts are settings "
                "of Python environments"
            )
        return None, []
    hosting = hosting or Hosting()
    if hosting.workers is None and not can_be_sent(environment.make):
        alone = dataclasses.replace(hosting, workers=0)
        return alone, [f"{name} cannot be sent to other processes: it is stepped in this one"]
    return dataclasses.replace(hosting, workers=hosting.processes()), []


def is_python_environment(thing: Any) -> bool:
    """Whether an object is (or looks like) a PettingZoo or Gymnasium environment."""
    if isinstance(thing, type | str):
        return False
    return hasattr(thing, "possible_agents") or (
        hasattr(thing, "action_space") and hasattr(thing, "observation_space")
    )


def open_hosted(
    name: str,
    make: Callable[[], Any],
    hosting: Hosting | None = None,
    state: bool = False,
    made: Any = None,
) -> Hosted:
    """A Python environment, of which one is made to see what it promises.

    Args:
        make: makes the environment as its author meant it.
        state: whether its ``state()`` is wanted.
        made: one that was made already; it is closed.
    """
    hosting = hosting or Hosting()
    host = functools.partial(
        HostedEnvironment, time_limit=hosting.time_limit, name=name, central=state
    )
    made = make_one(name, make, hosting) if made is None else made
    with within(hosting.step_timeout + OPENING, name):
        env = host(made)
        env.close()
    return Hosted(name, functools.partial(_make, make, host), env.spec)


def make_one(name: str, make: Callable[[], Any], hosting: Hosting | None = None) -> Any:
    """What a user's callable makes.

    Raises:
        EnvironmentFault: it raises, or does not return in time.
    """
    with within((hosting or Hosting()).step_timeout + OPENING, name):
        try:
            return make()
        except (UsageError, EnvironmentFault):
            raise
        except Exception as error:
            what = f"raised as it was made: {described(error)}"
            raise EnvironmentFault(what, name) from error


def _make(make: Callable[[], Any], host: Callable[[Any], HostedEnvironment]) -> HostedEnvironment:
    return host(make())


def digest(spec: EnvSpec) -> str:
    """A digest of all that an environment promises."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(spec)).encode()).hexdigest()


def pays_in_common(hosted: Hosted, hosting: Hosting) -> bool:
    """Whether random play saw rewards, and all agents were always paid the same.

    Where faults are allowed the first one ends the play.
    """
    rng, paid, steps, limit = np.random.default_rng(0), False, 0, hosting.step_timeout
    env = hosted.make()
    try:
        for episode in range(PROBE_EPISODES):
            with within(limit, hosted.name):
                shown = env.reset(episode)
            while steps < PROBE_STEPS and not (shown.terminated or shown.truncated):
                with within(limit, hosted.name):
                    shown = env.step(_random_actions(rng, shown.action_mask))
                steps += 1
                # The dead count too: a mean over all is not what the living were paid.
                if np.ptp(shown.rewards) > 0:
                    return False
                paid |= bool(shown.rewards.any())
    except EnvironmentFault:
        if not hosting.restarts:
            raise
    finally:
        env.close()
    return paid


def episode_length(hosted: Hosted, hosting: Hosting) -> int:
    """Steps of an episode: its time limit, or as long as random play lasted once."""
    if hosted.promise.time_limit is not None:
        return hosted.promise.time_limit
    rng, steps = np.random.default_rng(0), 0
    env = hosted.make()
    try:
        with within(hosting.step_timeout, hosted.name):
            shown = env.reset(0)
        while steps < PROBE_STEPS and not (shown.terminated or shown.truncated):
            with within(hosting.step_timeout, hosted.name):
                shown = env.step(_random_actions(rng, shown.action_mask))
            steps += 1
    except EnvironmentFault:
        if not hosting.restarts:
            raise
    finally:
        env.close()
    return max(steps, 1)


def _random_actions(rng: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    """A legal action for each agent; 0 where none is legal."""
    return np.argmax(rng.random(masks.shape) * masks, axis=-1)


__all__ = [
    "Hosting", "copies_of", "digest", "episode_length", "is_python_environment", "make_one",
    "open_hosted", "pays_in_common", "settle",
]  # fmt: skip
