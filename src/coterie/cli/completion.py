"""Completion in shells: ``coterie completion bash`` prints a script that asks this file."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coterie.cli.printing import answer
from coterie.errors import UsageError

ASK = "--words"
"""``coterie completion --words WORD ...``: what the last word may become, a line each."""

_BASH = """\
_coterie() {
  local IFS=$'\\n'
  COMPREPLY=($(coterie completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _coterie coterie
"""
SCRIPTS = {
    "bash": _BASH,
    "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    + _BASH,
    "fish": "complete -c coterie -a "
    "'(coterie completion --words (commandline -opc)[2..-1] (commandline -ct))'\n",
}


@dataclass(frozen=True)
class CompletionArgs:
    """Prints a script that completes commands, names and flags in bash, zsh or fish.

    Add this line to ~/.bashrc: eval "$(coterie completion bash)"; in ~/.zshrc, zsh in place of
    bash; for fish: coterie completion fish > ~/.config/fish/completions/coterie.fish
    """


def command_completion(names: list[str], parsed: Any, args: list[str]) -> None:
    """Prints the script of one shell."""
    if names[0] not in SCRIPTS:
        raise UsageError(f"there is no completion for {names[0]!r}, only for {', '.join(SCRIPTS)}")
    answer(SCRIPTS[names[0]].rstrip())


def complete(words: Sequence[str]) -> list[str]:
    """What the last word may become: a command, a name, a flag, or one of a flag's choices."""
    *before, last = words or [""]
    try:
        return [word for word in _candidates(list(before), last) if word.startswith(last)]
    except UsageError:  # a name before it is wrong: the command will say so
        return []


def _candidates(before: list[str], last: str) -> list[str]:
    from coterie.cli.parsing import flags_of
    from coterie.cli.table import COMMANDS, groups_of

    if not before:
        return [*COMMANDS, "--help", "--version"]
    if before[0] not in COMMANDS:
        return []
    names = before[1 : next((k for k, w in enumerate(before) if w.startswith("-")), len(before))]
    if before[-1].startswith("--") or last.startswith("-"):
        command = COMMANDS[before[0]]
        flags = [f for t, cls in groups_of(command, names, before) for f in flags_of(t, cls)]
        choices = next((f.value for f in flags if f.name == before[-1] and "|" in f.value), "")
        return choices.split("|") if choices else [*(f.name for f in flags), "--help"]
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
        from coterie.lecture import items

        return list(items())
    return list(SCRIPTS) if command == "completion" else []
