"""What an experiment of the lecture is: trainings, measurements, claims, and how they are shown."""

from __future__ import annotations

import abc
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from coterie.algorithms import make
from coterie.errors import NotFinite, UsageError
from coterie.flags import arguments
from coterie.runs import api, loop
from coterie.runs import config as configs
from coterie.runs.api import open_run
from coterie.runs.learner import finalise
from coterie.runs.plan import EVALUATIONS
from coterie.runs.run import FINAL_EPISODES, Run
from coterie.show.numbers import short
from coterie.storage.run_directory import RunDirectory


class Diverged(RuntimeError):
    """A training that came to numbers that are not finite; the message says which and where."""


@dataclass(frozen=True)
class Scale:
    """How large a lecture is given.

    Attributes:
        quick: fewer seeds and steps where an experiment offers it; the result says so.
        seeds: overrides the number of seeds of every training.
        seed: the first seed.
    """

    quick: bool = False
    seeds: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        """The flags that ask for it."""
        usual = dataclasses.asdict(Scale())
        asked = {k: v for k, v in dataclasses.asdict(self).items() if v != usual[k]}
        return " ".join(arguments(asked))


@dataclass(frozen=True)
class Recipe:
    """One training of an experiment, at its full and its quick size.

    Attributes:
        quick_environment, quick_steps, quick_seeds: in their place in a quick lecture.
        quick_settings: besides ``settings`` in a quick lecture.
        only_full: left out of a quick lecture.
    """

    algorithm: str
    environment: str
    steps: int
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)
    quick_steps: int | None = None
    quick_seeds: int | None = None
    quick_environment: str | None = None
    quick_settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    evaluations: int = EVALUATIONS
    final_episodes: int = FINAL_EPISODES
    only_full: bool = False

    def at(self, scale: Scale) -> Recipe:
        """This training at a lecture's scale."""
        sized = dataclasses.replace(self, seeds=scale.seeds or self.seeds, seed=scale.seed)
        if not scale.quick:
            return sized
        return dataclasses.replace(
            sized,
            environment=self.quick_environment or self.environment,
            settings=self.settings | self.quick_settings,
            steps=self.quick_steps or self.steps,
            seeds=scale.seeds or self.quick_seeds or self.seeds,
        )

    @property
    def name(self) -> str:
        """Names the run directory: pac-climbing-20x300k."""
        variant = self.environment.rpartition("/")[2]
        size = f"{self.seeds}x{short(self.steps)}" + (f"-from-{self.seed}" if self.seed else "")
        return f"{self.algorithm}-{variant}-{size}"

    def command(self, out: Path) -> str:
        """The command that does the same."""
        run = {"steps": self.steps, "seeds": self.seeds}
        run |= {"seed": self.seed} if self.seed else {}
        for name, usual in (("evaluations", EVALUATIONS), ("final_episodes", FINAL_EPISODES)):
            run |= {name: getattr(self, name)} if getattr(self, name) != usual else {}
        words = ["coterie", "train", self.algorithm, self.environment]
        return shlex.join([*words, *arguments(run | self.settings), "--out", str(out)])

    def train(self, home: Path, report: loop.Report) -> Run:
        """The trained run: as its directory holds it, continued or begun as far as it does not.

        Raises:
            UsageError: the directory holds a training of other settings.
            Diverged: a number was not finite.
            KeyboardInterrupt: it was asked to stop; what was learnt is kept.
        """
        path = home / self.name
        directory = RunDirectory(path)
        if directory.holds_a_run():
            self._check_same(directory)
            if directory.is_finished(directory.config()):
                return _finalised(open_run(path))
        else:
            directory.check_blank()
        try:
            begun = directory.holds_a_run()
            run = api.resume(path, report=report) if begun else self._begin(path, report)
        except NotFinite as bad:
            raise Diverged(f"{self.name} has diverged: {bad}") from None
        return _finalised(run)

    def _begin(self, path: Path, report: loop.Report) -> Run:
        return api.train(
            make(self.algorithm, **self.settings), self.environment, self.steps,
            seeds=self.seeds, seed=self.seed, out=path, evaluations=self.evaluations,
            final_episodes=self.final_episodes, report=report, command=self.command(path),
        )  # fmt: skip

    def _check_same(self, directory: RunDirectory) -> None:
        config = directory.config()
        algorithm, game = configs.restore(config)
        wanted = make(self.algorithm, **self.settings).resolve(self.steps, game.spec.time_limit)
        names = ("environment", "steps", "seeds", "seed", "evaluations", "final_episodes")
        same = {k: config[k] == getattr(self, k) for k in names}
        if algorithm != wanted or not all(same.values()):
            raise UsageError(
                f"{directory.path} holds a training with other settings: choose another --out"
            )


