"""Every verdict fails when it should: each item is given an algorithm that is wrong.

Trainings are far smaller than the lecture's, and settings such that correct algorithms pass all the
same. A wrong one replaces the training it stands for; the claims that turn are named. What no wrong
one is compared with is not trained but stated.

Tests of one section share trainings.
"""

import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from quick import quick_compilation

from coterie import envs
from coterie.algorithms import algorithms, make
from coterie.algorithms.ia2c import IA2C
from coterie.algorithms.maa2c import MAA2C
from coterie.algorithms.pac import max_over_others
from coterie.algorithms.vdn import VDN
from coterie.analysis import gradients
from coterie.games.decomposition import additive_fit, monotone_fit
from coterie.lecture import experiments, lbf, modes, policy_gradient
from coterie.lecture.base.decomposed import UNIFORM, recipes
from coterie.lecture.base.experiment import Scale
from coterie.networks.mixers import MonotonicMixer
from coterie.networks.per_agent import PerAgent
from coterie.ops import losses, returns
from coterie.runs import api

pytestmark = pytest.mark.slow

ACTOR_CRITIC = {"hidden": (16,), "lr": 2e-3}
TABLES = {
    **UNIFORM, "environments": 128, "learning_starts": 20_000, "buffer_size": 400_000,
    "hidden": (32, 32), "lr": 2e-3, "batch_size": 256, "update_ratio": 1 / 64,
}  # fmt: skip
MIXER = {"hyper_hidden": 16, "mixer_embedding": 16}
FORAGING = {
    "environments": 32, "epsilon_steps": 30_000, "learning_starts": 2000, "update_ratio": 1 / 16,
    "lr": 2e-3, "hidden": (64,), "batch_size": 64,
    "reward_scaling": lbf.SETTINGS["reward_scaling"],
}  # fmt: skip
TALKING = {"environments": 32, "rollout_steps": 25, "lr": 2e-3, "hidden": (16,)}


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture
def wrong(monkeypatch):
    """``wrong(right, other)``: the operator ``other`` in every module that uses ``right``."""

    def replace(right, other):
        found = 0
        for name, module in list(sys.modules.items()):
            if name.startswith("coterie."):
                for word, value in list(vars(module).items()):
                    if value is right:
                        monkeypatch.setattr(module, word, other)
                        found += 1
        assert found
        return monkeypatch

    return replace


def train(algorithm, environment, steps, seeds=2, options=(), **settings):
    return api.train(
        make(algorithm, **settings), environment, steps, seeds=seeds, options=dict(options),
        evaluations=1, final_episodes=0,
    )  # fmt: skip


right = functools.cache(train)
"""A correct training, done once: by the same words as a wrong one."""


def judged(item, numbers):
    """The claims that fail, each by the beginning of its sentence."""
    return [check.claim for check in experiments()[item].checks(numbers) if not check.passed]


def failing(claims, *beginnings):
    """Exactly these claims fail."""
    assert len(claims) == len(beginnings), claims
    for claim, beginning in zip(claims, beginnings, strict=True):
        assert claim.startswith(beginning)
    return True


def ascent(log_probs, advantages):
    """The actor loss as the lecture prints it, without its minus sign."""
    return jax.lax.stop_gradient(advantages) * log_probs


# Modes -------------------------------------------------------------------------------------------

LEARNERS = ("ia2c", "vdn", "maa2c", "central_a2c")
MODES = {
    "own": "Decentralised training and execution",
    "ctde": "Centralised training, decentralised execution",
    "central": "Centralised training and execution",
}


@functools.cache
def row(name):
    return modes._row(algorithms()[name])


def modes_with(*names):
    """All rows, those of ``names`` as they are now."""
    return {n: (modes._row(algorithms()[n]) if n in names else row(n)) for n in LEARNERS}


def test_modes_of_correct_algorithms():
    assert judged("modes", modes_with()) == []


def test_a_critic_that_leaks_z_into_an_independent_learner(monkeypatch):
    before = modes_with()
    monkeypatch.setattr(IA2C, "central", True)
    monkeypatch.setattr(IA2C, "critic_inputs", MAA2C.critic_inputs)
    after = modes_with("ia2c")
    assert after["ia2c"]["learns_from_others"]
    assert failing(judged("modes", before | after), MODES["own"])


