"""The lecture's figures and tables, each trained, measured and checked by one file of this folder.

The directory is the registry: a module ``lecture/<name>.py`` holds one final ``Experiment``.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from coterie.lecture.base.experiment import Experiment


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments by name, in the order of the report."""
    found: list[Experiment] = []
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_") and module.name != "course":
            loaded = importlib.import_module(f"{__name__}.{module.name}")
            found += [
                value()
                for value in vars(loaded).values()
                if isinstance(value, type)
                and issubclass(value, Experiment)
                and value.__module__ == loaded.__name__
            ]
    return {
        experiment.name: experiment
        for experiment in sorted(found, key=lambda experiment: experiment.number)
    }


__all__ = ["Experiment", "experiments"]
