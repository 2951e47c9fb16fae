"""Training on Python environments, as the run's loop drives it: the counterpart of ``Devices``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coterie.learners.contract import Algorithm
from coterie.python_envs.adapters.infos import MOST_NAMES
from coterie.python_envs.bookkeeping import EVALUATION, WORDS, Reports, Restarts, Seconds
from coterie.python_envs.evaluate import Evaluator, make_choose
from coterie.python_envs.record import Record, empty_vector, transitions
from coterie.python_envs.rollout import Collector, halves
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import Limits, rows_bytes
from coterie.spec import Observation, PythonEnvFactory
from coterie.training.arguments import ForAnyNumbers
from coterie.training.devices import stack
from coterie.training.evaluate import Played
from coterie.training.finite import FiniteChecks, any_failed, check_finite, failure, without_replay
from coterie.training.loop import Paced
from coterie.training.state import (
    TrainState,
    add,
    better_of,
    chosen_score,
    clear_totals,
    init_learning,
    words,
)
from coterie.types import PRNGKey, PyTree, Schedules
from coterie.views.game import Game
from coterie.views.preprocessing import UNCHANGED

CHUNK_STEPS = 2_048
"""About this many environment steps of a seed run between two looks from the loop."""

States = tuple[TrainState, ...]


class PythonEnvProgram(Paced):
    """The compiled functions of a run on Python environments; all seeds at once.

    What comes from environments has axes [B, S, ...], a rollout [T, B, S, ...].
    """

    def __init__(self, algorithm: Algorithm, game: Game, seeds: int):
        super().__init__(algorithm, game, seeds, CHUNK_STEPS)
        self._init = jax.jit(
            jax.vmap(lambda key: init_learning(algorithm, game, key)[0]),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        self.draw = jax.jit(jax.vmap(self._draw, out_axes=(1, 3, 1)))
        axes = (0, 1, 1, 1, 1, 1, 3, None, None)
        self.act = jax.jit(jax.vmap(self._act, in_axes=axes, out_axes=1))
        self.learn = ForAnyNumbers(algorithm, self._learn_all, donated=(0, 1))
        self.better_of = jax.jit(jax.vmap(better_of, in_axes=(0, 0, None, 0)))
        self.choose = make_choose(game)

    def init(self, seed: int) -> TrainState:
        return self._with_environments(self._init(self.keys(seed)))

    def template(self) -> TrainState:
        state = jax.eval_shape(self._init, jax.eval_shape(lambda: self.keys(0)))
        return self._with_environments(state)

    def _with_environments(self, state: TrainState) -> TrainState:
        """The state with its environments and what their agents remember, before the first step."""
        players, lead = self.game.players, (self.seeds, self.environments)
        vector = empty_vector(players, self.seeds * self.environments)
        frames = self.game.preprocessing.no_frames(players, *lead)
        return _with(state, vector=vector, frames=frames)

    def _draw(self, key: PRNGKey) -> tuple[Any, PyTree, Any]:
        """Randomness of a chunk: keys to go on from, noise [I, T, B, ...], keys of learning.

        Split as ``training.loop.iterate`` and ``scan_rollout`` split theirs.
        """
        shape = (self.rollout_steps, self.environments)

        def one(key: PRNGKey, _: None) -> Any:
            next_key, act_key, learn_key = jax.random.split(key, 3)
            noise_key, _ = jax.random.split(act_key)
            noise = self.algorithm.noise(noise_key, self.game, shape)
            return next_key, (next_key, noise, learn_key)

        return jax.lax.scan(one, key, None, length=self.chunk)[1]

    def _act(
        self,
        policy: PyTree,
        hidden_state: tuple[Array, Any],
        observations: Array,
        mask: Array,
        alive: Array,
        starts: Array,
        noise: PyTree,
        schedules: Schedules,
        at: Array,
    ) -> tuple[Any, Any, PyTree, Any]:
        """Chooses for b environments of one seed; ``at`` is (iteration, step, the first of b)."""
        game, count = self.game, observations.shape[0]
        state = jnp.zeros((count, game.players.central_size))
        hidden, frames = hidden_state
        observations, frames = game.look(observations, alive, frames, starts)
        seen = game.see(observations, mask, alive, state)
        own = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x[at[0], at[1]], at[2], count), noise
        )
        now = {name: value[at[0]] for name, value in schedules.items()}
        actions, hidden, extras = self.algorithm.explore(policy, hidden, seen, starts, own, now)
        return game.own_actions(actions), actions, extras, (hidden, frames)

    def _learn_all(
        self, algorithm: Algorithm, *given: Any
    ) -> tuple[PyTree, dict[str, Array], FiniteChecks, Array]:
        """All seeds' learners and losses, what was met, whether anything is not finite."""
        learn = functools.partial(self._learn, algorithm)
        each = jax.vmap(learn, in_axes=(0, 0, 2, 1, None, None))
        learner, losses, checks = each(*given)
        return learner, losses, checks, any_failed(checks)

    def _learn(
        self,
        algorithm: Algorithm,
        learner: PyTree,
        losses: dict[str, Array],
        record: Record,
        keys: Array,
        schedules: Schedules,
        i: Array,
    ) -> tuple[PyTree, dict[str, Array], FiniteChecks]:
        now = {name: value[i] for name, value in schedules.items()}
        rollout = transitions(self.game, record)
        learner, more = algorithm.learn(self.game, learner, rollout, keys[i], now)
        checks = check_finite(algorithm, self.game, rollout, more, without_replay(learner))
        return learner, add(losses, more), checks


