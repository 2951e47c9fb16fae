"""All commands: how each is called, its settings, what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coterie.cli.commands.check import CheckArgs, command_check
from coterie.cli.commands.completion import CompletionArgs, command_completion
from coterie.cli.commands.doctor import DoctorArgs, command_doctor
from coterie.cli.commands.evaluate import EvaluateArgs, command_evaluate
from coterie.cli.commands.export import ExportArgs, command_export
from coterie.cli.commands.game import GameArgs, command_game
from coterie.cli.commands.lecture import LectureArgs, command_lecture
from coterie.cli.commands.listing import ListArgs, command_list
from coterie.cli.commands.pictures import (
    PlotArgs,
    ReportArgs,
    WatchArgs,
    command_plot,
    command_report,
    command_watch,
)
from coterie.cli.commands.sweep import SweepArgs, command_sweep
from coterie.cli.commands.train import (
    ResumeArgs,
    TrainArgs,
    command_resume,
    command_train,
    train_groups,
)
from coterie.cli.parsing import CodeArgs, Groups, environment_groups


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        run: called with the names, the parsed settings by group, and the whole command line.
        options: its flags, a dataclass whose docstring says what the command does.
        usage: how it is called.
        names: the fewest and the most names before the flags.
        more: the end of its help.
        opens: whether it opens a run, which may need code of the user's (``CodeArgs``).
    """

    run: Callable[[list[str], Any, list[str]], int | None]
    options: type
    usage: str
    names: tuple[int, int] = (1, 1)
    more: str = ""
    opens: bool = False


def groups_of(command: Command, names: list[str], args: list[str]) -> Groups:
    """What the flags ``args`` of a command are parsed into."""
    extra = train_groups(names, args) if command.run is command_train else []
    if command.run is command_check and names:
        extra = environment_groups(names[0])
    if command.opens:
        extra = [("code", CodeArgs)]
    return [("run", command.options), *extra]


COMMANDS = {
    "list": Command(command_list, ListArgs, "coterie list [--json]", (0, 0)),
    "lecture": Command(
        command_lecture, LectureArgs, "coterie lecture [EXPERIMENT ...] [FLAG ...]", (0, 99),
        "coterie list shows the names of the experiments.",
    ),
    "train": Command(
        command_train, TrainArgs, "coterie train ALGORITHM ENVIRONMENT [FLAG ...]", (2, 2),
        "With the names of an algorithm and an environment, --help explains their settings:\n"
        "  coterie train vdn lbf/8x8-2p-3f --help\ncoterie list shows what there is.",
    ),
    "resume": Command(
        command_resume, ResumeArgs, "coterie resume RUN [--steps N] [--json]", opens=True
    ),
    "sweep": Command(command_sweep, SweepArgs, "coterie sweep FILE.toml [FLAG ...]"),
    "evaluate": Command(
        command_evaluate, EvaluateArgs, "coterie evaluate RUN [FLAG ...]", opens=True
    ),
    "watch": Command(
        command_watch, WatchArgs, "coterie watch RUN [--out FILE] [FLAG ...]", opens=True
    ),
    "plot": Command(
        command_plot, PlotArgs, "coterie plot RUN [RUN ...] [--over SETTING] [--out FILE]",
        (1, 10**6),
    ),
    "report": Command(
        command_report, ReportArgs, "coterie report RUN [RUN ...] [--out FILE]", (1, 10**6),
        opens=True,
    ),
    "export": Command(
        command_export, ExportArgs, "coterie export RUN --format FORMAT [--out FILE]", opens=True
    ),
    "game": Command(command_game, GameArgs, "coterie game NAME|FILE|RUN [--json]", opens=True),
    "check": Command(command_check, CheckArgs, "coterie check ENVIRONMENT [FLAG ...]"),
    "doctor": Command(command_doctor, DoctorArgs, "coterie doctor [FOLDER] [--json]", (0, 1)),
    "completion": Command(command_completion, CompletionArgs, "coterie completion bash|zsh|fish"),
}  # fmt: skip
