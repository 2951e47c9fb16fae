"""How much memory a computation takes, and whether there is so much; known before it is taken."""

from __future__ import annotations

from typing import Any

from coterie.errors import NotEnoughMemory
from coterie.machine import available_memory


def working_bytes(function: Any, *arguments: Any) -> int:
    """Bytes that a compiled function takes beside its arguments: temporaries and new outputs.

    Compiles it, once: a later call with such arguments finds it compiled. 0 where the backend does
    not say.

    Args:
        function: of ``jax.jit``.
        arguments: arrays, or ``jax.ShapeDtypeStruct`` with the sharding of those of the call.
    """
    found = function.lower(*arguments).compile().memory_analysis()
    if found is None:
        return 0
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.temp_size_in_bytes + max(new, 0)


def check_memory(needed: int, advice: str, working: int = 0) -> None:
    """NotEnoughMemory if so many bytes are not free.

    Args:
        advice: what would help.
        working: how many of them are ``working_bytes``.
    """
    free = available_memory()
    if free is not None and needed > 0.9 * free:
        part = f", {working / 1e9:.1f} GB of it while it computes" if working else ""
        raise NotEnoughMemory(
            f"this needs {needed / 1e9:.1f} GB{part}, but only {free / 1e9:.1f} GB of memory are "
            f"free: {advice}"
        )
