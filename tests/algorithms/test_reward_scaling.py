"""The units that rewards are learned in: they keep what is optimal, and each agent has its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, clock_at, collector, game_for, quick, small
from quick import quick_compilation

import coterie
from coterie.algorithms import algorithms, make
from coterie.cli.entry import main
from coterie.envs.base import Environment
from coterie.errors import UsageError
from coterie.spec import EnvSpec
from coterie.training.finite import without_replay
from coterie.types import TimeStep

OWN_REWARDS = ["idqn", "reinforce", "ia2c", "ippo", "maa2c", "mappo", "pac"]


@functools.cache
def course(name, scaling):
    """Three rollouts of an algorithm's first policies, and ``learn`` on given rewards of them."""
    algorithm = small(name, reward_scaling=scaling, learning_starts=0).resolve(500, 5)
    game = game_for(algorithm, Walk(mortal=False))
    init = quick(lambda key: algorithm.init(key, game))(jax.random.key(1))
    collect = collector(algorithm, game)
    seen, *_ = collect(algorithm.policy(init), [1.0, 1.0, 1.0])
    rollouts = [jax.tree.map(lambda x, k=k: jnp.asarray(x[0, k]), seen) for k in range(3)]
    step = quick(lambda *x: algorithm.learn(game, *x))

    def learn(change, count=3):
        learner = init
        for k, rollout in enumerate(rollouts[:count]):
            given = dataclasses.replace(rollout, rewards=change(rollout.rewards))
            learner, _ = step(learner, given, jax.random.key(k), clock_at(algorithm, k))
        return without_replay(learner)

    return game, rollouts, learn


def of_agent(learner, i, n=3):
    """All of a learner that is one agent's alone."""
    own = [x[i] for x in jax.tree.leaves(learner) if jnp.ndim(x) and len(x) == n]
    assert len(own) > 10
    return [np.asarray(x) for x in own]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scaling", ["scale", pytest.param("standardise", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("idqn", "reinforce", "ippo") else pytest.mark.slow)
        for n in OWN_REWARDS
    ],
)
def test_an_agent_learns_the_same_whatever_others_are_rewarded(name, scaling):
    """Parameters, targets, the optimiser and moments, bit for bit."""
    _, _, learn = course(name, scaling)
    before = learn(lambda rewards: rewards)
    for i in range(3):
        others = jnp.arange(3) != i
        after = learn(lambda rewards, others=others: jnp.where(others, 1e3 * rewards - 7, rewards))
        for k in range(3):
            assert same(of_agent(before, k), of_agent(after, k)) == (k == i)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("idqn", "reinforce") else pytest.mark.slow)
        for n in ("idqn", "vdn", "reinforce", "ia2c")
    ],
)
def test_scaling_divides_by_a_positive_number_and_takes_nothing_away(name):
    """What is learned of scaled rewards is what is learned of rewards divided by hand."""
    game, rollouts, learn = course(name, "scale")
    paid, start = np.asarray(rollouts[0].rewards, np.float64) + 50, np.asarray(rollouts[0].start)
    if game.reward != "individual":
        paid = paid.sum(-1, keepdims=True)
    if name in ("reinforce", "ia2c"):  # by the size of values, not of rewards
        for t in range(1, len(paid)):
            paid[t] += 0.99 * np.where(start[t][:, None], 0.0, paid[t - 1])
    if name == "reinforce":  # which learns from the first episode in each environment
        paid = paid[np.cumsum(start, axis=0) == 1]
    size = np.sqrt((paid.reshape(-1, paid.shape[-1]) ** 2).mean(0)).astype(np.float32)
    scaled = learn(lambda rewards: rewards + 50, 1)
    _, _, learn = course(name, "none")
    by_hand = learn(lambda rewards: (rewards + 50) / size, 1)
    units = ("moments", "so_far")
    parts = ({k: v for k, v in vars(x).items() if k not in units} for x in (scaled, by_hand))
    for one, other in zip(*map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cls", algorithms().values(), ids=algorithms())
def test_no_default_shifts_rewards_and_the_shift_is_announced(cls):
    game = game_for(cls(), Walk(mortal=False), "mean" if cls.common_reward else "individual")
    assert cls().reward_scaling in ("scale", "none")
    said = {scaling: cls(reward_scaling=scaling).remarks(game) for scaling in SCALINGS}
    assert said["scale"] == said["none"]
    assert len(said["standardise"]) == len(said["none"]) + 1
    assert any("subtracts the mean reward" in sentence for sentence in said["standardise"])


def test_a_run_that_shifts_rewards_says_so_at_the_start(capsys, tmp_path):
    few = ["--steps", "40", "--evaluations", "1", "--final-episodes", "0", "--environments", "2"]
    command = ["train", "ia2c", "matrix/climbing", *few, "--out", str(tmp_path / "run")]
    with quick_compilation(tmp_path / "compiled"):
        assert main([*command, "--reward-scaling", "standardise"]) == 0
    assert "subtracts the mean reward" in " ".join(capsys.readouterr().err.split())


SCALINGS = ("scale", "standardise", "none")
SENTENCE = "standardise_rewards is now reward_scaling: standardise for True, none for False"


def test_the_former_setting_is_answered_with_the_present_one(capsys):
    for attempt in (make, lambda name, **settings: coterie.IDQN(**settings)):
        with pytest.raises(UsageError, match=SENTENCE):
            attempt("idqn", standardise_rewards=False)
    for flag in ("--standardise-rewards", "--no-standardise-rewards"):
        assert main(["train", "idqn", "matrix/climbing", flag]) == 2
        assert SENTENCE in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["mean", "Scale", ""])
