"""A team as one function in StableHLO, the form in which JAX hands programs to compilers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coterie.errors import UsageError
from coterie.runs.team import Team

PLATFORMS = ("cpu", "cuda", "tpu")


def serialised(team: Team) -> bytes:
    """What ``jax.export.deserialize`` reads: a function of any team's, greedy.

    It takes observations [N, O] as ``Team.act`` lays them out, the hidden state, action masks
    [N, A] and alive [N], and returns actions and the hidden state after them.

    Raises:
        UsageError: a network of the user's own, whose hidden state does not start at zero.
    """
    leaves, form = jax.tree.flatten(team.initial_hidden_state())
    if any(np.any(np.asarray(leaf)) for leaf in leaves):
        raise UsageError(
            "this team has a network of your own whose hidden state does not start at zero, "
            "which an export cannot say: let initial_hidden_state of the network be zeros"
        )

    spec = team.spec

    def act(observations: Any, hidden_state: Any, action_masks: Any, alive: Any) -> Any:
        before = jax.tree.unflatten(form, hidden_state)
        legal = action_masks & jnp.asarray(spec.available_actions)  # padding may be anything
        actions, after = team.step(before, observations, legal, alive)
        return actions, tuple(jax.tree.leaves(after))

    n = spec.n_agents
    shapes = (
        jax.ShapeDtypeStruct((n, spec.observation_size), spec.observation_dtype),
        tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves),
        jax.ShapeDtypeStruct((n, spec.action_count), jnp.bool_),
        jax.ShapeDtypeStruct((n,), jnp.bool_),
    )
    from jax import export

    return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(*shapes).serialize())
