"""Playing episodes in Python environments without learning, several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coterie.networks.per_agent import PerAgent
from coterie.policies.acting import act, noise
from coterie.python_envs.adapters.infos import Reported
from coterie.python_envs.bookkeeping import FINAL_EVALUATION, Reports, Restarts, episode_seed
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import VectorEnv, make_vector_env
from coterie.python_envs.workers.worker import NO_SEED, RESET, SKIP, STEP, Limits
from coterie.spec import Observation, PythonEnvFactory
from coterie.training.evaluate import NO_LIMIT_STEPS, Played
from coterie.types import PRNGKey, PyTree
from coterie.views.game import Game

SIDE_BY_SIDE = 16
"""Environments of each team, at most, that are opened only to play in."""

Starts = Sequence[tuple[int, ...]]


def make_choose(game: Game) -> Callable[..., Any]:
    """Compiles the choice of actions of all seeds' teams [S], [V, S, ...] environments at once.

    (policies, hidden state and remembered frames, observations, masks, alive, starts [V, S],
    sampled [V, S], key, step) -> actions of the environment's own agents, hidden state and frames.
    Without frames all episodes start.
    """

    def choose(
        policy: PerAgent,
        remembered: tuple[Array, Any],
        observations: Array,
        mask: Array,
        alive: Array,
        starts: Array,
        sampled: Array,
        key: PRNGKey,
        t: Array,
    ) -> tuple[Array, tuple[Array, Any]]:
        hidden_state, frames = remembered
        observations, frames = game.look(observations, alive, frames, starts)
        state = jnp.zeros((*observations.shape[:-2], game.players.central_size))
        seen = game.see(observations, mask, alive, state)
        shape, agents = seen.alive.shape[:-1], seen.alive.shape[-1]
        drawn = noise(jax.random.fold_in(key, t), shape, agents, policy.vectors)
        actions, hidden_state, _ = act(
            policy, hidden_state, *seen[:2], drawn, start=starts, sampled=sampled
        )
        return game.own_actions(actions), (hidden_state, frames)

    return jax.jit(jax.vmap(choose, in_axes=(0, 1, 1, 1, 1, 1, 1, 0, None), out_axes=1))


class Evaluator:
    """V environments of each seed, in which teams play a given number of episodes.

    Args:
        group: of the vectorised environment, rows ``first`` .. ``first + V·S - 1``; its row
            v·S + s is environment v of seed s.
        choose: as ``make_choose`` gives it.
    """

    def __init__(
        self,
        vector_env: VectorEnv,
        group: int,
        first: int,
        shape: tuple[int, int],
        choose: Callable[..., Any],
        restarts: Restarts,
    ) -> None:
        self.vector_env, self.group, self.shape = vector_env, group, shape
        self.part = slice(first, first + shape[0] * shape[1])
        self.choose, self.restarts = choose, restarts

    def play(
        self,
        policies: PyTree,
        keys: Any,
        starts: Starts,
        episodes: int,
        stochastic: bool,
    ) -> dict[str, Played]:
        """Every seed's team plays: returns [S, E, R] and lengths [S, E], greedy as ``eval``.

        A stochastic team plays as many episodes sampled, ``eval_sampled``. Every episode counts,
        however long it is; a faulty one is played anew from another start.

        Args:
            keys: [S], of sampling.
            starts: [S], the words that with its own number give an episode's seed.
        """
        v, s = self.shape
        tally = _Tally(s, episodes, 1 + stochastic, self.vector_env.rows.rewards.shape[-1])
        number = np.full(v * s, -1)
        tries = np.zeros(v * s, np.int64)
        lengths = np.zeros(v * s, np.int64)
        remembered = jax.vmap(lambda p: p.initial_hidden_state(v), out_axes=1)(policies), None
        rows, part = self.vector_env.rows, self.part
        seen = Observation(*(np.zeros_like(x[part]) for x in rows.start))
        new = np.arange(v * s)
        t = 0
        while True:
            for row in new:
                number[row] = tally.next(row % s)
            self._begin(new[number[new] >= 0], number, tries, starts, seen)
            going = number >= 0
            if not going.any():
                return tally.played()
            actions, remembered = self.choose(
                policies,
                remembered,
                *(x.reshape(v, s, *x.shape[1:]) for x in seen[:3]),
                (lengths == 0).reshape(v, s),
                (number >= episodes).reshape(v, s),
                keys,
                np.uint32(t),
            )
            rows.actions[part] = np.asarray(actions).reshape(v * s, *rows.actions.shape[1:])
            rows.command[part] = np.where(going, STEP, SKIP)
            dropped = self._move(starts, number, tries)
            for x, next_observation in zip(seen, rows.next_observation, strict=True):
                x[...] = next_observation[part]
            lengths = lengths + 1
            tally.count(going & ~dropped, number, rows.rewards[part])
            over = rows.terminated[part] | rows.truncated[part] | (lengths >= NO_LIMIT_STEPS)
            new = np.flatnonzero(going & over & ~dropped)
            again = np.flatnonzero(dropped)
            for row in new.tolist():
                tally.report(row, number, self.vector_env.reports.get(self.part.start + row, {}))
            tally.drop(again, number)
            tries[again] += 1
            tries[new] = 0
            self._begin(again, number, tries, starts, seen)
            lengths[new] = lengths[again] = 0
            t += 1

    def _begin(
        self, which: np.ndarray, number: Any, tries: Any, starts: Starts, seen: Observation
    ) -> None:
        """Starts these environments' episodes, and others where a start fails."""
        rows, first = self.vector_env.rows, self.part.start
        left = which
        while left.size:
            rows.command[self.part] = SKIP
            rows.command[first + left] = RESET
            for row in left:
                rows.seed[first + row] = self._seed(row, number, tries, starts)
            dropped = self._move(starts, number, tries)
            tries[dropped] += 1
            left = np.flatnonzero(dropped)
        rows.seed[self.part] = NO_SEED
        for x, start in zip(seen, rows.start, strict=True):
            x[which] = start[first + which]

    def _move(self, starts: Starts, number: Any, tries: Any) -> np.ndarray:
        """Carries out the commands; True where that failed."""
        s = self.shape[1]
        self.vector_env.start(self.group)
        dropped = np.zeros(len(number), bool)
        for fault in self.vector_env.wait(self.group):
            row = fault.row - self.part.start
            whose = f"evaluation environment {row // s} of team {row % s}"
            self.restarts.charge(fault, whose, self._seed(row, number, tries, starts))
            dropped[row] = True
        return dropped

    def _seed(self, row: Any, number: Any, tries: Any, starts: Starts) -> int:
        words = starts[row % self.shape[1]]
        return episode_seed(*words, int(number[row]), int(tries[row]))


