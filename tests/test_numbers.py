"""Every number that is read from a run is one that was written, or is left out and named."""

import copy
import json
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sealing import CONFIG, evaluations, logged, make_run, unseal

from coterie.errors import DamagedFile
from coterie.storage import metrics_log
from coterie.storage.evaluations import EvaluationFile
from coterie.storage.run_directory import RunDirectory

LINES = [
    {"seed": s, "env_steps": 10 * k, "eval/return/team_sum": 0.5 * k + s, "updates": k, "x": None}
    for k in range(6)
    for s in range(2)
]
RETURNS = [[1.0, 0.25, -3.5], [2.0, 0.0, 1e-7]]


def make(run: Path) -> Path:
    """A complete run of two seeds, without its checkpoints and policies."""
    make_run(run, LINES)
    file = EvaluationFile(CONFIG["environment"], CONFIG["algorithm"])
    for seed, returns in enumerate(RETURNS):
        for k in range(3):
            file.add(seed, 100 * k, 1.5 * k, returns, [1.0, 1.0, 1.0])
        file.absolute(seed, returns, [1.0, 1.0, 1.0])
    directory = RunDirectory(run)
    directory.write_config(CONFIG)
    directory.write_evaluations(file.content)
    return run


@pytest.fixture
def run(tmp_path) -> Path:
    return make(tmp_path / "run")


