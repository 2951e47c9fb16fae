"""Actions that are vectors: distributions, games of known value, environments of others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from types import MappingProxyType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from pettingzoo import AECEnv
from scipy import integrate, stats

import coterie
from coterie import envs
from coterie.algorithms import algorithms, make
from coterie.cli.entry import main
from coterie.envs.base import Environment
from coterie.errors import EnvironmentFault, UsageError
from coterie.networks.per_agent import PerAgent
from coterie.ops.action_vectors import ActionVectors, gaussian_log_density, log_tanh_slope
from coterie.ops.losses import policy_gradient
from coterie.policies.acting import act
from coterie.policies.acting import distribution as of_outputs
from coterie.policies.vectors import VectorDistribution
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.spaces import Nonsense, choice
from coterie.python_envs.check.able import SINGLE, VECTORS
from coterie.python_envs.check.check import check_env
from coterie.runs.config import configured_algorithm
from coterie.runs.environments import check_fits, sizes
from coterie.show.film.recording import record
from coterie.spec import ActionSpace, EnvSpec, PythonEnvFactory, TimeStep
from coterie.storage.files import seal
from coterie.views.game import Game

ABLE = tuple(name for name, kind in algorithms().items() if kind.action_vectors)
PLAIN, SPREAD = ActionSpace((3,)), ActionSpace(low=(-1, 0), high=(1, 10))
SEVERAL, MIXED = ActionSpace((2, 3)), ActionSpace((2,), (-np.inf,), (np.inf,))
SPACES = (SPREAD, PLAIN, SEVERAL, MIXED, SPREAD)


def distribution(bounds="clip", least_std=0.0, batch=()):
    """Five agents of four kinds, random outputs."""
    vectors = ActionVectors(SPACES, bounds, least_std)
    size = (*batch, len(SPACES), vectors.outputs + vectors.numbers)
    outputs = np.random.default_rng(0).normal(size=size).astype(np.float32)
    mask = np.ones((*batch, len(SPACES), 5), bool)
    mask[..., 2, 3] = False  # the second of three
    return VectorDistribution(jnp.asarray(outputs), jnp.asarray(mask), vectors)


# Distributions -----------------------------------------------------------------------------------


def test_densities_are_those_of_scipy():
    x, mean, std = np.meshgrid([-3.0, 0.2, 4.0], [-1.0, 0.5], [0.1, 1.0, 3.0])
    ours = gaussian_log_density(*map(jnp.asarray, (x, mean, np.log(std))))
    np.testing.assert_allclose(ours, stats.norm.logpdf(x, mean, std), rtol=2e-5)
    u = np.array([-20.0, -3, 0, 0.5, 12])
    slope = np.log(4) - 2 * np.abs(u) - 2 * np.log1p(np.exp(-2 * np.abs(u)))
    np.testing.assert_allclose(log_tanh_slope(jnp.asarray(u)), slope, rtol=1e-5)


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_a_squashed_density_integrates_to_one(std):
    vectors = ActionVectors((ActionSpace(low=(-1,), high=(1,)),), "tanh")
    outputs = jnp.array([[0.4, np.log(std)]])

    u = np.linspace(-8, 8, 4001)
    many = jnp.broadcast_to(outputs, (4001, 1, 2))
    policy = VectorDistribution(many, jnp.ones((4001, 1, 1), bool), vectors)
    density = np.exp(np.asarray(policy.log_prob(jnp.asarray(u[:, None, None])))[:, 0])
    assert integrate.trapezoid(density, np.tanh(u)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_each_part_of_an_action_counts_once(bounds):
    """log π and the entropy of every agent, against SciPy's of its parts."""
    policy = distribution(bounds)
    actions = np.asarray(policy.sample(policy.vectors.noise(jax.random.key(1), ())))
    out, first = np.asarray(policy.outputs), policy.vectors.outputs
    log_std = out[:, first:]
    squash = np.asarray(log_tanh_slope(jnp.asarray(actions)))

    def numbers(i, columns, at, means, bounded=True):
        total = 0.0
        for k in range(columns):
            each = stats.norm.logpdf(actions[i, at + k], means[k], np.exp(log_std[i, k]))
            total += each - (squash[i, at + k] if bounds == "tanh" and bounded else 0)
        return total

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum()

    a = actions.astype(int)
    of_two, of_three = softmax(out[2, :2]), softmax(out[2, [2, 4]])
    expected = [
        numbers(0, 2, 0, out[0]),
        np.log(softmax(out[1, :3])[a[1, 0]]),
        np.log(of_two[a[2, 0]]) + np.log(of_three[{0: 0, 2: 1}[a[2, 1]]]),
        np.log(softmax(out[3, :2])[a[3, 0]]) + numbers(3, 1, 1, out[3, 2:], bounded=False),
        numbers(4, 2, 0, out[4]),
    ]
    np.testing.assert_allclose(policy.log_prob(jnp.asarray(actions)), expected, rtol=1e-4)
    entropies = [
        sum(stats.norm.entropy(scale=np.exp(log_std[i, k])) for k in range(n))
        for i, n in ((0, 2), (1, 0), (2, 0), (3, 1), (4, 2))
    ]
    entropies[1] += stats.entropy(softmax(out[1, :3]))
    entropies[2] += stats.entropy(of_two) + stats.entropy(of_three)
    entropies[3] += stats.entropy(softmax(out[3, :2]))
    np.testing.assert_allclose(policy.entropy(), entropies, rtol=1e-5)
    both = policy.log_prob_and_entropy(jnp.asarray(actions))
    np.testing.assert_array_equal(both[0], policy.log_prob(jnp.asarray(actions)))
    np.testing.assert_array_equal(both[1], policy.entropy())


