"""``coterie watch``, ``coterie plot`` and ``coterie report``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.cli.printing import answer
from coterie.errors import UsageError
from coterie.settings import Count, Seed
from coterie.text import visible


@dataclass(frozen=True)
class WatchArgs:
    """Shows a trained team playing: an animated picture, a video, or a page with a player."""

    out: Path = Path("episode.gif")
    """The film: .gif, .mp4 (extra video) or .html."""
    seed: Seed = 0
    """Which team, counted from 0."""
    which: Literal["best", "last"] | None = None
    """The policy that evaluated best, or the last one; the best unless given, or the last where
    the agents' interests conflict."""
    episodes: Count = 1
    """How many episodes, one after the other."""
    greedy: bool = False
    """Take the likeliest actions of a stochastic policy instead of sampling them."""
    episode_seed: Seed = 0
    """Seed of the episodes' starts."""
    fps: float = 4.0
    """Steps shown in a second."""
    environment: str | None = None
    """Environment of the run; needed for one defined in your own code."""


def command_watch(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.runs import api, environments
    from coterie.show.film import encode as film
    from coterie.show.film.recording import python_environment, record
    from coterie.storage.run_directory import RunDirectory

    own = parsed.run
    film.check(own.out, own.fps)
    if own.environment is not None and not environments.is_code(own.environment):
        raise UsageError(
            "a team is watched in the environment it was trained in: --environment is for one "
            f"defined in your own code, and {own.environment} is built in"
        )
    config = RunDirectory.open(Path(names[0])).config()
    if config.get("hosting") is not None:
        raise UsageError(python_environment(config["environment"]))
    run = api.open_run(names[0], own.environment)
    greedy = own.greedy or None
    recording = record(run, own.seed, own.which, own.episodes, greedy, own.episode_seed)
    answer(visible(film.film(recording, own.out, own.fps)))


@dataclass(frozen=True)
class PlotArgs:
    """Draws learning curves: one line a run, one panel an environment."""

    out: Path = Path("curves.png")
    """The picture: .png, .pdf or .svg."""
    metric: str | None = None
    """Any metric of metrics.jsonl; each environment's own return unless given, of policies sampled
    if they are stochastic."""
    greedy: bool = False
    """Show greedy play, also of stochastic policies."""


def command_plot(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.curves import plot

    own = parsed.run
    runs = [Path(n) for n in names]
    answer(visible(plot(runs, own.out, metric=own.metric, greedy=own.greedy)))


@dataclass(frozen=True)
class ReportArgs:
    """Makes one page of runs: learning curves, final returns, an episode of each, settings."""

    out: Path = Path("report.html")
    """The page, one self-contained .html file."""
    metric: str | None = None
    """Show the curves of any metric of metrics.jsonl; the environment's return unless given."""
    greedy: bool = False
    """Show greedy play, also of stochastic policies."""


def command_report(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.report.of_runs import report

    own, command = parsed.run, shlex.join(["coterie", *args])
    page = report([Path(n) for n in names], own.out, command, own.metric, own.greedy)
    answer(visible(page))
