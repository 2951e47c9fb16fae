"""What policy gradients promise: the theorem, acting, first ratios, whole episodes, enumeration."""

import dataclasses
import functools
import itertools
import math

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import (
    NAMES,
    Probes,
    Walk,
    clock_at,
    collector,
    game_for,
    quick,
    quick_program,
    random_learner,
    small,
    spied,
    train,
)

import coterie
from coterie.algorithms.pac import max_over_others, with_joint_optimum
from coterie.envs.base import Environment
from coterie.errors import UsageError
from coterie.learners.actor_critic import Learner
from coterie.networks.per_agent import PerAgent
from coterie.ops.running_statistics import Moments
from coterie.policies.distributions import Categorical
from coterie.spec import EnvSpec
from coterie.storage.tree_files import read_tree, write_tree
from coterie.types import TimeStep, Transition
from coterie.views.joint_actions import JointView

STOCHASTIC = ["reinforce", "ia2c", "maa2c", "ippo", "mappo", "coma", "pac", "central_a2c"]

# The policy-gradient theorem ------------------------------------------------------------------

COUNTS, JOINT = (3, 2), [(a, b) for a in range(3) for b in range(2)]
PATHS = np.array(list(itertools.product(JOINT, JOINT)))  # [36, T = 2, N]
END = 3


class Fork(Environment):
    """Two rounds: the first joint action decides which of two games is played in the second.

    Agent left knows the state, agent right only the round unless ``full``; z is the state.
    """

    agents = ("left", "right")
    pay = np.random.default_rng(8).normal(size=(3, 6, 2)).astype(np.float32)
    pay = np.concatenate([pay, np.full((1, 6, 2), 1e3, np.float32)])

    def __init__(self, full):
        self.full = full

    def spec(self):
        return EnvSpec(self.agents, (3, 3), COUNTS, central_size=4, time_limit=2)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._show(jnp.zeros((), jnp.int32), jnp.zeros(2))

    def step(self, key, state, actions):
        rewards = jnp.asarray(self.pay)[state, actions[0] * 2 + actions[1]]
        after = jnp.where(state == 0, 1 + (actions[0] + actions[1]) % 2, END)
        return after, self._show(after, rewards)

    def _show(self, state, rewards):
        known = jax.nn.one_hot(state, 3)
        right = known if self.full else jax.nn.one_hot(jnp.minimum(state, 1), 3)
        return TimeStep(
            observations=jnp.stack([known, right]),
            rewards=rewards,
            terminated=state == END,
            truncated=jnp.zeros((), bool),
            central=jax.nn.one_hot(state, 4),
        )


class Known(PerAgent):
    """A critic that looks the answer up by what it is shown, and by nothing else.

    ``answers`` are [N, state, the other's action, ·]; what follows the end is nonsense.
    """

    answers: jax.Array
    central: bool = eqx.field(static=True)

    def __init__(self, answers, central):
        self.answers, self.central = jnp.asarray(answers, jnp.float32), central
        self.networks, self.index, self.identify = None, (0, 1), (False, False)
        self.log_std = self.vectors = self.statistics = None

    def unroll(self, hidden_state, observations, start):
        state = jnp.argmax(observations[..., 3:7] if self.central else observations[..., :3], -1)
        other = observations[..., 7:]
        other = jnp.argmax(other, -1) if other.shape[-1] else jnp.zeros_like(state)
        agent = jnp.broadcast_to(jnp.arange(2), state.shape)
        return self.answers[agent, state, other], jnp.zeros((*state.shape, 0))


@functools.cache
def all_paths(full):
    """Every course an episode of ``Fork`` can take, as one rollout [T = 2, B = 36]."""
    game = game_for(small("maa2c"), Fork(full))

    def play(path):
        def step(carry, actions):
            state, seen = carry
            state, led_to = game.step(jax.random.key(0), state, actions)
            return (state, led_to), (seen, led_to)

        return jax.lax.scan(step, game.reset(jax.random.key(0)), path)[1]

    seen, led_to = quick(jax.vmap(play, out_axes=1))(jnp.asarray(PATHS, jnp.int32))
    return Transition(
        observations=seen.observations,
        action_mask=seen.action_mask,
        alive=seen.alive,
        central=seen.central,
        hidden_state=jnp.zeros((2, 36, 2, 0)),
        start=jnp.array([[True], [False]]) & jnp.ones((1, 36), bool),
        actions=jnp.asarray(PATHS.swapaxes(0, 1), jnp.int32),
        extras=(),
        rewards=led_to.rewards,
        terminated=led_to.terminated,
        truncated=led_to.truncated,
        next_observations=led_to.observations,
        next_action_mask=led_to.action_mask,
        next_alive=led_to.alive,
        next_central=led_to.central,
    )


