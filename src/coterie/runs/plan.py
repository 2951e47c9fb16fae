"""A training that was asked for: checked, everything in it resolved, before anything is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.presets import Chosen
from coterie.python_envs.opening import digest
from coterie.python_envs.probe import episode_length, is_common
from coterie.python_envs.settings import PythonEnvSettings, resolve_settings
from coterie.runs.config import as_json, configured_algorithm
from coterie.runs.environments import Opened, make_game, open_environment, sizes
from coterie.runs.evaluation import headline, playing_bytes, sum_bounds
from coterie.runs.run import FINAL_EPISODES
from coterie.runs.user_code import imported_network, own_class, own_networks
from coterie.settings import RUN, Seed, Seeds, StepCount, fitted
from coterie.spec import PythonEnvFactory, Reward
from coterie.storage.config_file import ABSENT_ONCE, check_seeds, versions
from coterie.storage.formats import FORMAT
from coterie.training.memory import check_memory
from coterie.views.game import Game

EVALUATIONS = 20
"""Per run, unless told otherwise."""
EPISODES = 32
"""At each evaluation point."""
FEW_POINTS, FEW_EPISODES, FEW_FINAL = 5, 8, 16
"""As few as that where evaluating a Python environment would take longer than training in it."""


@dataclass
class Plan:
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


def make_plan(
    chosen: Chosen,
    environment: Opened,
    steps: int | float,
    seeds: int,
    seed: int,
    reward: Reward | None,
    central: str | None,
    options: dict[str, Any] | None,
    python_env: PythonEnvSettings | None,
    asked: dict[str, int | None],
    recorded: dict[str, Any] | None,
) -> Plan:
    """What ``train`` was asked for, checked and resolved.

    Args:
        asked: how often and how long policies are evaluated, as far as it was said.
        recorded: the configuration of the run to go on with, if there is one.
    """
    steps = int(fitted("steps", steps, StepCount))
    seeds, seed = fitted("seeds", seeds, Seeds), fitted("seed", seed, Seed)
    check_seeds(seed, seeds)
    asked = {name: fitted(name, value, RUN[name] | None) for name, value in asked.items()}
    reward, central = chosen.of_the_run(reward, central)
    options = as_json(options or {})
    state = chosen.kind.central and central != "joint"
    env, name = open_environment(
        environment, options, python_env, state, not chosen.kind.action_vectors
    )
    resolved, remarks = resolve_settings(python_env, env, name)
    unresolved = _with_networks(chosen.made(name, steps, limit := env.spec().time_limit))
    algorithm = unresolved.resolve(steps, limit)
    if recorded and resolved:  # what random play said of how many are worth while, said once
        known = ABSENT_ONCE | recorded
        asked = {name: known[name] if value is None else value for name, value in asked.items()}
    undecided = reward is None and algorithm.common_reward
    if undecided and env.spec().n_agents == 1:
        reward = "mean"  # the only one's
    elif undecided and resolved and isinstance(env, PythonEnvFactory) and is_common(env, resolved):
        reward = "mean"
        remarks.append("in random play all agents always got the same reward: it is common")
    game = make_game(algorithm, env, name, reward, central)
    remarks += chosen.remarks() + algorithm.remarks(game) + algorithm.shortfalls(steps)
    remarks += _fewer_points(asked["evaluations"], algorithm.iterations(steps))
    evaluations, remark = _evaluations_of(asked, steps, algorithm, env, resolved)
    remarks += remark
    config = {
        "coterie": versions()["coterie"],
        "format": FORMAT,
        "command": None,
        "algorithm": algorithm.name,
        "settings": algorithm.settings(),
        **chosen.recorded(),
        "environment": name,
        "environment_options": options,
        "reward": game.reward,
        "central": game.central,
        "steps": steps,
        "seeds": seeds,
        "seed": seed,
        **evaluations,
        "metric": headline(game, algorithm.stochastic),
        "return_bounds": list(bounds) if (bounds := sum_bounds(env)) else None,
        "sizes": sizes(game.players),
        "versions": versions(),
    }
    if resolved:
        config |= {"hosting": dataclasses.asdict(resolved), "spec_digest": digest(game.players)}
    settings = unresolved.settings()
    depends = {name for name, value in algorithm.settings().items() if settings[name] != value}
    return Plan(algorithm, game, config, remarks, depends | chosen.depends())


def _with_networks(algorithm: Algorithm) -> Algorithm:
    """The algorithm of a caller who named its networks, with these imported."""
    own = {word: imported_network(network) for word, network in own_networks(algorithm).items()}
    return dataclasses.replace(algorithm, **own) if own else algorithm


def _evaluations_of(
    asked: dict[str, int | None], steps: int, algorithm: Algorithm, env: Any, python_env: Any
) -> tuple[dict[str, int], list[str]]:
    """How often and how long policies are evaluated, and a sentence if that is less than usual."""
    usual = dict(zip(asked, (EVALUATIONS, EPISODES, FINAL_EPISODES), strict=True))
    evaluations = {name: usual[name] if value is None else value for name, value in asked.items()}
    if python_env is None or None not in asked.values():
        return evaluations, []
    length = episode_length(env, python_env)
    # Half of them for the end, the other half for the start and the points along the way.
    affordable = steps // (2 * length * (1 + algorithm.stochastic))
    each = int(np.clip(affordable // (FEW_POINTS + 1), FEW_EPISODES, EPISODES))
    fewer = {
        "evaluations": int(np.clip(affordable // each - 1, 1, EVALUATIONS)),
        "evaluation_episodes": each,
        "final_episodes": int(np.clip(affordable, FEW_FINAL, FINAL_EPISODES)),
    }
    fewer = {name: fewer[name] if value is None else value for name, value in asked.items()}
    if fewer == evaluations:
        return evaluations, []
    return fewer, [
        f"an episode takes about {length:,} steps, so evaluations play fewer of them: "
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


EPISODE_BYTES, RECORD_LIMIT = 48, 90_000_000
"""Of a played episode in evaluations.json and in a checkpoint's header, which must stay small."""


def check_episodes(game: Game, config: dict[str, Any], stochastic: bool) -> None:
    """UsageError if so many episodes cannot be played at once, or not be recorded."""
    seeds, episodes = config["seeds"], config["evaluation_episodes"]
    for name in ("evaluation_episodes", "final_episodes"):
        needed = playing_bytes(game, config[name], seeds, stochastic)
        check_memory(needed, f"lower --{name.replace('_', '-')}")
    played = seeds * (episodes * (config["evaluations"] + 1) + config["final_episodes"])
    if played * EPISODE_BYTES > RECORD_LIMIT:
        raise UsageError(
            f"{played:,} episodes would be recorded, and at most {RECORD_LIMIT // EPISODE_BYTES:,} "
            "can be: lower --evaluations, --evaluation-episodes, --final-episodes or --seeds"
        )


def check_restorable(config: dict[str, Any], algorithm: Algorithm) -> None:
    """UsageError unless the algorithm can be made again from the configuration."""
    if configured_algorithm(config, code=own_class(algorithm)) != algorithm:
        raise UsageError(f"settings of {algorithm.name} do not come back from a file as they are")
