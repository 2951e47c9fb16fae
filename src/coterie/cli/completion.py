"""Completion in shells: ``coterie completion bash`` prints a script that asks this file."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence

from coterie.cli.commands.completion import SCRIPTS
from coterie.cli.parsing import flags_of, leading_names
from coterie.cli.table import COMMANDS, groups_of
from coterie.errors import UsageError

ASK = "--words"
"""``coterie completion --words WORD ...``: what the last word may become, a line each."""


def complete(words: Sequence[str]) -> list[str]:
    """What the last word may become: a command, a name, a flag, or one of a flag's choices."""
    *before, last = words or [""]
    try:
        return [word for word in _candidates(list(before), last) if word.startswith(last)]
    except UsageError:  # a name before it is wrong: the command will say so
        return []


def _candidates(before: list[str], last: str) -> list[str]:
    if not before:
        return [*COMMANDS, "--help", "--version"]
    if before[0] not in COMMANDS:
        return []
    names = leading_names(before[1:])
    if before[-1].startswith("--") or last.startswith("-"):
        command = COMMANDS[before[0]]
        groups = groups_of(command, names, before)
        flags = [f for title, cls in groups if cls is not dict for f in flags_of(title, cls)]
        value = next((f.value for f in flags if f.name == before[-1]), "")
        if value and not last.startswith("-"):  # of another kind than choices, the shell's own
            choices = value.split("|") if "|" in value else []
            return [word for word in choices if not word.isupper()]  # but MODULE:NAME
        return [*(f.name for f in flags), "--help"]
    return _names(before[0], len(names))


def _names(command: str, place: int) -> list[str]:
    """Names that a command takes at one place; nothing where they are paths."""
    if command == "train" and place == 0:
        from coterie import algorithms

        return [module.name for module in pkgutil.iter_modules(algorithms.__path__)]
    if (command, place) in (("train", 1), ("check", 0), ("game", 0)):
        from coterie.envs import families

        known = families().items() if command != "game" else [("matrix", families()["matrix"])]
        return [f"{family}/{variant}" for family, module in known for variant in module.EXAMPLES]
    if command == "lecture":
        from coterie.lecture import experiments

        return list(experiments())
    return list(SCRIPTS) if command == "completion" else []
