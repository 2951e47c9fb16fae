"""Every fault of ``faulty`` in training: it is named, or does no harm; no process is left."""

import contextlib
import copy
import functools
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import faulty
import guests
import jax
import numpy as np
import pytest
from probes import game_for, small
from quick import quick_compilation

import coterie
from coterie import EnvironmentFault, PythonEnvSettings
from coterie.python_envs import evaluate as hosted_play
from coterie.python_envs import record
from coterie.python_envs import training as hosted_lanes
from coterie.python_envs.bookkeeping import Restarts, Seconds
from coterie.python_envs.opening import open_python_env
from coterie.python_envs.rollout import Collector, halves
from coterie.python_envs.training import HostDevice, PythonEnvProgram
from coterie.python_envs.workers import pool as fleets
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, SKIP, STEP, Fault, Limits
from coterie.runs import plan

NOTICED = {
    "raise_in_reset": (0, None, "reset raised LookupError: no such map (faulty.py, line "),
    "raise_in_step": (3, None, "step raised LookupError: no such door (faulty.py, line "),
    "hang_in_reset": (0, None, "did not return within 1 seconds"),
    "hang_in_step": (3, None, "did not return within 1 seconds"),
    "exit_in_step": (3, None, "its worker process ended (exit status 7)"),
    "wrong_shape": (3, "right", "the observation has shape (4,), but its space has (3,); make"),
    "nan_observation": (3, "right", "the observation holds NaN or infinity; make every number"),
    "no_observation": (3, "right", "no observation was given; every agent that goes on, or is"),
    "missing_observation": (3, "right", "no observation was given; every agent that goes on"),
    "text_observation": (3, "right", "the observation is 'nothing', not an array of numbers"),
    "infinite_reward": (3, "right", "reward is inf; make it a finite number of 32 bits"),
    "missing_reward": (3, "right", "no reward was given; every agent that acted needs one"),
    "text_reward": (3, "right", "reward is '1', not a number; make it one"),
    "unknown_agent": (3, "ghost", "it appears in agents, but is not among possible_agents"),
    # Nobody acts for an agent that ended, and this environment trips over that.
    "lingering_agent": (4, None, "step raised KeyError: 'right' (faulty.py, line "),
    "all_masked": (3, "right", "the action mask forbids every action; one must be legal"),
    "short_mask": (3, "right", "the action mask has shape (2,), but must hold one flag for each"),
    "four_values": (3, None, "step returned 4 values; it must return observations, rewards, "),
    "not_dictionaries": (3, None, "observations are a list, not dictionaries by agent"),
    "nan_state": (3, None, "the state holds NaN or infinity; make every number finite"),
}
"""Step, agent and sentence."""
OPENED = {
    "raise_in_init": ": raised as it was made: LookupError: no such map (faulty.py, line ",
    "raise_in_close": ": close raised LookupError: no window (faulty.py, line ",
}
"""Named when one is opened to see what it promises, before anything is trained."""
HARMLESS = {
    "out_of_space": "finite numbers that fit are learned from; limits are not compared every step",
    "wrong_dtype": "numbers are cast to 32-bit floats whatever they were, and none is cut",
    "stale_observation": "what is shown is copied at once",
    "vanishing_agent": "who leaves without a flag is taken to have died",
    "nondeterministic": "it takes a second play of the same episode to see, as resume has one",
    "forgets_to_reset": "it takes a second play of the same episode to see",
    "never_ends": "an episode may be long: evaluation stops it, and training bootstraps",
    "time_out_as_end": "it takes several episodes, and whoever knows the rules, to tell",
    "slow": "it is waited for, up to --step-timeout",
}
"""Only ``coterie check`` names these, and why training does not."""
STEPS, LIMIT = 48, 30


def test_every_fault_is_in_one_table():
    assert sorted([*NOTICED, *OPENED, *HARMLESS]) == sorted(faulty.FAULTS)


