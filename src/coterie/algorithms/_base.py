"""What every learning algorithm is to the training loop."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coterie.envs.views import Game
from coterie.networks import PerAgent
from coterie.types import PRNGKey, PyTree, Transition

Mode = Literal[
    "decentralised training and execution",
    "centralised training, decentralised execution",
    "centralised training and execution",
]


@dataclass(frozen=True)
class Algorithm(abc.ABC):
    """An algorithm is its hyperparameters and a handful of pure functions on a learner PyTree.

    It never logs, checkpoints or knows where the environment runs: the loop hands it transitions.
    """

    mode: ClassVar[Mode]
    common_reward: ClassVar[bool]
    """The algorithm is defined for common-reward games only."""
    central: ClassVar[bool] = False
    """Training uses centralised information z."""
    metrics: ClassVar[tuple[str, ...]] = ("loss", "updates")
    """What ``learn`` reports, as sums over the updates it made."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def settings(self) -> dict[str, Any]:
        """The hyperparameters, JSON-able."""
        return dataclasses.asdict(self)

    def resolve(self, steps: int) -> Algorithm:
        """Fixes what depends on the run's length, in absolute steps, when the run starts."""
        del steps
        return self

    @abc.abstractmethod
    def rollout_shape(self) -> tuple[int, int]:
        """(T, K): steps of each of K parallel environments between two calls of ``learn``."""

    @abc.abstractmethod
    def clock(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        """Everything that depends on time only, for each of these iterations (int64 [I]).

        Computed on the host, where integers do not overflow, and the same for all seeds.
        """

    @abc.abstractmethod
    def updates(self, iterations: int) -> int:
        """Gradient updates made in the first so many iterations."""

    @abc.abstractmethod
    def init(self, key: PRNGKey, game: Game) -> PyTree:
        """The learner: parameters, targets, optimiser, replay, normalisers."""

    @abc.abstractmethod
    def policy(self, learner: PyTree) -> PerAgent:
        """What is executed: maps each agent's own history to action scores."""

    @abc.abstractmethod
    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        """All randomness of acting for a rollout, drawn at once; leaves lead with shape [T, B]."""

    @abc.abstractmethod
    def act(
        self,
        scores: Float[Array, "B N A"],
        mask: Bool[Array, "B N A"],
        noise: PyTree,
        clock: dict[str, Array],
    ) -> Int[Array, "B N"]:
        """Actions while training, exploration included."""

    @abc.abstractmethod
    def learn(
        self,
        game: Game,
        learner: PyTree,
        rollout: Transition,
        key: PRNGKey,
        clock: dict[str, Array],
    ) -> tuple[PyTree, dict[str, Array]]:
        """Learns from one rollout [T, B]; returns the learner and the sums named by ``metrics``."""
