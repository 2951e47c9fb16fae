"""Random legal play before training: how agents are rewarded, how long episodes take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from coterie.errors import EnvironmentFault
from coterie.python_envs.adapters.random_actions import random_actions
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import NO_SEED, RESET, STEP, Limits
from coterie.spec import PythonEnvFactory

PROBE_EPISODES, PROBE_STEPS = 5, 1_000
"""Random play before training: at most so much."""


def is_common(factory: PythonEnvFactory, python_env: PythonEnvSettings) -> bool:
    """Whether random play got rewards, and all agents always got the same.

    Where faults are allowed the first one ends the play.

    Raises:
        EnvironmentFault: there was one, and none is allowed.
    """
    paid = False
    try:
        for rewards, _ in _random_play(factory, python_env, PROBE_EPISODES):
            # The dead count too: a mean over all is not what the living got.
            if np.ptp(rewards) > 0:
                return False
            paid |= bool(rewards.any())
    except EnvironmentFault:
        if not python_env.restarts:
            raise
    return paid


def episode_length(factory: PythonEnvFactory, python_env: PythonEnvSettings) -> int:
    """Steps of an episode: its time limit, or as long as random play lasted once.

    A fault ends the play; training will meet it again.
    """
    if factory.promise.time_limit is not None:
        return factory.promise.time_limit
    steps = 0
    with contextlib.suppress(EnvironmentFault):
        for _ in _random_play(factory, python_env, 1):
            steps += 1
    return max(steps, 1)


def _random_play(
    factory: PythonEnvFactory, python_env: PythonEnvSettings, episodes: int
) -> Iterator[tuple[Float32[np.ndarray, " N"], bool]]:
    """Rewards of each step of legal random play, and whether it ended an episode.

    In a process of its own where training has such: what ends the process does not end ours.
    """
    rng, steps = np.random.default_rng(0), 0
    limits = Limits(python_env.step_timeout)
    with contextlib.closing(
        make_vector_env(factory, [[0]], limits, min(1, python_env.processes()))
    ) as vector_env:
        rows = vector_env.rows

        def move(command: int) -> None:
            rows.command[0] = command
            vector_env.start(0)
            for _, step, agent, what, original, _ in vector_env.wait(0):
                raise EnvironmentFault(what, factory.name, agent, step, episode, original)

        for episode in range(episodes):
            rows.seed[0] = episode
            move(RESET)
            rows.seed[0] = NO_SEED
            masks, over = rows.start.action_mask[0], False
            while steps < PROBE_STEPS and not over:
                rows.actions[0] = random_actions(factory.spec(), masks, rng)
                move(STEP)
                steps += 1
                masks, over = (
                    rows.next_observation.action_mask[0],
                    bool(rows.terminated[0] | rows.truncated[0]),
                )
                yield rows.rewards[0].copy(), over
