"""The page around the blocks: head, contents, sections; one file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from coterie.envs.scene import PALETTE
from coterie.errors import UsageError
from coterie.show.colours import COLOURS, DARK_COLOURS
from coterie.show.report.blocks import Section, Verdict
from coterie.show.report.html import escape, inline, render_all

SIGNS: dict[Verdict, str] = {"passed": "✓", "failed": "✗", "not run": "○"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The page forbids itself every request."""


def write_report(
    out: str | Path,
    title: str,
    sections: Sequence[Section],
    subtitle: str = "",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Writes a page that stands alone; replaces ``out`` where it exists.

    Args:
        out: ends in ``.html``.
        facts: a few names and values below the title, such as versions.

    Raises:
        UsageError: ``out`` has another ending.
    """
    out = Path(out)
    check(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(title, sections, subtitle, facts or {}), encoding="utf-8")
    return out


def check(out: Path) -> None:
    """UsageError where ``write_report`` would refuse."""
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UsageError(f"{out} must be a file that ends in .html")


def page(title: str, sections: Sequence[Section], subtitle: str, facts: Mapping[str, str]) -> str:
    """The whole page as text."""
    here = files("coterie.show.report")
    style = colours() + (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    names = _names(sections)
    parts = "\n".join(map(_section, sections, names))
    stated = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{inline(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{f'<p class="subtitle">{inline(subtitle)}</p>' if subtitle else ""}
{f'<dl class="facts">{stated}</dl>' if stated else ""}
</header>
{_contents(sections, names)}
<main>
{parts}
</main>
<script>
{script}</script>
</body>
</html>
"""


def colours() -> str:
    """The palettes as CSS variables, for light and dark."""

    def block(k: int) -> str:
        roles = [f"--{role}:{pair[k]}" for role, pair in PALETTE.items()]
        series = [f"--series-{n}:{c}" for n, c in enumerate((COLOURS, DARK_COLOURS)[k])]
        return ";".join([*roles, *series])

    return (
        f":root{{{block(0)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{block(1)}}}}}\n"
    )


def _names(sections: Sequence[Section]) -> list[str]:
    """A distinct name for each section, to link to."""
    names: list[str] = []
    for section in sections:
        plain = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        candidates = itertools.chain([plain], (f"{plain}-{k}" for k in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def _contents(sections: Sequence[Section], names: Sequence[str]) -> str:
    if len(sections) < 2:
        return ""
    lines = "".join(
        f'<li><a href="#{name}">{inline(section.title)}</a>{_verdict(section.verdict)}</li>'
        for section, name in zip(sections, names, strict=True)
    )
    return f'<nav aria-label="Contents"><h2>Contents</h2><ol>{lines}</ol></nav>'


def _section(section: Section, name: str) -> str:
    summary = f'<p class="summary">{inline(section.summary)}</p>' if section.summary else ""
    return (
        f'<section id="{name}"><h2>{inline(section.title)}{_verdict(section.verdict)}</h2>'
        f"{summary}\n{render_all(section.blocks)}\n</section>"
    )


def _verdict(verdict: Verdict | None) -> str:
    """A sign and a word: the colour only repeats them."""
    if verdict is None:
        return ""
    kind = verdict.replace(" ", "-")
    return f' <span class="verdict {kind}"><i>{SIGNS[verdict]}</i> {verdict}</span>'
