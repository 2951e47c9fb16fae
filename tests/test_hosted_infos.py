"""Numbers in what Python environments call ``info``: read at an episode's end, and logged."""

import json
import math
import multiprocessing
import signal

import guests
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Tuple
from probes import small
from quick import quick_compilation
from test_hosted_training import SERIAL, WORKERS, lines

import coterie
from coterie import UsageError
from coterie.cli.entry import main
from coterie.python_envs import training as hosted_lanes
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.infos import MOST_NAMES, reported
from coterie.python_envs.bookkeeping import Reports
from coterie.runs import loop, plan


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Looks from the host after every few rollouts, and few lines in the log."""
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(hosted_lanes, "CHUNK_STEPS", 24)
        patch.setattr(loop, "LOG_POINTS", 3)
        patch.setattr(plan, "EPISODES", 4)
        yield


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert multiprocessing.active_children() == []


def train(out, python_env=SERIAL, name="idqn", report=None):
    settings = {"environments": 3, "hidden": (4,)}
    if name == "reinforce":
        settings["episode_steps"] = 7
    else:
        settings |= {"learning_starts": 20, "batch_size": 4, "update_ratio": 1 / 3}
        settings |= {"buffer_size": 600, "rollout_steps": 4}
    return coterie.train(
        small(name, **settings), guests.Score, 240, out=out, python_env=python_env, seeds=2,
        evaluations=2, evaluation_episodes=4, final_episodes=8, report=report,
    )  # fmt: skip


# What an environment reports -------------------------------------------------------------------


def test_numbers_of_infos():
    info = {
        "int": 3, "float": 0.5, "bool": True, "int64": np.int64(4), "float32": np.float32(0.25),
        "flag": np.bool_(False), "array": np.array(7), "team": {"a": 1, "deep": {"b": 2}},
        "text": "red", "vector": np.zeros(2), "nan": math.nan, "inf": math.inf, "none": None,
        "huge": 10**400, "_own": 1, "episode": {"r": 3.0}, "TimeLimit.truncated": True,
        "action_mask": np.ones(2), "x" * 101: 1, 3: 1,
    }  # fmt: skip
    expected = {"int": 3.0, "float": 0.5, "bool": 1.0, "int64": 4.0, "float32": 0.25, "flag": 0.0}
    expected |= {"array": 7.0, "team/a": 1.0}
    left_out = ("team/deep", "text", "vector", "nan", "inf", "none", "huge")
    assert reported([info]) == expected | dict.fromkeys(left_out)


def test_several_agents_report_the_mean_of_those_that_do():
    assert reported([{"a": 1, "b": 2}, {"a": 4, "b": math.nan}, {}, None]) == {"a": 2.5, "b": 2.0}
    many = {f"n{k}": k for k in range(MOST_NAMES + 3)}
    assert list(reported([many])) == list(many)[:MOST_NAMES]


def test_sums_go_on_from_what_was_kept():
    reports = Reports(2)
    reports.add(0, {"a": 1.0, "b": None})
    reports.add(0, {"a": 2.0, "c": 5.0})
    again = Reports(2, json.loads(json.dumps(reports.content())))
    again.add(1, {"a": 7.0})
    means = again.means()
    np.testing.assert_array_equal(means["a"], [1.5, 7.0])
    np.testing.assert_array_equal(means["c"], [5.0, np.nan])
    assert list(reports.left_out) == ["b"]


def test_agents_report_in_the_step_in_which_they_leave():
    env = PythonEnv(guests.Score())
    for seed in range(8):
        env.reset(seed)
        steps = 0
        while not env._over:
            steps += 1
            env.step(np.zeros(2, int))
        six = {"six": 1.0} if steps == 6 else {}
        wanted = {"goals": 2.5, "steps": steps, "time/idle": 0.5, "who": None} | six
        assert env.reported == wanted
    env = PythonEnv(guests.Score(), time_limit=1)  # cut by Coterie, while both go on
    env.reset(0)
    env.step(np.zeros(2, int))
    assert env.reported["goals"] == 2.5


class Pair(gymnasium.Env):
    """Gymnasium's one info for all; the first agent dies at step 1, all is over at step 2."""

    observation_space = Tuple((Box(0, 1, (1,)),) * 2)
    action_space = Tuple((Discrete(2),) * 2)

    def reset(self, seed=None, options=None):
        self.t = 0
        return np.zeros((2, 1)), {"t": 0}

    def step(self, actions):
        self.t += 1
        return np.zeros((2, 1)), 1.0, [True, self.t == 2], False, {"t": self.t}