def test_samples_follow_the_distribution_and_modes_are_its_mode():
    count = 40_000
    policy = distribution()
    many = jax.vmap(lambda noise: policy.sample(noise))(
        policy.vectors.noise(jax.random.key(0), (count,))
    )
    many, out = np.asarray(many), np.asarray(policy.outputs)
    std = np.exp(out[0, policy.vectors.outputs :])
    for k in range(2):
        assert stats.kstest(many[:, 0, k], stats.norm(out[0, k], std[k]).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(many[:, 0].T)[0, 1]) < 0.03
    assert not (many[:, 2, 1] == 1).any()  # illegal
    share = np.exp(out[2, 0]) / np.exp(out[2, :2]).sum()
    assert (many[:, 2, 0] == 0).mean() == pytest.approx(share, abs=0.02)
    assert not many[:, 1, 1:].any()  # padding
    mode = np.asarray(policy.mode())
    np.testing.assert_array_equal(mode[0], out[0, :2])
    assert mode[1, 0] == out[1, :3].argmax()
    assert mode[2].tolist() == [out[2, :2].argmax(), [0, 2][out[2, [2, 4]].argmax()]]
    assert mode[3].tolist() == [out[3, :2].argmax(), out[3, 2]]


def test_a_choice_without_alternatives_is_none():
    """Where nothing is chosen, nothing is learned of it: log π is that of the other parts."""
    vectors = ActionVectors((SEVERAL,))
    mask = jnp.array([[True, False, False, False, False]])
    outputs = jnp.array([[0.3, 0.1, 0.4, -0.2, 0.9]])

    def log_prob(outputs):
        return VectorDistribution(outputs, mask, vectors).log_prob(jnp.zeros((1, 2)))[0]

    assert log_prob(outputs) == 0
    assert not np.asarray(jax.grad(log_prob)(outputs)).any()


def an_actor(least_std, log_std):
    """Two agents that share a network, with this log σ."""
    vectors = ActionVectors((ActionSpace(low=(0,), high=(1,)),) * 2, "clip", least_std)
    actor = PerAgent((0, 0), 1, 1, (4,), jax.random.key(0), vectors=vectors)
    return eqx.tree_at(lambda actor: actor.log_std, actor, jnp.full((1, 1), log_std))


def spread(actor, steps=3):
    """The distributions of so many steps."""
    hidden, seen = jnp.zeros((2, 0)), jnp.ones((steps, 2, 1))
    outputs, _ = actor.unroll(hidden, seen, jnp.zeros((steps, 2), bool))
    return of_outputs(actor, outputs, jnp.ones((steps, 2, 1), bool))


def test_sigma_is_not_below_its_floor():
    policy = spread(an_actor(0.5, -9.0))
    np.testing.assert_allclose(policy.sample(jnp.ones((3, 2, 1))) - policy.mode(), 0.5, rtol=1e-6)
    np.testing.assert_allclose(policy.entropy(), stats.norm.entropy(scale=0.5), rtol=1e-6)
    for log_std in (-9.0, 0.3):  # without a floor exactly exp(log σ)
        drawn = spread(an_actor(0.0, log_std)).sample(jnp.ones((3, 2, 1)))
        expected = spread(an_actor(0.0, log_std)).mode() + jnp.exp(jnp.float32(log_std))
        np.testing.assert_array_equal(drawn, expected)


def test_sigma_leaves_its_floor_where_that_is_better_and_sinks_no_further():
    """By the gradient of the whole loss, in which some steps want a larger σ and some a smaller."""

    def gradient(log_std, actions, least_std=0.5):
        def loss(actor):
            policy = spread(actor)
            return -policy.log_prob(policy.mode() + jnp.asarray(actions)[:, None, None]).sum()

        return float(eqx.filter_grad(loss)(an_actor(least_std, log_std)).log_std[0, 0])

    near, far, floor = [0.1, 0.2, 0.6], [0.1, 0.2, 3.0], np.log(0.5)
    for actions in (near, far):  # 1 − x²/σ² of each of two agents
        expected = 2 * sum(1 - (x / 0.5) ** 2 for x in actions)
        assert gradient(-2.0, actions) == pytest.approx(min(expected, 0), rel=1e-4)
        above = 2 * sum(1 - (x / np.exp(floor + 0.1)) ** 2 for x in actions)
        assert gradient(floor + 0.1, actions) == pytest.approx(above, rel=1e-4)
    assert gradient(-2.0, far) < 0
    assert gradient(-2.0, near) == 0


@pytest.mark.parametrize("name", ABLE)
def test_sigma_cannot_start_below_its_floor(name):
    with pytest.raises(UsageError, match=r"std 0.5 is below least_std 0.6"):
        make(name, std=0.5, least_std=0.6)
    assert make(name, std=0.6, least_std=0.6).std == 0.6


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_actions_become_legal_in_the_units_of_the_environment(bounds):
    vectors = ActionVectors(
        (ActionSpace((4,), (-1, 0, -np.inf, 2), (3, 10, np.inf, np.inf)),), bounds
    )
    given = jnp.array([[[3.0, 0.5, -9.0, 7.0, 1.0]], [[0.0, 5.0, 0.2, -40.0, 5.0]]])
    squash = np.tanh if bounds == "tanh" else lambda x: np.clip(x, -1, 1)
    expected = [
        [[3, 1 + 2 * squash(0.5), 5 + 5 * squash(-9.0), 7, 2]],
        [[0, 1 + 2 * squash(5.0), 5 + 5 * squash(0.2), -40, 5]],
    ]
    np.testing.assert_allclose(vectors.to_env(given), expected, rtol=1e-6, atol=1e-6)


