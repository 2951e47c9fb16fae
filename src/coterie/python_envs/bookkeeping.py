"""Seeds of episodes, the budget of restarts, and what wall clock was spent on."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from coterie.errors import EnvironmentFault
from coterie.python_envs.workers.worker import Fault

TRAINING, EVALUATION, FINAL_EVALUATION = 0, 1, 2
"""First word of an episode's seed: what it is played for."""


class Totals(NamedTuple):
    """Of the episodes that ended: their number [S], returns [S, R], lengths [S]."""

    episodes: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray


WORDS = ("environment", "acting", "learning")


class Seconds:
    """Wall clock by what it was spent on: waiting for environments, acting, learning."""

    def __init__(self) -> None:
        self.environment = self.acting = self.learning = 0.0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Leaves out the time before this call."""
        self._last = time.perf_counter()

    def spent(self, on: str) -> None:
        """The time since the last call was spent on this."""
        now = time.perf_counter()
        setattr(self, on, getattr(self, on) + now - self._last)
        self._last = now


class Restarts:
    """A budget of environments that may fail, for a whole run."""

    def __init__(self, name: str, allowed: int, used: int = 0) -> None:
        self.name, self.allowed, self.used = name, allowed, used

    def charge(self, fault: Fault, whose: str, seed: int) -> None:
        """Counts one failure; EnvironmentFault once there were too many."""
        if fault.lost:
            return
        self.used += 1
        if self.used <= self.allowed:
            return
        many = f" ({self.allowed} restarts were allowed)" if self.allowed else ""
        name = f"{self.name} ({whose})"
        _, step, agent, what, original, _ = fault
        raise EnvironmentFault(what + many, name, agent, step, seed, original)


def episode_seed(*words: int) -> int:
    """A seed of an episode, below 2^31, from what it is played for, by whom, and its number."""
    return int(np.random.SeedSequence(words).generate_state(1)[0]) >> 1
