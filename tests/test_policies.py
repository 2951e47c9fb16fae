"""Distributions over actions, and acting by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import QUICK

from coterie.networks.per_agent import PerAgent
from coterie.policies.acting import act
from coterie.policies.distributions import Categorical, EpsilonGreedy

MASK = np.array([[True, True, False, True], [False, False, True, False], [False] * 4])
OUTPUTS = np.array([[1.0, 0.5, 9.0, -1.0], [3.0, 2.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0]], np.float32)
DRAWS = 20_000


def categorical():
    return Categorical(jnp.asarray(OUTPUTS), jnp.asarray(MASK))


def epsilon_greedy(epsilon=0.3):
    return EpsilonGreedy(jnp.asarray(OUTPUTS), jnp.asarray(MASK), jnp.float32(epsilon))


E = np.exp([1.0, 0.5, -1.0])
PROBABILITIES = {
    # Agent 0 has actions 0, 1 and 3, agent 1 action 2 alone, agent 2 none.
    "categorical": (categorical, [E[0] / E.sum(), E[1] / E.sum(), 0, E[2] / E.sum()]),
    "epsilon-greedy": (epsilon_greedy, [0.7 + 0.1, 0.1, 0, 0.1]),
    "greedy": (lambda: epsilon_greedy(0.0), [1, 0, 0, 0]),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_what_is_sampled_is_what_log_prob_and_entropy_say(name):
    make, expected = PROBABILITIES[name]
    policy = make()
    shape = (DRAWS, 3) if name == "categorical" else (DRAWS, 2, 3)
    noise = jax.random.uniform(jax.random.key(0), shape)
    actions = np.asarray(jax.jit(jax.vmap(policy.sample), compiler_options=QUICK)(noise))
    rates = [np.mean(actions[:, 0] == a) for a in range(4)]
    np.testing.assert_allclose(rates, expected, atol=0.015)
    assert (actions[:, 1] == 2).all()
    assert (actions[:, 2] == 0).all()
    for a in (0, 1, 3):
        found = policy.log_prob(jnp.asarray([a, 2, 0]))
        assert np.exp(found[0]) == pytest.approx(expected[a], abs=1e-6)
        assert found[1] == pytest.approx(0.0, abs=1e-6)
    own = np.asarray([p for p in expected if p > 0])
    np.testing.assert_allclose(policy.entropy(), [-(own * np.log(own)).sum(), 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_the_mode_is_the_best_legal_action(name):
    policy = PROBABILITIES[name][0]()
    assert policy.mode().tolist() == [0, 2, 0]
    assert policy.log_probabilities().argmax(-1)[:2].tolist() == [0, 2]


def test_acting_samples_where_asked_restarts_where_episodes_begin_and_notes_what_is_wanted():
    """The hidden state that starts anew is the initial one; extras are of the actions taken."""
    policy = PerAgent((0, 1), 3, 4, (8,), jax.random.key(1), recurrent=True)
    rows, n = 6, 2
    keys = jax.random.split(jax.random.key(2), 3)
    hidden = jax.random.normal(keys[0], (rows, n, 8))
    seen = jax.random.normal(keys[1], (rows, n, 3))
    mask = jnp.ones((rows, n, 4), bool).at[:, 0, 1].set(False)
    noise = jax.random.uniform(keys[2], (rows, n))
    start = jnp.arange(rows) < 2
    sampled = jnp.arange(rows) % 2 == 0
    outputs, after = policy.step(hidden, seen, jnp.stack([start] * n, -1))
    fresh, _ = policy.step(policy.initial_hidden_state(rows), seen, jnp.zeros((rows, n), bool))
    np.testing.assert_allclose(outputs[:2], fresh[:2], rtol=1e-6)
    expected = Categorical(outputs, mask)

    greedy, left, nothing = act(policy, hidden, seen, mask, start=start)
    np.testing.assert_array_equal(greedy, expected.mode())
    np.testing.assert_array_equal(left, after)
    assert nothing == ()
    drawn, _, noted = act(
        policy, hidden, seen, mask, noise, start=start,
        extras=lambda chosen, actions: chosen.log_prob(actions),
    )  # fmt: skip
    np.testing.assert_array_equal(drawn, expected.sample(noise))
    np.testing.assert_array_equal(noted, expected.log_prob(drawn))
    both, *_ = act(policy, hidden, seen, mask, noise, start=start, sampled=sampled)
    np.testing.assert_array_equal(both, np.where(sampled[:, None], drawn, greedy))
    by_value, *_ = act(
        policy, hidden, seen, mask, jnp.ones((rows, 2, n)) * 0.99, start=start,
        explore=lambda said: EpsilonGreedy(said.outputs, said.mask, jnp.float32(0.5)),
    )  # fmt: skip
    np.testing.assert_array_equal(by_value, greedy)