# An agent needs z, so that the environment's state is asked for.
ALGORITHM = small("qmix", environments=4, hidden=(4,), buffer_size=600).resolve(STEPS)


def open_one(name, python_env=None):
    """An environment of ``faulty`` or ``guests`` by its full name."""
    module, _, kind = name.partition(":")
    make = getattr({"faulty": faulty, "guests": guests}[module], kind)
    return open_python_env(name, make, python_env, state=True)


@pytest.fixture(scope="module", autouse=True)
def one_program(tmp_path_factory):
    """All trainings on ``faulty`` share what is compiled: it promises the same with any fault."""
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(hosted_lanes, "CHUNK_STEPS", 32)
        patch.setattr(plan, "EPISODES", 2)
        for module in (hosted_play, record):
            patch.setattr(module, "NO_LIMIT_STEPS", LIMIT)
        programs = {}

        def shared(algorithm, game, seeds):
            assert (algorithm, seeds) == (ALGORITHM, 1)
            if game.players not in programs:
                programs[game.players] = PythonEnvProgram(algorithm, game, seeds)
            own = copy.copy(programs[game.players])
            own.game = game
            return own

        patch.setattr(hosted_lanes, "PythonEnvProgram", shared)
        patch.setattr(hosted_play, "make_choose", lambda game: programs[game.players].choose)
        yield


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = children()
    yield
    assert multiprocessing.active_children() == []
    assert children() <= before


def children() -> set[int]:
    """Processes that this one has, ended ones included; without multiprocessing's own helper."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            helper = b"resource_tracker" in stat.with_name("cmdline").read_bytes()
            if parent == os.getpid() and not helper:
                found.add(int(stat.parent.name))
    return found


def lanes_on(name, workers, timeout=60.0, restarts=0):
    """A training's environments and learners, before the first step."""
    python_env = PythonEnvSettings(workers=workers, step_timeout=timeout, restarts=restarts)
    game = game_for(ALGORITHM, open_one(name, python_env))
    return contextlib.closing(HostDevice(ALGORITHM, game, 1, 0, 2, python_env, pytest.fail))


def advance(lanes, rollouts):
    """Trains from the first step on."""
    states = lanes.init(0)
    for i in range(rollouts):
        states = lanes.advance(states, i, 1)
    return states


def same_tree(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def is_finite(tree) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


# Named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", NOTICED)
def test_a_fault_in_training_is_named_and_ends_it(fault, workers):
    if (fault, workers) == ("exit_in_step", 0):
        pytest.skip("os._exit in this process would end the tests with it")
    step, agent, sentence = NOTICED[fault]
    begun = time.monotonic()
    timeout = 1.0 if fault.startswith("hang_") else 60.0
    with (
        pytest.raises(EnvironmentFault) as caught,
        lanes_on(f"faulty:{fault}", workers, timeout) as lanes,
    ):
        advance(lanes, 8)
    found = caught.value
    when = f"step {step}" if step else "reset"
    whose = f", agent {agent}" if agent else ""
    start = rf"faulty:{fault} \(environment [0-3] of seed 0\), {when} of the episode with seed "
    assert re.match(start + f"{found.seed}{whose}: {re.escape(sentence)}", str(found)), str(found)
    assert (found.step, found.agent) == (step, agent)
    if fault != "exit_in_step":
        assert found.original.startswith("Traceback")
        assert ("in step" if step else "in reset") in found.original
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("fault", OPENED)
def test_what_cannot_be_opened_or_closed_is_named_before_training(fault):
    with pytest.raises(EnvironmentFault) as caught:
        coterie.train(ALGORITHM, f"faulty:{fault}", STEPS)
    assert str(caught.value).startswith(f"faulty:{fault}{OPENED[fault]}")
    assert caught.value.step is None
    causes = [caught.value, caught.value.__cause__]
    assert any(isinstance(cause, LookupError) for cause in causes)


def test_each_of_many_faults_is_charged_to_its_own_episode():
    def trained(workers):
        charged = []

        class Noted(Restarts):
            def charge(self, fault, whose, seed):
                charged.append((fault, seed))
                super().charge(fault, whose, seed)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hosted_lanes, "Restarts", Noted)
            with lanes_on("faulty:Mixed", workers, restarts=10_000) as lanes:
                (state,) = advance(lanes, 24)
                return charged, state, lanes.tallies()["restarts"]

    charged, state, count = trained(2)
    assert count == len(charged)
    for fault, seed in charged:
        step, agent, sentence = NOTICED[faulty.fault_of(seed)]
        assert (fault.step, fault.agent) == (step, agent)
        assert fault.what.startswith(sentence)
    assert {"none", *(faulty.fault_of(seed) for _, seed in charged)} == set(faulty.MIXED)
    assert is_finite(state.learner)
    again, serial, _ = trained(0)
    assert [seed for _, seed in again] == [seed for _, seed in charged]
    assert same_tree((serial.learner, serial.vector), (state.learner, state.vector))


