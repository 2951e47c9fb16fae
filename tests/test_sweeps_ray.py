"""Sweeps on Ray: a real cluster of two nodes on this machine, nodes and cells that are killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sweep_commands import (
    LONG,
    TINY,
    begin,
    cell_processes,
    has_checkpoint,
    is_alive,
    until,
    without_times,
)

import coterie
from coterie import UsageError
from coterie.storage.config_file import encoded
from coterie.storage.files import only_writer, seal
from coterie.sweeps import engine, ray_node
from coterie.sweeps.ray_node import Shared

TWO = TINY | {"algorithms": ["ia2c"], "steps": 200_000, "evaluations": 4}
VARIED = TWO | {"grid": {"lr": [0.01, 0.1]}}
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


class TwoNodes:
    """A cluster whose second node can be killed."""

    def __init__(self):
        script = Path(__file__).with_name("ray_nodes.py")
        self.folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"RAY_TMPDIR": self.folder.name},
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()

    def tell(self, word: str):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.communicate()
        self.folder.cleanup()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Runs are compiled once for all tests here."""
    if not importlib.util.find_spec("ray"):
        pytest.skip("without Ray")
    cache = tmp_path_factory.mktemp("programs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_COMPILATION_CACHE", str(cache))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        two = TwoNodes()
        yield two
        two.end()


def runs(folder: Path) -> list[Path]:
    return [folder / "out" / "cells" / f"ia2c-matrix-climbing-lr-{lr}" for lr in ("0.01", "0.1")]


@pytest.mark.slow
def test_a_sweep_outlives_a_node_and_its_runs_are_those_of_this_machine(nodes, tmp_path):
    calm = coterie.sweep(VARIED, tmp_path / "calm")
    assert calm.complete
    tables = VARIED | {"algorithms": ["ia2c", "pac"], "pac": {"init": str(tmp_path / "none")}}
    process = begin(tmp_path, tables, "--ray", nodes.address)
    until(lambda: all(map(has_checkpoint, runs(tmp_path))))
    nodes.tell("kill")
    try:
        _, said = process.communicate(timeout=120)
    finally:
        nodes.tell("add")
    assert process.returncode == 1
    logs = [tmp_path / "out" / "logs" / f"{run.name}.txt" for run in runs(tmp_path)]
    assert sum("goes on from" in log.read_text() for log in logs) == 1
    for job, run in zip(calm.jobs, runs(tmp_path), strict=True):
        assert coterie.open_run(run).complete
        assert without_times(run) == without_times(job.path)
    assert said.count(str(tmp_path / "none")) == 2  # both cells of pac, with their sentence


@linux
@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_completes(nodes, tmp_path):
    process = begin(tmp_path, VARIED, "--ray", nodes.address)
    until(lambda: all(map(has_checkpoint, runs(tmp_path))))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert not any(map(cell_processes, runs(tmp_path)))
    logs = [tmp_path / "out" / "logs" / f"{run.name}.txt" for run in runs(tmp_path)]
    assert all("continue with: coterie resume" in log.read_text() for log in logs)
    again = begin(tmp_path, VARIED, "--ray", nodes.address)
    assert again.wait(120) == 0
    again.stderr.close()


@linux
@pytest.mark.slow
def test_a_cell_that_is_killed_again_and_again_is_given_up(nodes, tmp_path):
    process = begin(tmp_path, LONG, "--ray", nodes.address)
    run = tmp_path / "out" / "cells" / "ia2c-matrix-climbing"
    for _ in range(engine.TRIES):
        (cell,) = until(lambda: cell_processes(run))
        os.kill(cell, signal.SIGKILL)
        until(lambda cell=cell: not is_alive(cell))
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended 3 times without getting any further (SIGKILL)" in said


@pytest.mark.slow
def test_a_lock_is_waited_for_and_its_holder_named(nodes, tmp_path):
    run = tmp_path / "out" / "cells" / "ia2c-matrix-climbing"
    run.mkdir(parents=True)
    (tmp_path / "out" / "sweep.json").write_bytes(encoded(seal({"cells": []})))
    with only_writer(run):
        process = begin(tmp_path, LONG, "--ray", nodes.address, lock_seconds=0.5)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"was written to by process {os.getpid()} on" in said


@linux
@pytest.mark.slow
def test_a_node_that_sees_another_directory_is_named(nodes, tmp_path):
    """/proc/self/cwd is another directory in each process."""
    process = begin(tmp_path, TINY, "--ray", nodes.address, out=Path("/proc/self/cwd/out"))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "does not see /proc/self/cwd/out: the directory of a sweep must be shared" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out" / "cells").exists()


@linux
@pytest.mark.slow
def test_rays_own_sockets_are_local_and_its_cells_end_with_the_sweep(nodes, tmp_path):
    import psutil

    process = begin(tmp_path, LONG, "--ray", "local")
    run = tmp_path / "out" / "cells" / "ia2c-matrix-climbing"
    until(lambda: has_checkpoint(run))
    family = psutil.Process(process.pid).children(recursive=True)
    sockets = (each.net_connections() for each in [psutil.Process(process.pid), *family])
    listening = [c for found in sockets for c in found if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    (raylet,) = (each for each in family if each.name() == "raylet")
    assert raylet.environ()["RAY_AUTH_MODE"] == "token"
    (cell,) = cell_processes(run)
    process.kill()
    process.communicate()
    until(lambda: not is_alive(cell) and not is_alive(raylet.pid), 60)
    log = tmp_path / "out" / "logs" / "ia2c-matrix-climbing.txt"
    assert "stopping after this chunk" in log.read_text()  # it was asked to save


# Without Ray --------------------------------------------------------------------------------------


def test_a_directory_is_shared_if_the_token_and_the_lock_are_seen(tmp_path):
    shared = Shared(tmp_path, "f" * 32)
    with pytest.raises(UsageError, match="the Ray node here does not see"):
        ray_node.probe(shared, "here", "answer")
    (tmp_path / shared.name).write_text("0" * 32)
    with pytest.raises(UsageError, match="the Ray node here does not see"):
        ray_node.probe(shared, "here", "answer")
    (tmp_path / shared.name).write_text(shared.token)
    with only_writer(tmp_path):
        assert ray_node.probe(shared, "here", "answer").sees_the_lock
    assert not ray_node.probe(shared, "here", "answer").sees_the_lock
    assert (tmp_path / "answer").read_text() == shared.token


def test_ray_workers_do_not_wait_for_jax():
    code = "import sys, coterie.sweeps.ray_node; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_ray_a_sentence_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--ray needs Ray: pip install .*\[ray\]"):
        coterie.sweep(TINY, tmp_path, ray="local")
    with pytest.raises(UsageError, match="leave out one of them"):
        coterie.sweep(TINY, tmp_path, ray="local", cell=0)