@functools.cache
def truth(full, reward):
    """Of a random policy: actors, P(path), ∇ E[return of agent i] w.r.t. actor i, V and Q exactly.

    Nothing here is known to the algorithms: returns are differentiated through every path.
    """
    algorithm = small("maa2c")
    paths, actor = all_paths(full), random_learner(algorithm, game_for(algorithm, Fork(full))).actor
    pay = np.asarray(Fork.pay, np.float64)
    if reward != "individual":
        pay = np.repeat(pay.sum(-1, keepdims=True) / (1 if reward == "sum" else 2), 2, -1)
    states = np.array([[0, 1 + sum(path[0]) % 2] for path in PATHS])
    numbers = PATHS[..., 0] * 2 + PATHS[..., 1]
    gains = sum(pay[states[:, t], numbers[:, t]] for t in range(2))  # [36, N]

    def chances(actor):
        scores, _ = actor.unroll(
            paths.hidden_state[0], paths.observations, jnp.zeros((2, 36, 2), bool)
        )
        log_probs = jax.nn.log_softmax(jnp.where(paths.action_mask, scores, -jnp.inf))
        chosen = jnp.take_along_axis(log_probs, paths.actions[..., None], -1)
        return jnp.exp(jnp.sum(chosen, (0, 2, 3))), log_probs

    def earned(actor, i):
        return jnp.sum(chances(actor)[0] * jnp.asarray(gains[:, i]))

    probability, log_probs = quick(chances)(actor)
    np.testing.assert_allclose(probability.sum(), 1.0, rtol=1e-5)
    gradients = [quick(jax.grad(functools.partial(earned, i=i)))(actor) for i in range(2)]
    exact = [np.stack([np.asarray(g[i]) for i, g in enumerate(each)])
             for each in zip(*map(jax.tree.leaves, gradients), strict=True)]  # fmt: skip
    policy = np.zeros((3, 2, 3))
    for k, t in np.ndindex(36, 2):
        policy[states[k, t]] = np.exp(np.asarray(log_probs[t, k], np.float64))
    v, q = np.full((4, 2), 1e3), np.full((4, 6, 2), 1e3)
    for s in (2, 1, 0):
        follows = [v[1 + (a + b) % 2] if s == 0 else np.zeros(2) for a, b in JOINT]
        q[s] = pay[s] + np.stack(follows)
        v[s] = sum(policy[s, 0, a] * policy[s, 1, b] * q[s, 2 * a + b] for a, b in JOINT)
    return actor, np.asarray(probability, np.float64), exact, v, q


def each_gradient(self, carry, batch, key, clock):
    """Instead of updates: every path's own gradient of the actor loss, and its targets."""

    def one(path):
        part = jax.tree.map(lambda x: x[:, None], path)
        grads, _ = jax.grad(self.loss, has_aux=True)(carry[0], part, {"entropy": jnp.zeros(())})
        return grads["actor"]

    leaves = jax.tree.leaves(jax.vmap(one, in_axes=1)(batch))
    return carry, {str(k): x for k, x in enumerate(leaves)} | {"y": batch.targets}


def q_answers(q):
    """Q [state, joint, N] as each agent's critic is asked: [N, state, the other's action, own]."""
    table = q.reshape(4, 3, 2, 2)
    left = np.pad(table[..., 0].transpose(0, 2, 1), ((0, 0), (0, 1), (0, 0)))
    right = np.pad(table[..., 1], ((0, 0), (0, 0), (0, 1)))
    return np.stack([left, right])


