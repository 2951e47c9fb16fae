"""A run from the user's side: ``train`` one, ``Run.evaluate`` it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from coterie.errors import NotEnoughMemory, UsageError
from coterie.former import former_arguments
from coterie.learners.contract import Algorithm
from coterie.module_paths import is_code, said_of
from coterie.presets import Chosen
from coterie.python_envs.settings import PythonEnvSettings
from coterie.runs import forks, warm_start
from coterie.runs.callbacks import Callback, Callbacks, Predicate
from coterie.runs.config import (
    as_json,
    check_same_spec,
    configured_algorithm,
    note_python,
    python_env_of,
    restore,
)
from coterie.runs.continuation import (
    check_same,
    moved_sentence,
    note_session,
    place,
)
from coterie.runs.environments import Opened
from coterie.runs.learner import template
from coterie.runs.loop import Loop, Report, shown_by
from coterie.runs.memory import LARGER_MACHINE, check_state, check_work
from coterie.runs.plan import Plan, check_episodes, check_restorable, make_plan
from coterie.runs.run import Run, opened, play_finally
from coterie.runs.user_code import (
    Given,
    check_same_code,
    imported_algorithm,
    of_the_run,
    own_class,
    recorded_code,
)
from coterie.settings import StepCount, fitted
from coterie.spec import Reward
from coterie.storage import checkpoint as checkpoints
from coterie.storage.config_file import ABSENT_ONCE, identity, readable
from coterie.storage.formats import FORMAT, check_resumable
from coterie.storage.run_directory import RunDirectory
from coterie.training.devices import Devices, States
from coterie.training.loop import Paced
from coterie.training.state import read_state
from coterie.views.game import Game

if TYPE_CHECKING:
    from coterie.python_envs.training import HostDevice


@former_arguments(hosting="python_env")
def train(
    algorithm: Algorithm | type[Algorithm] | str,
    environment: Opened,
    steps: int | float,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    reward: Reward | None = None,
    central: Literal["auto", "state", "joint"] | None = None,
    options: dict[str, Any] | None = None,
    python_env: PythonEnvSettings | None = None,
    evaluations: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    callback: Callback | Sequence[Callback] | None = None,
    stop: Predicate | None = None,
    report: Report | None = None,
    command: str | None = None,
) -> Run:
    """Trains ``seeds`` teams side by side, each for ``steps`` environment steps.

    Ctrl-C and SIGTERM save what was learned and then raise ``Interrupted``, a KeyboardInterrupt.

    Args:
        algorithm: one with its settings, such as ``coterie.VDN(gamma=0.99)``, or its class or name;
            the name of one of your own is ``module:Class``.
        environment: a name, an environment, or a callable that makes one: a JAX environment, or a
            Python environment of PettingZoo, or of Gymnasium, of a team or a single agent.
        steps: environment steps of each seed.
        preset: settings of another library or of the lecture, by the name of the preset
            (docs/presets.md), in place of defaults; for an algorithm's class or name.
        settings: settings by name, for an algorithm's class or name.
        seeds: number of teams, each with its own random seed.
        seed: random seed of the first team; the others count up from it.
        out: a new run directory; without it nothing is written.
        reward: rewards that agents learn from, their own or a common one; the environment's
            default unless given.
        central: what z is, for algorithms that use it: the environment's state where it offers
            one, else the joint observation (``auto``).
        options: the environment's options.
        python_env: settings of Python environments, such as the number of worker processes.
        evaluations: how often policies are evaluated along the way; 20 unless given.
        evaluation_episodes: episodes of each of these evaluations; 32 unless given.
        final_episodes: episodes that evaluate the best and last policies at the end; 320. All
            three are fewer by default where playing so much in a Python environment would take
            more steps than training.
        init: a run directory whose networks the new run begins with, as far as their shapes agree;
            ``config.json`` records what was taken and what was not. All else starts anew.
        resume: goes on with the run in ``out`` if there is one, which must have these settings;
            one that is complete is returned as it is, with its result in ``metrics``.
        callback: called with each ``coterie.Event``: the lines of the log as they are written, the
            start and the end; one that returns True ends the run here. Several are a list.
        stop: called with the event of each evaluation; the run ends where it returns true, as in
            ``stop=lambda event: event.score > 0.95``.
        report: called with what the progress display shows; ``callback`` is for the numbers.
        command: what ``config.json`` records as the command line of this run.

    Raises:
        UsageError: anything asked for that cannot be done, in one sentence.
        Interrupted: Ctrl-C or SIGTERM ended the training.
        Exception: what a callback raised, once all is saved.
    """
    if resume and out is None:
        raise UsageError("resume continues a run directory: name it (out)")
    path = None if out is None else Path(out)
    recorded = None
    if resume and path is not None and RunDirectory(path).holds_a_run():
        recorded = RunDirectory(path).config()
    if isinstance(algorithm, str) and is_code(algorithm):
        algorithm = imported_algorithm(algorithm)
    asked = {"evaluations": evaluations, "evaluation_episodes": evaluation_episodes,
             "final_episodes": final_episodes}  # fmt: skip
    with said_of(algorithm if isinstance(algorithm, type) else type(algorithm), "was trained"):
        chosen = Chosen(algorithm, preset, settings or {})
        plan = make_plan(
            chosen, environment, steps, seeds, seed, reward, central, options, python_env, asked,
            recorded,
        )  # fmt: skip
        plan.config["command"] = command
        source = None
        if init is not None:
            path_there, known = Path(init).absolute(), (recorded or {}).get("init", {})
            if known.get("of") == str(path_there):  # taken up as it was begun
                plan.config["init"] = known
            else:
                source = warm_start.read_source(path_there)
                plan.config["init"] = warm_start.compare(source, plan.algorithm, plan.game)
                plan.remarks.extend(warm_start.sentences(plan.config["init"]))
        told = Told(shown_by(report), Callbacks(callback, stop))
        if recorded is not None and path is not None:
            return _take_up(plan, RunDirectory(path), environment, told)
        return _begin(plan, path, environment, told, source)


class Told(NamedTuple):
    """Who is told of a training: the progress display, and the user's callbacks."""

    report: Report
    callbacks: Callbacks


