"""Training stops at the first number that is not finite, and says which it was."""

import dataclasses
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import game_for, quick_program, small, spied
from quick import quick_compilation

import coterie
from coterie.cli.entry import main
from coterie.errors import NotFinite
from coterie.runs.api import resume, train
from coterie.spec import EnvSpec
from coterie.storage.files import read_sealed
from coterie.storage.tree_files import read_arrays
from coterie.training import evaluate
from coterie.training import loop as training
from coterie.training.finite import without_replay
from coterie.types import TimeStep

REWARD, OBSERVATION, CENTRAL, DEAD_REWARD, DEAD_OBSERVATION = range(1, 6)
LOSS, GRADIENT, PARAMETER, MOMENTS = range(6, 10)
"""Faults, as they stand in an environment's state and in z."""
NAN = jnp.float32(jnp.nan)


class Faulty(coterie.Environment):
    """Three agents, of whom c dies at step 2; something is not finite from step ``when`` on.

    What is wrong stands in the state, where a test writes it: one program serves all faults.
    """

    agents = ("a", "b", "c")

    def __init__(self, fault: int = 0, when: int = 0):
        self.fault, self.when = fault, when

    def spec(self) -> EnvSpec:
        return EnvSpec(self.agents, (3, 2, 2), (2, 2, 2), central_size=2, time_limit=50)

    def reset(self, key):
        fault, when = jnp.int32(self.fault), jnp.int32(self.when)
        state = {"t": jnp.int32(0), "fault": fault, "when": when}
        return state, self._show(state, jnp.zeros(3))

    def step(self, key, state, actions):
        state = state | {"t": state["t"] + 1}
        return state, self._show(state, actions.astype(jnp.float32))

    def _show(self, state, rewards):
        now = jnp.where(state["t"] >= state["when"], state["fault"], 0)
        alive = jnp.array([True, True, False]) | (state["t"] < 2)
        dead = ~alive[2]
        rewards = rewards.at[1].set(jnp.where(now == REWARD, NAN, rewards[1]))
        gone = jnp.where(now == DEAD_REWARD, NAN, 0.0)
        seen = jnp.stack([state["t"] / 10, jnp.float32(1)])
        centre = jnp.stack([jnp.where(now >= LOSS, now, 0), state["t"]]).astype(jnp.float32)
        never = jnp.zeros((), bool)
        return TimeStep(
            observations=(
                jnp.append(seen, jnp.where(now == OBSERVATION, jnp.inf, 0.0)),
                seen,
                jnp.where((now == DEAD_OBSERVATION) & dead, NAN, seen),
            ),
            # Paid once more in the step of its death, at t = 2.
            rewards=rewards.at[2].set(jnp.where(state["t"] > 2, gone, rewards[2])),
            terminated=never,
            truncated=never,
            alive=alive,
            central=jnp.where(now == CENTRAL, NAN, centre),
        )


def spoilt(tree, network: int, wrong):
    """The tree, agent ``network``'s own numbers spoilt where ``wrong``."""

    def spoil(x):
        if not jnp.issubdtype(x.dtype, jnp.inexact) or not x.ndim:
            return x
        return x.at[network].set(jnp.where(wrong, NAN, x[network]))

    return jax.tree.map(spoil, tree)


def learn_badly(self, game, learner, rollout, key, clock):
    """What MAA2C learns, and then the fault that z tells of."""
    after, losses = super(type(self), self).learn(game, learner, rollout, key, clock)
    fault = jnp.max(rollout.next_central[..., 0])
    moments = eqx.tree_at(
        lambda m: m.variance,
        after.moments,
        jnp.array([1.0, jnp.where(fault == MOMENTS, jnp.inf, 1.0), 1.0]),
    )
    gradient = fault == GRADIENT
    optimiser = after.optimiser._replace(mu=spoilt(after.optimiser.mu, 2, gradient))
    after = eqx.tree_at(
        lambda x: (x.actor, x.optimiser, x.moments),
        after,
        (spoilt(after.actor, 2, gradient | (fault == PARAMETER)), optimiser, moments),
    )
    loss = jnp.where(fault == LOSS, NAN, losses["critic_loss"])
    return after, losses | {"critic_loss": loss}


@functools.cache
def program(name: str):
    algorithm = small(name, reward_scaling="standardise", learning_starts=0)
    if name == "maa2c":
        algorithm = spied(algorithm, learn=learn_badly)
    return quick_program(algorithm, game_for(algorithm, Faulty()), seeds=2)


def trained(name: str, fault: int = 0, when: int = 0, iterations: int = 4, seed: int = 1):
    """The state after so many iterations, of which seed 1 meets the fault."""
    start = program(name).init(5)
    faults = jnp.zeros(start.vector.state.env["fault"].shape, jnp.int32).at[seed].set(fault)
    whens = jnp.full_like(faults, when)
    start = eqx.tree_at(
        lambda s: (s.vector.state.env["fault"], s.vector.state.env["when"]), start, (faults, whens)
    )
    return program(name).advance(start, 0, iterations)


