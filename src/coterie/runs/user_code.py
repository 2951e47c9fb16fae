"""Code of the user's that a run needs: its environment, algorithm, torso, head, other Python.

A run's files hold the paths of such code as data. Nothing is imported because a file names it:
whoever opens the run passes the code again, itself or by its path.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coterie.algorithms import check_class, find
from coterie.errors import EnvironmentFault, UsageError
from coterie.learners.contract import Algorithm
from coterie.module_paths import importable, is_code, needed, path_of
from coterie.networks.own import NetworkSetting, OwnNetwork
from coterie.python_envs.adapters.lookup import find_callable
from coterie.settings import fitted, shown
from coterie.storage.tree_files import CheckpointMismatch

Given = Mapping[str, Any]
"""Code as it was passed explicitly, by what it is; None where it was not."""
NOTHING: Given = MappingProxyType({})
NETWORKS = ("torso", "head")
"""Settings that may be networks of the user's own."""


# Imported where the user names it ----------------------------------------------------------------


def imported(path: str) -> Any:
    """What ``module:Name`` means, imported; the caller has named it.

    Raises:
        UsageError: there is no such module or name, it is not callable, or its module raises.
    """
    module, _, name = path.partition(":")
    if module.endswith(".py") or os.sep in module:
        stem = Path(module).stem
        raise UsageError(
            f"{module} is a file, and code is named by its module: from the folder of the file, "
            f"{stem}:{name}"
        )
    try:
        return find_callable(path, module, name)
    except EnvironmentFault as fault:  # its module raised as it was imported
        raise UsageError(str(fault)) from fault.__cause__


def imported_network(network: OwnNetwork) -> OwnNetwork:
    """The network, imported if only its path is known."""
    return network if network.build else OwnNetwork(network.path, imported(network.path))


def imported_algorithm(algorithm: Any) -> type[Algorithm]:
    """The class of an algorithm of the user's, passed itself or by its path.

    Raises:
        UsageError: it cannot be found (see ``imported``), or is no class that can be trained.
    """
    named = isinstance(algorithm, str) and is_code(algorithm)
    kind = imported(algorithm) if named else algorithm
    if not isinstance(kind, type) or not issubclass(kind, Algorithm):
        if named:
            raise UsageError(
                f"{algorithm} is no algorithm: that is a class derived from ValueBased, "
                "ActorCritic or Algorithm (docs/add-an-algorithm.md)"
            )
        raise UsageError(
            f"algorithm must be the class of an algorithm, or its path module:Class; "
            f"got {shown(algorithm)}"
        )
    check_class(kind)
    return kind


def class_of(name: str, given: Any) -> type[Algorithm]:
    """The class of a run's algorithm: this package's, or the user's, passed again."""
    again = code_again({"algorithm": name}, {"algorithm": given})
    return again["algorithm"] if again else find(name)


def own_class(algorithm: Algorithm) -> dict[str, type[Algorithm]]:
    """The algorithm's class, as code that its run needs, if it is the user's."""
    return {"algorithm": type(algorithm)} if is_code(algorithm.name) else {}


def own_networks(algorithm: Algorithm) -> dict[str, OwnNetwork]:
    """The user's networks that an algorithm has, by the setting that holds them."""
    held = {word: getattr(algorithm, word, None) for word in NETWORKS}
    return {word: network for word, network in held.items() if isinstance(network, OwnNetwork)}


# Named in a run's files, and passed again --------------------------------------------------------


def named_by(config: Mapping[str, Any]) -> dict[str, str]:
    """What a configuration names, the user's code or not, by what it is."""
    names = {"algorithm": config["algorithm"], "environment": config["environment"]}
    names |= {word: config["settings"].get(word) for word in NETWORKS}
    names |= {"python": recorded_python(config)}
    return {word: name for word, name in names.items() if isinstance(name, str)}


def recorded_python(config: Mapping[str, Any]) -> str | None:
    """The other Python that a configuration names; nothing is started."""
    given = config.get("hosting")
    python = given.get("python") if isinstance(given, dict) else None
    return python if isinstance(python, str) else None


def recorded_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Paths of the user's code that a configuration names; nothing is imported or started."""
    return _code_of(named_by(config))


def _code_of(names: Mapping[str, str]) -> dict[str, str]:
    return {word: name for word, name in names.items() if word == "python" or is_code(name)}


def code_again(names: Mapping[str, str], given: Given) -> dict[str, Any]:
    """The user's code that a run's files name, as it was passed explicitly, imported.

    Args:
        names: what the files name, the user's code or not.

    Raises:
        UsageError: some is missing where it is needed, is other code, or is not needed.
    """
    given = {word: code for word, code in given.items() if code is not None}
    missing = {word: name for word, name in _code_of(names).items() if word not in given}
    if missing.keys() - {"python"}:  # an environment that is passed itself is where it is
        raise UsageError(needed(missing))
    return {word: _again(word, names.get(word), code) for word, code in given.items()}


def _again(word: str, recorded: str | None, code: Any) -> Any:
    if word in ("environment", "python"):
        return code  # another one may be passed, to play in: it is checked as it is opened
    kind = "class" if word == "algorithm" else "network"
    if recorded is None:
        raise UsageError(f"the run has no {word}: give none")
    if not is_code(recorded):
        raise UsageError(
            f"the {word} of the run is {recorded}, and no {kind} of your own: give none"
        )
    if word == "algorithm":
        found = imported_algorithm(code)
        check_same_code(word, recorded, path_of(found))
        return found
    network: OwnNetwork = fitted(word, code, NetworkSetting)
    check_same_code(word, recorded, network.path)
    return OwnNetwork(recorded, imported_network(network).build)


def check_same_code(word: str, recorded: str, path: str) -> None:
    """UsageError if code has another path than the run's.

    What a script made in itself has another name wherever else it is found.
    """
    if importable(recorded) and importable(path) and recorded != path:
        raise UsageError(f"the {word} of the run is {recorded}, and cannot be {path}")


@contextlib.contextmanager
def of_the_run(code: Mapping[str, str]) -> Iterator[None]:
    """Says of files that hold other arrays whose code does not fit, if it is the user's."""
    try:
        yield
    except CheckpointMismatch as error:
        own = " or ".join(path for word, path in code.items() if word != "environment")
        if not own:
            raise
        raise UsageError(
            f"{own} has other parameters than the run was trained with: {error}"
        ) from error
