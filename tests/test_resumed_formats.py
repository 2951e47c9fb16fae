"""Runs of former formats open, evaluate and go on with the results that they would have had.

Those of ``runs_format_2`` know no diagnostics; those of ``runs_format_3`` have a replay that holds
two observations of each step.
"""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import coterie
from coterie.algorithms import find
from coterie.cli.entry import main

HERE = Path(__file__).parent
FORMATS = ("2", "3")
EXPECTED = {
    f"{number}/{name}": facts
    for number in FORMATS
    for name, facts in json.loads(
        (HERE / f"runs_format_{number}" / "expected.json").read_text()
    ).items()
}
COUNTER = "counter:Counter"
QUICK = ("2/central_q", "3/vdn")
SLOW = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EXPECTED]
ROUNDING = {"rel": 1e-3, "abs": 1e-4}
"""Other processors round otherwise."""


@pytest.fixture(scope="module")
def former(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    for number in FORMATS:
        with zipfile.ZipFile(HERE / f"runs_format_{number}" / "runs.zip") as file:
            file.extractall(folder / number)
    return folder


@pytest.fixture(autouse=True)
def counter(monkeypatch):
    """The Python environment of one run can be imported."""
    monkeypatch.syspath_prepend(HERE / "runs_format_1")
    yield
    sys.modules.pop("counter", None)


def again(name: str) -> str | None:
    return COUNTER if name.endswith("-python") else None


def kind(name: str) -> str:
    return Path(name).name.partition("-")[0]


def evaluated(path: Path, capsys) -> dict:
    more = ["--environment", COUNTER] if again(path.name) else []
    asked = ["--which", "last", "--episodes", "16", "--seed", "7", "--json"]
    assert main(["evaluate", str(path), *asked, *more]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    return {metric: facts["per_seed"] for metric, facts in metrics.items()}


def same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for metric, per_seed in expected.items():
        assert found[metric] == pytest.approx(per_seed, **ROUNDING), metric


def test_every_algorithm_is_there():
    assert {kind(name) for name in EXPECTED} == {
        "idqn", "vdn", "qmix", "central_q", "reinforce", "ia2c", "maa2c", "coma", "pac",
        "central_a2c", "ippo", "mappo",
    }  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_what_was_interrupted_ends_as_it_would_have(former, tmp_path, name, capsys):
    path = tmp_path / Path(name).name
    shutil.copytree(former / name, path)
    same(evaluated(path, capsys), EXPECTED[name]["interrupted"])
    before = (path / "metrics.jsonl").read_text().splitlines()
    run = coterie.resume(path, environment=again(name))
    assert run.complete
    leaves = [np.abs(np.asarray(x)).mean() for x in jax.tree.leaves(run.policies["last"])]
    assert leaves == pytest.approx(EXPECTED[name]["parameters"], **ROUNDING)
    same(evaluated(path, capsys), EXPECTED[name]["resumed"])
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    logged = any("train/learning_rate" in line for line in map(json.loads, before))
    assert logged == (name[0] > "2")
    later = [line for line in lines[len(before) :] if "updates" in line]
    assert all("train/learning_rate" in line for line in later)
    # What the checkpoint could not say is left out of the line that it is part of.
    known = find(kind(name)).diagnostics
    assert all(f"train/{d}" in later[-1] for d in known)
    assert all(np.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["central_q", "central_a2c"])
def test_the_same_command_goes_on_with_central_learners(former, tmp_path, name):
    """Their ``sharing``, which is recorded, is a setting no more."""
    path = tmp_path / name
    shutil.copytree(former / "2" / name, path)
    stored = json.loads((path / "config.json").read_text())
    assert stored["settings"]["sharing"] == "own"
    then = {
        "central_q": {
            "learning_starts": 40, "buffer_size": 160, "batch_size": 8, "double_q": False,
            "target_tau": None, "update_ratio": 1 / 16,
        },
        "central_a2c": {
            "n_steps": 1, "rollout_steps": 10, "activation": "tanh", "entropy": 0.01,
            "max_grad_norm": 0.5,
        },
    }  # fmt: skip
    run = coterie.train(
        name, "matrix/climbing", 400, seed=5,
        settings={"hidden": (4,), "environments": 4, **then[name]},
        seeds=stored["seeds"], options={"rounds": 4}, reward="sum", out=path, resume=True,
        evaluations=2, evaluation_episodes=4, final_episodes=8,
    )  # fmt: skip
    assert run.complete