def test_the_policy_gradient_theorem_in_a_continuous_game():
    """r = −(a_1 + a_2 − 1)²: ∂J/∂μ_i = −2 (μ_1 + μ_2 − 1) and ∂J/∂ log σ_i = −2 σ_i²."""
    unbounded = ActionSpace(low=(-np.inf,), high=(np.inf,))
    vectors = ActionVectors((unbounded, unbounded))
    outputs = jnp.array([[0.2, np.log(0.5)], [-0.4, np.log(0.8)]])
    noise = vectors.noise(jax.random.key(3), (400_000,))

    def policy(out, count=400_000):
        out = jnp.broadcast_to(out, (count, *out.shape))
        return VectorDistribution(out, jnp.ones((count, 2, 1), bool), vectors)

    actions = policy(outputs).sample(noise)
    rewards = -((actions[..., 0].sum(-1) - 1) ** 2)

    def loss(out):
        each = policy_gradient(
            policy(out).log_prob(actions), jnp.broadcast_to(rewards[:, None] + 1, (400_000, 2))
        )
        return jnp.mean(jnp.sum(each, axis=-1))

    found = -np.asarray(jax.grad(loss)(outputs))
    assert found[:, 0] == pytest.approx([2.4, 2.4], abs=0.05)
    assert found[:, 1] == pytest.approx([-2 * 0.25, -2 * 0.64], abs=0.05)


# Agents that do not act --------------------------------------------------------------------------


def learned_from(policy, outputs, mask, actions):
    """log π and the entropy of each agent, and what their sum says of each output."""

    def total(outputs):
        found = VectorDistribution(outputs, mask, policy.vectors).log_prob_and_entropy(actions)
        return sum(map(jnp.sum, found)), found

    (_, found), grads = jax.value_and_grad(total, has_aux=True)(outputs)
    return *map(np.asarray, found), np.asarray(grads)


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
@pytest.mark.parametrize("idle", [(0,), (3,), (0, 1, 2, 3, 4)])
def test_nothing_is_learned_from_what_an_agent_does_not_decide(bounds, idle):
    policy = distribution(bounds)
    # Far from where it is drawn, and almost without spread: the density would be beyond float32.
    outputs = policy.outputs.at[np.array(idle)].set(-60.0)
    mask = policy.mask.at[np.array(idle)].set(False)
    some = VectorDistribution(outputs, mask, policy.vectors)
    actions = some.sample(policy.vectors.noise(jax.random.key(2), ()))
    everything = learned_from(policy, policy.outputs, policy.mask, actions)
    acted = learned_from(policy, outputs, mask, actions)
    own = np.isin(np.arange(len(SPACES)), idle)
    for found, of_all in zip(acted, everything, strict=True):
        assert not found[own].any()
        np.testing.assert_array_equal(found[~own], of_all[~own])
    assert everything[2][own].any()
    for chosen in (actions, some.mode()):
        assert not np.asarray(chosen)[own].any()


@dataclass(frozen=True)
class Expedition(Environment):
    """The scout (a choice, and two numbers) dies in the first step, the others go on to the end."""

    agents = ("archer", "scout", "smith")
    spaces = (
        ActionSpace(low=(0,), high=(10,)),
        ActionSpace((3,), (-1, -1), (1, 1)),
        ActionSpace((2, 3)),
    )

    def spec(self) -> EnvSpec:
        return EnvSpec(self.agents, (2, 2, 2), actions=self.spaces, time_limit=4, reward="mean")

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._shown(0, jnp.zeros(3))

    def step(self, key, state, actions):
        return state + 1, self._shown(state + 1, actions[:, 0])

    def _shown(self, t, rewards):
        dead = jnp.array([False, True, False]) & (t > 0)
        never = jnp.zeros((), bool)
        return TimeStep(jnp.ones((3, 2)), rewards, never, never, alive=~dead)


def parts_of_the_team():
    """Whose each output of the team's network is, and each log σ, by agent."""
    spaces = Expedition.spaces
    of_logits = [i for i, space in enumerate(spaces) for _ in range(sum(space.choices))]
    of_numbers = [i for i, space in enumerate(spaces) for _ in space.low]
    return np.array(of_logits + of_numbers + of_numbers)


def test_the_dead_do_not_count_for_the_team():
    """Central A2C: log π and the entropy are those of the living agents' parts."""
    algorithm, game = make("central_a2c", hidden=(8,)), Game(Expedition(), joint=True)
    state, shown = game.reset(jax.random.key(0))
    actor = algorithm.policy(algorithm.init(jax.random.key(1), game))
    whose = parts_of_the_team()
    outputs = jax.random.normal(jax.random.key(2), (1, len(whose)))
    for dead in (False, True):
        mask = shown.action_mask
        policy = VectorDistribution(outputs, mask, actor.vectors)
        noise = actor.vectors.noise(jax.random.key(3), ())
        actions = policy.sample(noise)
        log_probs, entropies, grads = learned_from(policy, outputs, mask, actions)
        assert (not grads[0, whose == 1].any()) == dead
        assert grads[0, whose == 0].all()
        own = ActionVectors(Expedition.spaces)
        # The same of three agents by themselves, of which the second one counts while it lives.
        rows = np.zeros((3, own.outputs + own.numbers), np.float32)
        for i in range(3):
            mine = np.asarray(outputs)[0, whose == i]
            d = len(Expedition.spaces[i].low)
            rows[i, : len(mine) - d] = mine[: len(mine) - d]
            rows[i, own.outputs : own.outputs + d] = mine[len(mine) - d :]
        full = jnp.asarray(game.players.available_actions)
        each = VectorDistribution(jnp.asarray(rows), full, own)
        apart = each.log_prob_and_entropy(game.team.split(actions))
        lives = np.array([True, not dead, True])
        assert log_probs[0] == pytest.approx(np.asarray(apart[0])[lives].sum(), rel=1e-5)
        assert entropies[0] == pytest.approx(np.asarray(apart[1])[lives].sum(), rel=1e-5)
        state, shown = game.step(jax.random.key(4), state, actions)


