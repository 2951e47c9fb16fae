"""Exact policy gradients against every path, estimators against them, and what breaks a verdict."""

import itertools
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation

import coterie
from coterie.analysis import gradients
from coterie.analysis.gradients import ESTIMATORS, estimate, exact_critics, learned_critics
from coterie.errors import UsageError
from coterie.games import finite
from coterie.games.finite import exact_gradients, matrix_game

RNG = np.random.default_rng(3)
THREE = RNG.normal(size=(2, 3, 2, 3))
TWO = RNG.normal(size=(2, 3, 2)) + np.arange(3)[:, None]
GAMES = {
    "once": matrix_game(TWO),
    "three agents": matrix_game(THREE),
    "twice": matrix_game(TWO, 2),
    "own": matrix_game(TWO, 3, "own"),
}
SAMPLES = 2**13


def logits_of(game, seed=0):
    rng = np.random.default_rng(seed)
    widths = game.seen.max(axis=1) + 1
    return [rng.normal(size=(w, k)) for w, k in zip(widths, game.action_counts, strict=True)]


# The exact side, by every path ------------------------------------------------------------------


def returns(game, logits):
    """(E[return] of each agent, {state: (visits, V)}), through every path, in NumPy."""
    policies = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logits]
    joints = list(itertools.product(*map(range, game.action_counts)))

    def value(s):
        total = np.zeros(game.n_agents)
        for number, joint in enumerate(joints):
            p = math.prod(policies[i][game.seen[i, s], a] for i, a in enumerate(joint))
            after = game.follows[s, number]
            beyond = value(after) if after < game.states else 0.0
            total += p * (game.rewards[s, number] + beyond)
        return total

    return value(0)


@pytest.mark.parametrize("name", GAMES)
def test_exact_gradients_are_the_differences_of_expected_returns(name):
    game, h = GAMES[name], 1e-5
    if name == "own":
        game = matrix_game(TWO, 2, "own")
    logits = logits_of(game)
    for i, found in enumerate(exact_gradients(game, logits)):
        assert found.shape == logits[i].shape
        for where in np.ndindex(found.shape):
            up, down = ([x.copy() for x in logits] for _ in range(2))
            up[i][where] += h
            down[i][where] -= h
            slope = (returns(game, up)[i] - returns(game, down)[i]) / (2 * h)
            assert found[where] == pytest.approx(slope, abs=1e-4)


def test_one_policy_for_all_observations():
    """Its gradient is the sum over observations."""
    game = matrix_game(TWO, 2)
    short = [np.array([0.3, -0.2]), np.array([0.1, 0.0, 0.5])]
    full = [np.tile(x, (game.states, 1)) for x in short]
    for own, each in zip(exact_gradients(game, short), exact_gradients(game, full), strict=True):
        np.testing.assert_allclose(own, each.sum(axis=0), atol=1e-5)


def test_a_gradient_by_hand():
    """π = (1/2, 1/2), r = (0, 4): ∇ J = π(B) 4 (e_B − π) = (−1, 1)."""
    game = matrix_game(np.array([[0.0], [4.0]]))
    (gradient,) = exact_gradients(game, [np.zeros(2)])
    np.testing.assert_allclose(gradient, [-1, 1], atol=1e-6)
    plain = estimate(game, [np.zeros(2)], "reinforce", samples=SAMPLES)
    # A sample is 0 or 4 (−1/2, 1/2): E|g|² = 4, |E g|² = 2.
    assert plain.variance[0] == pytest.approx(2.0, rel=0.05)
    with_value = estimate(game, [np.zeros(2)], "ia2c", samples=SAMPLES)
    assert with_value.variance[0] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(with_value.mean[0], [-1, 1], atol=1e-5)


def test_exact_critics_by_hand():
    """Twice [[0, 1], [2, 5]] for both, uniformly: the second round is worth 2, the first 4."""
    table = np.repeat(np.array([[0.0, 1.0], [2.0, 5.0]])[..., None], 2, axis=-1)
    for sees, looks in (("joint", 5), ("own", 3)):
        game = matrix_game(table, 2, sees)
        critics = exact_critics(game, [np.zeros(2), np.zeros(2)])
        np.testing.assert_allclose(critics.central, [[4, 2, 2, 2, 2]] * 2)
        np.testing.assert_allclose(critics.observed, [[4] + [2] * (looks - 1)] * 2)
        np.testing.assert_allclose(critics.joint[:, 0], [[2, 3, 4, 7]] * 2)
        np.testing.assert_allclose(critics.joint[:, 3], [[0, 1, 2, 5]] * 2)


