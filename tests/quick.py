"""Whole runs in tests: compiled quickly, because they compile for longer than they run."""

import functools

import jax
import pytest

from coterie import policy, runs, training


class _QuickJax:
    """The package ``jax`` whose ``jit`` does not optimise."""

    jit = staticmethod(
        functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    )

    def __getattr__(self, name: str):
        return getattr(jax, name)


def compile_quickly(patch: pytest.MonkeyPatch) -> None:
    """Affects what Coterie compiles, not what JAX and Optax compile inside of it."""
    jax.devices()  # all cores are one device, before a command asks for more
    for module in (policy, runs, training):
        patch.setattr(module, "jax", _QuickJax())
