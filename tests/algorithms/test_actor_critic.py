"""What an actor-critic's update is made of, against NumPy: advantages, targets, loss, gradient."""

import dataclasses
import functools

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, clock_at, collector, game_for, quick, random_learner, small, spied

from coterie.algorithms import coma, make
from coterie.errors import UsageError
from coterie.learners.batches import Batch

N, COUNTS, A = 3, (2, 3, 4), 4
T, B = 6, 8
RNG = np.random.default_rng(3)
BEFORE = np.repeat(np.arange(8.0)[:, None], 3, axis=1)
"""Discounted rewards of the episodes that a rollout goes on with."""


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@functools.cache
def walked():
    """A rollout of recurrent agents that begins within episodes; everything happens in it."""
    algorithm = small("mappo", environments=B, rollout_steps=T, recurrent=True)
    game = game_for(algorithm, Walk())
    seen, *_ = collector(algorithm, game)(random_learner(algorithm, game).actor, [0.0, 0.0])
    r = jax.tree.map(lambda x: np.asarray(x)[0, 1], seen)
    over = r.terminated | r.truncated
    assert not r.start[0].all(), "episodes go on from the rollout before"
    for ending in (r.terminated[:-1], r.truncated[:-1], r.start[1:], over[-1], ~over[-1]):
        assert ending.any()
    dies = r.alive & ~r.next_alive
    assert (dies & ~over[..., None]).any()
    assert (~r.alive).any()
    return r


def rollout_for(algorithm, game):
    """The rollout as this algorithm's acting would have stored it."""
    z = slice(None if game.central_size else 0)
    return eqx.tree_at(
        lambda r: (r.hidden_state, r.central, r.next_central),
        walked(),
        replace_fn=lambda x: x[
            ..., z if x.ndim == 3 else slice(None if algorithm.recurrent else 0)
        ],
    )


def report(self, carry, batch, key, clock):
    """Instead of updates: what they would have seen."""
    targets = batch.targets if isinstance(batch.targets, dict) else {"y": batch.targets}
    seen = {k: v for k, v in vars(batch).items() if k not in ("targets", "aux")}
    return carry, seen | targets | (batch.aux or {})


# Advantages and targets -----------------------------------------------------------------------

CASES = {
    "ia2c": {},
    "ia2c n=3 recurrent": {"n_steps": 3, "recurrent": True, "reward_scaling": "scale"},
    "ia2c common": {"reward": "mean", "n_steps": 2, "reward_scaling": "standardise"},
    "maa2c gae recurrent shared": {"gae_lambda": 0.7, "recurrent": True, "sharing": "shared"},
    "maa2c target recurrent": {
        "target_tau": 0.1,
        "recurrent": True,
        "reward_scaling": "standardise",
    },
    "ippo": {"reward_scaling": "standardise"},
    "mappo grouped": {"groups": ("a,c",), "n_steps": 9, "gae_lambda": None},
    "coma": {"reward_scaling": "scale"},
    "coma n=2 recurrent": {"gae_lambda": None, "n_steps": 2, "recurrent": True, "reward": "mean"},
    "pac": {"n_steps": 2},
    "pac recurrent common": {"gae_lambda": 0.6, "n_steps": 1, "recurrent": True, "reward": "sum"},
    "pac one optimum": {"joint_optimum": True},
}


def inputs_by_hand(name, observations, central, actions):
    """o_i, z for central critics, and for COMA the others' actions one-hot."""
    seen = []
    for i in range(N):
        parts = [observations[:, :, i]]
        if name in ("maa2c", "mappo", "coma", "pac"):
            parts.append(central)
        if name == "coma":
            parts += [np.eye(A)[actions[:, :, j]] for j in range(N) if j != i]
        seen.append(np.concatenate(parts, -1))
    return np.stack(seen, 2)


def rewards_by_hand(algorithm, game, r):
    rewards = r.rewards.astype(np.float64)
    if game.reward != "individual":
        total = rewards.sum(-1) if game.reward == "sum" else rewards.sum(-1) / N
        rewards = np.stack([total] * N, -1)
    _, means, deviations = moments_by_hand(algorithm, game, rewards, r)
    if algorithm.reward_scaling == "standardise":
        return (rewards - means) / deviations
    if algorithm.reward_scaling == "scale":
        return rewards / np.sqrt(means**2 + deviations**2)
    return rewards


