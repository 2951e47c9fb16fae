"""Forks go on from a run with other settings; warm starts begin with another run's networks."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import coterie
from coterie.errors import Interrupted, UsageError
from coterie.runs import warm_start
from coterie.runs.learner import learner
from coterie.show.report.of_runs import report
from coterie.storage.config_file import check_config, identity
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import leaf_name
from coterie.training.devices import Devices

TASK = {"steps": 400, "seeds": 2, "evaluations": 4, "evaluation_episodes": 4, "final_episodes": 4}


def ia2c(**settings):
    return coterie.IA2C(**({"environments": 4, "rollout_steps": 5, "hidden": (8,)} | settings))


def trained(algorithm, environment="matrix/climbing", out=None, **more):
    return coterie.train(algorithm, environment, **(TASK | more), out=out)


def files(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def log(path):
    """The lines of a log, without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k != "seconds" and not k.startswith("steps_per")}
        for line in RunDirectory(path).lines()
    ]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    out = tmp_path_factory.mktemp("parent") / "run"
    trained(ia2c(), out=out)
    return out


# Forks --------------------------------------------------------------------------------------------


def test_a_fork_is_a_copy_with_other_settings_and_leaves_its_parent_alone(parent, tmp_path):
    before = files(parent)
    fork = coterie.resume(parent, steps=600, settings={"lr": 0.01}, fork=tmp_path / "fork")
    assert files(parent) == before
    assert fork.steps == 600
    assert fork.config["settings"]["lr"] == 0.01
    assert fork.config["fork"] == {
        "of": str(parent),
        "run": identity(RunDirectory(parent).config()),
        "env_steps": 400,
        "changed": {"lr": [0.0005, 0.01]},
    }
    assert log(tmp_path / "fork")[: len(log(parent))] == log(parent)
    opened = coterie.open_run(tmp_path / "fork")
    assert opened.complete
    assert coterie.load(tmp_path / "fork").env_steps is not None


def test_what_a_fork_does_not_change_goes_on_as_in_the_parent(parent, tmp_path):
    """A setting that has no effect any more changes no number."""
    coterie.resume(parent, steps=600, settings={"entropy_steps": 100}, fork=tmp_path / "fork")
    trained(ia2c(), out=tmp_path / "calm")
    coterie.resume(tmp_path / "calm", steps=600)
    assert log(tmp_path / "fork") == log(tmp_path / "calm")
    coterie.resume(parent, steps=600, settings={"lr": 0.05}, fork=tmp_path / "other")
    assert log(tmp_path / "other") != log(tmp_path / "calm")


def test_a_fork_is_resumed_like_any_run(parent, tmp_path):
    class Enough(Exception):
        pass

    def enough(event):
        if event.env_steps >= 500:
            raise Enough

    with pytest.raises(Enough):
        coterie.resume(
            parent, steps=600, settings={"lr": 0.01}, fork=tmp_path / "fork", callback=enough
        )
    coterie.resume(tmp_path / "fork")
    coterie.resume(parent, steps=600, settings={"lr": 0.01}, fork=tmp_path / "calm")
    assert log(tmp_path / "fork") == log(tmp_path / "calm")


def test_value_based_runs_are_forked_with_their_replay(tmp_path):
    algorithm = coterie.VDN(environments=4, buffer_size=200, learning_starts=40, hidden=(8,))
    trained(algorithm, out=tmp_path / "run")
    fork = coterie.resume(
        tmp_path / "run", steps=600, settings={"double_q": False}, fork=tmp_path / "fork"
    )
    assert fork.config["fork"]["changed"] == {"double_q": [True, False]}


def test_what_follows_from_the_steps_is_resolved_anew(parent, tmp_path):
    fork = coterie.resume(parent, steps=800, settings={"lr_end": 1e-5}, fork=tmp_path / "fork")
    assert fork.config["settings"]["lr_steps"] == 800


def test_a_fork_touches_nothing_beside_it_and_takes_an_empty_directory(parent, tmp_path):
    (tmp_path / "fork.fork").mkdir()
    (tmp_path / "fork.fork" / "thesis").touch()
    (tmp_path / "fork").mkdir()
    coterie.resume(parent, steps=600, fork=tmp_path / "fork")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fork", "fork.fork"]
    assert (tmp_path / "fork.fork" / "thesis").exists()
    trained(ia2c(), out=tmp_path / "calm")
    coterie.resume(tmp_path / "calm", steps=600)
    assert log(tmp_path / "fork") == log(tmp_path / "calm")


