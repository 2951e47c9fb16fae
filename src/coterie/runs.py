"""A run from the user's side: ``train`` one, ``Run.evaluate`` it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

import coterie.checkpoint as checkpoints
from coterie import envs
from coterie.algorithms import Algorithm, algorithms
from coterie.algorithms import find as find_algorithm
from coterie.analysis.games import no_conflict
from coterie.analysis.statistics import Bounds, Interval, bounds_by_metric, summarise
from coterie.continuation import (
    check_same,
    moved_sentence,
    note_session,
    place,
    resume_command,
)
from coterie.envs._refusals import missing_arguments, reason
from coterie.envs.base import Environment
from coterie.envs.fleet import Hosted
from coterie.envs.matrix import MatrixGame
from coterie.envs.views import Central, Game
from coterie.errors import Interrupted, NotFinite
from coterie.evaluate import play_both, return_metrics
from coterie.files import seal
from coterie.formats import FORMAT, check_resumable, present_settings
from coterie.health import check_returns, without_replay
from coterie.hosting import (
    Hosting,
    copies_of,
    digest,
    episode_length,
    find_factory,
    is_python_environment,
    make_one,
    open_hosted,
    pays_in_common,
    settle,
)
from coterie.lanes import Lanes, States
from coterie.policy import WHICH, default_policy, describe, load_policy, save_policies
from coterie.settings import RUN, Episodes, Seed, Seeds, StepCount, fitted, shown
from coterie.tracking import (
    ABSENT_ONCE,
    EvaluationFile,
    RunDirectory,
    check_seeds,
    identity,
    readable,
    versions,
)
from coterie.training import Paced
from coterie.types import EnvSpec, PyTree, Reward, UsageError, tree_bytes

if TYPE_CHECKING:
    from coterie.hosted_lanes import HostedLanes

LOG_POINTS, EVALUATIONS, CHECKPOINTS = 100, 20, 4
"""Per run, unless told otherwise."""
EPISODES, FINAL_EPISODES = 32, 320
"""At each evaluation point, and for the absolute metric at the end."""
FEW_POINTS, FEW_EPISODES, FEW_FINAL = 5, 8, 16
"""As few as that where evaluating a Python environment would take longer than training in it."""
LARGE, SAVING_RATE, SAVING_SHARE, SAVING_SECONDS = 32e6, 250e6, 0.01, 900
"""States of more bytes than this are saved no more often than is a hundredth of the time if a disk
takes so many bytes a second; and all are saved at the latest after so many seconds."""
CALL_SECONDS = 2.0
"""A call of the compiled program that takes longer is followed by one of half as many iterations:
whoever asks a run to stop does not wait for long."""

logger = logging.getLogger(__name__)

Report = Callable[[str, dict[str, Any]], None]
Opened = Any
"""An environment as a user gives it: a name, the thing itself, or what makes it; a native one or
any Python one that ``envs.hosted`` can host."""


@dataclass
class Run:
    """A trained run: its settings, and the policies of all its seeds.

    Attributes:
        config: what ``config.json`` holds.
        game: the environment as the learner saw it.
        policies: ``best`` and ``last``, each with a leading axis of seeds.
        path: the run directory, if there is one.
        steps: environment steps done, per seed.
        stochastic: policies are distributions; they are played greedily and by sampling.
        policy_steps: by the same names, environment steps that each seed's policy was trained for;
            None where an older run does not say.
        results: by the same names, the final evaluation's summary over seeds.
        complete: training made all its steps, and the final evaluation, if there is one, ended.
        default: the policies that the run directory says stand for the run; None without one.
        learner: what all seeds learned with at the end, [S, ...], without replay; None for a run
            opened from its directory (``analysis.learned.learner`` reads it from a checkpoint).
    """

    config: dict[str, Any]
    game: Game
    policies: dict[str, PyTree]
    path: Path | None
    steps: int
    stochastic: bool = False
    policy_steps: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    learner: PyTree = None
    complete: bool = False
    default: str | None = None

    @property
    def which(self) -> str:
        """The policies that stand for the run: the best, or the last where interests conflict.

        Of a run of version 0.1 they are always the best.
        """
        return self.default or ("last" if interests_conflict(self.game) else "best")

    @property
    def last_is_best(self) -> bool:
        """Whether the best policies of all seeds are known to be the last ones."""
        best, last = (self.policy_steps.get(which) for which in WHICH)
        return best is not None and None not in best and best == last

    def both(self) -> list[str]:
        """The best and the last policies, those that stand for the run first."""
        return sorted(self.policies, key=lambda which: which != self.which)

    @property
    def metrics(self) -> dict[str, Any]:
        """The final evaluation's summary over seeds, of the policies that stand for the run."""
        return self.results.get(self.which, {})

    def evaluate(
        self,
        episodes: int = FINAL_EPISODES,
        which: str | None = None,
        environment: Opened | None = None,
        seed: int = 0,
        hosting: Hosting | None = None,
    ) -> dict[str, Any]:
        """Returns of every seed's team, summarised over seeds: greedy, and sampled if it samples.

        Args:
            which: the ``best`` policies or the ``last``; ``Run.which`` unless given.
            environment: play here instead, in a hosted environment for example.
            seed: of the episodes' starts.
            hosting: settings of a hosted environment; those of the run unless given.

        Returns:
            {"eval/return/team_sum": {"mean", "iqm", "ci95", "per_seed", ...}, ...}, and the same
            under "eval_sampled/" for stochastic policies.
        """
        episodes = fitted("episodes", episodes, Episodes)
        seed = fitted("seed", seed, Seed)
        which = which or self.which
        if which not in WHICH:
            raise UsageError(f"which must be {' or '.join(WHICH)}; got {which!r}")
        game, name, given = self.game, self.config.get("environment", ""), hosting
        hosting = hosting or hosting_of(self.config)
        if environment is not None:
            env, name = open_environment(environment, {}, hosting)
            game = dataclasses.replace(game, env=env)
            check_fits(sizes(self.game.players), game.players, name)
        if isinstance(game.env, Hosted) or given:
            hosting, _ = settle(hosting, game.env, name)
        played = evaluate_game(
            game, self.policies[which], episodes, seed, self.stochastic, hosting or Hosting()
        )
        return summary(game.players.agents, played, return_bounds(game))


