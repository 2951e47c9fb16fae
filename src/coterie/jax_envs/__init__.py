"""JAX environments of other packages by name: ``jaxmarl:NAME`` and ``jumanji:NAME``.

Each package of ``naming.PACKAGES`` has a module of its name here, imported on first use, with

* ``names()``: all environments that can be made by name; the package has to be installed,
* ``make(name, options)``: the environment, or ``UsageError`` with one clear sentence. Options are
  keywords as a file can hold them: numbers, words, True, False, None, or lists of such.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coterie import envs
from coterie.errors import UsageError
from coterie.extras import how_to_install
from coterie.naming import PACKAGES, package_of

if TYPE_CHECKING:
    from coterie.envs.base import Environment

EXAMPLES = {
    "jaxmarl": ("HeuristicEnemySMAX", "MPE_simple_spread_v3", "overcooked", "hanabi", "storm_2p"),
    "jumanji": ("LevelBasedForaging-v0", "RobotWarehouse-v0", "Connector-v3", "Snake-v1"),
}
"""Some of ``names``, which only the package tells, and it takes seconds to import."""

__all__ = ["EXAMPLES", "installed", "make", "names", "options_class"]


def make(name: str, /, **options: Any) -> Environment:
    """The JAX environment of this name, with its options by keyword.

    Args:
        name: ``family/variant`` of Coterie's own, or ``jaxmarl:NAME`` or ``jumanji:NAME``.

    Raises:
        UsageError: unknown name or option, or the package is not installed.
    """
    package = package_of(name)
    if package is None:
        _refuse_bare(name)
        return envs.make(name, **options)
    return _module(package).make(name.partition(":")[2], options)


def options_class(name: str) -> Any:
    """The dataclass of a JAX environment's options; None where only ``make`` knows them."""
    if package_of(name):
        return None
    _refuse_bare(name)
    return envs.family(name).Options


def names(package: str) -> tuple[str, ...]:
    """All environments of a package, without the package's name before them.

    Raises:
        UsageError: it is not installed, or broken.
    """
    return _module(package).names()


def installed() -> tuple[str, ...]:
    """The packages of ``naming.PACKAGES`` that are installed."""
    return tuple(package for package in PACKAGES if importlib.util.find_spec(package))


def _refuse_bare(name: str) -> None:
    """UsageError if this is a package's own name of an environment, without the package's."""
    if "/" in name or name in envs.families():
        return
    for package in installed():
        known: tuple[str, ...] = ()
        with contextlib.suppress(UsageError):  # a broken package is not what was asked for
            known = names(package)
        if name in known:
            title = PACKAGES[package]
            raise UsageError(f"{name} is an environment of {title}: name it {package}:{name}")


def _module(package: str) -> ModuleType:
    if package not in installed():
        raise UsageError(f"{PACKAGES[package]} is not installed: {how_to_install(package)}")
    return importlib.import_module(f"{__name__}.{package}")
