"""Tries hundreds of values of every setting; prints what was accepted, and what was wrong with it.

``python settings_worker.py FOLDER``. Whatever comes to training must
be read by what every command reads a run with, and be the same then; all else must be refused in
one sentence that names the setting, before anything is written. Nothing is compiled. In a process
of its own, where types are checked by Coterie alone and not by the tests' hook.
"""

import contextlib
import dataclasses
import io
import json
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import coterie
from coterie import envs
from coterie.algorithms import algorithms
from coterie.cli import entry as cli
from coterie.cli.commands import train as train_command
from coterie.errors import UsageError
from coterie.flags import flags
from coterie.python_envs.settings import PythonEnvSettings
from coterie.runs import api, loop
from coterie.runs import config as configs
from coterie.runs import run as opened_runs
from coterie.storage.run_directory import RunDirectory
from coterie.views.game import Game

NUMBERS = ["-1e400", "-1e30", "-3", "-1", "-1e-9", "0", "1e-320", "1e-30", "1e-5", "0.3", "0.5",
           "1", "1.5", "2", "4", "7", "64", "1e3", "1e5", "1e6", "1e9", "4294967295", "4294967296",
           "1e15", "1e16", str(2**53 + 1), str(2**62), "1e18", "1e19", "1e22", "1e30", "1e100",
           "1e308", "1e400", "9" * 400, "9" * 5000, "nan", "inf", "-inf", "True"]  # fmt: skip
"""As people, and programs that write commands, write them."""
VALUES = [None, True, False, "1", "x" * 2000, float("nan"), float("inf"), 0, 1, -1, 2, 0.5, 1.0, 64,
          1e6, 1e18, 1e30, 10**30, 10**400, 10**5000, 2**63, np.int64(3), np.float32(0.25),
          np.float64(1e30), np.bool_(True), np.array([1, 2]), (), (8,), [8, 8], (0,), (1e30,),
          ("a" * 2000,), {}, "own", "sum", 1j, np.int8(4), (np.int64(8), 4.0), (4,) * 2000, b"1",
          "shared", "state", "tanh", "v2", object()]  # fmt: skip
"""As Python's and NumPy's objects; 10**400 is too long to be a float, 10**5000 to be printed."""
OTHERS = ("batch_size", "buffer_size", "minibatches", "environments", "gae_lambda", "target_tau")
"""What a setting may be refused for contradicting; the sentence then names those."""


class Begun(Exception):
    """Training would begin here."""


class Idle:
    """In the place of what steps and learns."""

    count = 1

    def __init__(self, algorithm: Any, game: Any, *_: Any) -> None:
        self.program = types.SimpleNamespace(algorithm=algorithm, game=game)

    def bytes(self) -> int:
        return 0

    def close(self) -> None: ...


def begin(*_: Any) -> None:
    raise Begun


api.Devices = Idle  # type: ignore[misc]
loop.Loop.__init__ = lambda *_: None  # type: ignore[method-assign]
loop.Loop.run = begin  # type: ignore[method-assign]


@dataclasses.dataclass
class Tally:
    accepted: int = 0
    refused: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def attempt(self, out: Path, setting: str, value: Any, work: Callable[[], Any]) -> bool:
        """Whether the work comes to training."""
        what = f"{setting} = {label(value)}"
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                status = work()
        except Begun:
            self.accepted += 1
            return True
        except UsageError as error:
            status, sentence = 2, str(error)
        except BaseException as error:
            self.wrong.append(f"{what} raises {type(error).__name__}: {str(error)[:100]}")
            return False
        else:
            sentence = said.getvalue().strip()
        self.refused += 1
        words = (setting, setting.replace("_", "-"), "memory", *OTHERS)
        if status != 2 or "\n" in sentence or len(sentence) > 400:
            self.wrong.append(f"{what} ends in {status}: {sentence[:300]}")
        elif not any(word in sentence for word in words):
            self.wrong.append(f"{what} is refused without its name: {sentence}")
        if out.exists():
            self.wrong.append(f"{what} is refused, but something was written")
        return False

    def read(self, out: Path, setting: str, value: Any) -> dict[str, Any]:
        """The configuration, read as every command reads it."""
        try:
            config = RunDirectory.open(out).config()
            configs.restore(config)
        except Exception as error:
            self.wrong.append(f"{setting} = {label(value)} is accepted, but not read: {error}")
            return {}
        return config


def label(value: Any) -> str:
    try:
        return f"{type(value).__name__} {str(value)[:30]}"
    except ValueError:
        return "int of more digits than are printed"


def drawn(options: list, pool: list, count: int, seed: int) -> list:
    """So many different pairs of a setting and a value."""
    chance = random.Random(seed)
    pairs = [(option, value) for option in options for value in pool]
    return chance.sample(pairs, min(count, len(pairs)))