def test_a_vdn_that_does_not_sum_learns_alone(monkeypatch):
    modes_with()
    monkeypatch.setattr(VDN, "joint", lambda self, mixer, q, central: q[..., :1])
    assert failing(judged("modes", modes_with("vdn")), MODES["ctde"])


def test_an_actor_that_sees_what_the_others_see(monkeypatch):
    modes_with()
    alone = PerAgent.step

    def together(self, hidden_state, observations, start):
        mean = jnp.mean(observations, axis=-2, keepdims=True)
        return alone(self, hidden_state, observations + mean, start)

    monkeypatch.setattr(PerAgent, "step", together)
    after = modes_with("ia2c", "maa2c")
    assert after["ia2c"]["acts_on_others"]
    assert failing(judged("modes", after), MODES["own"], MODES["ctde"])


def test_a_central_learner_of_the_agents_own_views(monkeypatch):
    modes_with()
    monkeypatch.setattr(algorithms()["central_a2c"], "joint_view", False)
    assert failing(judged("modes", modes_with("central_a2c")), MODES["central"])


# Speaker and listener ----------------------------------------------------------------------------

FLUENT, TWO_WORDS, MUTE, UNHEARD = (1.5, 8.0), (0.9, 4.0), (0.0, 0.0), (1.5, 0.1)
"""Bits of a code, and what a team loses by other words."""


def team(returns, code):
    """The item's numbers of an algorithm whose two seeds are alike."""
    bits, loss = code
    heard = {"said": returns, "shuffled": returns - loss, "silenced": returns - loss}
    code = {"bits": bits, "returns": heard, "book": {"landmark 0": "word 1"}, "seed": 0}
    return {"per_seed": [returns] * 2, "codes": [code] * 2}


SPOKEN = {
    "maa2c": team(-7.2, FLUENT), "ia2c": team(-13.6, TWO_WORDS),
    "mappo": team(-7.6, FLUENT), "ippo": team(-15.5, MUTE),
}  # fmt: skip
"""As the lecture's sizes give it; too many steps for a test."""
PAIRS = (("maa2c", "ia2c"), ("mappo", "ippo"))


def claims_of(central, own):
    return (
        f"{central.upper()}, with a centralised critic", f"{central.upper()} communicates",
        f"The words of {own.upper()} tell less",
    )  # fmt: skip


@pytest.mark.parametrize(("central", "own"), PAIRS)
@pytest.mark.parametrize(
    ("with_z", "without", "turned"),
    [
        (team(-7.7, FLUENT), team(-15.5, MUTE), ()),
        (team(-8.9, FLUENT), team(-11.1, TWO_WORDS), ()),  # plainly talks
        (team(-15.5, MUTE), team(-7.7, FLUENT), (0, 1, 2)),
        (team(-7.7, FLUENT), team(-7.7, FLUENT), (0, 2)),
        (team(-15.5, MUTE), team(-15.5, MUTE), (0, 1, 2)),
        (team(-9.1, UNHEARD), team(-15.0, MUTE), (1,)),  # nobody listens
        (team(-9.1, (0.3, 4.0)), team(-15.0, MUTE), (1,)),  # words tell little
    ],
    ids=["as it is", "late", "swapped", "both central", "both independent", "unheard", "vague"],
)
def test_who_learns_to_talk(central, own, with_z, without, turned):
    numbers = SPOKEN | {central: with_z, own: without}
    claims = [claims_of(central, own)[k] for k in turned]
    assert failing(judged("speaker-listener", numbers), *claims)


def test_a_quick_lecture_compares_proximal_ones_only():
    quick = {name: SPOKEN[name] for name in PAIRS[1]}
    assert failing(judged("speaker-listener", quick))
    assert len(experiments()["speaker-listener"].checks(quick)) == 3


