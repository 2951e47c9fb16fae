"""Level-based foraging (LBF), equal step for step to ``lbforaging`` 2.0.0.

Players of some level walk on a grid and load food of some level; food goes when the players that
load it together are strong enough. The game is played on short lists of entities, never on a
grid. Rules, quirks and names: ``docs/environments-lbf.md``.

An entity is (row, column, level); foods stand first, row-major, missing ones (-1, -1, 0) last.
In shapes, E = F + N entities (F foods, N players) and *b is any further axes, a batch included.

Source: Albrecht and Ramamoorthy, AAMAS 2013; Papoudakis et al., NeurIPS 2021.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from coterie.envs import pictures
from coterie.envs.base import Environment
from coterie.envs.grid import MISSING, compact, distinct, row_major
from coterie.envs.layout import UNROLLED, batch_last
from coterie.envs.scene import Scene
from coterie.errors import UsageError
from coterie.settings import TimeLimit
from coterie.spec import EnvSpec
from coterie.text import clipped
from coterie.types import Array, Bool, Float, Int, PRNGKey, TimeStep, UInt

FAMILY = "lbf"
LARGEST = 1_000
"""The most rows, columns, foods and cells of sight."""
EXAMPLES = (
    "8x8-2p-3f",
    "8x8-2p-2f-coop",
    "8x8-2p-2f-coop-2s",
    "10x10-3p-3f",
    "15x15-4p-5f",
)

Levels = Literal["v3", "v2"]

NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
ACTIONS = ("none", "north", "south", "west", "east", "load")
PENALTY = 0.1


@dataclass(frozen=True)
class Options:
    """Settings of the family.

    Attributes:
        levels: food levels are uniform on 1..S (v3) or on 1..S-1 (v2, the book's figure), where S
            is the sum of the three lowest player levels.
        time_limit: steps after which an episode is truncated.
    """

    levels: Levels = "v3"
    time_limit: TimeLimit = 50


class State(eqx.Module):
    """The whole game.

    Attributes:
        entities: (row, column, level) of each food, then of each player.
        spawned: the sum of all food levels at the start.
    """

    entities: Float[Array, "E 3"]
    spawned: Float[Array, ""]


@dataclass(frozen=True)
class Foraging(Environment):
    """Level-based foraging.

    Attributes:
        rows, cols: size of the grid.
        players: number of agents n.
        food: number of foods at the start (fewer where no more fit).
        coop: every food needs the three weakest players (or all, if fewer) together.
        sight: how far a player sees; ``None`` for the whole grid.
        penalty: subtracted from the reward of each loader when a load fails.
        levels: the rule of food levels (see ``Options``).
        time_limit: steps in an episode at most.
    """

    rows: int
    cols: int
    players: int
    food: int
    coop: bool = False
    sight: int | None = None
    penalty: float = 0.0
    levels: str = "v3"
    time_limit: int = 50

    def __post_init__(self) -> None:
        cells = self.rows * self.cols
        for word in ("rows", "cols", "food", "sight"):
            if (getattr(self, word) or 0) > LARGEST:
                raise UsageError(f"{word} must be at most {LARGEST:,}")
        if min(self.rows, self.cols) < 3:
            raise UsageError(
                f"a {self.rows}x{self.cols} grid has no room for food, which never lies on the "
                "border; use at least 3x3"
            )
        if not 1 <= self.players <= cells:
            raise UsageError(f"{self.players} players: need between 1 and {cells}, one a cell")
        if self.food < 1:
            raise UsageError("0 foods: need at least 1")
        if self.sight is not None and self.sight < 1:
            raise UsageError("a sight of 0 cells: need at least 1")
        if self.levels not in get_args(Levels):
            raise UsageError(f"levels must be v3 or v2; got {self.levels!r}")
        if self.time_limit < 1:
            raise UsageError(f"time_limit must be at least 1 step; got {self.time_limit}")
        names = tuple(f"agent_{i}" for i in range(self.players))
        object.__setattr__(self, "agents", names)

    def spec(self) -> EnvSpec:
        size = 3 * (self.food + self.players)
        return EnvSpec(
            agents=self.agents,
            observation_sizes=(size,) * self.players,
            action_counts=(6,) * self.players,
            central_size=size,
            time_limit=self.time_limit,
            reward="sum",
        )

    def reset(self, key: PRNGKey) -> tuple[State, TimeStep]:
        interior = (self.rows - 2) * (self.cols - 2)
        sizes = np.cumsum([self.players, self.players, self.food])
        cells, levels, amounts, priorities = jnp.split(
            jax.random.bits(key, (sizes[-1] + interior,)), sizes
        )
        players = self._spawn_players(cells, levels)
        foods = self._spawn_foods(amounts, priorities, players)
        state = State(jnp.concatenate([foods, players]), jnp.sum(foods[:, 2]))
        rewards, terminated = jnp.zeros(self.players), jnp.zeros((), bool)
        observations = batch_last(self._observe)(state.entities)
        return state, self._time_step(state, observations, rewards, terminated)

    def step(self, key: PRNGKey, state: State, actions: Int[Array, " N"]) -> tuple[State, TimeStep]:
        entities, observations, rewards, terminated = batch_last(self._advance)(
            state.entities, state.spawned, actions
        )
        state = State(entities, state.spawned)
        return state, self._time_step(state, observations, rewards, terminated)

    def return_bounds(self) -> tuple[float, float]:
        """From every load of every step failing to everything collected."""
        return 0.0 - self.penalty * self.players * self.time_limit, 1.0

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        return (ACTIONS,) * self.players

    def scene(self, state: State, actions: Sequence[int] | None = None) -> Scene:
        """The grid; agents that tried to load are ringed."""
        entities = np.asarray(state.entities)
        loading = [i for i, action in enumerate(actions or ()) if action == LOAD]
        foods, players = entities[: self.food], entities[self.food :]
        return pictures.grid(self.rows, self.cols, foods, players, loading)

    def _time_step(
        self,
        state: State,
        observations: Float[Array, "N O"],
        rewards: Float[Array, " N"],
        terminated: Bool[Array, ""],
    ) -> TimeStep:
        return TimeStep(
            observations=observations,
            rewards=rewards,
            terminated=terminated,
            truncated=jnp.zeros((), bool),
            central=state.entities.reshape(-1),
        )

    def _advance(
        self,
        entities: Float[Array, "E 3 *b"],
        spawned: Float[Array, "*b"],
        actions: Int[Array, " N *b"],
    ) -> tuple[
        Float[Array, "E 3 *b"], Float[Array, "N O *b"], Float[Array, " N *b"], Bool[Array, "*b"]
    ]:
        """One step: entities, observations, rewards, whether all food is gone."""
        foods, players = entities[: self.food], entities[self.food :]
        rewards, eaten = self._load(foods, players, spawned, actions)
        players = self._move(foods, players, actions)
        left = (foods[:, 2] > 0) & ~eaten
        entities = jnp.concatenate([compact(foods, left), players])
        return entities, self._observe(entities), rewards, ~jnp.any(left, 0)

    def _cells(self, entities: Float[Array, "M 3 *b"]) -> Float[Array, " M *b"]:
        """A number for each position; neighbours, and only they, differ by 1 or ``cols + 1``."""
        return entities[:, 0] * (self.cols + 1) + entities[:, 1]

    def _load(
        self,
        foods: Float[Array, "F 3 *b"],
        players: Float[Array, "N 3 *b"],
        spawned: Float[Array, "*b"],
        actions: Int[Array, " N *b"],
    ) -> tuple[Float[Array, " N *b"], Bool[Array, " F *b"]]:
        """Rewards, and the foods that were loaded.

        r_i = level_i · food / (Σ_j level_j · spawned) over the loaders j of the food. Foods are
        spawned so far apart that no cell touches two of them.
        """
        distance = jnp.abs(self._cells(players)[:, None] - self._cells(foods))
        loading = ((distance == 1) | (distance == self.cols + 1)) & (actions == LOAD)[:, None]
        level = players[:, 2]
        power = jnp.sum(jnp.where(loading, level[:, None], 0.0), 0)
        eaten = (power > 0) & (power >= foods[:, 2])
        share = jnp.where(eaten, foods[:, 2] / jnp.maximum(power * spawned, 1.0), 0.0)
        rewards = jnp.sum(jnp.where(loading, share * level[:, None], 0.0), 1)
        if self.penalty:
            rewards -= self.penalty * jnp.sum(loading & ~eaten, 1)
        return rewards, eaten

    def _move(
        self,
        foods: Float[Array, "F 3 *b"],
        players: Float[Array, "N 3 *b"],
        actions: Int[Array, " N *b"],
    ) -> Float[Array, "N 3 *b"]:
        """Everybody claims a cell, the own one unless walking; a sole claimant gets it.

        Walls and food forbid a walk, other players do not: two may swap places, and one may
        step onto a player whose own walk failed.
        """
        cells = self._cells(players)
        down = jnp.where(actions == SOUTH, 1.0, jnp.where(actions == NORTH, -1.0, 0.0))
        right = jnp.where(actions == EAST, 1.0, jnp.where(actions == WEST, -1.0, 0.0))
        row, col = players[:, 0] + down, players[:, 1] + right
        target = cells + down * (self.cols + 1) + right
        inside = (row >= 0) & (row < self.rows) & (col >= 0) & (col < self.cols)
        walks = inside & ~jnp.any(target[:, None] == self._cells(foods), 1)
        claim = jnp.where(walks, target, cells)
        walks &= jnp.sum(claim[:, None] == claim, 1) == 1
        return jnp.stack(
            [
                jnp.where(walks, row, players[:, 0]),
                jnp.where(walks, col, players[:, 1]),
                players[:, 2],
            ],
            1,
        )

    def _observe(self, entities: Float[Array, "E 3 *b"]) -> Float[Array, "N O *b"]:
        """What each player sees: foods row-major, itself, the others; unseen ones missing last."""
        foods, players = entities[: self.food], entities[self.food :]
        n = self.players

        def seen_by(count: int, player: Float[Array, "3 *b"]) -> Float[Array, "3 _ *b"]:
            return jnp.broadcast_to(player[:, None], (3, count, *player.shape[1:]))

        # In place k the first k players see number k, and the rest number k - 1.
        others = [
            jnp.concatenate([seen_by(k, players[k]), seen_by(n - k, players[k - 1])], 1)
            for k in range(1, n)
        ]
        ordered = jnp.stack([jnp.moveaxis(players, 0, 1), *others])
        around = jnp.broadcast_to(foods[:, :, None], (*foods.shape[:2], *ordered.shape[2:]))
        if self.sight is not None and self.sight < max(self.rows, self.cols) - 1:
            ordered, around = self._window(ordered, around)
        seen = jnp.moveaxis(jnp.concatenate([around, ordered]), 2, 0)
        return seen.reshape(self.players, -1, *seen.shape[3:])

    def _window(
        self, players: Float[Array, "N 3 N *b"], foods: Float[Array, "F 3 N *b"]
    ) -> tuple[Float[Array, "N 3 N *b"], Float[Array, "F 3 N *b"]]:
        """Positions within each looker's window, which the walls clip; looker on axis 2.

        As in the original, food is seen up to ``sight`` away, but a player up to coordinate
        ``2 * sight`` of the window, which at a wall is farther.
        """
        sight = self.sight or 0
        centre = players[0, :2]
        corner = jnp.maximum(centre - sight, 0.0)
        offset = jnp.concatenate([corner, jnp.zeros_like(corner[:1])])
        near = jnp.all(jnp.abs(foods[:, :2] - centre) <= sight, 1) & (foods[:, 2] > 0)
        players, foods = players - offset, foods - offset
        place = players[:, :2]
        within = jnp.all((place >= 0) & (place <= 2 * sight), 1)
        return compact(players, within), compact(foods, near)

    def _spawn_players(
        self, cells: UInt[Array, " N"], levels: UInt[Array, " N"]
    ) -> Float[Array, "N 3"]:
        """Distinct cells, uniform, and levels U{1, 2}, from random bits."""
        chosen = batch_last(lambda bits: distinct(bits, self.rows * self.cols))(cells)
        columns = [chosen // self.cols, chosen % self.cols, 1 + levels % 2]
        return jnp.stack(columns, 1).astype(jnp.float32)

    def _spawn_foods(
        self,
        amounts: UInt[Array, " F"],
        priorities: UInt[Array, " C"],
        players: Float[Array, "N 3"],
    ) -> Float[Array, "F 3"]:
        """Foods one after the other, each uniform over the C interior cells still allowed.

        The allowed cell of highest priority is a uniform draw, also after earlier ones: they
        only removed cells. The cell's number in the low bits makes priorities distinct.
        """
        row, col = (x.reshape(-1) for x in np.mgrid[1 : self.rows - 1, 1 : self.cols - 1])
        number = np.arange(1, row.size + 1, dtype=np.uint32)
        width = row.size.bit_length()
        priorities = (priorities >> width << width) | number
        taken = (row == players[:, :1]) & (col == players[:, 1:2])

        def spawn(allowed: Bool[Array, " C"], level: UInt[Array, ""]) -> tuple[Array, Array]:
            best = jnp.max(jnp.where(allowed, priorities, 0))
            cell = (best & (2**width - 1)).astype(jnp.int32) - 1
            r, c = 1 + cell // (self.cols - 2), 1 + cell % (self.cols - 2)
            found = jnp.stack([r, c, level]).astype(jnp.float32)
            food = jnp.where(best > 0, found, jnp.asarray(MISSING, jnp.float32))
            return allowed & ((row - r) ** 2 + (col - c) ** 2 > 4), food

        levels = self._food_levels(amounts, players[:, 2])
        _, foods = jax.lax.scan(spawn, ~jnp.any(taken, 0), levels, unroll=UNROLLED)
        return row_major(foods)

    def _food_levels(
        self, bits: UInt[Array, " F"], players: Float[Array, " N"]
    ) -> UInt[Array, " F"]:
        """S in a cooperative task, else uniform from 1 to S or (v2) S - 1, but at least 1."""
        weakest = min(self.players, 3)
        ones = jnp.minimum(jnp.sum(players == 1), weakest)
        highest = (2 * weakest - ones).astype(jnp.uint32)
        if self.coop:
            return jnp.broadcast_to(highest, bits.shape)
        if self.levels == "v2":
            highest = jnp.maximum(highest - 1, 1)
        return 1 + bits % highest


def make(variant: str, options: Options) -> Foraging:
    """The task ``<rows>x<cols>-<players>p-<food>f`` with ``-coop``, ``-<k>s``, ``-pen``.

    Raises:
        UsageError: not of that form, or impossible.
    """
    match = re.fullmatch(r"(\d+)x(\d+)-(\d+)p-(\d+)f((?:-\w+)*)", variant)
    if match is None:
        raise _bad(variant, "not the name of a task")
    *sizes, tail = match.groups()
    suffixes: dict[str, bool | int | float] = {}
    for suffix in tail.split("-")[1:]:
        setting = _suffix(suffix)
        if setting is None:
            raise _bad(variant, f"unknown suffix -{suffix}")
        if setting.keys() & suffixes.keys():
            raise _bad(variant, f"-{suffix} comes on top of the same setting")
        suffixes |= setting
    try:
        # More digits than these are all too many.
        rows, cols, players, food = (int(size[:20]) for size in sizes)
        env = Foraging(
            rows, cols, players, food, levels=options.levels, time_limit=options.time_limit
        )
        return replace(env, **suffixes)
    except UsageError as error:
        raise UsageError(f"lbf/{clipped(variant, 60)}: {error}") from None


def _suffix(text: str) -> dict[str, bool | int | float] | None:
    if text == "coop":
        return {"coop": True}
    if text == "pen":
        return {"penalty": PENALTY}
    if re.fullmatch(r"\d+s", text):
        return {"sight": int(text[:-1][:20])}
    return None


def _bad(variant: str, problem: str) -> UsageError:
    return UsageError(
        f"lbf/{clipped(variant, 60)}: {problem}; write lbf/<rows>x<cols>-<players>p-<food>f and "
        "then at most once each -coop, -<sight>s, -pen, such as lbf/8x8-2p-2f-coop-2s"
    )