def test_unknown_units_are_refused(wrong):
    for cls in (coterie.IDQN, coterie.MAPPO):
        with pytest.raises(UsageError, match="reward_scaling"):
            cls(reward_scaling=wrong)


# Games where the length of an episode is a choice ----------------------------------------------


class Stay(Environment):
    """Both agents get ``stay`` at every step until one leaves, at ``leave``, or ``last`` steps."""

    agents = ("a", "b")

    def __init__(self, stay, leave, last):
        self.stay, self.leave, self.last = stay, leave, last

    def spec(self):
        width = self.last + 1
        return EnvSpec(self.agents, (width, width), (2, 2), central_size=width, time_limit=50,
                       reward="mean")  # fmt: skip

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._show(jnp.zeros((), jnp.int32), 0.0, False)

    def step(self, key, state, actions):
        leaves = (actions == 1).any()
        reward = jnp.where(leaves, self.leave, self.stay)
        return state + 1, self._show(state + 1, reward, leaves | (state + 1 >= self.last))

    def _show(self, state, reward, over):
        seen = jax.nn.one_hot(state, self.last + 1)
        return TimeStep(
            observations=jnp.stack([seen, seen]),
            rewards=jnp.full(2, reward, jnp.float32),
            terminated=jnp.asarray(over),
            truncated=jnp.zeros((), bool),
            central=seen,
        )


GAMES = {
    # Nine times 0.5 and, leaving at the tenth step, 1: 5.5. Leaving at once is 1.
    "worth staying": (Stay(0.5, 1.0, 10), 5.5),
    # Leaving at once is -2. Staying to the end is -10.
    "worth leaving": (Stay(-0.5, -2.0, 20), -2.0),
}


def learned_return(algorithm, game, steps, folder):
    """What each of two seeds' last policies earn greedily."""
    with quick_compilation(folder):
        run = coterie.train(
            algorithm, game, steps, seeds=2, evaluations=1, evaluation_episodes=1, final_episodes=0
        )
        return run.evaluate(1, "last")["eval/return/team_mean"]["per_seed"]


SMALL = {
    "idqn": coterie.IDQN(hidden=(16,), lr=3e-3, update_ratio=1 / 8, learning_starts=1_000),
    "ippo": coterie.IPPO(hidden=(16,), lr=3e-3, environments=16),
}


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("name", SMALL)
def test_staying_is_learned_where_it_is_best_and_leaving_where_that_is(name, game, tmp_path):
    environment, best = GAMES[game]
    assert learned_return(SMALL[name], environment, 20_000, tmp_path) == [best, best]
