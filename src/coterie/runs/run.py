"""A trained run: its settings, and the policies of all its seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from coterie.errors import UsageError
from coterie.former import former_arguments
from coterie.learners.contract import Algorithm
from coterie.python_envs.settings import PythonEnvSettings, resolve_settings
from coterie.runs.config import python_env_of
from coterie.runs.environments import (
    Opened,
    check_fits,
    open_environment,
    options_again,
    sizes,
)
from coterie.runs.evaluation import (
    AllPlayed,
    evaluate_game,
    interests_conflict,
    return_bounds,
    summary,
)
from coterie.runs.policy_files import WHICH, default_policy, load_policy
from coterie.runs.user_code import own_networks
from coterie.settings import Episodes, Seed, fitted
from coterie.spec import PythonEnvFactory
from coterie.storage.run_directory import RunDirectory
from coterie.types import PyTree
from coterie.views.game import Game

FINAL_EPISODES = 320
"""For the absolute metric at the end."""


@dataclass(repr=False)
class Run:
    """A trained run: its settings, and the policies of all its seeds.

    Attributes:
        config: what ``config.json`` holds.
        game: the environment as the learner saw it.
        policies: ``best`` and ``last``, each with a leading axis of seeds.
        path: the run directory, if there is one.
        steps: environment steps done, per seed.
        algorithm: what it was trained with, with its settings.
        policy_steps: by the same names, environment steps that each seed's policy was trained for;
            None where an older run does not say.
        results: by the same names, the final evaluation's summary over seeds.
        complete: training made all its steps, and the final evaluation, if there is one, ended.
        default: the policies that the run directory says stand for the run; None without one.
        learner: what all seeds learned with at the end, [S, ...], without replay; None for a run
            opened from its directory (``runs.learner.learner`` reads it from a checkpoint).
    """

    config: dict[str, Any]
    game: Game
    policies: dict[str, PyTree]
    path: Path | None
    steps: int
    policy_steps: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    learner: PyTree = None
    complete: bool = False
    default: str | None = None
    algorithm: Algorithm = field(kw_only=True)
    html: ClassVar[Callable[[Run], str] | None] = None
    """How a notebook shows a run."""

    def __repr__(self) -> str:
        config = self.config
        what = f"{config.get('algorithm')} on {config.get('environment')}"
        count, asked = config.get("seeds"), config.get("steps", 0)
        size = f"{count} seed{'s' * (count != 1)}, {self.steps:,}"
        size += " steps" if self.complete else f" of {asked:,} steps"
        where = f"in {self.path}" if self.path else "not in a directory"
        return f"Run({what}; {size}; {where})"

    def _repr_html_(self) -> str | None:
        return None if Run.html is None else Run.html(self)

    @property
    def stochastic(self) -> bool:
        """Policies are distributions; they are played greedily and by sampling."""
        return self.algorithm.stochastic

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

    @former_arguments(hosting="python_env")
    def evaluate(
        self,
        episodes: int = FINAL_EPISODES,
        which: str | None = None,
        environment: Opened | None = None,
        seed: int = 0,
        python_env: PythonEnvSettings | None = None,
    ) -> dict[str, Any]:
        """Returns of every seed's team, summarised over seeds: greedy, and sampled if it samples.

        Args:
            which: the ``best`` policies or the ``last``; ``Run.which`` unless given.
            environment: play here instead, in a Python environment for example.
            seed: of the episodes' starts.
            python_env: settings of a Python environment; those of the run unless given.

        Returns:
            {"eval/return/team_sum": {"mean", "iqm", "ci95", "per_seed", ...}, ...}, and the same
            under "eval_sampled/" for stochastic policies.
        """
        episodes = fitted("episodes", episodes, Episodes)
        seed = fitted("seed", seed, Seed)
        which = which or self.which
        if which not in WHICH:
            raise UsageError(f"which must be {' or '.join(WHICH)}; got {which!r}")
        game, name, given = self.game, self.config.get("environment", ""), python_env
        python_env = python_env or python_env_of(self.config)
        if environment is not None:
            if given is None and isinstance(game.env, PythonEnvFactory) and game.env.other_python:
                python = game.env.other_python.python
                python_env = dataclasses.replace(python_env or PythonEnvSettings(), python=python)
            env, name = open_environment(
                environment,
                options_again(environment, self.config),
                python_env,
                combined=not self.game.players.actions,
                arrays=bool(self.game.players.observations),
            )
            game = dataclasses.replace(game, env=env)
            check_fits(sizes(self.game.players), game.players, name)
        if isinstance(game.env, PythonEnvFactory) or given:
            python_env, _ = resolve_settings(python_env, game.env, name)
        played = evaluate_game(
            game,
            self.policies[which],
            episodes,
            seed,
            self.stochastic,
            python_env or PythonEnvSettings(),
        )
        return summary(game.players.agents, played, return_bounds(game))


def play_finally(run: Run) -> dict[str, AllPlayed]:
    """Plays the final evaluation's episodes, which have starts of their own, and notes the results.

    The best and the last policies play them; those that are the same only once.
    """
    episodes, seed = run.config["final_episodes"], run.config["seed"]
    python_env = python_env_of(run.config) or PythonEnvSettings()
    agents, bounds = run.game.players.agents, return_bounds(run.game)
    played: dict[str, AllPlayed] = {}
    for which in run.both():
        policies = run.policies[which]
        if played and run.last_is_best:
            played[which] = next(iter(played.values()))
        else:
            played[which] = evaluate_game(
                run.game,
                policies,
                episodes,
                seed,
                run.stochastic,
                python_env,
                "--final-episodes",
            )
        run.results[which] = summary(agents, played[which], bounds)
    return played


def opened(
    directory: RunDirectory, config: dict[str, Any], algorithm: Algorithm, game: Game
) -> Run:
    """A run as its directory holds it."""

    seeds = range(config["seeds"])
    own = own_networks(algorithm)
    loaded = {which: [load_policy(directory.path, k, which, own) for k in seeds] for which in WHICH}
    policies = {
        which: jax.tree.map(lambda *x: np.stack(x), *(policy for policy, _ in each))
        for which, each in loaded.items()
    }
    steps = {which: [about["env_steps"] for _, about in each] for which, each in loaded.items()}
    complete = directory.is_finished(config)
    return Run(
        config, game, policies, directory.path, directory.steps_done(), steps,
        (directory.result(config) if complete else None) or {}, complete=complete,
        default=default_policy(directory.path), algorithm=algorithm,
    )  # fmt: skip
