"""Randomness is independent where it must be: nothing is drawn twice, and means are not biased.

Environments here hand out what they draw, 32 bits at a time, so that a key used for two things, or
by two environments, seeds or evaluations, shows as the same number twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from probes import collector, game_for, quick_program, random_learner, small

import coterie
from coterie.algorithms import algorithms
from coterie.policies.distributions import Categorical
from coterie.python_envs.evaluate import play_python_envs
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.training import HostDevice
from coterie.runs import environments
from coterie.runs import evaluation as run_evaluation
from coterie.spec import EnvSpec
from coterie.training.evaluate import Played
from coterie.types import TimeStep
from coterie.views.game import Game

SERIAL = PythonEnvSettings(workers=0)
SEEDS, K = 3, 4


def assert_distinct(numbers: np.ndarray, what: str, least: int) -> None:
    assert numbers.size >= least, f"only {numbers.size} {what}"
    values, counts = np.unique(numbers, return_counts=True)
    assert counts.max() == 1, f"{(counts > 1).sum()} of {values.size} {what} were drawn repeatedly"


# JAX environments ---------------------------------------------------------------------------


class Draws(coterie.Environment):
    """Pays what is drawn: at its start and in each of its two steps, two halves of 32 bits each.

    At the first step the first two agents are paid the start's halves and the next two the step's;
    the last two are paid those of the second step.
    """

    agents = tuple("abcdef")

    def spec(self):
        return EnvSpec(self.agents, (1,) * 6, (2,) * 6, time_limit=2)

    def reset(self, key):
        state = (self.halves(key), jnp.zeros((), jnp.int32))
        return state, self._show(jnp.zeros(6))

    def step(self, key, state, actions):
        start, t = state
        first = jnp.concatenate([start, self.halves(key), jnp.zeros(2)])
        second = jnp.concatenate([jnp.zeros(4), self.halves(key)])
        return (start, t + 1), self._show(jnp.where(t == 0, first, second))

    @staticmethod
    def halves(key):
        drawn = jax.random.bits(key)
        return jnp.stack([drawn >> 16, drawn & 0xFFFF]).astype(jnp.float32)

    def _show(self, rewards):
        never = jnp.zeros((), bool)
        return TimeStep(jnp.zeros((6, 1)), rewards, terminated=never, truncated=never)


def drawn(rewards) -> np.ndarray:
    """All numbers in rewards or returns [..., 6]."""
    halves = np.asarray(rewards, np.int64).reshape(-1, 2)
    numbers = halves[:, 0] * 2**16 + halves[:, 1]
    return numbers[numbers > 0]


def test_nothing_is_drawn_twice_in_training_and_in_evaluation():
    """Of all seeds, environments, steps, rollouts, points, episodes, greedy and sampled."""
    algorithm = small("idqn", environments=K, learning_starts=10**6)
    game = Game(Draws())
    program = quick_program(algorithm, game, SEEDS)
    state = program.init(0)
    played = []
    for point in range(2):
        state, games = program.evaluate(state, point)
        played.append(games["eval"][0])
    iterations = algorithm._capacity() // (2 * K)
    state = program.advance(state, 0, iterations)
    state, games = program.evaluate(state, iterations)
    played.append(games["eval"][0])
    policies = algorithm.policy(state.learner)
    for seed in (0, 1):
        final = run_evaluation.evaluate_jax_env(game, policies, 4, seed, stochastic=True)
        played += [final["eval"][0], final["eval_sampled"][0]]
    training = drawn(state.learner.replay.stored.rewards)
    evaluation = np.concatenate([drawn(returns) for returns in played])
    assert_distinct(training, "numbers of training", SEEDS * iterations * K * 3)
    assert_distinct(evaluation, "numbers of evaluation", SEEDS * (3 * 4 + 2 * 8) * 3)
    assert_distinct(np.concatenate([training, evaluation]), "numbers of both", 0)


ACTIONS, STEPS = 64, 4


class Choices(coterie.Environment):
    """Each of three agents has 64 actions; its four make up its return, a number of four digits."""

    agents = ("a", "b", "c")

    def spec(self):
        return EnvSpec(self.agents, (1,) * 3, (ACTIONS,) * 3, time_limit=STEPS)

    def reset(self, key):
        return jnp.ones(()), self._show(jnp.zeros(3))

    def step(self, key, state, actions):
        return state * ACTIONS, self._show(state * actions)

    def _show(self, rewards):
        never = jnp.zeros((), bool)
        return TimeStep(jnp.zeros((3, 1)), rewards, terminated=never, truncated=never)


def assert_unrelated(numbers: np.ndarray, least: int) -> None:
    """Every agent's series of actions is its own, and no step of it tells of another."""
    numbers = numbers.astype(np.int64).reshape(-1)
    assert_distinct(numbers, "series of actions", least)
    steps = numbers // ACTIONS ** np.arange(STEPS)[:, None] % ACTIONS
    related = np.corrcoef(steps)[np.triu_indices(STEPS, 1)]
    assert np.abs(related).max() < 4 / np.sqrt(least)


