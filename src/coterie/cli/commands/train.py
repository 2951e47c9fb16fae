"""``coterie train`` and ``coterie resume``."""

from __future__ import annotations

import dataclasses
import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coterie.cli.parsing import Groups, environment_groups, environment_options, named, parse
from coterie.cli.printing import INTERRUPTED, answer_json, by_policy, say
from coterie.errors import Interrupted, UsageError
from coterie.module_paths import importable, is_code, path_of
from coterie.settings import (
    Episodes,
    Evaluations,
    NoOrMoreEpisodes,
    Seed,
    Seeds,
    StepCount,
    Workers,
    check,
)
from coterie.text import file_name

if TYPE_CHECKING:
    from coterie.runs.run import Run


TrackerNames = tuple[Literal["tensorboard", "wandb", "mlflow", "none"], ...]


def _stopped(stop: Interrupted) -> dict[str, Any]:
    """What ``--json`` prints of an interrupted training: the policies it saved, no metrics."""
    facts = {"run": str(stop.path), "env_steps": stop.steps, "complete": stop.complete}
    if stop.path is not None:
        from coterie.runs.policy_files import WHICH, default_policy, saved_steps
        from coterie.storage.run_directory import RunDirectory

        seeds = RunDirectory(stop.path).config()["seeds"]
        steps = {which: saved_steps(stop.path, which, seeds) for which in WHICH}
        policies = {which: {"env_steps": k, "metrics": {}} for which, k in steps.items()}
        facts |= {"which": default_policy(stop.path), "policies": policies}
    return {**facts, "metrics": {}}


@dataclass(frozen=True)
class TrainArgs:
    """Trains an algorithm in an environment: one team of agents for each seed, all of them in one
    compiled program."""

    steps: StepCount = 1_000_000
    """Environment steps for each seed; forms such as 2e5 are understood."""
    seeds: Seeds = 1
    """Number of teams, trained side by side, each with its own random seed."""
    seed: Seed = 0
    """Random seed of the first team; the others count up from it."""
    out: Path | None = None
    """Directory to create for the run; by default runs/ALGORITHM-ENVIRONMENT."""
    preset: str | None = None
    """Use the settings of another library (epymarl, jaxmarl, marl-book) or of the lecture's slides
    (lecture) in place of the defaults; flags that you give override it (docs/presets.md)."""
    reward: Literal["individual", "sum", "mean"] | None = None
    """Rewards that agents learn from: each its own, or the sum or mean over agents as a common
    reward; by default what the environment declares."""
    central: Literal["auto", "state", "joint"] | None = None
    """Centralised information z, for algorithms that use it: the environment's state, the joint
    observation, or the state if there is one, else the joint observation (auto, the default)."""
    evaluations: Evaluations | None = None
    """Number of evaluations in training; by default 20, and fewer where episodes of a Python
    environment take long."""
    evaluation_episodes: Episodes | None = None
    """Episodes of each evaluation during training; by default 32, and fewer where episodes of a
    Python environment take long."""
    final_episodes: NoOrMoreEpisodes | None = None
    """Episodes that evaluate the best and the last policies after training, 0 for none; by default
    320, and fewer where episodes of a Python environment take long."""
    init: Path | None = None
    """Run whose networks to begin with, as far as their shapes agree; what is taken and what is not
    is printed."""
    tracker: TrackerNames = ()
    """Send every line of the log, the final table and a film to these programs as well, several one
    after the other; their files are kept in the run directory (docs/after-training.md)."""
    resume: bool = False
    """Continue the run in --out, which must have the same settings, or begin it if there is none;
    if it is complete, show its result."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def train_groups(names: list[str], args: list[str]) -> Groups:
    """Settings of the algorithm, and of the environment's family, as far as they are named.

    What a flag contradicts is not known yet where a preset has the other settings.
    """
    from coterie.python_envs.settings import PythonEnvSettings

    groups: Groups = [("algorithm", _algorithm(names[0]))] if names else []
    if _names_a_preset(args):
        groups = [(t, type(cls.__name__, (cls,), {"__post_init__": check})) for t, cls in groups]
    if len(names) > 1 and is_code(names[1]):
        groups.append(("hosting", PythonEnvSettings))
    if len(names) > 1:
        groups += environment_groups(names[1])
    return [(title, cls) for title, cls in groups if cls is dict or dataclasses.fields(cls)]


def _algorithm(name: str) -> type:
    """The class of an algorithm, one of the user's own imported."""
    from coterie.algorithms import find

    if not is_code(name):
        return find(name)
    from coterie.runs.user_code import imported_algorithm

    kind = imported_algorithm(name)
    if not importable(path := path_of(kind)):
        raise UsageError(
            f"{name} is {path}, which no command could name again: define the class at the top of "
            "its module"
        )
    return kind


def _names_a_preset(args: list[str]) -> bool:
    """Whether flags are settings beside a preset's, and no algorithm by themselves."""
    return any(word.partition("=")[0] == "--preset" for word in args)


