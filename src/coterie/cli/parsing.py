"""Flags into settings: each flag is a field of a dataclass, read as the field declares it."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import itertools
import re
import shlex
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from coterie.errors import UsageError
from coterie.flags import Flag, flags
from coterie.naming import is_code
from coterie.settings import Interpreter, check, fitted, hints, options_of, parts_of
from coterie.settings import words as what
from coterie.storage.formats import refuse_former
from coterie.text import setting_meant

Groups = list[tuple[str, type]]
"""Settings dataclasses by title; those titled ``env`` carry that prefix. A ``dict`` in place of a
dataclass takes flags of any name, with values read as Python's literals."""


@dataclass(frozen=True)
class CodeArgs:
    """Code of the user's that a run needs, which is imported only if the command names it."""

    algorithm: str | None = None
    """Algorithm of the run, module:Class; required if it is a class of your own."""
    torso: str | None = None
    """Torso of the run, module:Name; required if it is a network of your own."""
    head: str | None = None
    """Head of the run, module:Name; required if it is a network of your own."""
    python: Interpreter | None = None
    """Another Python to run Python environments in; required if the run had one."""


PREFIX = "--env."

SWITCH = "a switch, which takes no value"


class Option(NamedTuple):
    """A flag, and the field of which group it sets.

    Attributes:
        default: the field's; where it is None, nobody has to ask for that.
    """

    flag: Flag
    title: str
    field: str
    hint: Any
    default: Any


def parse(groups: Groups, args: list[str], prog: str) -> Any:
    """Parses flags into one dataclass for each group, under its title.

    Raises:
        UsageError: the sentence names the flag, what it takes and what it got.
    """
    options = _options(groups)
    anything = any(cls is dict for _, cls in groups)
    given: dict[str, dict[str, Any]] = {title: {} for title, _ in groups}
    try:
        for name, words in _split(args, options, anything):
            if name not in options:
                given["env"][name.removeprefix(PREFIX).replace("-", "_")] = _literals(words)
                continue
            option = options[name]
            given[option.title][option.field] = _value(name, words, option)
        parsed = {title: cls(**given[title]) for title, cls in groups}
        for title, cls in groups:
            if cls is not dict:
                check(parsed[title])
    except UsageError as error:
        raise UsageError(f"{error} (see {prog} --help)") from None
    return SimpleNamespace(**parsed)


def flags_of(title: str, cls: type) -> list[Flag]:
    """The flags of one group."""
    if cls is dict:
        return [Flag(f"{PREFIX}NAME", "VALUE", "Keyword argument of what makes the environment")]
    return flags(cls, "env." if title == "env" else "")


def environment_groups(name: str) -> Groups:
    """Settings of an environment: those of its family, or any keywords of what makes it."""
    from coterie.jax_envs import options_class

    settings = None if is_code(name) else options_class(name)
    if settings is None:
        return [("env", dict)]
    return [("env", settings)] if dataclasses.fields(settings) else []


def environment_options(parsed: Any) -> dict[str, Any]:
    """What ``parse`` has read for them, by name."""
    options = getattr(parsed, "env", {})
    return options if isinstance(options, dict) else dataclasses.asdict(options)


