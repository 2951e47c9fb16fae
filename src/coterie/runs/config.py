"""An algorithm and its game from a configuration."""

from __future__ import annotations

import contextlib
import json
import logging
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
        return PythonEnvSettings(**given)


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
) -> tuple[Algorithm, Game]:
    """The algorithm and the game a configuration describes.

    Code of the user's is never imported because a file names it: it has to be given again.

    Args:
        note: called with a sentence for every stored setting that no longer applies.
        networks: the user's own, where the algorithm has some.
    """
    algorithm = with_given(configured_algorithm(config, note), networks or {})
    name, options = config["environment"], config["environment_options"]
    if ":" not in name:
        options = present_settings(envs.family(name).Options, options, config, note)
    elif environment is None:
        raise UsageError(
            f"the run is on {name}, which is imported only if you name it: "
            f"give --environment {name}"
        )
    else:
        options = options_again(environment, config)
    python_env = python_env_of(config)
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
