"""Whatever stands in the place of a file, who reads it gives a right answer or one sentence.

No other exception, no waiting, and no more memory than a file of that kind may need.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from memory import forget_peak, megabytes
from quick import FLAGS
from test_fuzz import made
from test_numbers import broken

import coterie
from coterie.errors import DamagedFile, UsageError
from coterie.lecture import experiments
from coterie.lecture.base import course
from coterie.lecture.base.experiment import Outcome, Scale
from coterie.runs.api import open_run
from coterie.runs.policy_files import load_policy
from coterie.show import curves
from coterie.storage.checkpoint import latest
from coterie.storage.config_file import identity
from coterie.storage.evaluations import EvaluationFile
from coterie.storage.files import open_blanks, read_sealed, seal, warn
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import CheckpointError, read_tree, write_tree
from coterie.training.loop import Program
from coterie.views.game import Game

HERE = Path(__file__).parent
ANSWERED = (UsageError, CheckpointError)
ITEM = experiments()["modes"]


class Kind(NamedTuple):
    """A file, and all that reads it; given the folder of everything."""

    path: str
    read: Callable[[Path], Any]


@functools.cache
def program() -> Program:
    game = Game(coterie.make("matrix/climbing"))
    return Program(coterie.IA2C(hidden=(6,), environments=2, rollout_steps=2), game, 2)


@functools.cache
def template() -> Any:
    return program().template()


def read_log(home: Path) -> Any:
    run = home / "run"
    found = [RunDirectory(run).steps_done()]
    with contextlib.suppress(UsageError):  # no evaluations left, which is a sentence too
        found += [curves.series(run, "eval/return/team_sum")]
    return found


def read_item(home: Path) -> Any:
    outcome = course._read(home / "lecture", ITEM)
    return outcome and outcome.to_dict()


def payoffs(name: str) -> Callable[[Path], Any]:
    return lambda home: coterie.make(f"matrix/{home / name}").payoffs.tolist()


def opened(home: Path) -> Any:
    run = open_run(home / "run")
    return run.config, run.steps


KINDS = {
    "configuration": Kind("run/config.json", opened),
    "log": Kind("run/metrics.jsonl", read_log),
    "evaluations": Kind("run/evaluations.json", lambda home: RunDirectory(home / "run").absolute()),
    "description": Kind(
        "run/policy/policy.json", lambda home: load_policy(home / "run", 1, "last")
    ),
    "policy": Kind(
        "run/policy/seed-1/last.safetensors", lambda home: load_policy(home / "run", 1, "last")
    ),
    "checkpoint": Kind(
        "run/checkpoints/80/state.safetensors",
        lambda home: latest(home / "run", template(), warn),
    ),
    "learner": Kind(
        "run/learner.safetensors", lambda home: read_tree(home / "run/learner.safetensors", SMALL)
    ),
    "item": Kind(f"lecture/items/{ITEM.name}.json", read_item),
    "payoffs in JSON": Kind("game.json", payoffs("game.json")),
    "payoffs in NumPy": Kind("game.npy", payoffs("game.npy")),
    "payoffs in an archive": Kind("game.npz", payoffs("game.npz")),
}
SMALL = {"weights": np.arange(12.0).reshape(3, 4), "counts": np.arange(5)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Good files of every kind; nothing is trained."""
    home = tmp_path_factory.mktemp("whole")
    run = made(home / "run", 0, program())
    directory, file = RunDirectory(run), EvaluationFile("matrix/climbing", "ia2c")
    directory.write_config(directory.config())
    directory.logged = 1
    directory.log([
        {"seed": seed, "env_steps": step, "eval/return/team_sum": 1.5 * seed + step}
        for step in (0, 40, 80) for seed in (0, 1)
    ])  # fmt: skip
    for seed in (0, 1):
        file.add(seed, 0, 0.5, [1.0, 2.0], [1.0, 1.0])
        file.absolute(seed, [1.0, 2.0], [1.0, 1.0])
    directory.write_evaluations(file.content)
    write_tree(run / "learner.safetensors", SMALL, {"run": "x"})
    outcome = Outcome(
        ITEM.name, ITEM.title, ITEM.source, False, dataclasses.asdict(Scale()), {"rows": [[1]]},
        [{"claim": "c", "published": "", "measured": "m", "passed": True}], {}, 1.5,
        course._fingerprint(ITEM, Scale()),
    )  # fmt: skip
    (home / "lecture").mkdir()
    lecture = RunDirectory(home / "lecture")
    lecture.write_json(f"items/{ITEM.name}.json", seal(outcome.to_dict()))
    table = {"payoffs": [[1.0, -2.5], [0.0, 3]], "players": ["a", "b"], "actions": ["x", "y"]}
    (home / "game.json").write_text(json.dumps(table))
    np.save(home / "game.npy", np.arange(6.0).reshape(2, 3))
    np.savez(home / "game.npz", payoffs=np.arange(6.0).reshape(2, 3), players=np.array(["a", "b"]))
    return home


