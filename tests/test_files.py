"""Files are whole or not there, one process writes at a time, changed settings are found."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.cli.entry import main
from coterie.errors import UsageError
from coterie.storage import files
from coterie.storage.files import (
    make_directory,
    only_writer,
    read_sealed,
    refuse_links,
    replacing,
    seal,
)
from coterie.storage.run_directory import RunDirectory

SOURCE = str(Path(__file__).parents[1] / "src")

HOLD = """
import os, sys, time
from pathlib import Path
from coterie.storage.files import only_writer
with only_writer(Path(sys.argv[1])):
    if len(sys.argv) > 2 and not os.fork():  # a child that outlives its parent
        print("held", os.getpid(), flush=True)
        time.sleep(60)
    if len(sys.argv) == 2:
        print("held", os.getpid(), flush=True)
    time.sleep(60)
"""

RACE = """
import os, sys
from pathlib import Path
from coterie.errors import UsageError
from coterie.storage.files import only_writer
place, count = Path(sys.argv[1]), int(sys.argv[2])
go, ready = os.pipe()
end, over = os.pipe()
done, result = os.pipe()
for _ in range(count):
    if not os.fork():
        os.read(go, 1)
        try:
            with only_writer(place):
                os.write(result, b"w")
                os.read(end, 1)  # until everybody has tried
        except UsageError:
            os.write(result, b"r")
        os._exit(0)
os.write(ready, b"." * count)
print("".join(sorted(os.read(done, 1).decode() for _ in range(count))))
os.write(over, b".")
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def started(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        python(code, *arguments), stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )  # fmt: skip


def held(process: subprocess.Popen) -> int:
    """Waits until the process, or its child, holds the lock; its number."""
    assert process.stdout
    word, number = process.stdout.readline().split()
    assert word == "held"
    return int(number)


