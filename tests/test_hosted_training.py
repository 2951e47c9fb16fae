"""Training on Python environments: equal to compiled ones, in whatever process they are."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import guests
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import game_for, small
from quick import quick_compilation

import coterie
from coterie import EnvironmentFault, PythonEnvSettings, UsageError
from coterie.algorithms import algorithms
from coterie.cli.entry import main
from coterie.learners.replay import minibatch
from coterie.python_envs import evaluate as hosted_play
from coterie.python_envs import opening
from coterie.python_envs import training as hosted_lanes
from coterie.python_envs.opening import open_python_env
from coterie.python_envs.probe import is_common
from coterie.python_envs.training import HostDevice
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, STEP, Limits, rows_bytes
from coterie.runs import plan
from coterie.runs.environments import make_game, open_environment
from coterie.runs.learner import learner
from coterie.spec import EnvSpec
from coterie.training.finite import without_replay
from coterie.training.loop import Program
from coterie.types import TimeStep

WALL_CLOCK = ("seconds", "steps_per_second", "digest")
SERIAL, WORKERS = PythonEnvSettings(workers=0), PythonEnvSettings(workers=2)
TINY = {"environments": 3, "hidden": (4,), "learning_starts": 20, "batch_size": 4}


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Looks from the host after every few rollouts."""
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(hosted_lanes, "CHUNK_STEPS", 24)
        patch.setattr(plan, "EPISODES", 4)
        yield


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert multiprocessing.active_children() == []


def train(name, environment, out=None, python_env=SERIAL, steps=120, **more):
    settings = TINY | {"update_ratio": 1 / 3, "buffer_size": 600, "rollout_steps": 4}
    options = {"evaluations": 2, "final_episodes": 4, "reward": "sum"}
    return coterie.train(
        small(name, **(settings | more.pop("settings", {}))),
        environment, steps, out=out, python_env=python_env, **(options | more),
    )  # fmt: skip


def lines(run) -> list[dict]:
    found = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if not k.startswith(WALL_CLOCK)} for x in found]


def same_tree(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


# Equal to compiled environments ----------------------------------------------------------------


class NativeRelay(coterie.Environment):
    """``guests.Relay`` in JAX."""

    agents = ("a", "b", "c")

    def spec(self):
        return EnvSpec(self.agents, (2, 3, 4), (2, 3, 2), central_size=2, time_limit=7)

    def reset(self, key):
        state = (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        return state, self._show(state, jnp.zeros(3), jnp.array(False), jnp.ones(3, bool))

    def step(self, key, state, actions):
        number, t = state
        living = jnp.array([True, True, t < 3])
        number = (number + jnp.where(living, actions, 0) @ jnp.array([1, 2, 1])) % 5
        t = t + 1
        over = (number == 4) & (t >= 2)
        rewards = jnp.where(living, number + 10.0 * jnp.arange(3), 0.0)
        alive = living & (over | jnp.array([True, True, t < 3]))
        # Who dies in the very step that ends the game for all is not told apart.
        return (number, t), self._show((number, t), rewards, over, alive)

    def _show(self, state, rewards, over, alive):
        number, t = state
        seen = jnp.stack([number / 5, t / 7, 1.0, -1.0])
        rows = tuple(jnp.where(alive[i], seen[: 2 + i], 0.0) for i in range(3))
        mask = jnp.ones((3, 3), bool).at[0, 1].set((t % 2 == 0) | ~alive[0])
        state = jnp.stack([number / 1.0, t])
        return TimeStep(rows, rewards, over, jnp.array(False), mask, alive, state)


def hosted_game(algorithm, name="guests:Relay"):
    hosted = open_python_env(name, getattr(guests, name.partition(":")[2]), state=True)
    return dataclasses.replace(game_for(algorithm, NativeRelay()), env=hosted)


COMPARED = ("reinforce", "qmix", "mappo", "central_q")


def learned(algorithm, learner, rollouts):
    """What all seeds learned with; replay, whose layout depends on the time limit, by its items."""
    kept = without_replay(learner)
    if not hasattr(learner, "replay"):
        return kept

    def items(ring):
        index = jnp.arange(min(rollouts * algorithm._items(), algorithm._capacity()))
        batch = minibatch(ring, index, algorithm.own_minibatch)
        over = batch.terminated  # what follows means nothing there
        nothing = {
            name: jnp.where(over.reshape(over.shape + (1,) * (x.ndim - 3)), 0, x)
            for name in ("next_observations", "next_action_mask", "next_alive")
            for x in (getattr(batch, name),)
        }
        central = jnp.where(over[..., :1], 0, batch.next_central)
        return vars(batch) | nothing | {"next_central": central, "cut": ()}

    return kept, jax.vmap(items)(learner.replay)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "reinforce" else pytest.mark.slow)
        for name in algorithms()
    ],
)
def test_what_is_learned_is_what_is_learned_of_the_compiled_twin(name):
    """For four that differ in all that a rollout can differ in; the others learn of the same."""
    extra = {"episode_steps": 7, "rollout_steps": 8, "learning_starts": 8, "sequence_length": 8}
    algorithm = small(name, recurrent=name in COMPARED[1:3], **extra)
    lanes = HostDevice(algorithm, hosted_game(algorithm), 2, 3, 4, SERIAL, pytest.fail)
    states = lanes.init(3)
    before = jax.tree.map(np.asarray, algorithm.policy(states[0].learner))
    for i in range(4):
        states = lanes.advance(states, i, 1)
    (state,) = states
    assert state.episodes.count.min() > 3
    assert not same_tree(before, algorithm.policy(state.learner))
    _, played = lanes.evaluate(states, 0)
    if name not in COMPARED:
        return
    native = Program(algorithm, game_for(algorithm, NativeRelay()), 2, episodes=4)
    expected = native.advance(native.init(3), 0, 4)
    for part in ("learner", "losses", "episodes", "hidden_state"):
        both = (getattr(x, part) for x in (state, expected))
        if part == "learner":
            both = (learned(algorithm, each, 4) for each in both)
        for (path, a), (_, b) in zip(*map(jax.tree_util.tree_leaves_with_path, both), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"{part}{path}")
    _, wanted = native.evaluate(expected, 0)
    np.testing.assert_array_equal(played["eval"][0], wanted["eval"][0])
    np.testing.assert_array_equal(played["eval"][1], wanted["eval"][1])


