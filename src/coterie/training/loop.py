"""The training loop: many seeds of one algorithm in one compiled program, driven from the host.

``iterate`` is the whole of training: act for a rollout, learn from it. Everything that changes is
in ``TrainState``; everything that depends on time alone (ε, where replay is written, how many
updates are due) comes in as ``schedules``, made on the host for a chunk of iterations at once.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from coterie.learners.contract import Algorithm
from coterie.training.arguments import ForAnyNumbers
from coterie.training.evaluate import play_both
from coterie.training.finite import (
    FiniteChecks,
    any_failed,
    check_finite,
    failure,
    finite,
    passed,
    without_replay,
)
from coterie.training.memory import working_bytes
from coterie.training.rollout import scan_rollout
from coterie.training.state import TrainState, add, better_of, chosen_score, init, words
from coterie.types import Schedules, tree_bytes
from coterie.views.game import Game
from coterie.views.vector import SEED_AXIS

CHUNK_STEPS = 16_384
"""About this many environment steps of a seed run between two looks from the host."""


def iterate(
    algorithm: Algorithm, game: Game, state: TrainState, schedules: Schedules
) -> tuple[TrainState, FiniteChecks]:
    """Acts for one rollout and learns from it; says whether all numbers were finite."""
    next_key, act_key, learn_key = jax.random.split(state.key, 3)
    vector, hidden_state, rollout, episodes = scan_rollout(
        algorithm,
        game,
        algorithm.policy(state.learner),
        state.vector,
        state.hidden_state,
        act_key,
        schedules,
    )
    learner, losses = algorithm.learn(game, state.learner, rollout, learn_key, schedules)
    checks = check_finite(algorithm, game, rollout, losses, algorithm.parameters(learner))
    state = dataclasses.replace(
        state,
        learner=learner,
        vector=vector,
        hidden_state=hidden_state,
        key=next_key,
        episodes=add(state.episodes, episodes),
        losses=add(state.losses, losses),
    )
    return state, checks


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
        self._advance = ForAnyNumbers(algorithm, self._run_chunk, donated=(0,))
        self._evaluate = jax.jit(
            jax.vmap(lambda s, p: self._evaluate_seed(s, p, episodes), in_axes=(0, None)),
            donate_argnums=0,
        )

    def template(self) -> TrainState:
        """Shapes and types of the state; nothing is allocated."""
        return jax.eval_shape(self._init, jax.eval_shape(lambda: self.keys(0)))

    def init(self, seed: int) -> TrainState:
        return self._init(self.keys(seed))

    def working_bytes(self, device: Any) -> tuple[int, int]:
        """What ``advance`` and ``evaluate`` take on a device beside the state. Compiles both."""
        place = jax.sharding.SingleDeviceSharding(device)
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), self.template()
        )
        schedules = self.algorithm.schedules(np.arange(self.chunk, dtype=np.int64))
        learning = working_bytes(self._advance, state, schedules, np.int32(0))
        return learning, working_bytes(self._evaluate, state, words(0))

    def advance(self, state: TrainState, iteration: int, count: int) -> TrainState:
        """Runs iterations ``iteration`` .. ``iteration + count - 1``, at most ``chunk`` of them.

        Raises:
            NotFinite: a number was not; nothing was learned after that, and the state is gone.
        """
        schedules = self.algorithm.schedules(iteration + np.arange(self.chunk, dtype=np.int64))
        state, done, checks, wrong = self._advance(state, schedules, np.int32(count))
        if wrong:
            step = (iteration + int(done)) * self.steps_per_iteration
            raise failure(self.algorithm, self.game, checks, state.learner, step)
        return state

    def _run_chunk(
        self, algorithm: Algorithm, state: TrainState, schedules: Schedules, count: Array
    ) -> tuple[TrainState, Array, FiniteChecks, Array]:
        """Iterates until the count is reached or a number is not finite.

        Returns: the states, iterations made, what the last one met, whether anything is wrong.
        """
        step = jax.vmap(
            lambda s, c: iterate(algorithm, self.game, s, c),
            in_axes=(0, None),
            axis_name=SEED_AXIS,
        )
        passing = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (self.seeds, *x.shape)), passed(self.algorithm, self.game)
        )

        def going(carry: Any) -> Array:
            i, _, checks = carry
            return (i < count) & ~any_failed(checks)

        def one(carry: Any) -> Any:
            i, state, _ = carry
            return i + 1, *step(state, {k: v[i] for k, v in schedules.items()})

        done, state, checks = jax.lax.while_loop(going, one, (jnp.int32(0), state, passing))
        # Whatever else a learner holds shows at the latest here.
        rest = ~jax.vmap(finite)(without_replay(state.learner))
        checks = eqx.tree_at(lambda h: h.parameters, checks, checks.parameters | rest)
        return state, done, checks, any_failed(checks)

    def evaluate(self, state: TrainState, point: int) -> tuple[TrainState, Any]:
        """Plays the policy after iteration ``point``; keeps it where it is the best so far.

        Returns: the state, and what was ``Played`` as {"eval": ...}, with "eval_sampled" beside it
            for a stochastic policy.
        """
        return self._evaluate(state, words(point))

    def _evaluate_seed(self, state: TrainState, point: Array, episodes: int) -> Any:
        key = jax.random.fold_in(state.evaluation_key, point[0])
        policy = self.algorithm.policy(state.learner)
        played = play_both(self.game, policy, key, episodes, self.algorithm.stochastic)
        score = chosen_score(played, self.algorithm.stochastic)
        best = better_of(policy, score, point, state.best)
        return eqx.tree_at(lambda s: s.best, state, best), played