@pytest.mark.parametrize("name", ["idqn", "ippo"])
def test_everyone_explores_by_itself(name):
    """Every agent in every environment, rollout and seed."""
    algorithm = small(name, environments=K, update_ratio=1 / (4 * K), rollout_steps=STEPS)
    game = Game(Choices())
    policy = jax.tree.map(jnp.zeros_like, algorithm.policy(random_learner(algorithm, game)))
    seen, *_ = collector(algorithm, game, SEEDS)(policy, [1.0, 1.0])
    assert_unrelated(seen.rewards.sum(2), SEEDS * 2 * K * 3)


def test_whether_and_how_to_explore_are_drawn_apart():
    """With ε = 1/2 a quarter of all actions are of the upper half, half are greedy."""
    algorithm, game, rows = small("idqn"), Game(Choices()), 2_000
    noise = algorithm.noise(jax.random.key(0), game, (rows,))
    scores, mask = jnp.zeros((rows, 3, ACTIONS)), jnp.ones((rows, 3, ACTIONS), bool)
    clock = {"epsilon": jnp.float32(0.5)}
    actions = algorithm.behaviour(Categorical(scores, mask), clock).sample(noise)
    assert np.mean(actions >= ACTIONS // 2) == pytest.approx(0.25, abs=0.03)
    assert np.mean(actions == 0) == pytest.approx(0.5 + 0.5 / ACTIONS, abs=0.04)


def test_sampled_evaluation_draws_for_everyone():
    """Every agent in every episode and seed."""
    algorithm = small("ippo")
    game = Game(Choices())
    policy = algorithm.policy(random_learner(algorithm, game))
    policies = jax.tree.map(lambda x: jnp.zeros((SEEDS, *x.shape)), policy)
    played = run_evaluation.evaluate_jax_env(game, policies, 8, 0, stochastic=True)
    assert_unrelated(played["eval_sampled"][0], SEEDS * 8 * 3)


@pytest.mark.parametrize("name", algorithms())
def test_every_network_of_every_agent_and_seed_starts_elsewhere(name):
    """Targets alone are copies."""
    algorithm = small(name)
    game = game_for(algorithm, coterie.make("matrix/climbing"))
    init = jax.vmap(lambda key: algorithm.init(key, game))
    learner = jax.jit(init)(jax.random.split(jax.random.key(0), 2))
    networks = [getattr(learner, part, None) for part in ("values", "actor", "critic")]
    rows = [
        row.tobytes()
        for leaf in jax.tree.leaves([part for part in networks if part is not None])
        for row in np.asarray(leaf).reshape(leaf.shape[0] * leaf.shape[1], -1)
        if row.size > 1 and row.any()
    ]
    assert len(rows) > 4
    assert len(set(rows)) == len(rows)


# Python environments -----------------------------------------------------------------------------


class Brief:
    """One or ten steps, half of the episodes each, paid 1 a step; notes the seeds it is given."""

    possible_agents = ("a", "b")
    seeds: list[int] = []  # noqa: RUF012

    def observation_space(self, agent):
        return Box(0, 1, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.agents, self.t = list(self.possible_agents), 0
        self.length = int(np.random.default_rng(seed).choice([1, 10]))
        return self._each(np.zeros(1, np.float32)), self._each({})

    def step(self, actions):
        self.t += 1
        over = self.t == self.length
        if over:
            self.agents = []
        shown = self._each(np.zeros(1, np.float32))
        return shown, self._each(1.0), self._each(over), self._each(False), self._each({})

    def _each(self, value):
        return dict.fromkeys(self.possible_agents, value)

    def close(self):
        pass


@pytest.fixture
def lanes():
    """A factory of lanes on ``Brief``, closed after the test."""
    opened = []

    def open_lanes(algorithm, seeds=SEEDS) -> HostDevice:
        env, _ = environments.open_environment(
            Brief, {}, PythonEnvSettings(workers=0, time_limit=10)
        )
        made = HostDevice(algorithm, Game(env), seeds, 5, 4, SERIAL, pytest.fail)
        opened.append(made)
        Brief.seeds.clear()
        return made

    yield open_lanes
    for made in opened:
        made.close()


def test_no_episode_of_a_python_environment_is_played_twice(lanes):
    """Of all seeds, environments, points and purposes; each episode is known by its seed."""
    algorithm = small("ippo", environments=K, rollout_steps=8)
    hosted = lanes(algorithm)
    states = hosted.init(5)
    for point in range(3):
        states, _ = hosted.evaluate(states, point)
        states = hosted.advance(states, point, 1)
    policies = hosted.gather(states, lambda s: algorithm.policy(s.learner))
    for seed in (0, 1):
        play_python_envs(hosted.program.game, policies, 4, seed, True, SERIAL)
    assert None not in Brief.seeds
    assert_distinct(np.asarray(Brief.seeds), "seeds", SEEDS * (K + 5 * 8))


# Means and intervals -----------------------------------------------------------------------------


class Short(coterie.Environment):
    """One or ten steps, half of the episodes each, paid 1 a step: a mean return of 5.5."""

    agents = ("a", "b")

    def spec(self):
        return EnvSpec(self.agents, (1, 1), (2, 2), time_limit=10)

    def reset(self, key):
        state = (jnp.zeros((), jnp.int32), jnp.where(jax.random.bernoulli(key), 10, 1))
        return state, self._show(state, 0.0)

    def step(self, key, state, actions):
        state = (state[0] + 1, state[1])
        return state, self._show(state, 1.0)

    def _show(self, state, reward):
        over = (state[0] >= state[1]) & (state[0] > 0)
        return TimeStep(jnp.zeros((2, 1)), jnp.full(2, reward), over, jnp.zeros((), bool))


@pytest.mark.parametrize(("longest", "mean"), [(10, 5.5), (4, 2.5), (25, 5.5)])
def test_whole_episodes_count_once_whatever_their_length(longest, mean):
    """One of each environment and rollout: the one learned from, as far as it is learned from."""
    rollouts, environments = 24, 16
    algorithm = small("reinforce", environments=environments, episode_steps=longest)
    game = Game(Short())
    policy = algorithm.policy(random_learner(algorithm, game))
    seen, totals, *_ = collector(algorithm, game, SEEDS)(policy, [0.0] * rollouts)
    over = seen.terminated | seen.truncated
    first = np.cumsum(over, axis=2) - over == 0
    np.testing.assert_array_equal(totals.count, np.full((SEEDS, rollouts), environments))
    np.testing.assert_array_equal(totals.lengths, first.sum((2, 3)))
    np.testing.assert_array_equal(totals.returns, np.repeat(totals.lengths[..., None], 2, -1))
    # Standard error: (longest - 1) / 2 / sqrt(1152).
    assert totals.lengths.sum() / totals.count.sum() == pytest.approx(mean, abs=0.5)


def test_whole_episodes_of_python_environments_count_once(lanes):
    algorithm = small("reinforce", environments=K, episode_steps=10)
    hosted = lanes(algorithm)
    states = hosted.advance(hosted.init(5), 0, 12)
    (count, returns, lengths) = hosted.gather(
        states, lambda s: (s.episodes.count, s.episodes.returns, s.episodes.lengths)
    )
    np.testing.assert_array_equal(count, [12 * K] * SEEDS)
    np.testing.assert_array_equal(returns, np.repeat(lengths[:, None], 2, -1))
    assert lengths.sum() / count.sum() == pytest.approx(5.5, abs=1.5)


def test_the_interval_over_episodes_is_as_wide_as_it_says():
    """95% of such intervals hold the teams' true mean return, however many seeds there are."""
    rng = np.random.default_rng(0)
    seeds, episodes, times = 9, 30, 400
    truth = rng.normal(size=seeds) * 5
    held = 0
    for _ in range(times):
        returns = truth[:, None, None] + rng.normal(size=(seeds, episodes, 1))
        played = {"eval": Played(returns, np.ones((seeds, episodes)), {})}
        metrics = run_evaluation.summary(("a",), played)
        low, high = metrics["eval/return/team_sum"]["ci95_episodes"]
        held += low <= truth.mean() <= high
    assert 0.92 <= held / times <= 0.98