def expected_gradient(name, full, reward, answers, **settings):
    """E over paths of what the algorithm's own loss says, per leaf; the targets [T, 36, N]."""
    algorithm = spied(
        small(name, gamma=1.0, normalise_advantages=False, **settings), _make_updates=each_gradient
    )
    game = game_for(algorithm, Fork(full), reward)
    actor, probability, *_ = truth(full, reward)
    learner = Learner(
        actor=actor,
        critic=Known(answers, algorithm.central),
        target=None,
        optimiser=(),
        hidden_state=jnp.zeros((36, 2, 0)),
        moments=Moments.empty(2 if reward == "individual" else 1),
        so_far=None,
    )
    paths = all_paths(full)
    if not algorithm.central:
        paths = eqx.tree_at(
            lambda r: (r.central, r.next_central), paths, replace_fn=lambda z: z[..., :0]
        )
    if name in ("ippo", "mappo"):
        see, start = np.asarray(paths.observations), np.asarray(paths.start)
        scores, _ = by_hand.unroll(by_hand.in_numpy(actor), np.zeros((36, 2, 0)), see, start)
        log_probs = by_hand.log_policy(scores, np.asarray(paths.action_mask))
        noted = by_hand.take(log_probs, np.asarray(paths.actions))
        paths = dataclasses.replace(paths, extras=jnp.asarray(noted, jnp.float32))
    _, seen = quick(functools.partial(algorithm.learn, game))(learner, paths, jax.random.key(0), {})
    seen = jax.tree.map(np.asarray, seen)
    seen.pop("explained_variance")
    leaves = [seen[str(k)] for k in range(len(seen) - 1)]
    return [np.tensordot(probability, g, 1) for g in leaves], seen["y"]


def v_answers(v):
    return v.T[:, :, None, None]


def equal(ours, exact, within=1e-4):
    """−2 times the expected gradient: losses descend, and are means over both rounds."""
    for g, e in zip(ours, exact, strict=True):
        np.testing.assert_allclose(-2 * g, e, atol=within)


THEOREM = {
    "ia2c": ("ia2c", True, "individual", {}),
    "ia2c n=2": ("ia2c", True, "mean", {"n_steps": 2}),
    "maa2c": ("maa2c", False, "individual", {}),
    "maa2c λ": ("maa2c", False, "sum", {"gae_lambda": 0.5}),
    "coma": ("coma", False, "sum", {"target_interval": None}),
    "coma mean": ("coma", False, "mean", {"target_interval": None, "gae_lambda": 1.0}),
    "ippo": ("ippo", True, "individual", {}),
    "mappo": ("mappo", False, "mean", {}),
}


@pytest.mark.parametrize("case", THEOREM)
def test_the_expected_gradient_is_that_of_the_expected_return(case):
    """With exact critics, in a game with hidden state (but for critics that see no z)."""
    name, full, reward, settings = THEOREM[case]
    *_, exact, v, q = truth(full, reward)
    assert max(np.abs(e).max() for e in exact) > 0.05
    answers = q_answers(q) if name == "coma" else v_answers(v)
    equal(expected_gradient(name, full, reward, answers, **settings)[0], exact)


@pytest.mark.parametrize("name", ["ia2c", "maa2c", "mappo"])
def test_a_baseline_adds_no_bias(name):
    """Whatever V is, if nothing is bootstrapped; where something is, a wrong V biases."""
    full = name == "ia2c"
    *_, exact, v, _ = truth(full, "individual")
    wrong = v + np.random.default_rng(0).normal(size=v.shape)
    answers = v_answers(wrong)
    equal(expected_gradient(name, full, "individual", answers, gae_lambda=1.0)[0], exact)
    biased, _ = expected_gradient(name, full, "individual", answers, gae_lambda=0.0)
    gaps = [np.abs(-2 * g - e).max() for g, e in zip(biased, exact, strict=True)]
    assert max(gaps) > 0.05


