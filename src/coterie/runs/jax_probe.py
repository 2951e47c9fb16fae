"""Whether JAX works here, asked in a process of its own, which a broken driver may end or hang.

Its last line on standard output is one JSON object, which ``runs.doctor`` reads.
"""

from __future__ import annotations

import json
from typing import Any

IMPORTED = "imported"
"""The line before it, once JAX is imported."""


def probe() -> dict[str, Any]:
    """What JAX finds and computes.

    Returns:
        ``devices``: each with its kind, platform, bytes of memory (None on a CPU) and whether it
        multiplied matrices correctly; ``cache``: where compiled programs are kept and how many
        bytes they take, or why they are not.
    """
    import jax

    print(IMPORTED)
    return {"devices": [_device(each) for each in jax.devices()], "cache": _cache()}


def _device(device: Any) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    square = jax.device_put(jnp.full((64, 64), 2.0), device)
    product = jax.jit(lambda x: (x @ x).sum())(square)
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "correct": float(product) == 4.0 * 64**3,
    }


def _cache() -> dict[str, Any]:
    from coterie.errors import UsageError
    from coterie.runs.compilation_cache import decided, prepared

    if words := decided():
        return {"where": words, "bytes": None, "problem": ""}
    try:
        folder = prepared()
        taken = sum(file.stat().st_size for file in folder.glob("*-cache"))
    except UsageError as error:
        return {"where": "", "bytes": None, "problem": str(error)}
    except OSError as error:
        return {"where": "", "bytes": None, "problem": f"compiled programs are not kept: {error}"}
    return {"where": str(folder), "bytes": taken, "problem": ""}


if __name__ == "__main__":
    print("\n" + json.dumps(probe()))
