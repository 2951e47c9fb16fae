"""``evaluations.json`` in the marl-eval format: written, and read once it is known to be sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.storage.config_file import identity
from coterie.storage.files import open_blanks, parse_json, read_bytes
from coterie.storage.formats import format_of

EVALUATIONS_LIMIT = 250_000_000
"""Bytes of ``evaluations.json``; a checkpoint, which holds the same, has room for no more."""


def is_old(config: dict[str, Any]) -> bool:
    """Whether a version without digests of lines and evaluations began the run."""
    return format_of(config) < 2


def read_evaluations(path: Path, config: dict[str, Any], tell: Callable[[str], None]) -> Any:
    """What ``evaluations.json`` holds, once it is known that it is what was written."""
    body, sound = open_blanks(read_bytes(path, EVALUATIONS_LIMIT), identity(config))
    if sound is None and is_old(config):
        tell(f"{path} has no digest, it is of an older version: damage in it cannot be noticed")
    elif not sound:
        what = "it has no digest" if sound is None else "it differs from its digest"
        raise UsageError(f"{path} is damaged or was changed: {what}")
    try:
        return parse_json(body)
    except ValueError:
        raise UsageError(f"{path} is damaged: not JSON") from None


def absolute_returns(path: Path, content: Any, config: dict[str, Any]) -> list[list[float]] | None:
    """Each seed's returns of the absolute metric; None unless all of them are there."""
    keys = EvaluationFile(config["environment"], config["algorithm"]).keys
    found = []
    for seed in range(config["seed"], config["seed"] + config["seeds"]):
        node = content
        for key in (*keys, f"seed_{seed}", "absolute_metrics", "return"):
            if not isinstance(node, dict):
                raise UsageError(f"{path} is damaged: it is not of the format")
            if key not in node:
                return None
            node = node[key]
        if not isinstance(node, list) or not node or not all(map(_is_return, node)):
            raise UsageError(f"{path} is damaged: returns of seed {seed} are no numbers")
        found.append([float(x) for x in node])
    return found


def _is_return(x: Any) -> bool:
    return type(x) in (int, float) and abs(x) < 1e308


class EvaluationFile:
    """``evaluations.json`` in the marl-eval format: environment, task, algorithm, seed, step."""

    def __init__(self, environment: str, algorithm: str, content: dict[str, Any] | None = None):
        family, _, task = environment.partition("/")
        self.keys = (family, task or family, algorithm)
        self.content = content or {}

    def _seed(self, seed: int) -> dict[str, Any]:
        node = self.content
        for key in (*self.keys, f"seed_{seed}"):
            node = node.setdefault(key, {})
        return node

    def add(
        self, seed: int, steps: int, seconds: float, returns: list[float], lengths: list[float]
    ) -> None:
        """One evaluation point: the team return (sum over agents) of each episode."""
        run = self._seed(seed)
        run[f"step_{len(run)}"] = {
            "step_count": steps,
            "elapsed_time": seconds,
            "return": returns,
            "length": lengths,
        }

    def absolute(self, seed: int, returns: list[float], lengths: list[float]) -> None:
        """The absolute metric: the best policy's episodes at the end."""
        self._seed(seed)["absolute_metrics"] = {"return": returns, "length": lengths}
