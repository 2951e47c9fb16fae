"""Formats of run directories: what former versions of Coterie wrote, and what it means now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from coterie.errors import UsageError

FORMAT = 4
"""The format of runs that this version writes; a run that does not name its format has 1."""
RESUMED_BY = {1: "0.1.0"}
"""Formats whose runs this version cannot resume, and the last version that can."""
FORMER_LEAVES = {
    "hidden_state": "memory",
    "extras": "behaviour",
    "time_step": "shown",
    "start": "fresh",
    "sampled": "drawn",
    "evaluation_key": "judge_key",
}
"""Parts of the names of a checkpoint's leaves that had another name up to format 2."""
FORMER_SETTINGS: dict[str, tuple[str, dict[Any, Any]] | None] = {
    "standardise_rewards": ("reward_scaling", {True: "standardise", False: "none"}),
}
"""Settings of former formats that have another name or other values now.

Each by its former name: the present name, and present values by former ones (others are the same);
or None, where it decides nothing any more.
"""
WITHOUT_EFFECT = ("sharing", "groups")
"""Settings that central learners once had, without effect: one learner shares with nobody."""
OF_VECTORS = ("std", "least_std", "action_bounds")
"""Settings that policy-gradient algorithms once had, without effect, that refuse action vectors."""


def refuse_former(names: Iterable[str]) -> None:
    """UsageError that says what took its place, if a setting's name is a former one."""
    for name in names:
        if replacement := FORMER_SETTINGS.get(name):
            values = ", ".join(f"{now} for {then}" for then, now in replacement[1].items())
            raise UsageError(f"{name} is now {replacement[0]}" + (f": {values}" if values else ""))


def present_leaves(stored: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Present names, by the names in a file, of leaves that have another name in it.

    Of names that are in the file and not wanted, and names that are wanted and not in the file,
    those belong together that are the same but for parts that were renamed.
    """
    stored, wanted = set(stored), set(wanted)
    left = {_renamed(name): name for name in sorted(wanted - stored)}
    return {name: left[_renamed(name)] for name in stored - wanted if _renamed(name) in left}


def _renamed(name: str) -> str:
    present = {then: now for now, then in FORMER_LEAVES.items()}
    return "/".join(present.get(part, part) for part in name.split("/"))


def format_of(config: dict[str, Any]) -> int:
    """The format of the run with this ``config.json``."""
    return config.get("format", 1)


def check_format(path: Path, config: dict[str, Any]) -> None:
    """UsageError unless this version can read a run whose ``config.json`` is at ``path``."""
    number = config.get("format", 1)
    if type(number) is not int or number < 1:
        raise UsageError(f"{path} is not that of a run: format is {repr(number)[:60]}")
    if number > FORMAT:
        raise UsageError(
            f"{path} has format {number}, and this version of Coterie reads formats up to {FORMAT}:"
            " use a newer version"
        )


def check_resumable(path: Path, config: dict[str, Any], done: int) -> None:
    """UsageError if a run's checkpoints are of a former format, naming the version they are for.

    Args:
        done: environment steps that each seed has made.
    """
    number = format_of(config)
    if number not in RESUMED_BY:
        return
    if done >= config["steps"]:
        raise UsageError(
            f"{path} has its {done:,} steps already, and it is a run of format {number}, which "
            f"only Coterie {RESUMED_BY[number]} can extend"
        )
    raise UsageError(
        f"{path} is a run of format {number}, which only Coterie {RESUMED_BY[number]} can resume; "
        "this version evaluates, watches, plots and reports it"
    )


def present_settings(
    cls: type, stored: dict[str, Any], config: dict[str, Any], note: Callable[[str], None]
) -> dict[str, Any]:
    """Settings that a run stored, under the names and with the values that they have now.

    Args:
        cls: the dataclass whose fields they are.
        note: called with a sentence for every setting of a former format that no longer applies.

    Raises:
        UsageError: the run's own format does not have such a setting.
    """
    fields = {field.name for field in dataclasses.fields(cls)}
    former = format_of(config) in RESUMED_BY
    present = {}
    for stored_name, stored_value in stored.items():
        name, value = _present(stored_name, stored_value) if former else (stored_name, stored_value)
        if name in fields:
            present[name] = value
        elif _had_no_effect(stored_name, cls):
            continue
        elif former:
            note(f"the run's setting {stored_name} no longer applies and is ignored")
        else:
            raise UsageError(f"config.json is damaged: there is no setting {name!r}")
    return present


def _had_no_effect(name: str, cls: type) -> bool:
    """Whether the class once had a setting that decided nothing there."""
    if name in OF_VECTORS:
        return getattr(cls, "stochastic", False) and not getattr(cls, "action_vectors", True)
    return name in WITHOUT_EFFECT and getattr(cls, "joint_view", False)


def _present(name: str, value: Any) -> tuple[str | None, Any]:
    """The present name and value of a setting of a former format; no name if it is gone."""
    if name not in FORMER_SETTINGS:
        return name, value
    replacement = FORMER_SETTINGS[name]
    if replacement is None:
        return None, value
    return replacement[0], next(
        (now for then, now in replacement[1].items() if then == value), value
    )
