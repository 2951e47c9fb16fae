"""What is wrong with the kind of an environment's name. Imports no JAX."""

from __future__ import annotations

import os

from coterie.text import did_you_mean


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
    kinds = ("gymnasium", "pettingzoo")
    hint = did_you_mean(file, kinds, cutoff=0.8).replace("?", f":{maker}?")
    return f"{name}: there is no {file}{hint}" if maker and hint and file not in kinds else None
