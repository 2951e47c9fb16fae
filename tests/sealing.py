"""Files of a run with digests that are right, of whatever content a test wants."""

import json
from pathlib import Path
from typing import Any

from coterie.storage.config_file import identity
from coterie.storage.files import open_blanks, seal
from coterie.storage.formats import FORMAT
from coterie.storage.run_directory import RunDirectory

CONFIG = {
    "format": FORMAT, "algorithm": "vdn", "settings": {}, "environment": "matrix/climbing",
    "environment_options": {}, "reward": "sum", "central": "none", "steps": 300, "seeds": 2,
    "seed": 0, "evaluations": 3, "final_episodes": 0, "sizes": {}, "lanes": 1,
}  # fmt: skip
"""Of a run that nobody trained."""


def make_run(run: Path, lines: list[dict[str, Any]], **changed: Any) -> Path:
    """A run directory of nothing but a configuration and a log."""
    directory = RunDirectory.create(run)
    directory.write_config(CONFIG | changed)
    directory.log(lines)
    return run


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a log, as anybody reads them."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def evaluations(run: Path) -> dict[str, Any]:
    """What a run's ``evaluations.json`` holds, as anybody reads it."""
    return json.loads((run / "evaluations.json").read_text())


def rewrite(run: Path, content: dict[str, Any] | None = None, **changed: Any) -> None:
    """Changes the configuration or the evaluations of a run, with all its digests."""
    directory, lines = RunDirectory(run), logged(run)
    content = evaluations(run) if content is None else content
    directory.write_config(directory.config() | changed)
    directory.write_evaluations(content)
    (run / "metrics.jsonl").write_bytes(b"")
    directory.log([{k: v for k, v in line.items() if k != "digest"} for line in lines])


def unseal(run: Path) -> None:
    """The run as an older version would have written it: but for settings, without digests."""
    config = RunDirectory(run).config()
    lines = [{k: v for k, v in line.items() if k != "digest"} for line in logged(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = run / "evaluations.json"
    if path.exists():
        path.write_bytes(open_blanks(path.read_bytes(), identity(config))[0] + b"\n")
    old = {k: v for k, v in config.items() if k != "format"}
    (run / "config.json").write_text(json.dumps(seal(old)))
