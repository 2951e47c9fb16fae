"""A check names what is wrong, and finds nothing where nothing is."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from faulty import FAULTS, Faulty
from gymnasium.spaces import Box, Dict, Discrete, Tuple

import coterie
from coterie.cli.entry import main
from coterie.python_envs.check import check
from coterie.python_envs.check.check import check_env
from coterie.python_envs.check.findings import Beat, Finding
from coterie.python_envs.check.isolated import check_apart
from coterie.python_envs.check.observations import Held, outside_space, rounded

RIGHT = "step 3, agent right: "
NAMED = {
    "raise_in_reset": r"reset: reset raised LookupError: no such map \(faulty.py, line \d+\)",
    "raise_in_step": r"step 3: step raised LookupError: no such door",
    "raise_in_close": "close raised LookupError: no window",
    "raise_in_init": "it cannot be made: LookupError: no such map",
    "hang_in_reset": "reset: reset did not return within 1 seconds",
    "hang_in_step": "step 3: step did not return within 1 seconds",
    "exit_in_step": "step 3: step ended the whole process, with exit status 7",
    "wrong_shape": RIGHT + r"the observation has shape \(4,\), but its space has \(3,\)",
    "nan_observation": RIGHT + "the observation holds NaN",
    "no_observation": RIGHT + "no observation was given",
    "missing_observation": RIGHT + "no observation was given",
    "out_of_space": RIGHT + r"the observation holds 7.\d+ at index \[0\], outside its space",
    "wrong_dtype": RIGHT + "the observation is float64 where its space is int64",
    "text_observation": RIGHT + "the observation is 'nothing', not an array of numbers",
    "stale_observation": "step 1, agent left: the step changed the array that the last step",
    "infinite_reward": RIGHT + "reward is inf",
    "missing_reward": RIGHT + "no reward was given",
    "text_reward": RIGHT + "reward is '1', not a number",
    "unknown_agent": "step 3, agent ghost: it appears in agents, but is not among possible_agents",
    "vanishing_agent": RIGHT + "it is no longer in agents but was neither terminated nor",
    "lingering_agent": RIGHT + "it is terminated or truncated but still in agents",
    "all_masked": RIGHT + "the action mask forbids every action",
    "short_mask": RIGHT + r"the action mask has shape \(2,\), .* each of 3 actions",
    "four_values": "step 3: step returned 4 values; it must return observations, rewards, term",
    "not_dictionaries": "step 3: observations are a list, not dictionaries by agent",
    "nan_state": "step 3: the state holds NaN",
    "nondeterministic": "reset: the same seed and actions, in another instance, gave other obs",
    "forgets_to_reset": "reset: .* after other episodes, gave other observations of agent left;",
    "never_ends": "the episode goes on after 100 steps of random play",
    "time_out_as_end": "every episode terminated after exactly 8 steps, .*--time-limit 8",
    "slow": r"a step takes \d\d+ ms, \d+ a second",
}
APART = ("hang_in_reset", "hang_in_step", "exit_in_step")
WARNED = ("stale_observation", "time_out_as_end", "slow")


@pytest.fixture(autouse=True)
def in_no_hurry(monkeypatch):
    """Nothing is slow on a busy machine, but where slowness is meant."""
    monkeypatch.setattr(check, "SLOW_SECONDS", np.inf)


def test_every_fault_has_its_sentence():
    assert NAMED.keys() == FAULTS.keys()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in APART])
def test_each_fault_is_named(fault, monkeypatch):
    monkeypatch.setattr(check, "MOST_STEPS", 100)
    if fault == "slow":
        monkeypatch.setattr(check, "SLOW_SECONDS", 0.02)
    report = check_env(f"faulty:{fault}", episodes=3)
    first = str(report.findings[0])
    assert re.match(NAMED[fault], first), first
    assert report.ok == (fault in WARNED)
    assert "\n" not in first


@pytest.mark.parametrize("fault", APART)
def test_what_hangs_or_exits_is_named_and_gone(fault):
    report = check_apart(f"faulty:{fault}", step_timeout=1.0)
    (finding,) = report.findings
    assert str(finding).startswith(NAMED[fault])
    assert not report.ok
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_nothing_is_left_of_a_check_that_is_killed():
    code = (
        "import os, signal, sys; from coterie.python_envs.check import isolated\n"
        "def die(worker, *_):\n"
        '    while worker.connection.recv_bytes() != b\'["Beat", ["step", 3]]\': pass\n'
        "    print(worker.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "isolated._listen = die\n"
        "if __name__ == '__main__': isolated.check_apart('faulty:hang_in_step')\n"
    )
    path = os.pathsep.join(sys.path)
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    process = Path("/proc", killed.stdout.decode().strip())
    while process.exists() and process.joinpath("stat").read_text().split()[2] != "Z":
        time.sleep(0.05)  # the time limit of every test ends a vain wait


def test_a_sound_environment_has_no_findings():
    for report in (check_env(Faulty()), check_env(Faulty), check_apart("faulty:none")):
        assert not [finding for finding in report.findings if "a step takes" not in str(finding)]
        assert report.ok
        assert len(report.lengths) == 5
        assert set(report.lengths) <= set(range(6, 13))
        # All of it again, in another instance where there can be one.
        assert report.steps > sum(report.lengths)
        assert report.spec is not None
        assert report.spec.action_counts == (3, 3)
        assert json.loads(json.dumps(report.to_dict()))["ok"]


def test_of_one_object_only_the_same_object_can_be_asked_again():
    (finding,) = check_env(Faulty("nondeterministic")).findings
    assert "after other episodes, gave" in finding.sentence
    assert "reset(seed) seeds, and reset everything else" in finding.sentence


def test_a_named_limit_is_an_end():
    report = check_env("faulty:never_ends", time_limit=7)
    assert (report.findings, report.lengths) == ((), (7,) * 5)
    assert check_env("faulty:time_out_as_end", time_limit=8).findings == ()


def test_lbforaging_reports_its_time_outs_as_ends():
    name = "gymnasium:lbforaging:Foraging-8x8-2p-3f-coop-v3"
    (finding,) = check_env(name, episodes=3).findings
    assert "exactly 50 steps" in finding.sentence
    assert not finding.violation
    assert check_env(name, episodes=3, time_limit=50).findings == ()


def test_unsupported_spaces_are_findings_and_wrong_names_are_mistakes():
    given = SimpleNamespace(observation_space=Discrete(2), action_space=Dict(a=Discrete(2)))
    (finding,) = check_env(lambda: given).findings
    assert "a Dict for its action space" in finding.sentence
    with pytest.raises(coterie.UsageError, match="did you mean"):
        check_env("faulty:slo")
    with pytest.raises(coterie.UsageError, match="did you mean"):
        check_apart("faulty:slo")
    with pytest.raises(coterie.UsageError, match="episodes must be at least 1; got 0"):
        check_env(Faulty, episodes=0)


def test_every_call_is_told_before_it_is_made():
    told = []
    check_env(Faulty("raise_in_step"), episodes=1, tell=told.append)
    assert told[:5] == [
        Beat("making it", None),
        Beat("reset", 0),
        *(Beat("step", t) for t in (1, 2, 3)),
    ]
    assert isinstance(told[5], Finding)


# Observations and their spaces ------------------------------------------------------------------


def test_strays_of_nested_spaces():
    space = Dict(a=Tuple((Box(0, 1, (2,)), Discrete(2))), b=Box(0, 9, (1,), np.int16))
    fine = {"a": (np.float32([0, 1]), 1), "b": np.int16([9])}
    assert list(outside_space(space, fine)) == []
    off = {"a": (np.float64([0, 1.5]), 1), "b": np.float32([-1])}
    found = list(outside_space(space, off))
    assert [stray.violation for stray in found] == [False, True, True, True]
    sentences = [stray.sentence for stray in found]
    assert "float64 where its space is float32; make them agree (Coterie casts" in sentences[0]
    assert "the observation's 'a', part 0, holds 1.5 at index [1]" in sentences[1]
    assert "from 0 to 9 there" in sentences[3]


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integers_that_floats_round_are_strays(kind):
    """Each number of each kind: named exactly if float32 turns it into another."""
    limits, rng = np.iinfo(kind), np.random.default_rng(0)
    drawn = rng.integers(limits.min, limits.max, 300, kind, endpoint=True)
    small = drawn >> rng.integers(0, limits.bits, 300).astype(kind)
    edges = [limits.min, limits.max, 0, *(2**24 + k for k in (-1, 0, 1) if limits.bits > 16)]
    for number in (*drawn, *small, *np.array(edges, kind)):
        found = list(rounded(np.asarray(number), "x"))
        assert len(found) == (int(np.float32(number)) != int(number)), number
        assert all(f"x holds {number} at" in s.sentence and s.violation for s in found)


def test_floats_whose_unit_or_all_is_lost_are_suspicious():
    for number, becomes in [(1.7e9 + 0.5, "1700000000"), (-(2**24) - 1.0, "-16777216"), (1e-60, 0)]:
        (stray,) = rounded(np.array([1.0, number]), "x")
        assert f"at index [1], which becomes {becomes} in the 32-bit floats" in stray.sentence
        assert not stray.violation
    for numbers in ([0.1, 1 / 3, 1e6 + 0.1, 2.0**30, 0, np.nan, np.inf, 1e300], [True]):
        assert list(rounded(np.array(numbers), "x")) == []
    assert list(rounded(np.float32([1.7e9, 1e-45]), "x")) == []


class Exact(Faulty):
    """Shows numbers that need more digits than float32 has, in parts and in the state."""

    clock = Dict(time=Box(0, 2**62, (1,), np.int64), part=Tuple((Box(0, 2**62, (2,), np.int64),)))
    state_space = Box(0, np.inf, (1,), np.float64)
    factor = 2**30 + 1

    def observation_space(self, agent):
        return self.clock

    def _spoil(self, observations, rewards, ended):
        pass

    def _observations(self):
        t = self.t * self.factor
        each = {"time": np.int64([t]), "part": (np.int64([0, 2 * t]),)}
        return dict.fromkeys(self.possible_agents, each)

    def state(self):
        return np.float64([self.t * self.factor])


def test_numbers_that_floats_round_are_found_once_for_each_agent_and_field():
    found = check_env(Exact, episodes=2).findings
    assert [(f.agent, f.step, f.violation, f.sentence.partition(" holds ")[0]) for f in found] == [
        ("left", 1, True, "the observation's 'time'"),
        ("left", 1, True, "the observation's 'part', part 0,"),
        ("right", 1, True, "the observation's 'time'"),
        ("right", 1, True, "the observation's 'part', part 0,"),
        (None, 1, False, "the state"),
    ]
    assert "holds 1073741825 at index [0], which becomes 1073741824 in the" in found[0].sentence
    assert check_env(type("Small", (Exact,), {"factor": 1}), episodes=2).findings == ()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("number", "sentence"),
    [(1e39, "holds a number beyond 3.4e38"), (np.inf, "holds NaN or infinity")],
)
def test_what_is_finite_but_no_float32_is_told_apart_from_infinity(number, sentence, nested):
    box = Box(-np.inf, np.inf, (1,), np.float64)

    class Large(Faulty):
        state_space = box

        def observation_space(self, agent):
            return Dict(x=box) if nested else box

        def _observations(self):
            seen = np.float64([number])
            return dict.fromkeys(self.possible_agents, {"x": seen} if nested else seen)

        def state(self):
            return np.float64([number])

    first = check_env(Large, episodes=1).findings[0]
    assert first.sentence.startswith(f"the observation {sentence}")
    if not nested:
        usual = ("observation_space", "_observations")
        seeing = type("Seeing", (Large,), {name: getattr(Faulty, name) for name in usual})
        first = check_env(seeing, episodes=1).findings[0]
        assert first.sentence.startswith(f"the state {sentence}")


def test_held_arrays_are_those_of_the_last_step_only():
    held, one, other = Held(), np.array([1.0, np.nan]), np.zeros(2)
    held.keep(("x", "y"), ({"deep": (one,)}, other))
    assert held.changed() == set()
    one[0] = 2
    assert held.changed() == {"x"}
    held.keep(("x", "y"), ({"deep": (one,)}, other))
    assert held.changed() == set()


class Departed(Faulty):
    """The right agent leaves first, and is shown nonsense ever after."""

    def step(self, actions):
        observations, rewards, ended, cut, infos = super().step(actions)
        if "right" in self.agents:
            ended["right"] = True
            self.agents = ["left"]
        observations["right"] = "gone"
        return observations, rewards, ended, cut, infos


def test_what_the_departed_are_shown_is_nobodys_business():
    assert check_env(Departed).findings == ()


# JAX environments --------------------------------------------------------------------------


class Broken(coterie.Environment):
    """What a step shows can be replaced."""

    agents = ("one", "two")
    replaced = {}  # noqa: RUF012

    def spec(self):
        return coterie.EnvSpec(self.agents, (1, 1), (2, 2), time_limit=3)

    def reset(self, key):
        return jnp.zeros(()), self.shown({})

    def step(self, key, state, actions):
        return state, self.shown(self.replaced)

    def shown(self, replaced):
        return coterie.TimeStep(
            **{
                "observations": jnp.zeros((2, 1)),
                "rewards": jnp.zeros(2),
                "terminated": jnp.array(False),
                "truncated": jnp.array(False),
                **replaced,
            }
        )


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({}, None),
        ({"rewards": jnp.array([0, jnp.nan])}, "step 1, agent two: the reward holds NaN"),
        ({"observations": jnp.full((2, 1), jnp.inf)}, "step 1, agent one: the observation holds"),
        (
            {"action_mask": jnp.array([[True, True], [False, False]])},
            "step 1, agent two: the action mask forbids every action",
        ),
        ({"observations": jnp.zeros((3, 1))}, "step 1: step raised "),
    ],
)
def test_compiled_environments_are_checked_too(replaced, sentence):
    env = type("Env", (Broken,), {"replaced": replaced})
    report = check_env(env, episodes=1)
    if sentence is None:
        assert (report.findings, report.lengths) == ((), (3,))
    else:
        (finding,) = report.findings
        assert str(finding).startswith(sentence)


def test_compiled_environments_by_name():
    report = check_env("matrix/climbing", episodes=2)
    assert (report.findings, report.lengths) == ((), (1, 1))
    (finding,) = check_env(Broken, time_limit=5).findings
    assert "its spec names the time limit" in finding.sentence


# The command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "status"), [("none", 0), ("slow", 0), ("nan_state", 1)])
def test_the_command_answers_with_its_exit_status(fault, status, capfd):
    assert main(["check", f"faulty:{fault}", "--episodes", "1", "--json"]) == status
    answer = json.loads(capfd.readouterr().out)
    assert answer["ok"] == (status == 0)
    assert answer["findings"] or fault == "none"


def loud():
    print("LOUD")
    return Faulty("lingering_agent")


def test_the_command_prints_sentences_and_nothing_of_the_environments(capfd):
    assert main(["check", f"{__name__}:loud", "--episodes", "1"]) == 1
    out, err = capfd.readouterr()
    assert "LOUD" in err
    assert "LOUD" not in out
    assert "violation  step 3, agent right: it is terminated or truncated but still" in out
    assert out.endswith("\n2 violations\n")
    assert main(["check", "faulty:none", "--episodes", "2"]) == 0
    out = capfd.readouterr().out
    assert "left   3            3" in out
    assert "state  2" in out
    assert "2 whole episodes of " in out
    assert out.endswith("\nno violation\n")


def test_mistakes_of_the_command_line_are_one_sentence(capfd):
    for args, words in [
        (["faulty:slo"], "did you mean slow?"),
        (["faulty:none", "--step-timeout", "0"], "--step-timeout must be a number above 0"),
        (["nosuch/thing"], "there is no environment 'nosuch/thing'"),
    ]:
        assert main(["check", *args]) == 2
        err = capfd.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_python_is_not_slowed_by_a_check_that_needs_no_jax():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import coterie, faulty\n"
        "assert coterie.check_env(faulty.Faulty).ok\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
