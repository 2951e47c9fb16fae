"""Seconds from typing `coterie train` to the first gradient update, compilation included.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "vdn matrix/climbing": ["vdn", "matrix/climbing"],
    "qmix matrix/climbing": ["qmix", "matrix/climbing"],
    "vdn lbf/8x8-2p-3f": ["vdn", "lbf/8x8-2p-3f"],
    "qmix lbf/8x8-2p-3f": ["qmix", "lbf/8x8-2p-3f"],
}


def first_update(names: list[str]) -> float:
    """Runs until metrics.jsonl has a line with updates; it is written right after them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "coterie", "train", *names, "--out", str(out)]
        command += ["--learning-starts", "16", "--steps", "3200", "--final-episodes", "0"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = out / "metrics.jsonl"
        while process.poll() is None:
            if log.exists() and '"updates"' in log.read_text():
                break
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        process.terminate()
        process.wait()
    return seconds


def main() -> None:
    print(json.dumps({name: round(first_update(args), 1) for name, args in COMMANDS.items()}))


if __name__ == "__main__":
    main()
