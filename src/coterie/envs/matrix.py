"""Matrix games: any payoff table, any number of agents, once or repeated.

Named games are those of the lecture (section "The Equilibrium Selection Problem" and "Value
Decomposition in Matrix Games"; tables in the book, chapters 3, 4 and 9) and the classics. A
user's own table is ``matrix/path/to/table.json`` (``.npy``, ``.npz``); docs/environments-matrix.md
states the format.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coterie.envs import _pictures
from coterie.envs.base import Environment
from coterie.files import parse_json, read_bytes
from coterie.settings import Agents, TimeLimit
from coterie.show.scene import Scene
from coterie.types import EnvSpec, PRNGKey, TimeStep, UsageError

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

_FILES = (".json", ".npy", ".npz")
_MAX_AXES = 32
_MAX_BYTES = 2**28
"""Of a payoff file, and of all that is packed in it."""


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
        payoffs: float64 [A_1, ..., A_n, n], what each agent is paid for each joint action.
        common: every agent is always paid the same.
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
        """Takes payoffs [A_1, ..., A_n, n], or [A_1, ..., A_n] where all are paid the same.

        A shape that can be read both ways, such as [2, 2, 2], is settled by ``agents``.
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
        self.action_labels = _labels(actions, counts)
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

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        return self.action_labels

    def scene(self, state: MatrixState, actions: Sequence[int] | None = None) -> Scene:
        """The payoff table with the cell that was chosen last."""
        del actions
        ends = np.cumsum(self._spec.action_counts)[:-1]
        one_hot = np.split(np.asarray(state.previous), ends)
        chosen = [int(own.argmax()) for own in one_hot] if int(state.played) else None
        return _pictures.payoffs(self.agents, self.action_labels, self.payoffs, chosen, self.common)

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
    if variant.lower().endswith(_FILES):
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
    near = difflib.get_close_matches(variant, EXAMPLES, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(EXAMPLES)}"
    return f"matrix has no game {variant!r}; {hint} (a payoff file ends in .json, .npy or .npz)"


# ---------------------------------------------------------------------------------------------
# Payoff tables from users
# ---------------------------------------------------------------------------------------------


def payoff_table(payoffs: Any, players: int | None = None) -> np.ndarray:
    """Any payoff table as float64 [A_1, ..., A_n, n].

    Args:
        payoffs: numbers, nested or an array: [A_1, ..., A_n, n], or [A_1, ..., A_n] where every
            agent is paid the same.
        players: n, needed only where the shape can be read both ways.

    Raises:
        UsageError: ragged, not numeric, not finite, empty, or of an unclear or unfitting shape.
    """
    nested = isinstance(payoffs, (list, tuple))
    if nested:
        _rectangular(payoffs)
    table = np.asarray(payoffs, dtype=np.float64 if nested else None)
    if table.dtype.kind not in "iuf":
        raise UsageError(f"payoffs must be numbers; got an array of {table.dtype}")
    if table.ndim == 0 or table.size == 0:
        raise UsageError(f"every agent needs at least one action; got shape {table.shape}")
    table = table.astype(np.float64)
    if not (np.abs(table) <= np.finfo(np.float32).max).all():
        raise UsageError("payoffs must be finite numbers within single precision")
    if _players(table.shape, players) == table.ndim:
        return np.repeat(table[..., None], table.ndim, axis=-1)
    return table


def _players(shape: tuple[int, ...], players: int | None) -> int:
    """n, from the shape of a table and, where it is said, the number of players."""
    axes = len(shape)
    readings = [axes - 1] if axes > 1 and shape[-1] == axes - 1 else []
    readings += [axes]
    if players is None and len(readings) > 1:
        raise UsageError(
            f"payoffs of shape {shape} may be the own payoffs of {axes - 1} players or the common "
            f'payoff of {axes}: name the agents ("players" in a file, --env.players)'
        )
    n = readings[0] if players is None else players
    if n not in readings:
        raise UsageError(
            f"payoffs of shape {shape} do not fit {n} players: the shape must be "
            f"[A_1, ..., A_{n}, {n}], or [A_1, ..., A_{n}] for a common payoff"
        )
    return n


def _rectangular(nested: Any, where: str = "payoffs", depth: int = 0) -> tuple[int, ...]:
    """The shape of nested lists of numbers; says where they are not rectangular."""
    if hasattr(nested, "__array__") and np.asarray(nested).dtype.kind in "iuf":
        return np.shape(nested)
    if not isinstance(nested, (list, tuple)):
        number = isinstance(nested, (int, float)) and not isinstance(nested, bool)
        if not number or not _fits_float(nested):
            raise UsageError(f"{where} must be a finite number; got {_short(nested)}")
        return ()
    if depth == _MAX_AXES:
        raise UsageError(f"payoffs are nested more than {_MAX_AXES} lists deep")
    shapes = [_rectangular(x, f"{where}[{k}]", depth + 1) for k, x in enumerate(nested)]
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise UsageError(
                f"payoffs are ragged: {where}[{k}] has shape {list(shape)}, "
                f"{where}[0] has {list(shapes[0])}"
            )
    return (len(nested), *(shapes[0] if shapes else ()))


