"""The temporal-difference update of IDQN, VDN and QMIX, each property by itself."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import (
    Walk,
    clock_at,
    game_for,
    items_of,
    quick,
    random_learner,
    random_like,
    small,
)

from coterie.learners.experience import Experience
from coterie.policies.distributions import Categorical
from coterie.types import Transition
from coterie.views.game import Game, usable
from coterie.views.steps import learner_steps

NAMES = ["idqn", "vdn", "qmix"]
GAME = Game(Walk(), "state", "sum")
N, O, A, Z = 3, 5, 4, 2  # noqa: E741
RNG = np.random.default_rng(5)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def chance(p, *shape):
    return jnp.asarray(RNG.random(shape) < p)


def game(name):
    return game_for(small(name), Walk())


# The loss -------------------------------------------------------------------------------------

L, M, H = 5, 6, 8


def batch(name):
    """A minibatch [L, M, N, ·] with dead agents, masks, episodes that start and end."""
    own = name == "idqn"

    def each(x):
        return x if own else jnp.repeat(x[..., :1], N, -1)

    start = each(chance(0.3, M, L, N))
    alive = np.array(chance(0.75, M, L, N).at[0, 0].set(False))
    for t in range(1, L):
        alive[:, t] &= alive[:, t - 1] | start[:, t]
    alive = jnp.asarray(alive)
    observations = normal(M, L, N, O)
    # What follows is the next step's, but for final observations, of which there are two at most.
    new = jnp.concatenate([start[:, 1:], start[:, :1]], 1)
    final, parts = np.array(each(chance(0.4, M, L, N)) | new), (slice(0, 3), slice(3, 5))
    for part in parts:
        final[:, part] &= np.cumsum(final[:, part], 1) == 1
    cut = [np.where(x.any(1), x.argmax(1), L) for x in (final[:, part] for part in parts)]
    cut = np.stack([np.minimum(x + part.start, L) for x, part in zip(cut, parts, strict=True)], 1)
    onward = jnp.concatenate([observations[:, 1:], normal(M, 1, N, O)], 1)
    living = jnp.concatenate([alive[:, 1:], chance(0.7, M, 1, N)], 1)
    next_alive = alive & jnp.where(final | new, chance(0.75, M, L, N), living)
    terminated = each(chance(0.3, M, L, N)) | (new & ~final)
    items = {
        "hidden_state": normal(M, 1, N, H),
        "observations": observations,
        "alive": alive,
        "counts": alive if own else each(chance(0.8, M, L, N)),
        "start": start,
        "actions": jnp.asarray(RNG.integers(0, A, (M, L, N)), jnp.int32),
        "rewards": each(normal(M, L, N)),
        "terminated": terminated | ~next_alive if own else terminated,
        "next_observations": jnp.where(final[..., None], normal(M, L, N, O), onward),
        "next_action_mask": usable(chance(0.6, M, L, N, A).at[..., 1].set(True), next_alive),
        "next_alive": next_alive,
        "central": normal(M, L, 0 if own else Z),
        "next_central": normal(M, L, 0 if own else Z),
        "cut": jnp.asarray(cut, jnp.int32),
    }
    return Experience(**{name: jnp.moveaxis(x, 1, 0) for name, x in items.items()})


def after_next(utility, b):
    """Q at each next observation: the sequence so far, unrolled from its start, and one step."""
    each = []
    for t in range(L):
        obs = jnp.concatenate([b.observations[: t + 1], b.next_observations[t : t + 1]])
        start = jnp.concatenate([b.start[: t + 1], jnp.zeros((1, M, N), bool)])
        each.append(utility.unroll(b.hidden_state[0], obs, start)[0][-1])
    return jnp.stack(each)


def joint_value(name, values, q, z):
    if name == "idqn":
        return q
    return (q.sum(-1) if name == "vdn" else values.mixer(q, z))[..., None]


def by_hand(name, double_q, gamma, q_next, q_select, b, next_joint):
    """Targets y and weights, in loops over NumPy numbers."""
    b = jax.tree.map(np.asarray, b)
    best = np.zeros((L, M, N), np.float32)
    for where in np.ndindex(L, M, N):
        legal = np.flatnonzero(b.next_action_mask[where])
        if name == "idqn" or b.next_alive[where]:
            by = q_select[where] if double_q else q_next[where]
            best[where] = q_next[where][legal[np.argmax(by[legal])]]
    future = np.asarray(next_joint(jnp.asarray(best)))
    y, weight = np.zeros_like(future), np.zeros_like(future)
    for where in np.ndindex(*future.shape):
        y[where] = b.rewards[where] + (0 if b.terminated[where] else gamma * future[where])
        weight[where] = b.counts[where]
    return y, weight


@pytest.mark.parametrize("double_q", [False, True], ids=["", "double"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_those_computed_by_hand(name, double_q):
    """Aligned in time, masked, bootstrapped, weighted; only θ learns, and never from the dead."""
    algorithm = small(name, recurrent=True, double_q=double_q, gamma=0.9, sequence_length=L)
    learner, b = random_learner(algorithm, game(name)), batch(name)
    values, target = learner.values, learner.target
    q_next, q_select = quick(lambda v, t: (after_next(t, b), after_next(v, b)))(
        values.utility, target.utility
    )
    next_joint = quick(lambda best: joint_value(name, target, best, b.next_central))
    y, weight = by_hand(
        name, double_q, 0.9, np.asarray(q_next), np.asarray(q_select), b, next_joint
    )

    def learned(values):
        q, _ = values.utility.unroll(b.hidden_state[0], b.observations, b.start)
        chosen = jnp.take_along_axis(q, b.actions[..., None], -1)[..., 0]
        if name != "idqn":
            chosen = chosen * b.alive
        return joint_value(name, values, chosen, b.central)

    def expected(values):
        error = (y - learned(values)) ** 2
        return (jnp.sum(error * weight, (0, 1)) / weight.sum((0, 1))).sum()

    actual = quick(jax.value_and_grad(algorithm.loss, (0, 1), has_aux=True))
    (loss, said), (grads, target_grads) = actual(values, target, b)
    right, right_grads = quick(jax.value_and_grad(expected))(values)
    np.testing.assert_allclose(loss, right, rtol=1e-4)
    q = np.asarray(quick(learned)(values))
    counted = np.broadcast_to(weight > 0, q.shape)
    np.testing.assert_allclose(said["q_mean"], q[counted].mean(), rtol=1e-4)
    np.testing.assert_allclose(said["td_error"], np.abs(y - q)[counted].mean(), rtol=1e-4)
    for one, other in zip(*map(jax.tree.leaves, (grads, right_grads)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert not any(np.any(g) for g in jax.tree.leaves(target_grads)), "y is a constant"

    noise, dead = batch(name), ~b.alive
    rewards = jnp.where(b.counts, b.rewards, 1e3)
    unseen = b.terminated if name == "idqn" else ~b.next_alive
    garbled = eqx.tree_at(
        lambda e: (e.observations, e.actions, e.next_observations, e.rewards),
        b,
        (
            jnp.where(dead[..., None], 100 * noise.observations, b.observations),
            jnp.where(dead, noise.actions, b.actions),
            jnp.where(unseen[..., None], 100 * noise.next_observations, b.next_observations),
            rewards,
        ),
    )
    (again, _), (garbled_grads, _) = actual(values, target, garbled)
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (grads, garbled_grads)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_target_bootstraps_where_the_time_limit_cut():
    """A truncated step is stored as not terminated, with its final observation and z'."""
    algorithm = small("qmix", recurrent=True, sequence_length=2)
    steps, k = 4, 3
    code = 10.0 * jnp.arange(steps)[:, None] + jnp.arange(k)

    def full(*shape, plus=0.0):
        return jnp.broadcast_to(code[..., *([None] * len(shape))] + plus, (steps, k, *shape))

    cut = code == 11.0
    rollout = Transition(
        observations=full(N, O),
        action_mask=full(N, A) > -1,
        alive=full(N) > -1,
        central=full(Z, plus=0.25),
        hidden_state=full(N, H, plus=0.5),
        start=code == 21.0,
        actions=full(N).astype(jnp.int32),
        extras=(),
        rewards=full(N, plus=0.75),
        terminated=code == 32.0,
        truncated=cut,
        next_observations=full(N, O, plus=100.0),
        next_action_mask=full(N, A) > -1,
        next_alive=full(N) > 10,
        next_central=full(Z, plus=100.25),
    )
    taken = dataclasses.replace(learner_steps(rollout, GAME), rewards=rollout.rewards)
    e = jax.tree.map(np.asarray, items_of(algorithm, GAME, rollout, taken))
    codes = np.array([[0, 10], [1, 11], [2, 12], [20, 30], [21, 31], [22, 32]], float).T
    final = (codes == 11) | (codes >= 30)  # cut, or the newest
    following = np.where(final, codes + 100, codes + 10)
    np.testing.assert_array_equal(e.observations[..., 0, 0], codes)
    np.testing.assert_array_equal(e.actions[..., 1], codes)
    np.testing.assert_array_equal(e.rewards[..., 2], codes + 0.75)
    np.testing.assert_array_equal(e.central[..., 1], codes + 0.25)
    np.testing.assert_array_equal(e.next_central[..., 0], following + 0.25)
    np.testing.assert_array_equal(e.next_observations[..., 2, 4], following)
    np.testing.assert_array_equal(e.next_alive[..., 0], ~final | (codes > 10))
    np.testing.assert_array_equal(e.cut[..., 1], [[2, 1, 2, 2, 2, 2]])
    np.testing.assert_array_equal(e.hidden_state[:, :, 1, 0], codes[:1] + 0.5)
    np.testing.assert_array_equal(e.terminated[..., 0], codes == 32)
    np.testing.assert_array_equal(e.start[..., 2], codes == 21)


