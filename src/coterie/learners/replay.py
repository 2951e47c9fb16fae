"""Replay: a ring over time and environments that keeps each observation once.

What follows a step is the next row of the same environment. Only where an episode was cut, or an
agent was truncated alone, something else follows: the final observation, which is kept beside the
ring. Every step remembers where the observation that follows it is, so a sample needs no
condition. Where to write is a pure function of how much was collected, so it is computed on the
host and the same for all seeds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coterie.learners.experience import Experience, cut_width
from coterie.spec import Observation
from coterie.types import PyTree, Schedules, Transition
from coterie.views.steps import Steps

SPAN = 8
"""One final observation is kept of each environment (and agent) in so many steps."""


@dataclass(frozen=True)
class Layout:
    """Where things are in a ring.

    Final observations are kept by windows of at most ``span`` steps of an environment, one each:
    several rollouts share a window, or a rollout has several. A sequence is in one of them, or is
    divided into several of its own.

    Attributes:
        steps: T, of a rollout.
        length: L, of a sequence, which divides T.
        rollouts: that the ring holds.
        span: a power of two, at most ``SPAN``.
    """

    steps: int
    length: int
    rollouts: int
    span: int

    @property
    def capacity(self) -> int:
        """C, rows of steps. Row C has the observation that follows the newest step."""
        return self.steps * self.rollouts

    @property
    def places(self) -> int:
        """Rows of observations: C, 1, and the final ones."""
        return self.capacity + 1 + period(self.rollouts) // self.share * self.windows

    @property
    def cuts(self) -> int:
        """E, windows of a sequence: so many final observations it can have at most."""
        return max(1, -(-self.length // self.span))

    @cached_property
    def window(self) -> np.ndarray:
        """[T] the window that each step of a rollout is in."""
        row = np.arange(self.steps)
        if self.length < self.span:
            return row // (self.span // self.length * self.length)
        sequence, within = np.divmod(row, self.length)
        return sequence * self.cuts + within // cut_width(self.length, self.cuts)

    @property
    def windows(self) -> int:
        """w, windows of a rollout."""
        return int(self.window[-1]) + 1

    @property
    def share(self) -> int:
        """Rollouts that share a window: a power of two, so that it divides every period."""
        return 1 << (max(1, self.span // self.steps).bit_length() - 1)

    @cached_property
    def rows(self) -> np.ndarray:
        """[w, p] the steps of each window; T where there are no more."""
        each = [np.flatnonzero(self.window == f) for f in range(self.windows)]
        most = max(map(len, each))
        return np.stack([np.pad(x, (0, most - len(x)), constant_values=self.steps) for x in each])


def period(rollouts: int) -> int:
    """Rollouts after which windows repeat: more than the ring holds, and a multiple of ``SPAN``."""
    return SPAN * (rollouts // SPAN + 2)


def span_of(time_limit: int | None) -> int:
    """The span that no environment exceeds whose episodes are cut by their time limit alone."""
    return 1 << (min(time_limit or SPAN, SPAN).bit_length() - 1)


class Stored(eqx.Module):
    """What the ring keeps of each step; ``Experience`` says what each means.

    ``following`` is the row of the observation that follows, for each agent where they can be
    truncated alone (E = N), else for all (E = 1).
    """

    start: Bool[Array, "C K N"]
    actions: Int[Array, "C K N"]
    rewards: Float[Array, "C K N"]
    terminated: Bool[Array, "C K N"]
    counts: Bool[Array, "C K N"]
    following: Int[Array, "C K E"]
    more: dict[str, PyTree]


class Replay(eqx.Module):
    """D; an item is a sequence of L steps of one environment.

    Attributes:
        seen: [P, K, ...] what the agents saw: at each step, after the newest one, final ones.
        hidden_state: before the first step of every sequence.
        full: [K, E] the window that is being filled has its final observation.
    """

    seen: Observation
    stored: Stored
    hidden_state: Float[Array, "Q K N H"]
    full: Bool[Array, "K E"]
    layout: Layout = eqx.field(static=True)


def empty(
    layout: Layout,
    environments: int,
    rollout: Transition,
    steps: Steps,
    alone: bool,
    more: tuple[str, ...],
) -> Replay:
    """A ring without steps, of K environments.

    Args:
        rollout, steps: like those that will be stored, [T, 1, ...].
        alone: agents can be truncated alone.
        more: fields of the rollout that are kept in ``Experience.more``.
    """

    def room(like: Array, rows: int) -> Array:
        return jnp.zeros((rows, environments, *like.shape[2:]), like.dtype)

    ends = rollout.alive.shape[-1] if alone else 1
    following = jnp.zeros((*rollout.start.shape, ends), jnp.int32)
    return Replay(
        seen=jax.tree.map(lambda x: room(x, layout.places), _before(rollout)),
        stored=jax.tree.map(
            lambda x: room(x, layout.capacity), _stored(rollout, steps, following, more)
        ),
        hidden_state=room(rollout.hidden_state, layout.capacity // layout.length),
        full=jnp.zeros((environments, ends), bool),
        layout=layout,
    )


def store(ring: Replay, rollout: Transition, steps: Steps, schedules: Schedules) -> Replay:
    """The ring with a rollout [T, K, ...] in place of its oldest one.

    Args:
        schedules: ``slot``, the number of the first item to write, and ``rollout``, that of the
            rollout modulo ``period``.
    """
    layout, environments = ring.layout, ring.full.shape[0]
    first = schedules["slot"] // environments * layout.length
    if rollout.valid is not None:
        ring, rollout = _mended(ring, rollout, rollout.valid, first)
    base = layout.capacity + 1 + schedules["rollout"] // layout.share * layout.windows
    full = ring.full & (schedules["rollout"] % layout.share > 0)
    needs = _needs_final(rollout, steps, full.shape[-1])
    row, keeps = _by_window(layout, needs, full)
    step = jnp.arange(layout.steps)[:, None, None]
    kept = needs & (row[layout.window] == step) & keeps[layout.window]
    onward = jnp.where(step < layout.steps - 1, first + 1 + step, layout.capacity)
    following = jnp.where(kept, base + layout.window[:, None, None], onward)
    steps = dataclasses.replace(steps, counts=steps.counts & (kept | ~needs))
    new = _stored(rollout, steps, following, tuple(ring.stored.more))
    old = eqx.tree_at(lambda s: s.following, ring.stored, _led_on(ring, first))
    hidden_state = rollout.hidden_state[:: layout.length]
    return Replay(
        seen=_write_seen(ring, rollout, first, (base, row, keeps)),
        stored=jax.tree.map(lambda old, new: _write(old, new, first), old, new),
        hidden_state=_write(ring.hidden_state, hidden_state, first // layout.length),
        full=full | keeps[-1],
        layout=layout,
    )


def minibatch(ring: Replay, index: Int[Array, "M *N"], each_its_own: bool) -> Experience:
    """The sampled sequences, time-major: leaves [L, M, N, ·].

    Args:
        each_its_own: each agent has its own column of ``index``; it is given no z.
    """
    _, environments, n = ring.stored.start.shape
    length, agents = ring.layout.length, jnp.arange(n)
    block, env = index // environments, index % environments
    rows = block * length + jnp.arange(length).reshape(-1, *[1] * index.ndim)
    whose = (agents,) if each_its_own else ()

    def seen(where: tuple[Array, ...]) -> Observation:
        """Of the environments and agents at these rows."""
        of_agents = jax.tree.map(lambda x: _at(x, *where), ring.seen._replace(central=()))
        if each_its_own:
            return of_agents._replace(central=jnp.zeros((length, index.shape[0], 0)))
        one = where if len(where) == 2 else (where[0][..., 0], env)
        return of_agents._replace(central=_at(ring.seen.central, *one))

    following, before = ring.stored.following, seen((rows, env, *whose))
    if each_its_own:
        following = _at(following, rows, env, agents if following.shape[-1] > 1 else 0)
        after = seen((following, env, agents))
    else:
        following = _at(following, rows, env)
        alone = following.shape[-1] > 1
        after = seen((following, env[:, None], agents) if alone else (following[..., 0], env))
    kept = eqx.tree_at(lambda s: s.following, ring.stored, None)
    kept = jax.tree.map(lambda x: _at(x, rows, env, *whose), kept)
    return Experience(
        hidden_state=_at(ring.hidden_state, block, env, *whose)[None],
        observations=before.observations,
        alive=before.alive,
        central=before.central,
        **{f"next_{name}": x for name, x in after._asdict().items()},
        **{name: getattr(kept, name) for name in _REPLAYED},
        cut=jnp.broadcast_to(
            _cut(ring.layout, following), (ring.layout.cuts, *kept.start.shape[1:])
        ),
    )


_REPLAYED = ("start", "actions", "rewards", "terminated", "counts", "more")
"""What ``Experience`` has of ``Stored`` under the same names."""


def _cut(layout: Layout, following: Int[Array, "L M F"]) -> Int[Array, "E M F"]:
    """``Experience.cut``, of the rows that follow."""
    width = cut_width(layout.length, layout.cuts)
    missing = layout.cuts * width - layout.length
    final = jnp.pad(following > layout.capacity, ((0, missing), (0, 0), (0, 0)))
    final = final.reshape(layout.cuts, width, *final.shape[1:])
    step = jnp.argmax(final, axis=1) + width * jnp.arange(layout.cuts)[:, None, None]
    return jnp.where(jnp.any(final, axis=1), step, layout.length)


def _at(x: Array, *where: Any) -> Array:
    return x.at[where].get(mode="promise_in_bounds")


def _before(rollout: Transition) -> Observation:
    return Observation(rollout.observations, rollout.action_mask, rollout.alive, rollout.central)


def _after(rollout: Transition) -> Observation:
    return Observation(
        rollout.next_observations,
        rollout.next_action_mask,
        rollout.next_alive,
        rollout.next_central,
    )


def _stored(
    rollout: Transition, steps: Steps, following: Int[Array, "T K E"], more: tuple[str, ...]
) -> Stored:
    """What is kept of the steps of a rollout, [T, K, ...]."""
    return Stored(
        start=jnp.broadcast_to(rollout.start[..., None], rollout.alive.shape),
        actions=rollout.actions,
        rewards=steps.rewards,
        terminated=steps.terminated,
        counts=steps.counts,
        following=following,
        more={name: getattr(rollout, name) for name in more},
    )


def _needs_final(rollout: Transition, steps: Steps, ends: int) -> Bool[Array, "T K E"]:
    """Whether a step bootstraps from something else than what is acted on next."""
    over = (rollout.terminated | rollout.truncated)[..., None]
    if rollout.truncated_alone is not None:
        over = over | rollout.truncated_alone
    needs = over & ~steps.terminated & steps.counts
    return needs if ends > 1 else jnp.any(needs, axis=-1, keepdims=True)


def _by_window(
    layout: Layout, needs: Bool[Array, "T K E"], full: Bool[Array, "K E"]
) -> tuple[Int[Array, "W K E"], Bool[Array, "W K E"]]:
    """The first step of each window that needs a final observation, and whether it is kept.

    Others of the same window do not count: nothing that was written before is ever taken back.
    """
    each = jnp.pad(needs, ((0, 1), (0, 0), (0, 0)))[layout.rows]
    window = jnp.arange(layout.windows)[:, None, None]
    return _at(jnp.asarray(layout.rows), window, jnp.argmax(each, 1)), jnp.any(each, 1) & ~full


def _led_on(ring: Replay, first: Int[Array, ""]) -> Int[Array, "C K E"]:
    """``following``, where the newest step is now followed by the row that comes first."""
    capacity = ring.layout.capacity
    newest = (first - 1) % capacity
    old = jax.lax.dynamic_slice_in_dim(ring.stored.following, newest, 1)
    new = jnp.where(old == capacity, first, old)
    return _write(ring.stored.following, new, newest)


def _mended(
    ring: Replay, rollout: Transition, valid: Bool[Array, "T K"], first: Int[Array, ""]
) -> tuple[Replay, Transition]:
    """Where a Python environment failed between two rollouts, or went another way in a resume.

    A first step that failed shows nothing, but what was seen before it is still there. A newest
    step whose episode was broken off is followed by nothing that is known: it does not count.
    """
    capacity = ring.layout.capacity
    waiting = jax.tree.map(lambda x: x[capacity], ring.seen)

    def mend(x: Array, before: Array) -> Array:
        made = jnp.expand_dims(valid[0], tuple(range(1, before.ndim)))
        return x.at[0].set(jnp.where(made, x[0], before))

    seen = jax.tree.map(mend, _before(rollout), waiting)
    rollout = dataclasses.replace(rollout, **seen._asdict())
    newest = (first - 1) % capacity
    last = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, newest, 1), ring.stored)
    known = last.terminated | (last.following != capacity) | ~rollout.start[:1, :, None]
    counts = _write(ring.stored.counts, last.counts & known, newest)
    return eqx.tree_at(lambda r: r.stored.counts, ring, counts), rollout


@jax.custom_batching.custom_vmap
def _write(old: Array, new: Array, row: Int[Array, ""]) -> Array:
    """[T, K, ...] into [P, K, ...] at a row."""
    return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), row, axis=0)


@_write.def_vmap
def _write_seeds(
    seeds: int, batched: list[bool], old: Array, new: Array, row: Any
) -> tuple[Array, bool]:
    """Into the rings of all seeds at the same row; ``vmap`` makes a scatter of it, for which XLA
    copies the ring."""
    if batched[2] or not all(batched[:2]):
        axes = [0 if each else None for each in batched]
        return jax.vmap(_write.fun, axes, axis_size=seeds)(old, new, row), True
    return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), row, axis=1), True


def _write_seen(
    ring: Replay,
    rollout: Transition,
    first: Int[Array, ""],
    finals: tuple[Int[Array, ""], Int[Array, "W K E"], Bool[Array, "W K E"]],
) -> Observation:
    """What was acted on, what follows the newest step, and the final observations of windows.

    Args:
        finals: the row of the first window, and what ``_by_window`` found.
    """
    base, row, keeps = finals
    env = jnp.arange(row.shape[1])
    of_agents = (row[..., 0], env)
    if row.shape[-1] > 1:
        of_agents = (row, env[:, None], jnp.arange(row.shape[-1]))

    def write(name: str) -> Array:
        old, new, after = (getattr(x, name) for x in (ring.seen, _before(rollout), _after(rollout)))
        one = name == "central"  # of all agents
        final = _at(after, *((row[..., 0], env) if one else of_agents))
        keep = keeps[..., :1] if one else keeps
        keep = keep.reshape(*keep.shape, *[1] * (final.ndim - keep.ndim))
        # What reads the ring comes first: XLA copies all of it where other writes come before.
        there = jax.lax.dynamic_slice_in_dim(old, base, row.shape[0])
        old = _write(old, jnp.where(keep, final, there), base)
        old = _write(old, new, first)
        return _write(old, after[-1:], jnp.int32(ring.layout.capacity))

    return Observation(*map(write, Observation._fields))
