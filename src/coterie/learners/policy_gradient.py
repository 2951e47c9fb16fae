"""What REINFORCE and the actor-critics share: actors, schedules, units of reward, descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from coterie.learners.contract import unreached
from coterie.learners.parts import PolicySettings, VectorSettings
from coterie.networks.per_agent import PerAgent, sharing_index
from coterie.networks.torsos import observed
from coterie.ops.action_vectors import ActionVectors
from coterie.ops.returns import discounted_so_far
from coterie.ops.running_statistics import Moments
from coterie.ops.schedules import moved, share_of
from coterie.ops.updates import clip_norm, norm
from coterie.spec import EnvSpec
from coterie.types import Number, PRNGKey, PyTree
from coterie.views.game import Game

ACTOR_SCALE = 0.01
"""Of the actors' last layer at the start: policies begin close to uniform."""


def make_actor(settings: PolicySettings, key: PRNGKey, game: Game) -> PerAgent:
    """One actor per agent (or shared ones): observation history in, logits of actions out."""
    spec = game.spec
    vectors = vectors_of(settings, spec)
    return PerAgent(
        sharing_index(spec, settings.sharing, settings.groups),
        spec.observation_size,
        spec.action_count if vectors is None else vectors.network_outputs,
        settings.hidden,
        key,
        settings.recurrent,
        settings.activation,
        last=ACTOR_SCALE,
        gain=settings.gain,
        vectors=vectors,
        std=_of_vectors(settings).std,
        space=observed(spec, settings.torso),
        torso=settings.torso,
        layer_norm=settings.layer_norm,
        head=settings.head,
    )


def vectors_of(settings: PolicySettings, spec: EnvSpec) -> ActionVectors | None:
    """How the actors' outputs are read where actions are vectors."""
    if not spec.actions:
        return None
    own = _of_vectors(settings)
    return ActionVectors(spec.actions, own.action_bounds, own.least_std, own.std_of_observation)


def _of_vectors(settings: PolicySettings) -> VectorSettings:
    """Those of the algorithm, the defaults where it has none."""
    return settings if isinstance(settings, VectorSettings) else VectorSettings()


def impossible_std(settings: PolicySettings) -> list[str]:
    """A sentence if σ starts below its floor."""
    own = _of_vectors(settings)
    if own.std >= own.least_std:
        return []
    return [
        f"std {own.std:g} is below least_std {own.least_std:g}: σ starts at std, so "
        "raise std or lower least_std"
    ]


# Schedules ---------------------------------------------------------------------------------------


def schedule_ends(settings: PolicySettings, steps: int) -> dict[str, int]:
    """How many environment steps each schedule takes that was left to the run's length."""
    return {
        f"{name}_steps": steps
        for name in ("lr", "entropy")
        if getattr(settings, f"{name}_end") is not None
        and getattr(settings, f"{name}_steps") is None
    }


def unreached_ends(settings: PolicySettings, steps: int) -> list[str]:
    """A sentence for each schedule that does not reach its end in so many steps."""
    said = unreached("lr", settings.lr_end, settings.lr_steps, steps)
    return said + unreached("entropy", settings.entropy_end, settings.entropy_steps, steps)


def schedules(
    settings: PolicySettings, iterations: np.ndarray, steps: int
) -> dict[str, np.ndarray]:
    """Weight of the entropy bonus, and what is left of the learning rates.

    Args:
        steps: environment steps of an iteration.
    """
    bonus = settings.entropy, settings.entropy_end, settings.entropy_steps
    rate = 1.0, share_of(settings.lr_end, settings.lr), settings.lr_steps
    return {
        "entropy": moved(iterations, steps, *bonus),
        "rate": moved(iterations, steps, *rate),
    }


def in_the_log(settings: PolicySettings, schedules: dict[str, np.ndarray]) -> dict[str, float]:
    """The schedules of one iteration as the log shows them."""
    return {
        "learning_rate": settings.lr * float(schedules["rate"][0]),
        "entropy_weight": float(schedules["entropy"][0]),
    }


# Learning ----------------------------------------------------------------------------------------


def in_units(
    settings: PolicySettings,
    moments: Moments,
    so_far: Float[Array, "B N"] | None,
    rewards: Float[Array, "T B N"],
    counts: Bool[Array, "T B N"],
    start: Bool[Array, "T B"],
) -> tuple[Float[Array, "T B N"], Moments, Float[Array, "B N"] | None]:
    """The rewards that are learned from, and the updated statistics that scale them.

    Args:
        so_far: the discounted rewards so far of every running episode; zeros unless given.
        counts: the steps that are learned from.
    """
    if settings.reward_scaling != "scale":
        moments = moments.update(rewards, counts)
        return moments.apply(settings.reward_scaling, rewards), moments, so_far
    common = len(moments.count) < rewards.shape[-1]
    counted = jnp.any(counts, axis=-1, keepdims=True) if common else counts
    before = jnp.zeros_like(rewards[0]) if so_far is None else so_far
    sums = discounted_so_far(
        jnp.where(counted, rewards, 0.0), per_agent(start, rewards), before, settings.gamma
    )
    moments = moments.update(sums, counts)
    return moments.scale(rewards), moments, sums[-1]


def init_optimiser(networks: PyTree) -> PyTree:
    """Adam's state for ``descend``."""
    return optax.scale_by_adam().init(networks)


def descend(
    settings: PolicySettings,
    networks: PyTree,
    grads: PyTree,
    optimiser: PyTree,
    rates: Mapping[str, Number],
    rate: Array,
) -> tuple[PyTree, PyTree]:
    """One Adam step; ``networks`` and ``grads`` are dicts of ``PerAgent`` by name.

    Args:
        rates: the learning rate of each, at the start.
        rate: the present share of that.
    """
    clip = jax.vmap(lambda g: clip_norm(g, settings.max_grad_norm))
    grads = {name: clip(g) for name, g in grads.items()}
    scaled: Any
    scaled, optimiser = optax.scale_by_adam().update(grads, optimiser)

    def move(name: str) -> Any:
        lr = rates[name] * rate
        return jax.tree.map(lambda p, d: p - lr * d, networks[name], scaled[name])

    return {name: move(name) for name in networks}, optimiser


def gradient_norm(grads: PerAgent) -> Float[Array, ""]:
    """The norm of a network's gradient before it is clipped, averaged over networks."""
    return jnp.mean(jax.vmap(norm)(grads))


def per_agent(flag: Bool[Array, "T B"], like: Array) -> Bool[Array, "T B N"]:
    """A flag of the joint step, for each agent."""
    return jnp.broadcast_to(flag[..., None], like.shape)
