"""The command ``coterie``: parse, call, print.

Answers go to standard output, progress and log lines to standard error. Exit status: 0 done,
1 failed, 2 bad usage, each with one clear sentence and no traceback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coterie.errors import UsageError

if TYPE_CHECKING:
    from coterie.runs import Run

HELP = """\
usage: coterie COMMAND ...

Multi-agent deep reinforcement learning, compiled end to end.

  list                           algorithms (with mode) and environments
  train ALGORITHM ENVIRONMENT    train teams; --help after both names shows their settings
  resume RUN                     continue an interrupted run, or extend it with --steps
  evaluate RUN                   greedy returns of the trained teams
  plot RUN ... --out FILE.png    learning curves, mean and 95% interval over seeds
  game ENVIRONMENT               a matrix game's payoffs and equilibria

Every command explains itself with --help. An example:

  coterie train vdn lbf/5x5-2p-1f --steps 300000 --out runs/first
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    try:
        return _dispatch(args)
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return 1
    except (OSError, MemoryError, RuntimeError) as error:
        return _fail(_one_line(error), 1)


def _fail(sentence: str, status: int) -> int:
    print(f"coterie: {sentence}", file=sys.stderr)
    return status


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())[:500] or type(error).__name__


def _dispatch(args: list[str]) -> int:
    command, rest = args[0], args[1:]
    if command in ("--version", "-V"):
        from coterie import __version__

        print(f"coterie {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no command {command!r}{hint} (coterie --help shows all)")
    return COMMANDS[command](rest) or 0


# Parsing ---------------------------------------------------------------------------------------


def whole_number(text: str) -> int:
    """``1000000``, ``1_000_000`` and ``1e6`` alike."""
    value = float(text)
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text) if text.lstrip("+-").isdigit() else int(value)


def _registry() -> Any:
    """Lets every whole number be written as 1e6."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def whole(info: Any) -> PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda text: whole_number(text[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def parse(cls: Any, args: list[str], prog: str) -> Any:
    """Parses flags into a dataclass; the parser's boxed errors become one sentence."""
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=args, prog=prog, registry=_registry())
    except SystemExit as stop:
        if not stop.code:
            raise _HelpShownError from None
        raise UsageError(_sentence(complaint.getvalue(), prog)) from None


class _HelpShownError(Exception):
    """``--help`` was printed; there is nothing more to do."""


def _sentence(boxed: str, prog: str) -> str:
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line) for line in boxed.splitlines()]
    body: list[str] = []
    for line in lines:
        if re.match(r"^\s*([╭╰]|─{3,})", line):
            if body:
                break
            continue
        body.append(line.strip())
    text = " ".join(" ".join(body).split()).rstrip(".")
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", " ".join(lines), re.S)
    text = text.replace("Unrecognized options:", "unknown option")
    hint = f"; did you mean {near[1]}?" if near else ""
    return f"{text or 'the arguments cannot be understood'}{hint} (see {prog} --help)"


def _paths(args: list[str], count: int | None, usage: str) -> tuple[list[str], list[str]]:
    """Leading names, and the flags after them (a lone --help counts as flags)."""
    names = []
    for arg in args:
        if arg.startswith("-"):
            break
        names.append(arg)
    if any(a in ("-h", "--help") for a in args):
        return names, ["--help"]
    if len(names) == 0 or (count is not None and len(names) != count):
        raise UsageError(f"usage: {usage}")
    return names, args[len(names) :]


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=1)
    print()


# Commands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListArgs:
    """Algorithms with their mode of training and execution, and native environments."""

    json: bool = False
    """One JSON document instead of tables."""


