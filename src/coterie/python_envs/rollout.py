"""Collecting transitions in Python environments: the same as ``training/rollout.py`` collects.

Environments are stepped by a ``VectorEnv``, actions are chosen by one compiled call for all seeds.
The K environments of every seed are split into two halves: while the device chooses for one, the
workers step the other. Row b·S + s of every array is environment b of seed s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coterie.python_envs.bookkeeping import (
    TRAINING,
    Reports,
    Restarts,
    Seconds,
    Totals,
    episode_seed,
)
from coterie.python_envs.record import EpisodeHistory, Record, empty_vector
from coterie.python_envs.workers.pool import VectorEnv
from coterie.python_envs.workers.worker import NO_SEED, RESET, SKIP, STEP, Fault
from coterie.spec import EnvSpec, Observation
from coterie.types import PyTree

Act = Callable[[int, int, Observation, np.ndarray, Any], tuple[Any, Any, PyTree, Any]]
"""(step, first environment, observations [b, S, ...], starts [b, S], hidden state: a tree) ->
actions of the environment's own agents, those of the learners, their extras, hidden state."""


class Collector:
    """The running episodes of K environments of each seed.

    Args:
        vector_env: its groups 0 and, where K > 1, 1 are the halves.
        seed: the first seed's number.
        whole_episodes: every rollout begins with a new episode in every environment, and its first
            episodes alone count (``training.rollout.Episodes``).
    """

    def __init__(
        self,
        vector_env: VectorEnv,
        spec: EnvSpec,
        seeds: int,
        environments: int,
        seed: int,
        restarts: Restarts,
        whole_episodes: bool = False,
    ) -> None:
        self.vector_env, self.spec, self.seeds, self.seed = vector_env, spec, seeds, seed
        self.restarts, self.whole_episodes = restarts, whole_episodes
        self.count = environments * seeds
        self.halves = [slice(h[0], h[-1] + 1) for h in halves(seeds, environments)]
        self.seen = Observation(*(np.zeros_like(x[: self.count]) for x in vector_env.rows.start))
        self.vector = empty_vector(spec, self.count)
        self.counting = np.ones(self.count, bool)
        self.totals, self.reports = self._no_totals(), Reports(seeds)

    # Episodes ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first episode of every environment."""
        self._reset(np.arange(self.count))

    def replay(self, vector: EpisodeHistory) -> int:
        """Brings the environments to where they were; those that differ begin a new episode.

        Returns:
            how many differ: they showed something else, or ran for longer than is kept.
        """
        kept = np.minimum(vector.lengths, vector.history.shape[1])
        self.vector = now = jax.tree.map(np.copy, vector)
        now.episode[:] -= 1
        self._reset(np.arange(self.count))
        rows, part = self.vector_env.rows, slice(0, self.count)
        rows.seed[part] = NO_SEED
        over = np.zeros(self.count, bool)
        for t in range(int(kept.max(initial=0))):
            going = (t < kept) & ~over
            rows.command[part] = np.where(going, STEP, SKIP)
            rows.actions[part] = vector.history[:, t]
            for fault in self._move(range(len(self.halves))):
                self._charge(fault)
                over[fault.row] = True
            over |= going & (rows.terminated[part] | rows.truncated[part])
        same = ~over & (kept == vector.lengths) & (rows.digest[part] == vector.digest)
        going = np.flatnonzero(same & (kept > 0))
        for seen, next_observation in zip(self.seen, rows.next_observation, strict=True):
            seen[going] = next_observation[going]
        for word in ("lengths", "returns", "digest"):
            getattr(now, word)[going] = getattr(vector, word)[going]
        self._prepare(np.arange(self.count))
        if not same.all():
            self._reset(np.flatnonzero(~same))
        return int((~same).sum())

    def restart(self) -> None:
        """Breaks off every episode that has begun and starts a new one in its place."""
        self.counting[:] = True
        if (begun := np.flatnonzero(self.vector.lengths)).size:
            self._reset(begun)

    def clear_totals(self) -> Totals:
        """The totals since the last call."""
        totals, self.totals = self.totals, self._no_totals()
        return totals

    # A rollout ---------------------------------------------------------------------------------

    def collect(
        self, steps: int, hidden_state: Any, act: Act, seconds: Seconds
    ) -> tuple[Record, Any]:
        """Acts for T steps in all environments.

        Args:
            hidden_state: of acting, a tree with leaves [B, S, ...].

        Returns:
            the record, and the hidden state to go on from.
        """
        record = self._blank(steps)
        first = [half.start // self.seeds for half in self.halves]
        hidden_states = [
            jax.tree.map(lambda x, a=a, b=b: np.asarray(x)[a:b], hidden_state)
            for a, b in itertools.pairwise([*first, self.count // self.seeds])
        ]
        noted: list[list[tuple[Any, ...]]] = [[] for _ in self.halves]
        for t in range(steps):
            for h, half in enumerate(self.halves):
                if t:
                    self._land(h, t - 1, record, seconds)
                observations = self._look(t, half, record)
                starts = record.start[t, half].reshape(-1, self.seeds)
                own, actions, extras, after = act(
                    t, first[h], observations, starts, hidden_states[h]
                )
                self.vector_env.rows.actions[half] = np.asarray(own).reshape(
                    -1, *self.spec.action_shape
                )
                self.vector_env.rows.command[half] = STEP
                self.vector_env.start(h)
                noted[h].append((hidden_states[h], actions, extras))
                hidden_states[h] = after
                seconds.spent("acting")
        for h in range(len(self.halves)):
            self._land(h, steps - 1, record, seconds)
        if self.whole_episodes:
            self._count(np.flatnonzero(self.counting))
        kept = jax.tree.map(lambda *x: _joined(x, steps), *(y for n in noted for y in n))
        self.vector.digest[:] = self.vector_env.rows.digest[: self.count]
        record = record._replace(hidden_state=kept[0], actions=kept[1], extras=kept[2])
        return self._shaped(record), _concatenated(hidden_states)

    def _look(self, t: int, half: slice, record: Record) -> Observation:
        """Notes what is acted on, and gives it as [b, S, ...]."""
        for kept, seen in zip(record.observation, self.seen, strict=True):
            kept[t, half] = seen[half]
        record.start[t, half] = self.vector.lengths[half] == 0
        shape = ((half.stop - half.start) // self.seeds, self.seeds)
        return Observation(*(x[t, half].reshape(*shape, *x.shape[2:]) for x in record.observation))

    def _land(self, h: int, t: int, record: Record, seconds: Seconds) -> None:
        """Waits for a half and notes where its step led."""
        seconds.spent("acting")
        faults = self.vector_env.wait(h)
        seconds.spent("environment")
        half, rows, vector = self.halves[h], self.vector_env.rows, self.vector
        for kept, seen, next_observation in zip(
            record.next_observation, self.seen, rows.next_observation, strict=True
        ):
            kept[t, half] = seen[half] = next_observation[half]
        for word in ("rewards", "terminated", "truncated", "truncated_alone"):
            getattr(record, word)[t, half] = getattr(rows, word)[half]
        record.valid[t, half] = True
        # Where only the start of the next episode failed, the step that ended this one stands.
        unbegun = [f for f in faults if f.step == 0 and not f.lost]
        self._drop([f for f in faults if f not in unbegun], t, record)
        last = np.minimum(vector.lengths[half], vector.history.shape[1] - 1)
        vector.history[np.arange(half.start, half.stop), last] = rows.actions[half]
        vector.returns[half] += record.rewards[t, half]
        vector.lengths[half] += 1
        over = record.terminated[t, half] | record.truncated[t, half]
        if over.any():
            faulty = np.asarray([fault.row for fault in faults], np.int64)
            ended = np.setdiff1d(half.start + np.flatnonzero(over), faulty)
            self._count(ended)
            self._begun(ended)
            if faulty.size:
                self._begin_after(faulty, unbegun)

    def _begin_after(self, faulty: np.ndarray, unbegun: list[Fault]) -> None:
        """New episodes after faults; those that could not begin are skipped."""
        late = np.asarray([fault.row for fault in unbegun], np.int64)
        self._count(late)
        for fault in unbegun:
            self._charge(fault)
        self.vector.episode[late] += 1
        self._reset(faulty)

    def _count(self, ended: np.ndarray) -> None:
        """Adds the episodes that ended, or are broken off, to the totals."""
        ended = ended[self.counting[ended]]
        if self.whole_episodes:
            self.counting[ended] = False
        vector, seed = self.vector, ended % self.seeds
        np.add.at(self.totals.episodes, seed, 1)
        np.add.at(self.totals.returns, seed, vector.returns[ended])
        np.add.at(self.totals.lengths, seed, vector.lengths[ended])
        if reports := self.vector_env.reports:
            for row in ended.tolist():
                self.reports.add(row % self.seeds, reports.pop(row, {}))

    def _drop(self, faults: list[Fault], t: int, record: Record) -> None:
        """Cuts faulty episodes before the step that failed, which is marked as not valid."""
        for fault in faults:
            row = fault.row
            self._charge(fault)
            self.counting[row] = not self.whole_episodes
            if t and self.vector.lengths[row]:
                record.truncated[t - 1, row] = True
            for next_observation, seen in zip(
                record.next_observation, record.observation, strict=True
            ):
                next_observation[t, row] = seen[t, row]
            record.observation.alive[t, row] = record.next_observation.alive[t, row] = False
            record.valid[t, row] = record.truncated_alone[t, row] = False
            record.rewards[t, row] = 0.0
            record.terminated[t, row], record.truncated[t, row] = False, True

    def _reset(self, which: np.ndarray) -> None:
        """New episodes, again where they fail, as long as that is allowed.

        Only the halves that they are in move, as the other may be on its way.
        """
        rows = self.vector_env.rows
        self._prepare(which)
        left = which
        while left.size:
            moving = [h for h, half in enumerate(self.halves) if _within(left, half).size]
            for h in moving:
                rows.command[self.halves[h]] = SKIP
            rows.command[left] = RESET
            faults = self._move(moving)
            for fault in faults:
                self._charge(fault)
            left = np.asarray([fault.row for fault in faults], np.int64)
            self.vector.episode[left] += 1
            self._prepare(left)
        self._begun(which)

    def _charge(self, fault: Fault) -> None:
        seed = self._seed_of(fault.row, int(fault.step == 0))
        self.restarts.charge(fault, self._whose(fault.row), seed)

    def _begun(self, which: np.ndarray) -> None:
        """Takes note of episodes that have just begun."""
        vector, rows = self.vector, self.vector_env.rows
        for seen, start in zip(self.seen, rows.start, strict=True):
            seen[which] = start[which]
        vector.episode[which] += 1
        vector.lengths[which] = 0
        vector.returns[which] = 0.0
        vector.digest[which] = rows.digest[which]
        self._prepare(which)

    def _prepare(self, which: np.ndarray) -> None:
        """Tells environments the seeds of their next episodes."""
        for row in which.tolist():
            self.vector_env.rows.seed[row] = self._seed_of(row, 1)

    def _seed_of(self, row: int, ahead: int = 0) -> int:
        b, s = divmod(int(row), self.seeds)
        number = int(self.vector.episode[row]) + ahead
        return episode_seed(TRAINING, self.seed + s, b, number)

    def _whose(self, row: int) -> str:
        b, s = divmod(int(row), self.seeds)
        return f"environment {b} of seed {self.seed + s}"

    def _move(self, moving: Iterable[int]) -> list[Fault]:
        """These halves at once."""
        for h in moving:
            self.vector_env.start(h)
        return [fault for h in moving for fault in self.vector_env.wait(h)]

    def _blank(self, steps: int) -> Record:
        """Room for a rollout: new each time, as the device may still read the last one's."""

        def room(like: np.ndarray) -> np.ndarray:
            return np.empty((steps, self.count, *like.shape[1:]), like.dtype)

        rows = self.vector_env.rows
        observations = [Observation(*map(room, rows.next_observation)) for _ in range(2)]
        start, terminated, truncated, valid = (room(rows.terminated) for _ in range(4))
        return Record(
            observation=observations[0],
            start=start,
            hidden_state=(),
            actions=(),
            extras=(),
            rewards=room(rows.rewards),
            terminated=terminated,
            truncated=truncated,
            truncated_alone=room(rows.truncated_alone),
            valid=valid,
            next_observation=observations[1],
        )

    def _shaped(self, record: Record) -> Record:
        """Rows as [B, S]."""

        def shape(x: np.ndarray) -> np.ndarray:
            return x.reshape(x.shape[0], self.count // self.seeds, self.seeds, *x.shape[2:])

        flat = {f: jax.tree.map(shape, getattr(record, f)) for f in _BY_ROW}
        return record._replace(**flat)

    def _no_totals(self) -> Totals:
        s, r = self.seeds, self.spec.n_agents
        return Totals(np.zeros(s), np.zeros((s, r)), np.zeros(s))


_BY_ROW = (
    "observation", "start", "rewards", "terminated", "truncated", "truncated_alone", "valid",
    "next_observation",
)  # fmt: skip


def halves(seeds: int, environments: int) -> list[range]:
    """The rows of the two halves of the environments of all seeds; one half if there is but one."""
    middle = -(-environments // 2)
    bounds = [0, middle, environments] if environments > 1 else [0, 1]
    return [range(a * seeds, b * seeds) for a, b in itertools.pairwise(bounds)]


def _within(rows: np.ndarray, half: slice) -> np.ndarray:
    return rows[(rows >= half.start) & (rows < half.stop)]


def _joined(parts: Sequence[Any], steps: int) -> np.ndarray:
    """[b, S, ...] of the first half's steps, then of the second's, as [T, B, S, ...]."""
    each = [np.asarray(x) for x in parts]
    return np.stack([np.concatenate(each[t::steps]) for t in range(steps)])


def _concatenated(parts: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.concatenate([jnp.asarray(y) for y in x]), *parts)
