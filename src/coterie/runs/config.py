"""An algorithm and its game from a configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from coterie import envs
from coterie.algorithms import find as find_algorithm
from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.python_envs.opening import digest
from coterie.python_envs.settings import PythonEnvSettings
from coterie.runs.environments import (
    Opened,
    check_fits,
    is_code,
    is_made,
    open_environment,
    options_again,
    seen_by,
)
from coterie.runs.networks import Networks, with_given
from coterie.settings import shown
from coterie.storage.formats import present_settings
from coterie.views.game import Game

logger = logging.getLogger(__name__)


def as_json(options: dict[str, Any]) -> dict[str, Any]:
    """The options as they come back from a file; UsageError if a file cannot hold them."""
    found = {}
    for name, value in options.items():
        try:
            found[name] = json.loads(json.dumps(value, default=lambda number: number.item()))
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise UsageError(
                f"the option {name} must be a number, a word, True, False, None, or a list or "
                f"dict of such; got {shown(value)}"
            ) from None
    return found


def python_env_of(config: dict[str, Any]) -> PythonEnvSettings | None:
    """Settings of Python environments, where the run is on one."""
    given = config.get("hosting")
    if given is None:
        return None
    if not isinstance(given, dict) or ":" not in config["environment"]:
        raise UsageError(f"config.json is damaged: hosting cannot be {repr(given)[:60]}")
    # The settings of Python environments decide no result: no note where a former setting is gone.
    given = present_settings(PythonEnvSettings, given, config, lambda sentence: None)
    with _damaged():
        # What a file says is no reason to start a program: it has to be given again.
        return dataclasses.replace(PythonEnvSettings(**given), python=None)


def recorded_python(config: dict[str, Any]) -> str | None:
    """The other Python that a configuration names; nothing is started."""
    given = config.get("hosting")
    python = given.get("python") if isinstance(given, dict) else None
    return python if isinstance(python, str) else None


def configured_algorithm(
    config: dict[str, Any], note: Callable[[str], None] = logger.warning
) -> Algorithm:
    """The algorithm that a configuration names, with its settings; ``note`` as in ``restore``."""
    cls = find_algorithm(config["algorithm"])
    settings = present_settings(cls, config["settings"], config, note)
    with _damaged():
        return cls(**settings)


def restore(
    config: dict[str, Any],
    environment: Opened | None = None,
    note: Callable[[str], None] = logger.warning,
    networks: Networks | None = None,
    python: str | None = None,
) -> tuple[Algorithm, Game]:
    """The algorithm and the game a configuration describes.

    Code of the user's is never imported because a file names it: it has to be given again.

    Args:
        note: called with a sentence for every stored setting that no longer applies.
        networks: the user's own, where the algorithm has some.
        python: another Python in which its Python environments run.
    """
    algorithm = with_given(configured_algorithm(config, note), networks or {})
    name, options = config["environment"], config["environment_options"]
    if ":" not in name:
        options = present_settings(envs.family(name).Options, options, config, note)
    elif environment is None:
        flags = f"--environment {name}{python_flag(config)}"
        raise UsageError(
            f"the run is on {name}, which is imported only if you name it: give {flags}"
        )
    else:
        options = options_again(environment, config)
    python_env = _with_python(config, environment, python)
    opened, state = environment if is_code(name) else name, config["central"] == "state"
    env, given = open_environment(
        opened,
        options,
        python_env,
        state,
        combined="actions" not in config.get("sizes", {}),
        arrays="observations" in config.get("sizes", {}),
    )
    game = seen_by(algorithm, env, config["central"], config["reward"])
    if is_code(name):
        check_fits(config["sizes"], env.spec(), given)
    if python_env:
        check_same_spec(config, digest(env.spec()), given)
    return algorithm, game


def note_python(config: dict[str, Any], game: Game) -> None:
    """Records in which other Python the environments run from now on, if in any."""
    other = getattr(game.env, "other_python", None)
    if other or recorded_python(config):
        config["hosting"]["python"] = other.python if other else None
        config["hosting"]["workers"] = (
            config["hosting"]["workers"] or PythonEnvSettings().processes()
        )


def python_flag(config: dict[str, Any]) -> str:
    """The flag that gives the other Python of a run again, if it has one."""
    recorded = recorded_python(config)
    return f" --python {shlex.quote(recorded)}" if recorded else ""


def _with_python(
    config: dict[str, Any], environment: Opened | None, python: str | None
) -> PythonEnvSettings | None:
    """The recorded settings of Python environments, with the other Python that was given.

    Raises:
        UsageError: none was given, and the run had one; or the run is on a JAX environment.
    """
    python_env = python_env_of(config)
    if python is not None:
        if python_env is None:
            name = config["environment"]
            raise UsageError(f"the run is on {name}, a JAX environment: give no --python")
        return dataclasses.replace(python_env, python=python, workers=python_env.workers or None)
    if recorded_python(config) and not is_made(environment):
        raise UsageError(
            "the environments of the run are in another Python, which is started only if you name "
            f"it: give{python_flag(config)}"
        )
    return python_env


def check_same_spec(config: dict[str, Any], found: str | None, name: str) -> None:
    """UsageError unless a Python environment promises what that of the run did."""
    if config.get("spec_digest") != found:
        raise UsageError(f"{name} has other agents, or another state, than the run was trained on")


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    """Says of what settings refuse that it stood in a configuration."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"config.json is damaged: {error}") from None