def command_list(args: list[str]) -> None:
    options = parse(ListArgs, args, "coterie list")
    from coterie.algorithms import algorithms
    from coterie.envs import families

    found = {
        "algorithms": [
            {"name": name, "mode": cls.mode, "common_reward": cls.common_reward,
             "about": (cls.__doc__ or "").strip().splitlines()[0]}
            for name, cls in algorithms().items()
        ],
        "environments": [f"{f}/{v}" for f, m in families().items() for v in m.EXAMPLES],
    }  # fmt: skip
    if options.json:
        return _print_json(found)
    from rich.console import Console
    from rich.table import Table

    table = Table("algorithm", "mode", "rewards", "", title=None, box=None, pad_edge=False)
    for a in found["algorithms"]:
        kind = "common" if a["common_reward"] else "any"
        table.add_row(f"[bold]{a['name']}[/]", a["mode"], kind, f"[dim]{a['about']}[/]")
    console = Console(highlight=False)
    console.print(table)
    console.print()
    for name, module in families().items():
        console.print(f"[bold]{name}/[/]  " + "  ".join(module.EXAMPLES), soft_wrap=True)
    console.print(
        "\n[dim]also: package.module:callable (a native environment of yours); "
        "gymnasium:id and pettingzoo:module, to evaluate on[/]"
    )
    return None


@dataclass(frozen=True)
class TrainArgs:
    steps: int = 1_000_000
    """Environment steps of each seed."""
    seeds: int = 1
    """Seeds trained side by side in one compiled program."""
    seed: int = 0
    """The first seed."""
    out: Path | None = None
    """New run directory; runs/ALGORITHM-ENVIRONMENT unless given."""
    reward: Literal["individual", "sum", "mean"] | None = None
    """What learners are paid; the environment's custom unless given."""
    central: Literal["auto", "state", "joint"] = "auto"
    """What z is where it is used: the environment's state, or the joint observation."""
    evaluations: int = 20
    """Greedy evaluations along the way (32 episodes each)."""
    final_episodes: int = 320
    """Episodes that judge the best policy at the end; 0 for none."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def _train_schema(algorithm: type, options: type | None) -> Any:
    import tyro

    fields: list[Any] = [
        ("run", tyro.conf.OmitArgPrefixes[TrainArgs], dataclasses.field(default=TrainArgs())),
        ("algorithm", tyro.conf.OmitArgPrefixes[algorithm], dataclasses.field(default=algorithm())),
    ]
    if options is not None and dataclasses.fields(options):
        fields.append(("env", options, dataclasses.field(default=options())))
    made = dataclasses.make_dataclass("Train", fields, frozen=True)
    made.__doc__ = "Train teams; every setting of the algorithm is a flag."
    return made


def command_train(args: list[str]) -> None:
    usage = "coterie train ALGORITHM ENVIRONMENT [--steps N] [--seeds N] [--out DIR] [...]"
    names, flags = _paths(args, 2, usage)
    if flags == ["--help"] and len(names) != 2:
        print(f"usage: {usage}\n\nAll settings: coterie train ALGORITHM ENVIRONMENT --help")
        print("Names: coterie list")
        return
    from coterie import runs
    from coterie.algorithms import find
    from coterie.envs import family

    cls = find(names[0])
    native = ":" not in names[1]
    module = family(names[1]) if native else None
    schema = _train_schema(cls, module.Options if module else None)
    parsed = parse(schema, flags, f"coterie train {names[0]} {names[1]}")
    env_options = dataclasses.asdict(parsed.env) if hasattr(parsed, "env") else {}
    own = parsed.run
    out = own.out or Path("runs") / re.sub(r"[^\w.-]+", "-", f"{names[0]}-{names[1]}")
    from coterie.show.progress import TrainDisplay

    with TrainDisplay() as display:
        run = runs.train(
            parsed.algorithm, names[1], steps=own.steps, seeds=own.seeds, seed=own.seed, out=out,
            reward=own.reward, central=own.central, options=env_options,
            evaluations=own.evaluations, final_episodes=own.final_episodes, report=display,
            command=shlex.join(["coterie", "train", *args]),
        )  # fmt: skip
    _conclude(run, own.json)


def _conclude(run: Run, as_json: bool) -> None:
    if as_json:
        return _print_json({"run": str(run.path), "env_steps": run.steps, "metrics": run.metrics})
    if run.metrics:
        _print_metrics(run.metrics, "best policies, greedy, fresh episodes")
    if run.path:
        print(f"\nkept in {run.path}; next:")
        print(f"  coterie evaluate {run.path}")
        print(f"  coterie plot {run.path} --out curves.png")
    return None


def _print_metrics(metrics: dict[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "mean", "95% interval over seeds", "per seed", box=None, pad_edge=False)
    for name, m in metrics.items():
        interval = f"{m['ci95'][0]:.3f} to {m['ci95'][1]:.3f}" if m["ci95"] else "one seed"
        each = " ".join(f"{x:.3f}" for x in m["per_seed"])
        table.add_row(name, f"[bold]{m['mean']:.3f}[/]", interval, each)
    console = Console(highlight=False)
    console.print(f"[dim]{title}[/]")
    console.print(table)


@dataclass(frozen=True)
class ResumeArgs:
    """Continue a run from its newest checkpoint."""

    steps: int | None = None
    """Extend the run to so many environment steps."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def command_resume(args: list[str]) -> None:
    names, flags = _paths(args, 1, "coterie resume RUN [--steps N]")
    options = parse(ResumeArgs, flags, "coterie resume RUN")
    from coterie import runs
    from coterie.show.progress import TrainDisplay

    with TrainDisplay() as display:
        run = runs.resume(names[0], options.steps, report=display)
    _conclude(run, options.json)