Played = dict[str, tuple[Any, Any]]
"""Returns [S, E, R] and lengths [S, E] of all seeds' episodes, by the metric's prefix."""


def evaluate_game(
    game: Game, policies: PyTree, episodes: int, seed: int, stochastic: bool, hosting: Hosting
) -> Played:
    """Every seed's team plays, greedily and, if it is stochastic, by sampling too."""
    if not isinstance(game.env, Hosted):
        return evaluate_native(game, policies, episodes, seed, stochastic)
    from coterie.hosted_play import play_hosted

    return play_hosted(game, policies, episodes, seed, stochastic, hosting)


def evaluate_native(
    game: Game, policies: PyTree, episodes: int, seed: int, stochastic: bool
) -> Played:
    """``evaluate_game`` where the environment is compiled."""
    seeds = jax.tree.leaves(policies)[0].shape[0]
    check_memory(_playing_bytes(game, episodes, seeds, stochastic), "lower --episodes")
    # Apart from the keys of training, which are split from the same kind of root.
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0xE7A1), seeds)
    run = jax.jit(jax.vmap(lambda p, k: play_both(game, p, k, episodes, stochastic)))
    return jax.tree.map(np.asarray, run(policies, keys))


def _playing_bytes(game: Game, episodes: int, seeds: int, stochastic: bool) -> int:
    """About the memory it takes to play so many episodes of every seed side by side."""
    plays = episodes * seeds * (1 + stochastic)
    if isinstance(game.env, Hosted):  # one after the other: only returns and lengths are kept
        return 8 * plays * (game.players.n_agents + 1)
    return (
        4
        * plays
        * tree_bytes(jax.eval_shape(game.reset, jax.eval_shape(lambda: jax.random.key(0))))
    )


def summary(
    agents: tuple[str, ...], played: Played, bounds: Mapping[str, Bounds] | None = None
) -> dict[str, Any]:
    """Statistics over seeds of each metric.

    ``ci95_episodes``, of team returns, is the 95% interval of the mean over all episodes of these
    teams: how well these teams' return is known, not how much training runs differ (that is
    ``ci95``). Intervals of team returns stay within their ``bounds`` (``return_bounds``).
    """
    bounds = bounds or {}
    result = {}
    for prefix, (returns, lengths) in played.items():
        pairs = zip(returns, lengths, strict=True)
        per_seed = [return_metrics(prefix, agents, r, n) for r, n in pairs]
        for name in per_seed[0]:
            within = bounds.get(name.removeprefix(f"{prefix}/"))
            result[name] = summarise([m[name] for m in per_seed], within)
        team = np.asarray(returns, np.float64).sum(-1)
        half = 1.96 * np.sqrt(team.var(axis=1, ddof=min(1, team.shape[1] - 1)).mean() / team.size)
        for name, share in (("team_sum", 1), ("team_mean", len(agents))):
            around = [(team.mean() + sign * half) / share for sign in (0, -1, 1)]
            _, *ends = Interval(*around).within(bounds.get(f"return/{name}"))
            result[f"{prefix}/return/{name}"]["ci95_episodes"] = [float(x) for x in ends]
    return result


def return_bounds(game: Game) -> dict[str, Bounds]:
    """What the team's returns can be at least and at most, by metric, where that is known."""
    return bounds_by_metric(_sum_bounds(game.env), game.players.n_agents)


def _sum_bounds(env: Environment | Hosted) -> Bounds | None:
    """What the sum of returns over agents can be at least and at most, where that is known."""
    return env.return_bounds() if isinstance(env, Environment) else None


def interests_conflict(game: Game) -> bool:
    """Whether one agent's gain may be another's loss, so that no sum of returns says who is best.

    Assumed where the environment declares individual rewards, unless it is a matrix game whose
    agents all prefer the same outcome, or a Python environment whose learner was given a common
    reward (``--reward``).
    """
    if game.players.n_agents == 1 or game.players.reward != "individual":
        return False
    if isinstance(game.env, MatrixGame):
        return not no_conflict(game.env.payoffs)
    return not isinstance(game.env, Hosted) or game.reward == "individual"


def team_return(spec: EnvSpec) -> str:
    """The metric by which the environment's returns are told: of the team, or per agent.

    It is the sum over agents where the environment's own reward is a sum, as in foraging, and the
    mean over agents elsewhere.
    """
    return "return/team_sum" if spec.reward == "sum" else "return/team_mean"


def headline(game: Game, stochastic: bool) -> str:
    """The metric that stands for a run: play as the policies act, so sampled if they sample."""
    return f"{'eval_sampled' if stochastic else 'eval'}/{team_return(game.players)}"


def is_code(name: str) -> bool:
    """Whether a name means code outside this package, which a run is told again."""
    return ":" in name


def is_hosted(name: str) -> bool:
    """Whether a name can only mean a Python environment."""
    return name.startswith(("gymnasium:", "pettingzoo:"))


def sizes(spec: Any) -> dict[str, list[int]]:
    """What has to agree between the environments a team can act in."""
    return {
        "observation sizes": list(spec.observation_sizes),
        "action counts": list(spec.action_counts),
    }


