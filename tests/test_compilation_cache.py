"""Compiled programs on disk: found again, the user's alone, harmless when damaged, switched off."""

import os
import subprocess
import sys
import zlib

import pytest

from coterie.runs import compilation_cache
from coterie.runs.compilation_cache import CHECKED, SWITCH

TRAIN = ("train", "vdn", "matrix/climbing", "--steps", "256", "--seeds", "1", "--hidden", "4")
COUNT = """
import sys
from jax import monitoring
found = []
monitoring.register_event_listener(lambda name, **_: found.append(name))
from coterie.cli import main
status = main(sys.argv[1:])
for word in ("hits", "misses"):
    print(word, sum(name.endswith(f"/cache_{word}") for name in found), file=sys.stderr)
sys.exit(status)
"""


def trained(out, cache, *flags, **more):
    """A training in a process of its own: what it said, and how often JAX found a program."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", SWITCH))}
    given |= {"XDG_CACHE_HOME": str(cache), **more}
    command = [sys.executable, "-c", COUNT, *TRAIN, *flags, "--out", str(out)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stderr.splitlines()[-2:])
    return done.stderr, {word: int(count) for word, count in counts.items()}


def programs(folder):
    return sorted(folder.rglob("*-cache"))


def learned(out):
    return [file.read_bytes() for file in sorted(out.glob("policy/**/*.safetensors"))]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A first training, where its programs are, and what it counted."""
    folder = tmp_path_factory.mktemp("cache")
    return folder / "run", folder / "home", trained(folder / "run", folder / "home")[1]


@pytest.mark.slow
def test_a_second_start_compiles_nothing_and_learns_the_same(first, tmp_path):
    out, cache, before = first
    kept = programs(cache)
    assert before["misses"] >= len(kept) > 0
    _said, now = trained(tmp_path / "run", cache)
    assert now["hits"] >= len(kept)
    assert now["hits"] + now["misses"] == before["misses"]  # what compiles at once is not kept
    assert learned(tmp_path / "run") == learned(out) != []


@pytest.mark.slow
def test_another_learning_rate_compiles_nothing_and_learns_something_else(first, tmp_path):
    out, cache, before = first
    numbers = ("--lr", "0.01", "--gamma", "0.5", "--epsilon-end", "0.2", "--target-tau", "0.3")
    _said, now = trained(tmp_path / "run", cache, *numbers)
    assert now["hits"] >= len(programs(cache)) > 0
    assert now["hits"] + now["misses"] == before["misses"]
    assert learned(tmp_path / "run") != learned(out)


@pytest.mark.slow
def test_programs_are_the_users_alone_and_never_in_a_run(first):
    out, cache, _ = first
    root = cache / "coterie" / "programs"
    assert all(not path.stat().st_mode & 0o077 for path in (root, *root.iterdir()))
    assert not programs(out)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damaged_programs_are_compiled_again(first, tmp_path, damage):
    out, cache, _before = first
    own = tmp_path / "home"
    subprocess.run(["cp", "-rp", str(cache), str(own)], check=True)
    for file in own.rglob("*-cache"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        new = {"cut": data[: len(data) // 2], "changed": data, "empty": b""}[damage]
        file.write_bytes(bytes(new))
    said, _now = trained(tmp_path / "run", own)
    assert "Error" not in said
    assert "arning" not in said
    assert learned(tmp_path / "run") == learned(out) != []
    kept = programs(own)
    assert kept
    assert all(compilation_cache._is_whole(file.read_bytes()) for file in kept)
    assert trained(tmp_path / "again", own)[1]["hits"] >= len(kept)


@pytest.mark.slow
def test_the_switch_and_jax_own_settings_come_first(tmp_path):
    trained(tmp_path / "off", tmp_path / "home", **{SWITCH: "off"})
    trained(tmp_path / "of-jax", tmp_path / "home", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not (tmp_path / "home").exists()
    trained(tmp_path / "elsewhere", tmp_path / "home", **{SWITCH: str(tmp_path / "mine")})
    assert programs(tmp_path / "mine")
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_what_others_can_write_is_not_executed(first, tmp_path):
    _, cache, _ = first
    own = tmp_path / "home"
    subprocess.run(["cp", "-rp", str(cache), str(own)], check=True)
    (folder,) = (own / "coterie" / "programs").iterdir()
    folder.chmod(0o770)
    said, now = trained(tmp_path / "run", own)
    assert now == {"hits": 0, "misses": 0}
    assert f"{folder} can be written by others" in said


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: folder.mkdir(mode=0o700), ""),
        (lambda folder: folder.mkdir(mode=0o755), "can be read by others"),
        (lambda folder: (folder.mkdir(), folder.chmod(0o720)), "can be written by others"),
        (lambda folder: folder.symlink_to(folder.parent), "is a link"),
    ],
)
def test_why_a_directory_is_not_used_is_said_as_it_is(make, problem, tmp_path):
    make(tmp_path / "programs")
    assert compilation_cache._exposed(tmp_path / "programs") == problem


def test_programs_that_are_not_whole_are_removed(tmp_path):
    whole, cut, old = (tmp_path / f"{name}-cache" for name in ("whole", "cut", "old"))
    data = zlib.compress(b"a program")
    whole.write_bytes(data)
    cut.write_bytes(data[:-3])
    old.write_bytes(data[:-3])
    os.utime(old, (0, 0))
    (tmp_path / CHECKED).touch()
    compilation_cache._remove_damaged(tmp_path)
    assert whole.exists()
    assert not cut.exists()
    assert old.exists()  # read through before


def test_the_oldest_programs_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "LARGEST", 25)
    folder = tmp_path / "machine"
    folder.mkdir()
    for age in range(4):
        file = folder / f"{age}-cache"
        file.write_bytes(b"0123456789")
        os.utime(file, (100 - age, 100 - age))
    compilation_cache._remove_oldest(tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["0-cache", "1-cache"]


def test_other_processors_have_another_directory(monkeypatch):
    here = compilation_cache._machine()
    monkeypatch.setattr("platform.processor", lambda: "another")
    assert compilation_cache._machine() != here
