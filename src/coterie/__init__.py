"""Coterie: multi-agent deep reinforcement learning, compiled end to end.

>>> import coterie
>>> run = coterie.train(coterie.VDN(), "lbf/5x5-2p-1f", steps=300_000, out="runs/first")
>>> team = coterie.load("runs/first")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coterie.algorithms.idqn import IDQN
    from coterie.algorithms.qmix import QMIX
    from coterie.algorithms.vdn import VDN
    from coterie.envs import make
    from coterie.envs.base import Environment
    from coterie.envs.matrix import MatrixGame
    from coterie.policy import Team, load
    from coterie.runs import Run, open_run, resume, train
    from coterie.types import EnvSpec, TimeStep, UsageError

# Imported on first use: `coterie --help` should not wait for the compiler's import.
_HOME = {
    "Environment": "envs.base",
    "EnvSpec": "types",
    "IDQN": "algorithms.idqn",
    "MatrixGame": "envs.matrix",
    "QMIX": "algorithms.qmix",
    "Run": "runs",
    "Team": "policy",
    "TimeStep": "types",
    "UsageError": "types",
    "VDN": "algorithms.vdn",
    "load": "policy",
    "make": "envs",
    "open_run": "runs",
    "resume": "runs",
    "train": "runs",
}

__all__ = [  # noqa: RUF022
    "Environment", "EnvSpec", "IDQN", "MatrixGame", "QMIX", "Run", "Team", "TimeStep",
    "UsageError", "VDN", "load", "make", "open_run", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"coterie.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