def test_comas_baseline_adds_no_bias():
    """Anything that depends on the state and the other's action changes not a single advantage."""
    *_, exact, _, q = truth(False, "sum")
    anything = np.random.default_rng(1).normal(size=(2, 4, 3, 1))
    settings = {"target_interval": None}
    plain, _ = expected_gradient("coma", False, "sum", q_answers(q), **settings)
    moved, _ = expected_gradient("coma", False, "sum", q_answers(q) + anything, **settings)
    equal(moved, exact)
    for a, b in zip(plain, moved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_comas_targets_are_exact_on_average(lam):
    """E[y | s, a] = Q(s, a) under exact critics, whatever λ."""
    _, probability, _, _, q = truth(False, "sum")
    answers = q_answers(q)
    settings = {"target_interval": None, "gae_lambda": lam}
    _, y = expected_gradient("coma", False, "sum", answers, **settings)
    for number, first in enumerate(JOINT):
        these = (PATHS[:, 0] == first).all(-1)
        mean = np.average(y[0, these], axis=0, weights=probability[these])
        np.testing.assert_allclose(mean, q[0, number], rtol=1e-4)


def test_reinforce_has_the_gradient_of_the_expected_return():
    algorithm = small("reinforce", gamma=1.0, max_grad_norm=None, environments=1, entropy=0.0)
    game = game_for(algorithm.resolve(1, 2), Fork(False))
    actor, probability, exact, *_ = truth(False, "individual")
    learner = dataclasses.replace(random_learner(algorithm, game), actor=actor)

    def adams_first_moment(path):
        rollout = jax.tree.map(lambda x: x[:, None], path)
        clock = clock_at(algorithm, 0)
        return algorithm.learn(game, learner, rollout, jax.random.key(0), clock)[0].optimiser.mu

    moments = quick(jax.vmap(adams_first_moment, in_axes=1))(all_paths(False))
    ours = [np.tensordot(probability, np.asarray(m) / 0.1, 1) for m in jax.tree.leaves(moments)]
    equal(ours, exact)


# COMA -----------------------------------------------------------------------------------------


def test_an_agents_own_action_is_not_in_its_critics_input():
    """Neither of the input nor of what the critic says of any action; the others' are."""
    algorithm = small("coma")
    game = game_for(algorithm, Walk())
    critic = random_learner(algorithm, game).critic
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(7, 3, 5)), jnp.float32)
    z = jnp.asarray(rng.normal(size=(7, 2)), jnp.float32)

    @quick
    def said(actions):
        see = algorithm.critic_inputs(game, obs, z, actions)
        return see, critic.step(critic.initial_hidden_state(7), see, jnp.zeros((7, 3), bool))[0]

    before = jnp.asarray(rng.integers(0, 2, (7, 3)), jnp.int32)
    see, q = said(before)
    assert q.shape == (7, 3, 4)
    assert see.shape[-1] == 5 + 2 + 2 * 4
    for i in range(3):
        changed, changed_q = said(before.at[:, i].add(1))
        for x, y in ((see, changed), (q, changed_q)):
            np.testing.assert_array_equal(x[:, i], y[:, i])
            for j in {0, 1, 2} - {i}:
                assert (np.asarray(x[:, j]) != np.asarray(y[:, j])).any(-1).all()


# Pareto actor-critic --------------------------------------------------------------------------


def some_masks(rng, counts, rows):
    """Masks [rows, N, A] under which everybody has a legal action, but for a dead one at times."""
    widest = max(counts)
    mask = (rng.random((rows, len(counts), widest)) < 0.6) & (
        np.arange(widest) < np.array(counts)[:, None]
    )
    for r, i in np.ndindex(rows, len(counts)):
        if not mask[r, i].any() and rng.random() < 0.8:
            mask[r, i, rng.integers(counts[i])] = True
    return mask


@pytest.mark.parametrize("counts", [(2, 3), (3, 1, 2), (2, 3, 2, 4)])
def test_pac_enumerates_every_joint_action_of_the_others(counts):
    rng, rows, n = np.random.default_rng(0), 6, len(counts)
    names = tuple("abcd"[:n])
    team, joints = JointView(EnvSpec(names, (1,) * n, counts)), by_hand.joint_actions(counts)
    q = rng.normal(size=(rows, n, len(joints))).astype(np.float32)
    mask = some_masks(rng, counts, rows)
    mask[0] = np.arange(max(counts)) < np.array(counts)[:, None]
    legal = team.mask(jnp.asarray(mask))
    alone = max_over_others(team, jnp.asarray(q), legal)
    living = rng.random((rows, n)) < 0.8
    living[:, 0] = True
    together = with_joint_optimum(team, jnp.asarray(q), legal, jnp.asarray(living))
    checked = 0
    for r in range(rows):
        allowed = [k for k, a in enumerate(joints) if by_hand.legal_joint(mask[r], a)]
        best = joints[max(allowed, key=lambda k: q[r, living[r], k].mean())]
        for i, own in [(k, a) for k in range(n) for a in range(counts[k])]:
            fits = [q[r, i, k] for k in allowed if joints[k][i] == own]
            if fits:
                np.testing.assert_allclose(alone[r, i, own], max(fits))
                joint = tuple(own if j == i else a for j, a in enumerate(best))
                np.testing.assert_allclose(together[r, i, own], q[r, i, joints.index(joint)])
                checked += 1
            else:
                assert alone[r, i, own] < -1e29
    assert checked > rows * n
    numbers = team.join(jnp.asarray(joints, jnp.int32))[:, 0]
    np.testing.assert_array_equal(numbers, np.arange(len(joints)))


