"""Pure parts of an update: targets that follow, gradients that are clipped."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from coterie.types import Number, PyTree


def follow(
    target: PyTree, online: PyTree, count: Array, interval: int | None, tau: Number | None
) -> PyTree:
    """θ̄ after update number ``count``: a step of size τ towards θ, or a copy at every interval."""
    if tau is not None:
        blend = lambda t, o: t + tau * (o - t)  # noqa: E731
    else:
        assert interval is not None
        copy = count % interval == 0
        blend = lambda t, o: jnp.where(copy, o, t)  # noqa: E731
    return jax.tree.map(lambda t, o: blend(t, o) if eqx.is_array(t) else t, target, online)


def norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all numbers of a tree."""
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)))


def clip_norm(grads: PyTree, limit: Number | None) -> PyTree:
    """Gradients scaled down to a global norm of ``limit``, if there is one."""
    if limit is None:
        return grads
    return optax.clip_by_global_norm(limit).update(grads, optax.EmptyState())[0]
