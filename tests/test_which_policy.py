"""Which policies stand for a run, by which return, and what they say of themselves."""

import io

import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie import envs
from coterie.errors import UsageError
from coterie.runs import evaluation as run_evaluation
from coterie.runs.evaluation import return_bounds, sum_bounds, summary
from coterie.show import curves
from coterie.show.numbers import of_steps
from coterie.show.report.of_runs import report
from coterie.show.terminal.console import Terminal
from coterie.show.terminal.returns import policies, render_returns
from coterie.training.evaluate import Played
from coterie.training.state import chosen_score
from coterie.views.game import Game

TINY = {"environments": 4, "hidden": (4,)}


def game(name, reward="individual"):
    return Game(envs.make(name), reward=reward)


@pytest.mark.parametrize(
    ("name", "conflict", "metric"),
    [
        ("matrix/climbing", False, "return/team_mean"),
        ("matrix/stag-hunt", False, "return/team_mean"),  # all prefer (A, A)
        ("matrix/prisoners-dilemma", True, "return/team_mean"),
        ("matrix/matching-pennies", True, "return/team_mean"),
        ("lbf/5x5-2p-1f", False, "return/team_sum"),
        ("mpe/simple-spread", False, "return/team_mean"),
        ("mpe/simple-tag", True, "return/team_mean"),
    ],
)
def test_whose_interests_conflict_and_which_return_is_told(name, conflict, metric):
    for reward in ("individual", "sum"):  # what the learner is given changes neither
        assert run_evaluation.interests_conflict(game(name, reward)) == conflict
        assert run_evaluation.headline(game(name, reward), True) == f"eval_sampled/{metric}"
    assert run_evaluation.headline(game(name), False) == f"eval/{metric}"


def test_policies_are_chosen_as_they_act():
    played = {
        "eval": (jnp.array([[[1.0, 1.0], [3.0, 1.0]]]), None),
        "eval_sampled": (jnp.array([[[5.0, 0.0], [6.0, 1.0]]]), None),
    }
    np.testing.assert_array_equal(chosen_score(played, True), [6.0])
    np.testing.assert_array_equal(chosen_score(played, False), [3.0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    def train(algorithm, name, **more):
        out = tmp_path_factory.mktemp("which") / "run"
        asked = {"steps": 400, "seeds": 2, "evaluation_episodes": 4, "final_episodes": 4} | more
        return coterie.train(algorithm, name, out=out, **asked)

    return train


@pytest.mark.slow
def test_with_one_evaluation_the_best_policy_is_the_last(trained):
    run = trained(coterie.IA2C(**TINY), "lbf/5x5-2p-1f", evaluations=1)
    assert run.which == "best"
    assert run.policy_steps == {"best": [400, 400], "last": [400, 400]}
    assert run.results["best"] == run.results["last"]
    for which in ("best", "last"):
        team = coterie.load(run.path, seed=1, which=which)
        assert (team.which, team.env_steps) == (which, 400)
    assert "best policies of step 400" in repr(coterie.load(run.path))
    assert coterie.open_run(run.path).policy_steps == run.policy_steps
    assert run.config["return_bounds"] == [0.0, 1.0]
    assert policies(run, "best", "last") == "best and last policies, of step 400"
    table = io.StringIO()
    Terminal(table, 100).print(render_returns(run, run.results))
    assert table.getvalue().count("return of the team (sum over agents), sampled") == 1
    metric = run.metrics["eval_sampled/return/team_sum"]
    assert 0 <= metric["ci95"][0] <= metric["ci95"][1] <= 1


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([400, 400], ", of step 400"),
        ([22_528, 4_096], ", of steps 22,528, 4,096 (by seed)"),
        ([6_000, 1_000, 3, 4, 5, 6], ", of steps 3 to 6,000"),
        ([400, None], ""),
        ([], ""),
    ],
)
def test_steps_of_policies_stand_in_the_order_of_their_seeds(steps, words):
    assert of_steps(steps) == words


def test_a_run_is_printed_in_a_line(trained):
    run = trained(coterie.IA2C(**TINY), "matrix/climbing")
    line = f"Run(ia2c on matrix/climbing; 2 seeds, 400 steps; in {run.path})"
    assert repr(run) == repr(coterie.open_run(run.path)) == line


def test_lengths_of_episodes_stay_within_the_time_limit():
    """Two seeds of 50 and 26 steps would have a t interval from -114 to 190."""
    bounds = return_bounds(game("lbf/5x5-2p-1f"))
    played = {"eval": Played(np.zeros((2, 1, 2)), np.array([[50.0], [26.0]]), {})}
    low, high = summary(("a", "b"), played)["eval/length"]["ci95"]
    assert low < 1
    assert high > 50
    assert summary(("a", "b"), played, bounds)["eval/length"]["ci95"] == [1.0, 50.0]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((np.float32(-1), np.array(2)), (-1.0, 2.0)),
        (None, None),
        ((-np.inf, 0.0), "two finite numbers"),
        ((1, 0), "two finite numbers"),
        ((1,), "two finite numbers"),
        (3, "two finite numbers"),
    ],
)
def test_bounds_that_an_environment_names_are_numbers(given, kept, monkeypatch):
    env = envs.make("matrix/climbing")
    monkeypatch.setattr(type(env), "return_bounds", lambda self: given)
    if isinstance(kept, str):
        with pytest.raises(UsageError, match=kept):
            sum_bounds(env)
    else:
        assert sum_bounds(env) == kept


@pytest.mark.parametrize(("ask", "out"), [(curves.plot, "x.png"), (report, "x.html")])
def test_sampled_play_by_name_and_greedy_play_by_flag_contradict(tmp_path, ask, out):
    with pytest.raises(UsageError, match="is of sampled play, and --greedy asks for greedy play"):
        ask([tmp_path], tmp_path / out, metric="eval_sampled/length", greedy=True)


@pytest.mark.slow
def test_where_interests_conflict_the_last_policy_stands_for_the_run(trained):
    run = trained(coterie.IA2C(**TINY), "matrix/prisoners-dilemma", evaluations=4)
    assert run.which == coterie.load(run.path).which == coterie.open_run(run.path).which == "last"
    assert run.metrics is run.results["last"]
    assert run.config["metric"] == "eval_sampled/return/team_mean"
    opened = coterie.open_run(run.path)
    assert opened.evaluate(episodes=4) == opened.evaluate(episodes=4, which="last")