def moments_by_hand(algorithm, game, rewards, r):
    """Count, mean and deviation of each agent's rewards while it lives, or of the one of all.

    Where rewards are scaled, of their discounted sums so far, which go on from BEFORE.
    """
    if algorithm.reward_scaling == "scale":
        paid = counts_by_hand(game, r)
        sums, rewards = np.array(BEFORE), np.where(paid, rewards, 0.0)
        for t in range(T):
            sums = rewards[t] + algorithm.gamma * np.where(r.start[t][:, None], 0.0, sums)
            rewards[t] = sums
    if game.reward != "individual":
        seen = [rewards[..., 0].ravel()]
    else:
        seen = [rewards[..., i][r.alive[..., i]] for i in range(N)]
    return np.array([(len(own), own.mean(), own.std()) for own in seen]).T


def counts_by_hand(game, r):
    """Steps whose value is learned: under a common reward those of the dead as well."""
    return r.alive if game.reward == "individual" else np.ones_like(r.alive)


def best_of(values, mask, fixed=None):
    """(value, joint action) of the best legal joint action in which agent i does its part."""
    joints = by_hand.joint_actions(COUNTS)
    fits = [
        (values[k], joint)
        for k, joint in enumerate(joints)
        if by_hand.legal_joint(mask, joint) and (fixed is None or joint[fixed[0]] == fixed[1])
    ]
    return max(fits, key=lambda pair: pair[0])


def hoped_by_hand(algorithm, q, r):
    """PAC's max over a_-i at the action taken, or at the others' part of one optimum."""
    hoped, joints = np.zeros((T, B, N)), by_hand.joint_actions(COUNTS)
    for t, b, i in np.ndindex(T, B, N):
        mask, own = r.action_mask[t, b], r.actions[t, b, i]
        if algorithm.joint_optimum:
            _, best = best_of(q[t, b, r.alive[t, b]].mean(0), mask)
            chosen = tuple(own if j == i else a for j, a in enumerate(best))
            hoped[t, b, i] = q[t, b, i, joints.index(chosen)]
        else:
            hoped[t, b, i], _ = best_of(q[t, b, i], mask, (i, own))
    return hoped


def next_by_hand():
    """a': what was done next; where that is not shown, something legal of the test's choice."""
    r = walked()
    following = np.roll(r.actions, -1, 0)
    hidden = (r.terminated | r.truncated)[..., None] | (np.arange(T) == T - 1)[:, None, None]
    return np.where(hidden, r.next_action_mask.argmax(-1), following)


def estimate_by_hand(algorithm, game, learner, r):
    """Advantages, targets by name, and the critics' memory after the rollout."""
    name = algorithm.name
    hidden_state = np.asarray(learner.hidden_state)
    critic = by_hand.in_numpy(learner.critic)
    judge = critic if learner.target is None else by_hand.in_numpy(learner.target)
    see = inputs_by_hand(name, r.observations, r.central, r.actions)
    led_to = inputs_by_hand(name, r.next_observations, r.next_central, next_by_hand())
    out, hidden_states = by_hand.unroll(critic, hidden_state, see, r.start)
    _, judged = by_hand.unroll(judge, hidden_state, see, r.start)
    later = by_hand.after(judge, judged, led_to)
    if name == "coma":
        next_values = by_hand.take(later, next_by_hand())
    elif name == "pac":
        masks = r.next_action_mask
        next_values = np.array([best_of(later[w][:-1], masks[w[:2]])[0]
                                for w in np.ndindex(T, B, N)]).reshape(T, B, N)  # fmt: skip
    else:
        next_values = later[..., 0]
    gone = np.repeat(r.terminated[..., None], N, -1)
    if game.reward == "individual":
        gone |= ~r.next_alive
    y = by_hand.returns(
        rewards_by_hand(algorithm, game, r),
        next_values,
        gone,
        gone | r.truncated[..., None],
        algorithm.gamma,
        algorithm.n_steps,
        algorithm.gae_lambda,
    )
    if name == "coma":
        actor = by_hand.in_numpy(learner.actor)
        scores, _ = by_hand.unroll(actor, r.hidden_state[0], r.observations, r.start)
        p = np.exp(by_hand.log_policy(scores, r.action_mask))
        return by_hand.take(out, r.actions) - (p * out).sum(-1), {"y": y}, hidden_states[-1]
    if name == "pac":
        hoped = hoped_by_hand(algorithm, out[..., :-1], r)
        return hoped - out[..., -1], {"q": y, "v": hoped}, hidden_states[-1]
    return y - out[..., 0], {"y": y}, hidden_states[-1]