SENTENCES = {
    REWARD: "the reward of b",
    OBSERVATION: "the observation of a",
    CENTRAL: "the centralised information z",
    LOSS: "the critic loss",
    GRADIENT: "the gradient of c",
    PARAMETER: "a parameter of c",
    MOMENTS: "the variance of rewards of b",
}


@pytest.mark.parametrize("fault", SENTENCES)
def test_it_stops_in_the_rollout_where_it_happens(fault):
    """Four environments, rollouts of four steps: step 7 is in the second."""
    with pytest.raises(NotFinite) as caught:
        trained("maa2c", fault, when=7)
    bad = caught.value
    # What is not looked at after every rollout is found at the end of the chunk.
    step = 64 if fault == MOMENTS else 32
    assert (bad.what, bad.seed, bad.step) == (SENTENCES[fault], 1, step)
    assert str(bad) == (
        f"{SENTENCES[fault]} is not finite in seed 1 at step {step}: training stopped before "
        "anything was saved of it"
    )


@pytest.mark.parametrize(("fault", "seed"), [(REWARD, 0), (OBSERVATION, 1)])
def test_value_based_algorithms_stop_too(fault, seed):
    with pytest.raises(NotFinite, match=SENTENCES[fault]) as caught:
        trained("vdn", fault, when=3, iterations=10, seed=seed)
    rollout = program("vdn").rollout_steps
    assert (caught.value.seed, caught.value.step) == (seed, -(-3 // rollout) * rollout * 4)


@pytest.mark.parametrize("name", ["maa2c", "vdn"])
@pytest.mark.parametrize("fault", [DEAD_REWARD, DEAD_OBSERVATION])
def test_what_does_not_count_may_be_anything(name, fault):
    """A dead agent's numbers reach no loss, no gradient and no statistic, whatever they are."""
    well, odd = trained(name, iterations=6), trained(name, fault, iterations=6)
    for state in (well, odd):
        assert float(state.losses["updates"][1]) > 0
    parts = ((without_replay(s.learner), s.episodes, s.losses, s.hidden_state) for s in (well, odd))
    for a, b in zip(*map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_learned_after_it():
    start = program("maa2c").init(5)
    fault = jnp.full_like(start.vector.state.env["fault"], LOSS)
    start = eqx.tree_at(lambda s: s.vector.state.env["fault"], start, fault)
    clock = program("maa2c").algorithm.schedules(np.arange(program("maa2c").chunk))
    _, done, _, wrong = program("maa2c")._advance(start, clock, np.int32(4))
    assert (int(done), bool(wrong)) == (1, True)


# Whole runs ------------------------------------------------------------------------------------


class Late(Faulty):
    """Pays b no number late in the third quarter of a run; its only episode goes on and on."""

    def __init__(self):
        super().__init__(REWARD, 41)

    def spec(self):
        return dataclasses.replace(super().spec(), time_limit=None)


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(training, "CHUNK_STEPS", 32)
        patch.setattr(evaluate, "NO_LIMIT_STEPS", 30)  # evaluations end before it happens
        yield


ALGORITHM = coterie.IA2C(environments=4, rollout_steps=4, hidden=(8,))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of 64 steps of each of four environments, and what ended it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(NotFinite) as caught:
        train(ALGORITHM, Late, 256, seeds=2, seed=7, out=path, evaluations=2, final_episodes=0)
    return path, caught.value


def test_a_run_ends_with_the_good_checkpoints(stopped):
    path, bad = stopped
    assert (bad.what, bad.step) == ("the reward of b", 176)
    assert bad.seed in (7, 8)
    assert sorted(int(p.name) for p in (path / "checkpoints").iterdir()) == [64, 128]
    for file in path.rglob("*.safetensors"):
        arrays, _ = read_arrays(file)
        for name, array in arrays.items():
            if name.endswith("best/score"):
                continue  # nothing was evaluated: minus infinity
            assert np.isfinite(array).all(), (file, name)
    logged = [json.loads(x)["env_steps"] for x in (path / "metrics.jsonl").read_text().splitlines()]
    assert max(logged) == 160
    assert read_sealed(path / "config.json")["steps"] == 256


def test_going_on_stops_there_again(stopped, capsys, monkeypatch):
    path, bad = stopped
    with pytest.raises(NotFinite) as caught:
        resume(path, environment=Late)
    assert (caught.value.what, caught.value.seed, caught.value.step) == (
        bad.what, bad.seed, bad.step,
    )  # fmt: skip
    monkeypatch.setattr(coterie.runs.api, "resume", lambda *_, **__: resume(path, environment=Late))
    assert main(["resume", str(path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"coterie: {bad}"


def test_a_return_in_evaluation_must_be_finite_too(tmp_path):
    faulty = Faulty(REWARD, 41)
    with pytest.raises(NotFinite, match="the return of b in an evaluation is not finite in seed 3"):
        train(ALGORITHM, lambda: faulty, 32, seed=3, out=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        ".lock", "checkpoints", "config.json", "metrics.jsonl",
    ]  # fmt: skip
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