def test_a_hang_that_cannot_be_interrupted_costs_its_process(monkeypatch):
    monkeypatch.setattr(fleets, "GRACE", 0.5)
    hosted = open_one("guests:Stubborn")
    with contextlib.closing(
        make_vector_env(hosted, [range(4)], Limits(0.5, 60.0), 2)
    ) as vector_env:
        vector_env.rows.seed[:] = [1, 2, 3, 5]  # the second goes wrong
        assert walk(vector_env, 3) == []
        faults = walk(vector_env, 1, command=STEP)
        assert [(fault.row, fault.lost) for fault in faults] == [(0, True), (1, False)]
        assert re.fullmatch(r"its process did not answer for \d seconds", faults[1].what)
        assert faults[1].step == 4
        vector_env.rows.command[:] = SKIP, RESET, SKIP, SKIP
        vector_env.rows.seed[1] = 1
        assert move(vector_env) == []


def move(vector_env) -> list[Fault]:
    vector_env.start(0)
    return vector_env.wait(0)


def walk(vector_env, steps, command=RESET) -> list[Fault]:
    """Moves all environments until there are faults, after a reset if that is the command."""
    for t in range(steps + (command == RESET)):
        vector_env.rows.command[:] = STEP if t else command
        if faults := move(vector_env):
            return faults
    return []


# Harmless ---------------------------------------------------------------------------------------


@functools.cache
def trained(fault, workers):
    """A whole run; only the one in this process is judged at the end."""
    return coterie.train(
        ALGORITHM, f"faulty:{fault}", STEPS, evaluations=1, final_episodes=0 if workers else 2,
        reward="sum", python_env=PythonEnvSettings(workers=workers),
    )  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if f == "vanishing_agent" else pytest.mark.slow) for f in HARMLESS],
)
def test_what_only_a_check_can_name_neither_hangs_nor_spoils(fault):
    run, spread = (trained(fault, workers) for workers in (0, 2))
    assert run.steps == spread.steps == STEPS
    assert is_finite((run.learner, spread.learner))
    assert same_tree(run.learner, spread.learner) == (fault != "nondeterministic")
    assert is_finite(run.metrics["eval/return/team_sum"]["mean"])
    if fault in ("stale_observation", "slow"):
        assert same_tree(run.learner, trained("none", 0).learner)
    length = run.metrics["eval/length"]["mean"]
    expected = {"never_ends": LIMIT, "time_out_as_end": 8}
    assert length == expected[fault] if fault in expected else 6 <= length <= 12


def test_who_vanishes_is_dead_and_paid_no_more():
    with contextlib.closing(
        make_vector_env(open_one("faulty:vanishing_agent"), [range(1)], Limits(60.0), 0)
    ) as vector_env:
        vector_env.rows.actions[:] = 2
        assert walk(vector_env, 3) == []
        assert vector_env.rows.next_observation.alive.tolist() == [[True, False]]
        assert vector_env.rows.rewards.tolist() == [[2, 2]]
        assert walk(vector_env, 1, STEP) == []
        assert vector_env.rows.rewards.tolist() == [[2, 0]]