@pytest.mark.parametrize("case", CASES)
def test_advantages_and_targets_are_those_computed_by_hand(case, monkeypatch):
    settings = dict(CASES[case])
    reward = settings.pop("reward", None)
    algorithm = small(case.split()[0], environments=B, rollout_steps=T, gamma=0.9, **settings)
    game = game_for(algorithm, Walk(), reward)
    given = jnp.asarray(next_by_hand(), jnp.int32)
    monkeypatch.setattr(coma, "_next_actions", lambda *_: given)
    spy = spied(algorithm, _make_updates=report)
    learner = random_learner(algorithm, game)
    learner = dataclasses.replace(learner, hidden_state=normal(*learner.hidden_state.shape))
    if learner.so_far is not None:
        learner = dataclasses.replace(learner, so_far=jnp.asarray(BEFORE, jnp.float32))
    r = rollout_for(algorithm, game)
    learn = quick(lambda learner, r: spy.learn(game, learner, r, jax.random.key(0), {}))
    after, batch = learn(learner, r)
    advantages, targets, hidden_state = estimate_by_hand(spy, game, learner, r)
    living, counts = r.alive, counts_by_hand(game, r)
    if algorithm.normalise_advantages:
        for i in range(N):
            own = advantages[..., i][living[..., i]]
            advantages[..., i] = (advantages[..., i] - own.mean()) / own.std()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    close(np.asarray(batch["advantages"])[living], advantages[living])
    for word, y in targets.items():
        close(np.asarray(batch[word])[counts], y[counts], err_msg=word)
    close(after.hidden_state, hidden_state)
    inputs = inputs_by_hand(algorithm.name, r.observations, r.central, r.actions)
    np.testing.assert_array_equal(batch["critic_inputs"], inputs.astype(np.float32))
    raw = dataclasses.replace(algorithm, reward_scaling="none")
    paid = rewards_by_hand(raw, game, r)
    kept = [after.moments.count, after.moments.mean, jnp.sqrt(after.moments.variance)]
    close(kept, moments_by_hand(algorithm, game, paid, r))
    np.testing.assert_array_equal(batch["critic_hidden_state"][0], learner.hidden_state)
    np.testing.assert_array_equal(batch["hidden_state"][0], r.hidden_state[0])
    np.testing.assert_array_equal(batch["alive"], living)
    np.testing.assert_array_equal(batch["counts"], counts)
    np.testing.assert_array_equal(batch["start"], np.stack([r.start] * N, -1))
    if "joint_action" in batch:
        done = np.array(by_hand.joint_actions(COUNTS))[np.asarray(batch["joint_action"])]
        np.testing.assert_array_equal(done, r.actions)


def test_where_it_is_not_shown_the_next_action_is_drawn_from_the_policy():
    """A policy without doubt, so that what it draws is known; also for the dead and the masked."""
    algorithm = small("coma", environments=B, rollout_steps=T, recurrent=True)
    game, r = game_for(algorithm, Walk()), walked()
    learner = random_learner(algorithm, game)
    learner = dataclasses.replace(
        learner, actor=jax.tree.map(lambda x: 20 * x if x.ndim == 3 else x, learner.actor)
    )
    given = quick(coma._next_actions)(learner, r, jax.random.key(1))
    actor = by_hand.in_numpy(learner.actor)
    _, hidden_states = by_hand.unroll(actor, r.hidden_state[0], r.observations, r.start)
    log_probs = by_hand.log_policy(
        by_hand.after(actor, hidden_states, r.next_observations), r.next_action_mask
    )
    sure = log_probs.max(-1) > np.log(0.999)
    over = (r.terminated | r.truncated)[..., None]
    for t, b, i in np.ndindex(T, B, N):
        if t < T - 1 and not over[t, b]:
            assert given[t, b, i] == r.actions[t + 1, b, i]
        elif not r.next_alive[t, b, i]:
            assert given[t, b, i] == 0
        elif sure[t, b, i]:
            assert given[t, b, i] == log_probs[t, b, i].argmax()
        assert r.next_action_mask[t, b, i, given[t, b, i]] or not r.next_alive[t, b, i]
    assert (sure & over).sum() > 10


