"""``coterie watch``, ``coterie plot`` and ``coterie report``."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.cli.printing import answer
from coterie.errors import UsageError
from coterie.settings import Count, Seed
from coterie.text import visible


@dataclass(frozen=True)
class WatchArgs:
    """Records a trained team: an animated picture, a video, or a page with a player."""

    out: Path = Path("episode.gif")
    """File to write: .gif, .html, or .mp4 (which needs the extra coterie[video])."""
    seed: Seed = 0
    """Number of the team, counted from 0."""
    which: Literal["best", "last"] | None = None
    """Policies with the best evaluation during training, or the last ones; by default the best, and
    the last in games where the interests of agents conflict."""
    episodes: Count = 1
    """Number of episodes, one after the other."""
    greedy: bool = False
    """Take the most probable action of a stochastic policy instead of sampling one."""
    episode_seed: Seed = 0
    """Random seed of the episodes."""
    fps: float | None = None
    """Environment steps shown in a second; by default 4, and for a Python environment as many as it
    names itself (render_fps)."""
    environment: str | None = None
    """Environment of the run; required if it is a Python environment or defined in your own
    code."""


def command_watch(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.module_paths import is_code
    from coterie.runs import api
    from coterie.show.film import encode as film
    from coterie.show.film.recording import FPS, record
    from coterie.show.terminal.progress import frames_counted

    own = parsed.run
    film.check(own.out, FPS if own.fps is None else own.fps)
    if own.environment is not None and not is_code(own.environment):
        raise UsageError(
            "a team is watched in the environment it was trained in: --environment is for one "
            f"defined in your own code, and {own.environment} is built in"
        )
    run = api.open_run(names[0], own.environment, **asdict(parsed.code))
    greedy = own.greedy or None
    with frames_counted() as told:
        recording = record(run, own.seed, own.which, own.episodes, greedy, own.episode_seed, told)
        out = film.film(recording, own.out, own.fps)
    answer(visible(out))


@dataclass(frozen=True)
class PlotArgs:
    """Draws learning curves: one line for each run, one panel for each environment. Of a sweep,
    --over draws what each value of a setting came to."""

    out: Path = Path("curves.png")
    """File to write: .png, .pdf or .svg."""
    metric: str | None = None
    """Any metric of metrics.jsonl; by default the return that is usual for the environment, sampled
    for stochastic policies."""
    greedy: bool = False
    """Show returns of greedy actions, also of stochastic policies."""
    over: str | None = None
    """Of a sweep: draw the final evaluation against this setting in place of environment steps."""


def command_plot(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.curves import plot
    from coterie.show.sensitivity import plot_over

    own = parsed.run
    if own.over is None:
        picture = plot([*map(Path, names)], own.out, metric=own.metric, greedy=own.greedy)
    elif len(names) > 1 or own.greedy:
        raise UsageError("--over is for one sweep, without --greedy")
    else:
        picture = plot_over(Path(names[0]), own.over, own.out, own.metric)
    answer(visible(picture))


@dataclass(frozen=True)
class ReportArgs:
    """Writes one page about runs: learning curves, final returns, an episode of each, settings."""

    out: Path = Path("report.html")
    """File to write, a self-contained .html page."""
    metric: str | None = None
    """Metric of metrics.jsonl whose curves are drawn; by default the return that is usual for the
    environment."""
    greedy: bool = False
    """Show returns of greedy actions, also of stochastic policies."""
    environment: str | None = None
    """Python environment, or one defined in your own code: runs on it show an episode."""


def command_report(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.report.of_runs import report

    own, command = parsed.run, shlex.join(["coterie", *args])
    page = report(
        names, own.out, command, own.metric, own.greedy, own.environment, **asdict(parsed.code)
    )
    answer(visible(page))
