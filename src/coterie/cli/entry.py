"""The command ``coterie``: parse, call, print.

Answers go to standard output, progress and log lines to standard error. Exit status: 0 done,
1 failed, 2 bad usage, each with one clear sentence and no traceback; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from coterie.cli.completion import ASK, complete
from coterie.cli.parsing import flags_of, leading_names, parse
from coterie.cli.printing import INTERRUPTED, answer, answers, keep_standard_output, say
from coterie.cli.table import COMMANDS, Command, groups_of
from coterie.errors import DamagedFile, EnvironmentFault, UsageError
from coterie.module_paths import is_code
from coterie.text import did_you_mean, visible, visible_lines

HELP = """\
usage: coterie COMMAND ...

Multi-agent deep reinforcement learning, compiled end to end.

  list                           algorithms (with mode), environments, experiments
  lecture [EXPERIMENT ...]       reproduce the lecture's figures and tables, and check its claims
  train ALGORITHM ENVIRONMENT    train teams; every setting is a flag
  resume RUN                     continue an interrupted run, or extend it with --steps
  sweep FILE.toml                train many teams: algorithms, environments, settings
  evaluate RUN                   returns of the trained teams, best and last policies
  watch RUN --out FILE.gif       a trained team playing: .gif, .mp4 or .html
  plot RUN ... --out FILE.png    learning curves, mean and 95% interval over seeds
  report RUN ... --out FILE.html curves, returns, episodes and settings on one page
  export RUN --format FORMAT     a team for other programs: ONNX, StableHLO, NumPy, a page
  game ENVIRONMENT|RUN           a matrix game's equilibria; what a run learned of it
  check ENVIRONMENT              what is wrong with an environment of yours, in sentences
  doctor                         what works on this machine, to send with a bug report
  completion bash|zsh|fish       a script that completes commands and flags in your shell

coterie COMMAND --help explains a command; coterie --version names this version. An example:

  coterie train vdn lbf/5x5-2p-1f --steps 300000 --out runs/first
"""

EXIT_SECONDS = 3.0
"""In which the process ends when the command is done, whatever an environment left running."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    Without ``argv`` it is the command of this process, which then ends: standard output is kept
    for the answer, and threads and exit handlers of user code do not keep the process alive.
    """
    if argv is not None:
        return _run(list(argv))
    status = 1
    try:
        keep_standard_output()
        status = _run(sys.argv[1:])
        return status
    finally:
        from coterie.python_envs.process import end_within

        end_within(EXIT_SECONDS, status)


def _run(args: list[str]) -> int:
    _print_what_is_known()
    try:
        with _damage_in_words():
            status = _dispatch(args)
        answers().flush()
        return status
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough: not even the last flush may complain
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), answers().fileno())
        return 1
    except EnvironmentFault as fault:
        print(visible_lines(fault.original), end="", file=sys.stderr)
        return _fail(str(fault), 1)
    except (OSError, MemoryError, RuntimeError) as error:
        return _fail(_one_line(error), 1)


@contextlib.contextmanager
def _damage_in_words() -> Iterator[None]:
    """Each sentence on a damaged file once, on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedFile)
        shown, said = warnings.showwarning, set[str]()

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if not issubclass(category, DamagedFile):
                shown(message, category, *where)
            elif (sentence := str(message)) not in said:
                said.add(sentence)
                print(visible(f"warning: {sentence}"), file=sys.stderr)

        warnings.showwarning = show
        yield


def _fail(sentence: str, status: int) -> int:
    print(visible(f"coterie: {sentence}"), file=sys.stderr)
    return status


def _print_what_is_known() -> None:
    """Where standard output has fewer characters than a text needs, others stand as codes."""
    if isinstance(out := answers(), io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())[:500] or type(error).__name__


def _dispatch(args: list[str]) -> int:
    if any(map(is_code, args)):  # the user's, perhaps a file of this folder
        sys.path.append(os.getcwd())
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="", file=answers() if args else sys.stderr)
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from coterie import __version__

        answer(f"coterie {__version__}")
        return 0
    if args[:2] == ["completion", ASK]:
        for word in complete(args[2:]):
            answer(word)
        return 0
    if args[0] not in COMMANDS:
        hint = did_you_mean(args[0], COMMANDS)
        raise UsageError(f"there is no command {args[0]!r}{hint} (coterie --help shows all)")
    command, rest = COMMANDS[args[0]], args[1:]
    names = leading_names(rest)
    if "-h" in rest or "--help" in rest:
        _print_help(command, names, rest)
        return 0
    fewest, most = command.names
    if not fewest <= len(names) <= most:
        problem = "options stand behind all names; " if rest[len(names) :] else ""
        problem = f"unexpected {names[most]!r}; " if len(names) > most else problem
        raise UsageError(f"{problem}usage: {command.usage}")
    groups = groups_of(command, names, rest)
    parsed = parse(groups, rest[len(names) :], shlex.join(["coterie", args[0], *names]))
    return command.run(names, parsed, args) or 0


def _print_help(command: Command, names: list[str], args: list[str]) -> None:
    from coterie.cli.help import render_help

    found = groups_of(command, names, args)
    groups = [(title, flags_of(title, cls)) for title, cls in found]
    titles = {"hosting": "Python environment", "code": "your own code, imported if you name it"}
    if {title for title, _ in groups} <= {"run", "code"}:
        titles["run"] = "flags"
    titles |= dict(zip(("algorithm", "env"), (n.partition("/")[0] for n in names), strict=False))
    shown = [(titles.get(title, title), group) for title, group in groups]
    about = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command.options) or "")
    more = command.more if len(names) < max(command.names[0], 1) else ""
    say(render_help(command.usage, about, shown, more), width=80)
