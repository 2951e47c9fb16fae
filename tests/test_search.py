"""Searches: spaces, proposals that follow from what is recorded, a search killed and continued."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import coterie
from coterie import UsageError
from coterie.sweeps.api import searched
from coterie.sweeps.search import importances
from coterie.sweeps.space import Axis, combinations

LR = {"low": 1e-6, "high": 1e-1, "log": True}
TINY = {
    "algorithms": ["ia2c"],
    "environments": ["matrix/climbing"],
    "steps": 4000,
    "seeds": 2,
    "evaluations": 1,
    "evaluation_episodes": 2,
    "final_episodes": 8,
}


def _with(search=None, space=None, **more):
    search = {"trials": 4} if search is None else search
    return TINY | {"search": search | {"space": {"lr": LR} if space is None else space}} | more


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (_with({}), "needs trials"),
        (_with({"trials": 0}), "trials of [search] must be a whole number from 1 to 10,000; got 0"),
        (_with({"trials": 4, "epochs": 1}), "it has trials, sampler, seed, metric, direction, sp"),
        (_with({"trials": 4, "sampelr": "tpe"}), "did you mean sampler?"),
        (_with({"trials": 4, "sampler": "cmaes"}), "must be tpe, random or grid"),
        (_with({"trials": 4, "metric": "loss"}), "one of the final evaluation"),
        (_with({"trials": 4, "metric": "eval/return"}), "got 'eval/return'; did you mean eval/"),
        (_with({"trials": 4, "metric": "eval/info/"}), "one of the final evaluation"),
        (_with({"trials": 4, "metric": "eval/length"}), "needs direction"),
        (
            _with({"trials": 4, "metric": "eval_sampled/return/team_sum"}, algorithms=["vdn"]),
            "vdn samples no actions: metric of [search] must begin with eval/",
        ),
        (_with(space={}), "no setting to search"),
        (_with(space={"lrr": LR}), "did you mean lr?"),
        (_with(space={"learning_rate": LR}), "did you mean lr?"),
        (_with(space={"quark": LR}), "(coterie train ia2c matrix/climbing --help lists them)"),
        (_with(space={"lr": 0.1}), "must be a table"),
        (_with(space={"lr": {"min": 1}}), "it has choices, low, high, log, step"),
        (_with(space={"lr": LR | {"log": 1}}), "log of lr in [search.space] must be true or false"),
        (_with(space={"lr": {"lwo": 1}}), "did you mean low?"),
        (_with(space={"lr": {"low": 0.1}}), "needs low and high"),
        (_with(space={"lr": {"low": 0.1, "high": 0.1}}), "must be less than high"),
        (_with(space={"lr": {"low": -1, "high": 0.1}}), "low of lr in [search.space] must be a n"),
        (_with(space={"lr": {"low": "a", "high": 0.1}}), "low of lr in [search.space] must be"),
        (_with(space={"gamma": {"low": 0, "high": 1, "log": True}}), "needs low above 0"),
        (_with(space={"lr": LR | {"step": 0.1}}), "leave one out"),
        (_with(space={"lr": LR | {"choices": [0.1, 0.2]}}), "leave one out"),
        (_with(space={"lr": {"choices": [0.1]}}), "two values or more"),
        (_with(space={"lr": {"choices": [0.1, 0.1]}}), "twice"),
        (_with(space={"hidden": {"low": 1, "high": 3}}), "give choices"),
        (
            _with(space={"hidden": {"choices": [64, 128]}}),
            "each choice of hidden in [search.space] "
            "must be a list of 1 to 64 values, each a whole number from 1 to 1e6; got 64",
        ),
        (_with(space={"n_steps": {"low": 1, "high": 2.5}}), "must be whole numbers"),
        (_with(space={"n_steps": {"low": 1, "high": 4, "step": 2}}), "plus whole steps"),
        (_with(space={"n_steps": {"low": 1, "high": 2}}), "has 2 points"),
        (_with(space={"seed": {"low": 1, "high": 9}}), "cannot be searched"),
        (_with({"sampler": "grid"}), "lr has too many"),
        (_with(lr=0.1), "in [search.space] and as a setting with one value: leave one out"),
        (_with(grid={"lr": [0.1]}), "in [search.space] and in a grid: leave one out"),
        (_with(final_episodes=0), "final_episodes must not be 0"),
        (_with(ia2c={"lr": 0.1}), "no setting to search for ia2c"),
        (_with(ia2c={"search": {"trials": 3}}), "takes a space alone"),
        (TINY | {"search": 3}, "must be a table"),
        (_with(algorithms=3), "needs algorithms"),
        (TINY | {"serach": {}}, "did you mean search?"),
        (TINY | {"ia2c": {"search": {"space": {"lr": LR}}}}, "[ia2c.search] needs a table"),
        (_with(vdn={"search": {"space": {"lr": LR}}}), "vdn is not among its algorithms"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tables, sentence):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as refused:
        searched(tables) or coterie.sweeps.api.planned(tables)
    assert sentence in str(refused.value)


def test_the_example_of_the_documentation_is_a_search():
    text = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
    example = text.split("## Search", 1)[1].split("```toml\n", 1)[1].split("```", 1)[0]
    studies = searched(tomllib.loads(example))
    assert [study.count for study in studies] == [20] * 4
    assert studies[0].next().name == "ia2c-lbf-5x5-2p-1f-recurrent-false-trial-000"


def test_a_study_for_each_algorithm_environment_and_combination_of_the_grid():
    studies = searched(
        _with(
            algorithms=["ia2c", "vdn"],
            grid={"gamma": [0.9, 0.99]},
            vdn={"lr": 0.1, "search": {"space": {"batch_size": {"choices": [8, 16, 32, 64]}}}},
        )
    )
    assert [(s.base.name, [a.name for a in s.axes]) for s in studies] == [
        ("ia2c-matrix-climbing-gamma-0.9", ["lr"]),
        ("ia2c-matrix-climbing-gamma-0.99", ["lr"]),
        ("vdn-matrix-climbing-gamma-0.9", ["batch_size"]),
        ("vdn-matrix-climbing-gamma-0.99", ["batch_size"]),
    ]
    cell = studies[0].next()
    assert cell.name == "ia2c-matrix-climbing-gamma-0.9-trial-000"
    assert cell.varied == {"gamma": 0.9, "lr": cell.settings["lr"]}


SPACE = {
    "lr": LR,
    "hidden": {"choices": [[8], [8, 8]]},
    "n_steps": {"low": 1, "high": 9, "step": 4},
}


def _searched(sampler, trials, objective=lambda v: -abs(math.log10(v["lr"]) + 2), space=None):
    """A study whose trials all came to something, without any training."""
    (study,) = searched(_with({"trials": trials, "sampler": sampler}, space or SPACE))
    while cell := study.next():
        study.trials[-1].value = objective(cell.varied)
    return study


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_follow_from_what_is_recorded_and_none_comes_twice(sampler):
    study, again = (_searched(sampler, 16) for _ in range(2))
    values = [trial.cell.varied for trial in study.trials]
    assert values == [trial.cell.varied for trial in again.trials]
    assert len({json.dumps(v) for v in values}) == 16
    assert {v["n_steps"] for v in values} == {1, 5, 9}
    assert all(float(f"{v['lr']:.4g}") == v["lr"] and 1e-6 <= v["lr"] <= 0.1 for v in values)
    # After a kill: trials come back from the file, and the next one is the one it would have been.
    (other,) = searched(_with({"trials": 16, "sampler": sampler}, SPACE))
    for trial in study.trials[:12]:
        other.trial(trial.cell.varied)
        other.trials[-1].value = trial.value
    assert other.next().varied == values[12]


def test_tpe_learns_from_the_trials_and_random_search_does_not():
    def late(sampler):
        study = _searched(sampler, 40, space={"lr": LR})
        return sum(trial.value for trial in study.trials[20:]) / 20

    assert late("tpe") > -0.6  # random values are 1.7 decades away on average
    assert late("random") < -1


def test_a_small_space_is_searched_to_its_end_and_a_grid_in_an_order_of_its_own():
    space = {"n_steps": {"low": 1, "high": 4}, "lr": {"low": 0.1, "high": 0.3, "step": 0.1}}
    every = {json.dumps(v) for v in combinations(searched(_with(space=space))[0].axes)}
    assert len(every) == 12
    for sampler in ("tpe", "grid"):
        study = _searched(sampler, 12, lambda v: -v["lr"], space)
        assert {json.dumps(t.cell.varied) for t in study.trials} == every
    (grid,) = searched(_with({"sampler": "grid"}, space))
    assert grid.count == 12


def test_steps_are_numbers_as_people_write_them():
    axis = Axis("gamma", None, 0.1, 0.7, step=0.1)
    assert [*axis.values()] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [axis.value(0.1 + k * 0.1) for k in range(7)] == [*axis.values()]  # as Optuna adds up
    assert 0.1 + 2 * 0.1 != 0.3


def test_a_narrow_range_is_searched_with_more_digits():
    study = _searched("tpe", 6, space={"lr": {"low": 0.1, "high": 0.10001}})
    assert len({trial.cell.varied["lr"] for trial in study.trials}) == 6


def test_failed_and_running_trials_count_as_such():
    (study,) = searched(_with({"trials": 30}, {"lr": LR}))
    for _ in range(14):
        study.trials[-1].value = 1.0 if study.next().varied["lr"] < 1e-4 else math.nan
    study.trials[3].value = None
    assert study.next() is not None
    told = [(trial.cell.varied, trial.value) for trial in study.trials]
    assert study.found()["best"]["value"] == 1.0
    assert importances(study.axes, told, "max") is None  # all that are known came to the same


def test_importance_is_that_of_the_setting_that_decides():
    study = _searched("random", 40)
    found = study.found()["importance"]
    assert next(iter(found)) == "lr"
    assert found["lr"] > 0.6
    assert sum(found.values()) == pytest.approx(1)
    assert _searched("random", 9).found()["importance"] is None


def test_axes_come_back_from_a_file_as_they_were():
    for axis in searched(_with(space=SPACE))[0].axes:
        assert Axis.of_json(axis.name, json.loads(json.dumps(axis.as_json()))).distribution() == (
            axis.distribution()
        )


def test_without_optuna_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"needs the extra search: pip install"):
        searched(_with())


def _toml(tables):
    head = {k: v for k, v in tables.items() if k != "search"}
    how = {k: v for k, v in tables["search"].items() if k != "space"}
    text = "\n".join(f"{k} = {json.dumps(v)}" for k, v in head.items()) + "\n[search]\n"
    text += "\n".join(f"{k} = {json.dumps(v)}" for k, v in how.items())
    return text + f"\n[search.space]\nlr = {{low = {LR['low']}, high = {LR['high']}, log = true}}\n"


def _trials(out):
    try:
        return json.loads((out / "sweep.json").read_text())["cells"]
    except FileNotFoundError:
        return []


def _until(holds, seconds=200.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_finds_a_better_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_COMPILATION_CACHE", str(tmp_path / "programs"))
    file, out = tmp_path / "s.toml", tmp_path / "out"
    tables = _with({"trials": 4, "seed": 1})
    file.write_text(_toml(tables))
    words = [sys.executable, "-m", "coterie", "sweep", str(file), "--out", str(out)]
    words += ["--workers", "1"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    _until(lambda: len(_trials(out)) == 2)  # the first is complete, the second is on its way
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begun = _trials(out)
    _until(lambda: not _runs(out / "cells" / begun[1]["name"]))
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = _trials(out)
    assert trials[: len(begun)] == begun
    assert [cell["trial"] for cell in trials] == [0, 1, 2, 3]
    rates = [cell["varied"]["lr"] for cell in trials]
    assert len(set(rates)) == 4
    assert all(coterie.open_run(out / "cells" / cell["name"]).complete for cell in trials)

    # What an uninterrupted search would have proposed, from the same results.
    (study,) = searched(tables)
    values = [_value(out / "cells" / cell["name"]) for cell in trials]
    for rate, value in zip(rates, values, strict=True):
        assert study.next().varied["lr"] == rate
        study.trials[-1].value = value

    (found,) = json.loads(done.stdout)["search"]
    assert found["best"]["value"] == max(values)
    bad = coterie.train(
        "ia2c", "matrix/climbing", steps=4000, seeds=2, out=tmp_path / "bad",
        settings={"lr": LR["low"]}, evaluations=1, evaluation_episodes=2, final_episodes=8,
    )  # fmt: skip
    assert max(values) > _value(bad.path) + 2
    with pytest.raises(UsageError, match="another seed"):
        coterie.sweep(_with({"trials": 4, "seed": 2}), out)
    with pytest.raises(UsageError, match="another space"):
        coterie.sweep(_with({"trials": 4, "seed": 1}, {"lr": LR | {"high": 0.5}}), out)
    with pytest.raises(UsageError, match="holds a search"):
        coterie.sweep(TINY, out)
    assert _trials(out) == trials


def _runs(run: Path) -> bool:
    try:
        os.kill(json.loads((run / ".lock").read_text())["process"], 0)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _value(run: Path) -> float:
    return coterie.open_run(run).metrics["eval_sampled/return/team_mean"]["mean"]
