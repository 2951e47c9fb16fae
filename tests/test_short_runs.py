"""A run that cannot learn, or lacks what it needs, says so before it starts; defaults adapt."""

import itertools
import json

import numpy as np
import pytest

import coterie
from coterie.algorithms import algorithms, find, make
from coterie.learners.parts import target_rate
from coterie.views.game import Game

STEPS = (1, 7, 100, 999, 3_000, 30_000, 1_000_000)
ENVIRONMENTS = (1, 2, 3, 5, 6, 7, 10, 16, 64)
LIMIT = 50


def rollouts_of(algorithm, steps: int) -> tuple[int, int]:
    """Counted one by one: how many rollouts a run makes, and its steps."""
    each, environments = algorithm.rollout_shape()
    made = rollouts = 0
    while made < steps:
        made, rollouts = made + each * environments, rollouts + 1
    return rollouts, made


def updates_of(algorithm, rollouts: int) -> int:
    """What the clock hands out, where it does."""
    clock = algorithm.schedules(np.arange(rollouts))
    updates = int(clock["updates"].sum()) if "updates" in clock else algorithm.updates(rollouts)
    assert updates == algorithm.updates(rollouts)
    return updates


@pytest.mark.parametrize("name", algorithms())
def test_default_settings_learn_in_runs_of_any_length_with_any_number_of_environments(name):
    for steps, environments in itertools.product(STEPS, ENVIRONMENTS):
        algorithm = make(name, environments=environments).resolve(steps, LIMIT)
        rollouts, made = rollouts_of(algorithm, min(steps, 30_000))
        updates, told = updates_of(algorithm, rollouts), algorithm.shortfalls(steps)
        if steps <= 30_000:
            assert updates > 0, (steps, environments)
            assert (made > 1.1 * steps) == any("instead of" in line for line in told)
            interval = getattr(algorithm, "target_interval", None)
            if interval is not None:
                assert updates >= interval or any("are copied every" in line for line in told)
        assert len(told) <= 2


def test_long_runs_have_the_usual_defaults():
    idqn, ippo = (make(n).resolve(10**6, LIMIT) for n in ("idqn", "ippo"))
    assert (idqn.learning_starts, idqn.epsilon_steps) == (10_000, 250_000)
    assert target_rate(idqn) == 0.01
    copied = make("idqn", target_tau=None).resolve(10**6, LIMIT)
    assert (copied.target_interval, target_rate(copied)) == (200, None)
    assert ippo.minibatches == 4
    assert idqn.shortfalls(10**6) == ippo.shortfalls(10**6) == []


def test_a_short_run_has_defaults_in_proportion():
    short = make("vdn", target_tau=None).resolve(3_000, LIMIT)
    assert (short.learning_starts, short.epsilon_steps) == (300, 750)
    assert short.updates(short.iterations(3_000)) == 2 * ((3_008 - 304) // 16 + 1)
    assert short.target_interval == 340 // 5
    assert short.shortfalls(3_000) == []
    assert make("vdn").resolve(3_000, LIMIT).shortfalls(3_000) == []


@pytest.mark.parametrize("name", ["vdn", "pac"])
def test_an_interval_replaces_the_default_moving_average_and_no_other(name):
    assert target_rate(make(name)) == 0.01
    assert target_rate(make(name, target_interval=100)) is None
    assert target_rate(make(name, target_interval=100, target_tau=0.1)) == 0.1
    assert target_rate(make("maa2c", target_interval=100)) is None


@pytest.mark.parametrize("name", [n for n in algorithms() if hasattr(find(n), "learning_starts")])
def test_what_a_q_learner_lacks_is_told_and_nothing_else(name):
    """With settings given, of which some combinations leave a run without what it needs."""
    seen = set()
    for steps, starts, interval, ratio, epsilon, recurrent in itertools.product(
        (50, 4_000), (0, 900, 10_000), (1, 60, 10**5), (1 / 64, 1 / 3),
        (1, 2_000), (False, True),
    ):  # fmt: skip
        algorithm = make(
            name, environments=3, learning_starts=starts, target_interval=interval,
            update_ratio=ratio, epsilon_steps=epsilon, recurrent=recurrent, sequence_length=5,
        ).resolve(steps, LIMIT)  # fmt: skip
        assert algorithm.learning_starts == starts
        rollouts, made = rollouts_of(algorithm, steps)
        updates = updates_of(algorithm, rollouts)
        after = algorithm.schedules(np.array([rollouts]))["epsilon"][0]
        lacks = {
            "makes no update; lower --learning-starts": updates == 0,
            "lower --target-interval": 0 < updates < interval,
            "instead of": made > 1.1 * steps,
            "lower --epsilon-steps": epsilon > steps,
        }
        assert after <= algorithm.epsilon_end + 1e-6 or lacks["lower --epsilon-steps"]
        told = algorithm.shortfalls(steps)
        assert len(told) == sum(lacks.values())
        for words, expected in lacks.items():
            assert any(words in line for line in told) == expected, (words, steps, algorithm)
        seen |= {words for words, expected in lacks.items() if expected}
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("idqn", {"lr_end": 0.0, "lr_steps": 5_000}, "lr moves over 5,000 steps, but the run has"),
        ("ippo", {"lr_end": 1e-5, "lr_steps": 5_000}, "it does not reach 1e-05; lower --lr-steps"),
        ("idqn", {"lr_steps": 500}, "--lr-steps has no use without --lr-end"),
        ("ia2c", {"entropy_steps": 500}, "--entropy-steps has no use without --entropy-end"),
        ("pac", {"entropy_steps": 5_000}, "entropy moves over 5,000 steps, but the run has 4,000"),
        ("coma", {}, "targets are copied every 200 updates, but the run makes 25"),
        ("maa2c", {"target_interval": 51}, "but the run makes 50: they stay as they were"),
        ("maa2c", {"target_interval": 5, "target_tau": 0.1}, "target_interval has no use"),
        ("qmix", {"target_interval": 5, "target_tau": 0.1}, "target_interval has no use"),
        ("ia2c", {"n_steps": 20}, "at most so many rewards and not 20"),
    ],
)
def test_settings_without_use_are_told(name, settings, sentence):
    (told,) = make(name, **settings).resolve(4_000, LIMIT).shortfalls(4_000)
    assert sentence in told


