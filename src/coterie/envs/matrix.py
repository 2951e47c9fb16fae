"""Matrix games: any payoff table, any number of agents, once or repeated.

Named games are those of the lecture (section "The Equilibrium Selection Problem" and "Value
Decomposition in Matrix Games"; tables in the book, chapters 3, 4 and 9) and the classics. A
user's own table is ``matrix/path/to/table.json`` (``.npy``, ``.npz``); docs/environments-matrix.md
states the format.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coterie.envs import pictures
from coterie.envs.base import Environment
from coterie.envs.payoffs import (
    FILES,
    MOST_BYTES,
    labelled,
    named_players,
    payoff_table,
    read_json,
    read_numpy,
)
from coterie.envs.scene import Scene
from coterie.errors import UsageError
from coterie.settings import Agents, TimeLimit
from coterie.spec import EnvSpec
from coterie.storage.files import read_bytes
from coterie.text import did_you_mean
from coterie.types import PRNGKey, TimeStep

FAMILY = "matrix"

EXAMPLES = (
    "stag-hunt",
    "climbing",
    "linear",
    "monotonic",
    "penalty-50",
    "prisoners-dilemma",
    "matching-pennies",
    "rock-paper-scissors",
    "battle-of-the-sexes",
    "chicken",
)


@dataclass(frozen=True)
class Options:
    """Settings of a matrix game.

    Attributes:
        rounds: how often the game is played in one episode; the last round is terminal.
        players: number of agents of a user's table whose shape could be read in two ways.
    """

    rounds: TimeLimit = 1
    players: Agents | None = None


class MatrixState(eqx.Module):
    """Rounds played so far, and the previous joint action (one-hot per agent, zeros at first)."""

    played: Int[Array, ""]
    previous: Float[Array, " H"]


class MatrixGame(Environment):
    """A game in strategic form, played ``rounds`` times in an episode.

    Single-shot: every agent observes the constant 1, and the episode terminates after the one
    joint action. Repeated: every agent observes the previous joint action, each agent's action
    one-hot in the order of the agents (zeros before the first round), and then the constant 1;
    the game truly ends at ``rounds``, so its last step is terminal, not truncated. The
    centralised information z is the same vector.

    Attributes:
        payoffs: float64 [A_1, ..., A_n, n], each agent's payoff for each joint action.
        common: all agents always get the same payoff.
        action_labels: for each agent, the names of its actions.
        name: what the game is called in tables.
    """

    def __init__(
        self,
        payoffs: Any,
        rounds: int = 1,
        agents: Sequence[str] | None = None,
        actions: Sequence[Any] | None = None,
        name: str = "matrix game",
    ) -> None:
        """Takes payoffs [A_1, ..., A_n, n], or [A_1, ..., A_n] where all get the same.

        A shape that can be read both ways, such as [2, 2, 2], is decided by ``agents``.
        ``actions`` are labels, one list for all agents or one per agent (default A, B, C, ...).
        """
        if not isinstance(rounds, int) or rounds < 1:
            raise UsageError(f"rounds must be a whole number of at least 1; got {rounds}")
        self.payoffs = payoff_table(payoffs, None if agents is None else len(agents))
        counts, n = self.payoffs.shape[:-1], self.payoffs.shape[-1]
        self.agents = tuple(agents or (f"agent_{i}" for i in range(n)))
        self.rounds = rounds
        self.name = name
        self.common = bool((self.payoffs == self.payoffs[..., :1]).all())
        self.action_labels = labelled(actions, counts)
        size = 1 if rounds == 1 else sum(counts) + 1
        self._spec = EnvSpec(
            agents=self.agents,
            observation_sizes=(size,) * n,
            action_counts=counts,
            central_size=size,
            time_limit=rounds,
            reward="mean" if self.common else "individual",
        )
        self._rows = self.payoffs.reshape(-1, n).astype(np.float32)
        self._strides = np.cumprod((1, *counts[:0:-1]))[::-1].astype(np.int32)

    def __repr__(self) -> str:
        counts = " x ".join(map(str, self.payoffs.shape[:-1]))
        return f"MatrixGame({self.name}, {counts} actions, rounds={self.rounds})"

    def spec(self) -> EnvSpec:
        return self._spec

    def reset(self, key: PRNGKey) -> tuple[MatrixState, TimeStep]:
        del key
        previous = jnp.zeros(sum(self._spec.action_counts))
        state = MatrixState(jnp.zeros((), jnp.int32), previous)
        return state, self._observe(state, jnp.zeros(self._spec.n_agents))

    def step(
        self, key: PRNGKey, state: MatrixState, actions: Int[Array, " N"]
    ) -> tuple[MatrixState, TimeStep]:
        """Pays row ``sum_i a_i stride_i`` of the flattened table."""
        del key
        rewards = jnp.asarray(self._rows)[jnp.dot(actions, self._strides)]
        counts = self._spec.action_counts
        one_hot = [jax.nn.one_hot(a, k) for a, k in zip(actions, counts, strict=True)]
        state = MatrixState(state.played + 1, jnp.concatenate(one_hot))
        return state, self._observe(state, rewards)

    def return_bounds(self) -> tuple[float, float]:
        team = self.rounds * self.payoffs.sum(axis=-1)
        return float(team.min()), float(team.max())

    def payoff_table(self) -> Float[np.ndarray, "*A n"]:
        return self.payoffs

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        return self.action_labels

    def scene(self, state: MatrixState, actions: Sequence[int] | None = None) -> Scene:
        """The payoff table with the cell that was chosen last."""
        del actions
        ends = np.cumsum(self._spec.action_counts)[:-1]
        one_hot = np.split(np.asarray(state.previous), ends)
        chosen = [int(own.argmax()) for own in one_hot] if int(state.played) else None
        return pictures.payoffs(self.agents, self.action_labels, self.payoffs, chosen, self.common)

    def _observe(self, state: MatrixState, rewards: Float[Array, " N"]) -> TimeStep:
        one = jnp.ones(1)
        seen = one if self.rounds == 1 else jnp.concatenate([state.previous, one])
        return TimeStep(
            observations=jnp.tile(seen, (self._spec.n_agents, 1)),
            rewards=rewards,
            terminated=state.played >= self.rounds,
            truncated=jnp.asarray(False),
            central=seen,
        )


# ---------------------------------------------------------------------------------------------
# Named games
# ---------------------------------------------------------------------------------------------


def _penalty(text: str) -> list[list[float]]:
    """[[K', 0, 10], [0, 2, 0], [10, 0, K']] with K' = -K (Claus and Boutilier 1998)."""
    number = re.fullmatch(r"-?\d+(\.\d*)?([eE][+-]?\d+)?", text)
    if number is None or not math.isfinite(float(text)):
        raise UsageError(f"penalty-{text} does not name a number K, as penalty-50 does")
    k = 0.0 - float(text)
    return [[k, 0.0, 10.0], [0.0, 2.0, 0.0], [10.0, 0.0, k]]


