"""Many agents: traces of linear size, pools that stay small, memory known beforehand."""

import logging
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
from coterie.errors import UsageError
from coterie.storage.run_directory import RunDirectory
from coterie.training import memory
from coterie.training.devices import Devices
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
    assert sizes[-1] < 3000
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


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_a_smaller_pool_gives_the_same_rollouts(monkeypatch, whole):
    usual, room = rollouts(monkeypatch, 10**9, whole)
    seen, smaller = rollouts(monkeypatch, 1, whole)
    assert smaller < room
    jax.tree.map(np.testing.assert_array_equal, seen, usual)


@pytest.mark.slow
def test_a_run_with_a_larger_pool_goes_on_exactly(monkeypatch, tmp_path):
    """As one of a version that had no limit: its checkpoint holds a pool of another size."""

    def run(name: str, limit: int, steps: int, **more: Any) -> Any:
        monkeypatch.setattr(vector, "POOL_BYTES", limit)
        algorithm = small("ippo", environments=8, rollout_steps=6)
        return coterie.train(
            algorithm, "lbf/5x5-2p-1f", steps, seeds=2, out=tmp_path / name,
            options={"time_limit": 4}, evaluations=2, evaluation_episodes=4, final_episodes=4,
            **more,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run("broken", 10**9, 960, callback=_stop_after(480))
    monkeypatch.setattr(vector, "POOL_BYTES", 1)
    continued = coterie.resume(tmp_path / "broken")
    whole = run("whole", 10**9, 960)
    jax.tree.map(np.testing.assert_array_equal, continued.learner, whole.learner)


def _stop_after(steps: int) -> Any:
    def stop(event: Any) -> None:
        if event.kind == "train" and event.env_steps >= steps:
            raise KeyboardInterrupt

    return stop


# Memory ------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(caplog):
    """What JAX logs of each function that it compiles."""
    with caplog.at_level(logging.DEBUG, "jax"), jax.log_compiles():
        yield lambda: [
            record.getMessage()
            for record in caplog.records
            if record.getMessage().startswith("Finished XLA compilation")
        ]


def trained(tmp_path: Any, **more: Any) -> Any:
    algorithm = small("mappo", environments=8, rollout_steps=8)
    return coterie.train(
        algorithm, "mpe/simple-spread", 256, central="joint", out=tmp_path / "run",
        evaluations=2, evaluation_episodes=2, final_episodes=2, **more,
    )  # fmt: skip


def needs(central: str = "joint") -> tuple[int, int]:
    """Bytes of the state of ``trained``, and of what its programs take besides."""
    algorithm = small("mappo", environments=8, rollout_steps=8).resolve(256)
    devices = Devices(algorithm, Game(coterie.make("mpe/simple-spread"), central), 1)
    try:
        return devices.bytes(), devices.working_bytes()
    finally:
        devices.close()


@pytest.mark.slow
def test_temporaries_that_do_not_fit_refuse_a_run_and_leave_nothing(monkeypatch, tmp_path):
    state, working = needs()
    assert working > state / 10
    monkeypatch.setattr(memory, "available_memory", lambda: int((state + working / 2) / 0.9))
    with pytest.raises(UsageError, match=r"GB of it while it computes, but only .*--environments"):
        trained(tmp_path)
    RunDirectory(tmp_path / "run").check_blank()
    monkeypatch.setattr(memory, "available_memory", lambda: int((state + working) * 1.3 / 0.9))
    monkeypatch.setattr("coterie.runs.plan.check_episodes", lambda *given: None)
    assert trained(tmp_path).steps == 256


@pytest.mark.slow
def test_a_trained_run_stays_where_its_final_evaluation_does_not_fit(monkeypatch, tmp_path):
    def refuse(needed: int, advice: str) -> None:
        memory.check_memory(10**18, advice)

    with monkeypatch.context() as patch:
        patch.setattr("coterie.runs.evaluation.check_memory", refuse)
        with pytest.raises(UsageError, match="lower --final-episodes"):
            trained(tmp_path)
    assert coterie.resume(tmp_path / "run").steps == 256


@pytest.mark.slow
def test_what_is_checked_is_what_runs(compiled, tmp_path):
    """Nothing is compiled twice."""
    trained(tmp_path)
    said = compiled()
    assert sum("_run_chunk" in sentence for sentence in said) == 1, said
