"""The page of an algorithm: its section of docs/algorithms.md, and what its code says of itself."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from curve_pictures import curves

import coterie
from coterie.algorithms import Algorithm
from coterie.flags import field_docs

ROOT = Path(__file__).parents[1]
SHARED = {
    "ValueSettings": "What the value-based algorithms share",
    "PolicySettings": "What the policy-gradient algorithms share",
    "VectorSettings": "Actions that are vectors",
    "ActorCritic": "What the actor-critics share",
    "ProximalSettings": "What IPPO and MAPPO share",
}
"""Sections of docs/algorithms.md about several algorithms, by the class that these share."""
KINDS = {
    "": "Algorithm", "environments that report it": "Algorithm", "Python environments": "Algorithm",
    "value-based": "ValueSettings", "policy gradients": "PolicySettings",
    "actor-critics": "ActorCritic", "IPPO and MAPPO": "ProximalSettings",
}  # fmt: skip
"""Which algorithms log a metric, as docs/formats.md says it: those of this class."""
_TABLE = re.compile(r"^\| settings? .*\n(?:\|.*\n)+", re.M)


def sections() -> dict[str, tuple[str, str]]:
    """Of docs/algorithms.md: each section's title up to a colon, what follows, and its text."""
    text = (ROOT / "docs" / "algorithms.md").read_text()
    titled = (part.partition("\n") for part in re.split("^## ", text, flags=re.M)[1:])
    return {
        name: (more.strip(), body)
        for title, _, body in titled
        for name, _, more in [title.partition(":")]
    }


def documented(cls: type[Algorithm]) -> dict[str, list[str]]:
    """Rows of the tables of docs/algorithms.md about an algorithm's settings, by setting.

    A row holds the default, the meaning and, maybe, whether it goes beyond the lecture.
    """
    found, rows = sections(), {}
    for base in reversed(cls.__mro__):
        _, body = found.get(SHARED.get(base.__name__, base.__name__), ("", ""))
        for name, row in re.findall(r"^\| `(\w+)` \| (.+) \|$", body, re.M):
            rows[name] = [part.strip() for part in re.split(r"(?<!\\)\|", row)]
    return {name: row for name, row in rows.items() if row[0] != "—"}  # not a setting here


def algorithm_page(name: str, cls: type[Algorithm]) -> str:
    """Markdown, with links as they are in docs/algorithms.md."""
    title, body = sections()[cls.__name__]
    shared = [SHARED[base.__name__] for base in cls.__mro__ if base.__name__ in SHARED]
    links = [f"[{s}](#{re.sub('[^a-z]+', '-', s.lower())})" for s in reversed(shared)]
    file = Path(inspect.getfile(cls))  # of an installed copy, maybe
    place = file.relative_to(Path(coterie.__file__).parent).as_posix()
    parts = [
        f"# {cls.__name__}: {title}",
        _TABLE.sub("", body).strip(),
        f"Details that it shares with other algorithms: {', '.join(links)}.",
        *curves(name),
        "## Settings",
        f"Of `coterie train {name} ENVIRONMENT`, and of `coterie.{cls.__name__}` in Python. A mark "
        "in the last column: the lecture has no such option, or another value; *and on* says that "
        "it is on by default.",
        _settings(cls),
        "## Metrics",
        "What the log of a run holds ([the format](formats.md#metricsjsonl)).",
        _metrics(cls),
        "## Code",
        f"`src/coterie/{place}`",
        f"```python\n{file.read_text()}```",
    ]
    return "\n\n".join(parts) + "\n"


def default(value: Any) -> str:
    """A default as it is written in Python, short."""
    return "1/8" if value == 1 / 8 else str(value)


def _settings(cls: type[Algorithm]) -> str:
    stated, meanings = documented(cls), field_docs(cls)
    rows = [
        f"| `{name}` | {default(value)} | {_cell(meanings[name])} | {''.join(stated[name][2:3])} |"
        for name, value in cls().settings().items()
    ]
    head = ["| setting | default | meaning | beyond the lecture |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|").rstrip(".")


def _metrics(cls: type[Algorithm]) -> str:
    _, _, text = (ROOT / "docs" / "formats.md").read_text().partition("## `metrics.jsonl`")
    bases = {base.__name__ for base in cls.__mro__}
    rows = re.findall(r"^\| (`.*?) \| ([^|]+) \| (.*) \|$", text.partition("\n## ")[0], re.M)
    kept = [
        f"| {name} | {meaning} |"
        for name, where, meaning in rows
        if KINDS[re.sub(r"^(training|both|evaluation)(, )?", "", where)] in bases
    ]
    return "\n".join(["| metric | meaning |", "|---|---|", *kept])
