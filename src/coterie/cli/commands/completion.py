"""``coterie completion``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie.cli.printing import answer
from coterie.errors import UsageError

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
