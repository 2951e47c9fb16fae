"""The pages that are made from the code: algorithms, commands, the Python API, changes."""

from __future__ import annotations

import functools
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from algorithm_pages import algorithm_page
from links import SHOWN

import coterie
from coterie.algorithms import algorithms
from coterie.cli.table import COMMANDS, Command, groups_of
from coterie.flags import flags

ROOT = Path(__file__).parents[1]
HOMES = {
    "runs": "Training, runs and teams", "algorithms": "Algorithms", "envs": "Environments",
    "jax_envs": "Environments", "spec": "What agents see and do", "types": "What agents see and do",
    "python_envs": "Python environments", "show": "Pictures", "exports": "Exports",
    "sweeps": "Training, runs and teams", "trackers": "Trackers", "errors": "Errors",
}  # fmt: skip
"""Sections of the page of public names, by the part of the package that they are in."""
PARTS = {
    "learners": "parts of algorithms", "ops": "operations", "games": "games", "analysis": "analysis"
}  # fmt: skip
"""Parts of the package that have a page of their own."""
COPIED = {
    "benchmarks/README.md": "Speed", "CONTRIBUTING.md": "Contributing", "CHANGELOG.md": "Changes"
}  # fmt: skip
"""Files outside of docs/ that are pages, as ``links.SHOWN`` says."""


@dataclass(frozen=True)
class Page:
    """A page of the site that is no file of docs/.

    Attributes:
        section: of the navigation.
        path: in docs/, if it were there.
        text: Markdown.
        origin: the file of the repository that relative links of the text start from.
    """

    section: str
    title: str
    path: str
    text: str
    origin: str = "docs/index.md"


@functools.cache
def made() -> tuple[Page, ...]:
    """All of them, in the order of the navigation."""
    return (*_algorithms(), *_reference(), *_copies())


def _algorithms() -> Iterator[Page]:
    for name, cls in algorithms().items():
        text = algorithm_page(name, cls)
        yield Page("Algorithms", cls.__name__, f"algorithms/{name}.md", text, "docs/algorithms.md")


def _reference() -> Iterator[Page]:
    yield Page("Reference", "Commands", "commands.md", _commands())
    yield Page("Reference", "Python", "api.md", _public())
    for package, title in PARTS.items():
        yield Page("Reference", f"Python: {title}", f"api-{package}.md", _modules(package, title))


def _copies() -> Iterator[Page]:
    for path, title in COPIED.items():
        text = (ROOT / path).read_text()
        yield Page("Explanation", title, SHOWN[path].removeprefix("docs/"), text, path)


def _commands() -> str:
    parts = ["# Commands", "`coterie COMMAND --help` shows the same on a terminal."]
    for name, command in COMMANDS.items():
        about = inspect.getdoc(command.options) or ""
        parts += [f"## `coterie {name}`", f"```text\n{command.usage}\n```", about]
        parts += _flags(command)
        if name == "train":
            parts.append("The settings of each algorithm are on [its page](algorithms.md).")
    return "\n\n".join(parts) + "\n"


def _flags(command: Command) -> list[str]:
    found = [flag for _, cls in groups_of(command, [], []) for flag in flags(cls)]
    rows = [f"| `{f'{flag.name} {flag.value}'.rstrip()}` | {cell(flag.help)} |" for flag in found]
    return ["\n".join(["| flag | meaning |", "|---|---|", *rows])] if rows else []


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _public() -> str:
    sections: dict[str, list[str]] = {}
    for name in sorted(coterie.__all__):
        home = coterie._HOME[name]
        entry = f"::: coterie.{home}.{name}\n    options: {{heading_level: 3}}"
        sections.setdefault(HOMES[home.partition(".")[0]], []).append(entry)
    parts = ["# Python", "Every name here is one of `coterie`, as in `coterie.train`."]
    for title in dict.fromkeys(HOMES.values()):
        parts += [f"## {title}", *sections[title]] if title in sections else []
    return "\n\n".join(parts) + "\n"


def _modules(package: str, title: str) -> str:
    folder = [str(ROOT / "src" / "coterie" / package)]
    names = sorted(m.name for m in pkgutil.walk_packages(folder) if not m.name.startswith("_"))
    parts = [f"# {title.capitalize()}", f"What `coterie.{package}` holds."]
    for name in names:
        entry = f"::: coterie.{package}.{name}\n    options: {{show_root_heading: false}}"
        parts += [f"## `{package}.{name}`", entry.replace("{show", "{heading_level: 3, show")]
    return "\n\n".join(parts) + "\n"
