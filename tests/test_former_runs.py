"""Runs that Coterie 0.1.0 wrote (``runs_format_1``) do all that they did, but are not resumed."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import coterie
from coterie.cli.entry import main
from coterie.runs import config as configs
from coterie.runs.learner import learner, read_former
from coterie.storage import formats
from coterie.storage.files import read_sealed, seal
from coterie.storage.tree_files import CheckpointMismatch, write_tree

# They say that these runs have no digests beside their settings and arrays.
pytestmark = pytest.mark.filterwarnings("ignore::coterie.errors.DamagedFile")

HERE = Path(__file__).parent / "runs_format_1"
EXPECTED = json.loads((HERE / "expected.json").read_text())
QUICK = ("idqn", "vdn-interrupted", "vdn-settled", "reinforce", "coma", "ippo-python")
"""Evaluated without being asked for the slow tests: of every family one, and the odd ones."""
COUNTER = "counter:Counter"


@pytest.fixture(scope="module")
def former(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    with zipfile.ZipFile(HERE / "runs.zip") as file:
        file.extractall(folder)
    return folder


@pytest.fixture(autouse=True)
def counter(monkeypatch):
    """The Python environment of one run can be imported."""
    monkeypatch.syspath_prepend(HERE)
    yield
    sys.modules.pop("counter", None)


def again(name: str) -> list[str]:
    return ["--environment", COUNTER] if name.endswith("-python") else []


def changed(former: Path, name: str, folder: Path, change) -> Path:
    """A copy of a run's policies and configuration, changed as by the version that wrote it."""
    path = folder / name
    path.mkdir()
    config = read_sealed(former / name / "config.json")
    change(config)
    (path / "config.json").write_text(json.dumps(seal(config)))
    shutil.copytree(former / name / "policy", path / "policy")
    return path


def test_every_algorithm_and_family_is_there(former):
    names = {path.name for path in former.iterdir()}
    assert names == set(EXPECTED)
    assert {name.partition("-")[0] for name in names} >= {
        "idqn", "vdn", "qmix", "central_q", "reinforce", "ia2c", "maa2c", "coma", "pac",
        "central_a2c", "ippo", "mappo",
    }  # fmt: skip
    for path in former.iterdir():
        config = read_sealed(path / "config.json")
        assert "format" not in config
        assert config["settings"]["recurrent"] == path.name.endswith("-recurrent")


@pytest.mark.parametrize("name", EXPECTED)
def test_opens_as_before(former, name):
    environment = COUNTER if again(name) else None
    run = coterie.open_run(former / name, environment)
    log = (former / name / "metrics.jsonl").read_text().splitlines()
    assert run.steps == max(json.loads(line)["env_steps"] for line in log)
    seeds = jax.tree.leaves(run.policies["best"])[0].shape[0]
    assert seeds == run.config["seeds"]
    assert run.which == coterie.load(former / name).which == "best"  # as it was then


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EXPECTED],
)
def test_evaluates_to_the_same_numbers(former, name, capsys):
    """Greedy play of the same episodes; particles move by 32-bit floats of this machine."""
    asked = ["--episodes", "16", "--seed", "7", "--which", "best", "--json"]
    assert main(["evaluate", str(former / name), *asked, *again(name)]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    found = {metric: facts["per_seed"] for metric, facts in metrics.items()}
    assert found.keys() == EXPECTED[name].keys()
    for metric, per_seed in EXPECTED[name].items():
        assert found[metric] == pytest.approx(per_seed, rel=1e-3, abs=1e-5), metric


def test_is_watched_plotted_and_reported(former, tmp_path, capsys):
    film, curves, page = (tmp_path / n for n in ("episode.html", "curves.png", "report.html"))
    names = [str(former / name) for name in ("vdn", "idqn")]
    assert main(["watch", names[0], "--out", str(film)]) == 0
    assert main(["plot", *names, "--out", str(curves)]) == 0
    assert main(["report", *names, "--out", str(page)]) == 0
    assert "lbf/5x5-2p-1f" in page.read_text()
    assert film.stat().st_size > 1000
    assert curves.stat().st_size > 1000
    assert "format" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vdn-settled", "coma", "idqn", "ia2c"])
def test_what_its_seeds_learned_with_is_read(former, name):
    """All parts but replay, the networks as they were saved for acting."""
    run = coterie.open_run(former / name)
    for seed in range(run.config["seeds"]):
        kept = learner(run, seed)
        parts = jax.tree_util.tree_leaves_with_path(kept)
        assert all(np.isfinite(leaf).all() for _, leaf in parts)
        policy = kept.values.utility if hasattr(kept, "values") else kept.actor
        last = jax.tree.map(lambda x, k=seed: x[k], run.policies["last"])
        for a, b in zip(jax.tree.leaves(policy), jax.tree.leaves(last), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_was_one_number_is_repeated_for_each_agent(tmp_path):
    file = tmp_path / "learner.safetensors"
    seeds = {"count": np.float32([3, 5]), "weight": np.ones((2, 3, 4), np.float32)}
    write_tree(file, seeds | {"more": np.zeros(7)}, {"run": "x"})
    now = {"count": jax.ShapeDtypeStruct((2, 3), np.float32), "weight": seeds["weight"]}
    found, meta = read_former(file, now)
    assert meta == {"run": "x"}
    np.testing.assert_array_equal(found["count"], [[3, 3, 3], [5, 5, 5]])
    np.testing.assert_array_equal(found["weight"], seeds["weight"])
    for other in ({"new": now["count"]}, {"count": jax.ShapeDtypeStruct((4,), np.float32)}):
        with pytest.raises(CheckpointMismatch, match="cannot be read from it"):
            read_former(file, other)


def test_games_tell_what_was_learned(former, capsys):
    for name in ("vdn-settled", "central_q"):
        assert main(["game", str(former / name)]) == 0
    assert "Q" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("vdn-interrupted", "is a run of format 1, which only Coterie 0.1.0 can resume"),
        ("vdn-interrupted --steps 900", "is a run of format 1, which only Coterie 0.1.0 can"),
        ("qmix", "has its 400 steps already"),
        ("ia2c-recurrent --steps 900", "only Coterie 0.1.0 can extend"),
        ("vdn-settled", "is complete and keeps no checkpoint to go on from"),
        (f"ippo-python --environment {COUNTER} --steps 900", "only Coterie 0.1.0 can extend"),
    ],
)
def test_resuming_is_refused_in_one_sentence(former, command, sentence, capsys):
    name, *flags = command.split()
    before = {p: p.read_bytes() for p in (former / name).rglob("*") if p.name != ".lock"
              and p.is_file()}  # fmt: skip
    assert main(["resume", str(former / name), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"coterie: {former / name} ")
    assert said.count("\n") == 1
    assert sentence in said
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (formats.FORMAT + 1, "use a newer version"),
        (10**30, "use a newer version"),
        (0, "format is 0"),
        (True, "format is True"),
        ("2", "format is '2'"),
    ],
)
def test_formats_that_are_not_known_are_refused(former, tmp_path, number, sentence):
    path = changed(former, "vdn", tmp_path, lambda config: config.update(format=number))
    for call in (coterie.open_run, coterie.resume):
        with pytest.raises(coterie.UsageError, match=sentence):
            call(path)


