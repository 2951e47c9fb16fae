"""A run's directory: what is written where. The formats are public (docs/formats.md)."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coterie import __version__
from coterie.types import UsageError

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy")


CONFIG = {
    "algorithm": str,
    "settings": dict,
    "environment": str,
    "environment_options": dict,
    "reward": str,
    "central": str,
    "steps": int,
    "seeds": int,
    "seed": int,
    "evaluations": int,
    "final_episodes": int,
    "sizes": dict,
    "lanes": int,
}
"""What must stand in a ``config.json`` to go on from it."""


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``evaluations.json``, ``checkpoints/``, ``policy/``."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A new directory; never one that exists.

        Raises:
            UsageError: it exists, or it cannot be written.
        """
        if path.exists() or path.is_symlink():
            what = "is a run already" if (path / "config.json").exists() else "exists already"
            raise UsageError(f"{path} {what}; choose another --out (nothing was overwritten)")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"cannot write to {path}: a part of this path is a file") from None
        except OSError as error:
            raise UsageError(f"cannot write to {path}: {error.strerror}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run; UsageError if it is none."""
        if not (path / "config.json").is_file():
            why = "it holds no config.json" if path.is_dir() else "there is no such directory"
            raise UsageError(f"{path} is not a run directory: {why}")
        return cls(path)

    def config(self) -> dict[str, Any]:
        try:
            config = json.loads((self.path / "config.json").read_text())
        except ValueError:
            raise UsageError(f"{self.path}/config.json is damaged: not JSON") from None
        for name, kind in CONFIG.items():
            if not isinstance(config, dict) or not isinstance(config.get(name), kind):
                raise UsageError(f"{self.path}/config.json is not that of a run: it needs {name}")
        return config

    @property
    def learner(self) -> Path:
        """Stands for the checkpoints of a run that was settled: what its seeds learned with."""
        return self.path / "learner.safetensors"

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a JSON file in one step: a reader sees the old one or the new one."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def sync_log(self) -> int:
        """Bytes of ``metrics.jsonl``, all of them on the disk."""
        with (self.path / "metrics.jsonl").open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut_log(self, size: int) -> bool:
        """Cuts ``metrics.jsonl`` back to what a checkpoint knew; False if it is shorter.

        A log that was cut within a line loses the rest of that line too.
        """
        with (self.path / "metrics.jsonl").open("a+b") as file:
            whole = file.tell() >= size
            if not whole:
                file.seek(0)
                size = file.read().rfind(b"\n") + 1
            file.truncate(size)
        return whole

    def steps_done(self) -> int:
        """Environment steps per seed that the log has seen."""
        steps = 0
        with contextlib.suppress(OSError), (self.path / "metrics.jsonl").open() as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError):
                    steps = max(steps, int(json.loads(line)["env_steps"]))
        return steps

    def is_judged(self) -> bool:
        """Whether the absolute metric was written: the last thing a run does."""
        try:
            return '"absolute_metrics"' in (self.path / "evaluations.json").read_text()
        except OSError:
            return False

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Appends lines to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version(), "coterie": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class EvaluationFile:
    """``evaluations.json`` in the marl-eval format: environment, task, algorithm, seed, step."""

    def __init__(self, environment: str, algorithm: str, content: dict[str, Any] | None = None):
        family, _, task = environment.partition("/")
        self.keys = (family, task or family, algorithm)
        self.content = content or {}

    def _seed(self, seed: int) -> dict[str, Any]:
        node = self.content
        for key in (*self.keys, f"seed_{seed}"):
            node = node.setdefault(key, {})
        return node

    def add(
        self, seed: int, steps: int, seconds: float, returns: list[float], lengths: list[float]
    ) -> None:
        """One evaluation point: the team return (sum over agents) of each episode."""
        run = self._seed(seed)
        run[f"step_{len(run)}"] = {
            "step_count": steps,
            "elapsed_time": seconds,
            "return": returns,
            "length": lengths,
        }

    def absolute(self, seed: int, returns: list[float], lengths: list[float]) -> None:
        """The absolute metric: the best policy's episodes at the end."""
        self._seed(seed)["absolute_metrics"] = {"return": returns, "length": lengths}
