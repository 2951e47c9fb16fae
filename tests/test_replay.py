"""Replay against a list of all steps, whose next observations stand beside them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Walk, quick, small

from coterie.learners import replay
from coterie.learners.former_replay import converted, former_items
from coterie.spec import Observation
from coterie.types import Transition, transition
from coterie.views.game import Game
from coterie.views.steps import Steps, learner_steps

K, N, A, H = 3, 2, 3, 4
STEPS = ("start", "actions", "rewards", "terminated", "counts")
SEEN = ("observations", "action_mask", "alive", "central")


class Story:
    """Made-up steps of K environments, [S, K, ...], in which no observation is like another.

    Episodes end at the time limit, or by chance before it; agent 0 leaves after its third step. If
    that is a truncation, the episode goes on to its limit, so that it is a while to the next one.
    """

    def __init__(self, steps: int, limit: int, alone: bool = False, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.limit, self.alone = limit, alone
        t, went = np.zeros(K, int), np.zeros(K, bool)
        self.facts: list[dict[str, Any]] = []
        seen = self.look(0.0, went)
        for s in range(steps):
            cut = t + 1 >= limit
            over = ~cut & (rng.random(K) < 0.1) & ~(went & alone)
            left = (t == 2) & ~cut & ~over
            alive = went.copy()
            went = went | left
            after = self.look(s + 0.5, went, left)
            self.facts.append({
                "start": t == 0, "alive": ~np.stack([alive, 0 * alive], -1).astype(bool),
                "terminated": over, "truncated": cut, "seen": seen, "after": after,
                "next_alive": ~np.stack([went, 0 * went], -1).astype(bool),
                "truncated_alone": np.stack([left, 0 * left], -1).astype(bool),
            })  # fmt: skip
            ended = over | cut
            t, went = np.where(ended, 0, t + 1), went & ~ended
            new = self.look(s + 0.75, went)
            # What follows is acted on, but by who has left.
            on = self.look(s + 0.5, went)
            seen = tuple(
                np.where(ended.reshape(K, *[1] * (x.ndim - 1)), x, y)
                for x, y in zip(new, on, strict=True)
            )

    def look(self, number, went, left=False):
        """Observations, masks and z that tell of the moment; zeros of who has left."""
        code = number + 1000.0 * np.arange(1, K + 1)
        gone = np.stack([went & ~(self.alone & np.asarray(left)), 0 * went], -1).astype(bool)
        seen = np.where(gone, 0.0, code[:, None] + np.array([0.0, 0.1])).astype(np.float32)
        mask = (seen[..., None] * 8).astype(int) >> np.arange(A) & 1 > 0
        return seen[..., None], mask, code[:, None].astype(np.float32)

    def rollout(self, first: int, steps: int) -> Transition:
        facts = self.facts[first : first + steps]

        def of(name, part=None):
            whole = [f[name] if part is None else f[name][part] for f in facts]
            return jnp.asarray(np.stack(whole))

        number = jnp.arange(first, first + steps)[:, None, None] + 1000 * jnp.arange(K)[:, None]
        each = jnp.broadcast_to(number, (steps, K, N))
        z = 0 if self.alone else 1
        return Transition(
            observations=of("seen", 0), action_mask=of("seen", 1), alive=of("alive"),
            central=of("seen", 2)[..., :z], hidden_state=jnp.stack([each * 1.0] * H, -1),
            start=of("start"), actions=each.astype(jnp.int32), extras=(), rewards=each * 0.5,
            terminated=of("terminated"), truncated=of("truncated"),
            next_observations=of("after", 0), next_action_mask=of("after", 1),
            next_alive=of("next_alive"), next_central=of("after", 2)[..., :z],
            truncated_alone=of("truncated_alone") if self.alone else None,
        )  # fmt: skip


def steps_of(rollout, alone):
    return learner_steps(rollout, Game(Walk(), "none", "individual" if alone else "sum"))


def two_agents(steps):
    """``learner_steps`` of a common reward makes one copy for each agent of its game."""
    return jax.tree.map(lambda x: x[..., :N], steps)


def schedule(layout, i):
    items = layout.steps // layout.length * K
    place = i % layout.rollouts
    return {"slot": jnp.int32(place * items),
            "rollout": jnp.int32(i % replay.period(layout.rollouts))}  # fmt: skip


def stored(layout, story, rollouts, change=lambda i, r: r):
    """The ring after so many rollouts, and the transitions and steps of each, of which it holds
    the newest."""
    whole = [change(i, story.rollout(i * layout.steps, layout.steps)) for i in range(rollouts)]
    steps = [two_agents(steps_of(r, story.alone)) for r in whole]
    ring = replay.empty(layout, K, whole[0], steps[0], story.alone, ())
    write = quick(replay.store)
    for i, (rollout, step) in enumerate(zip(whole, steps, strict=True)):
        ring = write(ring, rollout, step, schedule(layout, i))
    return ring, list(zip(whole, steps, strict=True))


def every_item(layout, rollouts):
    return jnp.arange(min(rollouts, layout.rollouts) * layout.steps // layout.length * K)


def sampled(ring, index, own=False):
    index = jnp.stack([index] * N, -1) if own else index
    return quick(functools.partial(replay.minibatch, each_its_own=own))(ring, index)


def expected(layout, whole):
    """The same items, cut out of the rollouts that the ring holds: leaves [L, M, ...]."""
    slots: dict[int, Any] = {}
    for i, (rollout, steps) in enumerate(whole):
        slots[i % layout.rollouts] = (rollout, steps)

    def cut(x):
        x = np.asarray(x).reshape(len(x) // layout.length, layout.length, *x.shape[1:])
        return np.concatenate(list(np.moveaxis(x, 2, 1)), 0)  # items [q, k], each [L, ...]

    both = [jax.tree.map(cut, slots[k]) for k in sorted(slots)]
    return jax.tree.map(lambda *x: np.moveaxis(np.concatenate(x), 1, 0), *both)


LAYOUTS = {
    # T, L, rollouts in the ring, time limit
    "transitions": (1, 1, 29, 11),
    "short episodes": (1, 1, 29, 3),
    "one step": (1, 1, 9, 1),
    "a few": (3, 1, 7, 8),
    "many": (20, 1, 3, 9),
    "a single rollout": (5, 1, 1, 8),
    "sequences": (6, 6, 5, 7),
    "long sequences": (18, 18, 3, 9),
    "several sequences": (12, 4, 4, 8),
}


def some(names, quick_ones):
    """Those that are not quick take a few seconds each."""
    return [pytest.param(n, marks=() if n in quick_ones else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("alone", [False, True], ids=["", "alone"])
@pytest.mark.parametrize("name", some(LAYOUTS, ("transitions", "long sequences")))
def test_items_are_those_of_the_newest_rollouts(name, alone):
    """Over several laps: every field, and what follows wherever anything does."""
    steps, length, rollouts, limit = LAYOUTS[name]
    layout = replay.Layout(steps, length, rollouts, replay.span_of(limit))
    story = Story(steps * rollouts * 4, limit, alone)
    for made in (1, rollouts + 1, 3 * rollouts + rollouts // 2 + 1):
        ring, whole = stored(layout, story, made)
        rollout, taken = expected(layout, whole)
        for own in (False, True) if alone else (False,):
            found = sampled(ring, every_item(layout, made), own)
            same(found, rollout, taken, alone)


def same(found, rollout, taken, alone):
    for name in STEPS:
        value = getattr(taken, name, getattr(rollout, name, None))
        value = value[..., None] if value.ndim == 2 else value
        np.testing.assert_array_equal(getattr(found, name), value + 0 * found.alive, name)
    np.testing.assert_array_equal(found.hidden_state[0], rollout.hidden_state[0])
    np.testing.assert_array_equal(found.observations, rollout.observations)
    np.testing.assert_array_equal(found.alive, rollout.alive)
    goes_on = taken.counts & ~taken.terminated
    for name in SEEN:
        value, right = getattr(found, f"next_{name}"), getattr(rollout, f"next_{name}")
        if name == "central" and not alone:
            np.testing.assert_array_equal(found.central, rollout.central)
            goes_on_for_all = goes_on.any(-1)
            np.testing.assert_array_equal(value[goes_on_for_all], right[goes_on_for_all])
        elif name != "central":
            np.testing.assert_array_equal(value[goes_on], right[goes_on], name)


def test_final_observations_are_told_apart():
    """``cut`` names the steps that the next one does not follow, each in its part of a sequence."""
    layout = replay.Layout(18, 18, 3, 8)
    story = Story(200, 9)
    ring, whole = stored(layout, story, 5)
    rollout, taken = expected(layout, whole)
    found = sampled(ring, every_item(layout, 5))
    final = np.broadcast_to(rollout.truncated[..., None], taken.counts.shape)
    assert found.cut.shape == (3, len(every_item(layout, 5)), N)
    for part in range(3):
        there = final[6 * part : 6 * part + 6]
        right = np.where(there.any(0), 6 * part + there.argmax(0), 18)
        np.testing.assert_array_equal(found.cut[part], right)
    assert (np.asarray(found.cut) < 18).any()


def test_a_step_whose_final_observation_finds_no_place_does_not_count():
    """Episodes of one step, without a declared limit: one in eight counts, and it is right."""
    layout = replay.Layout(1, 1, 16, replay.span_of(None))
    story = Story(60, 1)
    ring, whole = stored(layout, story, 40)
    rollout, _ = expected(layout, whole)
    found = sampled(ring, every_item(layout, 40))
    counts = np.asarray(found.counts[..., 0])
    truncated = np.asarray(rollout.truncated)
    assert counts[truncated].mean() == pytest.approx(1 / 8, abs=0.02)
    right = counts & ~np.asarray(rollout.terminated)
    np.testing.assert_array_equal(found.next_observations[right], rollout.next_observations[right])


def test_who_left_before_is_seen_as_it_was_when_the_episode_was_cut():
    """One of two agents dies in the first step, and the episode is truncated in the third; a joint
    minibatch of the other's step shows the end, not the next episode's start."""
    t = np.arange(8)

    def observed(x, alive):
        x = jnp.asarray(x, jnp.float32)
        each = jnp.broadcast_to(x[:, None, None, None], (8, 1, 2, 1))
        mask = jnp.ones((8, 1, 2, 2), bool)
        return Observation(each, mask, jnp.asarray(alive)[:, None], x[:, None, None])

    alive, next_alive = np.ones((2, 8, 2), bool)
    alive[1:3, 0] = next_alive[:3, 0] = False
    before, after = observed(t, alive), observed(np.where(t == 2, 100, t + 1), next_alive)
    nothing = jnp.zeros((8, 1), bool)
    rollout = transition(
        before, after, hidden_state=jnp.zeros((8, 1, 2, 0)), start=nothing.at[3].set(True),
        extras=(), actions=jnp.zeros((8, 1, 2), jnp.int32), rewards=jnp.zeros((8, 1, 2)),
        terminated=nothing, truncated=nothing.at[2].set(True),
        truncated_alone=jnp.zeros((8, 1, 2), bool),
    )  # fmt: skip
    died = ~after.alive
    steps = Steps(jnp.zeros((8, 1, 2)), died, died, before.alive)
    layout = replay.Layout(8, 1, 2, 8)
    ring = replay.empty(layout, 1, rollout, steps, False, ())
    ring = replay.store(ring, rollout, steps, {"slot": jnp.int32(0), "rollout": jnp.int32(0)})
    batch = replay.minibatch(ring, jnp.arange(8), each_its_own=False)
    assert batch.counts[0, 2].tolist() == [False, True]
    assert batch.next_central[0, 2].tolist() == [100]
    assert batch.next_alive[0, 2].tolist() == [False, True]
    assert batch.next_observations[0, 2, 1].tolist() == [100]


def test_what_a_failing_environment_showed_is_kept():
    """A first step that failed shows nothing, yet what followed the step before it is known."""
    layout = replay.Layout(2, 1, 8, 8)
    story = Story(60, 50)

    def fail(i, rollout):
        valid = jnp.ones_like(rollout.start).at[0, 1].set(i != 5)
        gone = valid[..., None, None]
        return dataclasses.replace(
            rollout, valid=valid, observations=jnp.where(gone, rollout.observations, 0.0),
            alive=rollout.alive & valid[..., None], truncated=rollout.truncated | ~valid,
        )  # fmt: skip

    ring, whole = stored(layout, story, 7, fail)
    rollout, taken = expected(layout, whole)
    found = sampled(ring, every_item(layout, 7))
    np.testing.assert_array_equal(found.counts, taken.counts)
    goes_on = taken.counts & ~taken.terminated
    np.testing.assert_array_equal(
        found.next_observations[goes_on], rollout.next_observations[goes_on]
    )


def test_an_episode_broken_off_between_rollouts_is_followed_by_nothing():
    """As in a resume in which a Python environment went another way: that step does not count."""
    layout = replay.Layout(2, 1, 8, 8)
    story = Story(60, 50)

    def begin(i, rollout):
        start = rollout.start.at[0, 2].set(rollout.start[0, 2] | (i == 5))
        return dataclasses.replace(rollout, start=start, valid=jnp.ones_like(start))

    ring, whole = stored(layout, story, 7, begin)
    _, taken = expected(layout, whole)
    found = sampled(ring, every_item(layout, 7))
    item = (5 * 2 - 1) * K + 2
    assert taken.counts[0, item].all()
    assert not taken.terminated[0, item].any()
    taken.counts[0, item] = False
    np.testing.assert_array_equal(found.counts, taken.counts)


@pytest.mark.parametrize("alone", [False, True], ids=["", "alone"])
@pytest.mark.parametrize(
    "name", some(["transitions", "a few", "sequences", "long sequences"], ("transitions",))
)
def test_former_replay_is_read(name, alone):
    """Of items with both observations comes the ring that their rollouts make, used up or not."""
    steps, length, rollouts, limit = LAYOUTS[name]
    layout = replay.Layout(steps, length, rollouts, replay.span_of(limit))
    story = Story(steps * rollouts * 4, limit, alone)
    for made in (2, 2 * rollouts + 1):
        ring, whole = stored(layout, story, made)
        like = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[None], x), ring)
        rollout, taken = expected(layout, whole)
        items = {name: getattr(taken, name, getattr(rollout, name, None)) for name in STEPS}
        items["start"] = items["start"][..., None] & np.ones(N, bool)
        for name in SEEN:
            items[name] = getattr(rollout, name)
            items[f"next_{name}"] = getattr(rollout, f"next_{name}")
        del items["action_mask"]
        items["hidden_state"] = rollout.hidden_state[:1]
        shapes = former_items(like)
        assert shapes.keys() == items.keys() | {"more"}
        former = {name: np.zeros(shapes[name].shape, shapes[name].dtype) for name in items}
        for name, value in items.items():
            former[name][0, : value.shape[1]] = np.moveaxis(value, 1, 0)
        newest = whole[-1][0]
        ended = (newest.terminated | newest.truncated)[-1]
        now = converted(like, former | {"more": {}}, made, ended[None])
        one = jax.tree.map(lambda x: x[0], now)
        assert jax.tree.structure(one) == jax.tree.structure(ring)
        index = every_item(layout, made)
        same(sampled(one, index), rollout, taken, alone)
        # They go on alike: what comes next leads on from the newest step.
        more = story.rollout(made * steps, steps)
        next_steps = two_agents(steps_of(more, alone))
        both = [replay.store(r, more, next_steps, schedule(layout, made)) for r in (one, ring)]
        index = every_item(layout, made + 1)
        rollout, taken = expected(layout, [*whole, (more, next_steps)])
        for each in both:
            same(sampled(each, index), rollout, taken, alone)


@pytest.mark.parametrize(
    ("limit", "span"), [(None, 8), (1, 1), (2, 2), (3, 2), (7, 4), (8, 8), (25, 8)]
)
def test_the_span_of_a_final_observation_is_no_longer_than_an_episode(limit, span):
    assert replay.span_of(limit) == span


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (1, 3), (1, 40), (6, 6), (16, 16), (20, 40)])
def test_observations_are_kept_once(length, steps):
    """Beside the rows of steps there is one place in eight, and a few more."""
    layout = replay.Layout(steps, length, 10_000 // steps, 8)
    assert layout.places <= layout.capacity * (1 + 1 / 4) + 1 + 16 * layout.windows
    if steps == 1:
        assert layout.places <= layout.capacity * (1 + 1 / 8) + 20


@pytest.mark.parametrize(
    "settings",
    [
        {"environments": 1},
        {"environments": 10, "update_ratio": 1 / 16, "buffer_size": 300},
        {"environments": 3, "recurrent": True, "sequence_length": 5, "buffer_size": 400},
    ],
)
def test_schedules_write_a_ring_without_gaps(settings):
    algorithm = small("vdn", **settings)
    steps, environments = algorithm.rollout_shape()
    length = algorithm.sequence_length if algorithm.recurrent else 1
    items = steps * environments // length
    found = algorithm.schedules(np.arange(50))
    capacity = found["stored"].max()
    assert algorithm.buffer_size - steps * environments < capacity * length
    assert capacity * length <= algorithm.buffer_size
    for i in range(50):
        assert found["slot"][i] == i * items % capacity
        assert found["slot"][i] + items <= capacity, "a write never wraps"
        assert found["stored"][i] == min((i + 1) * items, capacity)
        assert found["rollout"][i] == i % replay.period(int(capacity) // items)


def test_seeds_write_to_their_rings_in_place():
    """``vmap`` alone makes scatters of these writes, and XLA may copy all rings for each."""
    old, new, row = jnp.zeros((3, 20, 4, 2), bool), jnp.ones((3, 5, 4, 2), bool), jnp.int32(7)
    write = jax.jit(jax.vmap(replay._write, (0, 0, None)), donate_argnums=0)
    assert "scatter" not in write.lower(old, new, row).as_text()
    expected = np.zeros((3, 20, 4, 2), bool)
    expected[:, 7:12] = True
    np.testing.assert_array_equal(write(old, new, row), expected)

    rows = jnp.array([0, 15, 3])
    expected[:] = False
    for seed, first in enumerate(rows):
        expected[seed, first : first + 5] = True
    apart = jax.vmap(replay._write)(jnp.zeros((3, 20, 4, 2), bool), new, rows)
    np.testing.assert_array_equal(apart, expected)