def leading_names(args: Sequence[str]) -> list[str]:
    """The words before the first flag."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), args))


def named(args: list[str], settings: Any) -> dict[str, Any]:
    """The settings that a command line names, also where it gives them their defaults."""
    words = {_flag(arg) for arg in args}
    known = {field.name: field.name.replace("_", "-") for field in dataclasses.fields(settings)}
    return {
        name: getattr(settings, name)
        for name, flag in known.items()
        if not words.isdisjoint({f"--{flag}", f"--no-{flag}"})
    }


def _options(groups: Groups) -> dict[str, Option]:
    """Every flag by its name; a switch under both, ``--name`` and ``--no-name``."""
    found: dict[str, Option] = {}
    for title, cls in groups:
        if cls is dict:
            continue
        declared = hints(cls)
        for flag, field in zip(flags_of(title, cls), dataclasses.fields(cls), strict=True):
            option = Option(flag, title, field.name, declared[field.name], field.default)
            if flag.name in found:
                raise UsageError(
                    f"{flag.name} of {cls.__name__} is a flag of the command itself: give the "
                    f"setting {field.name} another name"
                )
            found[flag.name] = option
            if option.hint is bool:
                found[_opposite(flag.name)] = option
    return found


def _opposite(name: str) -> str:
    return f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"


def _split(
    args: list[str], options: dict[str, Option], anything: bool
) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words that follow it, up to the next flag.

    Args:
        anything: whether ``--env.NAME`` is a flag of any name.
    """
    rest, name = list(args), ""
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            switch = f": {name} is {SWITCH}" if name and options[name].hint is bool else ""
            raise UsageError(f"unexpected argument {word}{switch}")
        name = _flag(word)
        words = [word.partition("=")[2]] if "=" in word else []
        if anything and name.startswith(PREFIX) and name.removeprefix(PREFIX):
            while rest and not rest[0].startswith("--"):
                words.append(rest.pop(0))
            yield name, words
            continue
        if name == "--":
            raise UsageError("unexpected argument --")
        if name not in options:
            refuse_former([re.sub("^--(no-)?", "", name).replace("-", "_")])
            shown = {option.flag.name for option in options.values()}
            of_env = {flag for flag in shown if flag.startswith(PREFIX)}
            shown = of_env if name.startswith(PREFIX) else shown - of_env
            raise UsageError(f"unknown option {name}{setting_meant(name, shown)}")
        kind, _ = parts_of(options_of(options[name].hint)[0])
        many = typing.get_origin(kind) is tuple
        while rest and not rest[0].startswith("--") and _takes_more(options[name], words, many):
            words.append(rest.pop(0))
        yield name, words


def _takes_more(option: Option, words: list[str], many: bool) -> bool:
    return many or (option.hint is not bool and not words)


def _value(name: str, words: list[str], option: Option) -> Any:
    switch = option.hint is bool
    if switch and not words:
        return not name.startswith("--no-")
    with contextlib.suppress(ValueError, OverflowError):
        return fitted(name, _read(words, option.hint), option.hint)
    kinds = options_of(option.hint) if option.default is None else (option.hint,)
    wanted = SWITCH if switch else " or ".join(map(what, kinds))
    got = shlex.join(word if len(word) <= 60 else f"{word[:57]}..." for word in words)
    raise UsageError(f"{name} must be {wanted}; got {got or 'nothing'}")


def _read(words: list[str], hint: Any) -> Any:
    """The words as a value of one kind, its range aside; ValueError where they are none."""
    if words == ["None"] and options_of(hint) != (hint,):
        return None
    kind, _ = parts_of(options_of(hint)[0])
    if typing.get_origin(kind) is tuple:
        return tuple(_read([word], typing.get_args(kind)[0]) for word in words)
    if len(words) != 1 or kind is bool or (kind is Path and not words[0]):
        raise ValueError
    return {int: whole_number, float: float, Path: Path}.get(kind, str)(words[0])


def _literals(words: list[str]) -> Any:
    """True of no word, the value of one, a list of several."""
    if len(words) > 1:
        return [_literal(word) for word in words]
    return _literal(words[0]) if words else True


def _literal(word: str) -> Any:
    """8, 0.5, 1e3, True, None, [1, 2] or a word."""
    word = {"true": "True", "false": "False", "none": "None"}.get(word, word)
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def whole_number(text: str) -> int:
    """``1000000``, ``1_000_000`` and ``1e6`` alike."""
    with contextlib.suppress(ValueError):
        return int(text)
    if not float(text).is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(float(text))


def _flag(arg: str) -> str:
    """A word of the command line without its value, and with hyphens."""
    return arg.partition("=")[0].replace("_", "-")