# In whatever process ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ippo", {"recurrent": True, "minibatches": 1}),
        ("qmix", {}),
    ],
)
def test_workers_change_nothing(name, settings, tmp_path):
    serial, spread = (
        train(name, guests.Dice, tmp_path / str(h.workers), h, seeds=2, settings=settings)
        for h in (SERIAL, WORKERS)
    )
    assert lines(serial) == lines(spread)
    assert len(lines(serial)) > 8
    assert same_tree(serial.learner, spread.learner)
    assert same_tree(serial.policies, spread.policies)
    strip = lambda run: {k: v["per_seed"] for k, v in run.metrics.items()}  # noqa: E731
    assert strip(serial) == strip(spread)


def test_workers_do_not_wait_for_jax():
    code = "import sys, coterie.python_envs.workers.pool; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Interrupted -----------------------------------------------------------------------------------


def interrupted(environment, out, at=60, **more):
    """A run stopped by Ctrl-C, after at least so many steps."""

    def report(event, facts):
        if event == "progress" and facts["env_steps"] >= at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(coterie.Interrupted) as stopped:
        train("vdn", environment, out, report=report, **more)
    assert at <= stopped.value.steps < 120
    return stopped.value


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    whole = train("vdn", guests.Dice, tmp_path / "whole", seeds=2)
    cut = interrupted(guests.Dice, tmp_path / "cut", seeds=2)
    resumed = coterie.resume(cut.path, environment=guests.Dice, workers=2, report=no_warning)
    assert lines(resumed) == lines(whole)
    assert same_tree(resumed.learner, whole.learner)
    assert same_tree(resumed.policies, whole.policies)


def no_warning(event, facts):
    assert event != "warning", facts


@pytest.mark.parametrize("name", ["vdn", "ia2c"])
def test_what_seeds_learned_with_is_read_from_a_checkpoint(name, tmp_path):
    run = train(name, guests.Relay, tmp_path / "run", seeds=2)
    opened = coterie.open_run(tmp_path / "run", guests.Relay)
    for seed in (0, 1):
        found = learner(opened, seed)
        assert jax.tree.structure(found) == jax.tree.structure(learner(run, seed))
        assert same_tree(found, learner(run, seed))
    assert not same_tree(learner(opened, 0), learner(opened, 1))


def test_stacked_frames_need_memory():
    sizes = []
    for frames in (1, 3):
        algorithm = small("ippo", environments=4, rollout_steps=8, frame_stack=frames)
        env, name = open_environment(guests.Relay, {}, SERIAL)
        game = make_game(algorithm, env, name, "sum", "auto")
        device = HostDevice(algorithm, game, 1, 0, 1, SERIAL, lambda sentence: None)
        raw = rows_bytes(env.promise, 32)
        sizes.append(device.bytes() - device.program.bytes() - 2 * raw)
        device.close()
    assert sizes[0] == 0
    assert sizes[1] >= 2 * 3 * 32 * 3 * 4 * 4  # observations and those after them, of three agents


