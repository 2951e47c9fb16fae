"""What every particle scenario is, and the pieces observations and rewards are made of."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from coterie.envs import pictures
from coterie.envs.base import Environment
from coterie.envs.layout import batch_last, column
from coterie.envs.mpe.physics import ACTIONS, MOVES, State, World, advance, norm
from coterie.envs.scene import Scene
from coterie.errors import UsageError
from coterie.spec import EnvSpec, Reward
from coterie.types import Actions, Array, Float, Int, PRNGKey, TimeStep

Observations = Float[Array, "N O *b"] | tuple[Float[Array, " _ *b"], ...]


@dataclass(frozen=True, kw_only=True)
class Particles(Environment):
    """A scenario in the particle world: its bodies, observations and rewards.

    ``observe`` and ``reward`` see a state whose arrays may carry trailing batch axes *b.

    Attributes:
        default_reward: the rewards that learners get by default.
        time_limit: steps after which an episode is truncated; nothing else ends it.
        continuous_actions: agents decide how strongly they push and speak (``World.continuous``).
    """

    default_reward: ClassVar[Reward]
    time_limit: int = 25
    continuous_actions: bool = False

    def __post_init__(self) -> None:
        if self.time_limit < 1:
            raise UsageError(f"time_limit must be at least 1 step; got {self.time_limit}")
        object.__setattr__(self, "agents", tuple(self.world.agents))

    @cached_property
    def world(self) -> World:
        return dataclasses.replace(self.build(), continuous=self.continuous_actions)

    @abc.abstractmethod
    def build(self) -> World:
        """The bodies of the scenario."""

    @abc.abstractmethod
    def observe(self, state: State) -> Observations:
        """[N, O, *b], or one array an agent where they differ in length."""

    @abc.abstractmethod
    def reward(self, state: State) -> Float[Array, " N *b"]:
        """The rewards of the step that led to ``state``."""

    def spec(self) -> EnvSpec:
        return self._spec

    @cached_property
    def _spec(self) -> EnvSpec:
        state = jax.eval_shape(self._draw, jax.eval_shape(lambda: jax.random.key(0)))
        observations, central = jax.eval_shape(lambda s: (self.observe(s), self.central(s)), state)
        n = len(self.agents)
        if isinstance(observations, tuple):
            sizes = tuple(o.shape[0] for o in observations)
        else:
            sizes = observations.shape[1:] * n
        return EnvSpec(
            agents=self.agents,
            observation_sizes=sizes,
            action_counts=() if self.continuous_actions else self.world.action_counts,
            central_size=central.shape[0],
            time_limit=self.time_limit,
            reward=self.default_reward,
            actions=self.world.action_spaces if self.continuous_actions else (),
        )

    def reset(self, key: PRNGKey) -> tuple[State, TimeStep]:
        state = self._draw(key)
        observations, central = batch_last(lambda s: (self.observe(s), self.central(s)))(state)
        return state, _time_step(observations, jnp.zeros(len(self.agents)), central)

    def step(self, key: PRNGKey, state: State, actions: Actions) -> tuple[State, TimeStep]:
        del key
        state, *shown = batch_last(self._advance)(state, actions)
        return state, _time_step(*shown)

    def central(self, state: State) -> Float[Array, " Z *b"]:
        """z: positions, velocities of those that move, words and goals (both one-hot)."""
        world, n = self.world, len(self.agents)
        return jnp.concatenate(
            [
                flat(state.positions),
                *rows_of(state.velocities, world.each("push")[:n] > 0),
                *rows_of(words_said(state, world.words), world.each("speaks")[:n]),
                flat(one_hot(state.goals, world.landmarks)),
            ]
        )

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        words = tuple(f"says {word}" for word in range(self.world.words))
        moves_and_words = tuple(f"{move}, {word}" for word in words for move in ACTIONS)
        return tuple(
            (moves_and_words if body.push else words) if body.speaks else ACTIONS
            for body in self.world.agents.values()
        )

    def in_words(self, actions: Any) -> tuple[str, ...]:
        if not self.continuous_actions:
            return super().in_words(actions)
        said = []
        for body, row in zip(self.world.agents.values(), np.asarray(actions), strict=True):
            parts = []
            if body.push:
                parts.append(f"x {row[2] - row[1]:+.2f}, y {row[4] - row[3]:+.2f}")
            if body.speaks:
                first = MOVES if body.push else 0
                parts.append(f"says {row[first : first + self.world.words].argmax()}")
            said.append(", ".join(parts).replace("-", "−"))
        return tuple(said)

    def goal_names(self) -> tuple[str, ...]:
        """What the landmarks drawn as goals are called in pictures."""
        return ("goal",) * self.world.goals

    def scene(self, state: State, actions: Sequence[Any] | None = None) -> Scene:
        """The plane with all bodies, velocities, words and goals."""
        del actions
        world = self.world
        return pictures.plane(
            [(name, body.size) for name, body in world.agents.items()],
            [world.landmark.size] * world.landmarks,
            np.asarray(state.positions),
            np.asarray(state.velocities),
            [None if word is None else f"says {word}" for word in self._loudest(state)],
            list(zip(np.asarray(state.goals).tolist(), self.goal_names(), strict=True)),
            walls=world.landmark.collides,
        )

    def _loudest(self, state: State) -> list[int | None]:
        """The word that each agent says, most strongly where there are several."""
        said = np.asarray(state.said)
        if self.continuous_actions:
            speak = [body.speaks for body in self.world.agents.values()]
            heard = [talks and bool(row.any()) for talks, row in zip(speak, said, strict=True)]
            return [int(row.argmax()) if x else None for x, row in zip(heard, said, strict=True)]
        return [word if word >= 0 else None for word in said.tolist()]

    def _advance(
        self, state: State, actions: Int[Array, " N *b"] | Float[Array, "N P *b"]
    ) -> tuple[State, Observations, Float[Array, " N *b"], Float[Array, " Z *b"]]:
        state = advance(self.world, state, actions)
        return state, self.observe(state), self.reward(state), self.central(state)

    def _draw(self, key: PRNGKey) -> State:
        """Everybody somewhere, at rest and silent; goals independent and uniform."""
        world, n = self.world, len(self.agents)
        reach = world.each("reach")[:, None]
        bits = jax.random.bits(key, (2 * reach.size + world.goals,))
        positions = (bits[: 2 * reach.size] >> 8).astype(jnp.float32) * 2**-23 - 1
        return State(
            positions=positions.reshape(-1, 2) * reach,
            velocities=jnp.zeros((n, 2)),
            said=jnp.zeros((n, world.words)) if world.continuous else jnp.full(n, -1, jnp.int32),
            goals=(bits[2 * reach.size :] % max(world.landmarks, 1)).astype(jnp.int32),
        )


def _time_step(
    observations: Float[Array, "N O"] | tuple[Float[Array, " _"], ...],
    rewards: Float[Array, " N"],
    central: Float[Array, " Z"],
) -> TimeStep:
    never = jnp.zeros((), bool)
    return TimeStep(observations, rewards, terminated=never, truncated=never, central=central)


def flat(vectors: Float[Array, "M K *b"]) -> Float[Array, " MK *b"]:
    """[M, K] in a row."""
    return vectors.reshape(-1, *vectors.shape[2:])


def rows_of(table: Float[Array, "M K *b"], chosen: np.ndarray) -> list[Float[Array, " _ *b"]]:
    """The rows that are chosen [M], in a row; one array for each run of neighbours."""
    ends = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return [flat(table[first:end]) for first, end in ends.reshape(-1, 2)]


def repeated(row: Float[Array, "*k"], times: int) -> Float[Array, "M *k"]:
    """The same for each of so many agents."""
    return jnp.broadcast_to(row, (times, *row.shape))


def one_hot(chosen: Int[Array, " M *b"], among: int) -> Float[Array, "M K *b"]:
    """[M, among]; zeros for -1."""
    return (chosen[:, None] == column(np.arange(among), chosen.ndim - 1)).astype(jnp.float32)


def words_said(state: State, among: int) -> Float[Array, "N C *b"]:
    """[N, among] how strongly each agent said each word; 0 or 1 unless actions are continuous."""
    if state.said.dtype == jnp.int32:
        return one_hot(state.said, among)
    return state.said


def seen_from(
    observers: Float[Array, "M 2 *b"], things: Float[Array, "K 2 *b"]
) -> Float[Array, "M K2 *b"]:
    """Where each observer sees the things, relative to itself, all in a row."""
    apart = things - observers[:, None]
    return apart.reshape(apart.shape[0], -1, *apart.shape[3:])


def others(table: Float[Array, "M M K *b"]) -> Float[Array, "M MK *b"]:
    """Row i of a table [M, M, K] without its own entry i, all in a row.

    Dropping the first entry of all leaves a period of M + 1 from one diagonal entry to the next.
    """
    m, _, *rest = table.shape
    apart = table.reshape(m * m, *rest)[1:].reshape(m - 1, m + 1, *rest)[:, :m]
    return apart.reshape(m, (m - 1) * rest[0], *rest[1:])


def see_others(positions: Float[Array, "M 2 *b"]) -> Float[Array, "M K *b"]:
    """Where each sees the others, relative to itself, all in a row."""
    return others(positions - positions[:, None])


def pick(things: Float[Array, "K 2 *b"], index: Int[Array, "*b"]) -> Float[Array, "2 *b"]:
    """``things[index]``, without a gather."""
    here = index == column(np.arange(things.shape[0]), index.ndim)
    return jnp.sum(jnp.where(here[:, None], things, 0.0), 0)


def gaps(a: Float[Array, "M 2 *b"], b: Float[Array, "K 2 *b"]) -> Float[Array, "M K *b"]:
    """Distances from each of one kind to each of the other."""
    return norm(a[:, None] - b, 2)


def blend(
    local: Float[Array, " N *b"], common: Float[Array, "*b"], local_ratio: float | int
) -> Float[Array, " N *b"]:
    """The agents' own parts and the common part of a reward."""
    return local * local_ratio + common * (1 - local_ratio)


def at_least(what: str, number: int, least: int) -> None:
    """UsageError unless it is."""
    if number < least:
        raise UsageError(f"{what} must be at least {least}; got {number}")


def a_share(what: str, number: float | int) -> None:
    """UsageError unless it is between 0 and 1."""
    if not 0 <= number <= 1:
        raise UsageError(f"{what} must be between 0 and 1; got {number}")