def _finalised(run: Run) -> Run:
    """The run from its directory, which keeps no replay: a lecture's would be gigabytes."""
    assert run.path is not None
    if (run.path / "checkpoints").is_dir():
        finalise(run)
    return open_run(run.path)


def check_finite(run: Run) -> None:
    """Diverged, with the training and its seed, unless all networks of a run are finite."""
    sound = np.ones(run.config["seeds"], bool)
    for leaf in jax.tree.leaves(run.policies):
        leaf = np.asarray(leaf)
        sound &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    if not sound.all():
        assert run.path is not None
        seeds = ", ".join(str(run.config["seed"] + k) for k in np.flatnonzero(~sound))
        raise Diverged(f"{run.path.name} has diverged in seed {seeds}")


@dataclass(frozen=True)
class Check:
    """One claim of the lecture, what was measured, and whether that bears it out."""

    claim: str
    published: str
    measured: str
    passed: bool


Numbers = dict[str, Any]
"""What an experiment measured: JSON-able, and the same whenever the same seeds are run."""


class Experiment(abc.ABC):
    """One figure or table of the lecture.

    Attributes:
        number: its place in the report.
        title: what it is called in the report.
        source: where it stands.
        about: what is shown, in a sentence or two.
        minutes: how long it takes on two idle cores, at its full and at its quick size.
    """

    number: ClassVar[int]
    title: ClassVar[str]
    source: ClassVar[str]
    about: ClassVar[str]
    minutes: ClassVar[tuple[float, float]]

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def recipes(self) -> dict[str, Recipe]:
        """The trainings, by the name under which ``measure`` asks for them."""
        return {}

    def expected(self, scale: Scale) -> float:
        """Minutes on two idle cores, in proportion to the seeds of its trainings."""
        usual = dataclasses.replace(scale, seeds=None)
        seeds = [sum(r.at(s).seeds for r in self.recipes().values()) for s in (scale, usual)]
        share = seeds[0] / seeds[1] if seeds[1] else 1.0
        return float(self.minutes[scale.quick] * share)

    @abc.abstractmethod
    def measure(self, trained: dict[str, Run], scale: Scale) -> Numbers:
        """Every number the experiment shows or checks."""

    @abc.abstractmethod
    def checks(self, numbers: Numbers) -> list[Check]:
        """The claims, checked."""

    @abc.abstractmethod
    def blocks(self, numbers: Numbers, trained: dict[str, Run]) -> Sequence[Any]:
        """The experiment in the report: blocks of ``coterie.show.report``."""


FACTS = ("command", "run", "steps", "seeds", "seconds")
"""What an outcome says of each training."""


@dataclass
class Outcome:
    """The outcome of an experiment: what ``result.json`` holds.

    Attributes:
        trainings: command, run directory, steps, seeds and seconds of each training.
        seconds: of everything, trainings included. Seconds are all that differs between two
            lectures with the same seeds.
        fingerprint: of what it was given with: scale, trainings, version.
    """

    item: str
    title: str
    source: str
    quick: bool
    scale: dict[str, Any]
    numbers: Numbers
    checks: list[dict[str, Any]]
    trainings: dict[str, dict[str, Any]]
    seconds: float
    fingerprint: str

    @property
    def passed(self) -> bool:
        return all(check["passed"] for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": "passed" if self.passed else "failed"} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Outcome:
        """An outcome as it was written; any error of lookup or type where it is damaged."""
        given = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        given["checks"] = [dataclasses.asdict(Check(**check)) for check in given["checks"]]
        given["trainings"] = {
            key: {fact: training[fact] for fact in FACTS}
            for key, training in given["trainings"].items()
        }
        return cls(**given)