def play_python_envs(
    game: Game,
    policies: PyTree,
    episodes: int,
    seed: int,
    stochastic: bool,
    python_env: PythonEnvSettings,
) -> dict[str, Played]:
    """Every seed's team [S] plays in environments opened for it; see ``Evaluator.play``.

    Raises:
        EnvironmentFault: more environments failed than ``python_env`` allows.
    """
    assert isinstance(game.env, PythonEnvFactory)
    count = jax.tree.leaves(policies)[0].shape[0]
    side_by_side = min(episodes * (1 + stochastic), SIDE_BY_SIDE)
    limits = Limits(python_env.step_timeout)
    vector_env = make_vector_env(
        game.env, [range(side_by_side * count)], limits, python_env.processes()
    )
    # Apart from the keys of training, which are split from the same kind of root.
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0x5A), count)
    starts = [(FINAL_EVALUATION, seed, k) for k in range(count)]
    restarts = Restarts(game.env.name, python_env.restarts)
    evaluator = Evaluator(vector_env, 0, 0, (side_by_side, count), make_choose(game), restarts)
    try:
        return evaluator.play(policies, keys, starts, episodes, stochastic)
    finally:
        vector_env.close()


class _Tally:
    """Returns and lengths of so many episodes of each seed, and which are still to be played."""

    def __init__(self, seeds: int, episodes: int, kinds: int, agents: int) -> None:
        self.episodes, self.kinds = episodes, kinds
        self.returns = np.zeros((seeds, kinds * episodes, agents))
        self.lengths = np.zeros((seeds, kinds * episodes))
        self.begun = np.zeros(seeds, np.int64)
        self.reports = [Reports(seeds) for _ in range(kinds)]

    def next(self, seed: Any) -> int:
        """The next episode's number, -1 if there is none."""
        if self.begun[seed] == self.returns.shape[1]:
            return -1
        self.begun[seed] += 1
        return int(self.begun[seed]) - 1

    def count(self, which: np.ndarray, number: np.ndarray, rewards: np.ndarray) -> None:
        """Adds a step to the episodes that these environments play."""
        rows = np.flatnonzero(which)
        seed = rows % len(self.begun)
        self.returns[seed, number[rows]] += rewards[rows]
        self.lengths[seed, number[rows]] += 1

    def report(self, row: int, number: np.ndarray, report: Reported) -> None:
        """Adds what an environment reported of the episode that ended in it."""
        kind = int(number[row]) // self.episodes
        self.reports[kind].add(row % len(self.begun), report)

    def drop(self, rows: np.ndarray, number: np.ndarray) -> None:
        """Forgets what these environments' episodes brought so far."""
        seed = rows % len(self.begun)
        self.returns[seed, number[rows]] = self.lengths[seed, number[rows]] = 0

    def played(self) -> dict[str, Played]:
        """By the metric's prefix."""
        e = self.episodes
        prefixes = ("eval", "eval_sampled")[: self.kinds]
        return {
            prefix: Played(
                self.returns[:, k * e : (k + 1) * e],
                self.lengths[:, k * e : (k + 1) * e],
                self.reports[k].means(),
            )
            for k, prefix in enumerate(prefixes)
        }