def test_one_info_for_all_counts_at_the_end_only():
    env = PythonEnv(Pair())
    env.reset(0)
    env.step(np.zeros(2, int))
    assert env.reported == {}
    env.step(np.zeros(2, int))
    assert env.reported == {"t": 2.0}


# In the log ------------------------------------------------------------------------------------


def test_what_is_reported_is_logged_by_name(tmp_path, capsys):
    said = []

    def report(event, facts):
        if event == "warning":
            said.append(facts["sentence"])

    run = train(tmp_path / "run", report=report)
    found = lines(run)
    for play in ("train", "eval"):
        own = [line for line in found if f"{play}/length" in line]
        assert len(own) >= 6
        for line in own:
            assert line[f"{play}/info/goals"] == 2.5
            assert line[f"{play}/info/time/idle"] == 0.5
            assert line.get(f"{play}/info/six", 1.0) == 1.0
            # The agent that stays to the end reports how long the episode was.
            assert line[f"{play}/info/steps"] == pytest.approx(line[f"{play}/length"])
            assert f"{play}/info/who" not in line
    assert any("eval/info/six" in line for line in found)
    assert not all("eval/info/six" in line for line in found if "eval/length" in line)
    assert said == [
        "these entries of the infos of guests:Score are not logged, because they are no finite "
        "numbers or beyond the first 100 names: 'who'"
    ]
    summary = run.metrics["eval/info/steps"]
    assert summary["mean"] == pytest.approx(run.metrics["eval/length"]["mean"])
    assert coterie.open_run(run.path, guests.Score).metrics == run.metrics

    again = ["--environment", "guests:Score", "--workers", "0", "--episodes", "4", "--json"]
    assert main(["evaluate", str(run.path), *again, "--metric", "eval/info/goals"]) == 0
    shown = json.loads(capsys.readouterr().out)["metrics"]
    assert shown["eval/info/goals"]["mean"] == 2.5
    assert main(["evaluate", str(run.path), *again, "--metric", "eval/info/gaols"]) == 2
    assert "reported no 'eval/info/gaols'; there are eval/info/" in capsys.readouterr().err
    assert main(["plot", str(run.path), "--metric", "train/info/steps", "--out",
                 str(tmp_path / "x.png")]) == 0  # fmt: skip
    assert main(["report", str(run.path), "--metric", "eval/info/steps", "--out",
                 str(tmp_path / "x.html")]) == 0  # fmt: skip
    assert "steps (reported by the environment)" in (tmp_path / "x.html").read_text().lower()
    with pytest.raises(UsageError, match="no numbers of a metric 'train/info/goal'"):
        coterie.show.curves.plot([run.path], tmp_path / "x.png", metric="train/info/goal")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["idqn", "reinforce"])
def test_workers_change_nothing_of_what_is_logged(name, tmp_path):
    """REINFORCE, too, which breaks episodes off and counts one of each environment."""
    serial, spread = (train(tmp_path / str(h.workers), h, name) for h in (SERIAL, WORKERS))
    assert any("train/info/steps" in line for line in lines(serial))
    assert lines(serial) == lines(spread)


@pytest.mark.slow
def test_a_run_resumed_between_two_lines_logs_the_same_means(tmp_path):
    def stop(event, facts):
        if event == "progress" and facts["env_steps"] > 84:
            signal.raise_signal(signal.SIGINT)

    whole = train(tmp_path / "whole")
    with pytest.raises(coterie.Interrupted) as stopped:
        train(tmp_path / "cut", report=stop)
    assert stopped.value.steps not in {line["env_steps"] for line in lines(whole)}
    resumed = coterie.resume(stopped.value.path, environment=guests.Score)
    assert lines(resumed) == lines(whole)
