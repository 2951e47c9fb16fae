"""All that training changes, in one tree; its first value, its totals, its best policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from coterie.learners.contract import Algorithm
from coterie.learners.former_replay import converted, former_items
from coterie.learners.replay import Replay
from coterie.networks.per_agent import PerAgent
from coterie.storage.tree_files import CheckpointError, CheckpointMismatch, read_tree
from coterie.training.rollout import Episodes
from coterie.types import PRNGKey, PyTree
from coterie.views.game import Game
from coterie.views.vector import VectorState, init_vector, with_pool


class Best(eqx.Module):
    """The policy that evaluated best so far, its mean team return, and when it was evaluated.

    Before the first evaluation of a trained policy the score is -∞. ``iteration`` is two 32-bit
    words, low first.
    """

    policy: PerAgent
    score: Float[Array, ""]
    iteration: UInt[Array, "2"]


class TrainState(eqx.Module):
    """All that training changes, for one seed; a run holds it with a leading axis of seeds.

    Attributes:
        learner: parameters, targets, optimiser, replay, normalisers.
        vector: the K environments and their reset states; for Python environments what it
            takes to bring them to the same states again (``python_envs.record.EpisodeHistory``).
        hidden_state: [B, N, H] hidden state of acting.
        frames: the frames that agents of Python environments remember, where they see several at
            once; those of JAX environments are in ``vector``.
        key, evaluation_key: randomness of everything to come: training, evaluation.
        episodes, losses: totals since the last line of the log; diagnostics are among the losses.
        best: the best evaluated policy.
    """

    learner: PyTree
    vector: Any
    hidden_state: Float[Array, "B N H"]
    key: PRNGKey
    evaluation_key: PRNGKey
    episodes: Episodes
    losses: dict[str, Array]
    best: Best
    frames: Any = None


def init(algorithm: Algorithm, game: Game, key: PRNGKey) -> TrainState:
    """One seed's state before its first step, with its environments."""
    state, vector_key = init_learning(algorithm, game, key)
    steps, environments = algorithm.rollout_shape()
    vector = init_vector(game, vector_key, environments, steps + algorithm.whole_episodes)
    return dataclasses.replace(state, vector=vector)


def init_learning(algorithm: Algorithm, game: Game, key: PRNGKey) -> tuple[TrainState, PRNGKey]:
    """One seed's state without its environments, and the key to draw those."""
    learner_key, vector_key, run_key, evaluation_key = jax.random.split(key, 4)
    learner = algorithm.init(learner_key, game)
    policy = algorithm.policy(learner)
    zero = jnp.zeros(())
    state = TrainState(
        learner=learner,
        vector=None,
        hidden_state=policy.initial_hidden_state(algorithm.rollout_shape()[1]),
        key=run_key,
        evaluation_key=evaluation_key,
        episodes=Episodes(
            zero,
            jnp.zeros(game.players.n_agents),
            zero,
            {name: jnp.zeros(2) for name in game.reports},
        ),
        losses=dict.fromkeys(algorithm.metrics + algorithm.diagnostics, zero),
        best=Best(policy, jnp.full((), -jnp.inf, jnp.float32), jnp.zeros(2, jnp.uint32)),
    )
    return state, vector_key


def read_state(
    algorithm: Algorithm, game: Game
) -> Callable[[Path, PyTree], tuple[PyTree, dict[str, Any]]]:
    """Reads states from files, also with the replay of former formats.

    Diagnostics that an earlier version did not know are NaN, and a pool of reset states whose size
    is not today's is sampled anew.
    """

    def optional(name: str) -> bool:
        *_, field, last = ("", *name.split("/"))
        return field == "losses" and last in algorithm.diagnostics

    def read_shaped(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        return read_tree(path, like, optional, lambda name: "/vector/pool/" in name)

    def read(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        try:
            states, meta = read_shaped(path, like)
        except CheckpointMismatch as mismatch:
            former = [_with_former_replay(state) for state in like]
            if None in former:
                raise
            try:
                states, meta = read_shaped(path, tuple(former))
            except CheckpointMismatch:
                raise mismatch from None
            if not isinstance(meta.get("iteration"), int):
                raise CheckpointError(f"{path} does not say its iteration") from None
            both = zip(like, states, strict=True)
            states = [_converted(*pair, meta["iteration"]) for pair in both]
        return tuple(_with_todays_pool(game, *x) for x in zip(like, states, strict=True)), meta

    return read


def _with_todays_pool(game: Game, like: TrainState, state: TrainState) -> TrainState:
    if not isinstance(like.vector, VectorState) or (
        jax.tree.map(jnp.shape, state.vector.pool) == jax.tree.map(jnp.shape, like.vector.pool)
    ):
        return state
    _, *size = jax.tree.leaves(like.vector.pool)[0].shape[:3]
    sample = jax.jit(jax.vmap(lambda v: with_pool(game, v, *size)))
    return eqx.tree_at(lambda s: s.vector, state, sample(state.vector))


def _with_former_replay(state: TrainState) -> TrainState | None:
    """The shapes of a state up to format 3; None if it had no other ones."""
    ring = getattr(state.learner, "replay", None)
    if not isinstance(ring, Replay):
        return None
    return eqx.tree_at(lambda s: s.learner.replay, state, former_items(ring))


def _converted(like: TrainState, state: TrainState, iterations: int) -> TrainState:
    """A state as it is now, from one with a former replay."""
    vector, ring = state.vector, like.learner.replay
    seeds, environments = ring.full.shape[:2]
    if isinstance(vector, VectorState):
        ended = vector.start
    else:  # environments in Python: rows of all seeds in turn
        ended = jnp.asarray(vector.lengths == 0).reshape(environments, seeds).T
    replay = converted(ring, state.learner.replay, iterations, ended)
    return eqx.tree_at(lambda s: s.learner.replay, state, replay)


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two trees, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def better_of(
    policy: PerAgent, score: Float[Array, ""], iteration: UInt[Array, "2"], best: Best
) -> Best:
    """The policy that scored more; the present one if they are equal.

    The untrained policy, of iteration 0, does not compete: its score says nothing of learning.
    """
    better = (score >= best.score) & jnp.any(iteration > 0)
    now = Best(policy, score, iteration)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), now, best)


def words(count: int) -> np.ndarray:
    """A count as two 32-bit words, low first."""
    return np.array([count % 2**32, count >> 32], np.uint32)


def chosen_score(played: Mapping[str, Sequence[Any]], stochastic: bool) -> Any:
    """Mean team return that policies are chosen by: as they act, so sampled if they sample."""
    return played["eval_sampled" if stochastic else "eval"][0].sum(-1).mean(-1)


def clear_totals(state: TrainState) -> TrainState:
    """The state with its log totals at zero."""
    zeros = jax.tree.map(jnp.zeros_like, (state.episodes, state.losses))
    return eqx.tree_at(lambda s: (s.episodes, s.losses), state, zeros)