def check_fits(team: dict[str, list[int]], spec: Any, name: str) -> None:
    """UsageError unless a team of these ``sizes`` can act where ``spec`` holds."""
    for word, b in sizes(spec).items():
        a = team[word]
        if tuple(a) != tuple(b):
            raise UsageError(f"the team has {word} {list(a)}, but {name} has {list(b)}")


def open_environment(
    environment: Opened | None,
    options: dict[str, Any],
    hosting: Hosting | None = None,
    state: bool = False,
) -> tuple[Environment | Hosted, str]:
    """An environment and the name it is recorded under.

    ``family/variant`` is native; ``package.module:callable`` is imported and called.

    Args:
        hosting: the settings of hosted environments, if it is one.
        state: whether the state of a hosted one is wanted, which costs time at every step.
    """
    if isinstance(environment, ModuleType):
        environment = f"pettingzoo:{environment.__name__}"
    if isinstance(environment, str) and is_hosted(environment):
        make = find_factory(environment, options, hosting)
        return open_hosted(environment, make, hosting, state), environment
    if isinstance(environment, str) and not is_code(environment):
        return envs.make(environment, **options), environment
    if isinstance(environment, str):
        name, make = environment, find_factory(environment, options, hosting)
    elif isinstance(environment, Environment) or is_python_environment(environment):
        name = f"{type(environment).__module__}:{type(environment).__qualname__}"
        if isinstance(environment, Environment):
            return environment, name
        make = copies_of(environment)
    elif isinstance(environment, Hosted):
        return environment, environment.name
    elif callable(environment):
        name = _name_of(environment)
        make = environment
        if sentence := missing_arguments(make):
            raise UsageError(sentence)
    else:
        raise UsageError(reason(environment) or f"{environment!r:.60} is no environment")
    made = make_one(name, make, hosting)
    if isinstance(made, Environment):
        return made, name
    try:
        return open_hosted(name, make, hosting, state, made), name
    except UsageError as error:
        prefix = f"{name}: " if make is environment else ""
        raise UsageError(f"{prefix}{error}") from error


def _name_of(make: Callable[[], Any]) -> str:
    """A callable as ``module:name``, its class where it has none."""
    own = make if hasattr(make, "__qualname__") else type(make)
    return f"{own.__module__}:{own.__qualname__}"


def make_game(
    algorithm: Algorithm,
    environment: Environment | Hosted,
    name: str,
    reward: Reward | None,
    central: Literal["auto", "state", "joint"],
) -> Game:
    """The environment as this algorithm sees it; refuses what does not fit together."""
    spec = environment.spec()
    reward = reward or spec.reward
    if algorithm.common_reward and reward == "individual":
        raise UsageError(
            f"{algorithm.name} needs a common reward, but {name} pays each agent its own: "
            "name how to make one, --reward sum or --reward mean"
        )
    z: Central = "none"
    if algorithm.central:
        z = ("state" if spec.central_size else "joint") if central == "auto" else central
        if z == "state" and not spec.central_size:
            raise UsageError(f"{name} offers no state for z; use --central joint")
    game = Game(environment, z, reward, algorithm.joint_view)
    if isinstance(environment, Environment):
        game.trace()
    return game