def commands(home: Path, tally: Tally) -> None:
    """``coterie train``, with settings of the algorithm, the environment and the run."""
    for seed, (name, cls) in enumerate(algorithms().items()):
        groups = [
            (cls, ""),
            (train_command.TrainArgs, ""),
            (envs.family("matrix/x").Options, "env."),
        ]
        takes = [f for c, prefix in groups for f in flags(c, prefix) if f.value]
        takes = [f.name for f in takes if f.name not in ("--out", "--groups")]
        for k, (flag, value) in enumerate(drawn(takes, NUMBERS, 25, seed)):
            out = home / f"{name}-{k}"
            more = [] if flag == "--reward" else ["--reward", "sum"]
            line = ["train", name, "matrix/climbing", "--out", str(out), *more, flag, value]
            setting = flag.removeprefix("--").removeprefix("env.").replace("-", "_")
            if tally.attempt(out, setting, value, lambda line=line: cli.main(line)):
                tally.read(out, setting, value)


def constructors(home: Path, tally: Tally) -> None:
    """Algorithms made in Python; what is read is the algorithm that was made."""
    for seed, (name, cls) in enumerate(algorithms().items()):
        fields = [field.name for field in dataclasses.fields(cls)]
        for k, (field, value) in enumerate(drawn(fields, VALUES, 40, seed)):
            out, made = home / f"{name}-{k}", []

            def work(out=out, made=made, cls=cls, field=field, value=value) -> None:
                made.append(cls(**{field: value}))
                coterie.train(made[0], "matrix/climbing", 100, out=out, reward="sum")

            if tally.attempt(out, field, value, work):
                if not (settings := tally.read(out, field, value).get("settings")):
                    continue
                again = cls(**settings)
                kept = getattr(made[0], field)
                if kept is not None and getattr(again, field) != kept:
                    tally.wrong.append(f"{field} = {kept!r} comes back as {settings[field]!r}")
                if again != made[0].resolve(100, 1):
                    tally.wrong.append(f"{name} with {field} = {kept!r} comes back as {again}")


def arguments(home: Path, tally: Tally) -> None:
    """``coterie.train``'s own."""
    own = ("steps", "seeds", "seed", "evaluations", "evaluation_episodes", "final_episodes",
           "reward", "central")  # fmt: skip
    for name in own:
        for k, value in enumerate(VALUES):
            out, given = home / f"{name}-{k}", {"steps": 100, name: value}
            work = lambda out=out, given=given: coterie.train(  # noqa: E731
                coterie.IA2C(), "matrix/climbing", out=out, **given
            )
            if tally.attempt(out, name, value, work):
                tally.read(out, name, value)


def environments(home: Path, tally: Tally) -> None:
    """Options of every family."""
    for family, module in envs.families().items():
        fields = [field.name for field in dataclasses.fields(module.Options)]
        name = f"{family}/{module.EXAMPLES[0]}"
        for k, (field, value) in enumerate(drawn(fields, VALUES, 50, 0)):
            out, options = home / f"{family}-{k}", {field: value}
            work = lambda out=out, name=name, options=options: coterie.train(  # noqa: E731
                coterie.IA2C(), name, 100, out=out, options=options
            )
            if tally.attempt(out, field, value, work):
                tally.read(out, field, value)


def python_env(home: Path, tally: Tally) -> None:
    """Settings of Python environments."""
    for field in dataclasses.fields(PythonEnvSettings):
        for value in VALUES:
            work = lambda field=field, value=value: begin(PythonEnvSettings(**{field.name: value}))  # noqa: E731
            if tally.attempt(home / "none", field.name, value, work):
                found = dataclasses.asdict(PythonEnvSettings(**{field.name: value}))
                if PythonEnvSettings(**json.loads(json.dumps(found))) != PythonEnvSettings(
                    **{field.name: value}
                ):
                    tally.wrong.append(f"{field.name} = {value!r} does not come back")


def resumed(home: Path, tally: Tally) -> None:
    """``resume(steps=)``, up to where it writes the configuration."""

    def go_on(lanes: Any, config: dict, directory: RunDirectory, *_: Any) -> None:
        directory.write_config(config)
        raise Begun

    api._go_on = go_on  # type: ignore[assignment]
    out = home / "run"
    with contextlib.suppress(Begun):
        coterie.train(coterie.IA2C(), "matrix/climbing", 100, out=out)
    before = (out / "config.json").read_bytes()
    for value in VALUES:
        (out / "config.json").write_bytes(before)
        work = lambda value=value: api.resume(out, steps=value)  # noqa: E731
        if tally.attempt(home / "none", "steps", value, work):
            tally.read(out, "steps", value)
        elif (out / "config.json").read_bytes() != before:
            tally.wrong.append(f"steps = {label(value)} is refused, but was written")


def evaluated(home: Path, tally: Tally) -> None:
    """``Run.evaluate(episodes=, seed=)``."""
    opened_runs.evaluate_game = begin
    game = Game(coterie.make("matrix/climbing"))
    run = opened_runs.Run({}, game, {"best": None, "last": None}, None, 0, algorithm=coterie.VDN())
    for name in ("episodes", "seed"):
        for value in VALUES:
            work = lambda name=name, value=value: run.evaluate(**{name: value})  # noqa: E731
            tally.attempt(home / "none", name, value, work)


PARTS = (commands, constructors, arguments, environments, python_env, resumed, evaluated)


def main(home: Path) -> None:
    found = {}
    for part in PARTS:
        tally = Tally()
        (home / part.__name__).mkdir()
        part(home / part.__name__, tally)
        found[part.__name__] = dataclasses.asdict(tally)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
