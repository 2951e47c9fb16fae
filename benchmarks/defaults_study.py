"""Which of a preset's settings make the difference: one change at a time, from both ends.

    python benchmarks/defaults_study.py ia2c lbf/8x8-3p-2f --steps 1e6 --out runs/study

trains the algorithm with its defaults and with a preset, then the defaults with each group of the
preset's settings put in, and the preset with each group of defaults put back. It prints a table of
the last policy's returns: sampled for policies that sample, greedy for value-based algorithms. Each
cell is an ordinary run; the same command again continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

import coterie
from coterie import presets
from coterie.algorithms import find, make
from coterie.envs import make as make_environment
from coterie.flags import arguments
from coterie.settings import hints

GROUPS = {
    "recurrence": ("recurrent", "sequence_length"),
    "network": ("hidden", "activation", "gain"),
    "rollout": ("environments", "rollout_steps"),
    "targets of several steps": ("n_steps", "gae_lambda"),
    "clipping": ("max_grad_norm",),
    "entropy": ("entropy", "entropy_end", "entropy_steps"),
    "target network": ("target_tau", "target_interval"),
    "sharing": ("sharing",),
    "learning rate": ("lr", "lr_end", "lr_steps", "critic_lr"),
    "updates per step": ("update_ratio", "epochs", "minibatches"),
    "replay": ("buffer_size", "batch_size", "learning_starts"),
    "exploration": ("epsilon_start", "epsilon_end", "epsilon_steps"),
    "double-Q": ("double_q",),
    "reward scale": ("reward_scaling",),
    "discount": ("gamma",),
    "advantages": ("normalise_advantages", "clip"),
}
"""Settings that are changed together, by the name that the table has for them."""


def differences(algorithm: str, preset: str, environment: str, steps: int) -> tuple[dict, dict]:
    """All settings of the defaults and of the preset, by name."""
    limit = make_environment(environment).spec().time_limit
    ends = make(algorithm), presets.find(preset).make(algorithm, steps, limit, {})
    names = [name for name in hints(find(algorithm)) if hasattr(ends[0], name)]
    usual, theirs = ({name: getattr(end, name) for name in names} for end in ends)
    return usual, theirs


def cells(usual: dict, theirs: dict) -> dict[tuple[str, str], dict]:
    """The settings of every training, by where it starts and what is changed."""
    found = {("defaults", "nothing"): usual, ("preset", "nothing"): theirs}
    for word, names in GROUPS.items():
        names = [name for name in names if name in usual]
        if any(usual[name] != theirs[name] for name in names):
            for start, settings, other in (("defaults", usual, theirs), ("preset", theirs, usual)):
                found[start, word] = {**settings, **{name: other[name] for name in names}}
    return found


def command(options: argparse.Namespace, settings: dict, out: Path) -> list[str]:
    """The training of one cell."""
    plain = make(options.algorithm)
    given = {name: x for name, x in settings.items() if x != getattr(plain, name)}
    return [
        sys.executable, "-m", "coterie", "train", options.algorithm, options.environment,
        "--steps", str(options.steps), "--seeds", str(options.seeds), "--out", str(out),
        "--final-episodes", str(options.episodes), "--resume", "--json", *arguments(given),
    ]  # fmt: skip


def train_all(commands: list[list[str]]) -> None:
    """Runs them, each on a core of its own."""
    waiting: queue.Queue[list[str]] = queue.Queue()
    for each in commands:
        waiting.put(each)

    def work(core: int) -> None:
        while not waiting.empty():
            given = waiting.get()
            pinned = ["taskset", "-c", str(core), *given]
            done = subprocess.run(pinned, capture_output=True, text=True, timeout=7200)
            last = done.stderr.strip().splitlines()[-1:] if done.returncode else ["done"]
            print(given[given.index("--out") + 1], *last, flush=True)

    threads = [threading.Thread(target=work, args=(k,)) for k in sorted(os.sched_getaffinity(0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def returns(out: Path) -> np.ndarray | None:
    """[S] of the last policies, as they act in training: sampled, or greedy."""
    try:
        run = coterie.open_run(out)
        found = run.evaluate(episodes=320, which="last")
    except coterie.UsageError:
        return None
    kind = "eval_sampled" if "eval_sampled/return/team_sum" in found else "eval"
    return np.asarray(found[f"{kind}/return/team_sum"]["per_seed"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("algorithm")
    parser.add_argument("environment")
    parser.add_argument("--preset", default="epymarl")
    parser.add_argument("--steps", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=320)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print the table of what is trained")
    options = parser.parse_args()
    usual, theirs = differences(
        options.algorithm, options.preset, options.environment, options.steps
    )
    folder = options.out / f"{options.algorithm}-{options.environment.replace('/', '-')}"
    chosen = {
        where: (settings, folder / "-".join(where).replace(" ", "_"))
        for where, settings in cells(usual, theirs).items()
    }
    if not options.table:
        train_all([command(options, *cell) for cell in chosen.values()])
    print("| start | changed to the other's | mean | seeds |\n|---|---|---|---|")
    for (start, word), (_, out) in chosen.items():
        found = returns(out)
        if found is not None:
            seeds = " ".join(f"{x:.2f}" for x in found)
            print(f"| {start} | {word} | {found.mean():.3f} | {seeds} |")


if __name__ == "__main__":
    main()
