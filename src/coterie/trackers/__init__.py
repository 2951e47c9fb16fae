"""TensorBoard, Weights & Biases and MLflow: callbacks that hand on a run's log, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie.errors import UsageError
from coterie.text import did_you_mean
from coterie.trackers.base import FOLDER, Tracker
from coterie.trackers.mlflow import MLflow
from coterie.trackers.tensorboard import TensorBoard
from coterie.trackers.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {kind.name: kind for kind in (TensorBoard, WandB, MLflow)}

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WandB", "make", "used"]


def make(names: Sequence[str]) -> list[Tracker]:
    """Trackers by their names, each once; UsageError for one that is not known or installed."""
    for name in names:
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS)
            raise UsageError(f"there is no tracker {name!r}{hint} (known: {', '.join(TRACKERS)})")
    return [TRACKERS[name]() for name in dict.fromkeys(names)]


def used(run: Path) -> list[str]:
    """Names of the trackers that a run directory has files of."""
    return [name for name in TRACKERS if (run / FOLDER / name).is_dir()]
