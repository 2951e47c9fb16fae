"""A rollout in Python environments as the host keeps it, and as a learner sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from coterie.spec import EnvSpec, Observation
from coterie.training.evaluate import NO_LIMIT_STEPS
from coterie.types import PyTree, Transition, transition
from coterie.views.game import Game


class EpisodeHistory(eqx.Module):
    """What it takes to bring Python environments to where they are: replay the running episodes.

    Leaves are NumPy arrays with one row an environment, row b·S + s being number b of seed s.

    Attributes:
        episode: number of the running episode; with the run's seed and b it gives its own seed.
        lengths: steps of it so far; 0 where it is about to begin.
        returns: its rewards so far.
        history: its actions so far, as many as fit.
        digest: CRC-32 of all it has shown.
    """

    episode: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray
    history: np.ndarray
    digest: np.ndarray


def empty_vector(spec: EnvSpec, rows: int) -> EpisodeHistory:
    """Environments before their first episode."""
    dtype = np.int16 if spec.action_count <= 2**15 else np.int32
    dtype = spec.action_dtype if spec.actions else dtype
    return EpisodeHistory(
        episode=np.full(rows, -1, np.int64),
        lengths=np.zeros(rows, np.int64),
        returns=np.zeros((rows, spec.n_agents), np.float32),
        history=np.zeros((rows, spec.time_limit or NO_LIMIT_STEPS, *spec.action_shape), dtype),
        digest=np.zeros(rows, np.uint32),
    )


class Record(NamedTuple):
    """A rollout as the host keeps it, [T, B, S, ...]; ``Transition`` says what each means.

    ``observation`` and ``next_observation`` are those of the environment's own agents, R of them
    where central learning has one, before any preprocessing. ``hidden_state`` is the policy's
    beside the frames that were remembered before each step (None where there are none).
    """

    observation: Observation
    start: Any
    hidden_state: Any
    actions: Any
    extras: PyTree
    rewards: Any
    terminated: Any
    truncated: Any
    truncated_alone: Any
    valid: Any
    next_observation: Observation


def transitions(game: Game, record: Record) -> Transition:
    """One seed's record [T, B, ...] as a learner sees it; compiled."""
    facts = record._asdict()
    observation, next_observation = facts.pop("observation"), facts.pop("next_observation")
    facts["hidden_state"], frames = record.hidden_state
    seen, frames = _looked(game, observation, frames, record.start)
    next_observation, _ = _looked(game, next_observation, frames)
    if game.truncates_alone:
        after = game.final(*next_observation, truncated_alone=record.truncated_alone)
    else:
        after, facts["truncated_alone"] = game.see(*next_observation), None
    return transition(game.see(*seen), after, **facts)


def _looked(
    game: Game, shown: Observation, frames: Any, start: Any = None
) -> tuple[Observation, Any]:
    """What agents see of what was shown, as when it was acted on, and the frames to remember."""
    seen, frames = game.look(shown.observations, shown.alive, frames, start)
    return shown._replace(observations=seen), frames
