"""Networks of the user's own in a run: imported where the user names them, and only there.

A run's files hold the path of such a network as data. Whoever opens the run gives it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from coterie.errors import EnvironmentFault, UsageError
from coterie.learners.contract import Algorithm
from coterie.networks.own import NetworkSetting, OwnNetwork, OwnTorso, needed
from coterie.python_envs.adapters.lookup import find_callable
from coterie.settings import fitted
from coterie.storage.tree_files import CheckpointMismatch
from coterie.types import PyTree

Own = TypeVar("Own", bound=Algorithm)


def imported(network: OwnNetwork) -> OwnNetwork:
    """The network, imported if only its path is known, which the caller has named.

    Raises:
        UsageError: there is no such module or name, it is not callable, or its module raises.
    """
    if network.build is not None:
        return network
    module, _, name = network.path.partition(":")
    try:
        return OwnNetwork(network.path, find_callable(network.path, module, name))
    except EnvironmentFault as fault:  # its module raised as it was imported
        raise UsageError(str(fault)) from fault.__cause__


def own_torso(algorithm: Algorithm) -> OwnNetwork | None:
    """The user's network that an algorithm has for a torso, if it does."""
    torso = getattr(algorithm, "torso", None)
    return torso if isinstance(torso, OwnNetwork) else None


def with_imported(algorithm: Own) -> Own:
    """The algorithm of a caller who named its networks, with these imported."""
    torso = own_torso(algorithm)
    return algorithm if torso is None else dataclasses.replace(algorithm, torso=imported(torso))


def with_given(algorithm: Own, torso: Any) -> Own:
    """The algorithm as a run's files describe it, with the network that was given explicitly.

    Raises:
        UsageError: none is given where one is needed, another one, or one where none is needed.
    """
    recorded = getattr(algorithm, "torso", "auto")
    if not isinstance(recorded, OwnNetwork) and torso is None:
        return algorithm
    return dataclasses.replace(algorithm, torso=given_again(recorded, torso))


def given_again(recorded: str | OwnNetwork, torso: Any) -> OwnNetwork:
    """The network that a run's files name, as it was given explicitly; see ``with_given``."""
    if not isinstance(recorded, OwnNetwork):
        raise UsageError(
            f"the torso of the run is {recorded}, and no network of your own: give none"
        )
    if torso is None:
        raise UsageError(needed(recorded))
    given: OwnNetwork = fitted("torso", torso, NetworkSetting)
    # What a script made in itself has another name wherever else it is found.
    if recorded.importable and given.importable and recorded != given:
        raise UsageError(f"the torso of the run is {recorded.path}, and cannot be {given.path}")
    return OwnNetwork(recorded.path, imported(given).build)


def torso_of(policies: PyTree) -> OwnNetwork | None:
    """The user's network that policies hold, if they do."""
    torso = policies.networks.torso
    if not isinstance(torso, OwnTorso):
        return None
    return OwnNetwork(torso.blueprint.path, torso.blueprint.build)


def recorded_torso(config: dict[str, Any]) -> OwnNetwork | None:
    """The user's network that a configuration names, if it does; nothing is imported."""
    torso = config["settings"].get("torso")
    return OwnNetwork.read(torso) if isinstance(torso, str) else None


@contextlib.contextmanager
def of_the_run(torso: OwnNetwork | None) -> Iterator[None]:
    """Says of files that hold other arrays whose network does not fit, if it is the user's."""
    try:
        yield
    except CheckpointMismatch as error:
        if torso is None:
            raise
        raise UsageError(
            f"{torso.path} has other parameters than the run was trained with: {error}"
        ) from error