def test_a_state_is_nobodys_business_where_it_is_not_asked_for():
    hosted = open_python_env("faulty:nan_state", faulty.nan_state)
    with contextlib.closing(make_vector_env(hosted, [range(1)], Limits(60.0), 0)) as vector_env:
        assert walk(vector_env, 20) == []


# Workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("Homebound", r"LookupError: no display \(guests.py, line "),
        ("Dawdling", r"did not return within 1\.5 seconds"),
    ],
)
def test_what_cannot_be_made_in_a_worker_is_named(kind, sentence, monkeypatch):
    monkeypatch.setattr(hosted_lanes, "Limits", functools.partial(Limits, opening=0.5))
    with pytest.raises(EnvironmentFault) as caught, lanes_on(f"guests:{kind}", 2, 1.0) as lanes:
        lanes.collector.begin()
    found = rf"guests:{kind} \(environment 0 of seed 0\), reset of the episode with seed \d+: "
    assert re.match(found + sentence, str(caught.value)), str(caught.value)
    assert "in __init__" in caught.value.original


def test_a_worker_that_dies_with_nothing_to_do_is_replaced():
    hosted = open_one("guests:Dice")
    with contextlib.closing(make_vector_env(hosted, [range(2)], Limits(60.0), 2)) as vector_env:
        rows = vector_env.rows
        assert walk(vector_env, 1) == []
        for command in (SKIP, STEP):
            idle = vector_env.processes()[1]
            os.kill(idle, signal.SIGKILL)
            rows.command[:] = STEP, SKIP
            assert move(vector_env) == []
            # Its environment went with it, without being at fault itself.
            rows.command[:] = SKIP, STEP
            (lost,) = move(vector_env)
            assert (lost.row, lost.lost) == (1, True)
            rows.command[:] = command, RESET
            assert move(vector_env) == []
            assert vector_env.processes()[1] != idle
            assert walk(vector_env, 2, STEP) == []


def test_interrupts_do_not_reach_a_worker_that_starts():
    hosted = open_one("guests:Dice")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with contextlib.closing(make_vector_env(hosted, [range(2)], Limits(60.0), 2)) as vector_env:
        vector_env.rows.command[:] = RESET
        vector_env.start(0)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
        for pid in vector_env.processes():
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
        assert vector_env.wait(0) == []
        for pid in vector_env.processes():
            os.kill(pid, signal.SIGINT)
        assert walk(vector_env, 3, STEP) == []


# Between episodes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "environments", "workers", "episodes"),
    [("Restive", 3, 0, 10), ("Restive", 3, 2, 10), ("Fatal", 1, 1, 8)],
)
def test_the_last_step_stands_where_the_next_episode_cannot_begin(
    kind, environments, workers, episodes
):
    hosted, restarts = open_one(f"guests:{kind}"), Restarts(kind, 10_000)
    groups = halves(1, environments)
    with contextlib.closing(make_vector_env(hosted, groups, Limits(60.0), workers)) as vector_env:
        stage = Collector(vector_env, hosted.promise, 1, environments, 0, restarts)
        stage.begin()
        before = restarts.used

        def act(t, first, seen, starts, hidden_state):
            nothing = np.zeros(seen.alive.shape, np.int32)
            return nothing, nothing, nothing, hidden_state

        hidden_state = np.zeros((environments, 1, 2, 1), np.float32)
        record, _ = stage.collect(2 * episodes, hidden_state, act, Seconds())
    assert restarts.used > before
    assert (record.rewards == 1).all()
    assert (record.terminated[1::2]).all()
    assert not record.terminated[::2].any()
    assert not record.truncated.any()
    assert record.observation.alive.all()
    totals, count = stage.clear_totals(), environments * episodes
    assert totals.episodes.tolist() == [count]
    assert totals.returns.tolist() == [[2 * count, 2 * count]]
    assert totals.lengths.tolist() == [2 * count]