def test_pac_says_where_it_does_not_belong():
    algorithm = small("pac")
    assert not algorithm.remarks(game_for(algorithm, coterie.make("matrix/climbing"), "mean"))
    assert not algorithm.remarks(game_for(algorithm, coterie.make("matrix/stag-hunt")))
    (note,) = algorithm.remarks(game_for(algorithm, coterie.make("matrix/prisoners-dilemma")))
    assert "prefer different" in note
    (note,) = algorithm.remarks(game_for(algorithm, Walk()))
    assert "cannot be checked" in note
    crowd = small("pac", max_others=11)  # the others of Walk's agent a have 3 times 4
    with pytest.raises(UsageError, match=r"12 joint actions.*--max-others"):
        crowd.remarks(game_for(crowd, Walk()))


# Proximal policy optimisation -----------------------------------------------------------------


def gaps(self, carry, part, clock, count):
    """An update; and how far log π is from the noted one before the first and last of a rollout."""
    scores, _ = carry[0]["actor"].unroll(part.hidden_state[0], part.observations, part.start)
    log_probs = jax.nn.log_softmax(jnp.where(part.action_mask, scores, -1e30))
    chosen = jnp.take_along_axis(log_probs, part.actions[..., None], -1)[..., 0]
    gap = jnp.max(jnp.where(part.alive, jnp.abs(chosen - part.extras), 0.0))
    carry, _ = type(self).__mro__[1].update(self, carry, part, clock, count)
    last = self.epochs * self.minibatches
    return carry, {"first": jnp.where(count == 1, gap, 0), "last": jnp.where(count == last, gap, 0)}


def gone_on(program, state, file):
    """The state one iteration later: the same, to the bit, if it was saved and read before."""
    write_tree(file, state, {})
    restored, _ = read_tree(file, program.template())
    whole, resumed = (program.advance(s, 4, 1) for s in (state, restored))
    for one, other in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = map(jax.random.key_data, (one, other))
        np.testing.assert_array_equal(one, other)
    return resumed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recurrent"),
    [("ippo", False), ("mappo", True)],
)
def test_the_first_ratio_is_one_also_after_a_resume(name, recurrent, tmp_path):
    """What acting noted is what learning computes, from stored observations, masks and memories."""
    algorithm = spied(small(name, recurrent=recurrent, lr=0.01), update=gaps)
    type(algorithm).metrics = ("first", "last")
    type(algorithm).diagnostics = ("explained_variance",)
    program = quick_program(algorithm, game_for(algorithm, Walk()))
    state = program.advance(program.init(3), 0, 4)
    resumed = gone_on(program, state, tmp_path / "state")
    for so_far in (state, resumed):
        assert so_far.losses["first"] < 1e-5
        assert so_far.losses["last"] > 1e-2, "and it moves"
    first, last = (np.asarray(resumed.losses[k] - state.losses[k]) for k in ("first", "last"))
    assert first < 1e-5
    assert last > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recurrent"), [("reinforce", True), ("pac", False)])
def test_resuming_changes_nothing(name, recurrent, tmp_path):
    algorithm = small(name, recurrent=recurrent, reward_scaling="standardise").resolve(500, 5)
    program = quick_program(algorithm, game_for(algorithm, Walk()))
    gone_on(program, program.advance(program.init(1), 0, 4), tmp_path / "state")


# Acting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOCHASTIC)
def test_actions_are_drawn_from_the_policy_by_each_agent_for_itself(name):
    algorithm, trials = small(name), 20_000
    game = game_for(algorithm, Walk())
    n, widest = game.spec.n_agents, game.spec.action_count
    p = np.random.default_rng(0).dirichlet(np.ones(widest), n) * game.spec.available_actions
    p /= p.sum(-1, keepdims=True)

    @quick
    def act(key):
        noise = algorithm.noise(key, game, (1, trials))
        rows = jnp.broadcast_to(jnp.log(jnp.asarray(p) + 1e-9), (trials, n, widest))
        mask = jnp.broadcast_to(jnp.asarray(game.spec.available_actions), rows.shape)
        policy = algorithm.behaviour(Categorical(rows.astype(jnp.float32), mask), {})
        actions = policy.sample(noise[0])
        return actions, algorithm.extras(policy, actions)

    actions, noted = act(jax.random.key(1))
    actions = np.asarray(actions)
    for i in range(n):
        rates = np.bincount(actions[:, i], minlength=widest) / trials
        np.testing.assert_allclose(rates, p[i], atol=0.02)
    for i, j in itertools.combinations(range(n), 2):
        both = np.mean((actions[:, i] == 0) & (actions[:, j] == 0))
        np.testing.assert_allclose(both, p[i, 0] * p[j, 0], atol=0.02)
    if name in ("ippo", "mappo"):
        chosen = np.take_along_axis(np.log(p + 1e-9)[None], actions[..., None], -1)[..., 0]
        np.testing.assert_allclose(noted, chosen, atol=1e-3)
    else:
        assert noted == ()


