"""Names of environments: what kind each is of, and what is wrong with it. Imports no JAX."""

from __future__ import annotations

import os
from collections.abc import Iterable

from coterie.errors import described
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


def _of_gymnasium(name: str) -> str | None:
    """A sentence if Gymnasium knows an environment of this name, or is broken; else None."""
    try:
        import gymnasium
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "gymnasium":
            return None
        why = described(error)
        return f"there is no environment {name!r}, and Gymnasium could not be imported: {why}"
    if name in gymnasium.registry:
        return f"{name} is an environment of Gymnasium: name it gymnasium:{name}"
    return None


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
    if ":" not in name and (sentence := _of_gymnasium(name)):
        return sentence
    kinds = ("gymnasium", "pettingzoo", *PACKAGES)
    hint = did_you_mean(file, kinds, cutoff=0.8, suffix=f":{maker}")
    return f"{name}: there is no {file}{hint}" if maker and hint and file not in kinds else None
