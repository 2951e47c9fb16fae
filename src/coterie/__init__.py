"""Coterie: multi-agent deep reinforcement learning, compiled end to end.

>>> import coterie
>>> run = coterie.train(coterie.VDN(), "lbf/5x5-2p-1f", steps=300_000, out="runs/first")
>>> team = coterie.load("runs/first")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from coterie.algorithms.central_a2c import CentralA2C
    from coterie.algorithms.central_q import CentralQ
    from coterie.algorithms.coma import COMA
    from coterie.algorithms.ia2c import IA2C
    from coterie.algorithms.idqn import IDQN
    from coterie.algorithms.ippo import IPPO
    from coterie.algorithms.maa2c import MAA2C
    from coterie.algorithms.mappo import MAPPO
    from coterie.algorithms.pac import PAC
    from coterie.algorithms.qmix import QMIX
    from coterie.algorithms.reinforce import REINFORCE
    from coterie.algorithms.vdn import VDN
    from coterie.envs.base import Environment
    from coterie.envs.matrix import MatrixGame
    from coterie.errors import EnvironmentFault, Interrupted, UsageError
    from coterie.exports.api import export
    from coterie.jax_envs import make
    from coterie.python_envs.check.check import check_env
    from coterie.python_envs.settings import PythonEnvSettings
    from coterie.runs.api import open_run, resume, train
    from coterie.runs.callbacks import Event
    from coterie.runs.run import Run
    from coterie.runs.team import Team, load
    from coterie.show.film.encode import watch
    from coterie.spec import ActionSpace, EnvSpec, ObservationSpace
    from coterie.sweeps.api import sweep
    from coterie.trackers import MLflow, TensorBoard, WandB
    from coterie.types import TimeStep

# Imported on first use: `coterie --help` should not wait for the compiler's import.
_HOME = {
    "COMA": "algorithms.coma",
    "CentralA2C": "algorithms.central_a2c",
    "CentralQ": "algorithms.central_q",
    "IA2C": "algorithms.ia2c",
    "IDQN": "algorithms.idqn",
    "IPPO": "algorithms.ippo",
    "MAA2C": "algorithms.maa2c",
    "MAPPO": "algorithms.mappo",
    "PAC": "algorithms.pac",
    "QMIX": "algorithms.qmix",
    "REINFORCE": "algorithms.reinforce",
    "VDN": "algorithms.vdn",
    "Environment": "envs.base",
    "ActionSpace": "spec",
    "ObservationSpace": "spec",
    "EnvSpec": "spec",
    "EnvironmentFault": "errors",
    "Event": "runs.callbacks",
    "PythonEnvSettings": "python_envs.settings",
    "Interrupted": "errors",
    "MLflow": "trackers",
    "MatrixGame": "envs.matrix",
    "Run": "runs.run",
    "Team": "runs.team",
    "TensorBoard": "trackers",
    "WandB": "trackers",
    "TimeStep": "types",
    "UsageError": "errors",
    "check_env": "python_envs.check.check",
    "export": "exports.api",
    "load": "runs.team",
    "make": "jax_envs",
    "open_run": "runs.api",
    "resume": "runs.api",
    "sweep": "sweeps.api",
    "train": "runs.api",
    "watch": "show.film.encode",
}

_FORMER = {"Hosting": "PythonEnvSettings"}
"""Former names, by which version 0.1 knew them."""

__all__ = [  # noqa: RUF022
    "ActionSpace", "COMA", "CentralA2C", "CentralQ", "EnvSpec", "Environment",
    "EnvironmentFault", "Event", "IA2C", "IDQN", "IPPO", "Interrupted", "MAA2C", "MAPPO",
    "MLflow", "MatrixGame", "ObservationSpace", "PAC", "PythonEnvSettings", "QMIX", "REINFORCE",
    "Run", "Team", "TensorBoard", "TimeStep", "UsageError", "VDN", "WandB", "check_env",
    "export", "load", "make", "open_run", "resume", "sweep", "train", "watch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        from coterie.former import warn_former

        warn_former(f"coterie.{name}", _FORMER[name])
        return __getattr__(_FORMER[name])
    if name not in _HOME:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"coterie.{_HOME[name]}"), name)
    globals()[name] = value
    if _HOME[name].startswith("runs."):
        _show_in_notebooks()
    return value


def _show_in_notebooks() -> None:
    """Lets a notebook show runs, and the progress of a training in its cell."""
    import sys

    from coterie.runs.run import Run

    def html(run: Run) -> str:
        from coterie.show.notebook import render_run

        return render_run(run)

    Run.html = staticmethod(html)
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        from coterie.show.notebook import enable

        enable()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
