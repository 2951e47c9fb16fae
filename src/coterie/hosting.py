"""How a run hosts Python environments: settings, opening them, what they pay."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from coterie.envs._process import OutOfTime, within
from coterie.envs._seat import NO_SEED, OPENING, RESET, STEP, Limits
from coterie.envs.fleet import Hosted, can_be_sent, copies_of, make_fleet
from coterie.envs.hosted import HostedEnvironment, open_factory
from coterie.errors import EnvironmentFault, UsageError, described
from coterie.settings import Restarts, TimeLimit, Timeout, Workers, check
from coterie.spec import EnvSpec

PROBE_EPISODES, PROBE_STEPS = 5, 1_000
"""Random play before training: at most so much."""


@dataclass(frozen=True)
class Hosting:
    """Settings of hosted (Python) environments."""

    workers: Workers | None = None
    """Processes the environments are spread over, one a core unless given; 0 for none but this."""
    time_limit: TimeLimit | None = None
    """The longest episode: an episode that ends at this step is truncated, whatever it reports."""
    step_timeout: Timeout = 60.0
    """Seconds an environment may take for one step or reset before it counts as stuck."""
    restarts: Restarts = 0
    """How many faulty environments training replaces, their episodes dropped, before it gives up;
    the evaluation at the end may replace as many."""

    def __post_init__(self) -> None:
        check(self)

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


def find_factory(
    name: str, options: dict[str, Any], hosting: Hosting | None = None
) -> Callable[[], Any]:
    """What makes the environment of this name, which is imported; see ``open_factory``.

    Raises:
        UsageError: there is no such module, id or callable, or a package is not installed.
        EnvironmentFault: its module raises, or is not imported in time.
    """
    with within((hosting or Hosting()).step_timeout + OPENING, name):
        return open_factory(name, options)


def make_one(name: str, make: Callable[[], Any], hosting: Hosting | None = None) -> Any:
    """What a user's callable makes.

    Raises:
        EnvironmentFault: it raises, or does not return in time.
    """
    with within((hosting or Hosting()).step_timeout + OPENING, name):
        try:
            return make()
        except (UsageError, EnvironmentFault, KeyboardInterrupt, OutOfTime):
            raise
        except BaseException as error:
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

    Raises:
        EnvironmentFault: there was one, and none is allowed.
    """
    paid = False
    try:
        for rewards, _ in _random_play(hosted, hosting, PROBE_EPISODES):
            # The dead count too: a mean over all is not what the living were paid.
            if np.ptp(rewards) > 0:
                return False
            paid |= bool(rewards.any())
    except EnvironmentFault:
        if not hosting.restarts:
            raise
    return paid


def episode_length(hosted: Hosted, hosting: Hosting) -> int:
    """Steps of an episode: its time limit, or as long as random play lasted once.

    A fault ends the play; whoever plays on will meet it.
    """
    if hosted.promise.time_limit is not None:
        return hosted.promise.time_limit
    steps = 0
    with contextlib.suppress(EnvironmentFault):
        for _ in _random_play(hosted, hosting, 1):
            steps += 1
    return max(steps, 1)


def _random_play(
    hosted: Hosted, hosting: Hosting, episodes: int
) -> Iterator[tuple[Float32[np.ndarray, " N"], bool]]:
    """Rewards of each step of legal random play, and whether it ended an episode.

    In a process of its own where training has such: what ends the process does not end ours.
    """
    rng, steps = np.random.default_rng(0), 0
    limits = Limits(hosting.step_timeout)
    with contextlib.closing(
        make_fleet(hosted, [[0]], limits, min(1, hosting.processes()))
    ) as fleet:
        rows = fleet.rows

        def move(command: int) -> None:
            rows.command[0] = command
            fleet.start(0)
            for _, step, agent, what, original, _ in fleet.wait(0):
                raise EnvironmentFault(what, hosted.name, agent, step, episode, original)

        for episode in range(episodes):
            rows.seed[0] = episode
            move(RESET)
            rows.seed[0] = NO_SEED
            masks, over = rows.start.action_mask[0], False
            while steps < PROBE_STEPS and not over:
                # A legal action for each agent; 0 where none is legal.
                rows.actions[0] = np.argmax(rng.random(masks.shape) * masks, axis=-1)
                move(STEP)
                steps += 1
                masks, over = rows.led.action_mask[0], bool(rows.terminated[0] | rows.truncated[0])
                yield rows.rewards[0].copy(), over


__all__ = [
    "Hosting", "copies_of", "digest", "episode_length", "find_factory", "is_python_environment",
    "make_one", "open_hosted", "pays_in_common", "settle",
]  # fmt: skip