def test_a_longest_episode_that_is_never_reached_is_told():
    game = Game(coterie.make("lbf/5x5-2p-1f", time_limit=20))
    (told,) = make("reinforce", episode_steps=100).resolve(10**5, 20).remarks(game)
    assert "episodes end after 20 steps at the latest, but every rollout goes on for 100" in told
    assert make("reinforce").resolve(10**5, 20).remarks(game) == []
    assert make("reinforce", episode_steps=10).resolve(10**5, 20).remarks(game) == []


@pytest.mark.parametrize("environments", range(1, 25))
def test_minibatches_divide_the_environments_by_themselves(environments):
    for name in ("ippo", "mappo"):
        algorithm = make(name, environments=environments).resolve(1_000, LIMIT)
        assert environments % algorithm.minibatches == 0
        larger = range(algorithm.minibatches + 1, 5)
        assert all(environments % more for more in larger)


def test_minibatches_that_are_given_and_do_not_divide_are_refused():
    with pytest.raises(coterie.UsageError, match="4 must divide 6"):
        coterie.IPPO(environments=6, minibatches=4)


class Begun(Exception):
    """The run is about to begin."""


def told_before(path, algorithm, steps, **more) -> list[str]:
    """Sentences that a user reads before the first step."""
    told = []

    def report(event, facts):
        if event == "saving":  # the state before the first step
            raise Begun
        told.append(facts.get("sentence", event))

    with pytest.raises(Begun):
        coterie.train(algorithm, "matrix/climbing", steps, out=path, report=report, **more)
    assert told[0] == "start"
    return told[1:]


def test_what_a_run_lacks_is_told_before_it_starts(tmp_path):
    late = coterie.VDN(learning_starts=400, hidden=(4,), buffer_size=1_024)
    assert told_before(tmp_path / "late", late, 300, reward="sum", evaluations=100) == [
        "learning starts after 400 steps, but the run has 300: it makes no update; lower "
        "--learning-starts",
        "policies are evaluated between rollouts, and the run makes 19: there are 19 evaluations "
        "along the way instead of 100",
    ]


@pytest.mark.slow
def test_a_short_run_learns(tmp_path):
    """As the log of training has it, and without a word."""
    told = []
    coterie.train(
        coterie.VDN(hidden=(4,), buffer_size=1_024), "matrix/climbing", 300, reward="sum",
        out=tmp_path / "run", evaluations=1, evaluation_episodes=2, final_episodes=0,
        report=lambda event, facts: told.append(facts.get("sentence")),
    )  # fmt: skip
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    updates = [line["updates"] for line in map(json.loads, lines) if "updates" in line]
    assert updates[-1] == 2 * ((304 - 32) // 16 + 1)
    assert set(told) == {None}
