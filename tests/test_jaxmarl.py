"""Environments of JaxMARL by name: the same as the package's own, with ends told apart."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie.jax_envs.making import quietly
from coterie.views.game import Game

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore::{kind}:({packages})\b")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
    for packages in ("jaxmarl|brax|mujoco",)
] + [pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")]


def original(name: str, **options):
    """The package's own environment."""
    with quietly():
        import jaxmarl

        return jaxmarl.make(name, **options)


def of_storm(theirs, shown):
    each = range(len(theirs.agents))
    return [(shown["inventory"][:, i], shown["observations"][i]) for i in each]


def by_agent(theirs, shown):
    return [shown[agent] for agent in theirs.agents]


MASKED = ("SMAX", "HeuristicEnemySMAX", "hanabi")


def legal_actions(name: str, key, theirs, state):
    """Random legal actions, one for each agent, as the package's environment takes them."""
    keys = jax.random.split(key, len(theirs.agents))
    if name not in MASKED:
        spaces = map(theirs.action_space, theirs.agents)
        return [space.sample(own) for space, own in zip(spaces, keys, strict=True)]
    flags = (theirs.get_legal_moves if name == "hanabi" else theirs.get_avail_actions)(state)
    return [
        jax.random.categorical(own, jnp.where(flags[agent] > 0, 0.0, -1e9))
        for own, agent in zip(keys, theirs.agents, strict=True)
    ]


def in_both(name: str, steps: int, episodes: int = 4, **options):
    """Episodes in both environments at once, with the same actions, up to their first ends.

    Returns: arrays [T, E, ...] by name; past the end of an episode ``live`` is False.
    """
    ours, theirs = coterie.make(f"jaxmarl:{name}", **options), original(name, **options)
    spec = ours.spec()
    game = Game(ours, "state" if spec.central_size else "none")
    observed = of_storm if name == "storm" else by_agent

    def flat(tree):
        return jnp.concatenate([jnp.asarray(x, jnp.float32).ravel() for x in jax.tree.leaves(tree)])

    def padded(rows, width):
        return jnp.stack([jnp.pad(row, (0, width - row.shape[0])) for row in rows])

    def joint(rows):
        if not spec.actions:
            return jnp.stack(rows).astype(jnp.int32)
        return padded([row.astype(jnp.float32) for row in rows], spec.action_shape[1])

    def episode(key):
        reset_key, run_key = jax.random.split(key)
        (_, state), (own, _) = theirs.reset(reset_key), game.reset(reset_key)

        def step(carry, key):
            state, own, live = carry
            act_key, step_key = jax.random.split(key)
            rows = legal_actions(name, act_key, theirs, state)
            given = rows if name == "storm_2p" else dict(zip(theirs.agents, rows, strict=True))
            shown, after, rewards, dones, _ = theirs.step(step_key, state, given)
            # Their step is made with the first of two keys; the second one is for a reset.
            own, seen = game.step_env(jax.random.split(step_key)[0], own, joint(rows))
            rows = [flat(each) for each in observed(theirs, shown)]
            out = {
                "live": live,
                "their rewards": jnp.stack([jnp.float32(rewards[a]) for a in theirs.agents]),
                "their observations": padded(rows, spec.observation_size),
                "done": dones["__all__"],
                "seen": seen,
            }
            return (after, own, live & ~dones["__all__"]), out

        keys = jax.random.split(run_key, steps)
        return jax.lax.scan(step, (state, own, jnp.bool_(True)), keys)[1]

    out = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(7), episodes))
    return spec, jax.tree.map(lambda x: np.moveaxis(np.asarray(x), 0, 1), out)


def check_equal(name: str, steps: int, episodes: int = 4, **options):
    """Rewards, observations and ends; returns the spec, how episodes ended [E], and all."""
    spec, out = in_both(name, steps, episodes, **options)
    seen, live, done = out["seen"], out["live"], out["done"]
    going = live & ~done
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(seen.rewards[live], out["their rewards"][live], **close)
    own = seen.observations[going]
    np.testing.assert_allclose(own, out["their observations"][going], **close)
    np.testing.assert_array_equal((seen.terminated | seen.truncated)[live], done[live])
    assert (live & done).any(0).all(), "an episode did not end in time"
    ends = np.where((seen.terminated & live & done).any(0), "terminated", "truncated")
    return spec, ends, out


@pytest.mark.parametrize(
    ("name", "steps", "ends", "options"),
    [
        ("MPE_simple_spread_v3", 5, {"truncated"}, {"max_steps": 4}),
        ("HeuristicEnemySMAX", 12, {"truncated"}, {"max_steps": 12}),
        ("HeuristicEnemySMAX", 100, {"terminated"}, {}),
        ("SMAX", 100, {"terminated", "truncated"}, {"max_steps": 40}),
        ("overcooked", 6, {"truncated"}, {"max_steps": 6}),
        ("overcooked_v2", 6, {"truncated"}, {"max_steps": 6}),
        ("hanabi", 80, {"terminated"}, {}),
        ("coin_game", 6, {"truncated"}, {"num_inner_steps": 3, "num_outer_steps": 2}),
        ("storm", 6, {"truncated"}, {"num_inner_steps": 3, "num_outer_steps": 2}),
        ("storm_2p", 6, {"truncated"}, {"num_inner_steps": 3, "num_outer_steps": 2}),
        ("storm_np", 6, {"truncated"}, {"num_inner_steps": 3, "num_outer_steps": 2}),
        ("switch_riddle", 6, {"terminated", "truncated"}, {}),
        ("jaxnav", 60, {"terminated", "truncated"}, {"max_steps": 60}),
        ("hopper_3x1", 40, {"terminated", "truncated"}, {"episode_length": 40}),
    ],
)
def test_steps_are_those_of_the_package(name, steps, ends, options):
    import time

    t = time.time()
    spec, found, _ = check_equal(name, steps, 8, **options)
    print(name, options, sorted(found), round(time.time() - t, 1))
    assert set(found) == ends
