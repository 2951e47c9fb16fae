"""What every algorithm learns with its defaults, on six tasks.

    python benchmarks/learning_table.py --out runs/table

trains each algorithm on each task without any flag but --reward, three seeds, one training a core,
and prints a table of the last policies' team returns: sampled for policies that sample, greedy for
value-based algorithms. A cell "learns" if its mean is at least halfway from random play to the best
cell of its task, and no seed is below random play. The same command again continues where it
stopped; --table prints what there is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from defaults_study import returns, train_all

import coterie
from coterie.algorithms import algorithms
from coterie.envs import make as make_environment
from coterie.runs.evaluation import evaluate_jax_env

TASKS = {
    "matrix/climbing": 100_000,
    "lbf/5x5-2p-1f": 500_000,
    "lbf/8x8-3p-2f": 1_000_000,
    "mpe/simple-speaker-listener": 1_000_000,
    "mpe/simple-spread": 1_000_000,
    "lbf/8x8-2p-2f-coop": 2_000_000,
}
"""Environment steps of a seed."""


def takes_part(name: str, task: str) -> bool:
    """Whether the table has the cell: speaker-listener is for algorithms with central critics."""
    return task != "mpe/simple-speaker-listener" or algorithms()[name].central


def cell(name: str, task: str, seeds: int, out: Path) -> tuple[list[str], Path]:
    """The training of one algorithm on one task, and where it is."""
    kind = algorithms()[name]
    folder = out / task.replace("/", "-") / name
    given = [
        sys.executable, "-m", "coterie", "train", name, task, "--steps", str(TASKS[task]),
        "--seeds", str(seeds), "--out", str(folder), "--resume", "--json",
    ]  # fmt: skip
    if kind.common_reward and make_environment(task).spec().reward == "individual":
        given += ["--reward", "sum"]
    return given, folder


def random_play(folder: Path) -> float:
    """The team return of uniformly random actions: those of a policy whose parameters are 0."""
    run = coterie.open_run(folder)
    even = jax.tree.map(lambda x: np.zeros_like(x[:1]), run.policies["last"])
    played = evaluate_jax_env(run.game, even, 3200, 0, stochastic=True)
    return float(played["eval_sampled"][0].sum(-1).mean())


def row(task: str, names: list[str], out: Path, seeds: int) -> list[str]:
    """A line for each algorithm that was trained on the task."""
    folders = {name: cell(name, task, seeds, out)[1] for name in names if takes_part(name, task)}
    found = {name: returns(folder) for name, folder in folders.items()}
    trained = {name: each for name, each in found.items() if each is not None}
    if not trained:
        return []
    chance = random_play(folders[next(iter(trained))])
    halfway = (chance + max(each.mean() for each in trained.values())) / 2
    lines = [f"| {task} | random play | {chance:.2f} | | |"]
    for name, each in trained.items():
        learns = each.mean() >= halfway and each.min() >= chance
        seen = " ".join(f"{x:.2f}" for x in each)
        lines.append(
            f"| {task} | {name} | {each.mean():.2f} | {seen} | {'yes' if learns else 'no'} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithms", nargs="+", default=list(algorithms()))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the table of what is trained")
    options = parser.parse_args()
    cells = [
        cell(name, task, options.seeds, options.out)
        for task in options.tasks
        for name in options.algorithms
        if takes_part(name, task)
    ]
    if not options.table:
        train_all([command for command, _ in cells])
    print("| task | algorithm | mean | seeds | learns |\n|---|---|---|---|---|")
    for task in options.tasks:
        print("\n".join(row(task, options.algorithms, options.out, options.seeds)), flush=True)


if __name__ == "__main__":
    main()
