"""Learned decompositions, their verdicts, and what teams play; trained on small budgets."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation

import coterie
from coterie.analysis import igm, learned
from coterie.analysis.igm import learned_decomposition, learned_slope, learned_verdict
from coterie.analysis.learned import joint_deviation_gain, learned_play
from coterie.errors import UsageError
from coterie.games import decomposition
from coterie.games.solution_concepts import deviation_gain
from coterie.networks.mixers import MonotonicMixer
from coterie.runs import learner
from coterie.runs.api import open_run

UNIFORM = {"epsilon_start": 1.0, "epsilon_end": 1.0, "epsilon_steps": 1, "learning_starts": 1_000,
           "buffer_size": 20_000, "environments": 32, "lr": 2e-3, "hidden": (32,)}  # fmt: skip
OWN = {"environments": 8, "rollout_steps": 2, "hidden": (8,)}
# Additive, and no two agents, actions or axes alike.
SUM = np.add.outer(np.array([0.0, 3.0]), np.add.outer([0.0, -2.0, 1.0], [0.0, 9.0]))
MORE = coterie.MatrixGame(SUM, agents=("a", "b", "c"))
RUNS = {
    "vdn": (coterie.VDN(**UNIFORM, reward_scaling="standardise"), MORE),
    "qmix": (coterie.QMIX(**UNIFORM, reward_scaling="none"), MORE),
    "climbing": (coterie.QMIX(**UNIFORM), "matrix/climbing"),
    "idqn": (coterie.IDQN(**UNIFORM | {"epsilon_end": 0.1}), "matrix/prisoners-dilemma"),
    "ia2c": (coterie.IA2C(**OWN), "matrix/prisoners-dilemma"),
    "central": (coterie.CentralA2C(**OWN), coterie.MatrixGame(SUM, agents=("a", "b", "c"))),
    "foraging": (coterie.QMIX(**UNIFORM | {"environments": 4}), "lbf/5x5-2p-1f"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``trained(name)``: that run of two seeds, trained once and written down."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def one(name):
        algorithm, env = RUNS[name]
        # Of these only the form is looked at, not what they have learned.
        steps = 1_500 if name in ("ia2c", "central", "foraging") else 24_000
        options = {"seeds": 2, "evaluations": 1, "final_episodes": 0, "out": folder / name}
        with quick_compilation(folder / "compiled"):
            return coterie.train(algorithm, env, steps, **options)

    return one


# Learned decompositions -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_an_additive_game_of_unequal_agents_is_learned(name, trained):
    """In the game's own units, also where rewards were standardised while learning."""
    for seed in range(2):
        found = learned_decomposition(trained(name), seed)
        np.testing.assert_array_equal(found.rewards, SUM)
        assert [len(u) for u in found.utilities] == [2, 3, 2]
        np.testing.assert_allclose(found.q_tot, SUM, atol=0.7)
        np.testing.assert_allclose(found.residual, found.q_tot - SUM)
        assert found.mse == pytest.approx(decomposition.mse(SUM, found.q_tot))
        assert found.greedy == (1, 2, 1)


@pytest.mark.slow
def test_the_sum_of_vdns_utilities_is_its_joint_value(trained):
    found = learned_decomposition(trained("vdn"), 1)
    np.testing.assert_allclose(decomposition.additive(found.utilities), found.q_tot, atol=1e-4)


@pytest.mark.slow
def test_seeds_differ_and_an_opened_run_says_the_same(trained):
    run = trained("qmix")
    opened = open_run(run.path, MORE)
    assert opened.learner is None
    for each in (run, opened):
        for seed in range(2):
            mixer = jax.tree.leaves(learner.learner(each, seed).values.mixer)
            kept = jax.tree.leaves(run.learner.values.mixer)
            for found, every in zip(mixer, kept, strict=True):
                np.testing.assert_array_equal(found, every[seed])
    first, second = (learned_decomposition(run, k).q_tot for k in range(2))
    assert (first != second).all()
    for seed, q_tot in enumerate((first, second)):
        np.testing.assert_allclose(learned_decomposition(opened, seed).q_tot, q_tot, atol=1e-5)


def test_a_learner_is_kept_without_its_replay(trained):
    kept = trained("vdn").learner
    assert kept.replay is None
    assert all(x.shape[0] == 2 for x in jax.tree.leaves(kept))
    np.testing.assert_array_equal(
        jax.tree.leaves(kept.values.utility)[0], jax.tree.leaves(trained("vdn").policies["last"])[0]
    )


@pytest.mark.slow
def test_what_has_no_joint_value_is_refused(trained):
    for name, word in [("idqn", "no joint value"), ("ia2c", "no utilities"),
                       ("central", "no utilities"), ("foraging", "single-shot")]:  # fmt: skip
        with pytest.raises(UsageError, match=word):
            learned_decomposition(trained(name))
    with pytest.raises(UsageError, match="mixer is kept"):
        learned_decomposition(trained("qmix"), which="best")
    with pytest.raises(UsageError, match="best or last"):
        learned_decomposition(trained("vdn"), which="first")
    with pytest.raises(UsageError, match="seeds 0 to 1"):
        learned_decomposition(trained("vdn"), 2)
    best = learned_decomposition(trained("vdn"), which="best")
    assert best.q_tot.shape == SUM.shape


