"""An algorithm's learning curve among those of all others, as a picture in the page."""

from __future__ import annotations

import json
from collections.abc import Sequence

from curves import ENVIRONMENT, FILE, command

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 40, 30


def curves(name: str) -> list[str]:
    """The section of an algorithm's page, if curves were recorded."""
    if not FILE.exists() or name not in (found := json.loads(FILE.read_text())):
        return []
    most = max(own["env_steps"][-1] for own in found.values())
    means = {
        each: (own["env_steps"], [sum(r) / len(r) for r in zip(*own["returns"], strict=True)])
        for each, own in found.items()
    }
    others = [_line(*means[each], most) for each in means if each != name]
    own = means[name]
    seeds = [_line(own[0], returns, most, "seed") for returns in found[name]["returns"]]
    end = f"{own[1][-1]:.2f}"
    label = f"Learning curve of {name} on {ENVIRONMENT}: mean return of two teams, {end} at the end"
    return [
        "## Learning curve",
        f"```sh\n{command(name)}\n```",
        f'<figure markdown="0" class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}">{_axes(most)}{"".join(others)}{"".join(seeds)}'
        f"{_line(*own, most, 'own')}</svg><figcaption>Return of the policy on <code>{ENVIRONMENT}"
        f"</code> with default settings: {name} (mean of two teams, and each of them), and in "
        "grey the means of all other algorithms. A run this short shows how a curve looks, not "
        "which algorithm is better.</figcaption></figure>",
    ]


def _at(steps: float, value: float, most: int) -> tuple[float, float]:
    """A point of the picture; returns are from 0 to 1."""
    x = LEFT + (WIDTH - LEFT - 12) * steps / most
    return round(x, 1), round(10 + (HEIGHT - BOTTOM - 10) * (1 - value), 1)


def _line(steps: Sequence[int], values: Sequence[float], most: int, kind: str = "other") -> str:
    points = " ".join(
        "{},{}".format(*_at(step, value, most)) for step, value in zip(steps, values, strict=True)
    )
    return f'<polyline class="{kind}" points="{points}"/>'


def _axes(most: int) -> str:
    found = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = _at(0, value, most)
        found.append(f'<path class="grid" d="M{x} {y}H{WIDTH - 12}"/>')
        found.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for part in (0, 0.5, 1):
        x, _ = _at(part * most, 0, most)
        anchor = "end" if part == 1 else "middle"
        text = f"{part * most / 1000:.0f}k steps" if part else "0"
        found.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    return "".join(found)
