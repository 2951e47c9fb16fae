"""Flags into settings; whatever the parser objects to becomes one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
from typing import TYPE_CHECKING, Any

from coterie.errors import UsageError
from coterie.settings import check
from coterie.storage.formats import refuse_former
from coterie.text import did_you_mean

if TYPE_CHECKING:
    from coterie.flags import Flag


Groups = list[tuple[str, type]]
"""Settings dataclasses by title; those titled ``env`` carry that prefix."""


def parse(groups: Groups, args: list[str], prog: str) -> Any:
    """Parses flags into one dataclass for each group; complaints become one sentence."""
    import tyro

    known = {flag.name: flag for title, cls in groups for flag in flags_of(title, cls)}
    _refuse_unknown(args, known, prog)
    fields: list[Any] = [
        (
            title,
            cls if title == "env" else tyro.conf.OmitArgPrefixes[cls],
            dataclasses.field(default=cls()),
        )
        for title, cls in groups
    ]
    schema = dataclasses.make_dataclass("Settings", fields, frozen=True)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, rest = tyro.cli(
                schema, args=args, prog=prog, registry=_registry(), return_unknown_args=True
            )
    except SystemExit:
        sentence = _sentence(complaint.getvalue(), args, known)
        raise UsageError(f"{sentence} (see {prog} --help)") from None
    if rest:
        raise UsageError(f"unexpected argument {rest[0]} (see {prog} --help)")
    for title, _ in groups:
        check(getattr(parsed, title))
    return parsed


def flags_of(title: str, cls: type) -> list[Flag]:
    from coterie.flags import flags

    return flags(cls, "env." if title == "env" else "")


def _refuse_unknown(args: list[str], known: dict[str, Flag], prog: str) -> None:
    for arg in args:
        name = _flag(arg)
        other = f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"
        if name.startswith("--") and name not in known and other not in known:
            refuse_former([re.sub("^--(no-)?", "", name).replace("-", "_")])
            hint = did_you_mean(name, known)
            raise UsageError(f"unknown option {name}{hint} (see {prog} --help)")


def named(args: list[str], settings: Any) -> dict[str, Any]:
    """The settings that a command line names, also where it gives them their defaults."""
    words = {_flag(arg) for arg in args}
    flags = {field.name: field.name.replace("_", "-") for field in dataclasses.fields(settings)}
    return {
        name: getattr(settings, name)
        for name, flag in flags.items()
        if not words.isdisjoint({f"--{flag}", f"--no-{flag}"})
    }


def _flag(arg: str) -> str:
    """A word of the command line without its value, and with hyphens."""
    return arg.partition("=")[0].replace("_", "-")


def whole_number(text: str) -> int:
    """``1000000``, ``1_000_000`` and ``1e6`` alike."""
    with contextlib.suppress(ValueError):
        return int(text)
    if not float(text).is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(float(text))


def _registry() -> Any:
    """Lets every whole number be written as 1e6."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def whole(info: Any) -> PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="N",
            instance_from_str=lambda text: whole_number(text[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _sentence(boxed: str, args: list[str], known: dict[str, Flag]) -> str:
    """What the parser's box says, short: which flag needs what, or the setting's own complaint."""
    lines = [line.strip("│| ") for line in boxed.splitlines()]
    rules = [k for k, line in enumerate(lines) if re.search("[─-]{3}", line)]
    inside = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    text = " ".join(" ".join(inside).split()).rstrip(".")
    found = re.search(r"(?:Error parsing |argument ')(--[\w.-]+)", text)
    if found and (flag := known.get(found[1])):
        given = _given(args, flag.name)
        return f"{flag.name} must be {flag.kind}; got {given or 'nothing'}"
    return re.sub(r"^Error parsing \w+: ", "", text) or "the arguments cannot be understood"


def _given(args: list[str], name: str) -> str:
    """What followed the last such flag."""
    given: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("--"):
            current, equals, value = arg.partition("=")
            current = current.replace("_", "-")
            given = ([value] if equals else []) if current == name else given
        elif current == name:
            given.append(arg)
    return shlex.join(word if len(word) <= 60 else f"{word[:57]}..." for word in given)
