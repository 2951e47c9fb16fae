"""Blocks as HTML. Every text of a user's passes ``escape`` or ``embed``, and nothing else does.

Captions, titles and cells pass ``inline``, which reads `code` and **bold**: a text of a user's in
one of these is ``quoted`` first.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from coterie.show.curves import FEW_SEEDS, Curve, legend
from coterie.show.numbers import NOTHING, decimals, written
from coterie.show.report.blocks import (
    Block,
    Cell,
    Command,
    Curves,
    Grid,
    Matrix,
    Number,
    Settings,
    Table,
    Text,
    Viewer,
)
from coterie.text import visible, visible_lines

LONG = 28
"""Longer cells of a table break into lines."""


@singledispatch
def render(block: Any) -> str:
    """A block as HTML."""
    raise TypeError(f"{type(block).__name__} is not a block of a page")


def render_all(blocks: Iterable[Block]) -> str:
    return "\n".join(render(block) for block in blocks)


def escape(text: str) -> str:
    """Text as HTML shows it, in an element or an attribute; what cannot be seen by its code."""
    return html.escape(visible(text))


def embed(data: Any) -> str:
    """JSON inside a page: nothing in it can end the script element it stands in."""
    text = json.dumps(_seen(data), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def _seen(data: Any) -> Any:
    """The same with every text made visible."""
    if isinstance(data, Mapping):
        return {key: _seen(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_seen(value) for value in data]
    return visible(data) if isinstance(data, str) else data


_LITERAL = r"\\[\\`*]"
_LETTER = r"[^\\`]|\\(?![\\`*])"
_INLINE = re.compile(
    rf"(?P<literal>{_LITERAL})"
    rf"|`(?P<code>(?:{_LITERAL}|{_LETTER})+)`"
    rf"|\*\*(?P<bold>(?:{_LITERAL}|{_LETTER}|`)+?)\*\*"
)


def inline(text: str) -> str:
    r"""A line of text with `code` and **bold**; a backslash takes a \`, \* or \\ as it is."""
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts += [_lines(text[end : found.start()]), _part(found)]
        end = found.end()
    return "".join([*parts, _lines(text[end:])])


def _part(found: re.Match[str]) -> str:
    if found["literal"]:
        return _lines(found["literal"][1])
    tag, text = ("code", found["code"]) if found["code"] else ("strong", found["bold"])
    return f"<{tag}>{_lines(_unquoted(text))}</{tag}>"


def _lines(text: str) -> str:
    return html.escape(visible_lines(text))


def quoted(text: object) -> str:
    """Text that ``inline`` shows as it is."""
    return re.sub(r"([\\`*])", r"\\\1", visible(text))


def _unquoted(text: str) -> str:
    return re.sub(r"\\([\\`*])", r"\1", text)


def _caption(text: str, tag: str = "figcaption") -> str:
    return f"<{tag}>{inline(text)}</{tag}>" if text else ""


# Numbers -----------------------------------------------------------------------------------------


# Blocks ------------------------------------------------------------------------------------------


@render.register
def _text(block: Text) -> str:
    paragraphs = re.split(r"\n\s*\n", block.text.strip())
    return "\n".join(f"<p>{inline(paragraph)}</p>" for paragraph in paragraphs)


@render.register
def _command(block: Command) -> str:
    return (
        f'<figure class="command"><pre tabindex="0"><code>{escape(block.text)}</code></pre>'
        f'<button type="button" class="copy">Copy</button>{_caption(block.caption)}</figure>'
    )


@render.register
def _settings(block: Settings) -> str:
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_value(value))}</dd></div>"
        for name, value in _flat(block.settings)
    )
    title = f"<summary>{escape(block.title)}</summary>"
    return f'<details class="settings">{title}<dl>{pairs}</dl></details>'


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or NOTHING
    return str(value)


@render.register
def _grid(block: Grid) -> str:
    cells = "".join(f"<div>{render(inner)}</div>" for inner in block.blocks)
    return f'<div class="grid" style="--columns:{max(1, int(block.columns))}">{cells}</div>'


@render.register
def _viewer(block: Viewer) -> str:
    data = {**block.recording.to_dict(), "fps": block.fps}
    return (
        f'<figure class="viewer" tabindex="0" role="group" '
        f'aria-label="Episode viewer: {escape(block.recording.title)}">'
        f"{embed(data)}{_caption(block.caption)}</figure>"
    )


