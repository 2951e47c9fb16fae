"""The bridge shows what the environment itself shows, and refuses with a reason."""

import pickle
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Text, Tuple

from coterie.envs.base import Environment
from coterie.errors import EnvironmentFault, UsageError
from coterie.python_envs.adapters import environment as hosted
from coterie.python_envs.adapters.environment import PythonEnv, make_factory
from coterie.spec import EnvSpec, TimeStep

BOX = Box(-9, 9, (2,))
TWO = Discrete(2)


@pytest.mark.parametrize("task", ["Foraging-5x5-2p-1f-v3", "Foraging-2s-8x8-3p-2f-coop-v3"])
def test_lbforaging_through_the_bridge_is_lbforaging(task: str):
    ours = make_factory(f"gymnasium:lbforaging:{task}")()
    theirs = gymnasium.make(f"lbforaging:{task}", disable_env_checker=True)
    n = len(theirs.action_space)
    assert ours.spec == EnvSpec(
        tuple(f"agent_{i}" for i in range(n)),
        tuple(space.shape[0] for space in theirs.observation_space),
        (6,) * n,
    )
    rng = np.random.default_rng(0)
    paid, ends = 0.0, 0
    for seed in [*range(4), None]:  # without a seed both go on with their own generator
        shown = ours.reset(seed)
        expected, _ = theirs.reset(seed=seed)
        np.testing.assert_array_equal(shown.observations, np.stack(expected))
        assert not shown.rewards.any()
        assert shown.alive.all()
        assert shown.action_mask.all()
        while not (shown.terminated or shown.truncated):
            actions = rng.integers(0, 6, n)
            shown = ours.step(actions)
            expected, rewards, terminated, truncated, _ = theirs.step(actions.tolist())
            np.testing.assert_array_equal(shown.observations, np.stack(expected))
            np.testing.assert_array_equal(shown.rewards, np.float32(rewards))
            assert (shown.terminated, shown.truncated) == (terminated, truncated)
            paid += sum(rewards)
        ends += 1
    assert ends == 5
    assert paid > 0 or "coop" in task
    ours.close()


def test_time_out_of_lbforaging_is_a_truncation_once_the_limit_is_named():
    name = "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3"
    for limit, expected in [(None, (True, False)), (50, (False, True)), (60, (True, False))]:
        env = make_factory(name, time_limit=limit)()
        assert env.spec.time_limit == limit
        for _ in range(2):  # the count starts again with each episode
            env.reset(1)
            for t in range(50):
                shown = env.step(np.zeros(2, int))
                assert (shown.terminated, shown.truncated) == (expected if t == 49 else (0, 0))
            assert shown.alive.all()


class Scripted(gymnasium.Env):
    """Two agents; what each step returns is given."""

    def __init__(self, observation=BOX, action=TWO, script=(), info=None):
        self.observation_space = Tuple((observation, BOX))
        self.action_space = [action, Discrete(3, start=-1)]
        self.script = iter(script)
        self.info = info or {}
        self.taken: list = []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return [self.observation_space[0].sample(), np.ones(2)], self.info

    def step(self, actions):
        self.taken.append(actions)
        rewards, terminated, truncated = next(self.script)
        observations = [self.observation_space[0].sample(), np.full(2, 2.0)]
        return observations, rewards, terminated, truncated, self.info


def run(env: PythonEnv, n: int) -> list[TimeStep]:
    env.reset(0)
    return [env.step(np.zeros(env.spec.n_agents, int)) for _ in range(n)]


def test_the_limit_cuts_what_goes_on_and_leaves_true_ends_before_it():
    go, end = ([1, 2], False, False), ([1, 2], True, False)
    shown = run(PythonEnv(Scripted(script=[go, go]), time_limit=2), 2)
    assert [(s.terminated, s.truncated) for s in shown] == [(False, False), (False, True)]
    shown = run(PythonEnv(Scripted(script=[end]), time_limit=2), 1)
    assert (shown[-1].terminated, shown[-1].truncated) == (True, False)
    shown = run(PythonEnv(Scripted(script=[go, ([1, 2], [True, False], False)]), 2), 2)
    assert (shown[-1].terminated, shown[-1].truncated) == (False, True)
    np.testing.assert_array_equal(shown[-1].alive, [False, True])