_GAMES: dict[str, tuple[Any, tuple[str, ...] | None]] = {
    "stag-hunt": ([[[4, 4], [0, 3]], [[3, 0], [2, 2]]], None),
    "climbing": ([[11, -30, 0], [-30, 7, 0], [0, 6, 5]], None),
    "linear": ([[1, 5], [5, 9]], None),
    "monotonic": ([[0, 0], [0, 10]], None),
    "prisoners-dilemma": (
        [[[-1, -1], [-5, 0]], [[0, -5], [-3, -3]]],
        ("Cooperate", "Defect"),
    ),
    "matching-pennies": ([[[1, -1], [-1, 1]], [[-1, 1], [1, -1]]], ("Heads", "Tails")),
    "rock-paper-scissors": (
        [
            [[0, 0], [-1, 1], [1, -1]],
            [[1, -1], [0, 0], [-1, 1]],
            [[-1, 1], [1, -1], [0, 0]],
        ],
        ("Rock", "Paper", "Scissors"),
    ),
    "battle-of-the-sexes": ([[[2, 1], [0, 0]], [[0, 0], [1, 2]]], ("Opera", "Football")),
    "chicken": ([[[0, 0], [7, 2]], [[2, 7], [6, 6]]], ("Dare", "Yield")),
}


def make(variant: str, options: Options) -> MatrixGame:
    """The game ``matrix/<variant>``: a name, ``penalty-<K>``, or the path of a payoff file."""
    if variant.lower().endswith(FILES):
        return _from_file(Path(variant).expanduser(), options)
    if variant.startswith("penalty-"):
        payoffs, actions = _penalty(variant.removeprefix("penalty-")), None
    elif variant in _GAMES:
        payoffs, actions = _GAMES[variant]
    else:
        raise UsageError(_unknown(variant))
    if options.players not in (None, 2):
        raise UsageError(f"matrix/{variant} has 2 players, not {options.players}")
    return MatrixGame(payoffs, options.rounds, ("agent_0", "agent_1"), actions, variant)


def _unknown(variant: str) -> str:
    hint = did_you_mean(variant, EXAMPLES, f"; it has {', '.join(EXAMPLES)}", cutoff=0.4)
    return f"matrix has no game {variant!r}{hint} (a payoff file ends in .json, .npy or .npz)"


# ---------------------------------------------------------------------------------------------
# Payoff tables from users
# ---------------------------------------------------------------------------------------------


def _from_file(path: Path, options: Options) -> MatrixGame:
    if not os.path.lexists(path):
        raise UsageError(f"there is no payoff file {path}")
    text = read_bytes(path, MOST_BYTES)
    try:
        content = read_json(text) if path.suffix.lower() == ".json" else read_numpy(text)
        agents, players = named_players(content.get("players"), options.players)
        table = payoff_table(content["payoffs"], players)
        names = agents or tuple(f"agent_{i}" for i in range(table.shape[-1]))
        return MatrixGame(table, options.rounds, names, content.get("actions"), path.stem)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
