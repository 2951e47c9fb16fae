"""Whole runs in tests: compiled quickly and once, because they compile for longer than they run."""

import contextlib
import functools
from collections.abc import Iterator
from types import ModuleType

import jax
import pytest

from coterie import hosted_lanes, hosted_play, policy, runs, training


class _QuickJax:
    """The package ``jax`` whose ``jit`` does not optimise."""

    jit = staticmethod(
        functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    )

    def __getattr__(self, name: str):
        return getattr(jax, name)


@contextlib.contextmanager
def quick_compilation(cache, *more: ModuleType) -> Iterator[pytest.MonkeyPatch]:
    """Affects what Coterie compiles, not what JAX and Optax compile inside of it.

    What was compiled is kept in the folder ``cache``, for runs of the same shapes.

    Args:
        more: modules of Coterie that compile too, apart from those that train and play.
    """
    jax.devices()  # all cores are one device, before a command asks for more
    settings = {
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        for module in (hosted_lanes, hosted_play, policy, runs, training, *more):
            patch.setattr(module, "jax", _QuickJax())
        yield patch
    for name, value in before.items():
        jax.config.update(name, value)