# REINFORCE ------------------------------------------------------------------------------------


def test_the_entropy_weight_moves_linearly_in_steps_and_stays():
    algorithm = small("ia2c", entropy=0.8, entropy_end=0.2, rollout_steps=5, environments=4)
    weights = lambda a, i: a.schedules(np.array(i))["entropy"]  # noqa: E731
    fixed = algorithm.resolve(80)
    np.testing.assert_allclose(weights(fixed, range(7)), [0.8, 0.65, 0.5, 0.35, 0.2, 0.2, 0.2])
    assert fixed.resolve(10**6) == fixed, "fixed when the run starts"
    long = dataclasses.replace(algorithm, entropy_steps=2**36)
    far = 2**35 // 20
    np.testing.assert_allclose(weights(long, [far, 2**36]), [0.5, 0.2], rtol=1e-6)
    constant = dataclasses.replace(algorithm, entropy_end=None).resolve(80)
    np.testing.assert_allclose(weights(constant, [0, 3, 10**9]), 0.8)


@functools.cache
def whole_episodes(recurrent):
    """REINFORCE in ``Walk``: three rollouts on end [R, T, B], actors, how far the pool got."""
    algorithm = small("reinforce", recurrent=recurrent, environments=8, gamma=0.9,
                      max_grad_norm=None).resolve(1, 5)  # fmt: skip
    game = game_for(algorithm, Walk())
    learner = random_learner(algorithm, game)
    seen, *_ = collector(algorithm, game)(learner.actor, [0.0] * 3)
    return algorithm, game, learner, jax.tree.map(lambda x: x[0], seen)


def test_every_rollout_begins_with_fresh_episodes_that_it_can_hold():
    *_, seen = whole_episodes(True)
    assert seen.start.shape == (3, 5, 8)
    assert seen.start[:, 0].all()
    assert (seen.observations[:, 0, :, 0, 1] == 0).all(), "the first step of its episode"
    over = seen.terminated | seen.truncated
    assert over.any(axis=1).all(), "every first episode ends"
    assert over[:, :4].any(), "some before the rollout does"
    assert not over[:-1, -1].all(), "some second episode is broken off"
    drawn = seen.observations[..., 0, 0][seen.start]
    assert len(np.unique(drawn)) == seen.start.sum(), "no start is used twice"


@pytest.mark.parametrize("recurrent", [False, True])
def test_reinforce_learns_from_each_environments_first_episode(recurrent):
    """Loss, entropy and gradient in NumPy; what does not count is absurd."""
    algorithm, game, learner, seen = whole_episodes(recurrent)
    algorithm = dataclasses.replace(algorithm, reward_scaling="standardise", entropy=0.3)
    r = jax.tree.map(lambda x: np.array(x[1]), seen)
    over = r.terminated | r.truncated
    first = np.cumsum(over, 0) - over == 0
    counts = first[..., None] & r.alive
    assert (~first).any()
    assert (first[..., None] & ~r.alive).any()
    r.rewards[~counts] = 1e6
    update = quick(functools.partial(algorithm.learn, game))
    after, metrics = update(learner, r, jax.random.key(0), clock_at(algorithm, 0))

    paid = [r.rewards[..., i][counts[..., i]].astype(np.float64) for i in range(3)]
    kept = [after.moments.count, after.moments.mean, after.moments.variance]
    right = np.array([(len(own), own.mean(), own.var()) for own in paid]).T
    np.testing.assert_allclose(kept, right, rtol=1e-4)
    rewards = (r.rewards - right[1]) / np.sqrt(right[2])
    returns = np.zeros(rewards.shape)
    for t in reversed(range(5)):
        goes_on = ~over[t][:, None] & r.next_alive[t] & (t < 4)
        later = returns[min(t + 1, 4)]
        returns[t] = rewards[t] + 0.9 * np.where(goes_on, later, 0)

    def by_numpy(actor):
        scores, _ = by_hand.unroll(actor, r.hidden_state[0], r.observations, r.start)
        log_probs = by_hand.log_policy(scores, r.action_mask)
        chosen = by_hand.take(log_probs, r.actions)
        nats = by_hand.entropy(log_probs, r.action_mask)
        means = np.zeros(2)
        for b, i in np.ndindex(8, 3):
            own = counts[:, b, i]
            means += [-(returns * chosen)[own, b, i].mean() / 8, nats[own, b, i].mean() / 8]
        return means

    exact = by_hand.in_numpy(learner.actor)
    expected = by_numpy(exact)
    np.testing.assert_allclose([metrics["actor_loss"], metrics["entropy"]], expected, rtol=1e-4)
    leaves, tree = jax.tree.flatten(exact)
    slopes = [np.asarray(mu) / 0.1 for mu in jax.tree.leaves(after.optimiser.mu)]
    rng = np.random.default_rng(0)
    towards = [rng.normal(size=x.shape) for x in leaves]
    moved = [
        jax.tree.unflatten(tree, [x + e * d for x, d in zip(leaves, towards, strict=True)])
        for e in (1e-5, -1e-5)
    ]
    rise = np.subtract(*map(by_numpy, moved)) @ [1, -0.3] / 2e-5
    slope = sum(np.sum(g * d) for g, d in zip(slopes, towards, strict=True))
    np.testing.assert_allclose(slope, rise, rtol=1e-3)