# The loss -------------------------------------------------------------------------------------


def batch_for(algorithm, game, steps=3, k=4):
    """A batch of random numbers with masks, starts and deaths; agent c is dead throughout."""
    mask = jnp.asarray(RNG.random((steps, k, N, A)) < 0.6).at[..., 1].set(True)
    mask = mask & (np.arange(A) < np.array(COUNTS)[:, None])
    alive = jnp.asarray(RNG.random((steps, k, N)) < 0.7).at[..., 2].set(False)
    counts = (alive | (RNG.random((steps, k, N)) < 0.5)).at[..., 2].set(False)
    mask = mask & alive[..., None]
    legal = np.asarray(mask)
    actions = np.array([RNG.choice(np.flatnonzero(m)) if m.any() else 0
                        for m in legal.reshape(-1, A)]).reshape(steps, k, N)  # fmt: skip
    inputs, outputs = algorithm.critic_size(game)
    targets, extra = normal(steps, k, N), ()
    if algorithm.name == "pac":
        joint = jnp.asarray(RNG.integers(0, outputs - 1, (steps, k)), jnp.int32)
        targets, extra = (
            {"q": normal(steps, k, N), "v": normal(steps, k, N)},
            {"joint_action": joint},
        )
    size = 8 if algorithm.recurrent else 0
    return Batch(
        hidden_state=normal(1, k, N, size),
        critic_hidden_state=normal(1, k, N, size),
        observations=normal(steps, k, N, 5),
        action_mask=mask,
        alive=alive,
        counts=counts,
        start=jnp.asarray(np.repeat(RNG.random((steps, k, 1)) < 0.3, N, -1)),
        actions=jnp.asarray(actions, jnp.int32),
        extras=-1.0 + 0.3 * normal(steps, k, N),
        critic_inputs=normal(steps, k, N, inputs),
        advantages=normal(steps, k, N),
        targets=targets,
        aux=extra,
    )


def loss_by_hand(algorithm, networks, b, weight):
    """Total, actor loss, critic loss and entropy."""
    scores, _ = by_hand.unroll(
        networks["actor"], b.hidden_state[0], b.observations, b.start[..., 0]
    )
    log_probs = by_hand.log_policy(scores, b.action_mask)
    chosen = by_hand.take(log_probs, b.actions)
    if hasattr(algorithm, "clip"):
        ratio = np.exp(chosen - b.extras)
        low, high = 1 - algorithm.clip, 1 + algorithm.clip
        each = -np.minimum(ratio * b.advantages, np.clip(ratio, low, high) * b.advantages)
    else:
        each = -b.advantages * chosen
    out, _ = by_hand.unroll(
        networks["critic"], b.critic_hidden_state[0], b.critic_inputs, b.start[..., 0]
    )
    if algorithm.name == "pac":
        q = by_hand.take(out, np.repeat(b.aux["joint_action"][..., None], N, -1))
        errors = (b.targets["q"] - q) ** 2 + (b.targets["v"] - out[..., -1]) ** 2
    else:
        said = by_hand.take(out, b.actions) if algorithm.name == "coma" else out[..., 0]
        errors = (b.targets - said) ** 2
    bonus = by_hand.entropy(log_probs, b.action_mask)
    actor, nats = (by_hand.mean_over_living(x, b.alive) for x in (each, bonus))
    critic = by_hand.mean_over_living(errors, b.counts)
    return actor - weight * nats + critic, actor, critic, nats


