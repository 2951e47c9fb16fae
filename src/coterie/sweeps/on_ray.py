"""Cells as tasks of a Ray cluster, or of a Ray of this machine: one core or one GPU each."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.extras import how_to_install
from coterie.machine import usable_cores
from coterie.storage.files import has_locks, replacing
from coterie.sweeps import ray_node
from coterie.sweeps.engine import Engine, Job, Tell
from coterie.sweeps.process import Ending, may_use_cuda
from coterie.sweeps.ray_node import CellKilled, Node, Shared

LOCAL = "local"
"""The address that stands for a Ray of this machine, which ends with the sweep."""
_PASSED = ("COTERIE_", "JAX_", "XLA_")
"""Environment variables that begin so are those of this process in cells, too."""
_STORE = 80 * 2**20
"""Bytes of a local Ray's object store, which holds nothing but the endings of tasks."""
_PROBE_SECONDS = 60.0


class OnRay(Engine):
    """Tasks of Ray, each of which runs the process of a cell."""

    def __init__(self, address: str, directory: Path, workers: int | None, tell: Tell):
        """Connects to nothing yet.

        Args:
            address: ``local``, or what ``ray.init`` takes.
            directory: of the sweep, written to by this process alone.
            workers: cells at a time; as many as the cluster has CPUs or GPUs unless given.
        """
        super().__init__(tell)
        self._address = address
        self._workers = workers
        self._ray = _imported(address)
        self._shared = Shared(directory.absolute(), secrets.token_hex(16))
        self._resource = "CPU"
        self._running: dict[Any, Job] = {}
        self._task: Any = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_connected(self._ray, self._address))
            stack.enter_context(self._shared_directory())
            options = {"num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
            self._task = self._ray.remote(ray_node.train).options(max_retries=0, **options)
            yield

    def has_room(self) -> bool:
        most = int(self._ray.cluster_resources().get(self._resource, 0))
        return len(self._running) < min(most, self._workers or most)

    def start(self, job: Job) -> None:
        variables = {k: v for k, v in os.environ.items() if k.startswith(_PASSED)}
        if self._resource == "CPU":
            variables["PJRT_NPROC"] = "1"
        if "PYTHONPATH" in os.environ:
            variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
        command = job.cell.command(job.path.absolute())
        log = job.log.absolute()
        task = self._task.remote(self._shared, command, log, variables, Path.cwd())
        self._running[task] = job

    def is_busy(self) -> bool:
        return bool(self._running)

    def ended(self) -> list[tuple[Job, Ending]]:
        tasks = list(self._running)
        if not tasks:
            return []
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [(self._running.pop(task), self._ending(task)) for task in ready]

    def ask_to_stop(self, at_once: bool) -> None:
        for task in self._running:
            self._ray.cancel(task, force=at_once)

    def _ending(self, task: Any) -> Ending:
        try:
            return self._ray.get(task)
        except CellKilled as killed:
            return Ending(None, _reason(killed))
        except UsageError as refused:
            return Ending(1, _reason(refused))
        except self._ray.exceptions.RayError as error:
            return Ending(None, _reason(error))

    # Before cells start ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _shared_directory(self) -> Iterator[None]:
        """Every node sees the sweep's directory, its lock too, and has the same Coterie."""
        mark = self._shared.path / self._shared.name
        try:
            with replacing(mark) as file:
                file.write(self._shared.token.encode())
            nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
            names = {key: node["NodeName"] for key, node in nodes.items()}
            tasks = {key: self._probe(key, name) for key, name in names.items()}
            found = {key: self._answer(task, names[key]) for key, task in tasks.items()}
            self._check(found, names)
            with_gpu = [key for key in found if nodes[key]["Resources"].get("GPU")]
            if may_use_cuda() and any(found[key].has_cuda for key in with_gpu):
                self._resource = "GPU"
                for key in with_gpu:
                    if not found[key].has_cuda:
                        raise UsageError(
                            f"the Ray node {names[key]} has a GPU, and JAX there cannot use it as "
                            f"on other nodes: {how_to_install('cuda')} there, or set "
                            "JAX_PLATFORMS=cpu for this command"
                        )
            if not self._ray.cluster_resources().get(self._resource):
                raise UsageError(f"the Ray at {self._address} has no {self._resource} to train on")
            yield
        finally:
            for file in (mark, *mark.parent.glob(f"{mark.name}-*")):
                file.unlink(missing_ok=True)

    def _probe(self, node: str, name: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = self._ray.remote(ray_node.probe).options(
            num_cpus=0, max_retries=0, scheduling_strategy=there
        )
        return task.remote(self._shared, name, f"{self._shared.name}-{node[:16]}")

    def _answer(self, task: Any, name: str) -> Node:
        try:
            return self._ray.get(task, timeout=_PROBE_SECONDS)
        except UsageError as refused:
            raise UsageError(_reason(refused)) from None
        except self._ray.exceptions.RayError as error:
            raise UsageError(f"the Ray node {name} cannot train: {_reason(error)}") from None

    def _check(self, found: Mapping[str, Node], names: Mapping[str, str]) -> None:
        from coterie import __version__

        if len(found) > 1 and not has_locks(self._shared.path):
            raise UsageError(
                f"the file system of {self._shared.path} has no locks, which cells on several "
                "nodes need"
            )
        for key, answer in found.items():
            if answer.coterie != __version__:
                raise UsageError(
                    f"the Ray node {names[key]} has Coterie {answer.coterie}, and this machine "
                    f"{__version__}: install the same version"
                )
            if len(found) > 1 and not answer.sees_the_lock:
                raise UsageError(
                    f"the Ray node {names[key]} does not see who writes to {self._shared.path}: "
                    "the file system must share its locks (flock) between nodes"
                )


def _reason(error: BaseException) -> str:
    """One line of what Ray raises: the first of the error that a task raised."""
    cause = getattr(error, "cause", None)
    return " ".join(str(cause or error).split("\n")[0].split())[:300] or type(error).__name__


def _imported(address: str) -> Any:
    """The package. It reads the environment as it is imported, so what is not set there is set now.

    A Ray of this machine listens on this machine only, and answers who knows its token.
    """
    chosen = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address == LOCAL and "ray" not in sys.modules:
        chosen["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # by which Ray chooses the loopback
        chosen |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UsageError(f"--ray needs Ray: {how_to_install('ray')}") from None


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connected to a Ray, or with one of this machine's own.

    Raises:
        UsageError: there is none at the address, or this process has one already.
    """
    if ray.is_initialized():
        raise UsageError("this process is connected to a Ray already: call ray.shutdown() first")
    # Cells that lose their worker save and end by themselves: Ray is not to kill them before.
    variables = {"RAY_kill_child_processes_on_worker_exit": "0"}
    options: dict[str, Any] = {"runtime_env": {"env_vars": variables}}
    with contextlib.ExitStack() as stack:
        if address == LOCAL:
            # Sockets have paths of at most 107 bytes, and nobody else may enter the folder.
            root = "/tmp" if os.path.isdir("/tmp") else None
            folder = tempfile.TemporaryDirectory(
                prefix="coterie-", dir=root, ignore_cleanup_errors=True
            )
            options |= {"_temp_dir": stack.enter_context(folder), "include_dashboard": False,
                        "object_store_memory": _STORE, "num_cpus": usable_cores()}  # fmt: skip
        before = signal.getsignal(signal.SIGTERM)
        stack.callback(_answer_sigterm, before)
        stack.callback(ray.shutdown)
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            raise UsageError(f"cannot connect to Ray at {address}: {_reason(error)}") from None
        _answer_sigterm(before)
        yield


def _answer_sigterm(handler: Any) -> None:
    """As before ``ray.init``, which sets a handler of its own."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """OSError if nobody listens at HOST:PORT, for which Ray itself would look for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
