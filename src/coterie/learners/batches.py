"""What an actor-critic learner holds, and what it learns from: estimates and batches."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from coterie.learners.normalisation import Normaliser
from coterie.networks.per_agent import PerAgent
from coterie.ops.observations import joined
from coterie.ops.running_statistics import Moments
from coterie.types import Actions, PyTree


class Learner(eqx.Module):
    """Actors φ, critics θ, target critics θ̄ if any, the optimiser, the critics' hidden state.

    ``so_far`` are the discounted rewards so far of every running episode, where rewards are scaled;
    ``normaliser`` holds statistics of observations, where these are normalised.
    """

    actor: PerAgent
    critic: PerAgent
    target: PerAgent | None
    optimiser: PyTree
    hidden_state: Float[Array, "B N C"]
    moments: Moments
    so_far: Float[Array, "B N"] | None
    normaliser: Normaliser | None = None


class Estimates(eqx.Module):
    """Advantages and targets of a rollout, by the critics before any update from it.

    Attributes:
        advantages: what actors learn from.
        targets: what critics learn, y.
        values: their predictions of the targets.
        hidden_state: the critics' hidden state to go on from.
        aux: what else the critic loss needs to know, leaves [T, B, ...].
    """

    advantages: Float[Array, "T B N *E"]
    targets: PyTree
    values: PyTree
    hidden_state: Float[Array, "B N C"]
    aux: PyTree = ()


class Batch(eqx.Module):
    """What an update sees of a rollout; environments are axis 1 of every leaf.

    Hidden states are those before the first step. ``targets`` and ``aux`` are what the critic loss
    wants. Actors learn from steps with ``alive``, critics from those with ``counts``. An agent may
    have several advantages of a step (E), such as one for each agent's experience.
    """

    hidden_state: Float[Array, "one B N H"]
    critic_hidden_state: Float[Array, "one B N C"]
    observations: Num[Array, "T B N O"]
    action_mask: Bool[Array, "T B N A"]
    alive: Bool[Array, "T B N"]
    counts: Bool[Array, "T B N"]
    start: Bool[Array, "T B N"]
    actions: Actions
    extras: PyTree
    critic_inputs: Num[Array, "T B N I"]
    advantages: Float[Array, "T B N *E"]
    targets: PyTree
    aux: PyTree


def with_central(
    observations: Num[Array, "*S N O"], central: Num[Array, "*S Z"] | Num[Array, "*S N Z"]
) -> Num[Array, "*S N I"]:
    """(o_i, z) for each agent; z is one for all, or of each agent its own."""
    if central.ndim < observations.ndim:
        central = central[..., None, :]
    z = jnp.broadcast_to(central, (*observations.shape[:-1], central.shape[-1]))
    return joined([observations, z])