def test_reinforce_needs_to_know_the_longest_episode():
    with pytest.raises(UsageError, match="--episode-steps"):
        small("reinforce").resolve(1000, None)
    assert small("reinforce").resolve(1000, 7).rollout_shape() == (7, 4)
    assert small("reinforce", episode_steps=3).resolve(1000, 7).rollout_shape() == (3, 4)


# Learned values -------------------------------------------------------------------------------

LEARNERS = {
    "ia2c": {"n_steps": 3},
    "ia2c recurrent": {"gae_lambda": 0.5, "recurrent": True},
    "maa2c": {"gae_lambda": 0.9},
    "ippo": {"epochs": 1},
    "coma": {"target_interval": 20},
    "pac": {"n_steps": 2},
}


@functools.cache
def learned(case):
    """(path, joint action) -> what the trained critics say after the path [N, J]."""
    name, env = case.split()[0], Probes()
    settings = {
        "gamma": 0.5, "environments": 32, "hidden": (32,), "lr": 1e-12, "critic_lr": 1e-2,
        "max_grad_norm": None, "entropy_end": None, "minibatches": 1,
    }  # fmt: skip
    algorithm = small(name, **settings | LEARNERS[case])
    iterations = 400 if algorithm.recurrent else 800
    # Learning rates that fall to 0 average what the last rollouts happened to show.
    over = iterations * math.prod(algorithm.rollout_shape())
    algorithm = dataclasses.replace(algorithm, lr_end=0.0, lr_steps=over)
    game = game_for(algorithm, env)
    state, _ = train(algorithm, game, iterations)
    critic = by_hand.in_numpy(jax.tree.map(lambda x: x[0], state.learner.critic))
    width = env.spec().observation_size

    def ask(path, joint=(0, 0)):
        places = [NAMES.index(place) for place in path.split()]
        rows = []
        for place in places:
            z = np.eye(len(NAMES) + 1)[place]
            others = [np.eye(3)[joint[1]], np.eye(3)[joint[0]]]
            seen = [np.eye(width)[k] for k in env.see[place]]
            parts = [[seen[i], *([z] if game.central_size else [])] for i in range(2)]
            if name == "coma":
                parts = [[*parts[i], others[i]] for i in range(2)]
            rows.append(np.stack([np.concatenate(p) for p in parts])[None])
        start = np.arange(len(places))[:, None] == 0
        hidden_state = np.zeros((1, 2, 32 if algorithm.recurrent else 0))
        return by_hand.unroll(critic, hidden_state, np.stack(rows), start)[0][-1, 0]

    return ask


# V of uniformly random behaviour, γ = 1/2; agent left has three actions, two where "linear" is.
CERTAIN = {
    "constant": (2.0, 1.0),
    "terminal": (2.0, 1.0),
    "good": (1.0, 3.0),
    "bad": (-1.0, -3.0),
    "delay paid": (4.0, 2.0),
    "fatal": (0.5, 3.0),
    "rich": (8.0, 8.0),
}
BY_ACTION = {
    "action": (1.0, -1.0),
    "delay": (2 / 3, 1 / 3),
    "linear": (2.5, 2.5),
    "together": (1.25, 1.25),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["maa2c", "ia2c", "ia2c recurrent", "ippo"])