def read(work: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a reader gives, and the damage that it names."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DamagedFile)
        found = work()
    return found, [str(warning.message) for warning in said]


def lines_of(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    return read(lambda: list(RunDirectory(run).lines()))


def absolute_of(run: Path) -> tuple[Any, list[str]]:
    return read(lambda: RunDirectory(run).absolute())


# The log ------------------------------------------------------------------------------------------


def test_a_log_is_read_as_it_was_logged(run):
    assert lines_of(run) == (LINES, [])
    assert RunDirectory(run).steps_done() == 50
    raw = logged(run)  # each line is JSON for everybody, and has one entry more
    assert [{k: v for k, v in line.items() if k != "digest"} for line in raw] == LINES
    assert [int(line["digest"].partition(":")[0]) for line in raw] == list(range(1, 13))


def broken(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, pieces cut out, doubled or overwritten, lines lost, doubled or swapped."""
    data, lines = bytearray(content), content.splitlines(keepends=True)
    at, width = chance.randrange(len(data)), chance.randrange(1, 300)
    one, other = chance.choices(range(len(lines)), k=2)
    match chance.randrange(9):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            del data[at : at + width]
        case 2:
            data[at:at] = data[at : at + width]
        case 3:
            data[at : at + width] = chance.randbytes(width)
        case 4:
            data[at : at + width] = bytes(width)
        case 5:
            data[at] = ord(chance.choice("0123456789"))
        case 6:
            return b"".join(line for k, line in enumerate(lines) if k != one)
        case 7:
            return b"".join([*lines[:one], lines[other], *lines[one:]])
        case 8:
            lines[one], lines[other] = lines[other], lines[one]
            return b"".join(lines)
    return bytes(data)


def test_whatever_is_broken_in_a_log_is_left_out_and_named(run):
    """Every good line is read once and no other; whatever lacks is said to lack.

    But for the end of the log, which may be still to come.
    """
    path = run / "metrics.jsonl"
    good, chance = path.read_bytes(), random.Random(0)
    whole = good.splitlines(keepends=True)
    named = 0
    for _ in range(400):
        path.write_bytes(bad := broken(good, chance))
        found, said = lines_of(run)
        places = [LINES.index(line) for line in found]
        there = re.findall(rb"[^\n]*\n|[^\n]+", bad)
        assert sorted(places) == [k for k, line in enumerate(whole) if line in there]
        assert len(said) <= 1
        assert said or places == list(range(len(places)))
        if not said and len(there) != len(places):  # one that is being written, so it seems
            assert len(there) == len(places) + 1
            assert there[-1].startswith(b"{")
            assert not there[-1].endswith(b"\n")
        named += len(said)
    assert named > 300


@pytest.mark.parametrize(
    ("change", "lost", "sentence"),
    [
        (lambda x: [*x[:3], x[3].replace(b"1.5", b"1.0"), *x[4:]], [3], "line 4 is damaged"),
        (lambda x: [*x[:3], *x[4:]], [3], "1 line is missing"),
        (lambda x: [*x[:3], *x[6:]], [3, 4, 5], "3 lines are missing"),
        (lambda x: [*x[:3], x[2], *x[3:]], [], "line 4 is repeated"),
        (lambda x: [*x[:3], x[4], x[3], *x[5:]], [], "line 5 is out of order"),
        (lambda x: [b"\n", *x], [], "line 1 is damaged"),
        (lambda x: [*x, b"\0" * 100], [], "line 13 is damaged"),
        (lambda x: [*x[:3], b"{}", *x[3:]], [3], "line 4 is damaged"),
        (lambda x: [b"?" + line for line in x[:5]] + x[5:], [0, 1, 2, 3, 4],
         "lines 1, 2, 3 and 2 more are damaged"),
    ],
)  # fmt: skip
def test_damage_is_named_by_its_line(run, change, lost, sentence):
    path = run / "metrics.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    found, said = lines_of(run)
    assert sorted(map(LINES.index, found)) == [k for k in range(len(LINES)) if k not in lost]
    assert said == [f"{path} is damaged: {sentence}; every good line is read once"]


def test_a_line_that_is_being_written_is_no_damage(run):
    path = run / "metrics.jsonl"
    good = path.read_bytes()
    start = good.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(good)):
        path.write_bytes(good[:end])
        assert lines_of(run) == (LINES[:-1], [])


def test_a_log_of_another_run_is_not_taken_for_its_own(run, tmp_path):
    other = make_run(tmp_path / "other", LINES, seed=5)
    (run / "metrics.jsonl").write_bytes((other / "metrics.jsonl").read_bytes())
    found, (sentence,) = lines_of(run)
    assert found == []
    assert "lines 1, 2, 3 and 9 more are damaged" in sentence


def test_lines_that_are_gone_stay_noticed_after_going_on(run):
    """A resumed run counts on from what its checkpoint knew."""
    path, directory = run / "metrics.jsonl", RunDirectory(run)
    size, digest = directory.sync_log()
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:8]) + whole[8][:20])
    directory.write_config(CONFIG)
    assert directory.cut_log(size, digest, len(whole)) == (
        "metrics.jsonl had lost lines; it goes on without them"
    )
    assert path.read_bytes() == b"".join(whole[:8])
    more = [{"seed": 0, "env_steps": 60}]
    directory.log(more)
    found, (sentence,) = lines_of(run)
    assert found == LINES[:8] + more
    assert "4 lines are missing" in sentence


def test_a_log_is_cut_back_in_pieces(run, monkeypatch):
    """Its last whole line may end anywhere."""
    monkeypatch.setattr(metrics_log, "_PIECE", 7)
    path, directory = run / "metrics.jsonl", RunDirectory(run)
    size, digest = directory.sync_log()
    good = path.read_bytes()
    for end in range(0, len(good), 13):
        path.write_bytes(good[:end])
        directory.cut_log(size, digest, 5)
        assert path.read_bytes() == good[: good.rfind(b"\n", 0, end) + 1]


# Evaluations --------------------------------------------------------------------------------------


def test_evaluations_are_read_as_they_were_written(run):
    assert absolute_of(run) == (RETURNS, [])
    assert RunDirectory(run).is_evaluated()


def test_no_change_of_the_evaluations_passes(run):
    path = run / "evaluations.json"
    good, chance = path.read_bytes(), random.Random(1)
    for at in [*range(0, len(good), 11), *range(len(good) - 260, len(good) - 1)]:
        bad = bytearray(good)
        bad[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        found, (sentence,) = absolute_of(run)
        assert found is None
        assert sentence.startswith(f"{path} is damaged or was changed: it ")
    for _ in range(100):
        path.write_bytes(bad := broken(good, chance))
        if bad.rstrip(b"\n") != good.rstrip(b"\n"):
            assert absolute_of(run)[0] is None


def test_evaluations_of_another_run_are_not_taken_for_its_own(run, tmp_path):
    other = RunDirectory.create(tmp_path / "other")
    other.write_config(CONFIG | {"settings": {"lr": 1.0}})
    other.write_evaluations(evaluations(run))
    (run / "evaluations.json").write_bytes((other.path / "evaluations.json").read_bytes())
    found, (sentence,) = absolute_of(run)
    assert found is None
    assert "differs from its digest" in sentence


@pytest.mark.parametrize(
    "content",
    [[], 5, None, {"matrix": []}, {"matrix": {"climbing": {"vdn": {"seed_0": 3}}}}]
    + [{"matrix": {"climbing": {"vdn": {"seed_0": {"absolute_metrics": {"return": x}}}}}}
       for x in ([], 7, "x", [[1.0]], ["1"], [True], [None], [float("nan")], [10**400], {})],
)  # fmt: skip
def test_evaluations_of_another_form_are_named(run, content):
    """With a digest that is right, and in a run of an older version without one."""
    directory = RunDirectory(run)
    directory.write_config(CONFIG)
    directory.write_evaluations(content)
    found, (sentence,) = absolute_of(run)
    assert found is None
    assert f"{run / 'evaluations.json'} is damaged" in sentence
    unseal(run)
    found, said = absolute_of(run)
    assert found is None
    assert f"{run / 'evaluations.json'} is damaged" in said[-1]


def marl_eval(content: dict[str, Any]) -> dict[str, Any]:
    """What marl-eval 0.0.4 does first (``data_process_pipeline``): a mean of every entry of every
    step but ``step_count``, of whatever stands at each of the five levels."""
    means, metrics = copy.deepcopy(content), set()
    for environment, tasks in content.items():
        intervals: list[float] = []
        for task, algorithms in tasks.items():
            for algorithm, seeds in algorithms.items():
                for seed, steps in seeds.items():
                    before = 0
                    for step, entries in steps.items():
                        for name, value in entries.items():
                            if "step_count" in name:
                                intervals.append(value - before)
                                before = value
                            else:
                                place = means[environment][task][algorithm][seed][step]
                                place[f"mean_{name}"] = float(np.mean(value))
                                metrics.add(name)
        assert round(float(np.mean(intervals))) > 0
    assert metrics == {"return", "length", "elapsed_time"}
    return means


def test_marl_eval_reads_the_evaluations(run):
    """Read as it reads every ``.json`` of a folder; for a reader of JSON there is no digest."""
    (path,) = [p for p in run.rglob("*.json") if p.name != "config.json"]
    with path.open() as file:
        content = json.load(file)
    means = marl_eval(content)["matrix"]["climbing"]["vdn"]
    assert list(means) == ["seed_0", "seed_1"]
    for seed, returns in zip(means.values(), RETURNS, strict=True):
        assert list(seed) == ["step_0", "step_1", "step_2", "absolute_metrics"]
        assert seed["absolute_metrics"]["mean_return"] == pytest.approx(np.mean(returns))


# Runs of older versions ---------------------------------------------------------------------------


def test_a_run_without_digests_is_read_and_called_one(run):
    unseal(run)
    found, said = lines_of(run)
    assert found == LINES
    assert said == [
        f"{run / 'metrics.jsonl'} holds 12 lines without a digest, of an older version: damage in "
        "them cannot be noticed"
    ]
    found, said = absolute_of(run)
    assert found == RETURNS
    assert said == [
        f"{run / 'evaluations.json'} has no digest, it is of an older version: damage in it cannot "
        "be noticed"
    ]


def test_a_digest_that_was_taken_away_is_missed(run):
    config = (run / "config.json").read_bytes()
    unseal(run)
    (run / "config.json").write_bytes(config)
    assert lines_of(run)[0] == []
    found, (sentence,) = absolute_of(run)
    assert found is None
    assert sentence.endswith("evaluations.json is damaged or was changed: it has no digest")


@pytest.mark.parametrize(
    "line",
    ["null", "[]", "{}", "7", '"x"', '{"seed": 0}', '{"seed": "0", "env_steps": 1}',
     '{"seed": 0, "env_steps": true}', '{"seed": 0, "env_steps": 1.5}',
     '{"seed": 0, "env_steps": -1}', '{"seed": [0], "env_steps": 1}',
     '{"seed": 0, "env_steps": 1, "x": "y"}', '{"seed": 0, "env_steps": 1, "x": [1]}',
     '{"seed": 0, "env_steps": 1' + "0" * 5000 + "}",
     '{"seed": 0, "env_steps": 1, "x": 1' + "0" * 400 + "}", "[" * 100_000, "\ud800", "\xff"],
)  # fmt: skip
def test_a_line_without_a_digest_has_to_be_one_of_numbers(run, line):
    unseal(run)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line.encode("utf-8", "surrogatepass") + b"\n")
    found, said = lines_of(run)
    assert found == LINES
    assert "line 13 is damaged" in said[0]