# One update -----------------------------------------------------------------------------------

SETTINGS = {
    "batch_size": 2,
    "environments": 8,
    "update_ratio": 1 / 8,
    "learning_starts": 0,
    "target_interval": 3,
    "max_grad_norm": 0.01,
    "sharing": "own",
}


@functools.cache
def learner_of(name, **changes):
    algorithm = small(name, **(SETTINGS | changes))
    g = game(name)
    learn = quick(lambda learner, rollout, key, clock: algorithm.learn(
        g, learner, rollout, key, clock
    ))  # fmt: skip
    return algorithm, random_learner(algorithm, g), learn


def rollout_of(name, seed=0, steps=1, k=8):
    """A rollout [T, B] of random numbers in which everybody lives."""
    g = game(name)
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return jnp.asarray(rng.normal(size=(steps, k, *shape)), jnp.float32)

    alive = jnp.ones((steps, k, N), bool)
    return Transition(
        observations=numbers(N, O),
        action_mask=jnp.ones((steps, k, N, A), bool),
        alive=alive,
        central=numbers(g.central_size),
        hidden_state=numbers(N, 0),
        start=jnp.zeros((steps, k), bool),
        actions=jnp.asarray(rng.integers(0, 2, (steps, k, N)), jnp.int32),
        extras=(),
        rewards=numbers(N),
        terminated=jnp.zeros((steps, k), bool),
        truncated=jnp.zeros((steps, k), bool),
        next_observations=numbers(N, O),
        next_action_mask=jnp.ones((steps, k, N, A), bool),
        next_alive=alive,
        next_central=numbers(g.central_size),
    )


