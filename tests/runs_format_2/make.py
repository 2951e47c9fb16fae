"""Trains the runs of ``runs.zip`` and writes ``expected.json``; only with the version that wrote
format 2 without diagnostics and with ``sharing`` of central learners (see README.md)."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import zipfile
from pathlib import Path

import jax
import numpy as np

import coterie
from coterie.algorithms import make
from coterie.cli.entry import main

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "runs_format_1"))
LBF = ("lbf/5x5-2p-1f", {"time_limit": 10})
CLIMBING = ("matrix/climbing", {"rounds": 4})
Q = {"environments": 4, "learning_starts": 40, "buffer_size": 160, "batch_size": 8}
RECURRENT = {"recurrent": True}
RUNS = {
    "idqn": (LBF, Q, {"seeds": 2}),
    "vdn": (CLIMBING, Q | {"sharing": "shared"}, {}),
    "qmix-recurrent": (LBF, Q | RECURRENT | {"sequence_length": 4, "double_q": True}, {}),
    "central_q": (CLIMBING, Q, {}),
    "reinforce": (CLIMBING, {"environments": 4}, {"reward": "individual"}),
    "ia2c": (LBF, {"environments": 4, "reward_scaling": "standardise"}, {"seeds": 2}),
    "maa2c-recurrent": (CLIMBING, {"environments": 4} | RECURRENT, {"reward": "mean"}),
    "coma": (LBF, {"environments": 4}, {}),
    "pac": (CLIMBING, {"environments": 4}, {}),
    "central_a2c": (CLIMBING, {"environments": 4}, {"seeds": 2}),
    "ippo-recurrent": (LBF, {"environments": 4, "rollout_steps": 16} | RECURRENT, {}),
    "mappo": (LBF, {"environments": 4, "rollout_steps": 16}, {}),
    "ippo-python": (("counter:Counter", {}), {"environments": 4, "rollout_steps": 16}, {}),
}
"""Name of the run: environment and its options, settings, arguments of ``train``."""
EVALUATE = ("--episodes", "16", "--seed", "7", "--json")
STEPS = 400


def train(name: str, run: tuple, folder: Path) -> Path:
    """A run that Ctrl-C ended after half of its steps."""
    (environment, options), settings, more = run
    kind, _, special = name.partition("-")
    algorithm = make(kind, hidden=(4,), **settings)

    def report(event, facts):
        if event == "progress" and facts["env_steps"] >= STEPS // 2:
            os.kill(os.getpid(), signal.SIGINT)

    with contextlib.suppress(KeyboardInterrupt):
        coterie.train(
            algorithm, environment, STEPS, seed=5, out=folder / name, options=options,
            evaluations=2, evaluation_episodes=4, final_episodes=8, report=report,
            python_env=coterie.PythonEnvSettings(workers=0) if special == "python" else None,
            **({"reward": "sum"} | more),
        )  # fmt: skip
    assert coterie.open_run(folder / name, again(name)).steps < STEPS
    return folder / name


def again(name: str) -> str | None:
    return "counter:Counter" if name.endswith("-python") else None


def evaluated(path: Path) -> dict:
    """The means of all metrics of each seed's last policy."""
    more = ["--environment", environment] if (environment := again(path.name)) else []
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert not main(["evaluate", str(path), "--which", "last", *EVALUATE, *more])
    metrics = json.loads(said.getvalue())["metrics"]
    return {name: facts["per_seed"] for name, facts in metrics.items()}


def facts(run: coterie.Run) -> dict:
    """What training ended with: parameters by their size."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(run.policies["last"])]
    return {"parameters": [float(np.abs(x).mean()) for x in leaves]}


def write(here: Path, runs: dict[str, tuple]):
    """``runs.zip`` and ``expected.json`` of these runs."""
    folder = Path(tempfile.mkdtemp())
    expected = {}
    for name, run in runs.items():
        path = train(name, run, folder)
        # One checkpoint tells as much as two.
        for old in sorted((path / "checkpoints").glob("*"), key=lambda p: int(p.name))[:-1]:
            shutil.rmtree(old)
        (path / ".lock").unlink(missing_ok=True)
        copy = folder / "copies" / name
        shutil.copytree(path, copy)
        before = evaluated(copy)
        resumed = coterie.resume(copy, environment=again(name))
        expected[name] = {"interrupted": before, "resumed": evaluated(copy), **facts(resumed)}
        print(name, flush=True)
    shutil.rmtree(folder / "copies")
    (here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    with zipfile.ZipFile(here / "runs.zip", "w", zipfile.ZIP_LZMA) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder))
    shutil.rmtree(folder)


if __name__ == "__main__":
    write(HERE, RUNS)