def test_a_surrogate_of_the_wrong_sign_says_nothing(wrong):
    correct = losses.clipped_surrogate
    wrong(correct, lambda *args: -correct(*args))
    broken = train("mappo", "mpe/simple-speaker-listener", 25_000, 1, **TALKING)
    measured = experiments()["speaker-listener"].measure({"mappo": broken}, Scale())
    assert measured["mappo"]["per_seed"][0] < -20
    assert failing(judged("speaker-listener", SPOKEN | measured), *claims_of(*PAIRS[1])[:2])


# Climbing and equilibria -------------------------------------------------------------------------

PLAYED = {
    "climbing pac": ("pac", "matrix/climbing", 100_000, 2),
    "climbing maa2c": ("maa2c", "matrix/climbing", 200_000, 2),
    "stag-hunt pac": ("pac", "matrix/stag-hunt", 30_000, 2),
    "stag-hunt ia2c": ("ia2c", "matrix/stag-hunt", 30_000, 2),
}
ALIKE = {"climbing ia2c": "climbing maa2c", "stag-hunt ippo": "stag-hunt ia2c"}
"""End as these do, and are not trained."""


def settings(name):
    return ACTOR_CRITIC if name.startswith("stag-hunt") else {}


def climbing_with(*names):
    """The item's numbers, the trainings of ``names`` done as algorithms are now."""
    trained = {}
    for name in ("climbing pac", "climbing maa2c"):
        how = train if name in names else right
        trained[name.partition(" ")[2]] = how(*PLAYED[name], **settings(name))
    return experiments()["climbing"].measure(trained, Scale())


def equilibria_with(*names):
    trained = {
        name: (train if name in names else right)(*PLAYED[name], **settings(name))
        for name in PLAYED
    }
    alike = {name: right(*PLAYED[other], **settings(other)) for name, other in ALIKE.items()}
    return experiments()["equilibria"].measure(trained | alike, Scale())


def on_average(team, q, legal):
    """The others play anything, instead of what is best."""
    table = q.reshape(*q.shape[:-1], *team.players.action_counts)
    return jnp.stack([table[..., 0, :, :].mean(-1), table[..., 1, :, :].mean(-2)], axis=-2)


def test_climbing_of_correct_algorithms():
    assert judged("climbing", climbing_with()) == []


def test_equilibria_of_correct_algorithms():
    assert judged("equilibria", equilibria_with()) == []


def test_a_pareto_actor_critic_without_hope(wrong):
    climbing_with(), equilibria_with()
    wrong(max_over_others, on_average)
    assert failing(judged("climbing", climbing_with("climbing pac")), "Pareto actor-critic")
    numbers = equilibria_with("stag-hunt pac")
    assert failing(judged("equilibria", numbers), "Stag Hunt: Pareto actor-critic")


def test_actors_that_climb_without_the_minus(wrong):
    climbing_with(), equilibria_with()
    wrong(losses.policy_gradient, ascent)
    numbers = climbing_with("climbing maa2c")
    assert failing(judged("climbing", numbers), "Centralised A2C")
    numbers = equilibria_with("stag-hunt ia2c")
    assert failing(judged("equilibria", numbers), "Stag Hunt: ia2c")


def test_a_learner_that_goes_for_the_best_must_not_be_a2c():
    """Centralised A2C that was Pareto actor-critic all along is found out."""
    numbers = climbing_with()
    assert failing(judged("climbing", numbers | {"maa2c": numbers["pac"]}), "Centralised A2C")


# Decomposition and IGM ---------------------------------------------------------------------------

LEARNED = ("vdn linear", "qmix monotonic", "qmix climbing")
"""Trained; the others are stated as the best sums of utilities, which they come to."""


def decomposed(name, how=right):
    algorithm, _, game = name.partition(" ")
    mixer = MIXER if algorithm == "qmix" else {}
    return how(algorithm, f"matrix/{game}", 120_000, 1, **TABLES | mixer)


def stated(name):
    """Both items' numbers of the best sum of utilities."""
    truth = envs.make(f"matrix/{name.partition(' ')[2]}").payoffs[..., 0]
    fit = additive_fit(truth)
    greedy = [int(u.argmax()) for u in fit.utilities]
    table = {
        "rewards": truth.tolist(), "q_tot": fit.q_tot.tolist(), "utilities": fit.utilities,
        "mse": fit.mse, "greedy": greedy,
    }  # fmt: skip
    verdict = {
        "igm": True, "monotone": True, "smallest_slope": 1.0, "mse": fit.mse,
        "finds_optimum": bool(truth[tuple(greedy)] == truth.max()),
        "additive_mse": fit.mse, "monotone_mse": monotone_fit(truth).mse,
    }  # fmt: skip
    return {name: [table]}, {name: [verdict]}


