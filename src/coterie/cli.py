"""The command ``coterie``: parse, call, print.

Answers go to standard output, progress and log lines to standard error. Exit status: 0 done,
1 failed, 2 bad usage, each with one clear sentence and no traceback; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from coterie.errors import DamagedFile, EnvironmentFault, Interrupted, UsageError
from coterie.formats import refuse_former
from coterie.settings import (
    Count,
    Episodes,
    Evaluations,
    NoOrMoreEpisodes,
    Seed,
    Seeds,
    StepCount,
    TimeLimit,
    Timeout,
    Workers,
    check,
)
from coterie.text import file_name, visible, visible_lines

if TYPE_CHECKING:
    from coterie.envs.matrix import MatrixGame
    from coterie.runs import Run
    from coterie.show.flags import Flag

HELP = """\
usage: coterie COMMAND ...

Multi-agent deep reinforcement learning, compiled end to end.

  list                           algorithms (with mode), environments, lecture items
  lecture [ITEM ...]             the lecture's figures and tables, measured and judged
  train ALGORITHM ENVIRONMENT    train teams; every setting is a flag
  resume RUN                     continue an interrupted run, or extend it with --steps
  evaluate RUN                   greedy returns of the trained teams
  watch RUN --out FILE.gif       a trained team playing: .gif, .mp4 or .html
  plot RUN ... --out FILE.png    learning curves, mean and 95% interval over seeds
  report RUN ... --out FILE.html curves, returns, episodes and settings on one page
  game ENVIRONMENT|RUN           a matrix game's equilibria; what a run learned of it
  check ENVIRONMENT              what is wrong with an environment of yours, in sentences

Every command explains itself with --help. An example:

  coterie train vdn lbf/5x5-2p-1f --steps 300000 --out runs/first
"""

INTERRUPTED = 130
EXIT_SECONDS = 3.0
"""In which the process ends when the command is done, whatever an environment left running."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    Without ``argv`` it is the command of this process, which then ends: standard output is kept
    for the answer, and threads and exit handlers of user code do not keep the process alive.
    """
    if argv is not None:
        return _run(list(argv))
    status = 1
    try:
        _keep_standard_output()
        status = _run(sys.argv[1:])
        return status
    finally:
        from coterie.envs._process import end_within

        end_within(EXIT_SECONDS, status)


def _run(args: list[str]) -> int:
    _print_what_is_known()
    try:
        with _damage_in_words():
            status = _dispatch(args)
        _answers().flush()
        return status
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough: not even the last flush may complain
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _answers().fileno())
        return 1
    except EnvironmentFault as fault:
        print(visible_lines(fault.original), end="", file=sys.stderr)
        return _fail(str(fault), 1)
    except (OSError, MemoryError, RuntimeError) as error:
        return _fail(_one_line(error), 1)


@contextlib.contextmanager
def _damage_in_words() -> Iterator[None]:
    """Each sentence on a damaged file once, on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedFile)
        shown, said = warnings.showwarning, set[str]()

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if not issubclass(category, DamagedFile):
                shown(message, category, *where)
            elif (sentence := str(message)) not in said:
                said.add(sentence)
                print(visible(f"warning: {sentence}"), file=sys.stderr)

        warnings.showwarning = show
        yield


def _fail(sentence: str, status: int) -> int:
    print(visible(f"coterie: {sentence}"), file=sys.stderr)
    return status


def _print_what_is_known() -> None:
    """Where standard output has fewer characters than a text needs, others stand as codes."""
    if isinstance(out := _answers(), io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())[:500] or type(error).__name__


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="", file=_answers() if args else sys.stderr)
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from coterie import __version__

        _print(f"coterie {__version__}")
        return 0
    if args[0] not in COMMANDS:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no command {args[0]!r}{hint} (coterie --help shows all)")
    command, rest = COMMANDS[args[0]], args[1:]
    names = rest[: next((k for k, a in enumerate(rest) if a.startswith("-")), len(rest))]
    if "-h" in rest or "--help" in rest:
        _print_help(command, names)
        return 0
    if any(":" in arg for arg in rest):  # code of the user's, perhaps a file of this folder
        sys.path.append(os.getcwd())
    fewest, most = command.names
    if not fewest <= len(names) <= most:
        problem = f"unexpected {names[most]!r}; " if len(names) > most else ""
        raise UsageError(f"{problem}usage: {command.usage}")
    groups = _groups(command, names)
    parsed = parse(groups, rest[len(names) :], shlex.join(["coterie", args[0], *names]))
    return command.run(names, parsed, args) or 0


