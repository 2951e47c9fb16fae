"""Coterie as on a system without POSIX: what it imports of ``os`` and ``signal`` lacks those names.

With this folder in ``PYTHONPATH`` it holds for a process and all that it starts. Other packages see
the system as it is.
"""

import builtins
import os
import signal
import types

from posix_names import NO_MODULES, NOT_IN_OS, POSIX_SIGNALS


class Without(types.ModuleType):
    """A module without some of its names; what tests change in the module, it has, too."""

    def __init__(self, module: types.ModuleType, gone: set[str]) -> None:
        self.__dict__.update(__name__=module.__name__, _module=module, _gone=gone)

    def __getattr__(self, name: str):
        if name in self._gone:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)


SEEN = {"os": Without(os, NOT_IN_OS), "signal": Without(signal, POSIX_SIGNALS)}
_import = builtins.__import__


def imported(name, globals=None, locals=None, fromlist=(), level=0):
    """What an import gives to a module of Coterie, and to others."""
    ours = str((globals or {}).get("__name__", "")).partition(".")[0] == "coterie"
    if not ours:
        return _import(name, globals, locals, fromlist, level)
    if name in NO_MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    found = _import(name, globals, locals, fromlist, level)
    return SEEN.get(name, found)


builtins.__import__ = imported
