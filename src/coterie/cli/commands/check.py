"""``coterie check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie.cli.parsing import environment_options
from coterie.cli.printing import answer_json, say
from coterie.settings import Count, Interpreter, Seed, TimeLimit, Timeout


@dataclass(frozen=True)
class CheckArgs:
    """Plays episodes of random legal actions and lists what is wrong with an environment.

    The environment runs in a process of its own. Exit status: 0 if it keeps its interface, 1 if
    it does not.
    """

    episodes: Count = 5
    """Number of episodes."""
    seed: Seed = 0
    """Random seed of the first episode; the others count up from it."""
    time_limit: TimeLimit | None = None
    """Steps of the longest episode, for an environment that does not report truncation itself."""
    step_timeout: Timeout = 60.0
    """Seconds after which a call that has not returned counts as failed."""
    python: Interpreter | None = None
    """Another Python to run the environment in, such as old-env/bin/python."""
    json: bool = False
    """Print one JSON document."""


def command_check(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.python_envs.check.isolated import check_apart
    from coterie.show.terminal.check import render_check

    own = parsed.run
    options = environment_options(parsed)
    report = check_apart(
        names[0], own.episodes, own.seed, own.time_limit, own.step_timeout, options,
        own.python,
    )  # fmt: skip
    if own.json:
        answer_json(report.to_dict())
    else:
        say(render_check(report), width=100)
    return 0 if report.ok else 1
