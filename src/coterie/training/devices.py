"""Seeds spread over devices.

Where there is one device all seeds run as one batched program. Where there are several (the cores
of a CPU, one device each, as the command line sets them up) every seed is a lane of its own: small
networks gain nothing from splitting one product over cores, and lose the time it takes to agree.
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
from coterie.training.loop import Program
from coterie.training.state import TrainState, clear_totals
from coterie.types import PyTree
from coterie.views.game import Game

States = tuple[TrainState, ...]


def one_core_per_seed(seeds: int, hosted: bool = False) -> None:
    """Makes as many CPU cores as there are seeds devices of their own, each working alone.

    For the command line, before JAX is first used; nothing changes where JAX is in use already or
    the user chose otherwise by environment variables.

    Args:
        hosted: for training on hosted environments, whose every step waits for a small
            computation: handing it to another thread would take as long as computing it.
    """
    if "PJRT_NPROC" in os.environ or "XLA_FLAGS" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # JAX is in use already
        jax.config.update("jax_num_cpu_devices", min(seeds, os.cpu_count() or 1))
        os.environ["PJRT_NPROC"] = "1"
        if hosted and "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
            jax.config.update("jax_cpu_enable_async_dispatch", False)


class Lanes:
    """A run's seeds as lanes, each a ``Program`` on its device; states are a tuple, one a lane."""

    def __init__(
        self,
        algorithm: Algorithm,
        game: Game,
        seeds: int,
        episodes: int = 32,
        count: int | None = None,
    ):
        self.devices = jax.local_devices()
        self.count = count or (seeds if len(self.devices) > 1 else 1)
        self.program = Program(algorithm, game, seeds // self.count, episodes)
        self.pool = ThreadPoolExecutor(min(self.count, len(self.devices)))

    def template(self) -> States:
        """Shapes and types of the states; nothing is allocated."""
        return (self.program.template(),) * self.count

    def bytes(self) -> int:
        """Memory of all states, known before anything is allocated."""
        return self.program.bytes() * self.count

    def init(self, seed: int) -> States:
        """The states before the first step; seeds are ``seed``, ``seed + 1``, ..."""

        def one(lane: int) -> TrainState:
            with jax.default_device(self._device(lane)):
                return self._placed(self.program.init(seed + lane), lane)

        return tuple(self.pool.map(one, range(self.count)))

    def place(self, states: States) -> States:
        """Every state on its lane's device."""
        return tuple(self._placed(state, lane) for lane, state in enumerate(states))

    def advance(self, states: States, iteration: int, count: int) -> States:
        """``Program.advance`` in every lane at once; returns when all are done.

        Raises:
            NotFinite: a number was not, in one of the seeds, counted from 0 over all lanes.
        """

        def one(lane: int) -> TrainState:
            try:
                state = self.program.advance(states[lane], iteration, count)
            except NotFinite as bad:
                seed = lane * self.program.seeds + bad.seed
                raise NotFinite(bad.what, seed, bad.step) from None
            jax.block_until_ready(state.episodes)
            return state

        return tuple(self.pool.map(one, range(self.count)))

    def evaluate(self, states: States, point: int) -> tuple[States, dict[str, tuple[Any, Any]]]:
        """``Program.evaluate`` in every lane: the states, and what was played in all seeds."""
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

    def go_on_from(self, tallies: dict[str, Any]) -> None:
        """Counts on from what ``tallies`` gave when a checkpoint was written."""

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()

    def _device(self, lane: int) -> Any:
        return self.devices[lane % len(self.devices)]

    def _placed(self, state: TrainState, lane: int) -> TrainState:
        return jax.device_put(state, self._device(lane))


def stack(parts: list[PyTree]) -> PyTree:
    """Trees with a leading axis of seeds, one a lane, joined along it as NumPy arrays."""
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x]), *parts)