@pytest.mark.parametrize(
    ("name", "recurrent"),
    [("maa2c", True), ("ippo", False), ("coma", False), ("pac", True)],
)
def test_loss_and_gradient_are_those_computed_by_hand(name, recurrent):
    """Summed over agents; actors average over living steps, critics over all that count."""
    algorithm = small(name, recurrent=recurrent)
    game, weight = game_for(algorithm, Walk()), 0.3
    b = batch_for(algorithm, game)
    learner = random_learner(algorithm, game)
    networks = {"actor": learner.actor, "critic": learner.critic}
    loss = quick(jax.value_and_grad(algorithm.loss, has_aux=True))
    (total, metrics), grads = loss(networks, b, {"entropy": jnp.float32(weight)})
    exact, plain = (
        {k: by_hand.in_numpy(v) for k, v in networks.items()},
        jax.tree.map(np.asarray, b),
    )
    expected = loss_by_hand(algorithm, exact, plain, weight)
    words = ("actor_loss", "critic_loss", "entropy")
    np.testing.assert_allclose([total, *(metrics[w] for w in words)], expected, rtol=1e-4)

    leaves, tree = jax.tree.flatten(exact)
    slopes = jax.tree.leaves(grads)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        towards = [rng.normal(size=x.shape) for x in leaves]
        ends = [
            loss_by_hand(
                algorithm,
                jax.tree.unflatten(tree, [x + e * d for x, d in zip(leaves, towards, strict=True)]),
                plain,
                weight,
            )[0]
            for e in (1e-5, -1e-5)
        ]
        slope = sum(np.sum(g * d) for g, d in zip(slopes, towards, strict=True))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=2e-3)
    for g in slopes:
        assert not np.any(g[2]), "agent c was dead throughout"
        assert np.any(g[:2])

    dead, unseen = ~b.alive, ~b.counts
    strange = batch_for(algorithm, game)
    garbled = dataclasses.replace(
        b,
        advantages=jnp.where(dead, 1e6, b.advantages),
        targets=jax.tree.map(lambda y: jnp.where(unseen, -1e6, y) if y.ndim == 3 else y, b.targets),
        extras=jnp.where(dead, strange.extras, b.extras),
    )
    (again, _), garbled_grads = loss(networks, garbled, {"entropy": jnp.float32(weight)})
    assert again == total
    for g, other in zip(slopes, jax.tree.leaves(garbled_grads), strict=True):
        np.testing.assert_array_equal(g, other)


# Updates --------------------------------------------------------------------------------------


@functools.cache
def learner_of(name, **settings):
    """A learner of random numbers, and ``learn`` for it: (learner, i) -> iteration i's."""
    algorithm = small(name, environments=B, rollout_steps=T, **settings)
    game = game_for(algorithm, Walk())
    rollout = rollout_for(algorithm, game)
    learn = quick(functools.partial(algorithm.learn, game))

    def update(learner, i, rollout=rollout):
        return learn(learner, rollout, jax.random.key(i), clock_at(algorithm, i))

    return random_learner(algorithm, game), update


def same(one, other):
    pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_target_critics_are_copied_after_every_interval_exactly():
    learner, learn = learner_of("coma", target_interval=3)
    expected = learner.target
    for i in range(7):
        learner, metrics = learn(learner, i)
        expected = learner.critic if (i + 1) % 3 == 0 else expected
        assert same(learner.target, expected)
        assert same(learner.target, learner.critic) == ((i + 1) % 3 == 0)
        assert metrics["updates"] == 1


def test_targets_count_updates_and_not_rollouts():
    """Four updates a rollout, a copy after every sixth: inside 1 and 4, at the end of 2 and 5."""
    learner, learn = learner_of("ippo", target_interval=6)
    for i in range(6):
        before = learner.target
        learner, metrics = learn(learner, i)
        assert metrics["updates"] == 4
        assert same(learner.target, learner.critic) == (i in (2, 5))
        assert same(learner.target, before) == (i in (0, 3))
    assert small("ippo").updates(6) == 24


