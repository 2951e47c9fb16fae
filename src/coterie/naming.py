"""Names of environments: what kind each is of, and what is wrong with it. Imports no JAX."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from coterie.text import did_you_mean

PACKAGES = {"jaxmarl": "JaxMARL", "jumanji": "Jumanji"}
"""Packages whose JAX environments Coterie knows by name, ``jaxmarl:NAME``, and their titles."""


def package_of(name: str) -> str | None:
    """The package of ``PACKAGES`` that an environment's name begins with, if it does."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in PACKAGES else None


def is_code(name: str) -> bool:
    """Whether a name means code that Coterie does not know: a module, or a registered id."""
    return ":" in name and package_of(name) is None


def unknown_option(name: str, options: Iterable[str], known: Iterable[str]) -> str | None:
    """A sentence about the first option that an environment does not have; None if all exist."""
    known = list(known)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known, f"; it has {', '.join(known) or 'none'}")
            return f"{name} has no option {option!r}{hint}"
    return None


def _is_registered(name: str) -> bool:
    """Whether Gymnasium is installed and knows an environment of this name."""
    with contextlib.suppress(ImportError):
        import gymnasium

        return name in gymnasium.registry
    return False


def misnamed(name: str) -> str | None:
    """What is wrong with the kind of a name, as a sentence; None if it may be one."""
    file, _, maker = name.partition(":")
    if not name.strip():
        return "the name of the environment is empty"
    if file.endswith(".py") or (maker and os.sep in file):
        module = os.path.basename(file).removesuffix(".py")
        call = maker or "FUNCTION, where FUNCTION makes the environment"
        return (
            f"{file} is a file, and an environment is named by its module: from the folder of the "
            f"file, {module}:{call}"
        )
    if file.lower().endswith((".json", ".npy", ".npz")) and not name.startswith("matrix/"):
        return f"{name} is a file of payoffs: name it matrix/{name}"
    if (head := name.partition("/")[0].lower()) in PACKAGES and ":" not in name:
        return f"{name}: environments of {PACKAGES[head]} are named {head}:NAME"
    if _is_registered(name):
        return f"{name} is an environment of Gymnasium: name it gymnasium:{name}"
    kinds = ("gymnasium", "pettingzoo", *PACKAGES)
    hint = did_you_mean(file, kinds, cutoff=0.8).replace("?", f":{maker}?")
    return f"{name}: there is no {file}{hint}" if maker and hint and file not in kinds else None