@pytest.mark.slow
def test_what_does_not_repeat_itself_is_resumed_with_new_episodes(tmp_path):
    cut = interrupted(guests.Forgetful, tmp_path / "cut")
    told = []
    resumed = coterie.resume(
        cut.path,
        environment=guests.Forgetful,
        report=lambda event, facts: told.append(facts["sentence"]) if event == "warning" else None,
    )
    assert resumed.steps >= 120
    (sentence,) = told
    assert "of 3 running episodes did not go the same way again" in sentence


@pytest.mark.slow
def test_a_run_is_not_resumed_elsewhere(tmp_path):
    cut = interrupted(guests.Dice, tmp_path / "cut")
    with pytest.raises(UsageError, match="give --environment guests:Dice"):
        coterie.resume(cut.path)
    with pytest.raises(UsageError, match="the team has observation sizes"):
        coterie.resume(cut.path, environment=guests.Relay)

    class Renamed(guests.Dice):
        possible_agents = ("left", "middle")

    with pytest.raises(UsageError, match="other agents, or another state, than"):
        coterie.resume(cut.path, environment=Renamed)
    # It promises the same.
    wrong = "the environment of the run is guests:Dice, and cannot be guests:Forgetful"
    with pytest.raises(UsageError, match=wrong):
        coterie.resume(cut.path, environment="guests:Forgetful")
    assert coterie.resume(cut.path, environment="guests:Dice", report=no_warning).steps == 120


# Faults ----------------------------------------------------------------------------------------

FAULTS = {
    "Raises": ": step raised KeyError: 'no such dice' (guests.py, line ",
    "SaysNaN": ", agent right: the observation holds NaN or infinity",
    "PaysInfinity": ", agent left: reward is inf",
    "Hangs": ": did not return within 1 seconds",
    "Exits": ": step raised SystemExit: 3 (guests.py, line ",
    "Dies": ": its worker process ended (exit status 3)",
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_and_ends_the_run(kind, workers):
    if (kind, workers) == ("Dies", 0):
        pytest.skip("it would take the tests with it")
    python_env = PythonEnvSettings(workers=workers, step_timeout=1.0)
    with pytest.raises(EnvironmentFault, match=re.escape(FAULTS[kind])) as caught:
        train("vdn", getattr(guests, kind), python_env=python_env)
    fault = caught.value
    assert str(fault).startswith(f"guests:{kind} (evaluation environment ")
    assert f" of team 0), step 4 of the episode with seed {fault.seed}" in str(fault)
    assert fault.step == 4
    assert fault.seed % 2 == 0
    assert fault.agent == {"SaysNaN": "right", "PaysInfinity": "left"}.get(kind)
    assert ("Traceback" in fault.original) == (kind != "Dies")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [("Raises", 2), ("Raises", 0), ("Dies", 2)])
def test_faults_within_the_budget_are_counted_and_cost_their_episode_only(kind, workers, tmp_path):
    python_env = PythonEnvSettings(workers=workers, restarts=1000)
    run = train(
        "ippo", getattr(guests, kind), tmp_path / "run", python_env, settings={"minibatches": 1}
    )
    counts = [x["restarts"] for x in lines(run) if "restarts" in x]
    assert counts == sorted(counts)
    assert counts[-1] > 5
    assert np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(run.learner)])).all()
    assert run.metrics["eval/length"]["mean"] > 0


def test_the_budget_ends():
    with pytest.raises(EnvironmentFault, match=r"\(2 restarts were allowed\)"):
        train("vdn", guests.Raises, python_env=PythonEnvSettings(workers=0, restarts=2))


@pytest.mark.slow
def test_a_worker_that_is_killed_between_steps_is_replaced(tmp_path):
    seen = []

    def killing(self, *given, advance=HostDevice.advance):
        if not seen:
            seen.extend(self.vector_env.processes())
            os.kill(seen[0], signal.SIGKILL)
        return advance(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostDevice, "advance", killing)
        run = train("vdn", guests.Dice, tmp_path / "run", PythonEnvSettings(workers=2, restarts=1))
    assert len(seen) == 2
    assert lines(run)[-2]["restarts"] == 1


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import coterie, guests\n"
        "if __name__ == '__main__':\n"
        "    coterie.train(coterie.VDN(environments=4), guests.Sleeps, 99, reward='sum',\n"
        "                  hosting=coterie.PythonEnvSettings(workers=2, time_limit=9))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": path, "GUESTS": str(pids)}
    )
    found = eventually(lambda: pids.exists() and len(set(pids.read_text().split())) == 2)
    workers = [int(x) for x in set(pids.read_text().split())]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert found
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def eventually(true) -> bool:
    """Whether it becomes true before the test's own time is up."""
    for _ in range(1000):
        if true():
            return True
        time.sleep(0.1)
    return False