def test_ends_of_single_agents_in_a_list():
    script = [
        ([1, 2], [True, False], False),
        ([3, 4], [True, False], False),
        ([5, 6], [False, True], [False, False]),  # the dead one's flag says nothing
    ]
    first, second, last = run(PythonEnv(Scripted(script=script)), 3)
    assert not (first.terminated)
    assert not (first.truncated)
    np.testing.assert_array_equal(first.rewards, [1, 2])  # the death step is paid
    np.testing.assert_array_equal(second.rewards, [3, 4])  # and the dead are, if it says so
    np.testing.assert_array_equal(first.alive, [False, True])
    np.testing.assert_array_equal(first.observations, [[0, 0], [2, 2]])
    assert last.terminated
    assert not last.truncated
    np.testing.assert_array_equal(last.alive, [False, True])


def test_terminated_and_truncated_at_once_is_terminated():
    last = run(PythonEnv(Scripted(script=[(0.5, True, True)])), 1)[-1]
    assert (last.terminated, last.truncated) == (True, False)
    np.testing.assert_array_equal(last.rewards, [0.5, 0.5])  # one reward for all is everyone's


def test_actions_start_where_the_space_starts():
    env = Scripted(script=[(0.0, False, False)] * 2)
    bridge = PythonEnv(env)
    bridge.reset(0)
    bridge.step(np.array([1, 0]))
    bridge.step(np.array([0, 2]))
    assert env.taken == [[1, -1], [0, 1]]
    assert all(type(a) is int for t in env.taken for a in t)


@pytest.mark.parametrize(
    "space",
    [Box(0, 1, (2, 3)), Discrete(4, start=2), MultiBinary(5), MultiDiscrete([2, 3])],
    ids=repr,
)
def test_observations_are_flattened_and_padded(space: gymnasium.Space):
    space.seed(1)
    bridge = PythonEnv(Scripted(space))
    size = gymnasium.spaces.flatdim(space)
    assert bridge.spec.observation_sizes == (size, 2)
    shown = bridge.reset(0).observations
    sampled = gymnasium.spaces.unflatten(space, shown[0].astype(space.dtype))
    assert space.contains(sampled)
    assert shown.dtype == np.float32
    assert shown.shape == (2, size)
    np.testing.assert_array_equal(shown[1], [1, 1] + [0] * (size - 2))
    assert shown[0].any()


def test_action_masks_are_padded():
    info = {"action_mask": [[1, 0], np.array([0, 1, 1], np.int8)]}
    shown = PythonEnv(Scripted(info=info)).reset(0)
    np.testing.assert_array_equal(shown.action_mask, [[1, 0, 0], [0, 1, 1]])
    assert shown.action_mask.dtype == bool
    plain = PythonEnv(Scripted()).reset(0)
    np.testing.assert_array_equal(plain.action_mask, [[1, 1, 0], [1, 1, 1]])
    for masks, reason in [
        ([[1, 0]], "2 agents, but 1 action masks"),
        ([[1, 0, 1], [1, 1, 1]], r"agent_0: the action mask has shape \(3,\), .* 2 actions"),
        ([[1, 0], [0, 0, 0]], "Scripted, reset, agent agent_1: the action mask forbids every"),
    ]:
        with pytest.raises(EnvironmentFault, match=reason):
            PythonEnv(Scripted(info={"action_mask": masks})).reset(0)


def test_nothing_need_be_legal_after_the_end():
    env = Scripted(script=[([0, 0], True, False)])
    bridge = PythonEnv(env)
    bridge.reset(0)
    env.info = {"action_mask": [[0, 0], [0, 0, 0]]}
    shown = bridge.step(np.array([0, 0]))
    np.testing.assert_array_equal(shown.action_mask, [[1, 1, 0], [1, 1, 1]])


