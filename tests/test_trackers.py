"""Trackers hold what the log holds, however a run was ended and continued, and stop no training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracker_files import READERS, finished

import coterie
from coterie import trackers
from coterie.errors import UsageError
from coterie.storage.run_directory import RunDirectory
from coterie.trackers.base import TrackerWarning

pytestmark = pytest.mark.filterwarnings("default:::(mlflow|wandb|alembic|sqlalchemy|pydantic).*")
NAMES = list(READERS)
TASK = {"steps": 400, "seeds": 2, "evaluations": 4, "evaluation_episodes": 4, "final_episodes": 4}


@pytest.fixture(scope="module", autouse=True)
def exits_as_before():
    """W&B puts its own function in the place of ``sys.exit``, and leaves it there."""
    before = sys.exit, sys.excepthook
    yield
    sys.exit, sys.excepthook = before


def trained(out, callback=(), **more):
    algorithm = coterie.IA2C(environments=4, rollout_steps=5, hidden=(8,))
    return coterie.train(algorithm, "matrix/climbing", **(TASK | more), out=out, callback=callback)


def logged(run: Path) -> dict[int, dict[str, list]]:
    """The log, as the readers of trackers' files give it."""
    curves: dict[int, dict[str, list]] = {}
    for line in RunDirectory(run).lines():
        curve = curves.setdefault(line.pop("seed"), {})
        step = line.pop("env_steps")
        for name, value in line.items():
            curve.setdefault(name, []).append((step, value))
    return curves


