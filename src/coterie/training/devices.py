"""Seeds spread over devices.

On one device all seeds run as one batched program. With several devices (the cores of a CPU, as the
command line sets them up) every seed has its own: small networks gain nothing from splitting one
product over cores, and lose the time it takes to agree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from coterie.errors import NotFinite
from coterie.learners.contract import Algorithm
from coterie.machine import usable_cores
from coterie.training.evaluate import Played
from coterie.training.loop import Program
from coterie.training.state import TrainState, clear_totals
from coterie.types import PyTree
from coterie.views.game import Game

States = tuple[TrainState, ...]


def one_core_per_seed(seeds: int, python_env: bool = False) -> None:
    """Makes as many CPU cores as there are seeds devices of their own, each working alone.

    For the command line, before JAX is first used; nothing changes where JAX is in use already or
    the user chose otherwise by environment variables.

    Args:
        python_env: for training on Python environments, whose every step waits for a small
            computation: handing it to another thread would take as long as computing it.
    """
    if "PJRT_NPROC" in os.environ or "XLA_FLAGS" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # JAX is in use already
        jax.config.update("jax_num_cpu_devices", min(seeds, usable_cores()))
        os.environ["PJRT_NPROC"] = "1"
        if python_env and "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
            jax.config.update("jax_cpu_enable_async_dispatch", False)


class Devices:
    """A run's seeds spread over devices, each with a ``Program``; states are a tuple, one each."""

    def __init__(
        self,
        algorithm: Algorithm,
        game: Game,
        seeds: int,
        episodes: int = 32,
        count: int | None = None,
    ):
        self._local = jax.local_devices()
        self.count = count or (seeds if len(self._local) > 1 else 1)
        self.program = Program(algorithm, game, seeds // self.count, episodes)
        self.pool = ThreadPoolExecutor(min(self.count, len(self._local)))

    def template(self) -> States:
        """Shapes and types of the states; nothing is allocated."""
        return (self.program.template(),) * self.count

    def bytes(self) -> int:
        """Memory of all states, known before anything is allocated."""
        return self.program.bytes() * self.count

    def working_bytes(self) -> int:
        """Memory that the compiled functions take beside the states, known once they are compiled,
        which they are here, and before anything is allocated."""
        used = [self._device(index) for index in range(min(self.count, len(self._local)))]
        return sum(max(each) for each in self.pool.map(self.program.working_bytes, used))

    def init(self, seed: int) -> States:
        """The states before the first step; seeds are ``seed``, ``seed + 1``, ..."""

        def one(index: int) -> TrainState:
            with jax.default_device(self._device(index)):
                return self._placed(self.program.init(seed + index), index)

        return tuple(self.pool.map(one, range(self.count)))

    def place(self, states: States) -> States:
        """Every state on its device."""
        return tuple(self._placed(state, index) for index, state in enumerate(states))

    def advance(self, states: States, iteration: int, count: int) -> States:
        """``Program.advance`` on every device at once; returns when all are done.

        Raises:
            NotFinite: a number was not, in one of the seeds, counted from 0 over all devices.
        """

        def one(index: int) -> TrainState:
            try:
                state = self.program.advance(states[index], iteration, count)
            except NotFinite as bad:
                seed = index * self.program.seeds + bad.seed
                raise NotFinite(bad.what, seed, bad.step) from None
            jax.block_until_ready(state.episodes)
            return state

        return tuple(self.pool.map(one, range(self.count)))

    def evaluate(self, states: States, point: int) -> tuple[States, dict[str, Played]]:
        """``Program.evaluate`` on every device: the states, and what was played in all seeds."""
        done = list(self.pool.map(lambda s: self.program.evaluate(s, point), states))
        return tuple(state for state, _ in done), stack([played for _, played in done])

    def gather(self, states: States, part: Callable[[TrainState], PyTree]) -> PyTree:
        """A part of the states of all seeds, on the host, [S, ...]."""
        return stack([part(state) for state in states])

    def clear_totals(self, states: States) -> States:
        """The states with their log totals at zero."""
        return tuple(clear_totals(state) for state in states)

    def tallies(self) -> dict[str, Any]:
        """What is counted outside of the states, for the log and the next resume: nothing."""
        return {}

    def totals(self) -> dict[str, Any]:
        """Of ``clear_totals``, what is not in the states, for a checkpoint: nothing."""
        return {}

    def info(self, states: States) -> dict[str, np.ndarray]:
        """By name [S] the mean of what environments reported since ``clear_totals``."""
        totals = self.gather(states, lambda s: s.episodes.info)
        return {
            name: np.divide(x[:, 0], x[:, 1], np.full(len(x), np.nan), where=x[:, 1] > 0)
            for name, x in totals.items()
        }

    def go_on_from(self, tallies: dict[str, Any], totals: dict[str, Any]) -> None:
        """Counts on from what ``tallies`` and ``totals`` gave when a checkpoint was written."""

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()

    def _device(self, index: int) -> Any:
        return self._local[index % len(self._local)]

    def _placed(self, state: TrainState, index: int) -> TrainState:
        return jax.device_put(state, self._device(index))


def stack(parts: list[PyTree]) -> PyTree:
    """Trees with a leading axis of seeds, one a device, joined along it as NumPy arrays."""
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x]), *parts)
