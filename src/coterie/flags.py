"""``--help``: the fields of settings dataclasses as flags, grouped, one line each."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from coterie.settings import hints, options_of, own_kind, parts_of, span


class Flag(NamedTuple):
    """One setting as the command line sees it.

    Attributes:
        name: ``--batch-size``.
        value: what stands for its value in the help, empty for a switch.
        help: what it means, with its default.
    """

    name: str
    value: str
    help: str


def flags(settings: type, prefix: str = "") -> list[Flag]:
    """The flags of a dataclass, in the order of its fields."""
    declared, docs = hints(settings), field_docs(settings)
    return [
        _flag(f, declared[f.name], docs.get(f.name, ""), prefix)
        for f in dataclasses.fields(settings)
    ]


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Settings as they stand on a command line: {"recurrent": True} as --recurrent."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            several = value if isinstance(value, tuple) else (value,)
            words += [f"--{flag}", *(str(v) for v in several)]
    return words


def _flag(field: dataclasses.Field[Any], hint: Any, text: str, prefix: str) -> Flag:
    name = prefix + field.name.replace("_", "-")
    value = _value(hint)
    if hint is bool and field.default is True:
        name, text = f"no-{name}", f"Do not {text[:1].lower()}{text[1:]}" if text else ""
    default = _default(field.default)
    about = ", ".join(word for word in (f"default {default}" * bool(default), span(hint)) if word)
    text = text.replace("``", "").rstrip(".")
    return Flag(f"--{name}", value, f"{text} ({about})".strip() if about else text)


def _value(hint: Any) -> str:
    """What stands for a value of this type in the help; nothing for a switch."""
    first, *others = options_of(hint)
    kind, _ = parts_of(first)
    if typing.get_origin(kind) is Literal:
        more = [own.placeholder for other in others if (own := own_kind(other))]
        return "|".join([*map(str, typing.get_args(kind)), *more])
    if typing.get_origin(kind) is tuple:
        return f"{_value(typing.get_args(kind)[0])} ..."
    return {bool: "", int: "N", float: "X", Path: "PATH"}.get(kind, "NAME")


def _default(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(_default(v) for v in value)
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def field_docs(settings: type) -> dict[str, str]:
    """What each field means: the string below it, or its line in the class's ``Attributes``."""
    docs: dict[str, str] = {}
    for cls in reversed(settings.__mro__):
        if dataclasses.is_dataclass(cls):
            docs |= _attributes_section(cls) | _strings_below_fields(cls)
    return docs


def _strings_below_fields(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    return {
        field.target.id: " ".join(str(below.value.value).split())
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _attributes_section(cls: type) -> dict[str, str]:
    _, found, section = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section if found else "", re.M)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}