@pytest.mark.slow
def test_utilities_of_independent_learners_too(trained):
    """In the dilemma defecting (1) is better whatever the other does."""
    for seed in range(2):
        utilities = igm.learned_utilities(trained("idqn"), seed)
        assert [int(u.argmax()) for u in utilities] == [1, 1]


# Verdicts ---------------------------------------------------------------------------------------


def test_verdict_on_an_additive_game(trained):
    found = learned_verdict(trained("vdn"))
    assert found.igm
    assert found.igm_strict
    assert found.monotone
    assert found.smallest_slope == pytest.approx(1.0)
    assert found.greedy_individual == found.greedy_joint == found.optimal == [(1, 2, 1)]
    assert found.finds_optimum
    assert found.additive_mse == pytest.approx(0.0, abs=1e-12)
    assert found.monotone_mse == pytest.approx(0.0, abs=1e-12)


@pytest.mark.slow
def test_verdict_on_climbing(trained):
    found = learned_verdict(trained("climbing"))
    assert found.igm
    assert found.monotone
    assert found.smallest_slope >= 0.0
    assert found.optimal == [(0, 0)]
    assert not found.finds_optimum
    assert found.additive_mse == pytest.approx(175.09, abs=0.005)
    assert found.monotone_mse == pytest.approx(110.82, abs=0.005)
    assert found.mse > 110.8
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["optimal"] == [[0, 0]]
    json.dumps(learned_decomposition(trained("climbing")).to_dict(), allow_nan=False)


def test_slopes_by_hand():
    def joint(u, z):
        return u[..., 0] ** 2 - 3 * u[..., 1] * z[..., 0]

    points = jnp.array([[1.0, 0.0], [2.0, 5.0]])
    assert igm.smallest_slope(joint, points, jnp.array([[-1.0], [-2.0]])) == 2.0
    assert igm.smallest_slope(joint, points, jnp.array([[-1.0], [2.0]])) == -6.0


def test_a_mixer_that_is_not_monotone_is_seen():
    """The same mixer with and without the absolute values of its weights."""
    mixer = MonotonicMixer(3, 2, 8, 8, jax.random.key(0))

    def broken(u, z):
        w1 = mixer.hyper_w1(z).reshape(*u.shape, 8)
        hidden = jnp.einsum("...n,...ne->...e", u, w1) + mixer.hyper_b1(z)
        return jnp.sum(jax.nn.elu(hidden) * mixer.hyper_w2(z), -1) + mixer.value(z)[..., 0]

    u, z = (jax.random.normal(jax.random.key(k), (500, n)) for k, n in ((1, 3), (2, 2)))
    assert igm.smallest_slope(mixer, u, z) >= 0
    assert igm.smallest_slope(broken, u, z) < -0.01


@pytest.mark.slow
def test_slopes_of_a_mixer_in_any_environment(trained):
    assert learned_slope(trained("foraging"), 1, samples=256) >= 0
    with pytest.raises(UsageError, match="no joint value"):
        learned_slope(trained("idqn"))


# What teams play --------------------------------------------------------------------------------


@pytest.mark.slow
def test_play_of_a_team_that_acts_by_values(trained):
    for seed, play in enumerate(learned_play(trained("idqn"))):
        assert play.seed == seed
        assert play.actions == (1, 1)
        assert play.labels == ("Defect", "Defect")
        assert play.payoffs == (-3.0, -3.0)
        assert play.kind == "Pareto-dominated equilibrium"
        assert play.gain == (0.0, 0.0)
        assert play.sampled is None
        assert json.loads(json.dumps(play.to_dict()))["equilibrium"]["dominated_by"]


@pytest.mark.slow
def test_play_of_a_stochastic_team(trained):
    run = trained("ia2c")
    scores = learned.policy_outputs(run, "best")
    table = run.game.env.payoffs
    for play, logits in zip(learned_play(run, "best"), scores, strict=True):
        p, q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(play.sampled.probabilities, np.outer(p, q), atol=1e-6)
        expected = np.einsum("i,j,ijn->n", p, q, table)
        np.testing.assert_allclose(play.sampled.payoffs, expected, atol=1e-5)
        assert play.actions == (int(logits[0].argmax()), int(logits[1].argmax()))
        np.testing.assert_allclose(play.sampled.gain, deviation_gain(table, (p, q)), atol=1e-5)
        json.dumps(play.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_play_of_a_central_learner_is_split_into_its_agents(trained):
    for play in learned_play(trained("central"), "last"):
        joint = play.sampled.probabilities
        assert joint.shape == (2, 3, 2)
        assert joint.sum() == pytest.approx(1.0)
        assert play.actions == np.unravel_index(joint.argmax(), joint.shape)
        assert play.payoffs == (SUM[play.actions],) * 3


def test_deviation_from_a_correlated_policy_by_hand():
    """Chicken by the traffic light that never says (Yield, Yield): nobody gains by ignoring it."""
    chicken = coterie.make("matrix/chicken").payoffs
    light = np.array([[0.0, 0.5], [0.5, 0.0]])
    # Follow: (7 + 2) / 2. Always Dare: (7 + 0) / 2; always Yield: (6 + 2) / 2.
    np.testing.assert_allclose(joint_deviation_gain(chicken, light), [-0.5, -0.5])
    both = np.array([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(joint_deviation_gain(chicken, both), [2.0, 2.0])


@pytest.mark.slow
def test_play_is_of_single_shot_matrix_games(trained):
    with pytest.raises(UsageError, match="single-shot"):
        learned_play(trained("foraging"))
