"""Networks of the user's own in a run: imported where the user names them, and only there.

A run's files hold the path of such a network as data. Whoever opens the run gives it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from coterie.errors import EnvironmentFault, UsageError
from coterie.learners.contract import Algorithm
from coterie.networks.own import NetworkSetting, OwnHead, OwnNetwork, OwnTorso, needed
from coterie.python_envs.adapters.lookup import find_callable
from coterie.settings import fitted
from coterie.storage.tree_files import CheckpointMismatch
from coterie.types import PyTree

Own = TypeVar("Own", bound=Algorithm)
Networks = Mapping[str, Any]
"""Networks by the setting that holds them, which is one of ``WORDS``."""
WORDS = ("torso", "head")
"""Settings that may be networks of the user's own."""


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


def own_networks(algorithm: Algorithm) -> Networks:
    """The user's networks that an algorithm has, by the setting that holds them."""
    held = {word: getattr(algorithm, word, None) for word in WORDS}
    return {word: network for word, network in held.items() if isinstance(network, OwnNetwork)}


def with_imported(algorithm: Own) -> Own:
    """The algorithm of a caller who named its networks, with these imported."""
    found = {word: imported(network) for word, network in own_networks(algorithm).items()}
    return dataclasses.replace(algorithm, **found) if found else algorithm


def with_given(algorithm: Own, given: Mapping[str, Any]) -> Own:
    """The algorithm as a run's files describe it, with the networks that were given explicitly.

    Raises:
        UsageError: one is missing where it is needed, is another one, or is not needed.
    """
    recorded = {word: getattr(algorithm, word) for word in WORDS if hasattr(algorithm, word)}
    found = given_again(recorded, given)
    own = {word: network for word, network in found.items() if isinstance(network, OwnNetwork)}
    return dataclasses.replace(algorithm, **own) if own else algorithm


def given_again(recorded: Mapping[str, str | OwnNetwork], given: Mapping[str, Any]) -> Networks:
    """What a run's files name, with the user's networks as they were given explicitly."""
    return {word: _given_again(word, found, given.get(word)) for word, found in recorded.items()}


def _given_again(word: str, recorded: str | OwnNetwork, network: Any) -> str | OwnNetwork:
    if not isinstance(recorded, OwnNetwork):
        if network is None:
            return recorded
        raise UsageError(
            f"the {word} of the run is {recorded}, and no network of your own: give none"
        )
    if network is None:
        raise UsageError(needed(recorded, word))
    given: OwnNetwork = fitted(word, network, NetworkSetting)
    # What a script made in itself has another name wherever else it is found.
    if recorded.importable and given.importable and recorded != given:
        raise UsageError(f"the {word} of the run is {recorded.path}, and cannot be {given.path}")
    return OwnNetwork(recorded.path, imported(given).build)


def networks_of(policies: PyTree) -> Networks:
    """The user's networks that policies hold."""
    held = {"torso": policies.networks.torso, "head": policies.head}
    return {
        word: OwnNetwork(network.blueprint.path, network.blueprint.build)
        for word, network in held.items()
        if isinstance(network, OwnTorso | OwnHead)
    }


def recorded_networks(config: dict[str, Any]) -> Networks:
    """The user's networks that a configuration names; nothing is imported."""
    named = {word: config["settings"].get(word) for word in WORDS}
    return {
        word: network
        for word, name in named.items()
        if isinstance(name, str) and (network := OwnNetwork.read(name)) is not None
    }


@contextlib.contextmanager
def of_the_run(networks: Networks) -> Iterator[None]:
    """Says of files that hold other arrays whose network does not fit, if it is the user's."""
    try:
        yield
    except CheckpointMismatch as error:
        if not networks:
            raise
        own = " or ".join(network.path for network in networks.values())
        raise UsageError(
            f"{own} has other parameters than the run was trained with: {error}"
        ) from error
