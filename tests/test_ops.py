"""Operators against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coterie.ops.exploration import (
    epsilon_greedy,
    greedy,
    mask_scores,
    masked_max,
    random_action,
)
from coterie.ops.losses import one_step_target, summed_mean
from coterie.ops.moments import Moments


def test_target_by_hand():
    y = one_step_target(
        jnp.array([1.0, 1.0, -2.0]),
        jnp.array([False, True, False]),
        jnp.array([10.0, 10.0, -4.0]),
        0.5,
    )
    np.testing.assert_allclose(y, [6.0, 1.0, -4.0])


def test_target_is_constant_and_ignores_what_follows_the_end():
    ended = jnp.array([True, False])

    def total(r, v):
        return one_step_target(r, ended, v, 0.9).sum()

    by_reward, by_value = jax.grad(total, (0, 1))(jnp.ones(2), jnp.ones(2))
    assert not by_reward.any()
    assert not by_value.any()
    assert one_step_target(jnp.ones(2), ended, jnp.array([jnp.nan, 1.0]), 0.9)[0] == 1.0


def test_loss_sums_over_agents_and_averages_over_the_batch():
    losses = jnp.array([[1.0, 10.0], [3.0, 20.0]])
    assert summed_mean(losses, jnp.ones((2, 2))) == 2.0 + 15.0
    assert summed_mean(losses, jnp.array([[1.0, 1.0], [1.0, 0.0]])) == 2.0 + 10.0
    assert summed_mean(losses, jnp.array([[1.0, 0.0], [1.0, 0.0]])) == 2.0
    assert summed_mean(losses, jnp.zeros((2, 2))) == 0.0
    assert summed_mean(losses[None], jnp.ones((1, 2, 2))) == 17.0


def test_steps_of_weight_zero_do_not_reach_loss_or_gradient():
    weight = jnp.array([[1.0, 0.0]])
    value, grad = jax.value_and_grad(summed_mean)(jnp.array([[2.0, jnp.inf]]), weight)
    assert value == 2.0
    np.testing.assert_array_equal(grad, [[1.0, 0.0]])


SCORES = jnp.array([[-5.0, 9.0, -7.0], [3.0, 3.0, 9.0], [4.0, 5.0, 6.0]])
MASK = jnp.array([[True, False, True], [True, True, False], [False, False, False]])


def test_illegal_actions_are_never_best():
    np.testing.assert_array_equal(greedy(SCORES, MASK), [0, 0, 0])
    np.testing.assert_array_equal(masked_max(SCORES, MASK), [-5.0, 3.0, 0.0])
    assert masked_max(jnp.array([-1e20, 0.0]), jnp.array([True, False])) == jnp.float32(-1e20)


def test_a_row_without_legal_actions_stays_finite():
    none = jnp.zeros((2, 3), bool)
    scores = jnp.array([[1.0, 2.0, 3.0], [-1.0, jnp.inf, 0.0]])
    assert not jnp.isnan(jax.nn.softmax(mask_scores(scores[:1], none[:1]))).any()
    assert not jnp.isnan(jax.grad(lambda s: masked_max(s, none).sum())(scores)).any()
    np.testing.assert_array_equal(greedy(scores, none), [0, 0])
    np.testing.assert_array_equal(random_action(jnp.array([0.0, 0.99]), none), [0, 0])
    np.testing.assert_array_equal(mask_scores(SCORES, MASK)[2], SCORES[2])


def test_masked_scores_have_no_probability():
    p = jax.nn.softmax(mask_scores(SCORES, MASK))
    assert not p[:2][~MASK[:2]].any()
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("legal", [[1, 3, 4], [0], [0, 1, 2, 3, 4], [4]])
def test_random_actions_are_uniform_over_the_legal_ones(legal):
    mask = jnp.zeros((600, 5), bool).at[:, jnp.array(legal)].set(True)
    chosen = random_action((jnp.arange(600) + 0.5) / 600, mask)
    counts = np.bincount(chosen, minlength=5)
    np.testing.assert_array_equal(counts[legal], 600 // len(legal))
    assert counts.sum() == counts[legal].sum()


@pytest.mark.parametrize("count", [1, 3, 5, 9, 100, 1000])
def test_the_largest_draw_selects_the_last_legal_action(count):
    largest = jnp.asarray(np.nextafter(np.float32(1), np.float32(0)))
    mask = jnp.arange(count + 1) < count
    assert random_action(largest, mask) == count - 1


def test_each_agent_tosses_its_own_coin():
    scores = jnp.tile(jnp.array([0.0, 1.0]), (2, 1))
    chosen = epsilon_greedy(
        scores, jnp.ones((2, 2), bool), jnp.float32(0.5), jnp.array([0.1, 0.9]), jnp.zeros(2)
    )
    np.testing.assert_array_equal(chosen, [0, 1])


def test_the_coin_stops_at_epsilon():
    scores = jnp.array([[0.0, 1.0]])
    all_legal, draw = jnp.ones((1, 2), bool), jnp.zeros(1)

    def chosen(epsilon, coin):
        return int(
            epsilon_greedy(scores, all_legal, jnp.float32(epsilon), jnp.array([coin]), draw)[0]
        )

    assert [chosen(0.0, 0.0), chosen(1.0, 0.999), chosen(0.3, 0.29), chosen(0.3, 0.31)] == [
        1, 0, 0, 1,
    ]  # fmt: skip


def test_moments_are_those_of_numpy():
    rng = np.random.default_rng(0)
    moments, seen = Moments.empty(), []
    for size in (1, 7, 1, 30):
        values = rng.normal(5.0, 3.0, (size, 2)).astype(np.float32)
        weight = rng.random((size, 2)) < 0.7
        seen.append(values[weight])
        values[~weight] = 1e6
        moments = moments.update(jnp.asarray(values), jnp.asarray(weight))
    everything = np.concatenate(seen)
    assert moments.count == everything.size
    np.testing.assert_allclose(moments.mean, everything.mean(), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, everything.var(), rtol=1e-5)
    standard = moments.standardise(jnp.asarray(everything))
    np.testing.assert_allclose([standard.mean(), standard.std()], [0.0, 1.0], atol=1e-5)


def test_moments_ignore_nothing_but_what_has_no_weight():
    moments = Moments.empty().update(jnp.array([2.0, 4.0]), jnp.ones(2, bool))
    same = moments.update(jnp.array([jnp.nan, 9.0]), jnp.zeros(2, bool))
    assert jax.tree.leaves(same) == jax.tree.leaves(moments) == [2.0, 3.0, 1.0]


def test_constant_rewards_are_left_as_they_are():
    moments = Moments.empty().update(jnp.full(5, 3.0), jnp.ones(5, bool))
    np.testing.assert_array_equal(moments.standardise(jnp.full(2, 3.0)), [3.0, 3.0])


def test_moments_go_on_after_float_counting_ends():
    moments = Moments(jnp.float32(2**24), jnp.float32(0.0), jnp.float32(1.0))
    after = moments.update(jnp.full(2**10, 100.0), jnp.ones(2**10, bool))
    assert after.count == 2**24
    np.testing.assert_allclose(after.mean, 100.0 * 2**10 / (2**24 + 2**10), rtol=1e-3)