@dataclass(frozen=True)
class EvaluateArgs:
    """Greedy returns of every seed's team."""

    episodes: int = 320
    """Episodes of each seed's team."""
    which: Literal["best", "last"] = "best"
    """The policy that evaluated best, or the last one."""
    environment: str | None = None
    """Play elsewhere, e.g. gymnasium:lbforaging:Foraging-8x8-2p-3f-v3."""
    seed: int = 0
    """Seed of the episodes' starts."""
    json: bool = False
    """Print one JSON document."""


def command_evaluate(args: list[str]) -> None:
    names, flags = _paths(args, 1, "coterie evaluate RUN [--episodes N] [--environment NAME]")
    options = parse(EvaluateArgs, flags, "coterie evaluate RUN")
    from coterie import runs

    run = runs.open_run(names[0])
    metrics = run.evaluate(options.episodes, options.which, options.environment, options.seed)
    where = options.environment or run.config["environment"]
    if options.json:
        _print_json({
            "metrics": metrics, "run": names[0], "environment": where,
            "episodes": options.episodes, "which": options.which,
        })  # fmt: skip
    else:
        _print_metrics(
            metrics,
            f"{options.which} policies, greedy, {options.episodes} episodes a seed, {where}",
        )


@dataclass(frozen=True)
class PlotArgs:
    """Learning curves of one or more runs."""

    out: Path = Path("curves.png")
    """The picture: .png, .pdf or .svg."""
    metric: str = "eval/return/team_sum"
    """Any metric of metrics.jsonl."""


def command_plot(args: list[str]) -> None:
    names, flags = _paths(args, None, "coterie plot RUN [RUN ...] [--out FILE.png]")
    options = parse(PlotArgs, flags, "coterie plot RUN ...")
    from coterie.show.curves import plot

    plot([Path(n) for n in names], options.out, metric=options.metric)
    print(options.out)


@dataclass(frozen=True)
class GameArgs:
    """A matrix game's payoffs, equilibria and optima."""

    json: bool = False
    """Print one JSON document."""


def command_game(args: list[str]) -> None:
    names, flags = _paths(args, 1, "coterie game ENVIRONMENT, e.g. coterie game climbing")
    options = parse(GameArgs, flags, "coterie game ENVIRONMENT")
    from coterie import envs
    from coterie.analysis import games
    from coterie.envs.matrix import MatrixGame

    name = names[0] if names[0].startswith("matrix/") else f"matrix/{names[0]}"
    env = envs.make(name)
    assert isinstance(env, MatrixGame)
    if options.json:
        return _print_json(games.describe(env.payoffs).to_dict())
    from rich.console import Console

    from coterie.show.tables import render_game

    Console(highlight=False).print(render_game(env))
    return None


def _quiet_help(command: Callable[[list[str]], None]) -> Callable[[list[str]], int]:
    def run(args: list[str]) -> int:
        try:
            command(args)
        except _HelpShownError:
            pass
        return 0

    return run


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    name.removeprefix("command_"): _quiet_help(function)
    for name, function in list(globals().items())
    if name.startswith("command_")
}

if __name__ == "__main__":
    sys.exit(main())
