"""What a learner sees of an environment: ends, padding, common reward, prepared starts."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Starts, Walk, collector, quick, random_learner, small

from coterie.envs.base import Environment
from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError
from coterie.spec import EnvSpec
from coterie.types import TimeStep
from coterie.views.game import Game
from coterie.views.steps import learner_rewards
from coterie.views.vector import sample_resets


class Clock(Environment):
    """Observes the time; the game itself ends at ``terminal`` or cuts at ``cut``."""

    agents = ("a", "b")

    def __init__(self, time_limit=None, terminal=10**6, cut=10**6, late_mask=False):
        self.time_limit, self.terminal, self.cut = time_limit, terminal, cut
        self.late_mask = late_mask

    def spec(self):
        return EnvSpec(self.agents, (1, 1), (2, 1), time_limit=self.time_limit)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._show(jnp.zeros((), jnp.int32))

    def step(self, key, state, actions):
        shown = self._show(state + 1)
        if self.late_mask:
            shown = dataclasses.replace(shown, action_mask=jnp.array([[False, True], [True, True]]))
        return state + 1, shown

    def _show(self, t):
        return TimeStep(
            observations=jnp.full((2, 1), t, jnp.float32),
            rewards=jnp.array([1.0, 10.0]),
            terminated=t >= self.terminal,
            truncated=t >= self.cut,
        )


def ends(game, steps=4):
    """(terminated, truncated) after each of so many steps."""

    def step(state, _):
        state, shown = game.step(jax.random.key(0), state, jnp.zeros(2, jnp.int32))
        return state, (shown.terminated, shown.truncated)

    first, _ = game.reset(jax.random.key(0))
    terminated, truncated = jax.lax.scan(step, first, length=steps)[1]
    return list(zip(terminated.tolist(), truncated.tolist(), strict=True))


GOES_ON, ENDS, IS_CUT = (False, False), (True, False), (False, True)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (Clock(time_limit=3), [GOES_ON, GOES_ON, IS_CUT]),
        (Clock(time_limit=3, terminal=3), [GOES_ON, GOES_ON, ENDS]),
        (Clock(time_limit=3, terminal=2), [GOES_ON, ENDS]),
        (Clock(time_limit=3, cut=2), [GOES_ON, IS_CUT]),
        (Clock(cut=2), [GOES_ON, IS_CUT]),
        (Clock(), [GOES_ON] * 4),
    ],
)
def test_the_limit_truncates_and_a_terminal_state_wins(env, expected):
    assert ends(Game(env))[: len(expected)] == expected


def test_common_reward_is_the_sum_or_the_mean_of_all():
    rewards = jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    own, total, mean = (
        learner_rewards(rewards, Game(Walk(), "none", r)) for r in ("individual", "sum", "mean")
    )
    np.testing.assert_array_equal(own, rewards)
    np.testing.assert_array_equal(total, [[9.0] * 3, [3.0] * 3])
    np.testing.assert_array_equal(mean, [[3.0] * 3, [1.0] * 3])
    team = learner_rewards(rewards, Game(Walk(), "none", "sum", joint=True))
    np.testing.assert_array_equal(team, [[9.0], [3.0]])


def first_views(game):
    @quick
    def play():
        state, first = game.reset(jax.random.key(1))
        return first, game.step(jax.random.key(2), state, jnp.zeros(game.spec.n_agents, jnp.int32))

    first, (_, second) = play()
    return jax.tree.map(np.asarray, (first, second))


@pytest.mark.parametrize("central", ["none", "state", "joint"])
def test_unequal_agents_are_padded_and_masked(central):
    game = Game(Walk(chance=0.0, mortal=False), central)
    for t, view in enumerate(first_views(game)):
        assert view.observations.shape == (3, 5)
        assert (view.observations[:, 3:] == 0).all(), "padding is zero"
        assert (view.observations[:, 1] == t).all()
        assert view.observations[0, 0] == view.observations[1, 0] > 0
        odd = t % 2 == 1
        expected = [[1, 1, 0, 0], [not odd, 1, 1, 0], [1, 1, 1, odd]]
        np.testing.assert_array_equal(view.action_mask, np.array(expected, bool))
        assert view.alive.all()
        z = {
            "none": [],
            "state": view.observations[0, :2],
            "joint": view.observations.ravel(),
        }[central]
        np.testing.assert_array_equal(view.central, z)
        assert view.central.shape == (game.central_size,)


def test_what_an_environment_leaves_out_is_filled_in():
    for view in first_views(Game(Clock())):
        np.testing.assert_array_equal(view.action_mask, [[True, True], [True, False]])
        assert view.alive.all()


def test_a_mask_that_only_steps_give_is_kept_and_never_adds_actions():
    game = Game(Clock(late_mask=True))
    first, second = first_views(game)
    np.testing.assert_array_equal(first.action_mask, [[True, True], [True, False]])
    np.testing.assert_array_equal(second.action_mask, [[False, True], [True, False]])
    algorithm = small("idqn", environments=1, update_ratio=1 / 4)
    game = Game(Clock(2, late_mask=True))
    policy = random_learner(algorithm, game).values.utility
    seen, *_ = collector(algorithm, game)(policy, [0.5])
    np.testing.assert_array_equal(seen.action_mask[0, 0, :, 0, 0, 0], [True, False] * 2)
    np.testing.assert_array_equal(seen.next_action_mask[0, 0, :, 0, 0, 0], [False] * 4)


def test_z_that_is_not_offered_is_refused():
    with pytest.raises(UsageError, match="joint"):
        Game(Clock(), "state").reset(jax.random.key(0))


def words(number):
    return jnp.array([number % 2**32, number // 2**32], jnp.uint32)


def starts_by_number(key, first, count):
    drawn = quick(lambda k, w: sample_resets(Game(Starts(1)), k, w, count)[1].observations[:, 0, 0])
    return np.asarray(drawn(key, words(first)))


@pytest.mark.parametrize(
    ("environments", "steps", "limit", "seeds", "rollouts", "first"),
    [
        (2, 3, 7, 3, 80, 2**32 - 40),
        (5, 4, 1, 1, 6, 5),
        (600, 2, 2, 2, 12, 600),
    ],
)
def test_every_start_is_used_once_in_order(environments, steps, limit, seeds, rollouts, first):
    """Whatever the pool's size, when it is refilled, how many seeds run, and beyond 2^32."""
    algorithm = small(
        "idqn", environments=environments, update_ratio=1 / (environments * steps), buffer_size=2000
    )
    game = Game(Starts(limit))
    policy = random_learner(algorithm, game).values.utility
    drawn = (first % 2**32, first // 2**32)
    seen, _, before, after = collector(algorithm, game, seeds)(policy, [1.0] * rollouts, drawn)
    # Where ``first`` is not the number that follows, the starts held already do not count.
    held = math.prod(jax.tree.leaves(before.pool)[0].shape[1:3])
    skip = 0 if first == environments else held
    for s in range(seeds):
        used = seen.observations[s, ..., 0, 0][seen.start[s]][environments + skip :]
        assert len(used) > 2 * held, "the pool was refilled"
        expected = starts_by_number(before.key[s], first + skip, len(used))
        np.testing.assert_array_equal(used, expected)
        assert after.sampled[s, 1] == (first > 2**31)


def test_starts_are_counted_in_64_bits():
    key = jax.random.key(3)
    across = starts_by_number(key, 2**32 - 2, 4)
    np.testing.assert_array_equal(across[2:], starts_by_number(key, 2**32, 2))
    low = starts_by_number(key, 0, 2)
    assert not np.intersect1d(across, low).size, "numbers that differ in the high word only"


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_end_flags_of_a_reset_have_their_shape_too(flag):
    class Odd(MatrixGame):
        def reset(self, key):
            state, shown = super().reset(key)
            return state, eqx.tree_at(lambda s: getattr(s, flag), shown, jnp.zeros(5, bool))

    with pytest.raises(UsageError, match=rf"{flag} must have shape \(\) or \(2,\)"):
        Game(Odd(np.zeros((2, 2)))).reset(jax.random.key(0))
