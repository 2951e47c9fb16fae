"""Presets: the settings that other libraries, and the lecture's slides, have for an algorithm.

Each is a file of data in this folder, ``<name>.toml``: a table of settings for each algorithm, the
source of every value beside it. ``docs/presets.md`` shows them, and what each one does not cover.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from coterie.algorithms import algorithms, check_class, known_settings, make
from coterie.algorithms import find as find_algorithm
from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.settings import Name, fitted, hints, parts_of, shown
from coterie.spec import Reward
from coterie.text import did_you_mean

__all__ = ["Chosen", "Preset", "find", "names"]

Central = Literal["auto", "state", "joint"]

OF_THE_RUN = ("reward", "central")
"""Settings of a run and not of its algorithm that a preset may state too."""


@dataclass(frozen=True)
class Preset:
    """Settings for several algorithms, as the file states them.

    A value ``{episodes = n}`` is n times the environment's time limit, ``{per_episode = n}`` is n
    over it, ``{of_run = x}`` is that share of the run's steps, and ``none`` is None.

    Attributes:
        about: whose settings they are.
        tables: by algorithm, settings by name.
        families: what the names of environments that they are for begin with; any if empty.
        ours: settings that have no counterpart there and keep their defaults.
    """

    name: str
    about: str
    tables: Mapping[str, Mapping[str, Any]]
    families: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()

    def has(self, algorithm: str, environment: str) -> bool:
        """Whether it states settings for this algorithm in this environment, both by name."""
        return algorithm in self.tables and self._is_for(environment)

    def make(
        self, algorithm: str, steps: int, time_limit: int | None, given: Mapping[str, Any]
    ) -> Algorithm:
        """The algorithm with the preset's settings, but for those that are given.

        Args:
            steps: environment steps of a seed.
            time_limit: the longest episode of the environment, if there is one.

        Raises:
            UsageError: settings contradict each other, or are counted in episodes of no known
                length.
        """
        if given.get("target_interval") is not None:  # one of them replaces the other
            given = {"target_tau": None, **given}
        elif given.get("target_tau") is not None:
            given = {"target_interval": None, **given}
        declared = hints(find_algorithm(algorithm))
        stated = {
            name: self._value(value, declared.get(name), steps, time_limit)
            for name, value in self.tables[algorithm].items()
            if name not in OF_THE_RUN and name not in given
        }
        return make(algorithm, **{**stated, **given})

    def refusal(self, algorithm: str, environment: str) -> str:
        """A sentence that names what it has settings for, and the presets that have these."""
        what = f"{algorithm} in {environment}" if algorithm in self.tables else algorithm
        having = [name for name in names() if find(name).has(algorithm, environment)]
        where = ", ".join(f"{family}*" for family in self.families) or "any environment"
        return (
            f"preset {self.name} has no settings for {what}; it has some for "
            f"{', '.join(sorted(self.tables))} in {where}, and "
            f"{', '.join(having) or 'no preset'} for {algorithm} in {environment}"
        )

    def _is_for(self, environment: str) -> bool:
        return not self.families or environment.startswith(self.families)

    def _value(self, value: Any, hint: Any, steps: int, time_limit: int | None) -> Any:
        if value == "none" and type(None) in typing.get_args(parts_of(hint)[0]):
            return None
        if not isinstance(value, dict):
            return value
        ((unit, number),) = value.items()
        if unit == "of_run":
            return max(1, round(number * steps))
        if time_limit is None:
            raise UsageError(
                f"preset {self.name} counts in episodes, and this environment has no time limit: "
                "give it one"
            )
        return {"episodes": number * time_limit, "per_episode": number / time_limit}[unit]


@dataclass(frozen=True)
class Chosen:
    """The algorithm of a training as the caller gave it: with its settings, or by name.

    Attributes:
        preset: for one by name, the preset that its other settings are taken from.
        given: for one by name, the settings that the caller passed.

    A class counts as its name, or, outside this package, is made with the settings passed.
    """

    algorithm: Any
    preset: str | None = None
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_one(self.algorithm):
            raise UsageError(
                "algorithm must be an algorithm, such as coterie.IA2C(gamma=0.95), its class or "
                f"its name, such as 'ia2c'; got {shown(self.algorithm)}"
            )
        fitted("preset", self.preset, Name | None)
        if not isinstance(self.given, Mapping):
            raise UsageError(f"settings must be values by name; got {shown(self.given)}")
        if isinstance(self.algorithm, type):
            object.__setattr__(self, "algorithm", self._of_class(self.algorithm))
        elif isinstance(self.algorithm, Algorithm):
            check_class(type(self.algorithm))
            if self.preset is not None or self.given:
                raise UsageError(
                    "a preset and settings are for the name or the class of an algorithm, such as "
                    f"'ia2c': {type(self.algorithm).__name__}(...) has its settings already"
                )

    def _of_class(self, kind: type[Algorithm]) -> Algorithm | str:
        """The name of a class of this package; another class with the settings that are given."""
        name = kind.__module__.rpartition(".")[2]
        if algorithms().get(name) is kind:
            return name
        if self.preset is not None:
            raise UsageError(f"a preset has settings of Coterie's algorithms; got {kind.__name__}")
        check_class(kind)
        made = kind(**known_settings(kind, self.given))
        object.__setattr__(self, "given", {})
        return made

    @property
    def kind(self) -> type[Algorithm]:
        if isinstance(self.algorithm, str):
            return find_algorithm(self.algorithm)
        return type(self.algorithm)

    def of_the_run(self, reward: Any, central: Any) -> tuple[Reward | None, Central]:
        """What the reward and z are, each as given, else as the preset has it."""
        stated = self._stated()
        reward = stated.get("reward") if reward is None else reward
        central = stated.get("central", "auto") if central is None else central
        return fitted("reward", reward, Reward | None), fitted("central", central, Central)

    def made(self, environment: str, steps: int, time_limit: int | None) -> Algorithm:
        """The algorithm, with all its settings (see ``Preset.make``)."""
        if not isinstance(self.algorithm, str):
            return self.algorithm
        if self.preset is None:
            return make(self.algorithm, **self.given)
        preset = find(self.preset)
        if not preset.has(self.algorithm, environment):
            raise UsageError(preset.refusal(self.algorithm, environment))
        return preset.make(self.algorithm, steps, time_limit, self.given)

    def recorded(self) -> dict[str, str]:
        """What ``config.json`` says beside the settings that came out of it."""
        return {} if self.preset is None else {"preset": self.preset}

    def remarks(self) -> list[str]:
        """A sentence on whose settings they are."""
        if self.preset is None:
            return []
        return [f"settings are those of {self.preset} where none are given (docs/presets.md)"]

    def depends(self) -> set[str]:
        """Settings taken from the preset that follow from the number of steps."""
        stated = {n: v for n, v in self._stated().items() if n not in self.given}
        return {n for n, v in stated.items() if isinstance(v, dict) and "of_run" in v}

    def _stated(self) -> Mapping[str, Any]:
        if self.preset is None or not isinstance(self.algorithm, str):
            return {}
        return find(self.preset).tables.get(self.algorithm, {})


def _is_one(algorithm: Any) -> bool:
    """Whether it is an algorithm, the class of one, or perhaps its name."""
    if isinstance(algorithm, type):
        return issubclass(algorithm, Algorithm)
    return isinstance(algorithm, str | Algorithm)


def names() -> list[str]:
    """Every preset: the files of this folder."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def find(name: str) -> Preset:
    """The preset of this name; UsageError naming the nearest otherwise."""
    if name not in names():
        hint = did_you_mean(name.lower(), names(), cutoff=0.3)
        raise UsageError(f"there is no preset {name!r:.60}{hint} (known: {', '.join(names())})")
    return _read(name)


@functools.cache
def _read(name: str) -> Preset:
    content = tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text("utf-8"))
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    return Preset(
        name,
        content["about"],
        {algorithm: _followed(tables, algorithm) for algorithm in tables},
        tuple(content.get("families", ())),
        tuple(content.get("ours", ())),
    )


def _followed(tables: Mapping[str, Mapping[str, Any]], algorithm: str) -> dict[str, Any]:
    """A table with what it takes over from the one that ``like`` names."""
    table = dict(tables[algorithm])
    like = table.pop("like", None)
    return table if like is None else _followed(tables, like) | table
