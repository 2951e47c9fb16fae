"""Trains the runs of ``runs.zip`` and writes ``expected.json``: for Coterie 0.1.0 only (README)."""

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
import zipfile
from pathlib import Path

from counter import Counter

import coterie
from coterie.algorithms import make
from coterie.analysis.learned import settle
from coterie.cli import main

HERE = Path(__file__).parent
LBF = ("lbf/5x5-2p-1f", {"time_limit": 10})
MPE = ("mpe/simple-spread", {"time_limit": 5})
TAG = ("mpe/simple-tag", {"time_limit": 5})
CLIMBING = ("matrix/climbing", {})
REPEATED = ("matrix/prisoners-dilemma", {"rounds": 4})
Q = {"environments": 4, "learning_starts": 40, "buffer_size": 160, "batch_size": 8}
RECURRENT = {"recurrent": True}
RUNS = {
    "idqn": (CLIMBING, Q, {"seeds": 2}),
    "idqn-recurrent": (LBF, Q | RECURRENT | {"sequence_length": 4}, {"reward": "individual"}),
    "vdn": (LBF, Q | {"sharing": "shared"}, {"seeds": 2}),
    "vdn-recurrent": (MPE, Q | RECURRENT | {"sequence_length": 4}, {}),
    "qmix": (MPE, Q, {}),
    "qmix-recurrent": (LBF, Q | RECURRENT | {"sequence_length": 4, "double_q": True}, {}),
    "central_q": (CLIMBING, Q, {}),
    "central_q-recurrent": (LBF, Q | RECURRENT | {"sequence_length": 4}, {}),
    "reinforce": (REPEATED, {"environments": 4}, {"reward": "individual"}),
    "reinforce-recurrent": (LBF, {"environments": 4} | RECURRENT, {"seeds": 2}),
    "ia2c": (LBF, {"environments": 4}, {"seeds": 2}),
    "ia2c-recurrent": (TAG, {"environments": 4} | RECURRENT, {}),
    "maa2c": (MPE, {"environments": 4}, {}),
    "maa2c-recurrent": (REPEATED, {"environments": 4} | RECURRENT, {"reward": "mean"}),
    "coma": (CLIMBING, {"environments": 4}, {}),
    "coma-recurrent": (LBF, {"environments": 4} | RECURRENT, {}),
    "pac": (LBF, {"environments": 4}, {}),
    "pac-recurrent": (CLIMBING, {"environments": 4} | RECURRENT, {}),
    "central_a2c": (CLIMBING, {"environments": 4}, {"seeds": 2}),
    "central_a2c-recurrent": (LBF, {"environments": 4} | RECURRENT, {}),
    "ippo": (LBF, {"environments": 4, "rollout_steps": 16}, {"seeds": 2}),
    "ippo-recurrent": (TAG, {"environments": 4, "rollout_steps": 16} | RECURRENT, {}),
    "mappo": (MPE, {"environments": 4, "rollout_steps": 16, "standardise_rewards": False}, {}),
    "mappo-recurrent": (LBF, {"environments": 4, "rollout_steps": 16} | RECURRENT, {"seeds": 2}),
    "ippo-python": ((Counter, {}), {"environments": 4, "rollout_steps": 16}, {}),
    "vdn-interrupted": (LBF, Q, {"seeds": 2}),
    "vdn-settled": (CLIMBING, Q, {"seeds": 2}),
}
"""Name of the run: environment and its options, settings, arguments of ``train``."""
EVALUATE = ("--episodes", "16", "--seed", "7", "--json")


def train(name: str, folder: Path) -> Path:
    (environment, options), settings, more = RUNS[name]
    kind, _, special = name.partition("-")
    algorithm = make(kind, hidden=(4,), **settings)
    steps, path = 400, folder / name

    def report(event, facts):
        if special == "interrupted" and event == "progress" and facts["env_steps"] >= steps // 2:
            os.kill(os.getpid(), signal.SIGINT)

    run = coterie.train(
        algorithm, environment, steps, seed=5, out=path, options=options, evaluations=2,
        evaluation_episodes=4, final_episodes=8, report=report,
        python_env=coterie.PythonEnvSettings(workers=0) if special == "python" else None,
        **({"reward": "sum"} | more),
    )  # fmt: skip
    assert (run.steps < steps) == (special == "interrupted"), run.steps
    if special == "settled":
        settle(run)
    return path


def evaluated(path: Path) -> dict:
    again = ["--environment", "counter:Counter"] if "python" in path.name else []
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert not main(["evaluate", str(path), *EVALUATE, *again])
    metrics = json.loads(said.getvalue())["metrics"]
    return {name: facts["per_seed"] for name, facts in metrics.items()}


if __name__ == "__main__":
    assert coterie.__version__ == "0.1.0", "these are to be runs of that version"
    folder = Path(tempfile.mkdtemp())
    expected = {}
    for name in RUNS:
        path = train(name, folder)
        # One checkpoint tells as much as two.
        for old in sorted((path / "checkpoints").glob("*"), key=lambda p: int(p.name))[:-1]:
            shutil.rmtree(old)
        (path / ".lock").unlink(missing_ok=True)
        expected[name] = evaluated(path)
        print(name, flush=True)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    with zipfile.ZipFile(HERE / "runs.zip", "w", zipfile.ZIP_LZMA) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder))
    shutil.rmtree(folder)