def both(trained):
    """Numbers of both items."""
    return [experiments()[item].measure(trained, Scale()) for item in ("decomposition", "igm")]


def verdicts(numbers):
    return [judged("decomposition", numbers[0]), judged("igm", numbers[1])]


@pytest.fixture(scope="module")
def tables(quick):
    """Numbers of both items, of correct algorithms; everything is measured before it is broken."""
    numbers = both({name: decomposed(name) for name in LEARNED})
    for name in recipes().keys() - LEARNED:
        numbers = [known | more for known, more in zip(numbers, stated(name), strict=True)]
    return numbers


def with_one(tables, name):
    """The same, one training done and measured as algorithms are now."""
    again = both({name: decomposed(name, train)})
    return [old | new for old, new in zip(tables, again, strict=True)]


def test_decompositions_of_correct_algorithms(tables):
    assert verdicts(tables) == [[], []]


def test_a_vdn_that_does_not_sum(tables, monkeypatch):
    monkeypatch.setattr(VDN, "joint", lambda self, mixer, q, central: q[..., :1])
    decomposition, igm = verdicts(with_one(tables, "vdn linear"))
    assert failing(decomposition, "VDN on linear")
    assert failing(igm, "Where the game can be represented")


def test_a_vdn_that_subtracts(tables, monkeypatch):
    """It learns the linear game exactly, by utilities that are greedy for the worst."""
    monkeypatch.setattr(VDN, "joint", lambda self, mixer, q, central: q[..., :1] - q[..., 1:])
    decomposition, igm = verdicts(with_one(tables, "vdn linear"))
    assert failing(decomposition)
    assert failing(igm, "Every learned", "Every one is monotone", "Where the game can be")


def test_a_bootstrap_from_the_start_of_the_next_episode(tables, wrong):
    def endless(rewards, terminated, next_values, gamma):
        return jax.lax.stop_gradient(rewards + gamma * next_values)

    wrong(losses.one_step_target, endless)
    decomposition, _ = verdicts(with_one(tables, "vdn linear"))
    assert failing(decomposition, "VDN on linear")


def test_a_qmix_without_absolute_weights(tables, monkeypatch):
    def signed(self, utilities, central):
        w1 = self.hyper_w1(central).reshape(*utilities.shape, self.embedding)
        hidden = jnp.einsum("...n,...ne->...e", utilities, w1) + self.hyper_b1(central)
        mixed = jnp.sum(jax.nn.elu(hidden) * self.hyper_w2(central), axis=-1)
        return mixed + self.value(central)[..., 0]

    monkeypatch.setattr(MonotonicMixer, "__call__", signed)
    decomposition, igm = verdicts(with_one(tables, "qmix climbing"))
    assert any(c.startswith("QMIX on climbing: monotone") for c in decomposition)
    assert "Every one is monotone, with no negative slope anywhere" in igm


def test_a_qmix_whose_mixer_is_never_trained(tables, monkeypatch):
    joint = make("qmix").joint.__func__
    still = lambda self, mixer, q, central: joint(self, frozen(mixer), q, central)  # noqa: E731
    monkeypatch.setattr(type(make("qmix")), "joint", still)
    decomposition, _ = verdicts(with_one(tables, "qmix monotonic"))
    assert failing(decomposition, "QMIX on monotonic")


def frozen(tree):
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)


# Foraging ----------------------------------------------------------------------------------------


def foraged(how=right, steps=60_000):
    """Ten steps: random play collects a third, the best possible is four fifths."""
    return how("vdn", "lbf/3x3-2p-1f", steps, 1, (("time_limit", 10),), **FORAGING)