def available_memory() -> int | None:
    """Bytes of memory that a process can still get, where the system tells."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def check_memory(needed: int, advice: str) -> None:
    """UsageError if so many bytes are not free; ``advice`` says what would help."""
    free = available_memory()
    if free is not None and needed > 0.9 * free:
        raise UsageError(
            f"this needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of memory are free: "
            f"{advice}"
        )


def train(
    algorithm: Algorithm,
    environment: Opened,
    steps: int | float,
    *,
    seeds: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    reward: Reward | None = None,
    central: Literal["auto", "state", "joint"] = "auto",
    options: dict[str, Any] | None = None,
    hosting: Hosting | None = None,
    evaluations: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    resume: bool = False,
    report: Report | None = None,
    command: str | None = None,
) -> Run:
    """Trains ``seeds`` teams side by side, each for ``steps`` environment steps.

    Ctrl-C and SIGTERM save what was learned and then raise ``Interrupted``, a KeyboardInterrupt.

    Args:
        environment: a name, an environment, or a callable that makes one; native, PettingZoo, or
            Gymnasium with one space per agent.
        seed: the first seed; the others follow it.
        out: a new run directory; without it nothing is written.
        reward: what learners are paid; the environment's custom unless given.
        central: what z is, for algorithms that use it: the environment's state where it offers
            one, else the joint observation.
        options: the environment's options.
        hosting: settings of Python environments, such as the number of worker processes.
        evaluations: greedy evaluations along the way; 20 unless given.
        evaluation_episodes: episodes of each; 32 unless given.
        final_episodes: episodes that judge the best policy at the end; 320 unless given. All
            three are fewer by default where playing so much in a Python environment would take
            more steps than training.
        resume: goes on with the run in ``out`` if there is one, which must have these settings;
            one that is complete is returned as it is, with its result in ``metrics``.
        report: called with an event's name and its facts, for a progress display.

    Raises:
        UsageError: anything asked for that cannot be done, in one sentence.
        Interrupted: Ctrl-C or SIGTERM ended the training.
    """
    if resume and out is None:
        raise UsageError("resume goes on with a run directory: name it (out)")
    path = None if out is None else Path(out)
    recorded = None
    if resume and path is not None and RunDirectory(path).holds_a_run():
        recorded = RunDirectory(path).config()
    plan = _plan(
        algorithm, environment, steps, seeds, seed, reward, central, options, hosting,
        {"evaluations": evaluations, "evaluation_episodes": evaluation_episodes,
         "final_episodes": final_episodes},
        recorded,
    )  # fmt: skip
    plan.config["command"] = command
    report = report or (lambda event, facts: None)
    if recorded is not None and path is not None:
        return _take_up(plan, RunDirectory(path), environment, report)
    return _begin(plan, path, environment, report)


@dataclass
class _Plan:
    """A training that was asked for, everything in it resolved.

    Attributes:
        remarks: sentences a user should read before it starts.
        depends: settings that follow from the number of steps.
    """

    algorithm: Algorithm
    game: Game
    config: dict[str, Any]
    remarks: list[str]
    depends: set[str]


def _plan(
    algorithm: Algorithm,
    environment: Opened,
    steps: int | float,
    seeds: int,
    seed: int,
    reward: Reward | None,
    central: Literal["auto", "state", "joint"],
    options: dict[str, Any] | None,
    hosting: Hosting | None,
    asked: dict[str, int | None],
    recorded: dict[str, Any] | None,
) -> _Plan:
    """What ``train`` was asked for, checked and resolved.

    Args:
        asked: how often and how long policies are evaluated, as far as it was said.
        recorded: the configuration of the run to go on with, if there is one.
    """
    steps = int(fitted("steps", steps, StepCount))
    seeds, seed = fitted("seeds", seeds, Seeds), fitted("seed", seed, Seed)
    check_seeds(seed, seeds)
    asked = {name: fitted(name, value, RUN[name] | None) for name, value in asked.items()}
    reward = fitted("reward", reward, Reward | None)
    central = fitted("central", central, Literal["auto", "state", "joint"])
    options = _as_json(options or {})
    state = algorithm.central and central != "joint"
    env, name = open_environment(environment, options, hosting, state)
    settled, remarks = settle(hosting, env, name)
    unresolved, algorithm = algorithm, algorithm.resolve(steps, env.spec().time_limit)
    if recorded and settled:  # what random play said of how many are worth while, said once
        known = ABSENT_ONCE | recorded
        asked = {name: known[name] if value is None else value for name, value in asked.items()}
    undecided = reward is None and algorithm.common_reward
    if undecided and settled and isinstance(env, Hosted) and pays_in_common(env, settled):
        reward = "mean"
        remarks.append("in random play all agents were always paid alike: a common reward")
    game = make_game(algorithm, env, name, reward, central)
    remarks += algorithm.remarks(game) + algorithm.shortfalls(steps)
    remarks += _fewer_points(asked["evaluations"], algorithm.iterations(steps))
    judged, remark = _judging(asked, steps, algorithm, env, settled)
    remarks += remark
    config = {
        "coterie": versions()["coterie"],
        "format": FORMAT,
        "command": None,
        "algorithm": algorithm.name,
        "settings": algorithm.settings(),
        "environment": name,
        "environment_options": options,
        "reward": game.reward,
        "central": game.central,
        "steps": steps,
        "seeds": seeds,
        "seed": seed,
        **judged,
        "metric": headline(game, algorithm.stochastic),
        "return_bounds": list(bounds) if (bounds := _sum_bounds(env)) else None,
        "sizes": sizes(game.players),
        "versions": versions(),
    }
    if settled:
        config |= {"hosting": dataclasses.asdict(settled), "spec_digest": digest(game.players)}
    settings = unresolved.settings()
    depends = {name for name, value in algorithm.settings().items() if settings[name] != value}
    return _Plan(algorithm, game, config, remarks, depends)


def _begin(plan: _Plan, path: Path | None, environment: Opened, report: Report) -> Run:
    """Trains from the start, in a new run directory if there is to be one."""
    algorithm, game = plan.algorithm, plan.game
    with make_lanes(algorithm, game, plan.config, report) as lanes:
        note_session(plan.config, 0, here := place())
        config = readable(plan.config | {"lanes": lanes.count})
        check_memory(needed := lanes.bytes(), "lower --buffer-size, --hidden or --seeds")
        _check_episodes(game, config, algorithm.stochastic)
        if path is not None:
            _check_restorable(config, algorithm)
        directory = RunDirectory.create(path) if path is not None else None
        with directory.claimed() if directory else contextlib.nullcontext():
            if directory:
                directory.begin(config)
            report("start", config | {"game": game, "mode": algorithm.mode, "bytes": needed})
            for sentence in plan.remarks:
                report("note", {"sentence": sentence})
            loop = _Loop(lanes, config, directory, environment, here, report)
            return loop.run(lambda: lanes.init(config["seed"]), 0)


def _take_up(plan: _Plan, directory: RunDirectory, environment: Opened, report: Report) -> Run:
    """Goes on with a run that has the settings of the plan; returns it if it is complete.

    Raises:
        UsageError: it has other settings.
    """
    algorithm, game = plan.algorithm, plan.game
    with directory.claimed():
        config = directory.config()
        now = ABSENT_ONCE | config | {"settings": configured_algorithm(config).settings()}
        check_same(directory.path, _as_json(now), _as_json(plan.config), plan.depends)
        check_same_spec(config, plan.config.get("spec_digest"), config["environment"])
        if directory.is_finished(config):
            return _finished(directory, config, algorithm, game, report)
        check_resumable(directory.path, config, directory.steps_done())
        if "hosting" in plan.config:
            config["hosting"]["workers"] = plan.config["hosting"]["workers"]
        with make_lanes(algorithm, game, config, report) as lanes:
            return _go_on(lanes, config, directory, environment, report, extended=False)


def _finished(
    directory: RunDirectory,
    config: dict[str, Any],
    algorithm: Algorithm,
    game: Game,
    report: Report,
) -> Run:
    """A complete run, with its result as it was recorded, or evaluated again where that is lost."""
    run = _opened(directory, config, algorithm, game)
    report("note", {"sentence": f"{directory.path} is complete"})
    if not run.results and config["final_episodes"]:
        _play_finally(run)
        directory.write_result(config, run.results)
    return run


def _play_finally(run: Run) -> dict[str, Played]:
    """Plays the final evaluation's episodes, which have starts of their own, and notes the results.

    The best and the last policies play them; those that are the same only once.
    """
    episodes, seed = run.config["final_episodes"], run.config["seed"]
    hosting = hosting_of(run.config) or Hosting()
    agents, bounds = run.game.players.agents, return_bounds(run.game)
    played: dict[str, Played] = {}
    for which, policies in run.policies.items():
        if played and run.last_is_best:
            played[which] = next(iter(played.values()))
        else:
            played[which] = evaluate_game(
                run.game, policies, episodes, seed, run.stochastic, hosting
            )
        run.results[which] = summary(agents, played[which], bounds)
    return played


def _judging(
    asked: dict[str, int | None], steps: int, algorithm: Algorithm, env: Any, hosting: Any
) -> tuple[dict[str, int], list[str]]:
    """How often and how long policies are evaluated, and a sentence if that is less than usual."""
    usual = dict(zip(asked, (EVALUATIONS, EPISODES, FINAL_EPISODES), strict=True))
    judged = {name: usual[name] if value is None else value for name, value in asked.items()}
    if hosting is None or None not in asked.values():
        return judged, []
    length = episode_length(env, hosting)
    # Half of them for the end, the other half for the start and the points along the way.
    affordable = steps // (2 * length * (1 + algorithm.stochastic))
    each = int(np.clip(affordable // (FEW_POINTS + 1), FEW_EPISODES, EPISODES))
    fewer = {
        "evaluations": int(np.clip(affordable // each - 1, 1, EVALUATIONS)),
        "evaluation_episodes": each,
        "final_episodes": int(np.clip(affordable, FEW_FINAL, FINAL_EPISODES)),
    }
    fewer = {name: fewer[name] if value is None else value for name, value in asked.items()}
    if fewer == judged:
        return judged, []
    return fewer, [
        f"an episode takes about {length:,} steps, so fewer are played to judge: "
        f"--evaluations {fewer['evaluations']} --evaluation-episodes "
        f"{fewer['evaluation_episodes']} --final-episodes {fewer['final_episodes']}"
    ]


def _fewer_points(asked: int | None, rollouts: int) -> list[str]:
    """A sentence if a policy cannot be evaluated as often as asked for."""
    if asked is None or asked <= rollouts:
        return []
    return [
        f"policies are evaluated between rollouts, and the run makes {rollouts:,}: there are "
        f"{rollouts:,} evaluations along the way instead of {asked:,}"
    ]


def _as_json(options: dict[str, Any]) -> dict[str, Any]:
    """The options as they come back from a file; UsageError if a file cannot hold them."""
    found = {}
    for name, value in options.items():
        try:
            found[name] = json.loads(json.dumps(value, default=lambda number: number.item()))
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise UsageError(
                f"the option {name} must be a number, a word, True, False, None, or a list or "
                f"dict of such; got {shown(value)}"
            ) from None
    return found


EPISODE_BYTES, RECORD_LIMIT = 48, 90_000_000
"""Of a played episode in evaluations.json and in a checkpoint's header, which must stay small."""


