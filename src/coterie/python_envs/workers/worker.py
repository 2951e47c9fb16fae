"""One of many Python environments: it obeys a command in its row of arrays and shows what came.

No line here imports JAX: worker processes read this file and should start at once.
"""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from coterie.errors import EnvironmentFault, described
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.infos import Reported
from coterie.python_envs.process import OutOfTime, OwnDirectory, alarm
from coterie.shapes import Bool, Float32, Float64, Int32, Int64, UInt8, UInt32
from coterie.spec import EnvSpec, Observation, TimeStep

SKIP, STEP, RESET = 0, 1, 2
"""Commands: nothing, one step, a new episode."""
STEPPED = 3
"""In place of ``STEP``: it is done, and the episode that follows begins."""
OPENING = 120.0
"""Seconds that making an environment may take."""
NO_SEED = -1
"""In place of the next episode's seed: an episode that ends is not followed by another."""


class Rows(NamedTuple):
    """All that goes to and comes from E environments; one row each, in memory they may share.

    Attributes:
        command: ``SKIP``, ``STEP`` or ``RESET``, written before the environments are started.
        seed: of the next episode, which begins at ``RESET`` and where the running one ends.
        actions: the joint action of ``STEP``.
        next_observation: what the step led to, the final observation where the episode ended.
        rewards, terminated, truncated, truncated_alone: of that step.
        start: the first observation of the episode that began last.
        steps: steps of the running episode so far.
        digest: CRC-32 of all that the running episode has shown.
        busy: seconds spent in the environment's own code, by the wall clock.
    """

    command: UInt8[np.ndarray, " E"]
    seed: Int64[np.ndarray, " E"]
    actions: Int32[np.ndarray, "E N"] | Float32[np.ndarray, "E N P"]
    next_observation: Observation
    rewards: Float32[np.ndarray, "E N"]
    terminated: Bool[np.ndarray, " E"]
    truncated: Bool[np.ndarray, " E"]
    truncated_alone: Bool[np.ndarray, "E N"]
    start: Observation
    steps: Int64[np.ndarray, " E"]
    digest: UInt32[np.ndarray, " E"]
    busy: Float64[np.ndarray, " E"]


def make_rows(spec: EnvSpec, count: int, buffer: Any = None) -> Rows:
    """Rows of zeros, or those that lie in a buffer of ``rows_bytes`` bytes."""
    n, offset = spec.n_agents, 0

    def take(dtype: Any, *shape: int) -> np.ndarray:
        nonlocal offset
        if buffer is None:
            return np.zeros((count, *shape), dtype)
        array = np.ndarray((count, *shape), dtype, buffer, offset)
        offset += _aligned(array.nbytes)
        return array

    def observation() -> Observation:
        return Observation(
            take(spec.observation_dtype, n, spec.observation_size),
            take(bool, n, spec.action_count),
            take(bool, n),
            take(np.float32, spec.central_size),
        )

    return Rows(
        command=take(np.uint8),
        seed=take(np.int64),
        actions=take(spec.action_dtype, *spec.action_shape),
        next_observation=observation(),
        rewards=take(np.float32, n),
        terminated=take(bool),
        truncated=take(bool),
        truncated_alone=take(bool, n),
        start=observation(),
        steps=take(np.int64),
        digest=take(np.uint32),
        busy=take(np.float64),
    )


def rows_bytes(spec: EnvSpec, count: int) -> int:
    """Bytes of so many rows."""
    arrays = [x if isinstance(x, tuple) else (x,) for x in make_rows(spec, count)]
    return sum(_aligned(array.nbytes) for group in arrays for array in group)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


class Fault(NamedTuple):
    """What went wrong in one environment; ``EnvironmentFault`` says what each means.

    Attributes:
        lost: the environment did nothing wrong: it was in the same process as one that did.
    """

    row: int
    step: int
    agent: str | None
    what: str
    original: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Limits:
    """Seconds an environment may take: for one step or reset, and beyond that to be made."""

    step: float
    opening: float = OPENING