def test_foraging_of_correct_and_of_wrong_algorithms(wrong):
    """One correct training stands for two of the three; the third learns the opposite."""
    correct, target = foraged(), losses.one_step_target
    wrong(target, lambda rewards, *more: target(-rewards, *more))
    trained = {"idqn": correct, "vdn": foraged(train, 20_000), "qmix": correct}
    numbers = experiments()["lbf"].measure(trained, Scale())
    assert 0.3 < numbers["random"] < 0.4
    assert failing(judged("lbf", numbers), "VDN beats random play")


@pytest.mark.parametrize(
    ("qmix", "passes"),
    [([0.4, 0.5, 0.45], True), ([0.9, 0.9, 0.0], False), ([0.3, 0.35, 0.34], False)],
    ids=["clearly", "by chance", "hardly"],
)  # fmt: skip
def test_random_play_is_beaten_clearly(qmix, passes):
    fine = {"per_seed": [0.8, 0.9]}
    numbers = {"idqn": fine, "vdn": fine, "qmix": {"per_seed": qmix}, "random": 0.18}
    assert failing(judged("lbf", numbers), *["QMIX beats random play"] * (not passes))


# The policy-gradient theorem ---------------------------------------------------------------------

EXACT = "{}: exact critics give no bias"
LOWER = "{}: a baseline lowers the variance"
BIASED = "stag-hunt, 2 rounds: wrong critics bias all but REINFORCE"
ONE, TWO = "climbing, 1 round", "stag-hunt, 2 rounds"


def measured(
    estimators=tuple(gradients.ESTIMATORS), games=tuple(policy_gradient.GAMES), samples=2**13
):
    """The item's numbers of some estimators in some games, from few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_gradient, "QUICK_SAMPLES", samples)
        patch.setattr(policy_gradient, "ESTIMATORS", estimators)
        chosen = {game: policy_gradient.GAMES[game] for game in games}
        patch.setattr(policy_gradient, "GAMES", chosen)
        return experiments()["policy-gradient"].measure({}, Scale(quick=True))


@pytest.fixture(scope="module")
def theorem():
    return measured()


def anew(theorem, estimator, game, samples=2**13):
    """The same numbers, one estimator's measured as it is now."""
    rows = measured((estimator,), (game,), samples)[game]
    return theorem | {game: {k: theorem[game][k] | rows[k] for k in rows}}


def test_the_theorem_of_correct_estimators(theorem):
    assert judged("policy-gradient", theorem) == []


@pytest.mark.parametrize(("game", "title"), [("climbing", ONE), ("stag-hunt", TWO)])
def test_a_gradient_without_the_minus(theorem, wrong, game, title):
    wrong(losses.policy_gradient, ascent)
    failed = judged("policy-gradient", anew(theorem, "maa2c", game))
    assert failing(failed, EXACT.format(title))


def test_a_counterfactual_baseline_of_the_best_action(theorem, wrong):
    """max instead of the expectation is still a baseline: no bias, and no claim turns."""

    def best(values, log_probs, chosen):
        return chosen - jnp.max(values, axis=-1)

    wrong(losses.counterfactual_advantage, best)
    assert judged("policy-gradient", anew(theorem, "coma", "climbing")) == []


def test_a_counterfactual_baseline_that_knows_the_own_action(theorem, wrong):
    def own(values, log_probs, chosen):
        return chosen - chosen * jnp.exp(jnp.max(log_probs, axis=-1))

    wrong(losses.counterfactual_advantage, own)
    failed = judged("policy-gradient", anew(theorem, "coma", "climbing"))
    assert failing(failed, EXACT.format(ONE))


def test_returns_without_what_comes_after(theorem, wrong):
    wrong(returns.n_step_return, lambda rewards, *rest: rewards)
    failed = judged("policy-gradient", anew(theorem, "ia2c", "stag-hunt", 2**16))
    assert failing(failed, EXACT.format(TWO))


def test_an_actor_critic_without_its_critic(theorem, monkeypatch):
    critics = dict(gradients.ESTIMATORS) | {"ia2c": gradients.reinforce}
    monkeypatch.setattr(gradients, "ESTIMATORS", critics)
    failed = judged("policy-gradient", anew(theorem, "ia2c", "stag-hunt"))
    assert failing(failed, LOWER.format(TWO), BIASED)
