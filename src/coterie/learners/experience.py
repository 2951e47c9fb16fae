"""What value-based algorithms learn from, a minibatch of sequences, and what they learn."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.networks.per_agent import PerAgent
from coterie.spec import Observation
from coterie.types import PyTree, Transition, transition
from coterie.views.game import Game


class Experience(eqx.Module):
    """A minibatch of M sequences of L steps, time-major; z without the agent axis.

    Flags of the joint step are repeated for each agent, so that agents can be given their own
    minibatch. ``hidden_state`` is the one before the first step. Steps with ``counts`` are learned
    from; ``terminated`` is each learner's own (``views.steps.learner_steps``), and where it is set
    nothing follows: ``next_*`` mean nothing there. ``more`` is what the algorithm asks for beside
    all this (``ValueBased.replays``), by name.

    At most E steps of a sequence are followed by a final observation, one in each of E equal parts
    of it: ``cut`` has their numbers, and L for parts without one. All other steps are followed by
    what is acted on in the next one.
    """

    hidden_state: Float[Array, "one M N H"]
    observations: Num[Array, "L M N O"]
    alive: Bool[Array, "L M N"]
    counts: Bool[Array, "L M N"]
    start: Bool[Array, "L M N"]
    actions: Int[Array, "L M N"]
    rewards: Float[Array, "L M N"]
    terminated: Bool[Array, "L M N"]
    next_observations: Num[Array, "L M N O"]
    next_action_mask: Bool[Array, "L M N A"]
    next_alive: Bool[Array, "L M N"]
    central: Num[Array, "L M Z"]
    next_central: Num[Array, "L M Z"]
    cut: Int[Array, "E M N"]
    more: dict[str, PyTree] = eqx.field(default_factory=dict)


class Values(eqx.Module):
    """Parameters θ: the utilities Q(h_i, a_i; θ_i), and the mixer where there is one."""

    utility: PerAgent
    mixer: Any


def q_values(
    utility: PerAgent, batch: Experience
) -> tuple[Float[Array, "L M N A"], Float[Array, "L M N A"]]:
    """Q(h_i, ·) at every step of a minibatch, and Q(h_i', ·) at what follows it.

    Histories are unrolled once: what follows a step is the next one, but for final observations.
    """
    history = batch.hidden_state[0], batch.observations, batch.start
    if not utility.hidden_size:
        q, hidden_states = utility.unroll(*history)
        next_q, _ = utility.step(
            hidden_states, batch.next_observations, jnp.zeros_like(batch.start)
        )
        return q, next_q
    length, parts = len(batch.start), len(batch.cut)
    observations = jnp.concatenate([batch.observations, batch.next_observations[-1:]])
    start = jnp.pad(batch.start, ((0, 1), (0, 0), (0, 0)))
    q, hidden_states = utility.unroll(history[0], observations, start)

    step = jnp.minimum(batch.cut, length - 1)[..., None]
    before = jnp.take_along_axis(hidden_states, step, axis=0, mode="promise_in_bounds")
    final = jnp.take_along_axis(batch.next_observations, step, axis=0, mode="promise_in_bounds")
    final_q, _ = utility.step(before, final, jnp.zeros_like(batch.cut, bool))
    part = np.arange(length) // cut_width(length, parts)
    is_cut = batch.cut[part] == jnp.arange(length)[:, None, None]
    return q[:-1], jnp.where(is_cut[..., None], final_q[part], q[1:])


def cut_width(length: int, parts: int) -> int:
    """Steps of each of E equal parts of a sequence; the last one may be shorter."""
    return -(-length // parts)


def blank_rollout(game: Game, length: int, hidden_size: int) -> Transition:
    """Zeros of the shape of a rollout of one environment, [L, 1, ...]."""
    n = game.spec.n_agents
    seen = Observation(
        observations=jnp.zeros(
            (length, 1, n, game.spec.observation_size), game.spec.observation_dtype
        ),
        action_mask=jnp.zeros((length, 1, n, game.spec.action_count), bool),
        alive=jnp.zeros((length, 1, n), bool),
        central=jnp.zeros((length, 1, game.central_size), game.central_dtype),
    )
    flag = jnp.zeros((length, 1), bool)
    return transition(
        seen, seen, hidden_state=jnp.zeros((length, 1, n, hidden_size)), start=flag, extras=(),
        actions=jnp.zeros((length, 1, n), jnp.int32), terminated=flag, truncated=flag,
        rewards=jnp.zeros((length, 1, game.players.n_agents)),
    )  # fmt: skip