# Parsing ---------------------------------------------------------------------------------------

Groups = list[tuple[str, type]]
"""Settings dataclasses by title; those titled ``env`` carry that prefix."""


def parse(groups: Groups, args: list[str], prog: str) -> Any:
    """Parses flags into one dataclass for each group; complaints become one sentence."""
    import tyro

    known = {flag.name: flag for title, cls in groups for flag in _flags(title, cls)}
    _refuse_unknown(args, known, prog)
    fields: list[Any] = [
        (
            title,
            cls if title == "env" else tyro.conf.OmitArgPrefixes[cls],
            dataclasses.field(default=cls()),
        )
        for title, cls in groups
    ]
    schema = dataclasses.make_dataclass("Settings", fields, frozen=True)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, rest = tyro.cli(
                schema, args=args, prog=prog, registry=_registry(), return_unknown_args=True
            )
    except SystemExit:
        sentence = _sentence(complaint.getvalue(), args, known)
        raise UsageError(f"{sentence} (see {prog} --help)") from None
    if rest:
        raise UsageError(f"unexpected argument {rest[0]} (see {prog} --help)")
    for title, _ in groups:
        check(getattr(parsed, title))
    return parsed


def _flags(title: str, cls: type) -> list[Flag]:
    from coterie.show.flags import flags

    return flags(cls, "env." if title == "env" else "")


def _refuse_unknown(args: list[str], known: dict[str, Flag], prog: str) -> None:
    for arg in args:
        name = arg.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known and f"--{name[5:]}" not in known:
            refuse_former([re.sub("^--(no-)?", "", name).replace("-", "_")])
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"unknown option {name}{hint} (see {prog} --help)")