def check_same(run: Path, name: str, clock: bool = True) -> None:
    """The tracker's files hold each value of the log once.

    Args:
        clock: whether what is measured in seconds is the same, too.
    """
    found, wanted = READERS[name](run), logged(run)
    assert found.keys() == wanted.keys()
    for seed, curve in wanted.items():
        assert found[seed].keys() == curve.keys()
        for metric, points in curve.items():
            steps, values = zip(*found[seed][metric], strict=True)
            assert list(steps) == [step for step, _ in points], (name, metric)
            if clock or not metric.startswith(("seconds", "steps_per_second")):
                assert values == pytest.approx([value for _, value in points], rel=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("tracked") / "run"
    trained(out, trackers.make(NAMES))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_the_log_is_handed_on(run, name):
    check_same(run, name)


def test_settings_and_final_tables_are_handed_on(run):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'trackers/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("coterie")
    found = client.search_runs([experiment.experiment_id])[0]
    assert found.data.params["entropy"] == "0.001"
    assert found.data.params["environment"] == "matrix/climbing"
    assert found.info.status == "FINISHED"
    results = json.loads((run / "result.json").read_text())["policies"]
    table = json.loads(
        next(run.glob("trackers/mlflow/artifacts/*/artifacts/final.json")).read_text()
    )
    assert set(table["policies"]) == {"best", "last"}
    assert table["mean"][0] in results["best"][table["metric"][0]]["per_seed"]
    kinds = [
        {record.WhichOneof("record_type") for record in finished(file)}
        for file in run.glob("trackers/wandb/wandb/offline-run-*/*.wandb")
    ]
    assert len(kinds) == 2
    assert all({"run", "history", "summary", "exit"} <= each for each in kinds)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_goes_on_with_its_curve(tmp_path, name):
    class Enough(Exception):
        pass

    def enough(event):
        if event.kind == "train" and event.env_steps == 220:
            raise Enough

    with pytest.raises(Enough):
        trained(tmp_path / "run", [*trackers.make([name]), enough])
    check_same(tmp_path / "run", name)
    coterie.resume(tmp_path / "run", callback=trackers.make([name]))
    check_same(tmp_path / "run", name)
    coterie.resume(tmp_path / "run", steps=600, callback=trackers.make([name]))
    check_same(tmp_path / "run", name)


def test_a_tracker_that_comes_later_gets_the_log_from_its_start(tmp_path):
    trained(tmp_path / "run")
    coterie.resume(tmp_path / "run", steps=500, callback=trackers.make(["tensorboard"]))
    check_same(tmp_path / "run", "tensorboard")


@pytest.mark.slow
def test_a_run_that_is_killed_and_continued_is_tracked_like_its_log(tmp_path):
    out = tmp_path / "run"
    words = ["train", "ia2c", "matrix/climbing", "--steps", "3e6", "--seeds", "2",
             "--out", str(out), "--tracker", *NAMES]  # fmt: skip
    command = [sys.executable, "-m", "coterie"]
    # W&B would have the processes share the service of this one, which holds on to their runs.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    begun = subprocess.Popen(
        [*command, *words], stderr=subprocess.DEVNULL, start_new_session=True, env=own
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = out / "metrics.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") > 80:
            break
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    # The run's own trackers go on without being named.
    done = subprocess.run(
        [*command, "resume", str(out)], capture_output=True, text=True, timeout=250, env=own
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    for name in NAMES:
        check_same(out, name)


def test_a_tracker_that_fails_is_said_once_and_stops_nothing(tmp_path):
    class Failing(trackers.TensorBoard):
        def send(self, seed, lines):
            raise OSError("the disk\nis full")

    with pytest.warns(
        TrackerWarning, match="tensorboard failed.*OSError: the disk is full"
    ) as told:
        run = trained(tmp_path / "run", [Failing(), *trackers.make(["mlflow"])])
    assert sum(issubclass(w.category, TrackerWarning) for w in told) == 1
    assert run.complete
    check_same(tmp_path / "run", "mlflow")


def test_tracked_runs_learn_the_same(run, tmp_path):
    trained(tmp_path / "run")
    policies = "policy/seed-1/last.safetensors"
    assert (run / policies).read_bytes() == (tmp_path / "run" / policies).read_bytes()


def test_without_a_run_directory_there_is_no_place_for_a_tracker():
    with pytest.raises(UsageError, match="keeps its files in a run directory"):
        trained(None, trackers.make(["tensorboard"]))


def test_unknown_and_missing_trackers_are_named(monkeypatch):
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        trackers.make(["tensorbord"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install .*\[wandb\]'"):
        trackers.make(["wandb"])


@pytest.mark.parametrize("name", NAMES)
def test_a_curve_that_holds_more_than_the_log_is_begun_anew(tmp_path, name):
    """A process that was killed has sent what its last checkpoint does not know."""

    class Killed(BaseException):
        pass

    copy = tmp_path / "copy"

    def kill(event):
        if event.kind == "train" and event.env_steps == 140:
            shutil.copytree(tmp_path / "run/checkpoints", copy / "checkpoints")
            for file in ("config.json", "metrics.jsonl", "evaluations.json"):
                shutil.copy(tmp_path / "run" / file, copy / file)
        if event.kind == "train" and event.env_steps == 240:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path / "run", [*trackers.make([name]), kill])
    shutil.copytree(tmp_path / "run/trackers", copy / "trackers", symlinks=True)
    # Another length has other marks: the lines are at other steps than those that were sent.
    coterie.resume(copy, steps=700, callback=trackers.make([name]))
    check_same(copy, name)


def test_a_film_that_fails_is_said_and_nothing_else_is_lost(tmp_path, monkeypatch):
    def broken(event, seed):
        raise RuntimeError("no light")

    monkeypatch.setattr("coterie.trackers.base.film_of", broken)
    with pytest.warns(TrackerWarning, match="mlflow gets no film of an episode: .*no light"):
        trained(tmp_path / "run", trackers.make(["mlflow"]))
    check_same(tmp_path / "run", "mlflow")
    assert list((tmp_path / "run").glob("trackers/mlflow/artifacts/*/artifacts/final.json"))


def test_links_elsewhere_are_refused_where_trackers_write(tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "run/trackers").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/trackers/tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        coterie.resume(tmp_path / "run", steps=500)
    (tmp_path / "run/trackers/tensorboard").unlink()
    (tmp_path / "run/trackers/wandb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        coterie.resume(tmp_path / "run", steps=500)
    (tmp_path / "run/trackers/wandb").unlink()
    (tmp_path / "run/trackers/wandb").mkdir()
    (tmp_path / "run/trackers/wandb/wandb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        coterie.resume(tmp_path / "run", steps=500)
