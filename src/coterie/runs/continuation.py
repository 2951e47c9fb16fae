"""Going on with a run: how to say it, whether it is the same run, and on the same machine."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import jax

from coterie.errors import UsageError
from coterie.jax_envs import options_class
from coterie.machine import usable_cores
from coterie.module_paths import importable, options
from coterie.storage.config_file import versions

NONE: Mapping[str, str] = MappingProxyType({})
SESSIONS = 1000
"""So many entries of ``sessions`` are kept: the first, and the last ones."""


def resume_command(path: Path, code: Mapping[str, str], environment: Any = None) -> str:
    """What continues a run, so that it works as it is printed.

    Args:
        code: paths of the user's code that the run records, by what it is.
        environment: what the user gave: a name, a module, or what no command line can name.
    """
    code = dict(code)
    unnamed = [word for word, name in code.items() if not importable(name)]
    if isinstance(environment, str) and "environment" in code:
        code["environment"] = environment
    elif "environment" in code and not isinstance(environment, ModuleType):
        unnamed = list(dict.fromkeys(["environment", *unnamed]))
    if not unnamed:
        return run_command("resume", path, code)
    given = [f"{word}=..." if word in unnamed else f"{word}={code[word]!r}" for word in code]
    call = f"coterie.resume({', '.join([repr(str(path)), *given])})"
    return f"{call} in Python, with the same {' and '.join(unnamed)}"


def run_command(command: str, path: Path, code: Mapping[str, str] = NONE) -> str:
    """A command on a run as it is typed; one that needs code of the user's has to name it."""
    place = str(path) if not str(path).startswith("-") else f"./{path}"
    return " ".join(filter(None, [shlex.join(["coterie", command, place]), options(code)]))


# The same run? -----------------------------------------------------------------------------------


def check_same(
    path: Path, recorded: dict[str, Any], wanted: dict[str, Any], depends: set[str]
) -> None:
    """UsageError, with names and values, where a run was begun with other settings than wanted.

    Args:
        recorded, wanted: configurations, with settings as this version calls them.
        depends: settings that follow from the number of steps.
    """
    before, now = _named(recorded), _named(wanted)
    differ = [name for name in (*before, *now) if before.get(name) != now.get(name)]
    first = [name for name in ("algorithm", "environment") if name in differ]
    if "steps" in differ:
        differ = ["steps", *(n for n in differ if n not in depends and n != "steps")]
    if names := list(dict.fromkeys(first or differ)):
        each = [f"{name} is {_value(before, name)}, not {_value(now, name)}" for name in names]
        longer = "steps" in names and wanted["steps"] > recorded["steps"]
        more = "; resume --steps extends a run" if longer else ""
        raise UsageError(
            f"{path} holds a run of other settings: {', '.join(each)}{more} (nothing was changed)"
        )


def _value(values: dict[str, Any], name: str) -> str:
    return str(values[name])[:60] if name in values else "not given"


def _named(config: dict[str, Any]) -> dict[str, Any]:
    """All that decides a run, by name: settings of the run, its algorithm and its environment."""
    own = ("algorithm", "environment", "steps", "seeds", "seed", "reward", "central",
           "evaluations", "evaluation_episodes", "final_episodes")  # fmt: skip
    names = ("time_limit", "step_timeout", "restarts")
    env = config["environment_options"]
    if ":" not in config["environment"]:  # what is not given has its default
        env = dataclasses.asdict(options_class(config["environment"])(**env))
    python_env = config.get("hosting") or {}
    return (
        {name: config[name] for name in own}
        | config["settings"]
        | {f"env.{name}": value for name, value in env.items()}
        | {name: python_env[name] for name in names if name in python_env}
        | {"sizes of observations and actions": config["sizes"]}
        | ({"init": config["init"]["of"]} if "init" in config else {})
    )


# The same place? ---------------------------------------------------------------------------------


def place() -> dict[str, Any]:
    """Versions and machine, on which the last bits of a result depend."""
    device = jax.devices()[0]
    machine = {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": usable_cores(),
    }
    return {"versions": versions(), "machine": machine}


def moved_sentence(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Says what differs between two places, if anything does; what is not known does not."""
    differ: list[str] = []
    for part in now:
        known = before.get(part)
        for name, value in now[part].items():
            then = known.get(name, value) if isinstance(known, dict) else value
            if then != value:
                differ.append(f"{name} {_short(then)} (now {_short(value)})")
    if not differ:
        return None
    return (
        f"the newest checkpoint was written with {', '.join(differ)}: the run continues, but its "
        "results may differ from those of an uninterrupted run"
    )


def _short(value: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value)[:40])


def note_session(config: dict[str, Any], env_steps: int, now: dict[str, Any]) -> None:
    """Adds to ``sessions`` where the run goes on from a step, unless it is where it was before."""
    sessions = config.setdefault("sessions", [])
    if not sessions or {k: v for k, v in sessions[-1].items() if k in now} != now:
        sessions.append({"env_steps": env_steps, **now})
        del sessions[1:-SESSIONS]
