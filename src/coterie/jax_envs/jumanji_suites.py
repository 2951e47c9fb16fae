"""What each agent of Jumanji's multi-agent environments sees, and what their actions are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


@dataclass(frozen=True)
class Suite:
    """A multi-agent environment: how its observation becomes one of each agent, and z.

    A field of the observation that is named nowhere here is seen by all agents.

    Attributes:
        own: fields with a row for each agent, which this agent alone sees.
        turned: fields with a row for each agent, which all see, each its own row first.
        hidden: fields that no agent sees.
        view: what agents see in place of fields, (observation, N) -> {field: [N, ...]}.
        state: parts of z, of (environment, state); without it z is all that an agent sees.
        alive: [N], of the state, where agents can be done before the others.
        leave: whether agents end one by one; the discount then says which.
    """

    own: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    view: Callable[[Any, int], dict[str, Shaped[Array, "N ..."]]] | None = None
    state: Callable[[Any, Any], tuple[Any, ...]] | None = None
    alive: Callable[[Any], Bool[Array, " N"]] | None = None
    leave: bool = False


def _foraging(env: Any, state: Any) -> tuple[Any, ...]:
    agents, food = state.agents, state.food_items
    places = (agents.position / env.grid_size, food.position / env.grid_size)
    return *places, agents.level, food.level, food.eaten, state.step_count / env.time_limit


def _warehouse(env: Any, state: Any) -> tuple[Any, ...]:
    agents, shelves, size = state.agents, state.shelves, max(env.grid_size)
    places = [place / size for each in (agents, shelves) for place in each.position]
    turned = jax.nn.one_hot(agents.direction, 4)
    return (
        *places, turned, agents.is_carrying, shelves.is_requested,
        state.step_count / env.time_limit,
    )  # fmt: skip


def _rescue(env: Any, state: Any) -> tuple[Any, ...]:
    searchers, targets, size = state.searchers, state.targets, env.generator.env_size
    heading = (jnp.cos(searchers.heading), jnp.sin(searchers.heading))
    speed = searchers.speed / env.searcher_params.max_speed
    return (
        searchers.pos / size, *heading, speed, targets.pos / size, targets.vel / size,
        targets.found, state.step / env.time_limit,
    )  # fmt: skip


def _wires(env: Any, state: Any) -> tuple[Any, ...]:
    agents, taken = state.agents, (state.grid > 0) & (state.grid % 3 != 0)
    places = (agents.position / env.grid_size, agents.target / env.grid_size)
    return *places, taken, state.step_count / env.time_limit


def _connector(seen: Any, n: int) -> dict[str, Shaped[Array, "N ..."]]:
    """Paths, heads and targets in a channel each: the agent's own, then those of all others."""
    whose, what = jnp.divmod(seen.grid - 1, 3)
    own = whose == jnp.arange(n)[:, None, None]
    others = (seen.grid > 0) & ~own
    parts = what[..., None] == jnp.arange(3)
    return {"grid": jnp.concatenate([own[..., None] & parts, others[..., None] & parts], axis=-1)}


def _cleaner(seen: Any, n: int) -> dict[str, Shaped[Array, "N ..."]]:
    """Dirty and clean tiles, walls, the agent itself and the others in a channel each."""
    tiles = jax.nn.one_hot(seen.grid, 3)
    row, column = jnp.moveaxis(seen.agents_locations, -1, 0)
    here = jnp.zeros((n, *seen.grid.shape)).at[jnp.arange(n), row, column].set(1)
    others = jnp.sum(here, axis=0) - here
    tiles = jnp.broadcast_to(tiles, (n, *tiles.shape))
    return {
        "grid": jnp.concatenate([tiles, here[..., None], others[..., None]], axis=-1),
        "agents_locations": jnp.zeros((n, 0)),
    }


def _trees(seen: Any, n: int) -> dict[str, Shaped[Array, "N ..."]]:
    """Nodes as each agent labels them, its own 0 (connected) and 1, and where it and the others
    are."""
    label, own = seen.node_types, jnp.arange(n)[:, None]
    turned = jnp.where(label < 0, label, (label - 2 * own) % (2 * n))
    nodes = label.shape[-1]
    places = jax.nn.one_hot(seen.positions, nodes)
    return {
        "node_types": jax.nn.one_hot(turned + 1, 2 * n + 1),
        "positions": jnp.stack([places, jnp.sum(places, axis=0) - places], axis=1),
    }


SUITES = {
    "LevelBasedForaging": Suite(own=("agents_view",), state=_foraging),
    "RobotWarehouse": Suite(own=("agents_view",), state=_warehouse),
    "SearchAndRescue": Suite(own=("searcher_views",), hidden=("positions",), state=_rescue),
    "Connector": Suite(view=_connector, state=_wires, leave=True),
    "Cleaner": Suite(view=_cleaner),
    "MMST": Suite(view=_trees, alive=lambda state: ~state.finished_agents),
    "MultiCVRP": Suite(turned=("vehicles",)),
}
"""The multi-agent environments, by the first part of their names; all others have one agent."""

_COMPASS = ("up", "right", "down", "left")
ACTIONS = {
    "LevelBasedForaging": ("stay", "up", "down", "left", "right", "load"),
    "RobotWarehouse": ("stay", "forward", "left", "right", "load"),
    "Connector": ("stay", *_COMPASS),
    "PacMan": (*_COMPASS, "stay"),
    **dict.fromkeys(("Cleaner", "Game2048", "Maze", "SlidingTilePuzzle", "Snake", "Sokoban"),
                    _COMPASS),
}  # fmt: skip
"""What actions are called in pictures, where they are no mere numbers."""

BOARDS = frozenset({"grid", "board", "puzzle", "walls", "agents_view"})
"""Fields that are images where they have two axes or three."""
_CODES = frozenset({"grid", "board", "puzzle", "cube", "position", "current_node_index"})
_MOST_CODES = 64


def encoded(field: str, x: Shaped[Array, "..."], spec: Any) -> Float[Array, "..."]:
    """An array of the observation as floats to learn from.

    Integers that stand for kinds (the tiles of a board, an index) are one-hot; other bounded ones
    are divided by the largest that they can be; all else keeps its value.
    """
    low, high = (getattr(spec, bound, None) for bound in ("minimum", "maximum"))
    if low is None or high is None or jnp.ndim(low) or not jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(jnp.float32)
    low, high = int(low), int(high)
    if field in _CODES and 2 < high - low + 1 <= _MOST_CODES:
        kinds = jax.nn.one_hot(x - low, high - low + 1)
        several = field in BOARDS and x.ndim == 3
        return kinds.reshape(*x.shape[:2], -1) if several else kinds
    return x.astype(jnp.float32) / max(abs(low), abs(high), 1)