def _check_episodes(game: Game, config: dict[str, Any], stochastic: bool) -> None:
    """UsageError if so many episodes cannot be played at once, or not be recorded."""
    seeds, episodes = config["seeds"], config["evaluation_episodes"]
    for name in ("evaluation_episodes", "final_episodes"):
        needed = _playing_bytes(game, config[name], seeds, stochastic)
        check_memory(needed, f"lower --{name.replace('_', '-')}")
    played = seeds * (episodes * (config["evaluations"] + 1) + config["final_episodes"])
    if played * EPISODE_BYTES > RECORD_LIMIT:
        raise UsageError(
            f"{played:,} episodes would be recorded, and at most {RECORD_LIMIT // EPISODE_BYTES:,} "
            "can be: lower --evaluations, --evaluation-episodes, --final-episodes or --seeds"
        )


def _check_restorable(config: dict[str, Any], algorithm: Algorithm) -> None:
    """UsageError unless the algorithm can be made again from the configuration."""
    if type(algorithm) not in algorithms().values():
        raise UsageError(
            f"{type(algorithm).__qualname__} is not a file of coterie.algorithms, so a run "
            "directory of it could not be opened again: train it without out"
        )
    if configured_algorithm(config) != algorithm:
        raise UsageError(f"settings of {algorithm.name} do not come back from a file as they are")


@contextlib.contextmanager
def make_lanes(
    algorithm: Algorithm, game: Game, config: dict[str, Any], report: Report
) -> Iterator[Lanes | HostedLanes]:
    """What steps and learns, closed in the end: compiled, or with environments in processes."""
    hosting, seeds = hosting_of(config), config["seeds"]
    episodes = (ABSENT_ONCE | config)["evaluation_episodes"]
    if hosting:
        from coterie.hosted_lanes import HostedLanes

        warn = lambda sentence: report("warning", {"sentence": sentence})  # noqa: E731
        lanes = HostedLanes(algorithm, game, seeds, config["seed"], episodes, hosting, warn)
    else:
        lanes = Lanes(algorithm, game, seeds, episodes, config.get("lanes"))
    try:
        yield lanes
    finally:
        lanes.close()


def hosting_of(config: dict[str, Any]) -> Hosting | None:
    """Settings of hosted environments, where the run is on one."""
    given = config.get("hosting")
    if given is None:
        return None
    if not isinstance(given, dict) or ":" not in config["environment"]:
        raise UsageError(f"config.json is damaged: hosting cannot be {repr(given)[:60]}")
    # How environments are hosted decides no result: no note where a former setting is gone.
    given = present_settings(Hosting, given, config, lambda sentence: None)
    with _damaged():
        return Hosting(**given)


