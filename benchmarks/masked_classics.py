"""Turn-based games trained with masks: illegal moves that reach the environment, steps per second.

    python benchmarks/masked_classics.py [STEPS [WORKERS]]

IDQN and IPPO at our defaults on PettingZoo's tic-tac-toe and Connect Four, each for 50,000 steps in
two worker processes unless told otherwise; a move of either player is a step. Both games go through
PettingZoo's own conversion of AEC environments. A wrapper around each looks at the mask before a
move; beside it stands how often PettingZoo itself warned of an illegal one. Seconds are the wall
clock of a training, compilation and evaluation left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pettingzoo.classic import connect_four_v3, tictactoe_v3
from pettingzoo.utils import BaseWrapper
from pettingzoo.utils.env_logger import EnvLogger

COUNTS = "MASKED_CLASSICS_COUNTS"
"""Names, to worker processes, the folder where counts are left."""


class Counted(BaseWrapper):
    """Counts moves, and those that the mask forbade, into a file when it is closed."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.counts = {"moves": 0, "illegal": 0, "warned": 0}

    def step(self, action: Any) -> None:
        if action is not None:  # one who has lost is told so by a move of nothing
            mask = self.env.observe(self.env.agent_selection)["action_mask"]
            self.counts["moves"] += 1
            self.counts["illegal"] += not mask[action]
        with _warnings_counted(self.counts):
            super().step(action)

    def close(self) -> None:
        if self.counts["moves"]:
            with tempfile.NamedTemporaryFile("w", dir=os.environ[COUNTS], delete=False) as file:
                json.dump(self.counts, file)
        super().close()


@contextlib.contextmanager
def _warnings_counted(counts: dict[str, int]) -> Iterator[None]:
    warn = EnvLogger.warn_on_illegal_move

    def counted() -> None:
        counts["warned"] += 1

    EnvLogger.warn_on_illegal_move = staticmethod(counted)
    try:
        yield
    finally:
        EnvLogger.warn_on_illegal_move = staticmethod(warn)


def tictactoe() -> Counted:
    return Counted(tictactoe_v3.env())


def connect_four() -> Counted:
    return Counted(connect_four_v3.env())


def trained(algorithm: str, make: Any, steps: int, workers: int) -> dict[str, Any]:
    """Figures of one training, without compilation and evaluation."""
    import coterie
    from coterie.algorithms import make as make_algorithm

    passed: list[tuple[int, float]] = []

    def report(event: str, facts: dict[str, Any]) -> None:
        if event == "progress":
            passed.append((facts["env_steps"], facts["seconds"]))

    with tempfile.TemporaryDirectory() as folder:
        os.environ[COUNTS] = folder
        run = coterie.train(
            make_algorithm(algorithm), make, steps, evaluations=1, final_episodes=0,
            python_env=coterie.PythonEnvSettings(workers=workers), report=report,
        )  # fmt: skip
        counts = [json.loads(file.read_text()) for file in Path(folder).iterdir()]
    (first, begun), (last, ended) = passed[0], passed[-1]
    total = {word: sum(each[word] for each in counts) for word in ("moves", "illegal", "warned")}
    rate = round((last - first) / (ended - begun)) if ended > begun else None
    return {"steps": run.steps, **total, "steps_per_second": rate}


def main() -> None:
    from coterie.training.devices import one_core_per_seed

    one_core_per_seed(1, python_env=True)
    steps = int(float(sys.argv[1])) if len(sys.argv) > 1 else 50_000
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    report = {
        f"{algorithm}, {make.__name__}": trained(algorithm, make, steps, workers)
        for algorithm in ("idqn", "ippo")
        for make in (tictactoe, connect_four)
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