class Duel:
    """PettingZoo's parallel convention; each row of the script is one step."""

    possible_agents = ("red", "blue", "late")
    spaces = {  # noqa: RUF012
        "red": Box(0, 9, (1,)),
        "blue": Dict(observation=Box(0, 9, (2,)), action_mask=MultiBinary(3)),
        "late": Discrete(2),
    }

    def __init__(self, *script):
        self.script = script
        self.given: list = []

    def observation_space(self, agent):
        return self.spaces[agent]

    def action_space(self, agent):
        return Discrete(2 if agent == "red" else 3)

    def _observations(self):
        shown = {
            "red": np.array([self.t + 1.0]),
            "blue": {"observation": np.array([7.0, 8.0]), "action_mask": np.array([0, 1, 1])},
            "late": 1,
        }
        return {a: o for a, o in shown.items() if a in self.shown}

    def reset(self, seed=None, options=None):
        self.t, self.agents, self.shown = 0, ["red", "blue"], ["red", "blue"]
        return self._observations(), {"red": {"action_mask": np.array([0, 1])}}

    def step(self, actions):
        self.given.append(dict(actions))
        rewards, terminated, truncated, self.agents = self.script[self.t]
        self.t += 1
        self.shown = [*rewards, *(a for a in self.agents if a not in rewards)]
        return self._observations(), rewards, terminated, truncated, {}

    def close(self):
        self.closed = True


def flags(*names):
    return dict.fromkeys(names, True)


def test_parallel_agents_die_and_join_at_their_own_time():
    env = Duel(
        ({"red": 1.0, "blue": 2.0}, {}, {}, ["red", "blue", "late"]),
        ({"red": 3.0, "blue": 4.0, "late": 5.0}, flags("red"), {}, ["blue", "late"]),
        ({"blue": 6.0, "late": 7.0}, {"blue": False}, {}, ["blue"]),  # late just vanishes
        ({"blue": 8.0}, flags("blue"), {}, []),
    )
    bridge = PythonEnv(env)
    assert bridge.spec == EnvSpec(("red", "blue", "late"), (1, 2, 2), (2, 3, 3))
    first = bridge.reset(3)
    np.testing.assert_array_equal(first.alive, [True, True, False])
    np.testing.assert_array_equal(first.observations, [[1, 0], [7, 8], [0, 0]])
    np.testing.assert_array_equal(first.action_mask, [[0, 1, 0], [0, 1, 1], [1, 1, 1]])
    shown = [bridge.step(np.array([1, 2, 0])) for _ in range(4)]
    assert [sorted(g) for g in env.given] == [
        ["blue", "red"],
        ["blue", "late", "red"],
        ["blue", "late"],
        ["blue"],
    ]
    assert env.given[1] == {"red": 1, "blue": 2, "late": 0}
    np.testing.assert_array_equal(
        [s.rewards for s in shown], [[1, 2, 0], [3, 4, 5], [0, 6, 7], [0, 8, 0]]
    )
    np.testing.assert_array_equal(
        [s.alive for s in shown], [[1, 1, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]]
    )
    np.testing.assert_array_equal(shown[0].observations, [[2, 0], [7, 8], [0, 1]])
    np.testing.assert_array_equal(shown[1].observations, [[0, 0], [7, 8], [0, 1]])
    assert [s.terminated for s in shown] == [False, False, False, True]
    assert not any(s.truncated for s in shown)
    bridge.close()
    assert env.closed
    assert bridge.reset().alive.tolist() == [True, True, False]


def test_an_agent_that_left_can_come_back():
    env = Duel(
        ({"red": 1.0, "blue": 2.0}, flags("red"), {}, ["blue"]),
        ({"blue": 3.0}, {}, {}, ["blue", "red"]),
        ({"red": 4.0, "blue": 5.0}, {}, {}, ["blue", "red"]),
        ({"red": 6.0, "blue": 7.0}, flags("red", "blue"), {}, []),
    )
    shown = run(PythonEnv(env), 4)
    np.testing.assert_array_equal([s.alive[:2] for s in shown], [[0, 1], [1, 1], [1, 1], [1, 1]])
    np.testing.assert_array_equal([s.rewards[:2] for s in shown], [[1, 2], [0, 3], [4, 5], [6, 7]])
    assert [sorted(given) for given in env.given[1:3]] == [["blue"], ["blue", "red"]]
    assert [s.terminated for s in shown] == [False, False, False, True]