def resume(
    path: str | Path,
    steps: int | None = None,
    *,
    environment: Opened | None = None,
    workers: int | None = None,
    report: Report | None = None,
) -> Run:
    """Continues an interrupted run from its newest checkpoint, or from its start if it has none.

    Ctrl-C and SIGTERM save what was learned and then raise ``Interrupted``, a KeyboardInterrupt.

    Args:
        steps: extends the run to so many environment steps.
        environment: the environment again, where the run is on code of the user's.
        workers: processes for Python environments, if not as many as before.
    """
    steps = fitted("steps", steps, StepCount | None)
    directory = RunDirectory.open(Path(path))
    with directory.claimed():
        config = directory.config()
        if workers is not None and hosting_of(config):
            config["hosting"]["workers"] = Hosting(workers=workers).workers
        return _resume(directory, config, steps, environment, report or (lambda event, facts: None))


def _resume(
    directory: RunDirectory,
    config: dict[str, Any],
    steps: int | None,
    environment: Opened | None,
    report: Report,
) -> Run:
    if directory.learner.is_file():
        raise UsageError(
            f"{directory.path} is complete and keeps no checkpoint to go on from, only what it "
            "learned: train again with more --steps and another --out"
        )
    # Damage of the log is told when it is cut back to what the checkpoint knew of it.
    check_resumable(directory.path, config, directory.steps_done(lambda sentence: None))
    name = config["environment"]
    # What a script made in itself has another name wherever else it is found.
    known = is_code(name) and not name.startswith("__main__:")
    if isinstance(environment, str) and known and environment != name:
        raise UsageError(f"the run is on {name}, and cannot go on in {environment}")
    algorithm, game = restore(config, environment)
    if steps is not None:
        config["steps"] = steps
    with make_lanes(algorithm, game, config, report) as lanes:
        return _go_on(lanes, config, directory, environment, report, steps is not None)


def _go_on(
    lanes: Lanes | HostedLanes,
    config: dict[str, Any],
    directory: RunDirectory,
    environment: Opened | None,
    report: Report,
    extended: bool,
) -> Run:
    """The run from its newest checkpoint on; ``extended`` if more steps were asked for."""
    game, mode = lanes.program.game, lanes.program.algorithm.mode
    check_memory(needed := lanes.bytes(), "free some, or resume on a larger machine")
    warn = lambda sentence: report("warning", {"sentence": sentence})  # noqa: E731
    start, here = config | {"game": game, "mode": mode, "bytes": needed}, place()
    if directory.is_untrained():
        report("start", start)
        note_session(config, 0, here)
        directory.write_config(config)
        loop = _Loop(lanes, config, directory, environment, here, report)
        return loop.run(lambda: lanes.init(config["seed"]), 0)
    _, states, meta = checkpoints.latest(
        directory.path,
        lanes.template(),
        warn,
        lambda step, meta: _misplaced(step, meta, lanes.program, identity(config)),
    )
    complete = lanes.program.iterations(config["steps"]) <= meta["iteration"]
    judged = not config["final_episodes"] or directory.is_judged(warn)
    if complete and (judged or extended):
        done = meta["env_steps"]
        raise UsageError(
            f"{directory.path} has its {done:,} steps already; extend it with more --steps"
        )
    report("start", start)
    if sentence := moved_sentence(meta, here):
        warn(sentence)
    note_session(config, meta["env_steps"], here)
    directory.write_config(config)
    if problem := directory.cut_log(meta["log_bytes"], meta["log_digest"], meta["log_lines"]):
        warn(problem)
    loop = _Loop(lanes, config, directory, environment, here, report, meta)
    # Read and placed states together would be twice the replay.
    placed = lanes.place(states)
    del states
    return loop.run(lambda: placed, meta["iteration"])


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
        return f"is that of iteration {meta['iteration']}, so not of step {step}"
    return None


def configured_algorithm(
    config: dict[str, Any], note: Callable[[str], None] = logger.warning
) -> Algorithm:
    """The algorithm that a configuration names, with its settings; ``note`` as in ``restore``."""
    cls = find_algorithm(config["algorithm"])
    settings = present_settings(cls, config["settings"], config, note)
    with _damaged():
        return cls(**settings)


def restore(
    config: dict[str, Any],
    environment: Opened | None = None,
    note: Callable[[str], None] = logger.warning,
) -> tuple[Algorithm, Game]:
    """The algorithm and the game a configuration describes.

    Code of the user's is never imported because a file names it: it has to be given again.

    Args:
        note: called with a sentence for every stored setting that no longer applies.
    """
    algorithm = configured_algorithm(config, note)
    name, options = config["environment"], config["environment_options"]
    if ":" not in name:
        options = present_settings(envs.family(name).Options, options, config, note)
    elif environment is None:
        raise UsageError(f"the run is on {name}, code of yours: give --environment {name} again")
    hosting = hosting_of(config)
    opened, state = environment if is_code(name) else name, config["central"] == "state"
    env, given = open_environment(opened, options, hosting, state)
    game = Game(env, config["central"], config["reward"], algorithm.joint_view)
    if is_code(name):
        check_fits(config["sizes"], env.spec(), given)
    if hosting:
        check_same_spec(config, digest(env.spec()), given)
    return algorithm, game


def check_same_spec(config: dict[str, Any], found: str | None, name: str) -> None:
    """UsageError unless a Python environment promises what that of the run did."""
    if config.get("spec_digest") != found:
        raise UsageError(f"{name} has other agents, or another state, than the run was trained on")


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    """Says of what settings refuse that it stood in a configuration."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"config.json is damaged: {error}") from None


def open_run(path: str | Path, environment: Opened | None = None) -> Run:
    """A run from its directory; ``environment`` again where it is code of the user's."""
    directory = RunDirectory.open(Path(path))
    config = directory.config()
    algorithm, game = restore(config, environment)
    return _opened(directory, config, algorithm, game)