def test_critics_that_see_no_z_average_over_what_they_cannot_tell_apart():
    """Agent 1 plays A or B after A, always C after B: given agent 0's own action only."""
    game = matrix_game(TWO, 2, "own")
    logits = [np.zeros((3, 2)), np.array([[0, 0, -50], [0, 0, -50], [-50, -50, 0], [0, 0, 0.0]])]
    found = np.asarray(exact_critics(game, logits).observed)
    # Agent 0's second round: agent 1 did A (then A or B) or B (then C), half of the time each.
    expected = np.mean([TWO[:, :2, 0].mean(), TWO[:, 2, 0].mean()])
    np.testing.assert_allclose(found[0, 1:3], expected, atol=1e-5)


def test_states_of_a_repeated_game():
    game = matrix_game(TWO, 3, "own")
    assert (game.states, game.horizon, game.action_counts) == (13, 3, (2, 3))
    np.testing.assert_array_equal(game.follows[0], np.arange(1, 7))
    np.testing.assert_array_equal(game.follows[3], np.arange(7, 13))
    assert (game.follows[7:] == 13).all()
    # After (B, A), number 3, state 4: agent 0 sees "B before", agent 1 "A before".
    assert game.seen[:, 4].tolist() == [2, 1]
    assert game.seen[:, 10].tolist() == [4, 4]


# The sampled side -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_exact_critics_every_estimator_is_unbiased(name, estimator):
    found = estimate(GAMES[name], logits_of(GAMES[name]), estimator, samples=SAMPLES)
    assert found.unbiased
    assert min(found.cosine) > 0.9


def test_a_counterfactual_baseline_takes_out_what_the_others_did():
    """Paid 10 and the other's action: V takes out the 10, COMA all of it."""
    paid = 10.0 + np.stack(np.meshgrid([0.0, 1.0], [0.0, 1.0], indexing="ij")[::-1], axis=-1)
    game, logits = matrix_game(paid), [np.zeros(2)] * 2
    found = [estimate(game, logits, name, samples=SAMPLES) for name in ESTIMATORS]
    # E|r e|² with |e|² = 1/2: (10² + 11²) / 4, then (1/2)² / 2, then nothing.
    expected = [55.25, 0.125, 0.125, 0.0]
    for each, variance in zip(found, expected, strict=True):
        assert each.unbiased
        np.testing.assert_allclose(each.variance, variance, rtol=0.02, atol=1e-9)


def wrong(critics, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape), jnp.float32), critics)


@pytest.mark.parametrize(
    ("game", "estimator", "unbiased"),
    [
        ("once", "reinforce", True),
        ("once", "ia2c", True),  # V is a baseline only
        ("once", "maa2c", True),
        ("once", "coma", False),  # Q also stands for the return
        ("twice", "reinforce", True),
        ("twice", "ia2c", False),  # V is bootstrapped from too
        ("twice", "maa2c", False),
        ("twice", "coma", False),
    ],
)
def test_the_bias_of_wrong_critics_is_seen(game, estimator, unbiased):
    game = GAMES[game]
    logits = logits_of(game)
    critics = wrong(exact_critics(game, logits))
    assert estimate(game, logits, estimator, critics, SAMPLES).unbiased is unbiased


@pytest.mark.parametrize(("field", "user"), [("observed", "ia2c"), ("central", "maa2c")])
def test_each_estimator_asks_its_own_critic(field, user):
    game = matrix_game(TWO, 2, "own")
    logits = logits_of(game)
    exact = exact_critics(game, logits)
    off = eqx.tree_at(lambda c: getattr(c, field), exact, getattr(wrong(exact), field))
    biased = [n for n in ESTIMATORS if not estimate(game, logits, n, off, SAMPLES).unbiased]
    assert biased == [user]


def test_episodes_of_unequal_length():
    """Going on (B) leads to a round that pays more; whoever stops is paid at once."""
    game = finite.FiniteGame(
        rewards=np.array([[[1.0], [0.0]], [[0.0], [5.0]], [[-2.0], [7.0]]]),
        follows=np.array([[3, 1], [3, 2], [3, 3]]),
        seen=np.array([[0, 1, 2]]),
        action_counts=(2,),
        horizon=3,
    )
    logits = logits_of(game)
    assert returns(game, logits)[0] == pytest.approx(float(finite.state_values(game, logits)[0, 0]))
    for name in ESTIMATORS:
        assert estimate(game, logits, name, samples=SAMPLES).unbiased