def _fits_float(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."


def _labels(actions: Sequence[Any] | None, counts: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """Labels per agent, from one list for all, one list each, or A, B, C, ..."""
    if actions is None:
        return tuple(tuple(_letters(k) for k in range(count)) for count in counts)
    shared = all(isinstance(a, str) for a in actions)
    lists = [actions] * len(counts) if shared else actions
    texts = all(
        isinstance(own, (list, tuple)) and all(isinstance(a, str) and a for a in own)
        for own in lists
    )
    if not texts or len(lists) != len(counts):
        raise UsageError(
            "actions must be a list of names for all players, or one such list for each of the "
            f"{len(counts)} players; got {_short(actions)}"
        )
    for i, (own, count) in enumerate(zip(lists, counts, strict=True)):
        if len(own) != count or len(set(own)) != count:
            raise UsageError(
                f"player {i + 1} has {count} actions, so needs as many distinct names; "
                f"got {_short(list(own))}"
            )
    return tuple(tuple(own) for own in lists)


def _letters(k: int) -> str:
    """A, ..., Z, AA, AB, ... as a spreadsheet names its columns."""
    return (_letters(k // 26 - 1) if k >= 26 else "") + chr(ord("A") + k % 26)


def _from_file(path: Path, options: Options) -> MatrixGame:
    if not os.path.lexists(path):
        raise UsageError(f"there is no payoff file {path}")
    text = read_bytes(path, _MAX_BYTES)
    try:
        content = _read_json(text) if path.suffix.lower() == ".json" else _read_numpy(text)
        agents, players = _agents(content.get("players"), options.players)
        table = payoff_table(content["payoffs"], players)
        names = agents or tuple(f"agent_{i}" for i in range(table.shape[-1]))
        return MatrixGame(table, options.rounds, names, content.get("actions"), path.stem)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _agents(players: Any, asked: int | None) -> tuple[tuple[str, ...] | None, int | None]:
    """Names (if the file gives them) and number (if file or option give it) of the players."""
    names = None
    count = asked
    if isinstance(players, list) and all(isinstance(p, str) and p for p in players) and players:
        names, count = tuple(players), len(players)
    elif isinstance(players, int) and not isinstance(players, bool) and players > 0:
        count = players
    elif players is not None:
        raise UsageError(f'"players" must be a list of names or a number; got {_short(players)}')
    if asked is not None and asked != count:
        raise UsageError(f"it has {count} players, but --env.players says {asked}")
    return names, count


def _read_json(text: bytes) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UsageError(f"it cannot be read as JSON ({_first_line(error)})") from None
    if not isinstance(content, dict) or "payoffs" not in content:
        raise UsageError('a payoff file holds an object with "payoffs", a nested list of numbers')
    return _known_keys(content)


def _read_numpy(text: bytes) -> dict[str, Any]:
    """The array of a .npy file; of a .npz file, ``payoffs`` (or its only array), ``players``..."""
    if (size := _unpacked(text)) > _MAX_BYTES:
        raise UsageError(f"it holds {size:,} bytes, more than {_MAX_BYTES:,}")
    try:
        loaded = np.load(io.BytesIO(text), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"payoffs": loaded}
        content = {key: loaded[key] for key in loaded.files}
    except Exception as error:  # a damaged file raises what zipfile, zlib or tokenize please
        raise UsageError(f"it cannot be read as a NumPy file ({_first_line(error)})") from None
    if len(content) == 1:
        return {"payoffs": next(iter(content.values()))}
    if "payoffs" not in content:
        raise UsageError(f"it needs an array named payoffs; it has {', '.join(content) or 'none'}")
    rest = {k: v.tolist() for k, v in content.items() if k != "payoffs"}
    return _known_keys({"payoffs": content["payoffs"], **rest})


def _unpacked(text: bytes) -> int:
    """Bytes of all that an archive holds; 0 if it is none."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(text)) as archive:
        return sum(member.file_size for member in archive.infolist())
    return 0


def _known_keys(content: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(content.keys() - {"payoffs", "players", "actions"})
    if unknown:
        raise UsageError(f'unknown entry "{unknown[0]}"; known are payoffs, players and actions')
    if not isinstance(content.get("actions", []), list):
        raise UsageError(f'"actions" must be a list; got {_short(content["actions"])}')
    return content


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