def _opened(
    directory: RunDirectory, config: dict[str, Any], algorithm: Algorithm, game: Game
) -> Run:
    """A run as its directory holds it."""

    seeds = range(config["seeds"])
    loaded = {which: [load_policy(directory.path, k, which) for k in seeds] for which in WHICH}
    policies = {
        which: jax.tree.map(lambda *x: np.stack(x), *(policy for policy, _ in each))
        for which, each in loaded.items()
    }
    steps = {which: [about["env_steps"] for _, about in each] for which, each in loaded.items()}
    complete = directory.is_finished(config)
    return Run(
        config, game, policies, directory.path, directory.steps_done(), algorithm.stochastic, steps,
        (directory.result(config) if complete else None) or {}, complete=complete,
        default=default_policy(directory.path),
    )  # fmt: skip


class _Loop:
    """Drives a program from the host: log, evaluations, checkpoints, a clean stop."""

    def __init__(
        self,
        lanes: Lanes | HostedLanes,
        config: dict[str, Any],
        directory: RunDirectory | None,
        environment: Opened | None,
        here: dict[str, Any],
        report: Report,
        meta: dict[str, Any] | None = None,
    ):
        self.environment, self.here = environment, here
        self.lanes, self.program = lanes, lanes.program
        self.config, self.directory, self.report = config, directory, report
        meta = meta or {}
        self.seconds_before = self.clock = meta.get("seconds", 0.0)
        lanes.go_on_from(meta.get("tallies", {}))
        self.evaluations = EvaluationFile(
            config["environment"], config["algorithm"], meta.get("evaluations")
        )
        self.total = lanes.program.iterations(config["steps"])
        self.stop = False
        self.patience = 1
        self.saved_at = self.seconds_before
        self.last: dict[str, Any] = {}

    def _marks(self, count: int) -> set[int]:
        """Iterations after which something happens ``count`` times in a run, the end included."""
        count = min(count, self.total)
        return {-(-self.total * j // count) for j in range(1, count + 1)}

    def run(self, begin: Callable[[], States], iteration: int) -> Run:
        """Goes on from the states that ``begin`` makes, which are those of ``iteration``."""
        points = self._marks(self.config["evaluations"])
        log = self._marks(LOG_POINTS) | points
        saves = self._marks(CHECKPOINTS)
        self.started = time.perf_counter()
        with _Interrupt(self):
            state, saved = begin(), iteration
            if not iteration:
                self._save(state, iteration)  # from here on a killed run can be resumed
            if not self.evaluations.content:
                state = self._evaluate(state, 0)
            while iteration < self.total and not self.stop:
                until = min(m for m in log if m > iteration)
                state, iteration = self._advance(state, iteration, until)
                if iteration == until:
                    state = self._log(state, iteration)
                if iteration in points:
                    state = self._evaluate(state, iteration)
                if self._is_due(state, iteration, saves):
                    self._save(state, saved := iteration)
            if self.stop and saved != iteration:
                self._save(state, iteration)
        return self._finish(state, iteration)

    def _advance(self, state: States, iteration: int, until: int) -> tuple[States, int]:
        while iteration < until and not self.stop:
            count = min(self.program.chunk, self.patience, until - iteration)
            begun = time.perf_counter()
            try:
                state = self.lanes.advance(state, iteration, count)
            except NotFinite as bad:
                raise NotFinite(bad.what, self.config["seed"] + bad.seed, bad.step) from None
            iteration += count
            self._wait_longer(time.perf_counter() - begun, count)
            self.report(
                "progress",
                {
                    "env_steps": self._steps(iteration),
                    "seconds": self._seconds(),
                    **self.lanes.tallies(),
                    **self.last,
                },
            )
        return state, iteration

    def _wait_longer(self, took: float, count: int) -> None:
        """More iterations in the next call after a short one, fewer after a long one."""
        if took > CALL_SECONDS:
            self.patience = max(1, count // 2)
        elif count == self.patience:
            self.patience = min(2 * count, self.program.chunk)

    def _steps(self, iteration: int) -> int:
        return iteration * self.program.steps_per_iteration

    def _seconds(self) -> float:
        """Wall clock of the run so far; it never goes back, whatever the system's clock does."""
        self.clock = max(self.clock, self.seconds_before + time.perf_counter() - self.started)
        return self.clock

    def _log(self, state: States, iteration: int) -> States:
        agents = self.program.game.players.agents
        episodes, losses = self.lanes.gather(state, lambda s: (s.episodes, s.losses))
        seconds, steps = self._seconds(), self._steps(iteration)
        rate = steps / max(seconds, 1e-9)
        lines = []
        for k in range(self.config["seeds"]):
            line: dict[str, Any] = {"seed": self.config["seed"] + k, "env_steps": steps}
            if (count := float(episodes.count[k])) > 0:
                line |= return_metrics(
                    "train", agents, episodes.returns[k] / count, episodes.lengths[k] / count
                )
            updates = float(losses["updates"][k])
            line |= {f"train/{n}": float(v[k]) / updates for n, v in losses.items()
                     if n != "updates" and updates > 0}  # fmt: skip
            line |= {
                "updates": self.program.algorithm.updates(iteration),
                "seconds": seconds,
                "steps_per_second": rate,
                "steps_per_second_total": rate * self.config["seeds"],
                **self.lanes.tallies(),
            }
            lines.append(line)
        if self.directory:
            self.directory.log(lines)
        self._note("train", lines)
        return self.lanes.clear_totals(state)

    def _evaluate(self, state: States, iteration: int) -> States:
        agents = self.program.game.players.agents
        state, played = self.lanes.evaluate(state, iteration)
        steps, lines = self._steps(iteration), []
        returns, lengths = played[self._prefix]
        for k in range(self.config["seeds"]):
            line: dict[str, Any] = {"seed": self.config["seed"] + k, "env_steps": steps}
            for prefix, (r, n) in played.items():
                check_returns(agents, r[k], line["seed"], steps)
                line |= return_metrics(prefix, agents, r[k], n[k])
            lines.append(line)
            self.evaluations.add(
                self.config["seed"] + k, steps, self._seconds(),
                returns[k].sum(-1).tolist(), lengths[k].tolist(),
            )  # fmt: skip
        for prefix in played:
            self._note(prefix, lines)
        if self.directory:
            self.directory.log(lines)
            self.directory.write_evaluations(self.evaluations.content)
            self._save_policies(state, iteration)
        self.report("evaluation", {"env_steps": steps, **self.last})
        return state

    @property
    def _prefix(self) -> str:
        """Of the play that policies are chosen and reported by."""
        return "eval_sampled" if self.program.algorithm.stochastic else "eval"

    def _note(self, prefix: str, lines: list[dict[str, Any]]) -> None:
        name = f"{prefix}/{team_return(self.program.game.players)}"
        values = [line[name] for line in lines if name in line]
        if values:
            self.last[name] = float(np.mean(values))

    def _policies(
        self, state: States, iteration: int
    ) -> tuple[dict[str, PyTree], dict[str, list[int]]]:
        """Best and last policies [S, ...], and [S] the environment steps each was trained for."""
        algorithm = self.program.algorithm
        last, best = self.lanes.gather(state, lambda s: (algorithm.policy(s.learner), s.best))
        low, high = best.iteration.astype(np.int64).T
        found = low + (high << 32)
        none = found == 0  # nothing trained was evaluated yet

        def choose(of_best: Any, of_last: Any) -> Any:
            return np.where(none.reshape(-1, *[1] * (of_last.ndim - 1)), of_last, of_best)

        policies = {"best": jax.tree.map(choose, best.policy, last), "last": last}
        reached = {"best": np.where(none, iteration, found), "last": np.full_like(found, iteration)}
        steps = {w: [self._steps(k) for k in i.tolist()] for w, i in reached.items()}
        return policies, steps

    def _save_policies(self, state: States, iteration: int) -> None:
        assert self.directory is not None
        policies, steps = self._policies(state, iteration)
        name, game = identity(self.config), self.program.game
        default = "last" if interests_conflict(game) else "best"
        about = describe(policies["last"], game, self.program.algorithm)
        self.directory.write_json(
            "policy/policy.json", seal(about | {"run": name, "default": default})
        )
        for which, stacked in policies.items():
            save_policies(self.directory.path, which, stacked, name, steps[which])

    def _save(self, state: States, iteration: int) -> None:
        if not self.directory:
            return
        size, digest = self.directory.sync_log()
        meta = {
            "run": identity(self.config),
            "iteration": iteration,
            "env_steps": self._steps(iteration),
            "seconds": self._seconds(),
            "log_bytes": size,
            "log_digest": digest,
            "log_lines": self.directory.logged,
            "evaluations": self.evaluations.content,
            "tallies": self.lanes.tallies(),
            **self.here,
        }
        self.report("saving", meta)
        checkpoints.save(self.directory.path, self._steps(iteration), state, meta)
        self.saved_at = self._seconds()

    def _is_due(self, state: States, iteration: int, marks: set[int]) -> bool:
        """Whether to save now: at the marks, large states not too often, and none too seldom."""
        size, since = tree_bytes(state), self._seconds() - self.saved_at
        pause = size / SAVING_RATE / SAVING_SHARE if size > LARGE else 0.0
        return iteration == self.total or since >= (pause if iteration in marks else SAVING_SECONDS)

    def _finish(self, state: States, iteration: int) -> Run:
        if self.stop:
            raise self._interrupted(state, iteration)
        algorithm = self.program.algorithm
        policies, steps = self._policies(state, iteration)
        learner = self.lanes.gather(state, lambda s: without_replay(s.learner))
        path = self.directory.path if self.directory else None
        run = Run(
            self.config, self.program.game, policies, path, self._steps(iteration),
            algorithm.stochastic, steps, learner=learner, complete=True,
        )  # fmt: skip
        if self.config["final_episodes"]:
            try:
                self._absolute(run)
            except KeyboardInterrupt:  # all is saved; going on evaluates again
                raise self._interrupted(state, iteration) from None
        facts = {"stopped": False, "seconds": self._seconds(), "env_steps": run.steps}
        self.report("end", facts)
        return run

    def _interrupted(self, state: States, iteration: int) -> Interrupted:
        """What to raise after a request to stop; policies are saved as they are."""
        steps, again, path = self._steps(iteration), None, None
        if self.directory:
            self._save_policies(state, iteration)
            path = self.directory.path
            if iteration < self.total or self.config["final_episodes"]:
                again = resume_command(path, self.config["environment"], self.environment)
        facts = {"stopped": True, "seconds": self._seconds(), "env_steps": steps}
        self.report("end", facts | {"resume": again})
        return Interrupted(path, steps, self.config["steps"], again)

    def _absolute(self, run: Run) -> None:
        """The final evaluation; those that stand for the run give marl-eval's absolute metric."""
        played = _play_finally(run)
        returns, lengths = played[run.which][self._prefix]
        for k in range(self.config["seeds"]):
            self.evaluations.absolute(
                self.config["seed"] + k, returns[k].sum(-1).tolist(), lengths[k].tolist()
            )
        if self.directory:
            self.directory.write_evaluations(self.evaluations.content)
            self.directory.write_result(self.config, run.results)


class _Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current chunk."""

    def __init__(self, loop: _Loop):
        self.loop = loop

    def __enter__(self) -> None:
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        del frame
        self.loop.stop = True
        for each, handler in self.previous.items():  # the second one ends the process at once
            signal.signal(each, handler)
        self.loop.report("stopping", {})

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