def test_an_agent_that_ended_and_stays_listed_does_not_come_back():
    env = Duel(
        ({"red": 1.0, "blue": 2.0}, flags("red"), {}, ["red", "blue"]),
        ({"blue": 3.0}, {}, {}, ["red", "blue"]),
    )
    shown = run(PythonEnv(env), 2)
    np.testing.assert_array_equal([s.alive[0] for s in shown], [False, False])


@pytest.mark.parametrize("cut", [flags("red", "blue"), {}])
def test_a_cut_episode_needs_its_last_observations(cut):
    """They reach the bootstrap; after a terminal step there is none."""
    both = {"red": 1.0, "blue": 2.0}
    limit = None if cut else 1
    env = Duel((both, {}, cut, [] if cut else ["red", "blue"]))
    env._observations = lambda: {} if env.given else Duel._observations(env)
    with pytest.raises(EnvironmentFault, match="step 1, agent red: no observation was given"):
        run(PythonEnv(env, limit), 1)
    env = Duel((both, flags("red", "blue"), {}, []))
    env._observations = lambda: {} if env.given else Duel._observations(env)
    (last,) = run(PythonEnv(env), 1)
    assert last.terminated
    assert not last.observations.any()


def test_an_episode_cut_while_one_dies_bootstraps_the_other_only():
    env = Duel(({"red": 1.0, "blue": 2.0}, flags("red"), flags("blue"), []))
    last = run(PythonEnv(env), 1)[-1]
    assert (last.terminated, last.truncated) == (False, True)
    np.testing.assert_array_equal(last.alive, [False, True, False])
    np.testing.assert_array_equal(last.observations[1], [7, 8])  # the final one, not a reset's


def test_strangers_are_named():
    env = Duel(({}, {}, {}, ["green"]))
    with pytest.raises(EnvironmentFault, match=r"step 1, agent green: it appears in agents"):
        run(PythonEnv(env), 1)


def duel() -> Duel:
    return Duel()


parallel_env = duel
not_callable = 3


class Native(Environment):
    def spec(self):
        raise NotImplementedError

    def reset(self, key):
        raise NotImplementedError

    def step(self, key, state, actions):
        raise NotImplementedError


