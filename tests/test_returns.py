"""Returns along a rollout: numbers worked out by hand, definitions written out, nothing leaks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coterie.ops.returns import gae, lambda_return, n_step_return, reward_to_go

NAN = np.nan
# Seven steps, γ = 1/2: an episode that terminates (0-2), one that is cut (3-4), one that outlasts
# the rollout (5-6) in column 0, terminates with it in column 1, is cut with it in column 2.
REWARDS = np.float32([1, 2, 4, 8, 16, 32, 64])
TERMINATED = np.zeros((7, 3), bool)
TERMINATED[2] = TERMINATED[6, 1] = True
ENDED = TERMINATED.copy()
ENDED[4] = ENDED[6, 2] = True
# What follows a terminal state must not even be looked at.
NEXT = np.repeat(np.float32([80, 40, NAN, 24, 48, 96, 192])[:, None], 3, 1)
NEXT[6, 1] = NAN


def per_column(rewards):
    return jnp.asarray(np.repeat(np.float32(rewards)[:, None], 3, 1))


def columns(same, last):
    """Steps 0-4 are alike in all columns; the last two steps differ."""
    return np.concatenate([np.repeat(np.float32(same)[:, None], 3, 1), np.float32(last)])


GIVEN = (per_column(REWARDS), jnp.asarray(NEXT), jnp.asarray(TERMINATED), jnp.asarray(ENDED), 0.5)


def test_reward_to_go_by_hand():
    """2 + 4/2 = 4, 1 + 4/2 = 3 | 8 + 16/2 = 16 | 32 + 64/2 = 64: no reward of a later episode."""
    expected = columns([3, 4, 4, 16, 16], [[64] * 3, [64] * 3])
    np.testing.assert_allclose(reward_to_go(GIVEN[0], GIVEN[3], 0.5), expected)


N_STEP = {
    # 1 + 80/2, 2 + 40/2, 4 | 8 + 24/2, 16 + 48/2 | 32 + 96/2; 64 + 192/2 or 64
    1: columns([41, 22, 4, 20, 40], [[80] * 3, [160, 64, 160]]),
    # 1 + 2/2 + 40/4, 2 + 4/2 | 8 + 16/2 + 48/4 | 32 + 64/2 + 192/4 or 32 + 64/2
    2: columns([12, 4, 4, 28, 40], [[112, 64, 112], [160, 64, 160]]),
    # 1 + 2/2 + 4/4; the others have no third step
    3: columns([3, 4, 4, 28, 40], [[112, 64, 112], [160, 64, 160]]),
}


@pytest.mark.parametrize(("n", "as_n"), [(1, 1), (2, 2), (3, 3), (7, 3), (50, 3)])
def test_n_step_returns_by_hand(n, as_n):
    np.testing.assert_allclose(n_step_return(*GIVEN, n), N_STEP[as_n])


LAMBDA = {
    0: N_STEP[1],
    1: N_STEP[3],
    # λ = 1/2, back to front: 4; 2 + (40 + 4)/4 = 13; 1 + (80 + 13)/4 = 24.25
    # | 40; 8 + (24 + 40)/4 = 24 | 160: 32 + (96 + 160)/4 = 96; 64: 32 + (96 + 64)/4 = 72
    0.5: columns([24.25, 13, 4, 24, 40], [[96, 72, 96], [160, 64, 160]]),
}


@pytest.mark.parametrize("lam", LAMBDA)
def test_lambda_returns_by_hand(lam):
    np.testing.assert_allclose(lambda_return(*GIVEN, lam), LAMBDA[lam])


@pytest.mark.parametrize("lam", LAMBDA)
def test_advantages_are_lambda_returns_minus_values(lam):
    values = per_column([7, 6, 5, 4, 3, 2, 1])
    actual = gae(GIVEN[0], values, *GIVEN[1:], lam)
    np.testing.assert_allclose(actual, LAMBDA[lam] - np.asarray(values))


# Definitions written out ----------------------------------------------------------------------


@functools.cache
def drawn():
    """Many columns [9, 40] of random rewards, values and ends."""
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 9, 40)).astype(np.float32)
    terminated = rng.random((9, 40)) < 0.15
    ended = terminated | (rng.random((9, 40)) < 0.15)
    # Where the episode goes on, the next value is that of the next step.
    goes_on = ~ended[:-1]
    next_values[:-1][goes_on] = values[1:][goes_on]
    return rewards, values, next_values, terminated, ended


def steps_after(t, b):
    """The steps from t up to the end of the episode, or of the rollout."""
    ended = drawn()[4]
    while True:
        yield t
        if ended[t, b] or t == len(ended) - 1:
            return
        t += 1


def written_out_n_step(t, b, n, gamma=0.9):
    rewards, _, next_values, terminated, _ = drawn()
    taken = list(steps_after(t, b))[:n]
    g = sum(gamma**k * rewards[s, b] for k, s in enumerate(taken))
    last = taken[-1]
    return g + (0 if terminated[last, b] else gamma ** len(taken) * next_values[last, b])


def given(gamma=0.9):
    rewards, _, next_values, terminated, ended = map(jnp.asarray, drawn())
    return rewards, next_values, terminated, ended, gamma


@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_n_step_returns_are_what_they_are_defined_as(n):
    expected = np.array([[written_out_n_step(t, b, n) for b in range(40)] for t in range(9)])
    np.testing.assert_allclose(n_step_return(*given(), n), expected, rtol=1e-5, atol=1e-5)


def test_lambda_returns_are_mixtures_of_n_step_returns():
    """(1 − λ) Σ_n λ^(n−1) G_n, the longest one having all the weight that is left."""
    lam, expected = 0.7, np.zeros((9, 40))
    for t, b in np.ndindex(9, 40):
        longest = len(list(steps_after(t, b)))
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, longest)] + [lam ** (longest - 1)]
        expected[t, b] = sum(
            w * written_out_n_step(t, b, n) for n, w in enumerate(weights, start=1)
        )
    np.testing.assert_allclose(lambda_return(*given(), lam), expected, rtol=1e-5, atol=1e-5)


def test_advantages_are_sums_of_temporal_differences():
    rewards, values, next_values, terminated, _ = drawn()
    delta = rewards + 0.9 * np.where(terminated, 0, next_values) - values
    expected = np.zeros((9, 40))
    for t, b in np.ndindex(9, 40):
        expected[t, b] = sum(
            (0.9 * 0.7) ** k * delta[s, b] for k, s in enumerate(steps_after(t, b))
        )
    ours, now = given(), jnp.asarray(values)
    actual = gae(ours[0], now, *ours[1:], 0.7)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


# Leaks ----------------------------------------------------------------------------------------

OPERATORS = {
    "reward_to_go": lambda r, v, term, end: reward_to_go(r, end, 0.9),
    "n_step": lambda r, v, term, end: n_step_return(r, v, term, end, 0.9, 4),
    "lambda": lambda r, v, term, end: lambda_return(r, v, term, end, 0.9, 0.8),
    "gae": lambda r, v, term, end: gae(r, jnp.zeros_like(r), v, term, end, 0.9, 0.8),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_nothing_leaks_over_an_end_in_either_direction(name, how):
    """Whatever comes after the end at step 2 (or before it, for the steps behind) is NaN."""
    operator = OPERATORS[name]
    end = jnp.arange(6) == 2
    terminated = end & (how == "terminated")
    for hidden, seen in ((slice(3, None), slice(0, 3)), (slice(0, 3), slice(3, None))):
        rewards, next_values = np.ones(6, np.float32), np.full(6, 2, np.float32)
        clean = operator(jnp.asarray(rewards), jnp.asarray(next_values), terminated, end)
        rewards[hidden] = next_values[hidden] = NAN
        dirty = operator(jnp.asarray(rewards), jnp.asarray(next_values), terminated, end)
        np.testing.assert_array_equal(clean[seen], dirty[seen])


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "reward_to_go"])
def test_a_terminal_cuts_the_bootstrap_and_a_truncation_does_not(name):
    rewards, end = jnp.array([1.0, 10.0, 0.0]), jnp.array([False, True, False])
    next_values = jnp.array([0.0, 100.0, 0.0])
    terminal = OPERATORS[name](rewards, next_values, end, end)
    cut = OPERATORS[name](rewards, next_values, jnp.zeros(3, bool), end)
    np.testing.assert_allclose(terminal[1], 10.0)
    np.testing.assert_allclose(cut[1], 10.0 + 90.0, rtol=1e-6)
    assert (terminal[0] > 1.0).all(), "the terminal reward counts before it"


def test_agents_end_by_themselves():
    """Agent 1 dies at step 1; agent 0 of the same environments goes on."""
    rewards, next_values = jnp.ones((4, 2, 2)), jnp.full((4, 2, 2), 8.0)
    died = jnp.zeros((4, 2, 2), bool).at[1, :, 1].set(True)
    got = lambda_return(rewards, next_values, died, died, 0.5, 1.0)
    np.testing.assert_allclose(got[:, 0, 0], [2.375, 2.75, 3.5, 5.0])
    np.testing.assert_allclose(got[:2, 0, 1], [1.5, 1.0])
    np.testing.assert_allclose(got[:, 0], got[:, 1])


@pytest.mark.parametrize("name", OPERATORS)
def test_returns_are_constants(name):
    no = jnp.zeros(4, bool)

    def total(r, v):
        return OPERATORS[name](r, v, no, no).sum()

    for grad in jax.grad(total, (0, 1))(jnp.ones(4), jnp.ones(4)):
        assert not grad.any()


def test_advantages_are_constants():
    no, ones = jnp.zeros(4, bool), jnp.ones(4)
    grads = jax.grad(lambda v: gae(ones, v, ones, no, no, 0.9, 0.8).sum())(ones)
    assert not grads.any()