@pytest.mark.parametrize("name", ["central_a2c", "ippo"])
def test_a_mortal_team_is_trained(name, tmp_path):
    out = tmp_path / "run"
    run = coterie.train(make(name, environments=4), Expedition(), 640, out=out, reward="mean")
    assert run.evaluate(episodes=4)["eval/length"]["mean"] == 4


class Turns(AECEnv):
    """Two agents move in turn, each by two numbers, for six moves in all."""

    metadata = MappingProxyType({"name": "turns"})
    possible_agents = ("left", "right")

    def observation_space(self, agent):
        return Box(-1.0, 1.0, (2,), np.float32)

    def action_space(self, agent):
        return Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.agent_selection, self.moves = "left", 0
        self.rewards = self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}

    def observe(self, agent):
        return np.array([self.moves / 6, 1.0], np.float32)

    def step(self, action):
        if self.terminations[self.agent_selection]:
            return self._was_dead_step(action)
        assert self.action_space(self.agent_selection).contains(action)
        self.moves += 1
        self.rewards = dict.fromkeys(self.agents, float(action.sum()))
        self.terminations = dict.fromkeys(self.agents, self.moves == 6)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self._accumulate_rewards()
        self.agent_selection = self.possible_agents[self.moves % 2]
        return None


def test_whose_turn_it_is_not_decides_nothing(tmp_path):
    """One agent at a time: the other one's networks and log σ learn nothing from the step."""
    env = PythonEnv(Turns(), combined=False)
    algorithm = make("ippo", sharing="own", hidden=(8,), reward_scaling="none")
    shown = env.reset(0)
    game = Game(PythonEnvFactory("turns", Turns, env.spec))
    actor = algorithm.policy(algorithm.init(jax.random.key(0), game))
    for mover in (0, 1, 0):
        seen = game.see(*map(jnp.asarray, shown.observation))
        assert np.asarray(seen.action_mask).tolist() == [[i == mover] * 2 for i in range(2)]

        def log_prob(actor, seen, actions):
            hidden = actor.initial_hidden_state()
            outputs, _ = actor.step(hidden, seen.observations, jnp.ones(2, bool))
            return of_outputs(actor, outputs, seen.action_mask).log_prob(actions)

        noise = actor.vectors.noise(jax.random.key(3), ())
        hidden = actor.initial_hidden_state()
        actions, _, extras = act(
            actor, hidden, seen.observations, seen.action_mask, noise, extras=algorithm.extras
        )
        found = log_prob(actor, seen, actions)
        np.testing.assert_array_equal(found, extras)
        assert found[1 - mover] == 0
        assert found[mover] != 0
        total = jax.grad(lambda *given: log_prob(*given).sum())(actor, seen, actions)
        for leaf in jax.tree.leaves(total):
            assert not np.asarray(leaf[1 - mover]).any()
        assert np.asarray(total.log_std[mover]).all()
        shown = env.step(np.asarray(game.own_actions(actions)))
    algorithm = make("ippo", environments=4, rollout_steps=8)
    run = coterie.train(algorithm, Turns, 320, out=tmp_path / "run")
    assert run.evaluate(episodes=4)["eval/length"]["mean"] == 6


def test_std_may_depend_on_what_is_observed(tmp_path):
    """log σ is the parameter plus the network's last outputs, by hand, above its floor."""
    vectors = ActionVectors(SPACES, "clip", 0.1, std_of_observation=True)
    n, d = vectors.outputs, vectors.numbers
    index = tuple(range(len(SPACES)))
    made = PerAgent(index, 3, vectors.network_outputs, (5,), jax.random.key(0), vectors=vectors)
    made = eqx.tree_at(lambda p: p.log_std, made, jnp.log(jnp.full(made.log_std.shape, 0.5)))
    x = 3 * jax.random.normal(jax.random.key(1), (len(SPACES), 3))
    outputs, _ = made.step(made.initial_hidden_state(), x, jnp.zeros(len(SPACES), bool))
    (first, last), seen = made.networks.body.layers, []
    for i in index:
        features = jax.nn.relu(x[i] @ first.weight[i] + first.bias[i])
        by_hand = features @ last.weight[i] + last.bias[i]
        np.testing.assert_allclose(outputs[i, :n], by_hand[:n], atol=1e-5)
        wanted = np.maximum(np.log(0.5) + by_hand[n:], np.log(0.1))
        np.testing.assert_allclose(outputs[i, n:], wanted, atol=1e-5)
        seen.append(wanted)
    assert outputs.shape[-1] == n + d
    assert np.std(seen) > 0.01
    algorithm = make("ippo", std=0.5, std_of_observation=True, environments=8, rollout_steps=8)
    run = coterie.train(algorithm, Three(), 640, out=tmp_path / "run", final_episodes=0)
    actor = jax.tree.map(lambda x: x[0], run.policies["last"])
    assert np.any(np.asarray(actor.networks.body.layers[-1].bias)[..., -1])  # it is learned
    again = coterie.open_run(tmp_path / "run", environment=Three())
    assert again.evaluate(8, which="last") == run.evaluate(8, which="last")
    assert coterie.load(tmp_path / "run").policy.vectors.std_of_observation


