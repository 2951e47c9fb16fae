"""Trains the runs of ``runs.zip`` and writes ``expected.json``; only with the version that wrote
format 3 (see README.md)."""

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent
SHORT = ("lbf/5x5-2p-1f", {"time_limit": 10})
CLIMBING = ("matrix/climbing", {"rounds": 4})
Q = {"environments": 4, "learning_starts": 40, "buffer_size": 160, "batch_size": 8}
SEQUENCES = {"recurrent": True, "sequence_length": 4}
RUNS = {
    "idqn": (SHORT, Q, {"seeds": 2}),
    "vdn": (CLIMBING, Q | {"update_ratio": 1 / 4}, {}),
    "qmix-recurrent": (SHORT, Q | SEQUENCES | {"double_q": True}, {"seeds": 2}),
    "vdn-python": (("counter:Counter", {}), Q, {"seeds": 2}),
}
"""Name of the run: environment and its options, settings, arguments of ``train``."""

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("make", HERE.parent / "runs_format_2/make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.write(HERE, RUNS)
