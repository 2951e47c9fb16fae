"""A rollout in Python environments as the host keeps it, and as a learner sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from coterie.spec import EnvSpec
from coterie.training.evaluate import NO_LIMIT_STEPS
from coterie.types import PyTree, Transition
from coterie.views.game import Game


class HostedVector(eqx.Module):
    """What it takes to bring hosted environments to where they are: replay the running episodes.

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


def empty_vector(spec: EnvSpec, rows: int) -> HostedVector:
    """Environments before their first episode."""
    dtype = np.int16 if spec.action_count <= 2**15 else np.int32
    return HostedVector(
        episode=np.full(rows, -1, np.int64),
        lengths=np.zeros(rows, np.int64),
        returns=np.zeros((rows, spec.n_agents), np.float32),
        history=np.zeros((rows, spec.time_limit or NO_LIMIT_STEPS, spec.n_agents), dtype),
        digest=np.zeros(rows, np.uint32),
    )


class Record(NamedTuple):
    """A rollout as the host keeps it, [T, B, S, ...]; ``Transition`` says what each means.

    ``seen`` and ``led`` are ``Sights`` of the environment's own agents, R where central learning
    has one.
    """

    seen: Any
    start: Any
    memory: Any
    actions: Any
    behaviour: PyTree
    rewards: Any
    terminated: Any
    truncated: Any
    truncated_alone: Any
    valid: Any
    led: Any


def transitions(game: Game, record: Record) -> Transition:
    """One seed's record [T, B, ...] as a learner sees it; compiled."""
    seen, led, alone = game.see(*record.seen), game.see(*record.led), None
    if game.truncates_alone:
        alone = record.truncated_alone
        led = game.final(*record.led, truncated_alone=alone)
    return Transition(
        observations=seen.observations,
        action_mask=seen.action_mask,
        alive=seen.alive,
        central=seen.central,
        memory=record.memory,
        start=record.start,
        actions=record.actions,
        behaviour=record.behaviour,
        rewards=record.rewards,
        terminated=record.terminated,
        truncated=record.truncated,
        next_observations=led.observations,
        next_action_mask=led.action_mask,
        next_alive=led.alive,
        next_central=led.central,
        truncated_alone=alone,
        valid=record.valid,
    )