# A game of known value ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Three(Environment):
    """One step, common reward 3 − |x − 7|/5 − (both choices right ? 0 : 1) − (move right ? 0 : 1).

    The archer aims at a number from 0 to 10, the smith makes two choices, the scout one.
    """

    agents = ("archer", "smith", "scout")

    def spec(self) -> EnvSpec:
        return EnvSpec(
            agents=self.agents,
            observation_sizes=(1, 1, 1),
            actions=(ActionSpace(low=(0,), high=(10,)), ActionSpace((2, 3)), ActionSpace((4,))),
            time_limit=1,
            reward="mean",
        )

    def reset(self, key):
        return (), self._shown(jnp.zeros(3), False)

    def step(self, key, state, actions):
        aim = 1 - jnp.abs(actions[0, 0] - 7) / 5
        made = (actions[1, 0] == 1) & (actions[1, 1] == 2)
        seen = actions[2, 0] == 3
        return (), self._shown(jnp.full(3, aim + made + seen), True)

    def _shown(self, rewards, over):
        over = jnp.asarray(over)
        return TimeStep(jnp.ones((3, 1)), rewards, over, jnp.zeros((), bool))


@pytest.mark.parametrize("recurrent", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bounds", ["clip", "tanh"])
@pytest.mark.parametrize("name", ABLE)
def test_a_game_of_all_kinds_of_actions_is_solved(name, bounds, recurrent, tmp_path):
    rate = {"lr": 0.005}
    if name == "central_a2c":
        rate = {"lr": 0.002}
    if name == "reinforce":
        # Without a baseline it is slow, and in a game of one step the mean reward is one.
        rate = {"lr": 0.002, "environments": 128, "reward_scaling": "standardise"}
    algorithm = make(name, action_bounds=bounds, recurrent=recurrent, entropy=0.001, **rate)
    run = coterie.train(algorithm, Three(), 60_000, out=tmp_path / "run")
    found = run.evaluate(episodes=64, which="last")
    assert found["eval/return/team_mean"]["mean"] > 2.8
    team = coterie.load(tmp_path / "run", which="last")
    actions, _ = team.act([np.ones(1)] * 3, team.initial_hidden_state())
    assert actions[0][0] == pytest.approx(7, abs=1)
    assert actions[1].tolist() == [1, 2]
    assert actions[2].tolist() == [3]


@pytest.mark.parametrize("name", sorted({*algorithms()} - {*ABLE}))
def test_the_others_refuse_in_a_sentence_that_names_those_that_can(name, tmp_path):
    with pytest.raises(UsageError) as refused:
        coterie.train(name, Three(), 1000, out=tmp_path / "run", reward="mean")
    assert "1 continuous number" in str(refused.value)
    for able in ABLE:
        assert able in str(refused.value)


OF_VECTORS = {"std": 1.0, "least_std": 0.0, "action_bounds": "clip"}


@pytest.mark.parametrize("name", algorithms())
def test_settings_of_vectors_are_those_of_algorithms_that_have_vectors(name):
    for setting, value in OF_VECTORS.items():
        if name in ABLE:
            assert getattr(make(name, **{setting: value}), setting) == value
        else:
            with pytest.raises(UsageError, match=f"{name} has no setting '{setting}'"):
                make(name, **{setting: value})


@pytest.mark.parametrize("name", ["coma", "pac", "idqn"])
def test_runs_open_that_had_these_settings_without_effect(name, tmp_path):
    """COMA and PAC once accepted them; of IDQN they are damage."""
    settings = {"environments": 4, "hidden": (4,)}
    coterie.train(make(name, **settings), "matrix/climbing", 400, out=tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "policy", tmp_path / "then" / "policy")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["settings"] |= OF_VECTORS
    (tmp_path / "then" / "config.json").write_text(json.dumps(seal(config)))
    if name == "idqn":
        with pytest.raises(UsageError, match="no setting 'std'"):
            coterie.open_run(tmp_path / "then")
    else:
        found = coterie.open_run(tmp_path / "then").evaluate(episodes=2, which="last")
        assert found["eval/length"]["mean"] == 1
        assert configured_algorithm(config) == make(name, **settings).resolve(400)


@pytest.mark.parametrize("name", ["ippo", "ia2c"])
@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_an_interrupted_training_goes_on_to_the_same_numbers(name, bounds, tmp_path):
    def train(steps, out, **more):
        settings = {"action_bounds": bounds, "environments": 8}
        return coterie.train(make(name, **settings), Three(), steps, out=tmp_path / out, **more)

    train(4096, "whole")
    train(2048, "parts")
    coterie.resume(tmp_path / "parts", steps=4096, environment=Three())
    teams = [coterie.load(tmp_path / out, which="last").policy for out in ("whole", "parts")]
    for a, b in zip(*map(jax.tree.leaves, teams), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["ippo", "mappo"])
@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_the_first_ratio_is_one(name, bounds, tmp_path):
    """Of the only minibatch of a rollout: the loss's log π is log π_β, also if squashed."""
    settings = {"epochs": 1, "minibatches": 1, "environments": 16, "rollout_steps": 4}
    algorithm = make(name, action_bounds=bounds, **settings)
    coterie.train(algorithm, Three(), 640, out=tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, log) if "train/kl" in line]
    assert lines
    for line in lines:
        assert line["train/clip_fraction"] == 0
        assert abs(line["train/kl"]) < 1e-9


# Policy files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors") / "run"
    coterie.train(make("ippo", action_bounds="tanh", least_std=0.2), Three(), 2048, out=out)
    return out