@render.register
def _table(block: Table) -> str:
    columns = [[row[c] for row in block.rows] for c in range(len(block.headers))]
    numeric = [_is_numeric(column) for column in columns]
    places = [
        decimals([float(x) for x in column if isinstance(x, (int, float))]) for column in columns
    ]
    head = "".join(
        f'<th scope="col"{" class=n" * n}><button type="button">{inline(title)}</button></th>'
        for title, n in zip(block.headers, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(map(_cell, row, numeric, places)) + "</tr>" for row in block.rows
    )
    label = escape(_unquoted(block.caption) or "table")
    return (
        f'<figure class="table"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{label}"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_caption(block.caption)}</figure>"
    )


def _is_numeric(column: Sequence[Cell]) -> bool:
    known = [x for x in column if x is not None]
    return bool(known) and all(isinstance(x, (int, float)) for x in known)


def _cell(x: Cell, numeric: bool, places: int) -> str:
    kind = " class=n" if numeric else ""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        key = f' data-v="{float(x)!r}"' if math.isfinite(x) else ""
        return f"<td{kind}{key}>{written(float(x), places)}</td>"
    if x is None:
        return f"<td{kind}>{NOTHING}</td>"
    kind = " class=long" if len(str(x)) > LONG else kind
    return f"<td{kind}>{inline(str(x))}</td>"


# Curves ------------------------------------------------------------------------------------------


@render.register
def _curves(block: Curves) -> str:
    labels = list(dict.fromkeys(c.label for own in block.panels.values() for c in own))
    scale = block.scale
    dots = scale is not None and scale.dots
    data: dict[str, Any] = {
        "y": block.y_title.replace("\n", " "),
        "references": [[name, _digits(value)] for name, value in block.references.items()],
        "panels": [
            {"title": title, "curves": [_line(c, labels.index(c.label), dots) for c in curves]}
            for title, curves in block.panels.items()
        ],
    }
    if scale is not None:
        data["x"] = {"title": scale.title, "kind": scale.kind, "names": list(scale.names),
                     "dots": scale.dots, "joined": scale.joined, "seeds": scale.seeds}  # fmt: skip
    marks = "" if scale else legend([c for own in block.panels.values() for c in own])
    marks = f"{marks[0].upper()}{marks[1:]}." if marks else ""
    caption = " ".join(x for x in (block.caption, marks) if x)
    return f'<figure class="curves">{embed(data)}{_caption(caption)}</figure>'


def _line(curve: Curve, look: int, dots: bool) -> dict[str, Any]:
    arrays = {"x": curve.steps, "y": curve.mean, "low": curve.low, "high": curve.high}
    lists: dict[str, Any] = {name: _list(values) for name, values in arrays.items()}
    few = dots or 1 < curve.seeds < FEW_SEEDS
    lists["each"] = [_list(own) for own in curve.samples] if few else []
    return {"label": curve.label, "seeds": curve.seeds, "look": look, **lists}


def _list(values: Any) -> list[Number | None]:
    return [_digits(v) for v in np.asarray(values).tolist()]


def _digits(x: Number) -> Number | None:
    """Five digits, which no screen shows more of; None for what is not a number."""
    if not math.isfinite(x):
        return None
    return int(x) if float(x).is_integer() else float(f"{x:.5g}")


# Matrices ----------------------------------------------------------------------------------------


@render.register
def _matrix(block: Matrix) -> str:
    every = [float(x) for line in block.values for x in line]
    places = _few(every)
    corner = f"<td>{_corner(*block.agents)}</td>" if block.agents else "<td></td>"
    head = "".join(
        f'<th scope="col">{escape(label)}{_beside(block.column_values, c)}</th>'
        for c, label in enumerate(block.columns)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(label)}{_beside(block.row_values, r)}</th>'
        + "".join(_heat(block, r, c, _strength(every, block), places)
                  for c in range(len(block.columns))) + "</tr>"
        for r, label in enumerate(block.rows)
    )  # fmt: skip
    title = f"<h4>{inline(block.title)}</h4>" if block.title else ""
    return (
        f'<figure class="matrix">{title}<div class="scroll"><table><thead><tr>{corner}{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>{_caption(block.caption)}</figure>"
    )


def _corner(row: str, column: str) -> str:
    """Who chooses what: the row's agent below, the column's above and to the right."""
    return f"<small class=corner><i>{escape(column)} →</i><i>{escape(row)} ↓</i></small>"


def _few(values: Sequence[float]) -> int:
    """At most two decimals: these tables are compared at a glance."""
    return min(2, decimals(values))


def _beside(values: Sequence[Number] | np.ndarray | None, k: int) -> str:
    """The number beside a row's or a column's label."""
    if values is None:
        return ""
    return f"<b>{written(float(values[k]), _few([float(v) for v in values]))}</b>"


def _strength(every: Sequence[float], block: Matrix) -> tuple[float, float]:
    """The values that are coloured not at all, and fully."""
    finite = [x for x in every if math.isfinite(x)] or [0.0]
    if block.scale == "diverging":
        return 0.0, float(block.full or max(map(abs, finite)) or 1.0)
    return min(finite), float(block.full or max(finite))


def _heat(block: Matrix, r: int, c: int, range_: tuple[float, float], places: int) -> str:
    value, (none, full) = float(block.values[r][c]), range_
    share = (value - none) / (full - none) if full > none and math.isfinite(value) else 0.0
    share = min(max(share, -1.0), 1.0)
    classes = ["below"] * (share < 0) + ["marked"] * ((r, c) in set(block.marked))
    kind = f' class="{" ".join(classes)}"' if classes else ""
    note = block.notes[r][c] if block.notes is not None else ""
    small = f"<small>{inline(note)}</small>" if note else ""
    text = written(value, places) if block.texts is None else escape(block.texts[r][c])
    return f'<td{kind} style="--t:{abs(share):.3f}">{text}{small}</td>'