def _begin(
    plan: Plan,
    path: Path | None,
    environment: Opened,
    told: Told,
    source: warm_start.Source | None,
) -> Run:
    """Trains from the start, in a new run directory if there is to be one."""
    algorithm, game, report = plan.algorithm, plan.game, told.report
    with make_devices(algorithm, game, plan.config, report) as devices:
        note_session(plan.config, 0, here := place())
        config = readable(plan.config | {"lanes": devices.count})
        needed = check_state(devices)
        check_episodes(game, config, algorithm.stochastic)
        if path is not None:
            check_restorable(config, algorithm)
        directory = RunDirectory.create(path) if path is not None else None
        with directory.locked() if directory else contextlib.nullcontext():
            if directory:
                directory.begin(config)
            report("start", config | {"game": game, "mode": algorithm.mode, "bytes": needed})
            for sentence in plan.remarks:
                report("note", {"sentence": sentence})
            loop = Loop(devices, config, directory, environment, here, *told)
            return loop.run(lambda: _untrained(devices, config, directory, source), 0)


def _untrained(
    devices: Devices | HostDevice,
    config: dict[str, Any],
    directory: RunDirectory | None = None,
    source: warm_start.Source | None = None,
) -> States:
    """The states before the first step, with another run's networks where they were asked for.

    Raises:
        NotEnoughMemory: to learn from them would take more memory than is free; the directory of
            the run can then be used again.
    """
    try:
        check_work(devices, devices.bytes())
    except NotEnoughMemory:
        if directory:
            directory.withdraw()
        raise
    states = devices.init(config["seed"])
    if "init" not in config:
        return states
    program = devices.program
    source = source or warm_start.read_again(config["init"])
    return warm_start.begin(states, source, config["init"], program.algorithm, program.game)


def _take_up(plan: Plan, directory: RunDirectory, environment: Opened, told: Told) -> Run:
    """Goes on with a run that has the settings of the plan; returns it if it is complete.

    Raises:
        UsageError: it has other settings.
    """
    algorithm, game, report = plan.algorithm, plan.game, told.report
    with directory.locked():
        config = directory.config()
        now = ABSENT_ONCE | config
        if config["algorithm"] == algorithm.name:  # in the words of this version
            settings = configured_algorithm(config, code=own_class(algorithm)).settings()
            now["settings"] = settings
        now["steps"] = config.get("asked_steps", config["steps"])
        check_same(directory.path, as_json(now), as_json(plan.config), plan.depends)
        check_same_spec(config, plan.config.get("spec_digest"), config["environment"])
        if directory.is_finished(config):
            return _finished(directory, config, algorithm, game, report)
        check_resumable(directory.path, config, directory.steps_done())
        if "hosting" in plan.config:
            config["hosting"] |= {k: plan.config["hosting"][k] for k in ("workers", "python")}
        with make_devices(algorithm, game, config, report) as devices:
            return _go_on(devices, config, directory, environment, told, extended=False)