def keys(count):
    return list(jax.random.split(jax.random.key(0), count))


def equal(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_copied_after_every_interval_exactly(name):
    """Utilities and mixer alike."""
    algorithm, learner, learn = learner_of(name)
    initial, copied = learner.target, None
    for update, key in enumerate(keys(7), start=1):
        clock = clock_at(algorithm, update - 1)
        learner, metrics = learn(learner, rollout_of(name, update), key, clock)
        assert metrics["updates"] == 1
        if update % 3 == 0:
            copied = learner.values
        assert equal(learner.target, initial if copied is None else copied)
        assert not equal(learner.target, learner.values) or update % 3 == 0
    assert learner.optimiser[0].count == 7


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_is_clipped(name):
    """Gradients are clipped together where the loss is joint, each agent's alone otherwise."""
    algorithm, learner, learn = learner_of(name)
    after, _ = learn(learner, rollout_of(name), keys(1)[0], clock_at(algorithm, 0))
    for old, new in zip(*map(jax.tree.leaves, (learner.values, after.values)), strict=True):
        assert not np.array_equal(old, new)
    leaves = [np.asarray(mu) / 0.1 for mu in jax.tree.leaves(after.optimiser[0].mu)]
    if name == "idqn":
        for i in range(N):
            norm = np.sqrt(sum(np.sum(g[i] ** 2) for g in leaves))
            np.testing.assert_allclose(norm, 0.01, rtol=1e-4)
    else:
        np.testing.assert_allclose(np.sqrt(sum(np.sum(g**2) for g in leaves)), 0.01, rtol=1e-4)


def test_independent_learners_do_not_touch_each_other():
    algorithm, learner, learn = learner_of("idqn")
    rollout = rollout_of("idqn")
    rich = dataclasses.replace(rollout, rewards=rollout.rewards * jnp.array([1.0, 1e4, 1.0]))
    one, two = (
        learn(learner, r, keys(1)[0], clock_at(algorithm, 0))[0].values.utility.networks
        for r in (rollout, rich)
    )
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    assert not equal(one, two)


@pytest.mark.parametrize("name", ["idqn", "vdn"])
def test_independent_learners_sample_their_own_minibatch(name):
    """Agents alike in all but the minibatch learn alike exactly when it is a joint one."""
    algorithm, learner, learn = learner_of(name)
    twins = jax.tree.map(lambda p: jnp.stack([p[0]] * N), (learner.values, learner.target))
    learner = dataclasses.replace(learner, values=twins[0], target=twins[1])
    r = rollout_of(name)
    same = {
        field: jnp.repeat(getattr(r, field)[:, :, :1], N, 2)
        for field in ("observations", "actions", "rewards", "next_observations")
    }
    after, _ = learn(learner, dataclasses.replace(r, **same), keys(1)[0], clock_at(algorithm, 0))
    weight = np.asarray(after.optimiser[0].mu.utility.networks.body.layers[0].weight)
    if name == "vdn":
        np.testing.assert_allclose(weight[0], weight[1], rtol=1e-4, atol=1e-8)
    else:
        assert not np.allclose(weight[0], weight[1], rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_was_written_is_sampled(name):
    algorithm, learner, learn = learner_of(name)
    empty = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, learner.replay
    )
    learner = dataclasses.replace(learner, replay=empty)
    for i, key in enumerate(keys(3)):
        learner, metrics = learn(learner, rollout_of(name, i), key, clock_at(algorithm, i))
        assert np.isfinite(metrics["loss"])


def test_teams_are_paid_the_sum_each():
    _, learner, learn = learner_of("vdn")
    rollout = rollout_of("vdn")
    after, _ = learn(learner, rollout, keys(1)[0], clock_at(small("vdn", **SETTINGS), 0))
    total = np.asarray(rollout.rewards).sum(-1)[0]
    kept = after.replay.stored.rewards[0]
    np.testing.assert_allclose(kept, np.stack([total] * N, -1), rtol=1e-5)


def test_nothing_is_learned_before_learning_starts():
    algorithm, learner, learn = learner_of("qmix")
    clock = clock_at(small("qmix", **(SETTINGS | {"learning_starts": 17})), 1)
    after, metrics = learn(learner, rollout_of("qmix"), keys(1)[0], clock)
    assert metrics["updates"] == metrics["loss"] == after.optimiser[0].count == 0
    assert equal(after.values, learner.values)
    assert equal(after.target, learner.target)
    del algorithm


def constant_rollout(name):
    """Every transition is the same, so that minibatches do not matter."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[:1, :1], x.shape), rollout_of(name))


def test_targets_count_updates_and_not_rollouts():
    """Ten updates by one and by five at a time, the target copied after every third."""
    results = []
    for changes, rollouts in (({}, 10), ({"update_ratio": 5 / 8}, 2)):
        algorithm, learner, learn = learner_of("qmix", **changes)
        for i, key in enumerate(keys(rollouts)):
            learner, _ = learn(learner, constant_rollout("qmix"), key, clock_at(algorithm, i))
        results.append(learner)
    for a, b in zip(*(jax.tree.leaves((r.values, r.target)) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_every_update_draws_its_own_minibatch():
    """Five updates from pairs of items that light one input each: more inputs than two learn."""
    algorithm, learner, learn = learner_of("qmix", update_ratio=5 / 8)
    rollout = rollout_of("qmix")
    lit = jnp.broadcast_to(jnp.eye(8, O)[:, None], (1, 8, N, O)).at[0, 5:, :, 0].set(1.0)
    rollout = dataclasses.replace(rollout, observations=lit)
    after, _ = learn(learner, rollout, keys(1)[0], clock_at(algorithm, 0))
    moved = np.asarray(after.optimiser[0].mu.utility.networks.body.layers[0].weight)
    assert np.any(moved, axis=(0, 2)).sum() > 2


def test_soft_targets_follow_at_every_update():
    algorithm, learner, learn = learner_of("qmix", target_tau=0.25)
    for i, key in enumerate(keys(2)):
        after, _ = learn(learner, rollout_of("qmix", i), key, clock_at(algorithm, i))
        expected = jax.tree.map(lambda t, v: 0.75 * t + 0.25 * v, learner.target, after.values)
        for a, b in zip(*map(jax.tree.leaves, (after.target, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        learner = after


def test_standardised_rewards_are_invariant_and_count_the_living():
    algorithm, learner, learn = learner_of("idqn", reward_scaling="standardise")
    rollout = rollout_of("idqn")
    alive = rollout.alive.at[0, :3, 1].set(False)
    rewards = jnp.where(alive, rollout.rewards, 1e6)
    rollout = dataclasses.replace(rollout, alive=alive, rewards=rewards)
    after, one = learn(learner, rollout, keys(1)[0], clock_at(algorithm, 0))
    seen = [np.asarray(rewards[..., i])[np.asarray(alive[..., i])] for i in range(N)]
    kept = [after.moments.count, after.moments.mean, after.moments.variance]
    right = np.array([(len(own), own.mean(), own.var()) for own in seen]).T
    np.testing.assert_allclose(kept, right, rtol=1e-4, atol=1e-5)
    again = dataclasses.replace(rollout, rewards=10 * rewards + 7)
    _, other = learn(learner, again, keys(1)[0], clock_at(algorithm, 0))
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)
    twice, _ = learn(after, rollout, keys(1)[0], clock_at(algorithm, 1))
    np.testing.assert_array_equal(twice.moments.count, [2 * len(own) for own in seen])


# Exploration and time --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_agent_explores_by_itself_and_uniformly(name):
    algorithm, trials, epsilon = small(name), 10_000, 0.4
    scores = jnp.asarray(np.tile(np.float32([1, 0, 0, 0]), (trials, N, 1)))
    mask = jnp.asarray(np.arange(A) < np.array([4, 4, 3])[:, None])

    @quick
    def act(key, scores):
        noise = algorithm.noise(key, GAME, (1, trials))
        clock = {"epsilon": jnp.float32(epsilon)}
        first = jax.tree.map(lambda x: x[0], noise)
        policy = algorithm.behaviour(
            Categorical(scores, jnp.broadcast_to(mask, scores.shape)), clock
        )
        return policy.sample(first)

    chosen = np.asarray(act(jax.random.key(0), scores))
    for i, legal in enumerate((4, 4, 3)):
        rates = np.bincount(chosen[:, i], minlength=A) / trials
        expected = np.zeros(A)
        expected[:legal] = epsilon / legal
        expected[0] += 1 - epsilon
        np.testing.assert_allclose(rates, expected, atol=0.02)
    off = chosen != 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = (off[:, i] & off[:, j]).mean()
        np.testing.assert_allclose(both, off[:, i].mean() * off[:, j].mean(), atol=0.015)


@pytest.mark.parametrize("k", [1, 4, 10, 48])
@pytest.mark.parametrize("recurrent", [False, True])
def test_updates_per_step_do_not_depend_on_the_number_of_environments(k, recurrent):
    algorithm = small(
        "vdn", environments=k, update_ratio=1 / 16, learning_starts=0, buffer_size=10_000,
        recurrent=recurrent, sequence_length=6,
    )  # fmt: skip
    steps, environments = algorithm.rollout_shape()
    assert environments == k
    assert algorithm.schedules(np.arange(20))["updates"].sum() * 16 == 20 * steps * k
    assert algorithm.updates(20) * 16 == 20 * steps * k
    assert steps % (6 if recurrent else 1) == 0


def test_the_first_update_comes_when_learning_starts():
    algorithm = small("vdn", environments=4, update_ratio=1 / 2, learning_starts=17)
    due = algorithm.schedules(np.arange(8))["updates"]
    np.testing.assert_array_equal(due, [0, 0, 0, 0, 2, 2, 2, 2])
    assert [algorithm.updates(i) for i in range(8)] == [0, 0, 0, 0, 0, 2, 4, 6]


def test_time_goes_on_beyond_32_bits():
    """The same as with Python's integers, which have no end."""
    algorithm = small(
        "qmix", environments=10, update_ratio=1 / 16, learning_starts=1000, buffer_size=800,
        target_interval=7, epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=2**36,
    )  # fmt: skip
    per_rollout, updates = 80, 5
    assert algorithm.rollout_shape() == (8, 10)
    for first in (0, 2**32 // per_rollout - 2, 2**31 // updates - 2, 2**35):
        clock = algorithm.schedules(first + np.arange(5, dtype=np.int64))
        for j in range(5):
            i = first + j
            assert clock["slot"][j] == i * per_rollout % 800
            assert clock["stored"][j] == min((i + 1) * per_rollout, 800)
            done = max(i - 12, 0) * updates
            assert clock["since_copy"][j] == done % 7
            assert algorithm.updates(i) == done
            epsilon = 1 - min(i * per_rollout / 2**36, 1.0)
            np.testing.assert_allclose(clock["epsilon"][j], epsilon, rtol=1e-6)
        assert all(v.dtype in (np.int32, np.float32) for v in clock.values())


def test_epsilon_falls_linearly_and_stays():
    algorithm = small(
        "idqn", environments=5, update_ratio=1 / 5, epsilon_start=0.8, epsilon_end=0.2,
        epsilon_steps=20,
    )  # fmt: skip
    epsilon = algorithm.schedules(np.arange(7))["epsilon"]
    np.testing.assert_allclose(epsilon, [0.8, 0.65, 0.5, 0.35, 0.2, 0.2, 0.2], rtol=1e-6)
    open_ended = dataclasses.replace(algorithm, epsilon_steps=None)
    assert open_ended.resolve(1000).epsilon_steps in range(1, 1001)
    given = dataclasses.replace(algorithm, target_interval=200)
    assert given.resolve(1000) == given


def test_mixers_are_part_of_what_is_trained():
    learner = random_learner(small("qmix"), game("qmix"))
    shapes = [x.shape for x in jax.tree.leaves(learner.values.mixer)]
    assert shapes
    assert [x.shape for x in jax.tree.leaves(learner.target.mixer)] == shapes
    assert [x.shape for x in jax.tree.leaves(learner.optimiser[0].mu.mixer)] == shapes
    assert random_like(learner.values.mixer) is not None
