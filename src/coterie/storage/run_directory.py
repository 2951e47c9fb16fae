"""A run's directory: what is written where. The formats are public (docs/formats.md)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.storage import metrics_log
from coterie.storage.config_file import ABSENT_ONCE, check_config, encoded, identity
from coterie.storage.evaluations import absolute_returns, is_old, read_evaluations
from coterie.storage.files import (
    LOCK,
    make_directory,
    only_writer,
    read_sealed,
    refuse_links,
    replacing,
    seal,
    seal_in_blanks,
    sync_directory,
    warn,
)
from coterie.storage.formats import check_format

RESULT = "result.json"
_BEFORE_CONFIG = (LOCK, "config.json.tmp")
"""All that a run writes before its configuration."""
_AFTER_CHECKPOINT = ("evaluations.json", "policy/policy.json", "learner.safetensors", RESULT)
"""What a run writes only after its first checkpoint."""


def _is_summary(metrics: Any) -> bool:
    """Whether it is made as ``runs.evaluation.summary`` makes it."""
    return isinstance(metrics, dict) and bool(metrics) and all(map(_is_metric, metrics.values()))


def _is_metric(m: Any) -> bool:
    return (
        isinstance(m, dict)
        and all(isinstance(m.get(name), float) for name in ("mean", "iqm"))
        and _are_numbers(m.get("per_seed"))
        and m.get("seeds") == len(m["per_seed"])
        and "ci95" in m
        and all(
            m.get(name) is None or (_are_numbers(m[name]) and len(m[name]) == 2)
            for name in ("ci95", "iqm_ci95", "ci95_episodes")
        )
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, float) for x in values)


def _quiet(sentence: str) -> None:
    """Tells nobody."""


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``evaluations.json``, ``checkpoints/``, ``policy/``."""

    def __init__(self, path: Path):
        self.path = path
        self.run = ""
        """Names the run that is written here, once its configuration is."""
        self.logged = 0
        """Lines in ``metrics.jsonl``, missing ones counted."""

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A directory for a new run; never one in which something is kept.

        Raises:
            UsageError: something is, or it cannot be written.
        """
        directory = cls(path)
        directory.check_blank()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=True)
            sync_directory(path.parent)
        except FileExistsError:
            raise UsageError(f"cannot write to {path}: a part of this path is a file") from None
        except NotADirectoryError:
            raise UsageError(f"cannot write to {path}: a part of this path is a file") from None
        except OSError as error:
            raise UsageError(f"cannot write to {path}: {error.strerror}") from None
        return directory

    def check_blank(self, flag: str = "--out") -> None:
        """UsageError unless nothing is here, or a directory that holds no files of a user.

        That is an empty one, or one in which a run was killed before it wrote ``config.json``.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            if not set(os.listdir(self.path)) - set(_BEFORE_CONFIG):
                return
        elif not self.path.exists() and not self.path.is_symlink():
            return
        what = "exists already"
        if (self.path / "config.json").exists():
            what = "is a run already (train --resume goes on with it)"
        raise UsageError(f"{self.path} {what}; choose another {flag} (nothing was overwritten)")

    def remove_blank(self) -> None:
        """Removes a directory that ``check_blank`` lets pass, if it is there."""
        if self.path.is_dir():
            for name in _BEFORE_CONFIG:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def begin(self, config: dict[str, Any]) -> None:
        """Makes a locked directory a run: from here on it can be resumed.

        Raises:
            UsageError: somebody else has made it one.
        """
        self.check_blank()
        self.write_config(config)

    def withdraw(self) -> None:
        """Undoes ``begin``, for a run that turned out to be impossible: it can be begun again, and
        where the directory holds nothing else it is gone."""
        for name in ("config.json", LOCK):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").is_file()

    def is_untrained(self) -> bool:
        """Whether the run was begun, but ended before its first checkpoint was written.

        A run that lost its checkpoints is none of these: it has logged something.
        """
        log = self.path / "metrics.jsonl"
        return not (
            (log.exists() and log.stat().st_size)
            or any((self.path / name).exists() for name in _AFTER_CHECKPOINT)
            or any(self.path.glob("checkpoints/*/state.safetensors"))
        )

    def result(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """The final evaluation's summaries, by ``best`` and ``last`` policies, as ``result.json``
        holds them; None where it does not."""
        try:
            content = read_sealed(self.path / RESULT)
        except (UsageError, OSError):
            return None
        same = content.get("run") == identity(config) and content.get("steps") == config["steps"]
        results = content.get("policies")
        if not same or not isinstance(results, dict) or results.keys() != {"best", "last"}:
            return None
        if not all(map(_is_summary, results.values())):
            return None
        # What environments report need not be reported in every episode, or of every seed.
        best, last = (
            {name: m["seeds"] for name, m in results[which].items() if "/info/" not in name}
            for which in ("best", "last")
        )
        own = (ABSENT_ONCE | config)["metric"]
        whole = best == last and own in best and {*best.values()} == {config["seeds"]}
        return results if whole else None

    def write_result(self, config: dict[str, Any], results: dict[str, Any]) -> None:
        """Writes ``result.json``: the summaries of the ``best`` and of the ``last`` policies."""
        about = {"run": identity(config), "steps": config["steps"], "policies": results}
        self.write_json(RESULT, seal(about))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run; UsageError if it is none."""
        if not (path / "config.json").is_file():
            why = "it holds no config.json" if path.is_dir() else "there is no such directory"
            raise UsageError(f"{path} is not a run directory: {why}")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes here meanwhile.

        Raises:
            UsageError: somebody does, or something here is a link that leads elsewhere.
        """
        with only_writer(self.path):
            refuse_links(self.path)
            yield

    def config(self) -> dict[str, Any]:
        """``config.json``, checked.

        Raises:
            UsageError: it is damaged, was changed, is not that of a run, or a newer version wrote
                it.
        """
        path = self.path / "config.json"
        config = read_sealed(path)
        check_format(path, config)
        try:
            check_config(config)
        except UsageError as error:
            raise UsageError(f"{path} is not that of a run: {error}") from None
        return config

    @property
    def learner(self) -> Path:
        """Stands for the checkpoints of a run that was finalised: what its seeds learned with."""
        return self.path / "learner.safetensors"

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes ``config.json``, with its digest."""
        self.run = identity(config)
        self.write_json("config.json", seal(config))

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a JSON file in one step: a reader sees the old one or the new one."""
        self._replace(name, encoded(content))

    def write_evaluations(self, content: Any) -> None:
        """Replaces ``evaluations.json``, with its digest."""
        body = json.dumps(content, indent=1).encode()
        self._replace("evaluations.json", seal_in_blanks(body, self.run))

    def _replace(self, name: str, content: bytes) -> None:
        target = self.path / name
        make_directory(target.parent, self.path)
        with replacing(target) as file:
            file.write(content)

    @property
    def _log(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Appends lines to ``metrics.jsonl``, with their numbers and digests."""
        metrics_log.append(self._log, lines, self.logged + 1, self.run)
        self.logged += len(lines)

    def sync_log(self) -> tuple[int, str]:
        """Bytes of ``metrics.jsonl``, all of them on the disk, and their SHA-256."""
        return metrics_log.sync(self._log)

    def cut_log(self, size: int, known: str, logged: int) -> str | None:
        """Cuts ``metrics.jsonl`` back to what a checkpoint knew; says what is wrong with that.

        Args:
            logged: how many lines it knew; new ones count on from there, so that what is lost is
                noticed when the log is read later.
        """
        self.logged = logged
        return metrics_log.cut(self._log, size, known)

    def lines(self, tell: Callable[[str], None] = warn) -> Iterator[dict[str, Any]]:
        """The good lines of ``metrics.jsonl``; ``tell`` is called with damage when all are read.

        Raises:
            UsageError: ``config.json`` is damaged, so nothing else can be verified.
        """
        config = self.config()
        return metrics_log.read(self._log, identity(config), is_old(config), tell)

    def steps_done(self, tell: Callable[[str], None] = warn) -> int:
        """Environment steps per seed that the log has seen."""
        return max((line["env_steps"] for line in self.lines(tell)), default=0)

    def newest_checkpoint(self) -> int:
        """Environment steps per seed of the newest checkpoint, 0 if there is none."""
        kept = (int(p.parent.name) for p in self.path.glob("checkpoints/*/state.safetensors")
                if p.parent.name.isdecimal())  # fmt: skip
        return max(kept, default=0)

    def is_finished(self, config: dict[str, Any], tell: Callable[[str], None] = _quiet) -> bool:
        """Whether all steps were made and kept, and the final evaluation, if there is one.

        Args:
            tell: is called with damage in ``evaluations.json``.
        """
        if self.learner.is_file():
            return True
        made = self.newest_checkpoint() >= config["steps"]
        if not config["final_episodes"]:
            return made
        # Who removed the checkpoints of a complete run has its log.
        return (made or self.steps_done(_quiet) >= config["steps"]) and self.is_evaluated(tell)

    def absolute(self, tell: Callable[[str], None] = warn) -> list[list[float]] | None:
        """[S][E] team returns of the absolute metric, of each seed's best policy.

        Returns:
            None before a run is complete; and where ``evaluations.json`` is damaged, which
            ``tell`` is told.
        """
        config, path = self.config(), self.path / "evaluations.json"
        if not os.path.lexists(path):
            return None
        try:
            return absolute_returns(path, read_evaluations(path, config, tell), config)
        except UsageError as error:
            tell(str(error))
            return None

    def is_evaluated(self, tell: Callable[[str], None] = warn) -> bool:
        """Whether the absolute metric was written: the last thing a run does."""
        return self.absolute(tell) is not None