def test_coma_forgives_what_does_not_depend_on_the_own_action():
    game = GAMES["once"]
    logits = logits_of(game)
    others = np.array([[5.0, -3.0, 1.0] * 2, [2.0] * 3 + [-4.0] * 3], np.float32)
    critics = exact_critics(game, logits)
    moved = eqx.tree_at(lambda c: c.joint, critics, critics.joint + others[:, None])
    assert estimate(game, logits, "coma", moved, SAMPLES).unbiased
    swapped = eqx.tree_at(lambda c: c.joint, critics, critics.joint + others[::-1, None])
    assert not estimate(game, logits, "coma", swapped, SAMPLES).unbiased


def own_action_in_baseline(game, critics, episode, log_probs):
    return gradients.ia2c(game, critics, episode, log_probs) - 0.5 * episode.actions


def baseline_over_the_others(game, critics, episode, log_probs):
    """Averages over the other's action, not the own one."""
    q = critics.joint.reshape(2, game.states, *game.action_counts)
    own, other = episode.actions[:, 0], episode.actions[:, 1]
    p, r = (jnp.exp(x)[episode.state] for x in log_probs)
    first, second = q[0, episode.state], q[1, episode.state]
    t = jnp.arange(len(own))
    a = first[t, own, other] - jnp.sum(r * first[t, own], -1)
    b = second[t, own, other] - jnp.sum(p * second[t, :, other], -1)
    return jnp.stack([a, b], axis=-1)


def greatest_over_the_others(game, critics, episode, log_probs):
    """PAC's optimism: max over a_-i instead of the expectation."""
    q = critics.joint.reshape(2, game.states, *game.action_counts)
    hoped = [jnp.max(q[0], 2)[0, episode.actions[:, 0]], jnp.max(q[1], 1)[0, episode.actions[:, 1]]]
    return jnp.stack(hoped, axis=-1) - critics.central[:, episode.state].T


def of_the_next_agent(game, critics, episode, log_probs):
    return jnp.roll(gradients.ia2c(game, critics, episode, log_probs), 1, axis=-1)


def without_the_last_reward(game, critics, episode, log_probs):
    over = episode.next_state == game.states
    cut = eqx.tree_at(lambda e: e.rewards, episode, jnp.where(over[:, None], 0, episode.rewards))
    return gradients.reinforce(game, critics, cut, log_probs)


def bootstrapped_after_the_end(game, critics, episode, log_probs):
    over = episode.next_state == game.states
    return gradients.maa2c(game, critics, episode, log_probs) + jnp.where(
        over[:, None], critics.central[:, 0] * (1 + episode.actions), 0.0
    )


@pytest.mark.parametrize(
    "broken",
    [own_action_in_baseline, baseline_over_the_others, greatest_over_the_others,
     of_the_next_agent, without_the_last_reward, bootstrapped_after_the_end],
)  # fmt: skip
def test_a_broken_advantage_turns_the_verdict(broken):
    game = GAMES["once"]
    assert not estimate(game, logits_of(game), broken, samples=SAMPLES).unbiased


BROKEN = {
    "no minus": ("policy_gradient", lambda log_probs, adv: jax.lax.stop_gradient(adv) * log_probs),
    "no log": (
        "policy_gradient",
        lambda log_probs, adv: -jax.lax.stop_gradient(adv) * jnp.exp(log_probs),
    ),
    "halved": ("policy_gradient", lambda log_probs, adv: -0.5 * adv * log_probs),
    "no reward": ("n_step_return", lambda r, v, t, e, g, n: v),
    "discounted": ("reward_to_go", lambda r, e, g: 0.5 * r),
    "chosen forgotten": (
        "counterfactual_advantage",
        lambda values, log_probs, chosen: -jnp.sum(jnp.exp(log_probs) * values, -1),
    ),
}
USES = {"n_step_return": "maa2c", "reward_to_go": "reinforce", "counterfactual_advantage": "coma"}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_operator_turns_the_verdict(how, monkeypatch):
    name, broken = BROKEN[how]
    game = GAMES["once"]
    logits, estimator = logits_of(game), USES.get(name, "ia2c")
    assert estimate(game, logits, estimator, samples=SAMPLES).unbiased
    monkeypatch.setattr(gradients, name, broken)
    found = estimate(game, logits, estimator, samples=SAMPLES)
    assert not found.unbiased
    if how == "no minus":
        assert max(found.cosine) < -0.9


def test_drawing_from_another_policy_turns_the_verdict(monkeypatch):
    game = GAMES["once"]
    original = gradients.play
    warmer = lambda game, log_probs, key: original(game, [x / 2 for x in log_probs], key)  # noqa: E731
    monkeypatch.setattr(gradients, "play", warmer)
    assert not estimate(game, logits_of(game), "ia2c", samples=SAMPLES).unbiased


