"""The particle world that all scenarios share: bodies on a plane that push, coast and speak.

    x' = x + v dt                                          the velocity from before the step
    v' = (1 - damping) v + (move + contacts) dt            every mass is 1
    v' = v' max_speed / |v'|   where |v'| > max_speed

Two colliding bodies at distance d push each other apart with a force of
``CONTACT_FORCE m log(1 + exp((size_i + size_j - d) / m))``, m = ``CONTACT_MARGIN``.

In shapes, N agents, E entities (agents, then landmarks), C words, G goals; *b is any further
axes, a batch included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from coterie.envs.layout import UNROLLED, column
from coterie.spec import ActionSpace
from coterie.types import Array, Float, Int

DT = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
ACTIONS = ("no", "left", "right", "down", "up")
MOVES = len(ACTIONS)


@dataclass(frozen=True)
class Body:
    """What one agent or landmark is, for good.

    Attributes:
        size: its radius.
        push: the force of its moves; 0 where it cannot move.
        max_speed: how fast it gets at most.
        collides: it is pushed by other bodies that collide, and pushes them.
        speaks: it says a word at every step.
        reach: it starts uniformly within ±reach on both axes.
    """

    size: float
    push: float = 0.0
    max_speed: float = np.inf
    collides: bool = False
    speaks: bool = False
    reach: float = 1.0


@dataclass(frozen=True)
class World:
    """All bodies of a scenario.

    Attributes:
        agents: by name; their order is the agent axis.
        landmarks: how many there are.
        landmark: what each of them is.
        words: how many words a speaker chooses from.
        goals: how many landmarks are drawn as goals.
        continuous: actions are numbers between 0 and 1: how strongly an agent pushes to the right
            and so on (``ACTIONS``), then how strongly it says each word.
    """

    agents: dict[str, Body]
    landmarks: int
    landmark: Body
    words: int = 0
    goals: int = 0
    continuous: bool = False

    @cached_property
    def bodies(self) -> tuple[Body, ...]:
        return (*self.agents.values(), *[self.landmark] * self.landmarks)

    def each(self, attribute: str) -> np.ndarray:
        """[E] one attribute of every body."""
        return np.array([getattr(body, attribute) for body in self.bodies])

    @cached_property
    def action_counts(self) -> tuple[int, ...]:
        """What each agent can do: a move, a word, or any word with any move."""
        return tuple(
            (MOVES if body.push else 1) * (self.words if body.speaks else 1)
            for body in self.agents.values()
        )

    @cached_property
    def action_spaces(self) -> tuple[ActionSpace, ...]:
        """What each agent decides where actions are continuous."""
        sizes = [
            MOVES * (body.push > 0) + self.words * body.speaks for body in self.agents.values()
        ]
        return tuple(ActionSpace(low=(0.0,) * size, high=(1.0,) * size) for size in sizes)


class State(eqx.Module):
    """What changes, and where the landmarks are.

    Attributes:
        positions: [E, 2] of agents, then landmarks.
        velocities: [N, 2], zero for an agent that cannot move.
        said: [N] the word of the last step; -1 for nothing (at the start, and the silent ones).
            Where actions are continuous, [N, C], how strongly each word was said.
        goals: [G] landmarks.
    """

    positions: Float[Array, "E 2 *b"]
    velocities: Float[Array, "N 2 *b"]
    said: Int[Array, " N *b"] | Float[Array, "N C *b"]
    goals: Int[Array, " G *b"]


def advance(
    world: World, state: State, actions: Int[Array, " N *b"] | Float[Array, "N P *b"]
) -> State:
    """One step of ``DT``.

    An action of an agent that moves and speaks is ``move + 5 word``, or its moves and then its
    words where actions are continuous.
    """
    n, extra = len(world.agents), state.positions.ndim - 2
    push = column(world.each("push")[:n], extra)
    directions, said = (_decided if world.continuous else _chosen)(world, actions)
    force = directions * push[:, None]
    if any(body.collides for body in world.agents.values()):
        force += contacts(world, state.positions)
    moved = state.positions[:n] + state.velocities * DT
    velocities = state.velocities * (1 - DAMPING) + force * DT
    limit = column(world.each("max_speed")[:n], extra)
    if np.isfinite(limit).any():
        speed = jnp.maximum(norm(velocities, 1), 1e-6)
        velocities *= jnp.minimum(limit / speed, 1.0)[:, None]
    positions = jnp.concatenate([moved, state.positions[n:]])
    return State(positions, velocities, said, state.goals)


def _chosen(
    world: World, actions: Int[Array, " N *b"]
) -> tuple[Float[Array, "N 2 *b"], Int[Array, " N *b"]]:
    """Directions of moves and words said, from numbered actions."""
    n, extra = len(world.agents), actions.ndim - 1
    push = column(world.each("push")[:n], extra)
    speaks = column(world.each("speaks")[:n], extra)
    said = jnp.where(speaks, actions // np.where(push > 0, MOVES, 1), -1)
    move = actions % MOVES
    right = (move == 2).astype(jnp.float32) - (move == 1)
    up = (move == 4).astype(jnp.float32) - (move == 3)
    return jnp.stack([right, up], 1), said.astype(jnp.int32)


def _decided(
    world: World, actions: Float[Array, "N P *b"]
) -> tuple[Float[Array, "N 2 *b"], Float[Array, "N C *b"]]:
    """The same from continuous actions."""
    said = jnp.zeros((len(world.agents), world.words, *actions.shape[2:]))
    for i, body in enumerate(world.agents.values()):
        if body.speaks:
            first = MOVES if body.push else 0
            said = said.at[i].set(actions[i, first : first + world.words])
    if not any(body.push for body in world.agents.values()):
        return jnp.zeros((len(world.agents), 2, *actions.shape[2:])), said
    right, up = actions[:, 2] - actions[:, 1], actions[:, 4] - actions[:, 3]
    return jnp.stack([right, up], 1), said


def contacts(world: World, positions: Float[Array, "E 2 *b"]) -> Float[Array, "N 2 *b"]:
    """Σ_j of what pushes each agent away from body j; nothing where two are in one point."""
    n, extra = len(world.agents), positions.ndim - 2
    m = len(world.bodies) if world.landmark.collides else n
    size, collides, mobile = (world.each(word) for word in ("size", "collides", "push"))
    touch = collides[:n] & collides[:m, None] & ~np.eye(m, n, dtype=bool) & (mobile[:n] > 0)
    away = positions[:n] - positions[:m, None]
    distance = norm(away, 2)
    depth = (column(size[:n] + size[:m, None], extra) - distance) / CONTACT_MARGIN
    soft = jnp.maximum(depth, 0.0) + jnp.log(1 + jnp.exp(-jnp.abs(depth)))
    felt = column(touch, extra) & (distance > 0)
    strength = jnp.where(felt, soft / jnp.where(felt, distance, 1.0), 0.0)
    pushes = strength[:, :, None] * away
    # Added one by one: XLA's reductions are slower, and of many bodies all at once compile slowly.
    total, _ = jax.lax.scan(lambda x, y: (x + y, None), pushes[0], pushes[1:], unroll=UNROLLED)
    return total * (CONTACT_FORCE * CONTACT_MARGIN)


def norm(vectors: Float[Array, "*m"], axis: int) -> Float[Array, "*k"]:
    """|v| of vectors (x, y) along an axis."""
    x, y = (jax.lax.index_in_dim(vectors, i, axis, keepdims=False) for i in (0, 1))
    return jnp.sqrt(x**2 + y**2)