def whole_number(text: str) -> int:
    """``1000000``, ``1_000_000`` and ``1e6`` alike."""
    with contextlib.suppress(ValueError):
        return int(text)
    if not float(text).is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(float(text))


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
            metavar="N",
            instance_from_str=lambda text: whole_number(text[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _sentence(boxed: str, args: list[str], known: dict[str, Flag]) -> str:
    """What the parser's box says, short: which flag needs what, or the setting's own complaint."""
    lines = [line.strip("│| ") for line in boxed.splitlines()]
    rules = [k for k, line in enumerate(lines) if re.search("[─-]{3}", line)]
    inside = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    text = " ".join(" ".join(inside).split()).rstrip(".")
    named = re.search(r"(?:Error parsing |argument ')(--[\w.-]+)", text)
    if named and (flag := known.get(named[1])):
        given = _given(args, flag.name)
        return f"{flag.name} must be {flag.kind}; got {given or 'nothing'}"
    return re.sub(r"^Error parsing \w+: ", "", text) or "the arguments cannot be understood"


def _given(args: list[str], name: str) -> str:
    """What followed the last such flag."""
    given: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("--"):
            current, equals, value = arg.partition("=")
            current = current.replace("_", "-")
            given = ([value] if equals else []) if current == name else given
        elif current == name:
            given.append(arg)
    return shlex.join(word if len(word) <= 60 else f"{word[:57]}..." for word in given)


# Printing --------------------------------------------------------------------------------------


_kept: TextIO | None = None


def _answers() -> Any:
    """Where answers go: standard output, if need be by another way (``_keep_standard_output``)."""
    return _kept or sys.stdout or io.StringIO()  # where it is closed, nobody reads them


def _keep_standard_output() -> None:
    """From now on standard output is written to by answers alone.

    What anything else in this process or its children writes there goes to standard error: user
    code that prints, in whatever language and thread.
    """
    global _kept
    try:
        out = sys.stdout
        kept = os.fdopen(os.dup(out.fileno()), "w", encoding=out.encoding, errors=out.errors)
        os.dup2(sys.stderr.fileno(), out.fileno())
        out.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return  # one of the two is closed, or no file
    _kept = kept


def _print(text: str) -> None:
    print(text, file=_answers())


def _say(*parts: Any, width: int | None = None) -> None:
    """Prints to standard output: as wide as the terminal, or as wide as needed into a pipe."""
    from coterie.show.terminal import Terminal

    terminal = Terminal(_answers())
    if terminal.is_terminal:
        return terminal.print(*parts, sep="\n")
    page = Terminal(io.StringIO(), width or 10_000)
    page.print(*parts, sep="\n")
    for line in page.file.getvalue().splitlines():  # type: ignore[attr-defined]
        _print(line.rstrip())
    return None


def _print_json(document: Any) -> None:
    _print(json.dumps(document, indent=1, allow_nan=False))


def _print_help(command: Command, names: list[str]) -> None:
    from coterie.show.flags import render_help

    groups = [(title, _flags(title, cls)) for title, cls in _groups(command, names)]
    titles = {"run": "flags"} if len(groups) == 1 else {}
    titles |= dict(zip(("algorithm", "env"), (n.partition("/")[0] for n in names), strict=False))
    shown = [(titles.get(title, title), group) for title, group in groups]
    about = (command.options.__doc__ or "").strip()
    more = command.more if len(names) < max(command.names[0], 1) else ""
    _say(render_help(command.usage, about, shown, more), width=100)


def _stopped(stop: Interrupted) -> dict[str, Any]:
    """What ``--json`` prints of an interrupted training: the policies it saved, no metrics."""
    facts = {"run": str(stop.path), "env_steps": stop.steps, "complete": stop.complete}
    if stop.path is not None:
        from coterie.policy import WHICH, default_policy, saved_steps

        policies = {w: {"env_steps": saved_steps(stop.path, w), "metrics": {}} for w in WHICH}
        facts |= {"which": default_policy(stop.path), "policies": policies}
    return {**facts, "metrics": {}}


def _by_policy(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """Results as a program reads them: of each kind of policies, with the steps they are of."""
    return {
        which: {"env_steps": run.policy_steps.get(which), "metrics": metrics}
        for which, metrics in results.items()
    }


# Commands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListArgs:
    """Algorithms with their mode of training and execution, native environments, lecture items."""

    json: bool = False
    """One JSON document instead of tables."""


MODES = {
    "decentralised training and execution": "decentralised",
    "centralised training, decentralised execution": "CTDE",
    "centralised training and execution": "central",
}


def command_list(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.algorithms import algorithms, title
    from coterie.envs import families
    from coterie.lecture import items

    found = {
        "algorithms": [
            {"name": name, "mode": cls.mode, "common_reward": cls.common_reward,
             "title": title(cls), "about": (cls.__doc__ or "").strip().splitlines()[0]}
            for name, cls in algorithms().items()
        ],
        "environments": [f"{f}/{v}" for f, m in families().items() for v in m.EXAMPLES],
        "lecture": [{"name": name, "title": item.title} for name, item in items().items()],
    }  # fmt: skip
    if parsed.run.json:
        return _print_json(found)
    from rich.table import Column, Table

    from coterie.show.terminal import line

    def bold(text: str, colour: str = "") -> Any:
        return line(text, style=f"bold {colour}")

    first = Column(bold("algorithm"))
    table = Table(first, "mode", "reward", "", box=None, pad_edge=False)
    for a in found["algorithms"]:
        kind = "common" if a["common_reward"] else "any"
        title = line(a["title"], style="dim")
        table.add_row(bold(a["name"], "cyan"), MODES[a["mode"]], kind, title)
    homes = Table.grid(padding=(0, 2, 0, 0))
    homes.add_column(no_wrap=True)
    homes.add_column()
    for name, module in families().items():
        homes.add_row(bold(f"{name}/", "cyan"), "  ".join(module.EXAMPLES))
    where = ("(native or Python; docs/your-environment.md)", "dim")
    homes.add_row(bold("yours"), line("package.module:callable ", where))
    homes.add_row(bold("Python"), "gymnasium:ID  pettingzoo:MODULE")
    legend = "CTDE: centralised training, decentralised execution. Common: one reward for all."
    lessons = Table.grid(padding=(0, 2, 0, 0))
    for name, item in items().items():
        lessons.add_row(bold(name, "cyan"), line(item.title, style="dim"))
    _say(
        table, line(legend, style="dim"), "", bold("environments"), homes,
        "", bold("lecture items"), lessons,
    )  # fmt: skip
    return None


@dataclass(frozen=True)
class TrainArgs:
    """Trains teams of an algorithm in an environment, side by side in one compiled program."""

    steps: StepCount = 1_000_000
    """Environment steps of each seed; 1e6 is understood."""
    seeds: Seeds = 1
    """How many teams, each from its own seed."""
    seed: Seed = 0
    """The first seed."""
    out: Path | None = None
    """New run directory; runs/ALGORITHM-ENVIRONMENT unless given."""
    reward: Literal["individual", "sum", "mean"] | None = None
    """What learners are paid; the environment's custom unless given."""
    central: Literal["auto", "state", "joint"] = "auto"
    """What z is where it is used: the environment's state, or the joint observation."""
    evaluations: Evaluations | None = None
    """Greedy evaluations along the way; 20, or fewer where episodes in Python take long."""
    evaluation_episodes: Episodes | None = None
    """Episodes of each; 32, or fewer in the same case."""
    final_episodes: NoOrMoreEpisodes | None = None
    """Episodes that judge the best policy at the end, 0 for none; 320, or fewer as before."""
    resume: bool = False
    """Go on with the run in --out if there is one of these settings; show its result if it is
    complete."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def _train_groups(names: list[str]) -> Groups:
    """Settings of the algorithm, and of the environment's family, as far as they are named."""
    from coterie.algorithms import find
    from coterie.envs import family
    from coterie.hosting import Hosting

    groups: Groups = [("algorithm", find(names[0]))] if names else []
    if len(names) > 1 and ":" in names[1]:
        groups.append(("hosting", Hosting))
    elif len(names) > 1:
        groups.append(("env", family(names[1]).Options))
    return [(title, cls) for title, cls in groups if dataclasses.fields(cls)]


def command_train(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie import runs
    from coterie.lanes import one_core_per_seed
    from coterie.show.progress import TrainDisplay

    own = parsed.run
    one_core_per_seed(own.seeds, hosted=":" in names[1])
    options = dataclasses.asdict(parsed.env) if hasattr(parsed, "env") else {}
    out = own.out or Path("runs") / file_name("-".join(names))
    with TrainDisplay() as display:
        train = lambda: runs.train(  # noqa: E731
            parsed.algorithm, names[1], steps=own.steps, seeds=own.seeds, seed=own.seed, out=out,
            reward=own.reward, central=own.central, options=options,
            hosting=getattr(parsed, "hosting", None), evaluations=own.evaluations,
            evaluation_episodes=own.evaluation_episodes, final_episodes=own.final_episodes,
            resume=own.resume, report=display, command=shlex.join(["coterie", *args]),
        )  # fmt: skip
        return _conclude(train, own.json)


def _conclude(train: Callable[[], Run], as_json: bool) -> int:
    """Trains and prints the result; where it was stopped, the display has said how to go on."""
    try:
        run = train()
    except Interrupted as stop:
        if as_json:
            _print_json(_stopped(stop))
        return INTERRUPTED
    if as_json:
        facts = {"run": str(run.path), "env_steps": run.steps, "complete": run.complete}
        facts |= {"which": run.which, "policies": _by_policy(run, run.results)}
        _print_json({**facts, "metrics": run.metrics})
        return 0
    if run.results:
        from coterie.show.returns import render_returns

        _say(render_returns(run, run.results))
    path, name = shlex.quote(str(run.path)), run.config["environment"]
    again = f" --environment {shlex.quote(name)}" if ":" in name else ""
    _say("", f"kept in {path}; next:")
    _say(f"  coterie evaluate {path}{again}", f"  coterie plot {path}")
    return 0


@dataclass(frozen=True)
class ResumeArgs:
    """Continues a run from its newest checkpoint, as if it had never been interrupted."""

    steps: StepCount | None = None
    """Extend the run to so many environment steps."""
    environment: str | None = None
    """The environment again, where the run is on a Python environment or on code of yours."""
    workers: Workers | None = None
    """Processes for Python environments, if not as many as before."""
    json: bool = False
    """Print the final metrics as one JSON document."""


def command_resume(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie import runs
    from coterie.lanes import one_core_per_seed
    from coterie.show.progress import TrainDisplay
    from coterie.tracking import RunDirectory

    config = RunDirectory.open(Path(names[0])).config()
    one_core_per_seed(config["seeds"], hosted=config.get("hosting") is not None)
    own = parsed.run
    with TrainDisplay() as display:
        resume = lambda: runs.resume(  # noqa: E731
            names[0], own.steps, environment=own.environment, workers=own.workers, report=display
        )
        return _conclude(resume, own.json)


@dataclass(frozen=True)
class EvaluateArgs:
    """Returns of every seed's team: the best and the last policies, sampled if they are stochastic,
    and greedy."""

    episodes: Episodes = 320
    """Episodes of each seed's team."""
    which: Literal["best", "last"] | None = None
    """Only the policies that evaluated best, or only the last ones; both unless given."""
    greedy: bool = False
    """Show greedy play only, also of stochastic policies."""
    metric: str | None = None
    """Show this metric only, such as eval/length; the environment's returns unless given."""
    environment: str | None = None
    """Play elsewhere, such as gymnasium:lbforaging:Foraging-8x8-2p-3f-v3; the environment again,
    where the run is on a Python environment or on code of yours."""
    seed: Seed = 0
    """Seed of the episodes' starts."""
    workers: Workers | None = None
    """Processes for Python environments, if not as many as in training."""
    json: bool = False
    """Print one JSON document."""


def command_evaluate(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie import runs
    from coterie.hosting import Hosting
    from coterie.show.returns import asked_metrics, render_returns
    from coterie.tracking import RunDirectory

    own = parsed.run
    again = runs.is_code(RunDirectory.open(Path(names[0])).config()["environment"])
    run = runs.open_run(names[0], own.environment if again else None)
    elsewhere = None if again else own.environment
    hosting = None
    if own.workers is not None:
        trained = runs.hosting_of(run.config) or Hosting()
        hosting = dataclasses.replace(trained, workers=own.workers)
    asked = [own.which] if own.which else run.both()
    wanted = asked_metrics(run, own.metric, own.greedy)
    results: dict[str, Any] = {}
    for which in asked:
        if results and run.last_is_best:
            results[which] = results[asked[0]]
        else:
            metrics = run.evaluate(own.episodes, which, elsewhere, own.seed, hosting)
            results[which] = {name: metrics[name] for name in wanted}
    where, which = own.environment or run.config["environment"], own.which or run.which
    if own.json:
        facts = {"run": names[0], "environment": where, "episodes": own.episodes, "which": which}
        facts |= {"policies": _by_policy(run, results)}
        return _print_json({"metrics": results[which], **facts})
    title = f"{where} · {own.episodes:,} episodes of each seed's team"
    return _say(title, render_returns(run, results, own.metric, own.greedy))


@dataclass(frozen=True)
class WatchArgs:
    """Shows a trained team playing: an animated picture, a video, or a page with a player."""

    out: Path = Path("episode.gif")
    """The film: .gif, .mp4 (extra video) or .html."""
    seed: Seed = 0
    """Which team, counted from 0."""
    which: Literal["best", "last"] | None = None
    """The policy that evaluated best, or the last one; the best unless given, or the last where
    the agents' interests conflict."""
    episodes: Count = 1
    """How many episodes, one after the other."""
    greedy: bool = False
    """Take the likeliest actions of a stochastic policy instead of sampling them."""
    episode_seed: Seed = 0
    """Seed of the episodes' starts."""
    fps: float = 4.0
    """Steps shown in a second."""
    environment: str | None = None
    """The environment again, where the run is on code of yours."""


def command_watch(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie import runs
    from coterie.show import film
    from coterie.show.record import python_environment, record
    from coterie.tracking import RunDirectory

    own = parsed.run
    film.check(own.out, own.fps)
    if own.environment is not None and not runs.is_code(own.environment):
        raise UsageError(
            "a team is watched in the environment it was trained in; --environment only names "
            f"code of yours again, which {own.environment} is not"
        )
    config = RunDirectory.open(Path(names[0])).config()
    if config.get("hosting") is not None:
        raise UsageError(python_environment(config["environment"]))
    run = runs.open_run(names[0], own.environment)
    greedy = own.greedy or None
    recording = record(run, own.seed, own.which, own.episodes, greedy, own.episode_seed)
    _print(visible(film.film(recording, own.out, own.fps)))


@dataclass(frozen=True)
class PlotArgs:
    """Draws learning curves: one line a run, one panel an environment."""

    out: Path = Path("curves.png")
    """The picture: .png, .pdf or .svg."""
    metric: str | None = None
    """Any metric of metrics.jsonl; each environment's own return unless given, of policies sampled
    if they are stochastic."""
    greedy: bool = False
    """Show greedy play, also of stochastic policies."""


def command_plot(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.curves import plot

    own = parsed.run
    runs = [Path(n) for n in names]
    _print(visible(plot(runs, own.out, metric=own.metric, greedy=own.greedy)))


@dataclass(frozen=True)
class ReportArgs:
    """Makes one page of runs: learning curves, final returns, an episode of each, settings."""

    out: Path = Path("report.html")
    """The page, one self-contained .html file."""
    metric: str | None = None
    """Show the curves of any metric of metrics.jsonl; the environment's return unless given."""
    greedy: bool = False
    """Show greedy play, also of stochastic policies."""


def command_report(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.show.report import report

    own, command = parsed.run, shlex.join(["coterie", *args])
    page = report([Path(n) for n in names], own.out, command, own.metric, own.greedy)
    _print(visible(page))


@dataclass(frozen=True)
class GameArgs:
    """A matrix game's payoffs, equilibria and optima; of a run, also what its teams learned."""

    json: bool = False
    """Print one JSON document."""


def command_game(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie import envs
    from coterie.envs.matrix import MatrixGame
    from coterie.show.tables import render_game

    if (Path(names[0]) / "config.json").is_file():
        return _game_of_run(names[0], parsed.run.json)
    env = envs.make(names[0] if names[0].startswith("matrix/") else f"matrix/{names[0]}")
    assert isinstance(env, MatrixGame)
    if parsed.run.json:
        return _print_json(_described(env))
    return _say(render_game(env), width=120)


def _described(env: MatrixGame) -> dict[str, Any]:
    from coterie.analysis import games

    return games.describe(env.payoffs, env.agents, env.action_labels).to_dict()


def _game_of_run(name: str, as_json: bool) -> None:
    """The game a run was trained on, and what its teams learned of it."""
    from coterie.analysis.learned import single_shot
    from coterie.runs import open_run
    from coterie.show.learned import render_learned, to_dict
    from coterie.show.tables import render_game

    run = open_run(name)
    env = single_shot(run)
    if as_json:
        return _print_json({"game": _described(env), **to_dict(run)})
    return _say(render_game(env), render_learned(run), width=120)


@dataclass(frozen=True)
class CheckArgs:
    """Plays random legal episodes, and says what is wrong with an environment and what to change.

    It is played in a process of its own. Exit status: 0 if no promise was broken, 1 if one was.
    """

    episodes: Count = 5
    """How many episodes."""
    seed: Seed = 0
    """Seed of the first episode; the others count on from it."""
    time_limit: TimeLimit | None = None
    """Steps after which an episode is cut, for one that has no end or reports it wrongly."""
    step_timeout: Timeout = 60.0
    """Seconds after which a call that has not returned is given up."""
    json: bool = False
    """Print one JSON document."""


def command_check(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.envs._apart import check_apart
    from coterie.show.findings import render_check

    own = parsed.run
    report = check_apart(names[0], own.episodes, own.seed, own.time_limit, own.step_timeout)
    if own.json:
        _print_json(report.to_dict())
    else:
        _say(render_check(report), width=100)
    return 0 if report.ok else 1


@dataclass(frozen=True)
class LectureArgs:
    """Reproduces figures and tables of the lecture and judges them; all of them without names.

    Items that are done already in --out are kept; an interrupted lecture goes on where it was.
    """

    out: Path = Path("lecture")
    """The folder of runs, results and report.html."""
    quick: bool = False
    """Fewer seeds and steps; labelled so."""
    seeds: Seeds | None = None
    """Seeds of every training; the item's own number unless given."""
    seed: Seed = 0
    """The first seed."""
    json: bool = False
    """Print the outcomes as one JSON document."""


def command_lecture(names: list[str], parsed: Any, args: list[str]) -> int:
    from coterie.lanes import one_core_per_seed
    from coterie.lecture import course
    from coterie.lecture._base import Scale
    from coterie.show.lesson import LectureDisplay

    own = parsed.run
    one_core_per_seed(os.cpu_count() or 1)
    with LectureDisplay() as display:
        scale = Scale(own.quick, own.seeds, own.seed)
        outcomes = course.give(names, own.out, scale, display.tell, display)
    passed = all(outcome.passed for outcome in outcomes)
    if own.json:
        _print_json({"passed": passed, "items": [outcome.to_dict() for outcome in outcomes]})
    else:
        _say(display.summary(outcomes), "", f"report: {own.out / 'report.html'}", width=120)
    return 0 if passed else 1


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        run: called with the names, the parsed settings by group, and the whole command line.
        options: its flags, a dataclass whose docstring says what the command does.
        usage: how it is called.
        names: the fewest and the most names before the flags.
        more: a last word of its help.
    """

    run: Callable[[list[str], Any, list[str]], int | None]
    options: type
    usage: str
    names: tuple[int, int] = (1, 1)
    more: str = ""


def _groups(command: Command, names: list[str]) -> Groups:
    extra = _train_groups(names) if command.run is command_train else []
    return [("run", command.options), *extra]


COMMANDS = {
    "list": Command(command_list, ListArgs, "coterie list [--json]", (0, 0)),
    "lecture": Command(
        command_lecture, LectureArgs, "coterie lecture [ITEM ...] [FLAG ...]", (0, 99),
        "Items: coterie list.",
    ),
    "train": Command(
        command_train, TrainArgs, "coterie train ALGORITHM ENVIRONMENT [FLAG ...]", (2, 2),
        "Named ones add their settings: coterie train vdn lbf/8x8-2p-3f --help (coterie list).",
    ),
    "resume": Command(command_resume, ResumeArgs, "coterie resume RUN [--steps N] [--json]"),
    "evaluate": Command(command_evaluate, EvaluateArgs, "coterie evaluate RUN [FLAG ...]"),
    "watch": Command(command_watch, WatchArgs, "coterie watch RUN [--out FILE] [FLAG ...]"),
    "plot": Command(command_plot, PlotArgs, "coterie plot RUN [RUN ...] [--out FILE]", (1, 10**6)),
    "report": Command(
        command_report, ReportArgs, "coterie report RUN [RUN ...] [--out FILE]", (1, 10**6)
    ),
    "game": Command(command_game, GameArgs, "coterie game NAME|FILE|RUN [--json]"),
    "check": Command(command_check, CheckArgs, "coterie check ENVIRONMENT [FLAG ...]"),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
