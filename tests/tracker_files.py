"""What trackers have written, read back: for each seed {metric: [(env_steps, value), ...]}."""

import json
import struct
import time
from collections import defaultdict
from pathlib import Path


def tensorboard(run: Path) -> dict[int, dict[str, list]]:
    """Scalars of event files, which are records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    curves: dict[int, dict[str, list]] = {}
    for folder in (run / "trackers/tensorboard").iterdir():
        curve = curves[int(folder.name.removeprefix("seed_"))] = defaultdict(list)
        for file in sorted(folder.iterdir()):
            content = file.read_bytes()
            while content:
                (length,) = struct.unpack("<Q", content[:8])
                event = Event.FromString(content[12 : 12 + length])
                content = content[16 + length :]
                for value in event.summary.value:
                    if value.WhichOneof("value") == "simple_value":
                        curve[value.tag].append((event.step, value.simple_value))
    return curves


BLOCK, HEADER = 32_768, 7


def wandb_records(file: Path) -> list:
    """Records of a ``.wandb`` file, which is a log in the format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts, records = file.read_bytes(), HEADER, [], []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last of several
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    return records


def finished(file: Path) -> list:
    """Its records, the last of which W&B's own process writes a moment after a run has ended."""
    for _ in range(200):
        records = wandb_records(file)
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{file} does not end")


def wandb(run: Path) -> dict[int, dict[str, list]]:
    """The history of offline runs, one for each seed."""
    curves: dict[int, dict[str, list]] = {}
    files = list((run / "trackers/wandb/wandb").glob("offline-run-*/*.wandb"))
    for file in files:
        curve = curves[int(file.stem.rpartition("-")[2])] = defaultdict(list)
        for record in finished(file):
            if record.WhichOneof("record_type") == "history":
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                    if len(item.nested_key) < 2  # others are parts of tables and films
                }
                for name, value in row.items():
                    if not name.startswith("_") and isinstance(value, int | float):
                        curve[name].append((row["env_steps"], value))
        curve.pop("env_steps", None)
    assert len(files) == len(curves), "a seed has several runs"
    return curves


def mlflow(run: Path) -> dict[int, dict[str, list]]:
    """The history of the runs in a database, one for each seed."""
    import mlflow as library

    uri = f"sqlite:///{run / 'trackers/mlflow/mlflow.db'}"
    client = library.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("coterie")
    curves: dict[int, dict[str, list]] = {}
    for found in client.search_runs([experiment.experiment_id]):
        curve = curves[int(found.data.params["seed"])] = {}
        for name in found.data.metrics:
            if name != "lines":
                history = client.get_metric_history(found.info.run_id, name)
                curve[name] = sorted((m.step, m.value) for m in history)
    return curves


READERS = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