def _finished(
    directory: RunDirectory,
    config: dict[str, Any],
    algorithm: Algorithm,
    game: Game,
    report: Report,
) -> Run:
    """A complete run, with its result as it was recorded, or evaluated again where that is lost."""
    run = opened(directory, config, algorithm, game)
    report("note", {"sentence": f"{directory.path} is complete"})
    if not run.results and config["final_episodes"]:
        play_finally(run)
        directory.write_result(config, run.results)
    return run


@contextlib.contextmanager
def make_devices(
    algorithm: Algorithm, game: Game, config: dict[str, Any], report: Report
) -> Iterator[Devices | HostDevice]:
    """What steps and learns, closed in the end: compiled, or with environments in processes."""
    python_env, seeds = python_env_of(config), config["seeds"]
    episodes = (ABSENT_ONCE | config)["evaluation_episodes"]
    if python_env:
        from coterie.python_envs.training import HostDevice

        warn = lambda sentence: report("warning", {"sentence": sentence})  # noqa: E731
        devices = HostDevice(algorithm, game, seeds, config["seed"], episodes, python_env, warn)
    else:
        devices = Devices(algorithm, game, seeds, episodes, config.get("lanes"))
    try:
        yield devices
    finally:
        devices.close()


def resume(
    path: str | Path,
    steps: int | None = None,
    *,
    environment: Opened | None = None,
    algorithm: Any = None,
    torso: Any = None,
    head: Any = None,
    python: str | None = None,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    fork: str | Path | None = None,
    callback: Callback | Sequence[Callback] | None = None,
    stop: Predicate | None = None,
    report: Report | None = None,
) -> Run:
    """Continues an interrupted run from its newest checkpoint, or from its start if it has none.

    Ctrl-C and SIGTERM save what was learned and then raise ``Interrupted``, a KeyboardInterrupt.

    Args:
        steps: the run's new length in environment steps, more or fewer than before.
        environment: that of the run; needed for a Python environment and for one defined in the
            user's own code.
        algorithm, torso, head: those of the run; needed where they are the user's own.
        python: another Python in which Python environments run (``PythonEnvSettings.python``);
            needed where the run had one.
        workers: worker processes for Python environments; as many as before unless given.
        settings: other values for the algorithm's settings, in a fork.
        fork: a new run directory, to which the run is copied up to its newest checkpoint, and
            which goes on with ``settings``; ``config.json`` records its parent and what changed.
            The run itself stays as it is.
        callback, stop: as in ``train``.
    """
    steps = fitted("steps", steps, StepCount | None)
    directory = RunDirectory.open(Path(path))
    given = {"environment": environment, "algorithm": algorithm, "torso": torso, "head": head,
             "python": python}  # fmt: skip
    if settings or fork is not None:
        if fork is None:
            raise UsageError(
                "a run's settings never change: name a new directory (--fork OUT) for a copy that "
                "goes on with others"
            )
        directory = _fork(directory, Path(fork).absolute(), settings or {}, steps, given)
    with directory.locked():
        config = directory.config()
        if workers is not None and python_env_of(config):
            config["hosting"]["workers"] = PythonEnvSettings(workers=workers).workers
        told = Told(shown_by(report), Callbacks(callback, stop))
        return _resume(directory, config, steps, given, told)


def _fork(
    directory: RunDirectory,
    out: Path,
    settings: Mapping[str, Any],
    steps: int | None,
    given: Given,
) -> RunDirectory:
    """A copy of the run at its newest checkpoint, with other settings."""
    with directory.locked():
        config = directory.config()
        check_resumable(directory.path, config, directory.steps_done(lambda sentence: None))
        before, game = restore(config, given)
        if steps is not None:
            config["steps"] = steps
            config.pop("asked_steps", None)
        limit = game.env.spec().time_limit
        after = forks.changed(before, settings, config["steps"], limit) if settings else before
        wanted = restore(config | {"settings": after.settings()}, given)
        seeds, devices = config["seeds"], config["lanes"]
        states = template(before, game, seeds, devices)
        forks.check_arrays(before, after, states, template(*wanted, seeds, devices))
        name = identity(config)
        restored = checkpoints.latest(
            directory.path, states, read=read_state(before, game),
            object_to=lambda step, meta: None if meta.get("run") == name else "is of another run",
        )  # fmt: skip
        if config["steps"] <= restored.step:
            raise UsageError(
                f"{directory.path} has its {restored.step:,} steps: a fork needs more --steps"
            )
        made = forks.config_of(config, directory.path, after, restored.step)
        return forks.write(directory, out, made, restored)


