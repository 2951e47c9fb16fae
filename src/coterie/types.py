"""The vocabulary every other file is written in.

Axes, in the one order used everywhere: T time, B environment, N agent, then a feature axis
(O observation, A action, H hidden state, Z centralised information). Seeds, when several run at
once, are an outer axis added by ``jax.vmap`` and never appear in a signature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt

from coterie.errors import UsageError
from coterie.former import former_attribute
from coterie.spec import EnvSpec, Observation, Reward, TimeStep

PRNGKey = Key[Array, ""]
PyTree = Any
Actions = Int[Array, "*S N"] | Float[Array, "*S N P"]
"""Joint actions: a number for each agent, or a vector of choices and numbers."""
Number = float | int | Float[Array, ""]
"""A setting in a formula: itself, or the argument of a compiled program that stands for it."""
Schedules = dict[str, Array]
"""What depends on time alone, by name: ε, how many updates are due, the learning rate."""

__all__ = [
    "Actions",
    "Array",
    "Bool",
    "EnvSpec",
    "Float",
    "Int",
    "Number",
    "PRNGKey",
    "PyTree",
    "Reward",
    "Schedules",
    "TimeStep",
    "Transition",
    "UInt",
    "UsageError",
]


def _named_fields(step: TimeStep) -> tuple[list[tuple[Any, Any]], None]:
    return [(jax.tree_util.GetAttrKey(name), getattr(step, name)) for name in _FIELDS], None


def _rebuilt(_: None, leaves: Iterable[Any]) -> TimeStep:
    """Past the constructor, as trees hold other things than arrays on the way."""
    step = object.__new__(TimeStep)
    for name, leaf in zip(_FIELDS, leaves, strict=True):
        object.__setattr__(step, name, leaf)
    return step


_FIELDS = tuple(field.name for field in dataclasses.fields(TimeStep))
# ``TimeStep`` itself stands in a file without JAX, where worker processes find it.
jax.tree_util.register_pytree_with_keys(TimeStep, _named_fields, _rebuilt)


class Transition(eqx.Module):
    """Steps as the learner sees them; every leaf carries the same leading axes, e.g. [T, B].

    ``next_*`` describe the state that the step led to, also where the environment was reset
    right after it: a truncated step bootstraps from ``next_observations``.

    Under central learning the one learner is the whole team (N = 1), while ``rewards`` stay those
    of the environment's own agents, of which there are R; R = N otherwise.

    An agent that is not alive observes zeros and its only legal action is 0; where actions are
    vectors no flag of its mask is set. What the steps are to each agent's learner, whose rewards
    may be common, says ``views.steps.learner_steps``.

    Attributes:
        observations, action_mask, alive, central: what the agents acted on, o^t, z^t.
        hidden_state: [..., N, H] the GRU's summary of the history before o^t (H = 0 without one).
        start: this is the first step of its episode, so ``hidden_state`` is the initial one.
        actions: [..., N] joint action a^t; [..., N, P] where actions are vectors, then in the
            learners' units (``views.game.Game.own_actions``).
        extras: what the algorithm noted when it acted, such as log π(a_i | h_i).
        rewards: [..., R] the environment's own r_i^t.
        terminated, truncated: how the episode ended at this step, if it did.
        next_central: z'; one per agent, [..., N, Z], where z is the joint observation and agents
            can be truncated alone: those still see each other, the others do not see them any more.
        truncated_alone: agents that were truncated while others went on. They are not alive in
            the next state, but ``next_observations`` and ``next_action_mask`` are still theirs.
            None where this cannot happen, and under a common reward, where it is a death.
        valid: False where the environment failed and no step was made: it counts for nothing.
            None where every step was made.
    """

    observations: Num[Array, "*S N O"]
    action_mask: Bool[Array, "*S N A"]
    alive: Bool[Array, "*S N"]
    central: Num[Array, "*S Z"]
    hidden_state: Float[Array, "*S N H"]
    start: Bool[Array, "*S"]
    actions: Actions
    extras: PyTree
    rewards: Float[Array, "*S R"]
    terminated: Bool[Array, "*S"]
    truncated: Bool[Array, "*S"]
    next_observations: Num[Array, "*S N O"]
    next_action_mask: Bool[Array, "*S N A"]
    next_alive: Bool[Array, "*S N"]
    next_central: Num[Array, "*S Z"] | Num[Array, "*S N Z"]
    truncated_alone: Bool[Array, "*S N"] | None = None
    valid: Bool[Array, "*S"] | None = None

    memory = former_attribute("memory", "hidden_state")
    behaviour = former_attribute("behaviour", "extras")


def transition(before: Observation, after: Observation, **step: Any) -> Transition:
    """Steps from what was acted on to the next observations.

    Args:
        step: all other fields of ``Transition``, by name.
    """
    return Transition(
        observations=before.observations,
        action_mask=before.action_mask,
        alive=before.alive,
        central=before.central,
        next_observations=after.observations,
        next_action_mask=after.action_mask,
        next_alive=after.alive,
        next_central=after.central,
        **step,
    )


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all array leaves (or shape structs) of a tree."""
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    return sum(math.prod(x.shape) * _itemsize(x.dtype) for x in leaves)


def _itemsize(dtype: Any) -> int:
    return 8 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize
