"""Environments. Each file here that names a ``FAMILY`` is found by that name.

A family is a module with

* ``FAMILY``: the part of the name before the slash,
* ``EXAMPLES``: variants worth listing,
* ``Options``: a frozen dataclass, the ``--env.*`` settings with their defaults,
* ``make(variant, options)``: the environment, or ``UsageError`` with one clear sentence.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coterie import settings
from coterie.errors import UsageError
from coterie.naming import misnamed, unknown_option
from coterie.text import did_you_mean

if TYPE_CHECKING:
    from coterie.envs.base import Environment

__all__ = ["Environment", "families", "make"]


def __getattr__(name: str) -> Any:
    # Imported on first use: processes that host Python environments should not wait for JAX.
    if name != "Environment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from coterie.envs.base import Environment

    return Environment


def families() -> dict[str, ModuleType]:
    """Every environment family of this package, by name."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}")
        for m in pkgutil.iter_modules(__path__)
        if not m.name.startswith("_")
    )
    return {m.FAMILY: m for m in modules if hasattr(m, "FAMILY")}


def family(name: str) -> ModuleType:
    """The family module of ``family/variant``; UsageError naming the nearest otherwise."""
    known = families()
    head, _, rest = name.partition("/")
    if head not in known:
        if sentence := misnamed(name):
            raise UsageError(sentence)
        examples = [f"{f}/{v}" for f, m in known.items() for v in m.EXAMPLES]
        hint = did_you_mean(name, [*examples, *known], cutoff=0.3)
        if rest:  # "lfb/5x5-2p-1f": only the family is misspelt
            hint = did_you_mean(head, known, hint, suffix=f"/{rest}")
        raise UsageError(f"there is no environment {name!r}{hint} (coterie list shows all)")
    return known[head]


def make(name: str, **options: Any) -> Environment:
    """The JAX environment ``family/variant``, with the family's options by keyword.

    Raises:
        UsageError: unknown family, variant or option.
    """
    module = family(name)
    if sentence := unknown_option(name, options, module.Options.__dataclass_fields__):
        raise UsageError(sentence)
    chosen = module.Options(**options)
    settings.check(chosen)
    return module.make(name.partition("/")[2], chosen)
