"""One page that plays a matrix game or foraging with a team, without a server or a network."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import numpy as np

from coterie.envs.foraging import Foraging
from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError
from coterie.exports.portable import Portable
from coterie.show.report.html import embed, escape
from coterie.show.report.page import POLICY, colours

LARGEST = 400
"""Cells of a grid, and joint actions, that a page shows."""


def page(team: Portable, env: Any, title: str) -> str:
    """The page's text.

    Args:
        env: the environment that the team was trained in.

    Raises:
        UsageError: neither a matrix game nor foraging, or one too large to be shown.
    """
    data = {"game": game(env), "team": {"about": team.about, "arrays": _arrays(team)}}
    here = files("coterie.exports")
    style = colours() + (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    walks = isinstance(env, Foraging)
    keys = (
        "Numbers are levels. Keys: arrows walk, the space bar loads, the full stop waits."
        if walks
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="subtitle">The team's networks play in this page; you can take the place of one agent.</p>
<main>
<div id="board"></div>
<div>
<div class="controls"><label for="you">You play</label> <select id="you"></select>
<button id="again">Begin anew</button> <button id="run">Play</button></div>
<div id="choices"></div>
<p id="status" role="status"></p>
<table><thead><tr><th scope="col">agent</th><th scope="col">action</th><th scope="col">reward</th>
<th scope="col">return</th></tr></thead><tbody id="agents"></tbody></table>
<p class="keys">{keys}</p>
</div>
</main>
{embed(data)}
<script>{script}</script>
</body>
</html>
"""


def game(env: Any) -> dict[str, Any]:
    """The rules' numbers, as ``page.js`` takes them.

    Raises:
        UsageError: see ``page``.
    """
    if type(env) is MatrixGame:  # a subclass may have other rules
        cells = env.payoffs[..., 0].size
        numbers = {"payoffs": env.payoffs.tolist(), "rounds": env.rounds, "common": env.common}
        found = {"kind": "matrix"} | numbers
    elif type(env) is Foraging:
        cells = env.rows * env.cols
        names = ("rows", "cols", "players", "food", "coop", "sight", "penalty", "levels")
        found = {"kind": "foraging", "time_limit": env.time_limit}
        found |= {name: getattr(env, name) for name in names}
    else:
        raise UsageError(
            "a page plays matrix games (matrix/...) and foraging (lbf/...) alone: export this team "
            "with --format onnx, numpy or stablehlo"
        )
    if cells > LARGEST:
        raise UsageError(
            f"this game has {cells:,} cells, and a page shows at most {LARGEST}: export this team "
            "with --format onnx, numpy or stablehlo"
        )
    return found | {"labels": [list(map(str, own)) for own in env.action_names()]}


def _arrays(team: Portable) -> dict[str, Any]:
    """float32 arrays, little-endian, in base64; which actions there are the counts say."""
    return {
        name: {
            "shape": list(array.shape),
            "bytes": base64.b64encode(array.astype("<f4").tobytes()).decode(),
        }
        for name, array in team.arrays.items()
        if array.dtype == np.float32
    }