def test_a_policy_file_holds_all_that_acting_needs(trained):
    team = coterie.load(trained)
    assert team.policy.vectors == ActionVectors(Three().spec().actions, "tanh", 0.2)
    key, hidden = jax.random.key(4), team.initial_hidden_state()
    named, _ = team.act({a: np.ones(1) for a in Three.agents}, hidden, key=key)
    listed, _ = team.act([np.ones(1)] * 3, hidden, key=key)
    for a, b in zip(named.values(), listed, strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = [team.act([np.ones(1)] * 3, hidden, key=k)[0] for k in jax.random.split(key, 200)]
    aims = np.array([actions[0][0] for actions in drawn])
    assert (aims >= 0).all()
    assert (aims <= 10).all()
    assert len(set(aims.tolist())) == 200
    assert {tuple(actions[1]) for actions in drawn} == {(i, j) for i in (0, 1) for j in (0, 1, 2)}


def test_masks_of_a_team_are_of_choices(trained):
    """The archer of the team has numbers alone."""
    team = coterie.load(trained)
    seen, hidden = {a: np.ones(1) for a in Three.agents}, team.initial_hidden_state()
    masks = {"smith": [0, 1, 0, 0, 1], "scout": [0, 1, 0, 0]}
    free, _ = team.act(seen, hidden)
    for given in (masks, {**masks, "archer": None}):
        actions, _ = team.act(seen, hidden, given)
        assert actions["smith"].tolist() == [1, 2]
        assert actions["scout"].tolist() == [1]
        np.testing.assert_array_equal(actions["archer"], free["archer"])
    listed, _ = team.act([np.ones(1)] * 3, hidden, [None, masks["smith"], None])
    assert listed[1].tolist() == [1, 2]
    for wrong, said in (
        ({**masks, "archer": [1]}, "agent archer: it has no choices, so there is nothing to mask"),
        ({"scout": masks["scout"]}, "action_masks lack smith"),
        ({**masks, "smith": [1, 1]}, r"agent smith: .* must hold 5 flags; got shape \(2,\)"),
    ):
        with pytest.raises(UsageError, match=said):
            team.act(seen, hidden, wrong)


def test_a_file_from_when_masks_had_no_flags_for_numbers_is_opened(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "policy" / "policy.json"
    described = json.loads(path.read_text()) | {"action_counts": [1, 5, 4]}
    path.write_text(json.dumps(seal(described)))
    own, hidden = coterie.load(trained), coterie.load(trained).initial_hidden_state()
    teams = [own, coterie.load(tmp_path / "run")]
    (a, _), (b, _) = (team.act([np.ones(1)] * 3, hidden) for team in teams)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def forged(key, value):
    def change(described):
        described[key] = value
        return described

    return change


@pytest.mark.parametrize(
    "change",
    [
        forged("action_spaces", []),
        forged("action_spaces", [{"choices": [2], "low": [], "high": []}] * 3),
        forged("action_spaces", "Box"),
        forged("action_spaces", [{"choices": [-1], "low": [], "high": []}] * 3),
        forged("action_spaces", [{"choices": [2**60], "low": [1.0], "high": [2.0]}] * 3),
        forged("action_spaces", [{"choices": [], "low": [1.0], "high": [1.0]}] * 3),
        forged("action_spaces", [{"choices": [], "low": [], "high": [1.0]}] * 3),
        forged("action_spaces", [{"choices": ["x"], "low": [[]], "high": [1.0]}] * 3),
        forged("action_spaces", [{"low": [None], "high": [None]}] * 3),
        forged("action_bounds", "none"),
        forged("least_std", -1.0),
        forged("least_std", None),
        forged("least_std", 10**400),
        forged("least_std", True),
        forged("action_spaces", [{"choices": [], "low": [0], "high": [10**400]}] * 3),
        forged("action_spaces", [{"choices": [2.0, 3.0], "low": [], "high": []}] * 3),
        forged("action_counts", [3, 5, 4]),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "policy" / "policy.json"
    path.write_text(json.dumps(seal(change(json.loads(path.read_text())))))
    with pytest.raises(UsageError):
        coterie.load(tmp_path / "run")


# Pictures and pages ------------------------------------------------------------------------------


def test_actions_are_shown_in_words():
    env = envs.make("mpe/simple-reference", continuous_actions=True)
    actions = np.zeros((2, 15), np.float32)
    actions[0, 1], actions[0, 4], actions[0, 8], actions[1, 14] = 0.75, 0.5, 1, 1
    assert env.in_words(actions) == ("x −0.75, y +0.50, says 3", "x +0.00, y +0.00, says 9")
    given = np.array([[0.5, 0], [1, 2], [3, 0]], np.float32)
    assert Three().in_words(given) == ("0.50", "1 2", "3")
    assert Three().in_words(-given[[0, 1, 2]])[0] == "−0.50"


def test_a_run_is_filmed_and_reported(tmp_path):
    options = {"continuous_actions": True}
    algorithm = make("ippo", environments=4, rollout_steps=8)
    out = tmp_path / "run"
    run = coterie.train(algorithm, "mpe/simple-spread", 640, options=options, out=out)
    (frames,) = record(run).episodes
    assert len(frames) == 26
    assert all(re.fullmatch(r"x [+−]\d\.\d\d, y [+−]\d\.\d\d", a) for a in frames[3].actions)
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert "x +" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (SPREAD, "2 continuous numbers (from -1 to 1, from 0 to 10)"),
        (ActionSpace(low=(0,) * 5, high=(1,) * 5), "5 continuous numbers (each from 0 to 1)"),
        (MIXED, "1 choice (of 2) and 1 continuous number (without bounds)"),
        (SEVERAL, "2 choices (of 2, 3)"),
        (ActionSpace(low=(-np.inf, 3), high=(0.1, np.inf)),
         "2 continuous numbers (at most 0.1, at least 3)"),
        (ActionSpace(low=(0,), high=(1.23456789,)), "1 continuous number (from 0 to 1.23456789)"),
    ],
)  # fmt: skip
def test_a_space_in_words_says_all_that_tells_it_from_others(space, words):
    assert str(space) == words


def test_spaces_that_differ_in_bounds_alone_are_told_apart():
    one, other = (
        EnvSpec(("a",), (1,), actions=(ActionSpace(low=(0,), high=(top,)),)) for top in (1, 2)
    )
    check_fits(sizes(one), one, "here")
    with pytest.raises(UsageError) as refused:
        check_fits(sizes(one), other, "there")
    assert "from 0 to 1" in str(refused.value)
    assert "there has ['1 continuous number (from 0 to 2)']" in str(refused.value)


# Environments of others --------------------------------------------------------------------------

SPACE_OF = {
    "arm": Box(-2.0, np.array([1.0, 3.0], np.float32), (2,), np.float32),
    "gun": Box(0, 255, (2, 1), np.uint8),
    "panel": MultiDiscrete([2, 3], start=[1, 5]),
    "lamps": MultiBinary(3),
    "door": Discrete(4, start=-1),
}


class Factory:
    """A PettingZoo environment that checks what it is given; the panel has a mask."""

    possible_agents = tuple(SPACE_OF)
    metadata = MappingProxyType({})

    def observation_space(self, agent):
        if agent != "panel":
            return Box(-1.0, 1.0, (2,), np.float32)
        parts = {"observation": Box(-1.0, 1.0, (2,), np.float32), "action_mask": MultiBinary(5)}
        return Dict(parts)

    def action_space(self, agent):
        return SPACE_OF[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(SPACE_OF), 0
        self.rng = np.random.default_rng(seed)
        return self._seen(), {}

    def step(self, actions):
        for agent, action in actions.items():
            assert SPACE_OF[agent].contains(action), (agent, action)
        assert actions["panel"][1] != 6
        self.t += 1
        paid = float(actions["arm"].sum() + actions["lamps"].sum() + actions["door"])
        ended = dict.fromkeys(SPACE_OF, self.t == 8)
        never = dict.fromkeys(SPACE_OF, False)
        self.agents = [] if self.t == 8 else list(SPACE_OF)
        return self._seen(), dict.fromkeys(SPACE_OF, paid), ended, never, {}

    def _seen(self):
        seen = {a: self.rng.uniform(-1, 1, 2).astype(np.float32) for a in SPACE_OF}
        masks = (np.array([1, 1], np.int8), np.array([1, 0, 1], np.int8))
        seen["panel"] = {"observation": seen["panel"], "action_mask": masks}
        return seen


def test_every_space_is_decided_part_by_part():
    env = PythonEnv(Factory(), combined=False)
    assert env.spec.actions == (
        ActionSpace(low=(-2, -2), high=(1, 3)), ActionSpace(low=(0, 0), high=(255, 255)),
        ActionSpace((2, 3)), ActionSpace((2, 2, 2)), ActionSpace((4,)),
    )  # fmt: skip
    assert env.spec.action_counts == (2, 2, 5, 6, 4)
    shown = env.reset(0)
    np.testing.assert_array_equal(shown.action_mask[2], [1, 1, 1, 0, 1, 0])
    actions = np.zeros(env.spec.action_shape, np.float32)
    actions[0, :2], actions[1, :2] = (1, -1.5), (254.6, 0.4)
    actions[2, :2], actions[3], actions[4, 0] = (0, 2), (1, 0, 1), 3
    assert env.step(actions).rewards.tolist() == [1 - 1.5 + 2 + 2] * 5


def test_masks_of_separate_choices_come_in_parts():
    panel = choice("panel", SPACE_OF["panel"], combined=False)
    for wrong in (np.ones(5), np.ones(6), (np.ones(2), np.ones(2)), None):
        with pytest.raises(Nonsense, match="action mask"):
            panel.legal(wrong)
    env = PythonEnv(Factory(), combined=False)
    env.reset(0)
    with pytest.raises(Nonsense, match="forbids"):
        env._allow(2, (np.ones(2), np.zeros(3)), np.ones(6, bool))
    with pytest.raises(Nonsense, match="continuous"):
        choice("arm", SPACE_OF["arm"]).legal(np.ones(2))


class Panels:
    """A PettingZoo environment whose two agents press buttons, with masks of some form."""

    possible_agents = ("left", "right")
    metadata = MappingProxyType({})

    def __init__(self, space, mask=None):
        self.space, self.mask = space, mask

    def observation_space(self, agent):
        return Box(-1.0, 1.0, (2,), np.float32)

    def action_space(self, agent):
        return self.space

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return self._seen()

    def step(self, actions):
        self.t += 1
        assert all(self.space.contains(action) for action in actions.values())
        paid = dict.fromkeys(self.agents, float(self.t % 2))
        ended = dict.fromkeys(self.agents, self.t == 4 + (paid["left"] > 2))
        never = dict.fromkeys(self.agents, False)
        seen, infos = self._seen()
        self.agents = [] if self.t == 4 else self.agents
        return seen, paid, ended, never, infos

    def _seen(self):
        info = {} if self.mask is None else {"action_mask": self.mask}
        return {a: np.zeros(2, np.float32) for a in self.agents}, dict.fromkeys(self.agents, info)


TWO = MultiDiscrete([2, 3])
THEY = {True: "central_a2c, ia2c, ippo, maa2c, mappo and reinforce",
        False: "central_q, coma, idqn, pac, qmix and vdn"}  # fmt: skip
IN_PARTS = (np.ones(2, np.int8), np.array([1, 0, 1], np.int8))
PANELS = {
    "plain": (Discrete(3), np.ones(3), True, True),
    "without masks": (TWO, None, True, True),
    "masks in parts": (TWO, IN_PARTS, True, True),
    "masks of combinations": (TWO, np.ones(6), False, True),
    "flat masks of parts": (TWO, np.ones(5), False, False),
    "too many combinations": (MultiBinary(12), None, True, False),
    "numbers": (Box(-1, 1, (2,), np.float32), None, True, False),
}


@pytest.mark.parametrize("kind", PANELS)
def test_a_check_says_which_algorithms_can_play(kind, tmp_path):
    """And so it is when they are trained."""
    space, mask, apart, single = PANELS[kind]

    def make_panels():
        return Panels(space, mask)

    report = check_env(make_panels, episodes=2)
    assert report.ok == (apart or single), report.findings
    said = [finding for finding in report.findings if "cannot play" in finding.sentence]
    assert len(said) == (2 if single and not apart else 0)
    if report.ok:
        for kind, can, others_can in ((True, apart, single), (False, single, apart)):
            assert (f"{THEY[kind]} can play" in report.algorithms) == (can and not others_can)
            assert (f"{THEY[kind]} cannot: agent left" in report.algorithms) == (not can)
        assert ("all algorithms can play" in report.algorithms) == (apart and single)
    for name, can in (("ia2c", apart), ("idqn", single)):
        algorithm = make(name, environments=2, hidden=(4,))
        with contextlib.nullcontext() if can else pytest.raises((UsageError, EnvironmentFault)):
            coterie.train(algorithm, make_panels, 40, out=tmp_path / name, evaluations=1)


def test_a_check_knows_the_algorithms_by_name():
    assert set(VECTORS) == set(ABLE)
    assert set(SINGLE) == set(algorithms()) - set(ABLE)


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        ([0, 1, 0, 0, 1], None),
        ([0, 0, 0, 0, 0], None),
        ([0, 1, 0, 0, 0], "every alternative of choice 2 of 2"),
        ([0, 0, 0, 0, 1], "every alternative of choice 1 of 2"),
    ],
)
def test_a_check_of_a_jax_environment_looks_at_every_choice(mask, fault):
    class Masked(Three):
        def _shown(self, rewards, over):
            shown = super()._shown(rewards, over)
            rows = [[1, 0, 0, 0, 0], mask, [1, 1, 1, 1, 0]]
            return dataclasses.replace(shown, action_mask=jnp.array(rows, bool))

    report = check_env(Masked())
    found = [str(finding) for finding in report.findings if finding.violation]
    assert [fault in said and "agent smith" in said for said in found] == [True] * bool(fault)
    assert "pac, qmix and vdn cannot: agent archer acts by 1 continuous" in report.algorithms


def test_a_box_must_leave_something_to_decide():
    for space, said in ((Box(1.0, 1.0, (1,)), "cannot vary"), (Box(0, 1, (0,)), "empty")):
        with pytest.raises(UsageError, match=said):
            choice("x", space)


FLOAT64, HUGE = np.finfo(np.float64).max, np.float64(1e300)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Box(-np.inf, np.inf, (1,), np.int64), "go beyond 16,777,216"),
        (Box(0, 2**63 - 1, (1,), np.int64), "go beyond 16,777,216"),
        (Box(0, 2**24 + 1, (1,), np.int32), "go beyond 16,777,216"),
        (Box(-FLOAT64, FLOAT64, (1,), np.float64), "beyond 3.4e38, the largest of 32-bit floats"),
        (Box(0, HUGE, (1,), np.float64), "beyond 3.4e38, the largest of 32-bit floats"),
        (Box(1, 1 + 1e-12, (1,), np.float64), "below its high one, also as 32-bit floats"),
    ],
)
def test_bounds_that_32_bit_floats_do_not_hold_are_refused(space, said):
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        choice("x", space, combined=False)
    assert "agent x's action space" in str(refused.value)
    if space.dtype == np.float64:
        with pytest.raises(UsageError, match=re.escape(said)):
            ActionSpace(low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_the_widest_bounds_are_finite_to_everybody(bounds):
    """What is bounded to the density is bounded to the environment, and inside its space."""
    spaces = (Box(1e38, np.finfo(np.float32).max, (1,)), Box(-(2**24), 2**24, (1,), np.int64))
    each = [choice("x", space, combined=False) for space in spaces]
    vectors = ActionVectors(tuple(one.space for one in each), bounds)
    for drawn in (-50.0, 0.3, 50.0):
        legal = np.asarray(vectors.to_env(jnp.full((2, 1), drawn)))
        for one, space, row in zip(each, spaces, legal, strict=True):
            assert space.contains(one.action(row)), (row, space)


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_a_python_environment_is_trained_in_resumed_and_evaluated(bounds, tmp_path):
    def algorithm():
        return make("ippo", action_bounds=bounds, environments=4, rollout_steps=8)

    whole = coterie.train(algorithm(), Factory, 640, out=tmp_path / "whole")
    coterie.train(algorithm(), Factory, 320, out=tmp_path / "parts")
    parts = coterie.resume(tmp_path / "parts", steps=640, environment=Factory)
    for a, b in zip(*map(jax.tree.leaves, (whole.policies["last"], parts.policies["last"])),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    found = whole.evaluate(episodes=20)
    assert found["eval/length"]["mean"] == 8


def test_what_compares_actions_still_counts_combinations(tmp_path):
    """IDQN refuses the Box, and learns where all spaces are choices."""
    with pytest.raises(UsageError, match="2 continuous numbers"):
        coterie.train("idqn", Factory, 640, out=tmp_path / "refused")

    class Choices(Factory):
        possible_agents = ("lamps", "door")

        def reset(self, seed=None, options=None):
            return self._mine(*super().reset(seed))

        def step(self, actions):
            everybody = {a: space.sample() for a, space in SPACE_OF.items()}
            everybody["panel"] = np.array([1, 5])
            return self._mine(*super().step(everybody | actions))

        def _mine(self, *given):
            """Of the two alone."""
            self.agents = [a for a in self.possible_agents if a in self.agents]
            return [{a: x for a, x in each.items() if a in self.possible_agents} for each in given]

    assert PythonEnv(Choices()).spec.action_counts == (8, 4)
    coterie.train("idqn", Choices, 320, out=tmp_path / "run")