def test_factories_are_found_by_name_and_pickle():
    for name in (f"{__name__}:duel", f"pettingzoo:{__name__}"):
        make = pickle.loads(pickle.dumps(make_factory(name, 7)))
        assert isinstance(make(), PythonEnv)
        assert make().spec.time_limit == 7
    assert isinstance(hosted.open_factory(f"{__name__}:duel")(), Duel)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lbf/8x8", "names no environment; a Python environment is gymnasium:id"),
        ("gymnasium:", "names no environment"),
        ("gymnasium:CartPol-v1", "did you mean gymnasium:CartPole-v1"),
        ("gymnasium:Qwertyuiop-v7", "not registered .*gymnasium:<package>:<id>"),
        ("gymnasium:not an id", "has no environment 'not an id'"),
        (
            "gymnasium:lbforaging:Foraging-8x8-2p-3f-v2",
            "did you mean gymnasium:lbforaging:Foraging-8x8-2p-3f-v3",
        ),
        ("gymnasium:nosuchmodule:X-v1", "there is no module nosuchmodule"),
        ("pettingzoo:pettingzoo.nosuchgame", "there is no module pettingzoo.nosuchgame"),
        ("pettingzoo:pettingzoo.butterfly.pistonball_v1", "mean pettingzoo.butterfly.pistonball_v"),
        ("pettingzoo:pettingzoo.mpe", "cannot be imported: MPE has been moved"),
        ("pettingzoo:pettingzoo", "pettingzoo has no parallel_env, env or raw_env to call"),
        ("pettingzoo:classic/tictacto-v3", "did you mean pettingzoo:classic/tictactoe-v3"),
        ("pettingzoo:none/such", "it is not registered"),
        ("nosuchmodule.envs:make", "there is no module nosuchmodule"),
        (f"{__name__}:duell", "did you mean duel"),
        (f"{__name__}:not_callable", "is not callable"),
        ("..:make", "not the name of a module"),
    ],
)
def test_unknown_names_are_one_sentence(name: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        make_factory(name)
    assert "\n" not in str(caught.value)


class Absent:
    """An import hook under which a package is not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("missing", "name", "message"),
    [
        ("gymnasium", "gymnasium:CartPole-v1", r"\[python-envs\]"),
        ("gymnasium", "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3", r"\[lbforaging\]"),
        ("pettingzoo", "pettingzoo:pettingzoo.test", r"\[python-envs\]"),
        ("lbforaging", "gymnasium:lbforaging:Foraging-8x8-2p-3f-v3", r"\[lbforaging\]"),
        ("mpe2", "pettingzoo:mpe2.simple_spread_v3", r"\[mpe\]"),
    ],
)
def test_missing_packages_name_their_extra(
    missing: str, name: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    for module in [m for m in sys.modules if m.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(missing), *sys.meta_path])
    with pytest.raises(UsageError, match=f"needs {missing}: pip install .*{message}"):
        make_factory(name)


def test_a_package_that_an_environment_needs_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.delitem(sys.modules, "pettingzoo.butterfly.pistonball_v6", raising=False)
    with pytest.raises(UsageError, match="needs pygame, which is not installed"):
        make_factory("pettingzoo:pettingzoo.butterfly.pistonball_v6")


class NoSpaces:
    pass


class Parallel:
    def observation_space(self, agent): ...

    def action_space(self, agent): ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scripted(action=Box(0, 1, (0,))), "agent_0's action space Box.*empty"),
        (
            lambda: Scripted(action=Tuple((TWO, TWO))),
            "agent_0's action space Tuple.*must be Discrete",
        ),
        (
            lambda: Scripted(action=MultiDiscrete([40, 40])),
            "its combinations are 1600 actions, and at most 1000",
        ),
        (lambda: Scripted(Graph(BOX, None)), "agent_0's observation space .*no fixed length"),
        (lambda: Scripted(Box(0, 1, (0,))), "it is empty"),
        (NoSpaces, "NoSpaces is neither a PettingZoo environment"),
        (Parallel, "has no possible_agents"),
        (Native, "JAX environment"),
    ],
)
def test_unsupported_environments_are_refused_with_the_reason(make, message: str):
    with pytest.raises(UsageError, match=message):
        PythonEnv(make())


def test_text_observations_count_as_their_letters():
    assert PythonEnv(Scripted(Text(4))).spec.observation_sizes == (4, 2)


def test_wrong_numbers_of_things_are_refused():
    env = Scripted()
    env.action_space = [Discrete(2)]
    with pytest.raises(UsageError, match="2 observation spaces but 1 action"):
        PythonEnv(env)
    with pytest.raises(EnvironmentFault, match=r"Scripted, step 1: reward has shape \(3,\)"):
        run(PythonEnv(Scripted(script=[([1, 2, 3], False, False)])), 1)


def test_gymnasium_and_drawing_are_not_imported_before_they_are_needed():
    code = (
        "import sys, coterie.python_envs.adapters.environment as h\n"
        "assert 'jax' not in sys.modules\n"
        "assert 'gymnasium' not in sys.modules\n"
        "h.make_factory('gymnasium:lbforaging:Foraging-8x8-2p-3f-v3')().reset(0)\n"
        "assert not any(m.startswith('pyglet') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_hosted_arrays_go_into_jax_as_they_are():
    shown = make_factory("gymnasium:lbforaging:Foraging-8x8-2p-3f-v3")().reset(0)
    assert jax.numpy.asarray(shown.observations).dtype == shown.observations.dtype
