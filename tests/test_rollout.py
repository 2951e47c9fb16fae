"""Collected transitions say what happened: ends, memory, masks, deaths, totals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, collector, game_for, quick, random_learner, small

from coterie.algorithms import algorithms
from coterie.policies.distributions import Categorical
from coterie.training.rollout import scan_rollout
from coterie.views.game import Game
from coterie.views.vector import SEED_AXIS, init_vector

R, T, B, N = 12, 4, 3, 3


@functools.cache
def walked():
    """Recurrent acting in ``Walk``: transitions [R·T, B, ...], totals, policy, algorithm.

    The first half explores, the second half is greedy.
    """
    algorithm = small(
        "qmix", environments=B, update_ratio=1 / (B * T), recurrent=True, sequence_length=2
    )
    game = Game(Walk(), "state", "sum")
    policy = random_learner(algorithm, game).values.utility
    epsilons = np.repeat(np.float32([0.5, 0.0]), R // 2)
    seen, totals, *_ = collector(algorithm, game)(policy, epsilons)
    leaves = {k: v for k, v in vars(seen).items() if k != "extras" and v is not None}
    flat = {k: v[0].reshape(R * T, *v.shape[3:]) for k, v in leaves.items()}
    return flat, totals, policy, algorithm


def ended(seen):
    return seen["terminated"] | seen["truncated"]


def test_steps_join_on():
    """The next observation is the one acted on next, or an episode starts."""
    seen, *_ = walked()
    over = ended(seen)
    assert over.any()
    assert not over.all()
    np.testing.assert_array_equal(seen["start"][1:], over[:-1])
    assert seen["start"][0].all()
    for name in ("observations", "action_mask", "alive", "central"):
        now, led_to = seen[name][1:], seen[f"next_{name}"][:-1]
        np.testing.assert_array_equal(now[~over[:-1]], led_to[~over[:-1]])


def test_the_final_observation_is_kept_and_not_the_reset_one():
    seen, *_ = walked()
    start, t = seen["observations"][..., 0, 0], seen["observations"][..., 0, 1]
    np.testing.assert_array_equal(seen["next_observations"][..., 0, 0], start)
    np.testing.assert_array_equal(seen["next_observations"][..., 0, 1], t + 1)
    np.testing.assert_array_equal(t == 0, seen["start"])
    np.testing.assert_array_equal(seen["central"], np.stack([start, t], -1))
    np.testing.assert_array_equal(seen["next_central"], np.stack([start, t + 1], -1))
    cut = seen["truncated"]
    assert cut.any()
    assert (t[cut] == 4).all()
    assert not (cut & seen["terminated"]).any()


def test_rewards_are_of_this_step_the_last_and_the_dead_included():
    seen, *_ = walked()
    paid = seen["actions"] + 10.0 * np.arange(N) + 100.0 * seen["terminated"][..., None]
    np.testing.assert_array_equal(seen["rewards"], paid)
    dies = seen["alive"][..., 2] & ~seen["next_alive"][..., 2]
    assert dies.any()
    assert (seen["rewards"][dies][:, 2] >= 20).all()
    assert seen["alive"][seen["start"]].all(), "the dead come back with the next episode"


def test_illegal_actions_are_never_taken():
    seen, *_ = walked()
    legal = np.take_along_axis(seen["action_mask"], seen["actions"][..., None], -1)[..., 0]
    assert (legal | ~seen["alive"]).all()
    assert (seen["actions"][~seen["alive"]] == 0).all()
    assert (~seen["action_mask"]).any(-1).mean() > 0.5


def test_the_stored_memory_is_the_one_acted_with():
    """Unrolling from any stored memory gives the memories stored after it, across episode ends."""
    seen, _, policy, _ = walked()
    unroll = quick(lambda policy, *x: policy.unroll(*x)[1])
    for first in (0, 5):
        start = np.repeat(seen["start"][first:-1, :, None], N, -1)
        hidden_states = unroll(
            policy, seen["hidden_state"][first], seen["observations"][first:-1], start
        )
        np.testing.assert_allclose(hidden_states, seen["hidden_state"][first + 1 :], atol=1e-5)


def test_acting_needs_own_observation_and_memory_only():
    """Greedy actions follow from what each agent saw and remembered; z is not asked."""
    seen, _, policy, algorithm = walked()
    second = {k: jnp.asarray(v[R * T // 2 :]) for k, v in seen.items()}

    def act(hidden_state, obs, start, mask):
        scores, _ = policy.step(hidden_state, obs, start)
        noise = jnp.zeros((R * T // 2 * B, 2, N))
        return algorithm.behaviour(Categorical(scores, mask), {"epsilon": jnp.zeros(())}).sample(
            noise
        )

    start = jnp.repeat(second["start"][..., None], N, -1)
    given = [second[k] for k in ("hidden_state", "observations")] + [start, second["action_mask"]]
    chosen = quick(act)(*(x.reshape(-1, *x.shape[2:]) for x in given))
    np.testing.assert_array_equal(chosen, second["actions"].reshape(-1, N))


def test_totals_are_of_whole_episodes_in_the_environments_own_rewards():
    seen, totals, *_ = walked()
    over, running, length = ended(seen), np.zeros((B, N)), np.zeros(B)
    count, returns, lengths = 0, np.zeros(N), 0
    for t in range(R * T):
        running, length = running + seen["rewards"][t], length + 1
        count += over[t].sum()
        returns += running[over[t]].sum(0)
        lengths += length[over[t]].sum()
        running, length = running * ~over[t][:, None], length * ~over[t]
    assert totals.count.sum() == count
    assert totals.lengths.sum() == lengths
    np.testing.assert_allclose(totals.returns.sum((0, 1)), returns, rtol=1e-5)


@pytest.mark.parametrize("name", algorithms())
@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_acting_is_decentralised(name, sharing):
    """Another observation or memory of agent 1 never changes what agents 0 and 2 do."""
    algorithm = small(name, recurrent=True, sharing=sharing)
    if algorithm.mode == "centralised training and execution":
        pytest.skip("one learner acts for all")
    game = game_for(algorithm, Walk())
    policy = algorithm.policy(random_learner(algorithm, game))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(200, N, 5)).astype(np.float32)
    hidden_state = rng.normal(size=(200, N, policy.hidden_size)).astype(np.float32)
    act = quick(lambda m, o: policy.step(m, o, jnp.zeros((200, N), bool)))
    scores, hidden_states = map(np.asarray, act(hidden_state, obs))
    for mine in (obs, hidden_state):
        mine[:, 1] = rng.normal(size=mine[:, 1].shape) * 10
    changed, changed_memories = map(np.asarray, act(hidden_state, obs))
    np.testing.assert_array_equal(scores[:, ::2], changed[:, ::2])
    np.testing.assert_array_equal(hidden_states[:, ::2], changed_memories[:, ::2])
    assert (scores[:, 1].argmax(-1) != changed[:, 1].argmax(-1)).any()


class Told(Walk):
    """``Walk`` with another z: the same numbers times ``told``."""

    def __init__(self, told):
        super().__init__()
        self.told = told

    def _show(self, state, drawn, rewards, over):
        shown = super()._show(state, drawn, rewards, over)
        return dataclasses.replace(shown, central=self.told * shown.central)


@pytest.mark.parametrize("name", [n for n, cls in algorithms().items() if cls.central])
def test_acting_knows_nothing_of_z(name):
    """Centralised information that is wrong, or not a number, changes no action while training."""
    algorithm = small(name)
    steps, environments = algorithm.rollout_shape()
    policy = algorithm.policy(random_learner(algorithm, Game(Walk(), "state", "sum")))
    clock = {"epsilon": jnp.float32(0.5)}

    def act(key, told):
        game = Game(Told(told), "state", "sum")
        start_key, act_key = jax.random.split(key)
        vector = init_vector(game, start_key, environments, steps)
        hidden_state = policy.initial_hidden_state(environments)
        return scan_rollout(algorithm, game, policy, vector, hidden_state, act_key, clock)[2]

    run = quick(jax.vmap(act, (0, None), axis_name=SEED_AXIS))
    keys = jax.random.split(jax.random.key(0), 3)
    told, lied, blank = (run(keys, jnp.float32(x)) for x in (1.0, -7.0, np.nan))
    assert not np.array_equal(told.central, lied.central)
    assert np.isnan(blank.central).any()
    for other in (lied, blank):
        np.testing.assert_array_equal(told.actions, other.actions)
        np.testing.assert_array_equal(told.observations, other.observations)
        for one, same in zip(*map(jax.tree.leaves, (told.extras, other.extras)), strict=True):
            np.testing.assert_array_equal(one, same)