# Reports ----------------------------------------------------------------------------------------


def test_where_nothing_depends_on_the_policy_there_is_no_direction():
    flat = matrix_game(np.ones((2, 2, 2)))
    found = estimate(flat, [np.zeros(2)] * 2, "coma", samples=64)
    assert found.unbiased
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["unbiased"] is True
    assert read["samples"] == 64
    assert len(read["exact"]) == 2


def test_the_same_key_gives_the_same_estimate():
    game = GAMES["once"]
    first, second = (estimate(game, logits_of(game), "coma", samples=64) for _ in range(2))
    other = estimate(game, logits_of(game), "coma", samples=64, key=jax.random.key(1))
    assert first.bias == second.bias != other.bias


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: estimate(GAMES["once"], logits_of(GAMES["once"]), "a3c"), "reinforce, ia2c"),
        (lambda: estimate(GAMES["once"], logits_of(GAMES["once"]), "coma", samples=1), "at least"),
        (lambda: exact_gradients(GAMES["once"], [np.zeros(2)]), "each of 2 agents"),
        (lambda: exact_gradients(GAMES["once"], [np.zeros(2)] * 2), r"\[1, 3\] or \[3\]"),
        (lambda: matrix_game(TWO, 0), "at least 1"),
        (lambda: matrix_game(np.zeros((3, 3))), "must have shape"),
    ],
)
def test_mistakes_are_named(call, word):
    with pytest.raises(UsageError, match=word):
        call()


# Of trained runs --------------------------------------------------------------------------------

TINY = {"environments": 32, "rollout_steps": 2, "hidden": (32,), "lr": 2e-3, "entropy": 2.0,
        "gamma": 1.0, "max_grad_norm": None}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


def trained(algorithm, rounds=2, **more):
    game = coterie.MatrixGame(TWO, rounds, ("a", "b"))
    options = {"evaluations": 1, "final_episodes": 1, "reward": "individual"} | more
    return coterie.train(algorithm, game, 60_000, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "field", "reward", "scaling"),
    [
        (coterie.MAA2C, "central", "individual", "none"),
        (coterie.COMA, "joint", "sum", "standardise"),
    ],
)
def test_learned_critics_are_read_where_they_belong(algorithm, field, reward, scaling):
    """Trained near uniform play, they come close to the exact ones and to nothing else."""
    run = trained(algorithm(**TINY, reward_scaling=scaling), reward=reward)
    game, logits, critics = learned_critics(run)
    exact = np.asarray(getattr(exact_critics(game, logits), field))
    found = np.asarray(getattr(critics, field))
    assert found.shape == exact.shape
    assert np.abs(found - exact).mean() < 0.25 * exact.std()
    assert [x.shape for x in logits] == [(7, 2), (7, 3)]
    name = "coma" if algorithm is coterie.COMA else "maa2c"
    estimated = estimate(game, logits, name, critics, SAMPLES)
    assert min(estimated.cosine) > 0.8


@pytest.mark.slow
def test_the_game_pays_in_the_units_that_were_learned_in():
    options = {"evaluations": 1, "final_episodes": 0, "reward": "individual"}
    algorithm = coterie.IA2C(environments=4, hidden=(4,), reward_scaling="scale")
    run = coterie.train(algorithm, coterie.MatrixGame(TWO, 2, ("a", "b")), 400, **options)
    moments = jax.tree.map(lambda x: np.asarray(x[0]), run.learner.moments)
    size = np.sqrt(moments.mean**2 + moments.variance)
    assert size.shape == (2,)
    assert abs(size[0] - size[1]) > 0.01
    found, raw = learned_critics(run)[0].rewards, matrix_game(TWO, 2).rewards
    np.testing.assert_allclose(found, raw / size, rtol=1e-4)


@pytest.mark.slow
def test_critics_that_cannot_be_read_are_refused():
    for algorithm, word in [
        (coterie.PAC(**TINY), "neither"),
        (coterie.REINFORCE(environments=4, hidden=(4,)), "no feed-forward critics"),
    ]:
        run = coterie.train(
            algorithm, coterie.MatrixGame(TWO, 1, ("a", "b")), 100, evaluations=1, final_episodes=0
        )
        with pytest.raises(UsageError, match=word):
            learned_critics(run)


def test_log_policies_are_distributions():
    for own in finite.log_policies(GAMES["own"], logits_of(GAMES["own"])):
        np.testing.assert_allclose(np.exp(own).sum(-1), 1.0, rtol=1e-5)