@pytest.fixture
def home(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "home")


@contextlib.contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Ends what waits."""

    def late(*_: Any) -> None:
        raise AssertionError(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(kind: str, home: Path) -> tuple[Any, list[str]]:
    """What the reader gives, if anything, and the sentences beside it."""
    with in_time(60), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = KINDS[kind].read(home)
        except ANSWERED as error:
            return None, [str(error)]
        except TypeCheckError as error:  # typed tests look before the constructor does
            if "coterie.algorithms.ia2c.IA2C.__init__" not in str(error):
                raise
            return None, ["settings of another kind"]
    assert all(issubclass(warning.category, DamagedFile) for warning in said)
    return found, [str(warning.message) for warning in said]


def same(a: Any, b: Any) -> bool:
    """Equal, arrays and keys too."""
    plain = lambda x: jax.random.key_data(x) if _is_key(x) else np.asarray(x)  # noqa: E731
    leaves = [[plain(x) for x in jax.tree.leaves(tree)] for tree in (a, b)]
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(np.array_equal, *leaves))


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_bytes_are_answered(kind, home):
    """Bits flipped, pieces cut, doubled and overwritten, the file cut off."""
    path, chance = home / KINDS[kind].path, random.Random(kind)
    good, (right, none) = path.read_bytes(), answer(kind, home)
    assert right is not None
    assert none == []
    silent, sentences = [], 0
    for k in range(120):
        bad = good[: chance.randrange(len(good))] if k % 6 == 0 else broken(good, chance)
        path.write_bytes(bad)
        found, said = answer(kind, home)
        assert all(sentence and "\n" not in sentence for sentence in said)
        sentences += len(said)
        if not said and not same(found, right):
            silent.append(bad)
    if kind == "log":  # its end may be still to come, one line in the middle of being written
        silent = [bad for bad in silent if bad[bad.rfind(b"\n") + 1 :][:1] != b"{"
                  and not good.startswith(bad)]  # fmt: skip
    if not kind.startswith("payoffs"):  # those are the user's own and have no digest
        assert silent == []
    assert sentences > 50


HOSTILE = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 10**400, 2**31, 2**63, 1e308, float("nan"),
    float("inf"), "", "x", "x" * 5000, "\ud800", "\0", "../..", [], {}, [[]], [None], {"": None},
    [1] * 2000, ["x"], [0], [-1],
]  # fmt: skip


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a document."""
    yield path
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def changed(document: Any, chance: random.Random) -> Any:
    """Something else in a place, a place less, or one more."""
    document = copy.deepcopy(document)
    path = chance.choice(list(places(document))[1:])
    node = document
    for key in path[:-1]:
        node = node[key]
    match chance.randrange(5):
        case 0:
            del node[path[-1]]
        case 1 if isinstance(node, dict):
            node[chance.choice(["", "x", "\ud800", "__class__"])] = chance.choice(HOSTILE)
        case _:
            node[path[-1]] = chance.choice(HOSTILE)
    return document


def write_settings(path: Path, document: Any) -> None:
    path.write_text(json.dumps(seal(document)))


def write_evaluations(path: Path, document: Any) -> None:
    directory = RunDirectory(path.parent)
    directory.run = identity(directory.config())
    directory.write_evaluations(document)


def write_log(path: Path, document: Any) -> None:
    directory = RunDirectory(path.parent)
    directory.run = identity(directory.config())
    path.unlink()
    for line in document:
        directory.log([line if isinstance(line, dict) else {"x": line}])