def test_a_fork_has_the_log_that_its_checkpoint_knew(tmp_path):
    """Killed in its first evaluation, a run has lines that its checkpoint does not know."""

    class Killed(BaseException):
        pass

    def kill(event):
        if event.kind == "start":
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
        if event.kind == "evaluation":
            shutil.copy(tmp_path / "run/metrics.jsonl", tmp_path / "copy/metrics.jsonl")
            raise Killed

    with pytest.raises(Killed):
        trained(ia2c(), out=tmp_path / "run", callback=kill)
    assert len(log(tmp_path / "copy")) == 2
    coterie.resume(tmp_path / "copy", fork=tmp_path / "fork")
    trained(ia2c(), out=tmp_path / "calm")
    assert log(tmp_path / "fork") == log(tmp_path / "calm")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lrr": 1.0}, "has no setting 'lrr'; did you mean lr"),
        ({"lr": -1.0}, "lr must be"),
        ({"lr": 0.0005}, "has these settings already"),
        ({"hidden": (16,)}, "cannot change hidden: .*other arrays.*train --init"),
        ({"rollout_steps": 10, "n_steps": 10}, "another shape"),
        ({"environments": 8}, "cannot change environments"),
    ],
)
def test_what_cannot_be_forked_is_said_and_nothing_is_written(parent, tmp_path, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        coterie.resume(parent, steps=600, settings=settings, fork=tmp_path / "fork")
    assert list(tmp_path.iterdir()) == []


def test_a_fork_needs_a_new_directory_settings_and_steps(parent, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UsageError, match="exists already; choose another --fork"):
        coterie.resume(parent, steps=600, settings={"lr": 0.01}, fork=tmp_path / "full")
    with pytest.raises(UsageError, match="settings never change"):
        coterie.resume(parent, steps=600, settings={"lr": 0.01})
    with pytest.raises(UsageError, match="more --steps"):
        coterie.resume(parent, settings={"lr": 0.01}, fork=tmp_path / "fork")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_command_reads_settings_as_train_does(parent, tmp_path):
    words = ["resume", str(parent), "--steps", "440", "--fork", str(tmp_path / "fork"), "--json",
             "--set", "lr=1e-3", "normalise-advantages=true"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "coterie", *words], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["env_steps"] == 440
    changed = RunDirectory(tmp_path / "fork").config()["fork"]["changed"]
    assert changed == {"lr": [0.0005, 0.001], "normalise_advantages": [False, True]}


def test_a_page_shows_the_parent_and_what_changed(parent, tmp_path):
    coterie.resume(parent, steps=600, settings={"lr": 0.01}, fork=tmp_path / "fork")
    trained(ia2c(), out=tmp_path / "warm", init=parent)
    report([tmp_path / "fork", tmp_path / "warm"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "after 400 steps, with other settings: lr from 0.0005 to 0.01." in page
    assert "steps: 8 of 8 arrays were taken" in page


# Warm starts --------------------------------------------------------------------------------------


def leaves(tree):
    return {leaf_name(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def first_learner(algorithm, environment, init, seeds, **more):
    """What each seed holds before it learns."""
    found = []

    def look(event):
        if event.kind == "start":
            found.append(event.run.policies["last"])

    run = coterie.train(
        algorithm, environment, **(TASK | {"seeds": seeds} | more), init=init, callback=look
    )
    return leaves(found[0]), run


def test_seeds_begin_with_the_networks_of_the_other_runs_seeds_in_turn(parent):
    last = leaves(coterie.open_run(parent).policies["last"])
    begun, run = first_learner(ia2c(lr=0.01), "matrix/climbing", parent, seeds=3)
    for name, array in begun.items():
        assert np.array_equal(array, last[name][[0, 1, 0]]), name
    assert run.config["init"]["not_taken"] == {}
    assert run.config["init"]["env_steps"] == 400


def test_targets_begin_with_the_networks_and_all_else_anew(tmp_path):
    algorithm = coterie.QMIX(environments=4, buffer_size=200, learning_starts=40, hidden=(8,))
    trained(algorithm, out=tmp_path / "run")
    run = coterie.open_run(tmp_path / "run")
    source = warm_start.read_source(tmp_path / "run")
    found = warm_start.networks(algorithm.resolve(400), run.game)
    online = {name for name in found if name.startswith("values/")}
    assert {name for name in found if name.startswith("target/")} == {
        name.replace("values/", "target/") for name in online
    }
    assert all(values.startswith("values/") for values, _ in found.values())
    assert not any(name.startswith(("optimiser", "moments", "replay")) for name in found)
    learned = leaves(learner(run, 0))
    assert any(
        not np.array_equal(learned[name], learned[name.replace("values/", "target/")])
        for name in online
    ), "trained targets lag behind, so this test sees which ones are taken"
    devices = Devices(algorithm.resolve(400), run.game, seeds=2)
    untrained = devices.init(7)
    anew = leaves(untrained[0].learner)
    recorded = warm_start.compare(source, algorithm.resolve(400), run.game)
    begun = warm_start.begin(untrained, source, recorded, algorithm.resolve(400), run.game)
    for name, array in leaves(begun[0].learner).items():
        if name in found:
            assert np.array_equal(array[0], learned[name.replace("target/", "values/")]), name
        else:
            assert np.array_equal(array, anew[name]), name


def test_what_does_not_fit_begins_anew_and_is_said(tmp_path, parent):
    notes = []
    run = trained(ia2c(hidden=(16,)), init=parent, report=lambda event, facts: notes.append(facts))
    recorded = run.config["init"]
    weight = recorded["not_taken"]["actor/networks/body/layers/0/weight"]
    assert weight == "[1, 3, 16] here, [1, 3, 8] there"
    assert "actor/networks/body/layers/1/bias" in recorded["taken"]
    said = [facts["sentence"] for facts in notes if "sentence" in facts]
    assert any("arrays are taken" in sentence for sentence in said)
    assert any("not taken, begun anew: actor/networks" in sentence for sentence in said)


def test_a_run_of_another_kind_of_algorithm_has_nothing_to_take(parent):
    with pytest.raises(UsageError, match=r"no network of .* values/utility \(that run has none\)"):
        trained(coterie.VDN(), init=parent)


def test_statistics_of_observations_come_along(tmp_path):
    normalised = ia2c(normalise_observations=True)
    trained(normalised, "lbf/5x5-2p-1f", tmp_path / "run")
    last = leaves(coterie.open_run(tmp_path / "run").policies["last"])
    begun, _ = first_learner(normalised, "lbf/5x5-2p-1f", tmp_path / "run", seeds=2)
    counts = [name for name in begun if "statistics" in name]
    assert counts
    assert all(np.array_equal(begun[name], last[name]) for name in counts)


def test_a_warm_run_is_resumed_from_before_its_first_checkpoint_too(parent, tmp_path):
    def begun(out):
        return trained(ia2c(lr=0.01), out=out, init=parent)

    begun(tmp_path / "calm")
    begun(tmp_path / "cut")
    for name in ("metrics.jsonl", "evaluations.json", "result.json"):
        (tmp_path / "cut" / name).unlink()
    for folder in ("checkpoints", "policy"):
        subprocess.run(["rm", "-r", str(tmp_path / "cut" / folder)], check=True)
    coterie.resume(tmp_path / "cut")
    assert log(tmp_path / "cut") == log(tmp_path / "calm")


def test_the_same_command_goes_on_with_a_warm_run_and_another_one_is_refused(parent, tmp_path):
    trained(ia2c(lr=0.01), out=tmp_path / "run", init=parent)
    assert trained(ia2c(lr=0.01), out=tmp_path / "run", init=parent, resume=True).complete
    with pytest.raises(UsageError, match=r"init is .+, not not given"):
        trained(ia2c(lr=0.01), out=tmp_path / "run", resume=True)


def test_a_warm_run_goes_on_without_its_source(tmp_path):
    trained(ia2c(), out=tmp_path / "source")
    trained(ia2c(), out=tmp_path / "run", init=tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    assert trained(ia2c(), out=tmp_path / "run", init=tmp_path / "source", resume=True).complete
    assert coterie.resume(tmp_path / "run", steps=500).steps == 500


@pytest.mark.parametrize("damage", [
    {"init": "x"}, {"init": {"of": "x"}}, {"fork": 3}, {"asked_steps": "many"},
    {"fork": {"of": "x", "run": "y", "env_steps": 4, "changed": {"lr": 3}}},
])  # fmt: skip
def test_origins_that_are_none_are_refused_in_a_sentence(parent, damage):
    config = RunDirectory(parent).config() | damage
    with pytest.raises(UsageError, match=next(iter(damage))):
        check_config(config)


def test_a_warm_start_needs_a_run(tmp_path):
    with pytest.raises(UsageError, match="is not a run directory"):
        trained(ia2c(), init=tmp_path / "none")


def test_an_interrupted_run_is_a_source_too(tmp_path):
    def stop(event):
        if event.env_steps >= 200:
            raise Interrupted(None, 200, 400, None)

    with pytest.raises(Interrupted):
        trained(ia2c(), out=tmp_path / "run", callback=stop)
    run = trained(ia2c(), init=tmp_path / "run")
    assert run.config["init"]["env_steps"] >= 200
