"""An algorithm and its game from a configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from coterie.algorithms import find as find_algorithm
from coterie.errors import UsageError
from coterie.jax_envs import options_class
from coterie.learners.contract import Algorithm
from coterie.module_paths import is_code, options, path_of
from coterie.python_envs.opening import digest
from coterie.python_envs.settings import PythonEnvSettings
from coterie.runs.environments import (
    Opened,
    check_fits,
    is_made,
    open_environment,
    options_again,
    seen_by,
)
from coterie.runs.user_code import (
    NETWORKS,
    NOTHING,
    Given,
    code_again,
    named_by,
    recorded_python,
)
from coterie.settings import shown
from coterie.storage.formats import present_settings
from coterie.text import did_you_mean
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
    if not isinstance(given, dict) or not is_code(config["environment"]):
        raise UsageError(f"config.json is damaged: hosting cannot be {repr(given)[:60]}")
    # The settings of Python environments decide no result: no note where a former setting is gone.
    given = present_settings(PythonEnvSettings, given, config, lambda sentence: None)
    with _damaged():
        # What a file says is no reason to start a program: it has to be given again.
        return dataclasses.replace(PythonEnvSettings(**given), python=None)


def configured_algorithm(
    config: dict[str, Any], note: Callable[[str], None] = logger.warning, code: Given = NOTHING
) -> Algorithm:
    """The algorithm that a configuration names, with its settings.

    Args:
        note: as in ``restore``.
        code: the user's own that it needs, as ``code_again`` returns it.
    """
    own = code.get("algorithm")
    networks = {word: code[word] for word in NETWORKS if word in code}
    if own is None:
        kind = find_algorithm(config["algorithm"])
        settings = present_settings(kind, config["settings"], config, note)
        with _damaged():
            return kind(**settings | networks)
    settings = _own_settings(own, config["settings"], note)
    try:
        return own(**settings | networks)
    except UsageError as error:
        raise UsageError(f"{path_of(own)} does not take the settings of the run: {error}") from None


def _own_settings(
    kind: type[Algorithm], stored: dict[str, Any], note: Callable[[str], None]
) -> dict[str, Any]:
    """The settings that a run stored, which a class of the user's still must have."""
    path, fields = path_of(kind), {field.name: field for field in dataclasses.fields(kind)}
    for name in stored:
        if name not in fields:
            hint = did_you_mean(name, fields.keys() - stored.keys())
            raise UsageError(f"{path} has no setting {name}, which the run was trained with{hint}")
    for name in fields.keys() - stored.keys():
        value = fields[name].default
        note(f"{path} has the setting {name}, which the run does not state: it is {value!r}")
    return stored


def restore(
    config: dict[str, Any],
    given: Given = NOTHING,
    note: Callable[[str], None] = logger.warning,
) -> tuple[Algorithm, Game]:
    """The algorithm and the game a configuration describes.

    Code of the user's is never imported because a file names it: it has to be passed again.

    Args:
        given: the user's code, by what it is; None where there is none.
        note: called with a sentence for every stored setting that no longer applies, or that is
            not stored.
    """
    code = code_again(named_by(config), given)
    algorithm = configured_algorithm(config, note, code)
    name, chosen = config["environment"], config["environment_options"]
    if is_code(name):
        opened = code["environment"]
        chosen = options_again(opened, config)
    else:
        opened = name
        if (settings := options_class(name)) is not None:
            chosen = present_settings(settings, chosen, config, note)
    python_env = _with_python(config, code.get("environment"), code.get("python"))
    env, env_name = open_environment(
        opened,
        chosen,
        python_env,
        state=config["central"] == "state",
        combined="actions" not in config.get("sizes", {}),
        arrays="observations" in config.get("sizes", {}),
    )
    game = seen_by(algorithm, env, config["central"], config["reward"])
    if ":" in name:
        check_fits(config["sizes"], env.spec(), env_name)
    if python_env:
        check_same_spec(config, digest(env.spec()), env_name)
    return algorithm, game


def note_python(config: dict[str, Any], game: Game) -> None:
    """Records in which other Python the environments run from now on, if in any."""
    other = getattr(game.env, "other_python", None)
    if other or recorded_python(config):
        config["hosting"]["python"] = other.python if other else None
        config["hosting"]["workers"] = (
            config["hosting"]["workers"] or PythonEnvSettings().processes()
        )


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
    recorded = recorded_python(config)
    if recorded and not is_made(environment):
        raise UsageError(
            "the environments of the run are in another Python, which is started only if you name "
            f"it: give {options({'python': recorded})}"
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
