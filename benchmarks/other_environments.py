"""What everybody's Python environments do with every command, and in a loop of one's own.

    python benchmarks/other_environments.py [NAME ...] [--out DIR]

For each environment: `coterie check`, `train` (a few thousand steps), `evaluate`, `watch` to a GIF,
and an episode in a loop of our own, in which a loaded team is given what the environment shows and
the environment is given what the team answers. The table says "ok" with seconds or with the length
of the episode, or the sentence of the command that failed. Films stay in DIR to be looked at.

Needs (beside Coterie): pip install 'pettingzoo[classic,butterfly,sisl]' magent2 rware vmas torch
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import coterie


@dataclass(frozen=True)
class Case:
    """An environment, and how it is trained.

    Attributes:
        environment: as the commands call it.
        loop: "turns" (AEC), "parallel", "tuple" (Gymnasium, a space per agent) or "single".
        more: flags of `check` and `train`, among them keywords of the environment.
        steps: environment steps of the training.
        learning: further flags of `train`.
    """

    environment: str
    loop: str
    more: Sequence[str] = ()
    steps: int = 2_000
    learning: Sequence[str] = ()


CLASSIC, BUTTERFLY = "pettingzoo:pettingzoo.classic.", "pettingzoo:pettingzoo.butterfly."
SMALL = ("--grey", "--resize", "42", "42", "--environments", "4", "--rollout-steps", "16")
CASES = {
    "tictactoe": Case(f"{CLASSIC}tictactoe_v3", "turns"),
    "connect_four": Case(f"{CLASSIC}connect_four_v3", "turns"),
    "leduc": Case(f"{CLASSIC}leduc_holdem_v4", "turns"),
    "chess": Case(f"{CLASSIC}chess_v6", "turns", ("--time-limit", "200"), 1_000),
    "knights_archers_zombies": Case(
        f"{BUTTERFLY}knights_archers_zombies_v11", "parallel", ("--time-limit", "200")
    ),
    "pistonball": Case(
        f"{BUTTERFLY}pistonball_v6", "parallel",
        ("--env.n-pistons", "5", "--env.max-cycles", "60"), 512, SMALL,
    ),
    "cooperative_pong": Case(
        f"{BUTTERFLY}cooperative_pong_v6", "parallel", ("--env.max-cycles", "60"), 512, SMALL
    ),
    "pursuit": Case(
        "pettingzoo:pettingzoo.sisl.pursuit_v5", "parallel", ("--env.max-cycles", "60"), 1_000
    ),
    "magent2 battle": Case(
        "pettingzoo:magent2.environments.battle_v4", "parallel",
        ("--env.map-size", "16", "--env.max-cycles", "60"), 1_000, ("--environments", "4"),
    ),
    "rware": Case("gymnasium:rware:rware-tiny-2ag-v2", "tuple", ("--time-limit", "100")),
    "vmas": Case(
        "vmas:make_env", "tuple",
        ("--env.scenario", "balance", "--env.num-envs", "1", "--env.wrapper", "gymnasium",
         "--env.n-agents", "3", "--env.max-steps", "50", "--env.terminated-truncated", "True"),
    ),
    "CartPole": Case("gymnasium:CartPole-v1", "single", (), 5_000),
}  # fmt: skip


def command(*words: str) -> tuple[bool, str, float]:
    """Whether a command succeeds, what it says where it does not, and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "coterie", *words], capture_output=True, text=True, timeout=900
    )
    said = next((line for line in done.stdout.splitlines() if line.startswith("violation")), "")
    last = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("coterie: ")
    return done.returncode == 0, " ".join((said or last).split()), time.perf_counter() - begun


def keywords(case: Case) -> dict[str, Any]:
    """The keywords of the environment among the flags."""
    from coterie.cli.parsing import parse
    from coterie.python_envs.settings import PythonEnvSettings

    groups = [("env", dict), ("hosting", PythonEnvSettings)]
    return parse(groups, list(case.more), "coterie train").env


def make(case: Case) -> Any:
    """The environment, made as its own documentation says, without Coterie."""
    family, _, rest = case.environment.partition(":")
    options = keywords(case)
    if family == "pettingzoo":
        module = importlib.import_module(rest)
        return (module.env if case.loop == "turns" else module.parallel_env)(**options)
    if family == "gymnasium":
        import gymnasium

        module, _, name = rest.rpartition(":")
        if module:
            importlib.import_module(module)
        return gymnasium.make(name, disable_env_checker=True, **options)
    return getattr(importlib.import_module(family), rest)(**options)


def turns(env: Any, team: coterie.Team, most: int) -> int:
    """One episode of an environment in which agents move in turn; the moves made."""
    env.reset(seed=0)
    hidden_state, moves = team.initial_hidden_state(), 0
    for agent in env.agent_iter(most):
        observation, _, terminated, truncated, _ = env.last()
        action = None
        if not (terminated or truncated):
            actions, hidden_state = team.act({agent: observation}, hidden_state)
            action = actions[agent]
            moves += 1
        env.step(action)
    return moves


def parallel(env: Any, team: coterie.Team, most: int) -> int:
    observations, _ = env.reset(seed=0)
    hidden_state, moves = team.initial_hidden_state(), 0
    while env.agents and moves < most:
        living = {agent: observations[agent] for agent in env.agents}
        actions, hidden_state = team.act(living, hidden_state)
        observations, *_ = env.step(actions)
        moves += 1
    return moves


def at_once(env: Any, team: coterie.Team, most: int) -> int:
    """An environment of Gymnasium, of a team or of a single agent."""
    observation, _ = env.reset(seed=0)
    hidden_state, moves, ended = team.initial_hidden_state(), 0, False
    while not ended and moves < most:
        action, hidden_state = team.act(observation, hidden_state)
        observation, _, terminated, truncated, _ = env.step(action)
        ended = np.all(terminated) or np.all(truncated)
        moves += 1
    return moves


LOOPS: dict[str, Callable[[Any, coterie.Team, int], int]] = {
    "turns": turns, "parallel": parallel, "tuple": at_once, "single": at_once,
}  # fmt: skip


def own_loop(case: Case, run: Path) -> str:
    """How long an episode was; or what was raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env, team = make(case), coterie.load(run)
            moves = LOOPS[case.loop](env, team, 500)
            env.close()
        return f"ok, {moves} steps"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:160]


def row(name: str, case: Case, out: Path) -> list[str]:
    """What each command says."""
    run = out / name.replace(" ", "_")
    again = ["--environment", case.environment]
    hosted = ["--workers", "0"]
    played = ["--evaluations", "1", "--evaluation-episodes", "2", "--final-episodes", "2"]
    commands = {
        "check": ["check", case.environment, *case.more],
        "train": ["train", "ippo", case.environment, "--steps", str(case.steps), *case.more,
                  *case.learning, *hosted, *played, "--out", str(run)],
        "evaluate": ["evaluate", str(run), "--episodes", "2", *again],
        "watch": ["watch", str(run), "--out", str(run.with_suffix(".gif")), *again],
    }  # fmt: skip
    cells = []
    for words in commands.values():
        good, said, seconds = command(*words)
        cells.append(f"ok, {seconds:.0f} s" if good else said[:160])
    return [*cells, own_loop(case, run)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("runs/others"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        "| environment | check | train | evaluate | watch | own loop |\n|---|---|---|---|---|---|"
    )
    for name in options.names:
        cells = row(name, CASES[name], options.out)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
