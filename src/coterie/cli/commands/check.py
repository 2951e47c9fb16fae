"""``coterie check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie.cli.printing import answer_json, say
from coterie.settings import Count, Seed, TimeLimit, Timeout


@dataclass(frozen=True)
class CheckArgs:
    """Plays random legal episodes, and says what is wrong with an environment and what to change.

    It is played in a process of its own. Exit status: 0 if no promise was broken, 1 if one was.
    """

    episodes: Count = 5
    """How many episodes."""
    seed: Seed = 0
    """Seed of the first episode; the others count on from it."""
    time_limit: TimeLimit | None = None
    """Steps after which an episode is cut, for one that has no end or reports it wrongly."""
    step_timeout: Timeout = 60.0
    """Seconds after which a call that has not returned is given up."""
    json: bool = False
    """Print one JSON document."""


def command_check(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.python_envs.check.isolated import check_apart
    from coterie.show.terminal.check import render_check

    own = parsed.run
    report = check_apart(names[0], own.episodes, own.seed, own.time_limit, own.step_timeout)
    if own.json:
        answer_json(report.to_dict())
    else:
        say(render_check(report), width=100)
    return 0 if report.ok else 1
