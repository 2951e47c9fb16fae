"""Many agents: traces of linear size, pools that stay small, memory known beforehand."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from probes import collector, random_learner, small

import coterie
from coterie.envs.grid import distinct
from coterie.views import vector
from coterie.views.game import Game

COUNTS = (8, 16, 32, 64)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those inside of loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def traced(env: Any, batch: int = 3) -> int:
    """Equations of a reset and a step of a batch."""

    def play(keys):
        states, _ = jax.vmap(env.reset)(keys)
        actions = jnp.zeros((batch, *env.spec().action_shape), env.spec().action_dtype)
        return jax.vmap(env.step)(keys, states, actions)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    return sum(1 for _ in equations(jax.make_jaxpr(play)(keys).jaxpr))


def make_task(name: str, players: int) -> Any:
    if name == "mpe/simple-tag":
        return coterie.make(name, num_adversaries=players - 3, num_good=3)
    if name.startswith("mpe"):
        return coterie.make(name, n=players)
    return coterie.make(name.format(players, players // 2))


@pytest.mark.parametrize(
    "name", ["lbf/30x30-{}p-{}f", "lbf/30x30-{}p-{}f-3s", "mpe/simple-spread", "mpe/simple-tag"]
)
def test_a_trace_grows_no_faster_than_the_number_of_agents(name):
    sizes = [traced(make_task(name, count)) for count in COUNTS]
    per_agent = np.diff(sizes) / np.diff(COUNTS)
    assert sizes[-1] < 2000
    # What each further agent adds does not grow with their number.
    assert (per_agent <= max(per_agent[0], 0) + 1).all(), sizes


def test_random_bits_choose_every_cell_in_turn_among_those_left():
    """Against picking from a list, one after the other."""
    bits = np.asarray(jax.random.bits(jax.random.key(4), (12, 50)))
    found = np.asarray(distinct(jnp.asarray(bits), 15))
    for words, cells in zip(bits.T.tolist(), found.T.tolist(), strict=True):
        left = list(range(15))
        assert cells == [left.pop(word % len(left)) for word in words]


# The pool of reset states -----------------------------------------------------------------------


def rollouts(monkeypatch, limit: int, whole: bool) -> tuple[Any, int]:
    """What two rollouts collect with a pool of about so many bytes, and what it has room for."""
    monkeypatch.setattr(vector, "POOL_BYTES", limit)
    name = "reinforce" if whole else "ippo"
    algorithm = small(name, environments=20, rollout_steps=12).resolve(1000, 12)
    game = Game(coterie.make("lbf/5x5-2p-1f", time_limit=7))
    policy = algorithm.policy(random_learner(algorithm, game))
    seen, _, before, _ = collector(algorithm, game, 2)(policy, [1.0, 1.0])
    _, blocks, block = jax.tree.leaves(before.pool)[0].shape[:3]
    return seen, blocks * block


@pytest.mark.parametrize("whole", [False, True])
def test_a_smaller_pool_gives_the_same_rollouts(monkeypatch, whole):
    usual, room = rollouts(monkeypatch, 10**9, whole)
    for limit in (1, 20_000):
        seen, smaller = rollouts(monkeypatch, limit, whole)
        assert smaller < room
        jax.tree.map(np.testing.assert_array_equal, seen, usual)