def test_targets_move_towards_the_critic_by_their_share():
    learner, learn = learner_of("pac", target_tau=0.1)
    after, _ = learn(learner, 0)
    assert not same(after.critic, learner.critic)
    expected = jax.tree.map(lambda t, c: 0.9 * t + 0.1 * c, learner.target, after.critic)
    for a, b in zip(*map(jax.tree.leaves, (after.target, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_actors_and_critics_have_their_own_rates_and_clips():
    """Adam's first step is the learning rate for every parameter; each network is clipped alone."""
    learner, learn = learner_of("pac", lr=1e-3, critic_lr=0.25, max_grad_norm=1e-2)
    after, _ = learn(learner, 0)
    for word, rate in (("actor", 1e-3), ("critic", 0.25)):
        gradient = jax.tree.leaves(after.optimiser.mu[word])
        pairs = zip(*(jax.tree.leaves(getattr(x, word)) for x in (learner, after)), strict=True)
        for (old, new), mu in zip(pairs, gradient, strict=True):
            learns = np.abs(mu) > 1e-6
            np.testing.assert_allclose(np.abs(new - old)[learns], rate, rtol=0.02)
        for i in range(N):
            norm = np.sqrt(sum(np.sum((np.asarray(mu[i]) / 0.1) ** 2) for mu in gradient))
            assert norm <= 1e-2 * 1.0001
            assert word == "actor" or norm > 0.999e-2
    assert after.optimiser.count == 1


def test_an_agents_reward_is_its_own_business():
    """In independent learning nothing of agent b's rewards reaches agents a and c."""
    learner, learn = learner_of("ia2c")
    r = rollout_for(small("ia2c"), game_for(small("ia2c"), Walk()))
    richer = eqx.tree_at(lambda r: r.rewards, r, r.rewards * np.float32([1, -5, 1]))
    one, other = (
        (after.actor, after.critic) for after, _ in (learn(learner, 0, x) for x in (r, richer))
    )
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    assert not same(one, other)


def test_every_minibatch_is_whole_and_every_environment_is_in_one_of_each_pass():
    """Each leaf carries its environment's number, so a leaf cut along another axis shows."""
    epochs, minibatches = 3, 4
    algorithm = small("mappo", environments=B, epochs=epochs, minibatches=minibatches)
    batch = batch_for(algorithm, game_for(algorithm, Walk()), steps=2, k=B)
    numbered = jax.tree.map(
        lambda x: jnp.broadcast_to(
            jnp.arange(B).reshape(1, B, *[1] * (x.ndim - 2)), x.shape
        ).astype(jnp.float32 if x.dtype == bool else x.dtype),
        batch,
    )  # fmt: skip

    def update(self, carry, part, clock, count):
        who = jnp.asarray(part.advantages[0, :, 0], jnp.int32)
        aligned = [jnp.all(jnp.moveaxis(x, 1, -1) == who) for x in jax.tree.leaves(part)]
        row = jnp.zeros((epochs * minibatches, B)).at[count - 1, who].add(1.0)
        return carry, {"who": row, "aligned": jnp.all(jnp.stack(aligned)).astype(float)}

    spy = spied(algorithm, update=update)
    untyped = jax.tree.unflatten(jax.tree.structure(batch), jax.tree.leaves(numbered))
    _, seen = quick(lambda k: spy._make_updates((), untyped, k, {}))(jax.random.key(4))
    assert seen["aligned"] == epochs * minibatches
    who = np.asarray(seen["who"])
    np.testing.assert_array_equal(who.sum(-1), B // minibatches)
    passes = who.reshape(epochs, minibatches, B).sum(1)
    np.testing.assert_array_equal(passes, 1)
    assert not np.array_equal(who[:minibatches], who[minibatches : 2 * minibatches]), "reshuffled"


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("pac", {"n_steps": 3, "gae_lambda": 0.9}, "n_steps 3 and gae_lambda 0.9.* leave n_steps"),
        ("coma", {"n_steps": 3}, "n_steps 3 and gae_lambda 0.8.* gae_lambda to None"),
        ("ippo", {"environments": 6, "minibatches": 4}, "4 must divide 6"),
        ("mappo", {"clip": 0.0}, "clip must be a number above 0"),
        ("ia2c", {"n_steps": 0}, "n_steps must be a whole number from 1"),
        ("ia2c", {"gae_lambda": 1.5}, "gae_lambda must be a number from 0 to 1"),
        ("maa2c", {"target_tau": 0.0}, "target_tau must be a number above 0"),
        ("maa2c", {"entropy": -0.1}, "entropy must be a number from 0"),
        ("reinforce", {"episode_steps": 0}, "episode_steps must be a whole number from 1"),
        ("pac", {"max_others": 0}, "max_others must be a whole number from 1"),
        ("ia2c", {"activation": "elu"}, "activation must be relu or tanh"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings, says):
    with pytest.raises(UsageError, match=says):
        make(name, **settings)