def test_critics_learn_the_values_of_the_policy(case):
    """Time-outs bootstrap, terminals do not, the dead neither learn nor count."""
    for path, expected in (CERTAIN | BY_ACTION).items():
        said, within = learned(case)(path)[:, 0], 0.3 if path in CERTAIN else 0.6
        np.testing.assert_allclose(said, expected, atol=within, err_msg=path)
    np.testing.assert_allclose(learned(case)("fatal alone")[0, 0], 1.0, atol=0.3)


def test_critics_that_see_z_know_where_they_are():
    """ "promise" and "refused" look alike; the illegal action pays in one of them only."""
    np.testing.assert_allclose(learned("maa2c")("promise")[0, 0], 8 / 3, atol=0.4)
    np.testing.assert_allclose(learned("maa2c")("tempted refused")[0, 0], 1.0, atol=0.4)
    np.testing.assert_allclose(learned("ia2c")("promise")[0, 0], (8 / 3 + 1) / 2, atol=0.4)


@pytest.mark.slow
def test_critics_with_memory_know_where_they_were():
    for path, sign in (("cue+ recall+", 1), ("cue- recall-", -1)):
        said = learned("ia2c recurrent")(path)[:, 0]
        np.testing.assert_allclose(said, [4.0 * sign, 2.0 * sign], atol=0.8)
        np.testing.assert_allclose(learned("ia2c")(path)[:, 0], 0.0, atol=1.0)


@pytest.mark.slow
def test_comas_critic_learns_what_every_own_action_is_worth():
    """Of the common reward, the sum: for each agent Q of its actions beside the other's."""
    for a, b in itertools.product(range(2), range(2)):
        for path, value in {
            "constant": 3.0,
            "terminal": 3.0,
            "linear": 1.0 + 4.0 * (a + b),
            "tempted": 0.5,
        }.items():
            said = learned("coma")(path, (a, b))
            np.testing.assert_allclose([said[0, a], said[1, b]], value, atol=0.6, err_msg=path)
        worth = learned("coma")("delay", (a, b))[0, a]
        np.testing.assert_allclose(worth, 3.0 * (a == 1), atol=0.6)
    left, right = learned("coma")("fatal")[:, 0]
    np.testing.assert_allclose([left, right], 3.5, atol=0.4)  # what the other earns alone, too


@pytest.mark.slow
def test_pacs_critic_hopes_for_the_best_legal_joint_action():
    for number, (a, b) in enumerate(itertools.product(range(3), range(2))):
        for path, values in {
            "constant": (2.0, 1.0),
            "terminal": (2.0, 1.0),
            "action": (a, -2.0 * b),
            "delay": (2.0 * (a == 1), 1.0 * (a == 1)),
            "tempted": (0.5, 0.0),
            "fatal": (0.5, 3.0),
        }.items():
            said = learned("pac")(path)[:, number]
            np.testing.assert_allclose(said, values, atol=0.35, err_msg=path)
    # V is the mean over own actions of the best that the other can make of them.
    np.testing.assert_allclose(learned("pac")("together")[:, -1], 2.5, atol=0.7)
    np.testing.assert_allclose(learned("pac")("linear")[:, -1], 3.5, atol=0.5)


# Central learning -----------------------------------------------------------------------------


def test_central_q_plays_the_best_joint_action_of_climbing():
    settings = {"hidden": (32,), "lr": 3e-3, "update_ratio": 1 / 4, "batch_size": 32,
                "buffer_size": 1024, "learning_starts": 128, "epsilon_steps": 2000}  # fmt: skip
    algorithm = small("central_q", **settings)
    game = game_for(algorithm, coterie.make("matrix/climbing"), "mean")
    state, _ = train(algorithm, game, 600, seeds=3)
    q = np.asarray(
        jax.vmap(
            lambda p: p.step(p.initial_hidden_state(), jnp.ones((1, 2)), jnp.ones(1, bool))[0]
        )(state.learner.values.utility)
    )[:, 0]
    np.testing.assert_array_equal(q.argmax(-1), 0)  # (A, A)
    np.testing.assert_array_equal(game.team.split(jnp.asarray(q.argmax(-1))[:, None]), 0)
