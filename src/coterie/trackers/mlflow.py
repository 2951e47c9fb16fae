"""MLflow: ``mlflow ui --backend-store-uri sqlite:///RUN/trackers/mlflow/mlflow.db`` shows it."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from coterie.runs.callbacks import Event
from coterie.storage.config_file import identity
from coterie.trackers.base import Line, Tracker, curve_name, hyperparameters, table

LINES = "lines"
"""Metric that counts the lines that a curve holds."""
LINES_AT_ONCE = 10
"""MLflow takes at most 1000 metrics at once."""
ID = "coterie.id"
"""Tag by which a seed's MLflow run is found again."""


class MLflow(Tracker):
    """An MLflow run for each seed, in a database in ``trackers/mlflow`` of the run directory.

    ``MLFLOW_TRACKING_URI`` in the environment names another place.
    """

    name, module = "mlflow", "mlflow"

    def __init__(self, experiment: str = "coterie") -> None:
        super().__init__()
        self._experiment, self._runs = experiment, dict[int, str]()

    def open(self, event: Event, folder: Path, seed: int, known: int) -> int:
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or own
        self._client = client = self._library.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            place = (folder / "artifacts").resolve().as_uri() if uri == own else None
            found = client.create_experiment(self._experiment, artifact_location=place)
        else:
            found = experiment.experiment_id
        tag = f"{identity(event.config)[:16]}-{seed}"
        for former in client.search_runs([found], f"tags.`{ID}` = '{tag}'"):
            run, held = former.info.run_id, int(former.data.metrics.get(LINES, 0))
            if held <= known:
                self._runs[seed] = run
                client.update_run(run, status="RUNNING")
                return held
            client.delete_run(run)
        made = client.create_run(found, run_name=curve_name(event, seed), tags={ID: tag})
        self._runs[seed] = made.info.run_id
        entities = self._library.entities
        settings = hyperparameters(event, seed)
        params = [entities.Param(name, str(value)[:500]) for name, value in settings.items()]
        client.log_batch(self._runs[seed], params=params)
        return 0

    def send(self, seed: int, lines: Sequence[Line]) -> None:
        now, Metric = int(time.time() * 1000), self._library.entities.Metric
        for first in range(0, len(lines), LINES_AT_ONCE):
            some = lines[first : first + LINES_AT_ONCE]
            metrics = [
                Metric(re.sub(r"[^\w\-. /:]", "_", name), value, now, line.env_steps)
                for line in some
                for name, value in line.metrics.items()
            ]
            count = Metric(LINES, some[-1].number + 1, now, some[-1].env_steps)
            self._client.log_batch(self._runs[seed], [*metrics, count])

    def conclude(self, event: Event, seed: int, film: bytes | None) -> None:
        run = self._runs[seed]
        if rows := table(event, seed):
            columns = dict(
                zip(("policies", "metric", "mean"), zip(*rows, strict=True), strict=True)
            )
            self._client.log_dict(run, {k: list(v) for k, v in columns.items()}, "final.json")
        if film:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "episode.gif"
                file.write_bytes(film)
                self._client.log_artifact(run, str(file))
        self._client.set_terminated(run, "FINISHED" if event.complete else "KILLED")

    def close(self) -> None:
        """Nothing: every line is in the database already."""