class Slot:
    """One environment, made at its first reset and again at the first reset after a fault."""

    def __init__(
        self,
        make: Callable[[], PythonEnv],
        spec: EnvSpec,
        rows: Rows,
        row: int,
        limits: Limits,
    ) -> None:
        self._make, self._spec, self._rows, self._row = make, spec, rows, row
        self._limits = limits
        self._env: PythonEnv | None = None
        self._directory = OwnDirectory()
        self._unsound = self._resetting = False
        self.reported: Reported = {}

    def obey(self, arm: Callable[[float], None]) -> Fault | None:
        """Carries out the command in its row; a fault is returned, never raised.

        Args:
            arm: called with how many seconds may pass from now on, 0 for any number.
        """
        rows, row = self._rows, self._row
        command = rows.command[row]
        if command == SKIP:
            return None
        if command == STEP and (self._env is None or self._unsound):
            what = "it was lost with the process of another environment"
            return Fault(row, int(rows.steps[row]) + 1, None, what, lost=True)
        began = time.perf_counter()
        self._resetting = False
        arm(self._limits.step)
        try:
            with self._directory:
                if command == RESET:
                    self._open(arm)
                    self._begin()
                else:
                    self._step()
        except BaseException as error:
            if _is_ctrl_c(error):
                raise
            self._unsound = True
            return self._fault(error)
        finally:
            arm(0.0)
            rows.busy[row] += time.perf_counter() - began
        return None

    def take_report(self) -> tuple[int, Reported] | None:
        """Its row, and what the environment reported of the episode that has just ended, once."""
        if not self.reported:
            return None
        report, self.reported = self.reported, {}
        return self._row, report

    def close(self) -> None:
        """Closes the environment, whatever it says to that."""
        with self._directory:
            self._close()

    def _close(self) -> None:
        env, self._env, self._unsound = self._env, None, False
        try:
            if env is not None:
                env.close()
        except BaseException as error:
            if _is_ctrl_c(error):
                raise
        self._directory.forget()

    def _open(self, arm: Callable[[float], None]) -> None:
        """Makes the environment where there is none, or none that is sound."""
        self._resetting = True
        if self._unsound:
            self._close()
        if self._env is None:
            arm(self._limits.step + self._limits.opening)
            self._env = self._make()
            if self._env.spec != self._spec:
                raise ValueError(
                    f"it promises {self._env.spec}, but the first one made promised {self._spec}"
                )
            arm(self._limits.step)

    def _begin(self) -> None:
        rows, row = self._rows, self._row
        self._resetting = True
        assert self._env is not None
        shown = self._env.reset(int(rows.seed[row]))
        rows.digest[row] = self._show(rows.start, shown, 0)
        rows.steps[row] = 0

    def _step(self) -> None:
        rows, row = self._rows, self._row
        assert self._env is not None
        shown = self._env.step(rows.actions[row])
        digest = self._show(rows.next_observation, shown, int(rows.digest[row]))
        rows.rewards[row] = shown.rewards
        rows.terminated[row], rows.truncated[row] = shown.terminated, shown.truncated
        rows.truncated_alone[row] = shown.truncated_alone
        rows.steps[row] += 1
        rows.digest[row] = digest
        if shown.terminated or shown.truncated:
            self.reported = self._env.reported
            if rows.seed[row] != NO_SEED:
                rows.command[row] = STEPPED
                self._begin()

    def _show(self, into: Observation, shown: TimeStep, digest: int) -> int:
        """Writes what is shown into this row, and the digest of all that was shown."""
        row = self._row
        into.observations[row] = shown.observations
        into.action_mask[row] = shown.action_mask
        into.alive[row] = shown.alive
        into.central[row] = shown.central
        for part in into[:3]:
            digest = zlib.crc32(part[row], digest)
        return digest

    def _fault(self, error: BaseException) -> Fault:
        step = 0 if self._resetting else int(self._rows.steps[self._row]) + 1
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if isinstance(error, EnvironmentFault):
            return Fault(self._row, error.step or step, error.agent, error.what, text)
        what = str(error) if isinstance(error, OutOfTime) else described(error)
        return Fault(self._row, step, None, what, text)


def _is_ctrl_c(error: BaseException) -> bool:
    """Whether the user has ended the program; otherwise it was the environment that raised it.

    Workers ignore Ctrl-C, and the first one is a training's request to stop: neither raises it.
    """
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, KeyboardInterrupt) and raises


def obey(
    slots: Iterable[Slot],
    beat: Callable[[int], None] | None = None,
    allow: Callable[[float], None] | None = None,
) -> list[Fault]:
    """Has every slot carry out its command, each within its limit; the faults, in that order.

    The limit is kept by an alarm where signals reach Python code: in the main thread, on POSIX.

    Args:
        beat: called with the number of a slot before it moves, and -1 after the last one.
        allow: called with how many seconds may pass from now on, 0 between two environments.
    """
    faults = []
    with alarm() as ring:

        def arm(seconds: float) -> None:
            if allow:
                allow(seconds)
            ring(seconds)

        for number, slot in enumerate(slots):
            if beat:
                beat(number)
            if fault := slot.obey(arm):
                faults.append(fault)
    if beat:
        beat(-1)
    return faults


def take_reports(slots: Iterable[Slot]) -> dict[int, Reported]:
    """By row, what environments reported of the episodes that have just ended."""
    return dict(taken for slot in slots if (taken := slot.take_report()))


def close(slots: Iterable[Slot], seconds: float) -> None:
    """Closes environments, each of which may take so long, where alarms can ring."""
    with alarm() as arm:
        for slot in slots:
            with contextlib.suppress(OutOfTime):
                arm(seconds)
                slot.close()
                arm(0.0)


def slots_at(
    make: Callable[[], PythonEnv],
    spec: EnvSpec,
    rows: Rows,
    numbers: Sequence[int],
    limits: Limits,
) -> list[Slot]:
    """A slot for each of these rows."""
    return [Slot(make, spec, rows, int(row), limits) for row in numbers]
