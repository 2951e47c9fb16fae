"""Operators against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coterie.learners.ppo import ratio_diagnostics
from coterie.ops.action_selection import (
    epsilon_greedy,
    greedy,
    mask_illegal,
    masked_max,
    random_action,
    sample,
)
from coterie.ops.losses import (
    clipped_surrogate,
    counterfactual_advantage,
    entropy,
    explained_variance,
    log_probabilities,
    masked_mean,
    normalise,
    one_step_target,
    policy_gradient,
    summed_mean,
)
from coterie.ops.running_statistics import Moments
from coterie.ops.updates import norm


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
    assert not jnp.isnan(jax.nn.softmax(mask_illegal(scores[:1], none[:1]))).any()
    assert not jnp.isnan(jax.grad(lambda s: masked_max(s, none).sum())(scores)).any()
    np.testing.assert_array_equal(greedy(scores, none), [0, 0])
    np.testing.assert_array_equal(random_action(jnp.array([0.0, 0.99]), none), [0, 0])
    np.testing.assert_array_equal(mask_illegal(SCORES, MASK)[2], SCORES[2])


def test_masked_scores_have_no_probability():
    p = jax.nn.softmax(mask_illegal(SCORES, MASK))
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
    """Of each agent; in its own units the rewards seen have mean 0 and deviation 1, or size 1."""
    rng = np.random.default_rng(0)
    moments, seen = Moments.empty(2), ([], [])
    for size in (1, 7, 1, 30):
        values = rng.normal([5.0, -900.0], [3.0, 0.5], (size, 2)).astype(np.float32)
        weight = rng.random((size, 2)) < 0.7
        for i in range(2):
            seen[i].append(values[weight[:, i], i])
        values[~weight] = 1e6
        moments = moments.update(jnp.asarray(values), jnp.asarray(weight))
    for i, own in enumerate(map(np.concatenate, seen)):
        assert moments.count[i] == own.size
        np.testing.assert_allclose(moments.mean[i], own.mean(), rtol=1e-5)
        np.testing.assert_allclose(moments.variance[i], own.var(), rtol=1e-3)
        both = jnp.broadcast_to(jnp.asarray(own)[:, None], (own.size, 2))
        standard = np.asarray(moments.standardise(both))[:, i]
        np.testing.assert_allclose([standard.mean(), standard.std()], [0.0, 1.0], atol=1e-3)
        scaled = np.asarray(moments.scale(both))[:, i]
        np.testing.assert_allclose(np.mean(scaled**2), 1.0, rtol=1e-5)
        np.testing.assert_allclose(scaled / own, scaled[0] / own[0], rtol=1e-5)
        assert scaled[0] / own[0] > 0


def test_a_common_reward_counts_once_in_the_steps_that_count_for_anyone():
    alive = jnp.array([[True, True], [True, False], [False, False]])
    rewards = jnp.array([[2.0, 2.0], [4.0, 4.0], [9.0, 9.0]])
    moments = Moments.empty(1).update(rewards, alive)
    assert [x.tolist() for x in jax.tree.leaves(moments)] == [[2.0], [3.0], [1.0]]


def test_moments_ignore_nothing_but_what_has_no_weight():
    moments = Moments.empty(1).update(jnp.array([[2.0], [4.0]]), jnp.ones((2, 1), bool))
    same = moments.update(jnp.array([[jnp.nan], [9.0]]), jnp.zeros((2, 1), bool))
    assert jax.tree.leaves(same) == jax.tree.leaves(moments) == [2.0, 3.0, 1.0]


@pytest.mark.parametrize("reward", [0.0, 3.0, -0.5, 1e-12, 1e15])
def test_constant_rewards_have_a_scale_and_no_deviation(reward):
    rewards = jnp.full((5, 1), reward, jnp.float32)
    moments = Moments.empty(1).update(rewards, jnp.ones((5, 1), bool))
    np.testing.assert_array_equal(moments.standardise(rewards), rewards)
    np.testing.assert_allclose(moments.scale(rewards), np.sign(rewards), rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-15, 1e-3, 1e4, 1e15])
def test_scaled_rewards_do_not_depend_on_the_unit_of_rewards(factor):
    rewards = np.random.default_rng(3).normal(-2.0, 1.0, (40, 2)).astype(np.float32)
    for alive in (np.ones((40, 2), bool), np.arange(80).reshape(40, 2) % 3 > 0):
        one, other = (
            Moments.empty(2).update(jnp.asarray(r), jnp.asarray(alive)).scale(jnp.asarray(r))
            for r in (rewards, np.float32(factor) * rewards)
        )
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_moments_go_on_after_float_counting_ends():
    full = jnp.full((1,), 2.0**24)
    after = Moments(full, jnp.zeros(1), jnp.ones(1)).update(
        jnp.full((2**10, 1), 100.0), jnp.ones((2**10, 1), bool)
    )
    assert after.count == 2**24
    np.testing.assert_allclose(after.mean, [100.0 * 2**10 / (2**24 + 2**10)], rtol=1e-3)


# Policies -------------------------------------------------------------------------------------

LARGEST = np.nextafter(np.float32(1), np.float32(0))
HALF_QUARTERS = jnp.log(jnp.array([2.0, 1.0, 1.0]))  # π = 1/2, 1/4, 1/4


def test_log_probabilities_by_hand():
    mask = jnp.array([[True] * 3, [True, False, True], [False] * 3])
    log_probs = log_probabilities(jnp.tile(HALF_QUARTERS, (3, 1)), mask)
    expected = [[1 / 2, 1 / 4, 1 / 4], [2 / 3, 0, 1 / 3], [1 / 2, 1 / 4, 1 / 4]]
    np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-6)
    assert np.isfinite(log_probs).all()


def test_entropy_by_hand_and_over_legal_actions_only():
    mask = jnp.array([[True] * 3, [False, True, True], [True, False, False], [False] * 3])
    scores = jnp.tile(HALF_QUARTERS, (4, 1)).at[1, 0].set(50.0)
    nats = entropy(log_probabilities(scores, mask), mask)
    np.testing.assert_allclose(nats, [1.5 * np.log(2), np.log(2), 0, 0], rtol=1e-6)


@pytest.mark.parametrize("mask", [[False] * 3, [False, True, False], [True] * 3])
@pytest.mark.parametrize("scores", [[1.0, -2.0, 3.0], [1e8, -1e8, 0.0]])
def test_no_mask_makes_a_gradient_that_is_not_finite(mask, scores):
    mask = jnp.array(mask)

    def total(s):
        log_probs = log_probabilities(s, mask)
        chosen = log_probs[jnp.argmax(mask)]
        advantage = counterfactual_advantage(s, log_probs, s[1])
        ratio = clipped_surrogate(chosen, chosen, advantage, 0.2)
        return entropy(log_probs, mask) + policy_gradient(chosen, advantage) + ratio

    value, grad = jax.value_and_grad(total)(jnp.array(scores))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    if mask.any():
        assert not grad[~mask].any(), "illegal actions are not learned about"


def test_the_score_gradient_is_that_of_a_softmax():
    """∇ −Adv log π(0) = −Adv (1 − π(0), −π(1), −π(2)): descending it raises what was good."""
    mask, advantage = jnp.ones(3, bool), jnp.float32(2.0)
    grad = jax.grad(lambda s: policy_gradient(log_probabilities(s, mask)[0], advantage))(
        HALF_QUARTERS
    )
    np.testing.assert_allclose(grad, [-1.0, 0.5, 0.5], rtol=1e-6)


def test_policy_gradient_by_hand():
    log_probs, advantages = jnp.array([-1.0, -2.0]), jnp.array([3.0, -0.5])
    np.testing.assert_allclose(policy_gradient(log_probs, advantages), [3.0, -1.0])
    by_advantage = jax.grad(lambda a: policy_gradient(log_probs, a).sum())(advantages)
    assert not by_advantage.any()


def test_clipped_surrogate_by_hand():
    """ρ = 1, 2, 1/2 at advantages of both signs, ε = 1/4; flat exactly where the clip binds."""
    ratios = jnp.array([1.0, 2.0, 0.5, 1.0, 2.0, 0.5])
    advantages = jnp.array([4.0, 4.0, 4.0, -4.0, -4.0, -4.0])
    behaviour = jnp.full(6, -0.7)

    def losses(log_probs, behaviour, advantages):
        return clipped_surrogate(log_probs, behaviour, advantages, 0.25)

    now = behaviour + jnp.log(ratios)
    np.testing.assert_allclose(losses(now, behaviour, advantages), [-4, -5, -2, 4, 8, 3], rtol=1e-6)
    total = lambda *x: losses(*x).sum()  # noqa: E731
    by_policy, by_advantage = jax.grad(total, (0, 2))(now, behaviour, advantages)
    np.testing.assert_allclose(by_policy, [-4, 0, -2, 4, 8, 0], rtol=1e-6)
    assert not by_advantage.any()


def test_where_nothing_changed_yet_the_clipped_surrogate_is_the_policy_gradient():
    mask, advantage = jnp.ones(3, bool), jnp.float32(-1.5)
    chosen = lambda s: log_probabilities(s, mask)[1]  # noqa: E731
    behaviour = chosen(HALF_QUARTERS)
    ours = jax.grad(lambda s: clipped_surrogate(chosen(s), behaviour, advantage, 0.2))
    plain = jax.grad(lambda s: policy_gradient(chosen(s), advantage))
    np.testing.assert_allclose(ours(HALF_QUARTERS), plain(HALF_QUARTERS), rtol=1e-6)


def test_counterfactual_advantages_by_hand():
    """Q = 8, 4, 0 under π = 1/2, 1/4, 1/4: the baseline is 5; action 1 illegal, it is 16/3."""
    values, mask = jnp.tile(jnp.array([8.0, 4.0, 0.0]), (2, 1)), jnp.array([[True] * 3] * 2)
    mask = mask.at[1, 1].set(False)
    log_probs = log_probabilities(jnp.tile(HALF_QUARTERS, (2, 1)), mask)
    for action, expected in ((0, [3.0, 8 / 3]), (2, [-5.0, -16 / 3])):
        advantages = counterfactual_advantage(values, log_probs, values[:, action])
        np.testing.assert_allclose(advantages, expected, rtol=1e-5)
    grads = jax.grad(
        lambda v, p: counterfactual_advantage(v, p, v[:, 0]).sum(), (0, 1)
    )(values, log_probs)  # fmt: skip
    assert not any(np.any(g) for g in grads)


def test_counterfactual_advantages_are_zero_on_average():
    """Σ_a π(a) Adv(a) = 0, whatever the values, the policy and the mask."""
    rng = np.random.default_rng(0)
    values, scores = jnp.asarray(rng.normal(size=(2, 50, 4)), jnp.float32)
    mask = jnp.asarray(rng.random((50, 4)) < 0.6).at[:, 2].set(True)
    log_probs = log_probabilities(scores, mask)
    advantages = jnp.stack(
        [counterfactual_advantage(values, log_probs, values[:, a]) for a in range(4)], -1
    )
    np.testing.assert_allclose((jnp.exp(log_probs) * advantages).sum(-1), 0, atol=1e-6)


def test_normalised_values_have_mean_0_and_deviation_1_for_each_agent():
    """Agent 0: 1, 3, 5 and a dead step. Agent 1: 7, 7 and two dead ones. Agent 2: all dead."""
    values = jnp.array([[[1.0, 7.0, 1.0], [3.0, 7.0, 2.0]], [[5.0, 1e6, 3.0], [1e6, -1e6, 4.0]]])
    weight = jnp.array([[[1, 1, 0], [1, 1, 0]], [[1, 0, 0], [0, 0, 0]]]) == 1
    normal = normalise(values, weight)
    spread = np.sqrt(8 / 3)
    np.testing.assert_allclose(normal[..., 0].ravel()[:3], np.array([-2, 0, 2]) / spread, rtol=1e-5)
    np.testing.assert_array_equal(normal[0, :, 1], [0.0, 0.0])
    assert np.isfinite(normal).all()


# Sampling -------------------------------------------------------------------------------------


def test_sampling_inverts_the_distribution_function():
    """π = 1/2, 1/4, 1/4: u below 1/2, 3/4 and 1; with action 1 illegal 2/3 and 1."""
    u = jnp.array([0.0, 0.49, 0.51, 0.74, 0.76, LARGEST])
    scores = jnp.tile(HALF_QUARTERS, (6, 1))
    np.testing.assert_array_equal(sample(scores, jnp.ones((6, 3), bool), u), [0, 0, 1, 1, 2, 2])
    masked = jnp.array([[True, False, True]] * 6)
    np.testing.assert_array_equal(
        sample(scores, masked, jnp.array([0.0, 0.66, 0.67, 0.9, 0.99, LARGEST])),
        [0, 0, 2, 2, 2, 2],
    )


def test_sampled_frequencies_are_the_probabilities():
    scores = jnp.array([0.3, -1.0, 2.0, 5.0, 0.0])
    mask = jnp.array([True, True, True, False, True])
    u = (jnp.arange(20_000) + 0.5) / 20_000
    chosen = sample(jnp.tile(scores, (20_000, 1)), jnp.tile(mask, (20_000, 1)), u)
    p = np.exp(np.where(mask, scores, -np.inf))
    np.testing.assert_allclose(np.bincount(chosen, minlength=5) / 20_000, p / p.sum(), atol=1e-4)


def test_no_draw_samples_an_illegal_action():
    """0, the largest float below 1, and every step of the distribution function on both sides."""
    rng = np.random.default_rng(1)
    for count in (2, 5, 1000):
        rows = 20_000 // count
        scores = (5 * rng.normal(size=(rows, count))).astype(np.float32)
        scores[0] = 0
        mask = rng.random((rows, count)) < 0.4
        mask[~mask.any(-1), rng.integers(count)] = True
        p = np.exp(scores) * mask
        steps = (np.cumsum(p, -1) / p.sum(-1, keepdims=True)).astype(np.float32)
        picks = rng.integers(0, count, 40)
        draws = [np.zeros(rows), np.full(rows, LARGEST), *steps[:, picks].T]
        draws += [np.nextafter(steps[:, k], np.float32(0)) for k in picks[:20]]
        u = jnp.asarray(np.minimum(np.stack(draws), LARGEST), jnp.float32)
        chosen = np.asarray(jax.jit(jax.vmap(lambda d, s=scores, m=mask: sample(
            jnp.asarray(s), jnp.asarray(m), d)))(u))  # fmt: skip
        assert np.take_along_axis(mask[None], chosen[..., None], -1).all()


@pytest.mark.parametrize("sums", ["as they are", "as a tree"])
def test_how_sums_are_rounded_never_makes_an_illegal_action_possible(monkeypatch, sums):
    """A parallel machine adds in another order, so that adding 0 may change the sum so far."""
    if sums == "as a tree":
        tree = lambda x, axis: jax.lax.associative_scan(jnp.add, x, axis=axis % x.ndim)  # noqa: E731
        monkeypatch.setattr(jnp, "cumsum", tree)
    rng = np.random.default_rng(2)
    scores = jnp.asarray(rng.normal(size=(60, 1000)), jnp.float32)
    mask = np.arange(1000) % 2 == rng.integers(0, 2, 60)[:, None]
    weights = jnp.where(mask, jax.nn.softmax(mask_illegal(scores, jnp.asarray(mask))), 0.0)
    so_far = np.asarray(jax.jit(lambda w: jnp.cumsum(w, axis=-1))(weights))
    # Draws between the sum before an illegal action and the sum after it, where they differ.
    rows, columns = np.nonzero((np.diff(so_far) > 0) & ~mask[:, 1:])
    assert sums == "as they are" or len(rows) > 10, "it happens"
    u = np.minimum(so_far[rows, columns] / so_far[rows, -1], LARGEST)
    chosen = jax.jit(sample)(scores[rows], jnp.asarray(mask[rows]), jnp.asarray(u))
    assert mask[rows, np.asarray(chosen)].all()


def test_a_row_without_legal_actions_samples_action_0():
    u = jnp.array([0.0, 0.5, LARGEST])
    chosen = sample(jnp.tile(HALF_QUARTERS, (3, 1)), jnp.zeros((3, 3), bool), u)
    np.testing.assert_array_equal(chosen, [0, 0, 0])


@pytest.mark.parametrize("only", [0, 1, 4])
def test_a_single_legal_action_is_always_taken(only):
    """Also where its score is so low that nothing else would take it."""
    scores = jnp.zeros((3, 5)).at[:, only].set(-1e4)
    chosen = sample(
        scores, jnp.zeros((3, 5), bool).at[:, only].set(True), jnp.array([0, 0.5, LARGEST])
    )
    np.testing.assert_array_equal(chosen, [only] * 3)


# Diagnostics ------------------------------------------------------------------------------------


def test_explained_variance_by_hand():
    """Of steps that count only; agents are averaged; 0 where targets do not vary."""
    targets = jnp.array([[[1.0, 5.0, 2.0]], [[3.0, 5.0, 4.0]], [[5.0, 5.0, 99.0]]])  # [3, 1, 3]
    values = jnp.array([[[1.0, 1.0, 3.0]], [[3.0, 2.0, 3.0]], [[2.0, 3.0, -99.0]]])
    counts = jnp.array([[[True, True, True]], [[True, True, True]], [[True, True, False]]])
    # Agent 1: Var(y) = 8/3, y - V = 0, 0, 3: Var = 2. Agent 3: V is a constant of the two steps.
    expected = (1 - 2 / (8 / 3) + 0 + 0) / 3
    np.testing.assert_allclose(explained_variance(targets, values, counts), expected, rtol=1e-6)
    np.testing.assert_allclose(explained_variance(targets, targets, counts), 2 / 3, rtol=1e-6)
    several = explained_variance({"q": targets, "v": targets}, {"q": targets, "v": values}, counts)
    np.testing.assert_allclose(several, (2 / 3 + expected) / 2, rtol=1e-6)
    each = jnp.stack([targets, targets], -1), jnp.stack([targets, values], -1)
    np.testing.assert_allclose(explained_variance(*each, counts), several, rtol=1e-6)
    none = jnp.zeros_like(counts)
    assert explained_variance(targets, values, none) == 0


def test_what_the_log_says_of_the_ratio_by_hand():
    """ρ = 2, 1, 1/2 and one step of a dead agent."""
    ratio = jnp.array([[[2.0, 1.0]], [[0.5, 1e9]]])
    alive = jnp.array([[[True, True]], [[True, False]]])
    found = ratio_diagnostics(jnp.log(ratio), jnp.zeros_like(ratio), alive, 0.2)
    each = [2 - 1 - np.log(2), 0, 0.5 - 1 - np.log(0.5)]
    np.testing.assert_allclose(found["kl"], np.mean(each), rtol=1e-6)
    np.testing.assert_allclose(found["clip_fraction"], 2 / 3, rtol=1e-6)


def test_norm_and_masked_mean_by_hand():
    assert norm({"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}) == 5
    assert masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])) == 2
    assert masked_mean(jnp.ones(3), jnp.zeros(3, bool)) == 0
