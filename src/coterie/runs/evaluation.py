"""Evaluating policies: episodes of all teams, summaries over seeds, the memory it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from coterie.envs.base import Environment
from coterie.errors import UsageError
from coterie.python_envs.settings import PythonEnvSettings
from coterie.spec import EnvSpec, PythonEnvFactory
from coterie.statistics import Bounds, Interval, bounds_by_metric, summarise
from coterie.training.evaluate import Played, play_both, played_metrics
from coterie.training.memory import check_memory, working_bytes
from coterie.types import PyTree, tree_bytes
from coterie.views.game import Game

AllPlayed = dict[str, Played]
"""All seeds' episodes, returns [S, E, R] and lengths [S, E], by the metric's prefix."""


def evaluate_game(
    game: Game,
    policies: PyTree,
    episodes: int,
    seed: int,
    stochastic: bool,
    python_env: PythonEnvSettings,
    setting: str = "--episodes",
) -> AllPlayed:
    """Every seed's team plays, greedily and, if it is stochastic, by sampling too.

    Args:
        setting: what the user lowers if there is too little memory.
    """
    if not isinstance(game.env, PythonEnvFactory):
        return evaluate_jax_env(game, policies, episodes, seed, stochastic, setting)
    from coterie.python_envs.evaluate import play_python_envs

    return play_python_envs(game, policies, episodes, seed, stochastic, python_env)


def evaluate_jax_env(
    game: Game,
    policies: PyTree,
    episodes: int,
    seed: int,
    stochastic: bool,
    setting: str = "--episodes",
) -> AllPlayed:
    """``evaluate_game`` where the environment is compiled."""
    seeds = jax.tree.leaves(policies)[0].shape[0]
    advice = f"lower {setting}"
    check_memory(playing_bytes(game, episodes, seeds, stochastic), advice)
    # Apart from the keys of training, which are split from the same kind of root.
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0xE7A1), seeds)
    run = jax.jit(jax.vmap(lambda p, k: play_both(game, p, k, episodes, stochastic)))
    check_memory(working_bytes(run, policies, keys), advice)
    return jax.tree.map(np.asarray, run(policies, keys))


def playing_bytes(game: Game, episodes: int, seeds: int, stochastic: bool) -> int:
    """About the memory it takes to play so many episodes of every seed side by side."""
    plays = episodes * seeds * (1 + stochastic)
    if isinstance(
        game.env, PythonEnvFactory
    ):  # one after the other: only returns and lengths are kept
        return 8 * plays * (game.players.n_agents + 1)
    return (
        4
        * plays
        * tree_bytes(jax.eval_shape(game.reset, jax.eval_shape(lambda: jax.random.key(0))))
    )


def summary(
    agents: tuple[str, ...], played: AllPlayed, bounds: Mapping[str, Bounds] | None = None
) -> dict[str, Any]:
    """Statistics over seeds of each metric.

    ``ci95_episodes``, of team returns, is the 95% interval of the mean over all episodes of these
    teams: how well these teams' return is known, not how much training runs differ (that is
    ``ci95``). Intervals of team returns stay within their ``bounds`` (``return_bounds``). What
    environments report is summarised over the seeds in whose episodes it was reported.
    """
    bounds = bounds or {}
    result = {}
    for prefix, games in played.items():
        per_seed = [played_metrics(prefix, agents, games, k) for k in range(len(games.returns))]
        for name in dict.fromkeys(name for own in per_seed for name in own):
            within = bounds.get(name.removeprefix(f"{prefix}/"))
            result[name] = summarise([own[name] for own in per_seed if name in own], within)
        team = np.asarray(games.returns, np.float64).sum(-1)
        half = 1.96 * np.sqrt(team.var(axis=1, ddof=min(1, team.shape[1] - 1)).mean() / team.size)
        for name, share in (("team_sum", 1), ("team_mean", len(agents))):
            around = [(team.mean() + sign * half) / share for sign in (0, -1, 1)]
            _, *ends = Interval(*around).within(bounds.get(f"return/{name}"))
            result[f"{prefix}/return/{name}"]["ci95_episodes"] = [float(x) for x in ends]
    return result


def return_bounds(game: Game) -> dict[str, Bounds]:
    """What the team's returns and episodes' lengths can be at least and at most, by metric.

    Metrics of which that is not known are left out.
    """
    known = bounds_by_metric(sum_bounds(game.env), game.players.n_agents)
    limit = game.players.time_limit
    return known | ({"length": (1.0, float(limit))} if limit else {})


def sum_bounds(env: Environment | PythonEnvFactory) -> Bounds | None:
    """What the sum of returns over agents can be at least and at most, where that is known."""
    found = env.return_bounds() if isinstance(env, Environment) else None
    if found is None:
        return None
    try:
        low, high = (float(x) for x in found)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"return_bounds() must be two finite numbers or None; got {found!r:.60}")
    return low, high


def interests_conflict(game: Game) -> bool:
    """Whether one agent's gain may be another's loss, so that no sum of returns says who is best.

    Assumed where the environment declares individual rewards, unless its payoff table shows that
    all agents prefer the same outcome, or it is a Python environment whose learner was given a
    common reward (``--reward``).
    """
    if game.players.n_agents == 1 or game.players.reward != "individual":
        return False
    if game.no_conflict is not None:
        return not game.no_conflict
    return not isinstance(game.env, PythonEnvFactory) or game.reward == "individual"


def team_return(spec: EnvSpec) -> str:
    """The metric by which the environment's returns are told: of the team, or per agent.

    It is the sum over agents where the environment's own reward is a sum, as in foraging, and the
    mean over agents elsewhere.
    """
    return "return/team_sum" if spec.reward == "sum" else "return/team_mean"


def headline(game: Game, stochastic: bool) -> str:
    """The metric that stands for a run: play as the policies act, so sampled if they sample."""
    return f"{'eval_sampled' if stochastic else 'eval'}/{team_return(game.players)}"
