"""The training loop: many seeds of one algorithm in one compiled program, driven from the host.

``iterate`` is the whole of training: act for a rollout, learn from it. Everything that changes is
in ``TrainState``; everything that depends on time alone (ε, where replay is written, how many
updates are due) comes in as ``clock``, made on the host for a chunk of iterations at once.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt

from coterie.algorithms._base import Algorithm
from coterie.envs.views import SEED_AXIS, Game, init_vector
from coterie.evaluate import play_both
from coterie.health import Health, diagnose, examine, finite, good, ill, without_replay
from coterie.networks import PerAgent
from coterie.rollout import Episodes, scan_rollout
from coterie.types import PRNGKey, PyTree, tree_bytes

CHUNK_STEPS = 16_384
"""About this many environment steps of a seed run between two looks from the host."""


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
        vector: the K environments and their prepared starts; for hosted environments what it
            takes to bring them to the same states again (``hosted_rollout.HostedVector``).
        memory: [B, N, H] recurrent memory of acting.
        key, judge_key: randomness of everything to come: training, evaluation.
        episodes, losses: totals since the last line of the log.
        best: the best evaluated policy.
    """

    learner: PyTree
    vector: Any
    memory: Float[Array, "B N H"]
    key: PRNGKey
    judge_key: PRNGKey
    episodes: Episodes
    losses: dict[str, Array]
    best: Best


def init(algorithm: Algorithm, game: Game, key: PRNGKey) -> TrainState:
    """One seed's state before its first step, with its environments."""
    state, vector_key = init_learning(algorithm, game, key)
    steps, environments = algorithm.rollout_shape()
    vector = init_vector(game, vector_key, environments, steps + algorithm.whole_episodes)
    return dataclasses.replace(state, vector=vector)


def init_learning(algorithm: Algorithm, game: Game, key: PRNGKey) -> tuple[TrainState, PRNGKey]:
    """One seed's state without its environments, and the key to draw those."""
    learner_key, vector_key, run_key, judge_key = jax.random.split(key, 4)
    learner = algorithm.init(learner_key, game)
    policy = algorithm.policy(learner)
    zero = jnp.zeros(())
    state = TrainState(
        learner=learner,
        vector=None,
        memory=policy.initial_memory(algorithm.rollout_shape()[1]),
        key=run_key,
        judge_key=judge_key,
        episodes=Episodes(zero, jnp.zeros(game.players.n_agents), zero),
        losses=dict.fromkeys(algorithm.metrics, zero),
        best=Best(policy, jnp.full((), -jnp.inf, jnp.float32), jnp.zeros(2, jnp.uint32)),
    )
    return state, vector_key


def iterate(
    algorithm: Algorithm, game: Game, state: TrainState, clock: dict[str, Array]
) -> tuple[TrainState, Health]:
    """Acts for one rollout and learns from it; says whether all numbers were finite."""
    next_key, act_key, learn_key = jax.random.split(state.key, 3)
    vector, memory, rollout, episodes = scan_rollout(
        algorithm, game, algorithm.policy(state.learner), state.vector, state.memory, act_key, clock
    )
    learner, losses = algorithm.learn(game, state.learner, rollout, learn_key, clock)
    health = examine(rollout, losses, algorithm.parameters(learner))
    state = dataclasses.replace(
        state,
        learner=learner,
        vector=vector,
        memory=memory,
        key=next_key,
        episodes=add(state.episodes, episodes),
        losses=add(state.losses, losses),
    )
    return state, health


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


def chosen_score(played: dict[str, tuple[Any, Any]], stochastic: bool) -> Any:
    """Mean team return that policies are chosen by: as they act, so sampled if they sample."""
    return played["eval_sampled" if stochastic else "eval"][0].sum(-1).mean(-1)