def write_plain(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


DOCUMENTS: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Any], None]]] = {
    "configuration": (read_sealed, write_settings),
    "description": (read_sealed, write_settings),
    "item": (read_sealed, write_settings),
    "evaluations": (
        lambda path: json.loads(
            open_blanks(path.read_bytes(), identity(RunDirectory(path.parent).config()))[0]
        ),
        write_evaluations,
    ),
    "log": (lambda path: list(RunDirectory(path.parent).lines()), write_log),
    "payoffs in JSON": (lambda path: json.loads(path.read_text()), write_plain),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_documents_of_another_form_are_answered(kind, home):
    """Other values anywhere, with digests that are right: as somebody would forge them."""
    path, chance = home / KINDS[kind].path, random.Random(kind)
    read, write = DOCUMENTS[kind]
    document = read(path)
    sentences = 0
    for _ in range(150):
        write(path, changed(document, chance))
        sentences += bool(answer(kind, home)[1])
    assert sentences > 30


TEXTS = {
    "nothing": b"", "a null": b"\0", "deep": b"[" * 10**6, "deep objects": b'{"a":' * 10**5,
    "a long number": b"1" * 10**6, "no number": b"NaN", "beyond a float": b"1e999",
    "no UTF-8": b'{"a": "\xff\xfe"}', "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a pair": b'{"\\ud800": "\\udfff"}', "the same key twice": b'{"format": 1, "format": 2}',
    "a mark": b"\xef\xbb\xbf{}", "many lists": b"[" + b"[]," * 10**5 + b"[]]",
    "lines of nothing": b"\n" * 10**4, "a line without an end": b"0" * (2**24 + 5),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_readers_stumble_over_are_answered(text, home):
    for kind in KINDS:
        path = home / KINDS[kind].path
        good = path.read_bytes()
        path.write_bytes(TEXTS[text])
        said = answer(kind, home)[1]
        being_written = TEXTS[text][:1] in (b"", b"{")
        assert said or (kind == "log" and being_written), kind
        assert all(len(sentence) < 1000 for sentence in said)
        path.write_bytes(good)


def in_place(path: Path, what: str) -> None:
    """Something else under the name of a file."""
    path.unlink()
    match what:
        case "a FIFO":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "a loop of links":
            path.symlink_to(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "30 GB of zeros":
            path.touch()
            os.truncate(path, 30 * 10**9)


THINGS = ("a FIFO", "a directory", "a loop of links", "a device", "30 GB of zeros")


@pytest.mark.parametrize("what", THINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_answered_at_once(kind, what, home):
    in_place(home / KINDS[kind].path, what)
    forget_peak()
    before = megabytes()
    said = answer(kind, home)[1]
    assert said
    assert megabytes() - before < 700


# Commands, in a process with little memory -------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run and a payoff file, where ``reader_worker`` looks for them."""
    home = tmp_path_factory.mktemp("trained") / "whole"
    algorithm = coterie.VDN(hidden=(8,), environments=4, buffer_size=64, batch_size=8)
    coterie.train(algorithm, "matrix/climbing", 400, out=home / "run", reward="sum",
                  evaluations=2, final_episodes=4)  # fmt: skip
    (home / "game.json").write_text('{"payoffs": [[1, 2], [3, 4]]}')
    return home


def answers(home: Path, *places: str) -> dict[str, list[Any]]:
    paths = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))
    done = subprocess.run(
        [sys.executable, str(HERE / "reader_worker.py"), str(home), *places],
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": FLAGS},
        stdout=subprocess.PIPE, text=True, check=True, cwd=home,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["megabytes"] < 1500
    return found["answers"]


def is_answered(status: Any, said: str) -> bool:
    """Done, or one sentence; perhaps with warnings before it."""
    last = (said.splitlines() or [""])[-1]
    if status in (1, 2) and not last.startswith("coterie: "):
        return False
    return status in (0, 1, 2) and "Traceback" not in said


NUMBERS = ("run/metrics.jsonl", "run/evaluations.json")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_answers_whatever_stands_in_the_place_of_a_file(trained):
    """Each kind of file, each command that reads it: a FIFO, a directory, 30 GB of zeros."""
    found = answers(trained)
    assert len(found) == 3 * (7 * 6 + 2)
    wrong = {k: x for k, x in found.items() if not is_answered(x[0], x[2]) or x[1] > 60}
    assert wrong == {}
    for name, (status, _, said) in found.items():
        _, place, command = name.split(" · ")
        word = command.partition(" ")[0]
        if place in NUMBERS and word in ("evaluate", "watch", "game"):
            assert status == 0, name
        if place in NUMBERS and (word != "evaluate" or place == "run/metrics.jsonl"):
            named = Path(place).name in said
            assert named or (place, word) in (
                ("run/evaluations.json", "plot"), ("run/evaluations.json", "watch"),
                ("run/evaluations.json", "game"),
            ), name  # fmt: skip
