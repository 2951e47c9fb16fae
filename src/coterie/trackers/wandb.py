"""Weights & Biases; ``wandb sync RUN/trackers/wandb/wandb/offline-run-*`` uploads it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.runs.callbacks import Event
from coterie.storage.config_file import identity
from coterie.trackers.base import Line, Tracker, curve_name, hyperparameters, table


class WandB(Tracker):
    """A W&B run for each seed; offline, in ``trackers/wandb`` of the run directory.

    ``WANDB_MODE=online`` in the environment uploads at once. When a run goes on, its offline files
    are written anew from its log, and a run on the server gets the lines that it lacks.
    """

    name, module = "wandb", "wandb"

    def __init__(self, project: str = "coterie") -> None:
        super().__init__()
        self._project, self._runs, self._last = project, dict[int, Any](), dict[int, int]()

    def open(self, event: Event, folder: Path, seed: int, known: int) -> int:
        name = f"{identity(event.config)[:16]}-{seed}"
        for former in folder.glob(f"wandb/offline-run-*-{name}"):
            shutil.rmtree(former)
        generation = folder / f"generation-{seed}"  # of the run on the server
        number = int(generation.read_text()) if generation.is_file() else 0
        opened = self._begin(event, folder, seed, f"{name}-g{number}" if number else name)
        if opened.step > known:
            opened.finish()
            generation.write_text(str(number + 1))
            opened = self._begin(event, folder, seed, f"{name}-g{number + 1}")
        self._runs[seed] = opened
        return opened.step

    def _begin(self, event: Event, folder: Path, seed: int, name: str) -> Any:
        """A W&B run; one that is on the server goes on."""
        wandb = self._library
        opened = wandb.init(
            project=self._project,
            group=curve_name(event, seed).partition(" seed ")[0],
            name=curve_name(event, seed),
            id=name,
            dir=folder,
            config=hyperparameters(event, seed),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, disable_git=True, x_disable_stats=True
            ),
        )
        opened.define_metric("*", step_metric="env_steps")
        return opened

    def send(self, seed: int, lines: Sequence[Line]) -> None:
        for line in lines:
            shown = line.metrics | {"env_steps": line.env_steps}
            self._runs[seed].log(shown, step=line.number)
            self._last[seed] = line.number

    def conclude(self, event: Event, seed: int, film: bytes | None) -> None:
        run, last = self._runs[seed], self._last.get(seed)
        if rows := table(event, seed):
            run.summary.update({f"final/{which}/{name}": x for which, name, x in rows})
            columns = ["policies", "metric", "mean"]
            data = [list(row) for row in rows]
            shown = self._library.Table(columns=columns, data=data)
            run.log({"final evaluation": shown}, step=last)
        if film:
            with tempfile.NamedTemporaryFile(suffix=".gif") as file:
                file.write(film)
                file.flush()
                run.log({"episode": self._library.Video(file.name, format="gif")}, step=last)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
