"""Seeds of episodes, the budget of restarts, and what wall clock was spent on."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from coterie.errors import EnvironmentFault
from coterie.python_envs.adapters.infos import MOST_NAMES, Reported
from coterie.python_envs.workers.worker import Fault

TRAINING, EVALUATION, FINAL_EVALUATION, FILM = range(4)
"""First word of an episode's seed: what it is played for."""


class Totals(NamedTuple):
    """Of the episodes that ended: their number [S], returns [S, R], lengths [S]."""

    episodes: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray


class Reports:
    """Numbers that environments reported of their episodes: sums, by name and for each of R groups.

    Args:
        content: what ``content`` of another one holds, to go on from.
    """

    def __init__(self, groups: int, content: dict[str, Any] | None = None) -> None:
        self.groups = groups
        self._sums = {name: np.array(sums, float) for name, sums in (content or {}).items()}
        self.left_out: dict[str, None] = {}
        """Names of entries that were no finite numbers, or beyond the number of names."""

    def add(self, group: int, report: Reported) -> None:
        """Adds one episode's."""
        for name, value in report.items():
            if value is None or (name not in self._sums and len(self._sums) == MOST_NAMES):
                self.left_out[name] = None
            else:
                sums = self._sums.setdefault(name, np.zeros((2, self.groups)))
                sums[:, group] += value, 1

    def means(self) -> dict[str, np.ndarray]:
        """By name [R] the mean over a group's episodes that reported it; NaN where none did."""
        return {
            name: np.divide(total, count, np.full(self.groups, np.nan), where=count > 0)
            for name, (total, count) in self._sums.items()
        }

    def content(self) -> dict[str, Any]:
        """All that is kept, for a checkpoint."""
        return {name: sums.tolist() for name, sums in self._sums.items()}


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
