"""What all trackers share: a callback that hands on the log, and never stops a training."""

from __future__ import annotations

import abc
import collections
import functools
import importlib
import queue
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

from coterie.errors import NoPictures, UsageError
from coterie.extras import how_to_install
from coterie.runs.callbacks import Event
from coterie.show.film.encode import film
from coterie.show.film.recording import record
from coterie.storage.run_directory import RunDirectory

FOLDER = "trackers"
"""In a run directory: what trackers keep."""
PLACE = ("seed", "env_steps")
"""Entries of a line that say where it belongs."""


class TrackerWarning(UserWarning):
    """A tracker failed; the training goes on without it."""


class Line(NamedTuple):
    """A line of the log: its number in the curve of its seed, from 0, its step and its metrics."""

    number: int
    env_steps: int
    metrics: dict[str, float]


class Tracker(abc.ABC):
    """Hands each line of a run's log on: ``coterie.train(..., callback=coterie.TensorBoard())``.

    Each seed is a curve. When a run goes on, every line of ``metrics.jsonl`` that a curve lacks is
    handed on first, and no line a second time. All is done in a thread of its own, so training does
    not wait. What a tracker raises is said once in a warning (``TrackerWarning``), and the training
    goes on without it.

    Attributes:
        name: of the tracker, of the extra that brings its library, and of its folder in the run
            directory.
        module: what is imported.
    """

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self) -> None:
        """Imports the tracker's library; UsageError if it is not installed."""
        self._library: ModuleType = library(self.module, self.name)
        self._error: BaseException | None = None
        self._warned = False
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        if event.path is None:
            raise UsageError(f"{self.name} keeps its files in a run directory: name one (out)")
        if event.kind == "start":
            self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._error, self._warned = None, False
            known = [*RunDirectory(event.path).lines()]
            self._thread = threading.Thread(target=self._work, args=(event, known), daemon=True)
            self._thread.start()
        elif self._thread is None:
            return
        self._messages.put(event.lines)
        if event.kind == "end":
            self._messages.put(_Last(event, self._films(event)))
            self._thread.join()
            self._thread = None
        if self._error is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name} failed, and the training goes on without it: "
                f"{type(self._error).__name__}: {' '.join(str(self._error).split())[:300]}",
                TrackerWarning,
                stacklevel=2,
            )

    def _films(self, event: Event) -> dict[int, bytes]:
        """A film of each seed's team at the end of a complete run, as far as it can be drawn."""
        if not event.complete or self._error is not None:
            return {}
        try:
            found = {seed: film_of(event, seed) for seed in seeds(event)}
        except Exception as error:  # an environment of the user's, opened to be drawn
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            sentence = f"{self.name} gets no film of an episode: {what}"
            warnings.warn(sentence, TrackerWarning, stacklevel=2)
            return {}
        return {seed: gif for seed, gif in found.items() if gif is not None}

    def _work(self, start: Event, known: Sequence[dict[str, Any]]) -> None:
        """The life of the thread: the log so far, then what comes, until the last message."""
        try:
            assert start.path is not None
            (folder := start.path / FOLDER / self.name).mkdir(parents=True, exist_ok=True)
            count = collections.Counter(line["seed"] for line in known)
            held = {seed: self.open(start, folder, seed, count[seed]) for seed in seeds(start)}
            numbers, last = dict.fromkeys(seeds(start), 0), None
            lines = [*known]
            while True:
                self._hand_on(lines, numbers, held)
                if last is not None:
                    break
                *parts, last = self._next()
                lines = [line for part in parts for line in part]
            for seed in seeds(last.event):
                self.conclude(last.event, seed, last.films.get(seed))
            self.close()
        except BaseException as error:  # asyncio's, of a library that waits in vain, are no others
            self._error = error

    def _next(self) -> list[Any]:
        """What waits to be handed on, at least one message, and the last one or None."""
        messages = [self._messages.get()]
        while not isinstance(messages[-1], _Last) and not self._messages.empty():
            messages.append(self._messages.get())
        return messages if isinstance(messages[-1], _Last) else [*messages, None]

    def _hand_on(
        self, lines: Sequence[dict[str, Any]], numbers: dict[int, int], held: dict[int, int]
    ) -> None:
        """Sends each seed's lines, but for those that its curve holds."""
        new: dict[int, list[Line]] = {}
        for line in lines:
            seed = line["seed"]
            number, numbers[seed] = numbers[seed], numbers[seed] + 1
            if number >= held[seed]:
                metrics = {k: v for k, v in line.items() if k not in PLACE and v is not None}
                new.setdefault(seed, []).append(Line(number, line["env_steps"], metrics))
        for seed, each in new.items():
            self.send(seed, each)

    @abc.abstractmethod
    def open(self, event: Event, folder: Path, seed: int, known: int) -> int:
        """Begins a seed's curve, or goes on with it; returns the lines that it holds already.

        A curve that holds more than the log, which a killed process has sent, is begun anew: the
        run that goes on need not log the same lines.

        Args:
            known: lines of the log so far.
        """

    @abc.abstractmethod
    def send(self, seed: int, lines: Sequence[Line]) -> None:
        """Adds lines to a seed's curve."""

    @abc.abstractmethod
    def conclude(self, event: Event, seed: int, film: bytes | None) -> None:
        """Adds the final evaluation, and a film as a GIF, where there are such."""

    @abc.abstractmethod
    def close(self) -> None:
        """Writes what is left."""


class _Last(NamedTuple):
    """The last message of a run: its end, and each seed's film."""

    event: Event
    films: dict[int, bytes]


def library(module: str, extra: str) -> ModuleType:
    """A module of an extra; UsageError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"the tracker {extra} needs the extra {extra}: {how_to_install(extra)} ({error})"
        ) from None


def seeds(event: Event) -> range:
    """The random seeds of a run's teams."""
    first = event.config["seed"]
    return range(first, first + event.config["seeds"])


def curve_name(event: Event, seed: int) -> str:
    """How a seed's curve is called: its run directory, and the seed where there are several."""
    assert event.path is not None
    several = event.config["seeds"] > 1
    return f"{event.path.name} seed {seed}" if several else event.path.name


def hyperparameters(event: Event, seed: int) -> dict[str, Any]:
    """The settings of a run, flat: numbers, words and switches by name."""
    config = event.config
    kept = ("algorithm", "environment", "steps", "reward", "central", "preset")
    options = {f"env.{name}": value for name, value in config["environment_options"].items()}
    all_of_them = {k: config[k] for k in kept if k in config} | config["settings"] | options
    return {"seed": seed} | {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in all_of_them.items()
        if value is not None
    }


def table(event: Event, seed: int) -> list[tuple[str, str, float]]:
    """(policies, metric, mean over episodes) of a seed's final evaluation."""
    k = seed - event.config["seed"]
    return [
        (which, name, metric["per_seed"][k])
        for which, metrics in event.results.items()
        for name, metric in metrics.items()
        if metric.get("seeds") == event.config["seeds"]
    ]


@functools.lru_cache(maxsize=16)
def film_of(event: Event, seed: int) -> bytes | None:
    """A GIF of an episode of a seed's team at the end; None where it cannot be drawn."""
    try:
        recording = record(event.run, seed - event.config["seed"])
    except NoPictures:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return film(recording, Path(folder) / "episode.gif").read_bytes()
