"""Learning curves of all algorithms for their pages: `python website/curves.py FOLDER`.

It prints and runs the command of each, which takes about six minutes of processor time in all, and
writes the returns of every evaluation to `website/curves.json`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("curves.json")
ENVIRONMENT = "lbf/5x5-2p-1f"
NAMES = (
    "idqn", "vdn", "qmix", "central_q", "reinforce", "ia2c", "ippo", "maa2c", "mappo", "coma",
    "pac", "central_a2c",
)  # fmt: skip


def command(name: str) -> str:
    """What trains the teams whose curve is shown."""
    return f"coterie train {name} {ENVIRONMENT} --steps 2e5 --seeds 2 --out runs/{name}"


def curve(run: Path) -> dict[str, list[Any]]:
    """Environment steps [E] of the evaluations, and returns [S, E] of the run's usual metric."""
    metric = json.loads((run / "config.json").read_text())["metric"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if metric in line]
    seeds = sorted({line["seed"] for line in lines})
    by_seed = [[line for line in lines if line["seed"] == seed] for seed in seeds]
    return {
        "env_steps": [line["env_steps"] for line in by_seed[0]],
        "returns": [[round(line[metric], 4) for line in own] for own in by_seed],
    }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        print(command(name), flush=True)
        words = [sys.executable, "-m", *shlex.split(command(name)), "--final-episodes", "0"]
        subprocess.run(words, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    curves = {name: curve(folder / "runs" / name) for name in NAMES}
    text = ",\n".join(f'"{name}": {json.dumps(own)}' for name, own in curves.items())
    FILE.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