def command_train(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.runs import api
    from coterie.show.terminal.progress import TrainDisplay
    from coterie.training.devices import one_core_per_seed

    own = parsed.run
    one_core_per_seed(own.seeds, python_env=is_code(names[1]))
    options = environment_options(parsed)
    out = own.out or Path("runs") / file_name("-".join(names))
    given = named(args, parsed.algorithm) if _names_a_preset(args) else None
    algorithm = parsed.algorithm if given is None else names[0]
    with TrainDisplay() as display:
        train = lambda: api.train(  # noqa: E731
            algorithm, names[1], preset=own.preset, settings=given,
            steps=own.steps, seeds=own.seeds, seed=own.seed, out=out,
            reward=own.reward, central=own.central, options=options,
            python_env=getattr(parsed, "hosting", None), evaluations=own.evaluations,
            evaluation_episodes=own.evaluation_episodes, final_episodes=own.final_episodes,
            init=own.init, resume=own.resume, report=display,
            callback=_trackers(own.tracker, out if own.resume else None),
            command=shlex.join(["coterie", *args]),
        )  # fmt: skip
        return _conclude(train, own.json)


def _trackers(named: Sequence[str], former: Path | None) -> list[Any]:
    """Those that are named, and those that a run which goes on was sent to."""
    if "none" in named or (not named and former is None):
        return []
    from coterie import trackers

    found = trackers.make(named)
    for name in trackers.used(former) if former else ():
        if name not in named:
            try:
                found += trackers.make([name])
            except UsageError as error:
                warnings.warn(f"{error}; the run goes on without it", stacklevel=2)
    return found


def _conclude(train: Callable[[], Run], as_json: bool) -> int:
    """Trains and prints the result; where it was stopped, the display has said how to go on."""
    try:
        run = train()
    except Interrupted as stop:
        if as_json:
            answer_json(_stopped(stop))
        return INTERRUPTED
    if as_json:
        facts = {"run": str(run.path), "env_steps": run.steps, "complete": run.complete}
        facts |= {"which": run.which, "policies": by_policy(run, run.results)}
        answer_json({**facts, "metrics": run.metrics})
        return 0
    if run.results:
        from coterie.show.terminal.returns import render_returns

        say(render_returns(run, run.results))
    from coterie.runs.continuation import run_command
    from coterie.runs.user_code import recorded_code

    assert run.path is not None
    evaluate = run_command("evaluate", run.path, recorded_code(run.config))
    say("", f"kept in {shlex.quote(str(run.path))}; next:")
    say(f"  {evaluate}", f"  {run_command('plot', run.path)}")
    return 0


@dataclass(frozen=True)
class ResumeArgs:
    """Continues a run from its newest checkpoint, with the same results as an uninterrupted run."""

    steps: StepCount | None = None
    """New length of the run in environment steps: more to extend it, fewer to end it earlier."""
    set: tuple[str, ...] = ()
    """Other settings, as NAME=VALUE, several one after the other; needs --fork."""
    fork: Path | None = None
    """New directory for a copy of the run, which goes on with the settings of --set; the run itself
    stays as it is."""
    environment: str | None = None
    """Environment of the run; required if it is a Python environment or defined in your own
    code, which Coterie imports only if you name it."""
    workers: Workers | None = None
    """Worker processes for Python environments; by default as many as the run had."""
    tracker: TrackerNames = ()
    """Send the log to these programs as well; those that the run was sent to go on, unless this is
    none."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def _assigned(words: Sequence[str], algorithm: type) -> dict[str, Any]:
    """Settings from NAME=VALUE, read as the flags of ``train`` are."""
    from coterie.algorithms import known_settings

    flags: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes NAME=VALUE, such as lr=1e-4; got {word!r:.60}")
        known_settings(algorithm, {name.replace("-", "_"): value}, "the run's algorithm")
        flag = name.replace("_", "-")
        switch = {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(value.lower())
        flags += switch or [f"--{flag}", *value.replace(",", " ").split()]
    settings = type(algorithm.__name__, (algorithm,), {"__post_init__": check})
    return named(flags, parse([("algorithm", settings)], flags, "coterie train").algorithm)


def command_resume(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.runs import api
    from coterie.runs.user_code import class_of
    from coterie.show.terminal.progress import TrainDisplay
    from coterie.storage.run_directory import RunDirectory
    from coterie.training.devices import one_core_per_seed

    config = RunDirectory.open(Path(names[0])).config()
    one_core_per_seed(config["seeds"], python_env=config.get("hosting") is not None)
    own = parsed.run
    settings = None
    if own.set:
        settings = _assigned(own.set, class_of(config["algorithm"], parsed.code.algorithm))
    with TrainDisplay() as display:
        resume = lambda: api.resume(  # noqa: E731
            names[0], own.steps, environment=own.environment, workers=own.workers,
            settings=settings, fork=own.fork, callback=_trackers(own.tracker, Path(names[0])),
            report=display, **dataclasses.asdict(parsed.code),
        )  # fmt: skip
        return _conclude(resume, own.json)