class Paced(abc.ABC):
    """What a run is cut into: rollouts of T steps in K environments, an update after each.

    Attributes:
        chunk: iterations between two looks from the host.
    """

    def __init__(self, algorithm: Algorithm, game: Game, seeds: int, chunk_steps: int):
        self.algorithm, self.game, self.seeds = algorithm, game, seeds
        self.rollout_steps, self.environments = algorithm.rollout_shape()
        self.steps_per_iteration = self.rollout_steps * self.environments
        self.chunk = int(np.clip(chunk_steps // self.steps_per_iteration, 1, 1024))

    def iterations(self, steps: int) -> int:
        """Iterations that make at least so many environment steps."""
        return self.algorithm.iterations(steps)

    def keys(self, seed: int) -> Key[Array, " S"]:
        """One root key per seed: seed + 0, seed + 1, ..."""
        return jax.vmap(jax.random.key)(jnp.arange(seed, seed + self.seeds))

    @abc.abstractmethod
    def init(self, seed: int) -> TrainState:
        """The state before the first step."""

    @abc.abstractmethod
    def template(self) -> TrainState:
        """Shapes and types of the state; little or nothing is allocated."""

    def bytes(self) -> int:
        """Memory of the whole state, known before it is allocated."""
        return tree_bytes(self.template())


class Program(Paced):
    """The compiled functions of a run: ``init``, ``advance``, ``evaluate``.

    States hold all seeds on a leading axis S. ``advance`` consumes its input (buffers are donated).
    """

    def __init__(self, algorithm: Algorithm, game: Game, seeds: int, episodes: int = 32):
        super().__init__(algorithm, game, seeds, CHUNK_STEPS)
        # Runs once, so it is compiled for a quick compilation, not for speed.
        self._init = jax.jit(
            jax.vmap(lambda k: init(algorithm, game, k), axis_name=SEED_AXIS),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        self._advance = jax.jit(self._run_chunk, donate_argnums=0)
        self._evaluate = jax.jit(
            jax.vmap(lambda s, p: self._judge(s, p, episodes), in_axes=(0, None)), donate_argnums=0
        )

    def template(self) -> TrainState:
        """Shapes and types of the state; nothing is allocated."""
        return jax.eval_shape(self._init, jax.eval_shape(lambda: self.keys(0)))

    def init(self, seed: int) -> TrainState:
        return self._init(self.keys(seed))

    def advance(self, state: TrainState, iteration: int, count: int) -> TrainState:
        """Runs iterations ``iteration`` .. ``iteration + count - 1``, at most ``chunk`` of them.

        Raises:
            NotFinite: a number was not; nothing was learned after that, and the state is gone.
        """
        clock = self.algorithm.clock(iteration + np.arange(self.chunk, dtype=np.int64))
        state, done, health, wrong = self._advance(state, clock, np.int32(count))
        if wrong:
            step = (iteration + int(done)) * self.steps_per_iteration
            raise diagnose(self.algorithm, self.game, health, state.learner, step)
        return state

    def _run_chunk(
        self, state: TrainState, clock: dict[str, Array], count: Array
    ) -> tuple[TrainState, Array, Health, Array]:
        """Iterates until the count is reached or a number is not finite.

        Returns: the states, iterations made, what the last one met, whether anything is wrong.
        """
        step = jax.vmap(
            lambda s, c: iterate(self.algorithm, self.game, s, c),
            in_axes=(0, None),
            axis_name=SEED_AXIS,
        )
        well = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (self.seeds, *x.shape)), good(self.algorithm, self.game)
        )

        def going(carry: Any) -> Array:
            i, _, health = carry
            return (i < count) & ~ill(health)

        def one(carry: Any) -> Any:
            i, state, _ = carry
            return i + 1, *step(state, {k: v[i] for k, v in clock.items()})

        done, state, health = jax.lax.while_loop(going, one, (jnp.int32(0), state, well))
        # Whatever else a learner holds shows at the latest here.
        rest = ~jax.vmap(finite)(without_replay(state.learner))
        health = eqx.tree_at(lambda h: h.parameters, health, health.parameters | rest)
        return state, done, health, ill(health)

    def evaluate(self, state: TrainState, point: int) -> tuple[TrainState, Any]:
        """Plays the policy after iteration ``point``; keeps it where it is the best so far.

        Returns: the state, and {"eval": (returns [S, E, R], lengths [S, E])}, with "eval_sampled"
            beside it for a stochastic policy.
        """
        return self._evaluate(state, words(point))

    def _judge(self, state: TrainState, point: Array, episodes: int) -> Any:
        key = jax.random.fold_in(state.judge_key, point[0])
        policy = self.algorithm.policy(state.learner)
        played = play_both(self.game, policy, key, episodes, self.algorithm.stochastic)
        score = chosen_score(played, self.algorithm.stochastic)
        best = better_of(policy, score, point, state.best)
        return eqx.tree_at(lambda s: s.best, state, best), played


def clear_totals(state: TrainState) -> TrainState:
    """The state with its log totals at zero."""
    zeros = jax.tree.map(jnp.zeros_like, (state.episodes, state.losses))
    return eqx.tree_at(lambda s: (s.episodes, s.losses), state, zeros)