def _resume(
    directory: RunDirectory,
    config: dict[str, Any],
    steps: int | None,
    given: Given,
    told: Told,
) -> Run:
    if directory.learner.is_file():
        raise UsageError(
            f"{directory.path} is complete and keeps no checkpoint to go on from, only what it "
            "learned: train again with more --steps and another --out"
        )
    # Damage of the log is told when it is cut back to what the checkpoint knew of it.
    check_resumable(directory.path, config, directory.steps_done(lambda sentence: None))
    name, environment = config["environment"], given["environment"]
    if isinstance(environment, str) and is_code(name):
        check_same_code("environment", name, environment)
    algorithm, game = restore(config, given)
    note_python(config, game)
    if steps is not None:
        config["steps"] = steps
        config.pop("asked_steps", None)
    with (
        said_of(type(algorithm), "was trained"),
        make_devices(algorithm, game, config, told.report) as devices,
    ):
        return _go_on(devices, config, directory, environment, told, steps is not None)


def _go_on(
    devices: Devices | HostDevice,
    config: dict[str, Any],
    directory: RunDirectory,
    environment: Opened | None,
    told: Told,
    extended: bool,
) -> Run:
    """The run from its newest checkpoint on; ``extended`` if more steps were asked for."""
    game, mode, report = devices.program.game, devices.program.algorithm.mode, told.report
    config["format"] = FORMAT  # of all that is written from now on
    needed = check_state(devices, LARGER_MACHINE)
    warn = lambda sentence: report("warning", {"sentence": sentence})  # noqa: E731
    start, here = config | {"game": game, "mode": mode, "bytes": needed}, place()
    if directory.is_untrained():
        report("start", start)
        note_session(config, 0, here)
        directory.write_config(config)
        loop = Loop(devices, config, directory, environment, here, *told)
        return loop.run(lambda: _untrained(devices, config), 0)
    with of_the_run(recorded_code(config)):
        _, states, meta = checkpoints.latest(
            directory.path,
            devices.template(),
            warn,
            lambda step, meta: _misplaced(step, meta, devices.program, identity(config)),
            read_state(devices.program.algorithm, game),
        )
    made = devices.program.iterations(config["steps"]) <= meta["iteration"]
    # Asked in any case: what is damaged is named before it is written anew.
    evaluated = not config["final_episodes"] or directory.is_evaluated(warn)
    if made and (extended or evaluated):
        done = meta["env_steps"]
        asked = config.get("asked_steps")
        more = f"--steps {asked} makes it as long as it was asked for" if asked else ""
        raise UsageError(
            f"{directory.path} has its {done:,} steps already; "
            f"{more or 'extend it with more --steps'}"
        )
    report("start", start)
    report("note", {"sentence": f"goes on from the checkpoint of step {meta['env_steps']:,}"})
    if sentence := moved_sentence(meta, here):
        warn(sentence)
    note_session(config, meta["env_steps"], here)
    directory.write_config(config)
    if problem := directory.cut_log(meta["log_bytes"], meta["log_digest"], meta["log_lines"]):
        warn(problem)
    loop = Loop(devices, config, directory, environment, here, *told, meta=meta)
    # Read and placed states together would be twice the replay.
    placed = devices.place(states)
    del states

    def begin() -> States:
        check_work(devices, 0, LARGER_MACHINE)
        return placed

    return loop.run(begin, meta["iteration"])


_META = {"iteration": int, "log_bytes": int, "log_digest": str, "log_lines": int,
         "seconds": float, "evaluations": dict}  # fmt: skip
"""What a run wants to know from a checkpoint beside its state."""


def _misplaced(step: int, meta: dict[str, Any], program: Paced, run: str) -> str | None:
    """Why a checkpoint does not belong where it lies; None if it does."""
    if meta.get("run") != run:
        return "is of another run"
    for name, kind in _META.items():
        if not isinstance(meta.get(name), kind):
            return f"does not say its {name}"
    if meta["iteration"] * program.steps_per_iteration != step:
        return f"is that of iteration {meta['iteration']}, and not of step {step}"
    return None


def open_run(
    path: str | Path,
    environment: Opened | None = None,
    *,
    algorithm: Any = None,
    torso: Any = None,
    head: Any = None,
    python: str | None = None,
) -> Run:
    """A run from its directory; what is the user's own code, such as ``torso``, is passed again.

    Args:
        python: another Python in which its Python environments run; needed where the run had one.
    """
    directory = RunDirectory.open(Path(path))
    config = directory.config()
    given = {"environment": environment, "algorithm": algorithm, "torso": torso, "head": head,
             "python": python}  # fmt: skip
    restored, game = restore(config, given)
    return opened(directory, config, restored, game)
