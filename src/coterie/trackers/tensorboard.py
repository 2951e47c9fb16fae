"""TensorBoard, by tensorboardX: ``tensorboard --logdir runs``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.runs.callbacks import Event
from coterie.trackers.base import Line, Tracker, hyperparameters, table


class TensorBoard(Tracker):
    """Event files in ``trackers/tensorboard`` of the run directory, a folder for each seed.

    When a run goes on they are written anew from its log: TensorBoard's readers would show what a
    killed process wrote beyond its checkpoint twice.
    """

    name, module = "tensorboard", "tensorboardX"

    def __init__(self) -> None:
        super().__init__()
        self._writers: dict[int, Any] = {}

    def open(self, event: Event, folder: Path, seed: int, known: int) -> int:
        del known
        own = folder / f"seed_{seed}"
        for former in own.glob("events.out.tfevents.*"):
            former.unlink()
        self._writers[seed] = writer = self._library.SummaryWriter(str(own))
        settings = hyperparameters(event, seed)
        from tensorboardX.summary import hparams

        for summary in hparams(settings, {event.config["metric"]: 0.0}):
            writer.file_writer.add_summary(summary)
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", 0)
        return 0

    def send(self, seed: int, lines: Sequence[Line]) -> None:
        for line in lines:
            for name, value in line.metrics.items():
                self._writers[seed].add_scalar(name, value, line.env_steps)
        self._writers[seed].flush()

    def conclude(self, event: Event, seed: int, film: bytes | None) -> None:
        writer = self._writers[seed]
        if rows := table(event, seed):
            lines = "\n".join(f"| {which} | {name} | {x:.6g} |" for which, name, x in rows)
            heading = "| policies | metric | mean |\n|---|---|---|"
            writer.add_text("final evaluation", f"{heading}\n{lines}", event.env_steps)
        if film:
            writer.file_writer.add_summary(_animated("episode", film), event.env_steps)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def _animated(tag: str, gif: bytes) -> Any:
    """TensorBoard shows a GIF among its images, and it moves."""
    from PIL import Image
    from tensorboardX.proto import summary_pb2

    width, height = Image.open(io.BytesIO(gif)).size
    Summary: Any = vars(summary_pb2)["Summary"]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
    return Summary(value=[Summary.Value(tag=tag, image=image)])
