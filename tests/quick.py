"""Quick compilation: nearly all that tests compile takes longer to compile than to run.

Imports nothing of Coterie, whose import ``conftest`` hooks into.
"""

import contextlib
import gc
import os
from collections.abc import Iterator

import jax
import pytest

QUICK = {"xla_backend_optimization_level": 0}
"""Options of ``jax.jit`` for programs that compile for longer than they run."""
if jax.__version_info__ < (0, 11):  # where it is still known: a third of the time
    QUICK["xla_cpu_use_fusion_emitters"] = False
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
"""As the environment variable ``XLA_FLAGS``: compiles in a quarter of the time."""
OPTIMISED = {"xla_backend_optimization_level": 1}
"""Options of ``jax.jit`` for programs that run for longer than they compile."""


def compile_quickly() -> None:
    """In this process; JAX must not have been used yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}")
        jax.devices()  # flags are read once; all cores are one device, before a command asks


def trace_quickly() -> None:
    """Tracing makes many objects that stay, and half of its time went into looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@contextlib.contextmanager
def quick_compilation(cache) -> Iterator[pytest.MonkeyPatch]:
    """What was compiled is kept in the folder ``cache``, for runs of the same shapes."""
    settings = {
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    for name, value in before.items():
        jax.config.update(name, value)