def test_what_hangs_before_training_is_named():
    def late():
        time.sleep(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "OPENING", 0.5)
        with pytest.raises(EnvironmentFault, match=r"late: did not return within 1\.5 seconds"):
            open_python_env("late", late, PythonEnvSettings(step_timeout=1.0))
    with pytest.raises(EnvironmentFault, match=r"sleeps, step 1 .*: did not return within 0\.5 s"):
        is_common(open_python_env("sleeps", guests.Sleeps), PythonEnvSettings(step_timeout=0.5))


# From outside ----------------------------------------------------------------------------------


def test_a_common_reward_is_noticed_or_must_be_named(tmp_path):
    assert is_common(open_python_env("dice", guests.Dice), PythonEnvSettings())
    assert not is_common(open_python_env("unequal", guests.Unequal), PythonEnvSettings())
    with pytest.raises(UsageError, match="common reward, but guests:Unequal does not reward"):
        train("vdn", guests.Unequal, reward=None)


def test_the_dead_are_paid_in_common_too():
    """A mean over all is not what those who live are paid."""
    assert not is_common(open_python_env("bereaved", guests.Bereaved), PythonEnvSettings())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_environment_given_as_an_object_stays_as_it_is(workers):
    own = guests.Closable()
    hosted, name = open_environment(own, {})
    assert name == "guests:Closable"
    vector_env = make_vector_env(hosted, [range(3)], Limits(60.0), workers)
    for command in (RESET, STEP, RESET):
        vector_env.rows.command[:] = command
        vector_env.start(0)
        assert vector_env.wait(0) == []
    vector_env.close()
    assert not own.closed
    assert own.agents == []


def test_objects_of_a_class_typed_by_hand_are_not_sent():
    """What ``python -c`` runs has no file that another process could read, as at the prompt."""
    code = (
        "import functools, guests\n"
        "from coterie.python_envs.workers.pool import can_be_sent, copies_of\n"
        "class Typed(guests.Dice): pass\n"
        "given = (copies_of(guests.Dice()), copies_of(Typed()), guests.Dice, Typed)\n"
        "for make in given: print(can_be_sent(make), can_be_sent(functools.partial(make)))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == ["True"] * 2 + ["False"] * 2 + ["True"] * 2 + ["False"] * 2


@pytest.mark.slow
def test_a_team_is_evaluated_with_other_workers_than_it_was_trained_with(tmp_path, capsys):
    settings = {"minibatches": 1}
    options = {"steps": 24, "evaluations": 1, "final_episodes": 3, "settings": settings}
    run = train("ippo", guests.Dice, tmp_path / "run", **options)
    line = ["evaluate", str(run.path), "--environment", "guests:Dice", "--episodes", "3", "--json"]
    figures = run.evaluate(3)
    assert figures.keys() > {"eval/return/team_sum", "eval_sampled/return/agent/left"}
    made = []

    def counted(hosted, groups, limits, workers):
        made.append(workers)
        return make_vector_env(hosted, groups, limits, workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosted_play, "make_vector_env", counted)
        assert run.evaluate(3, python_env=WORKERS) == figures
        assert main([*line, "--workers", "2"]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"] == json.loads(json.dumps(figures))
        assert main(line) == 0
    assert made == [2, 2, 0]


def test_what_cannot_be_sent_is_stepped_here_or_refused():
    def made_here():
        return guests.Dice()

    notes = []
    run = train(
        "vdn", made_here, steps=24, python_env=None, reward=None, final_episodes=0,
        report=lambda event, facts: notes.append(facts["sentence"]) if event == "note" else None,
    )  # fmt: skip
    assert run.config["hosting"]["workers"] == 0
    assert run.config["reward"] == "mean"
    assert "cannot be sent to other processes" in notes[0]
    assert "all agents always got the same reward" in notes[1]
    with pytest.raises(UsageError, match="cannot be sent to worker processes"):
        train("vdn", made_here, python_env=WORKERS)


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"workers": -1}, {"restarts": -1}, {"time_limit": 0}, {"step_timeout": 0.0}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            PythonEnvSettings(**settings)
    with pytest.raises(UsageError, match="is a JAX environment: workers"):
        coterie.train(coterie.VDN(), "matrix/climbing", 10, python_env=PythonEnvSettings(workers=3))