class HostDevice:
    """A run's seeds on one device, whose environments are processes, not arrays.

    The states' ``vector`` says where the environments are; ``init`` and ``place`` bring them
    there, ``advance`` moves both. Methods are those of ``Devices``.

    Args:
        seed: the first seed's number.
        warn: called with a sentence about what went wrong.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        game: Game,
        seeds: int,
        seed: int,
        episodes: int,
        python_env: PythonEnvSettings,
        warn: Callable[[str], None],
    ):
        assert isinstance(game.env, PythonEnvFactory)
        self.count, self.seed, self.episodes, self.warn = 1, seed, episodes, warn
        self.program = program = PythonEnvProgram(algorithm, game, seeds)
        self.python_env, self.factory = python_env, game.env
        self.seconds = Seconds()
        self.restarts = Restarts(game.env.name, python_env.restarts)
        self._told = False
        k = program.environments
        self._evaluators = min(k, episodes * (1 + algorithm.stochastic))
        parts = halves(seeds, k)
        first = seeds * k
        groups = [*parts, range(first, first + seeds * self._evaluators)]
        self.vector_env = make_vector_env(
            game.env, groups, Limits(python_env.step_timeout), python_env.processes()
        )
        spec = game.players
        whole = algorithm.whole_episodes
        self.collector = Collector(self.vector_env, spec, seeds, k, seed, self.restarts, whole)
        shape = (self._evaluators, seeds)
        self.evaluator = Evaluator(
            self.vector_env, len(parts), first, shape, program.choose, self.restarts
        )

    def template(self) -> States:
        return (self.program.template(),)

    def bytes(self) -> int:
        steps = self.program.steps_per_iteration * self.program.seeds
        raw, looked = self.factory.promise, self.program.game.preprocessing
        # A rollout on the host and once more on the device, there also preprocessed; the record
        # of each step holds the frames that were remembered.
        seen = 0 if looked == UNCHANGED else rows_bytes(looked.spec(raw), steps)
        frames = seen if looked.frame_stack > 1 else 0
        return self.program.bytes() + 2 * rows_bytes(raw, steps) + seen + frames

    def working_bytes(self) -> int:
        """Not known beforehand: 0."""
        return 0

    def init(self, seed: int) -> States:
        """The state before the first step; every environment begins its first episode."""
        state = self.program.init(seed)
        self.collector.begin()
        return (_with(state, vector=self.collector.vector),)

    def place(self, states: States) -> States:
        """Replays the running episodes, so that environments are where the state says."""
        (state,) = states
        if different := self.collector.replay(state.vector):
            self.warn(
                f"{different} of {self.collector.count} running episodes did not go the same way "
                "again from their seed and actions: they start anew, so the resumed run is not "
                "exactly the uninterrupted one"
            )
        device = jax.device_put(_with(state, vector=None))
        return (_with(device, vector=self.collector.vector),)

    def advance(self, states: States, iteration: int, count: int) -> States:
        """``count`` rollouts, each followed by learning; at most the program's ``chunk``.

        Raises:
            EnvironmentFault: more environments failed than may be replaced.
            NotFinite: a number was not; nothing was learned after that, and the state is gone.
        """
        (state,), program = states, self.program
        algorithm = program.algorithm
        self.seconds.start()
        iterations = iteration + np.arange(program.chunk, dtype=np.int64)
        schedules = jax.device_put(algorithm.schedules(iterations))
        keys, noise, learn_keys = program.draw(state.key)
        learner, losses = state.learner, state.losses
        hidden_state = jax.tree.map(
            lambda x: np.moveaxis(np.asarray(x), 0, 1), (state.hidden_state, state.frames)
        )
        for i in range(count):
            if algorithm.whole_episodes:
                self.collector.restart()
            policy = algorithm.policy(learner)

            def act(
                t: int,
                first: int,
                seen: Observation,
                starts: Any,
                hidden_state: Any,
                i=i,
                policy=policy,
            ):
                at = np.array([i, t, first], np.int32)
                return program.act(policy, hidden_state, *seen[:3], starts, noise, schedules, at)

            record, hidden_state = self.collector.collect(
                program.rollout_steps, hidden_state, act, self.seconds
            )
            learner, losses, checks, wrong = program.learn(
                learner, losses, record, learn_keys, schedules, np.int32(i)
            )
            if wrong:
                step = (iteration + i + 1) * program.steps_per_iteration
                raise failure(algorithm, program.game, checks, learner, step)
            self.seconds.spent("learning")
        hidden_state, frames = jax.tree.map(
            lambda x: jnp.moveaxis(jnp.asarray(x), 0, 1), hidden_state
        )
        state = _with(
            state,
            learner=learner,
            losses=losses,
            hidden_state=hidden_state,
            frames=frames,
            key=keys[count - 1],
            vector=self.collector.vector,
        )
        self._tell_left_out()
        return (_with_totals(state, self.collector),)

    def evaluate(self, states: States, point: int) -> tuple[States, dict[str, Played]]:
        """Plays the policies of all seeds; keeps those that are the best so far."""
        (state,), program = states, self.program
        algorithm = program.algorithm
        policies = algorithm.policy(state.learner)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(state.evaluation_key, point % 2**32)
        starts = [(EVALUATION, self.seed + k, point) for k in range(program.seeds)]
        played = self.evaluator.play(policies, keys, starts, self.episodes, algorithm.stochastic)
        score = jnp.asarray(chosen_score(played, algorithm.stochastic), jnp.float32)
        best = program.better_of(policies, score, words(point), state.best)
        return (_with(state, best=best),), played

    def gather(self, states: States, part: Callable[[TrainState], PyTree]) -> PyTree:
        return stack([part(state) for state in states])

    def info(self, states: States) -> dict[str, np.ndarray]:
        """By name [S] the mean of what environments reported since ``clear_totals``."""
        return self.collector.reports.means()

    def clear_totals(self, states: States) -> States:
        self.collector.reports = Reports(self.program.seeds)
        return tuple(clear_totals(state) for state in states)

    def _tell_left_out(self) -> None:
        """Says once what environments report that cannot be logged."""
        names = [*self.collector.reports.left_out]
        if names and not self._told:
            self._told = True
            shown = ", ".join(map(repr, names[:5])) + ", ..." * (len(names) > 5)
            self.warn(
                f"these entries of the infos of {self.factory.name} are not logged, because they "
                f"are no finite numbers or beyond the first {MOST_NAMES} names: {shown}"
            )

    def totals(self) -> dict[str, Any]:
        """Of ``clear_totals``, what is not in the states, for a checkpoint."""
        return {"info": self.collector.reports.content()}

    def tallies(self) -> dict[str, Any]:
        """What is counted outside of the state, for the log and the next resume."""
        spent = {f"seconds_{word}": getattr(self.seconds, word) for word in WORDS}
        return {**spent, "restarts": self.restarts.used}

    def go_on_from(self, tallies: dict[str, Any], totals: dict[str, Any]) -> None:
        """Counts on from what ``tallies`` and ``totals`` gave when the checkpoint was written."""
        self.collector.reports = Reports(self.program.seeds, totals.get("info"))
        for word in WORDS:
            setattr(self.seconds, word, float(tallies.get(f"seconds_{word}", 0.0)))
        self.restarts.used = int(tallies.get("restarts", 0))

    def close(self) -> None:
        self.vector_env.close()


def _with(state: TrainState, **parts: Any) -> TrainState:
    """The state with other parts; its types are those of one seed and hold for none here."""
    old = lambda s: [getattr(s, name) for name in parts]  # noqa: E731
    return eqx.tree_at(old, state, list(parts.values()), is_leaf=lambda x: x is None)


def _with_totals(state: TrainState, collector: Collector) -> TrainState:
    """The state, the episodes that ended added to its totals."""
    more = [jnp.asarray(x, jnp.float32) for x in collector.clear_totals()]
    episodes = jax.tree.map(jnp.add, jax.tree.leaves(state.episodes), more)
    return eqx.tree_at(lambda s: jax.tree.leaves(s.episodes), state, episodes)