def test_settings_that_no_longer_apply_are_ignored_with_a_note(former, tmp_path, caplog):
    def change(config):
        config["settings"]["thrift"] = 3
        config["environment_options"]["weather"] = "fair"

    path = changed(former, "vdn", tmp_path, change)
    run = coterie.open_run(path)
    assert run.config["settings"]["thrift"] == 3, "the record stays as it was"
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"the run's setting {name} no longer applies and is ignored"
        for name in ("thrift", "weather")
    ]
    same = coterie.open_run(former / "vdn").evaluate(4)
    assert run.evaluate(4) == same


def test_settings_by_former_names_are_understood(former, monkeypatch):
    """As if ``batch_size`` had been called ``lot``, and ``sharing`` had had other words."""
    table = formats.FORMER_SETTINGS | {
        "lot": ("batch_size", {}),
        "sharing": ("sharing", {"all": "shared"}),
        "thrift": None,
    }
    monkeypatch.setattr(formats, "FORMER_SETTINGS", table)
    config = read_sealed(former / "vdn" / "config.json")
    lot = config["settings"].pop("batch_size")
    config["settings"] |= {"lot": lot, "sharing": "all", "thrift": 1}
    told: list[str] = []
    algorithm, _ = configs.restore(config, note=told.append)
    assert (algorithm.batch_size, algorithm.sharing) == (lot, "shared")
    assert told == ["the run's setting thrift no longer applies and is ignored"]


@pytest.mark.parametrize(("former_value", "scaling"), [(True, "standardise"), (False, "none")])
def test_former_runs_keep_the_units_of_their_rewards(former, former_value, scaling):
    config = read_sealed(former / "vdn" / "config.json")
    assert "standardise_rewards" in config["settings"]
    config["settings"]["standardise_rewards"] = former_value
    told: list[str] = []
    algorithm, _ = configs.restore(config, note=told.append)
    assert (algorithm.reward_scaling, told) == (scaling, [])


@pytest.mark.parametrize("part", ["settings", "environment_options"])
def test_an_unknown_setting_of_the_present_format_is_damage(former, tmp_path, part):
    def change(config):
        config["format"] = formats.FORMAT
        for former_name in formats.FORMER_SETTINGS:
            config["settings"].pop(former_name, None)
        config[part]["thrift"] = 3

    path = changed(former, "vdn", tmp_path, change)
    with pytest.raises(coterie.UsageError, match=r"config.json is damaged: .* no setting 'thrift'"):
        coterie.open_run(path)


def test_new_runs_say_their_format(tmp_path):
    coterie.train(
        coterie.IDQN(hidden=(4,), environments=2, buffer_size=64, batch_size=8),
        "matrix/climbing", 8, out=tmp_path / "run", evaluations=1, final_episodes=0, reward="sum",
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "config.json").read_text())["format"] == formats.FORMAT


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        # leaves of former formats
        (["vector/fresh", "memory"], ["vector/start", "hidden_state"],
         {"vector/fresh": "vector/start", "memory": "hidden_state"}),
        (["vector/shown/alive", "replay/start"], ["vector/time_step/alive", "replay/start"],
         {"vector/shown/alive": "vector/time_step/alive"}),
        # a user's own leaf that has a present or a former name
        (["learner/start/memory"], ["learner/start/hidden_state"],
         {"learner/start/memory": "learner/start/hidden_state"}),
        (["learner/memory"], ["learner/memory"], {}),
        (["learner/memory"], ["learner/memory", "learner/hidden_state"], {}),
        # what is of another run stays what it is
        (["learner/other"], ["learner/hidden_state"], {}),
        (["vector/fresh", "vector/start"], ["vector/start"], {}),
    ],
)  # fmt: skip
def test_leaves_under_former_names(stored, wanted, expected):
    assert formats.present_leaves(stored, wanted) == expected