# One writer ------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path):
    with started(HOLD, tmp_path) as process:
        number = held(process)
        with pytest.raises(UsageError) as caught, only_writer(tmp_path):
            pass
        process.kill()
    host = os.uname().nodename
    assert str(caught.value).startswith(
        f"{tmp_path} is being written to by process {number} on {host} (-c"
    )
    with only_writer(tmp_path):  # the killed holder does not block
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_child_of_a_killed_holder_does_not_block(tmp_path: Path):
    with started(HOLD, tmp_path, "fork") as process:
        child = held(process)
        try:
            with pytest.raises(UsageError, match="is being written to"), only_writer(tmp_path):
                pass
            process.kill()
            process.wait()
            os.kill(child, 0)  # it lives
            with only_writer(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("count", [2, 20])
def test_of_many_writers_one_wins(tmp_path: Path, count: int):
    done = subprocess.run(
        python(RACE, tmp_path, count), env=os.environ | {"PYTHONPATH": SOURCE},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "r" * (count - 1) + "w"


def test_the_same_process_does_not_write_twice_either(tmp_path: Path):
    with only_writer(tmp_path):
        for _ in range(2):
            with pytest.raises(UsageError, match=f"process {os.getpid()} "), only_writer(tmp_path):
                pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": "x"}', b"[" * 4096])
def test_a_holder_that_left_no_name_is_another_process(tmp_path: Path, content: bytes):
    with only_writer(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        sentence = "written to by another process;"
        with pytest.raises(UsageError, match=sentence), only_writer(tmp_path):
            pass


def test_a_holders_name_cannot_write_on_the_terminal(tmp_path: Path):
    with only_writer(tmp_path):
        about = {"process": 1, "host": "\x1b[2J", "command": "a\nb"}
        (tmp_path / ".lock").write_text(json.dumps(about))
        with pytest.raises(UsageError) as caught, only_writer(tmp_path):
            pass
    assert "process 1 on ?[2J (a?b);" in str(caught.value)


@pytest.mark.parametrize("command", ["resume RUN", "lecture modes --out RUN"])
def test_commands_leave_a_place_in_use_alone(tmp_path: Path, capsys, command: str):
    if command.startswith("resume"):
        config = {
            "algorithm": "vdn", "settings": {}, "environment": "matrix/climbing", "steps": 1,
            "environment_options": {}, "reward": "sum", "central": "none", "seeds": 1, "seed": 0,
            "evaluations": 1, "final_episodes": 0, "sizes": {}, "lanes": 1,
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(seal(config)))
    before = sorted(tmp_path.rglob("*"))
    with only_writer(tmp_path):
        assert main(command.replace("RUN", str(tmp_path)).split()) == 2
    captured = capsys.readouterr()
    sentence = f"coterie: {tmp_path} is being written to by process {os.getpid()} on "
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / ".lock"])


def test_nothing_is_written_where_nothing_can_be(tmp_path: Path):
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="cannot write to"), only_writer(tmp_path):
        pass
    assert not (tmp_path / "precious").exists()
    sentence = r"cannot write to .*gone: No such"
    with pytest.raises(UsageError, match=sentence), only_writer(tmp_path / "gone"):
        pass


# Links and directories -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "policy", "checkpoints/5/state.safetensors"])
def test_nothing_is_written_through_links(tmp_path: Path, name: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    refuse_links(run)
    (run / name).symlink_to(outside)
    with pytest.raises(UsageError, match=f"{name} is a link"), RunDirectory(run).locked():
        pass


def test_a_link_under_the_temporary_name_is_replaced(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "file.tmp").symlink_to(precious)
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert precious.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "precious"]


def test_a_vanished_run_directory_is_not_made_anew(tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="the run directory is gone"):
        make_directory(run / "policy" / "seed-0", run)
    assert not run.exists()
    run.mkdir()
    make_directory(run / "policy" / "seed-0", run)
    make_directory(run / "policy" / "seed-0", run)
    assert (run / "policy" / "seed-0").is_dir()


def test_an_error_names_the_file_and_leaves_the_old_one(tmp_path: Path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        """A disk with room for three more bytes."""
        size = os.fstat(descriptor).st_size
        if size >= 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data)[: 3 - size])

    monkeypatch.setattr(files.os, "write", half)
    with pytest.raises(OSError, match="No space left") as caught, replacing(path) as file:
        file.write(b"longer than three")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_short_writes_are_completed(tmp_path: Path, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    content = os.urandom(100_000)
    with replacing(tmp_path / "file") as file:
        file.write(content)
        file.seek(0)
        assert file.read() == content
    assert (tmp_path / "file").read_bytes() == content


# Settings with a digest ------------------------------------------------------------------------

SETTINGS = {"lr": 5e-4, "hidden": [64, 64], "name": "Grüße", "none": None, "limit": float("inf")}


def test_what_is_sealed_is_read_back(tmp_path: Path):
    path = tmp_path / "config.json"
    for text in (json.dumps(seal(SETTINGS)), json.dumps(seal(seal(SETTINGS)), indent=3)):
        path.write_text(text)
        assert read_sealed(path) == SETTINGS


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "damaged: not JSON"),
        ("\xff", "damaged: not JSON"),
        ("[" * 100_000, "damaged: not JSON"),
        ("1" * 100_000, "damaged: not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "differs from its digest"),
        (json.dumps(SETTINGS), "differs from its digest"),
        (json.dumps(seal(SETTINGS) | {"lr": 6e-4}), "differs from its digest"),
        (json.dumps(seal(SETTINGS) | {"more": 1}), "differs from its digest"),
        (json.dumps(seal(SETTINGS) | {"digest": None}), "differs from its digest"),
    ],
)
def test_settings_that_changed_are_refused(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=f"config.json is damaged.*{sentence}|{sentence}"):
        read_sealed(path)


def test_huge_settings_are_not_read(tmp_path: Path):
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(UsageError, match="1,000,000,000,000 bytes, more than 10,000,000"):
        read_sealed(path)
