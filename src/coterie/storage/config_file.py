"""``config.json``: what must stand in it, what identifies a run, versions that decide a result."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from coterie import __version__
from coterie.errors import UsageError
from coterie.settings import RUN, EnvironmentName, Name, Seeds, fitted
from coterie.storage.files import digest, parse_sealed, seal

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy")
CONFIG: dict[str, Any] = {
    "algorithm": Name,
    "settings": dict,
    "environment": EnvironmentName,
    "environment_options": dict,
    "reward": Literal["individual", "sum", "mean"],
    "central": Literal["none", "state", "joint"],
    **RUN,
    "sizes": dict,
    "lanes": Seeds,
    "metric": Literal[
        "eval/return/team_sum", "eval/return/team_mean",
        "eval_sampled/return/team_sum", "eval_sampled/return/team_mean",
    ],
}  # fmt: skip
"""What must stand in a ``config.json`` to go on from it."""
ABSENT_ONCE = {"evaluation_episodes": 32, "metric": "eval/return/team_sum"}
"""What did not stand in older ones, and was this."""
_PASSING = (
    "format", "coterie", "command", "steps", "asked_steps", "versions", "sessions", "hosting",
)  # fmt: skip
"""What may differ between two configurations of one run."""


def identity(config: dict[str, Any]) -> str:
    """Names a run by all that decides it but its length; what it keeps carries the name."""
    return digest({k: v for k, v in config.items() if k not in _PASSING})


def check_config(config: dict[str, Any]) -> None:
    """UsageError unless a configuration holds what it takes to go on from it."""
    given = ABSENT_ONCE | config
    for name, hint in CONFIG.items():
        if name not in given:
            raise UsageError(f"it needs {name}")
        if type(fitted(name, given[name], hint)) is int and type(given[name]) is not int:
            raise UsageError(f"{name} is no whole number: {given[name]!r}")
    if config["lanes"] not in (1, config["seeds"]):
        raise UsageError(f"lanes is {config['lanes']}")
    check_seeds(config["seed"], config["seeds"])
    if not _are_bounds(config.get("return_bounds")):
        raise UsageError("return_bounds are not two numbers")
    _check_origin(config)
    sessions = config.get("sessions", [])
    if not isinstance(sessions, list) or not all(isinstance(s, dict) for s in sessions):
        raise UsageError("sessions is no list of them")


_ORIGIN = {"of": str, "run": str, "env_steps": int}
_ORIGINS = {
    "fork": _ORIGIN | {"changed": dict},
    "init": _ORIGIN | {"taken": list, "not_taken": dict},
}
"""What stands in a configuration of the run that it goes back to."""


def _check_origin(config: dict[str, Any]) -> None:
    """UsageError unless what a run goes back to is recorded as a fork or a warm start does it."""
    for name, parts in _ORIGINS.items():
        found = config.get(name, {})
        if not isinstance(found, dict) or (found and not _has(found, parts)):
            raise UsageError(f"{name} is not that of a run: {repr(found)[:60]}")
    changes = config.get("fork", {}).get("changed", {}).values()
    if not all(isinstance(change, list) and len(change) == 2 for change in changes):
        raise UsageError("fork does not say what changed, and to what")
    if type(config.get("asked_steps", 1)) is not int:
        raise UsageError(f"asked_steps is no whole number: {repr(config['asked_steps'])[:60]}")


def _has(found: dict[str, Any], parts: dict[str, type]) -> bool:
    return all(type(found.get(name)) is kind for name, kind in parts.items())


GREATEST = 1e308


def _are_bounds(found: Any) -> bool:
    if found is None:
        return True
    numbers = isinstance(found, list) and all(type(x) in (int, float) for x in found)
    # Neither NaN nor infinity is below the greatest number, nor a whole number beyond floats.
    return numbers and len(found) == 2 and -GREATEST < found[0] <= found[1] < GREATEST


def check_seeds(first: int, count: int) -> None:
    """UsageError unless the numbers of so many seeds fit into 32 bits."""
    if first + count > 2**32:
        raise UsageError(f"seeds must lie below 2^32; got {first} and {count - 1} more")


def readable(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it will be read from its file, checked by who reads it.

    Raises:
        UsageError: it could be written, but not read.
    """
    try:
        found = parse_sealed(encoded(seal(config)), Path("config.json"))
    except UsageError as error:
        raise UsageError(f"these settings cannot be kept: {error}") from None
    check_config(found)
    return found


def encoded(content: Any) -> bytes:
    """JSON as it stands in files."""
    return (json.dumps(content, indent=1) + "\n").encode()


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version(), "coterie": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
