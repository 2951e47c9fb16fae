"""The compiled loop: reproducible, counted, the same whatever runs beside it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import (
    Starts,
    Steady,
    Walk,
    collector,
    game_for,
    quick,
    quick_program,
    random_learner,
    small,
    train,
)

from coterie.errors import UsageError
from coterie.training.evaluate import play, return_metrics
from coterie.training.state import clear_totals

ITERATIONS = 12


@functools.cache
def program(seeds):
    algorithm = small("qmix", recurrent=True, reward_scaling="standardise")
    return quick_program(algorithm, game_for(algorithm, Walk()), seeds)


def run(seeds, seed=0, pieces=(ITERATIONS,)):
    """The state after the iterations, advanced in so many pieces."""
    state, first = program(seeds).init(seed), 0
    for count in pieces:
        state = program(seeds).advance(state, first, count)
        first += count
    return state


def numbers(tree):
    data = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
    return [np.asarray(x) for x in jax.tree.leaves(data)]


@pytest.mark.slow
def test_a_seed_fixes_everything():
    for one, other in zip(numbers(run(2)), numbers(run(2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_differ_from_the_start():
    first = program(2).init(0)
    for x in (*numbers(first.learner.values), np.asarray(first.vector.time_step.observations)):
        assert not np.array_equal(x[0], x[1])
    state = run(2)
    assert not np.array_equal(*np.asarray(state.learner.replay.seen.observations))
    assert not np.array_equal(*np.asarray(jax.random.key_data(state.key)))


def test_how_iterations_are_cut_into_chunks_changes_nothing():
    for one, other in zip(numbers(run(2)), numbers(run(2, pieces=(1, 5, 6))), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_seed_alone_is_the_same_as_among_others():
    """Up to rounding: a batched matrix product may add in another order."""
    alone, among = numbers(run(1, seed=1)), numbers(run(2, seed=0))
    for one, both in zip(alone, among, strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one[0], both[1], rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(one[0], both[1])


def test_steps_are_transitions_and_not_episodes():
    """Every environment step of the counter is a real one: finished lengths and those going on."""
    state = run(2)
    over = np.asarray(state.vector.start)
    running = (np.asarray(state.vector.lengths) * ~over).sum(-1)
    steps = ITERATIONS * program(2).steps_per_iteration
    np.testing.assert_array_equal(np.asarray(state.episodes.lengths) + running, steps)
    assert steps == ITERATIONS * 2 * 4
    assert program(2).iterations(steps) == ITERATIONS
    assert program(2).iterations(steps + 1) == ITERATIONS + 1
    assert (np.asarray(state.episodes.count) < steps).all()


def test_updates_are_counted_as_they_are_made():
    state = run(2)
    due = program(2).algorithm.updates(ITERATIONS)
    assert due > 0
    np.testing.assert_array_equal(state.learner.optimiser[0].count, due)
    np.testing.assert_array_equal(state.losses["updates"], due)


@pytest.mark.parametrize(("k", "iterations"), [(1, 15), (10, 3)])
def test_the_update_ratio_is_kept_with_any_number_of_environments(k, iterations):
    algorithm = small("idqn", environments=k, update_ratio=1 / 4, learning_starts=0)
    state, made = train(algorithm, game_for(algorithm, Starts(3)), iterations)
    assert iterations * made.steps_per_iteration == 60
    assert state.learner.optimiser[0].count[0] == 60 / 4


def test_moments_are_part_of_the_state_and_cover_every_step():
    state = run(2)
    steps = ITERATIONS * program(2).steps_per_iteration
    np.testing.assert_array_equal(state.learner.moments.count, [[steps], [steps]])


@pytest.mark.slow
def test_memory_goes_on_from_one_rollout_to_the_next():
    """Items begin where rollouts do: all but those where an episode begins too recall something."""
    replay = run(1).learner.replay
    length = replay.layout.length
    hidden_state = np.asarray(replay.hidden_state)[0]
    start = np.asarray(replay.stored.start)[0, ::length]
    stored = program(1).algorithm.schedules(np.arange(ITERATIONS))["stored"][-1]
    rows = stored // start.shape[1]
    recalled = hidden_state[:rows][~start[:rows].any(-1)]
    assert len(recalled) > stored / 4
    assert np.any(recalled, axis=-1).all()


def test_the_best_policy_is_kept_by_the_environments_own_reward():
    state = run(2)
    untrained = numbers(state.best)
    state, _ = program(2).evaluate(state, 0)
    for kept, then in zip(numbers(state.best), untrained, strict=True):
        np.testing.assert_array_equal(kept, then)  # before training nobody competes
    state, played = program(2).evaluate(state, 2**33 + 5)
    np.testing.assert_array_equal(state.best.iteration, [[5, 2]] * 2)
    returns, lengths, _ = played["eval"]
    assert returns.shape == (2, 4, 3)
    assert lengths.shape == (2, 4)
    np.testing.assert_allclose(state.best.score, np.asarray(returns).sum(-1).mean(-1), rtol=1e-5)
    policy = numbers(state.learner.values.utility)
    for kept, now in zip(numbers(state.best.policy), policy, strict=True):
        np.testing.assert_array_equal(kept, now)
    state = eqx.tree_at(lambda s: s.best.score, state, state.best.score + 1e6)
    before = numbers(state.best)
    state = program(2).advance(state, ITERATIONS, 1)
    state, _ = program(2).evaluate(state, 2**33 + 6)
    for kept, then in zip(numbers(state.best), before, strict=True):
        np.testing.assert_array_equal(kept, then)


def test_evaluations_count_one_episode_each_in_the_environments_own_rewards():
    """``Walk`` pays agent i its actions, 10 i a step, and 100 at the end; 5 steps at most."""
    _, played = program(2).evaluate(run(2), 7)
    returns, lengths = map(np.asarray, played["eval"][:2])
    assert ((lengths >= 1) & (lengths <= 5)).all()
    for i, most in enumerate((1, 2, 3)):
        by_action = returns[..., i] - 10 * i * lengths
        by_action -= 100.0 * (by_action >= 100)
        assert ((by_action >= 0) & (by_action <= most * lengths)).all()
    assert (returns[..., 0][lengths < 5] >= 100).all()


def test_evaluation_remembers_as_acting_does():
    """In a game without chance, greedy acting and evaluation make the same return."""
    algorithm = small("idqn", recurrent=True, environments=1, update_ratio=1 / 24)
    game = game_for(algorithm, Steady())
    policy = jax.tree.map(lambda x: 4 * x, random_learner(algorithm, game).values.utility)
    seen, *_ = collector(algorithm, game)(policy, [0.0])
    earned = seen.rewards[0, 0, :, 0].reshape(4, 6, 2)
    assert np.array_equal(earned, np.broadcast_to(earned[0], earned.shape))
    none, always = policy.initial_hidden_state(24), jnp.ones((24, 2), bool)
    forgetful, _ = quick(lambda o: policy.step(none, o, always))(seen.observations[0, 0, :, 0])
    assert (np.asarray(forgetful).argmax(-1)[:6] != earned[0]).any(), "actions depend on memory"
    returns, *_ = quick(lambda k: play(game, policy, k, 2))(jax.random.key(0))
    np.testing.assert_allclose(returns, np.broadcast_to(earned[0].sum(0), (2, 2)))


def test_log_totals_are_cleared_and_nothing_else():
    state = run(1)
    cleared = clear_totals(state)
    assert not any(np.any(x) for x in numbers((cleared.episodes, cleared.losses)))
    for one, other in zip(numbers(cleared.learner), numbers(state.learner), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_size_is_known_before_anything_is_allocated():
    made = sum(x.nbytes for x in numbers(program(2).init(0)))
    assert program(2).bytes() == made


def test_returns_have_their_fixed_names():
    metrics = return_metrics("eval", ("a", "b"), np.array([[1.0, 3.0], [3.0, 5.0]]), [4, 6])
    assert metrics == {
        "eval/return/agent/a": 2.0,
        "eval/return/agent/b": 4.0,
        "eval/return/team_sum": 6.0,
        "eval/return/team_mean": 3.0,
        "eval/length": 5.0,
    }
    with pytest.raises(UsageError, match="not finite"):
        return_metrics("eval", ("a",), np.array([np.nan]), 1)
