"""Every kind of space and convention arrives as vectors and numbered choices."""

import sys
import types
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from coterie.errors import EnvironmentFault, UsageError
from coterie.python_envs.adapters import spaces as _spaces
from coterie.python_envs.adapters.environment import PythonEnv, make_factory
from coterie.runs.environments import open_environment
from coterie.spec import ObservationSpace, TimeStep

TICTACTOE = "pettingzoo:pettingzoo.classic.tictactoe_v3"


# Observations ----------------------------------------------------------------------------------


def written(space: gymnasium.Space, seen) -> np.ndarray:
    flattener = _spaces.flattener("x", space)
    out = np.full(flattener.size, np.nan, np.float32)
    flattener.write(flattener.split(seen)[0], out)
    return out


NESTED = Dict(
    b=Tuple((Discrete(3, start=1), Box(-9, 9, (2, 2)))),
    a=MultiBinary(2),
    c=Dict(x=MultiDiscrete([2, 3])),
)


@pytest.mark.parametrize(
    "space", [NESTED, Tuple((Box(0, 9, (3,)), Discrete(2))), Box(-1, 1, (2, 3), np.float64)]
)
def test_observations_are_written_as_gymnasium_flattens_them(space):
    space.seed(0)
    for _ in range(5):
        seen = space.sample()
        expected = gymnasium.spaces.flatten(space, seen).astype(np.float32)
        np.testing.assert_array_equal(written(space, seen), expected)


def test_pixels_are_scaled_and_other_bytes_are_not():
    image = Dict(view=Box(0, 255, (1, 2, 3), np.uint8), counts=Box(0, 254, (2,), np.uint8))
    seen = {"view": np.array([[[0, 51, 255], [255, 0, 102]]], np.uint8), "counts": [7, 254]}
    expected = np.float32([0, 0.2, 1, 1, 0, 0.4, 7, 254])
    np.testing.assert_allclose(written(image, seen), expected, rtol=1e-7)


def test_whole_numbers_where_fractions_are_promised_are_not_cut():
    """Gymnasium's flatten casts to the space's type first, and would show 0 for 0.5."""
    assert written(Box(0, 9, (1,), np.int64), np.array([0.5])) == 0.5


@pytest.mark.parametrize(
    ("space", "seen", "reason"),
    [
        (Box(0, 1, (2,)), np.zeros(3), r"the observation has shape \(3,\), but its space has"),
        (Box(0, 1, (2,)), [[1], [1, 2]], "not an array of numbers"),
        (Box(0, 1, (2,)), np.array(["1", "2"]), "not an array of numbers"),
        (Box(0, 1, (2,)), None, "the observation is None, not an array of numbers"),
        (Discrete(3, start=1), 0, r"the observation 0 is not in its space, Discrete\(3, start=1\)"),
        (MultiDiscrete([2, 2]), np.array([0, 2]), "is not in its space"),
        (Dict(a=Discrete(2), b=Discrete(2)), {"a": 1}, "has no 'b', which its space has"),
        (Tuple((Discrete(2), Discrete(2))), (1,), "no tuple of the parts"),
        (
            Dict(observation=Discrete(2), action_mask=MultiBinary(2)),
            {"observation": 1},
            "holds 'action_mask'",
        ),
    ],
)
def test_what_is_not_of_its_space_is_nonsense(space, seen, reason):
    with pytest.raises(_spaces.Nonsense, match=reason):
        written(space, seen)


def test_a_mask_is_taken_out_of_any_dictionary():
    three = Dict(x=Box(0, 9, (2,)), y=Discrete(2), action_mask=MultiBinary(3))
    flattener = _spaces.flattener("x", three)
    assert flattener.size == 4
    seen = {"x": np.array([4, 5]), "y": 1, "action_mask": np.array([1, 0, 1])}
    inner, mask = flattener.split(seen)
    np.testing.assert_array_equal(mask, [1, 0, 1])
    out = np.zeros(4, np.float32)
    flattener.write(inner, out)
    np.testing.assert_array_equal(out, [4, 5, 0, 1])
    only = _spaces.flattener("x", Dict(action_mask=MultiBinary(3)))
    assert only.split({"action_mask": np.zeros(3)})[1] is None


# Actions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (MultiDiscrete([2, 3]), 6),
        (MultiDiscrete([[2, 1], [2, 2]]), 8),
        (MultiDiscrete([3, 2], start=[5, -1]), 6),
        (MultiBinary(3), 8),
        (MultiBinary((2, 2)), 16),
        (Discrete(4, start=-2), 4),
    ],
    ids=repr,
)
def test_every_combination_of_choices_is_one_action(space, count):
    choice = _spaces.choice("x", space)
    assert choice.space.choices == (count,)
    actions = [choice.action(k) for k in range(count)]
    assert all(space.contains(action) for action in actions)
    assert len({np.asarray(action).tobytes() for action in actions}) == count


def test_combinations_are_counted_with_the_last_choice_fastest():
    choice = _spaces.choice("x", MultiDiscrete([2, 3], start=[0, 1]))
    assert [choice.action(k).tolist() for k in (0, 1, 5)] == [[0, 1], [0, 2], [1, 3]]
    by_part = choice.legal((np.array([0, 1]), np.array([1, 0, 1])))
    np.testing.assert_array_equal(by_part, [0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(choice.legal([1, 0, 0, 0, 0, 1]), [1, 0, 0, 0, 0, 1])
    for wrong in ((np.ones(2), np.ones(2)), np.ones(5), None, [[1], [1, 2]]):
        with pytest.raises(_spaces.Nonsense, match="the action mask has shape"):
            choice.legal(wrong)


# State -----------------------------------------------------------------------------------------


class Meeting:
    """Two agents of the parallel convention; ``state()`` is theirs to write."""

    possible_agents = (0, 1)
    agents: tuple = ()
    t = 0

    def observation_space(self, agent):
        return Box(0, 9, (1,))

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = (0, 1), 0
        return {a: np.zeros(1) for a in self.agents}, {}

    def step(self, actions):
        self.t += 1
        each = dict.fromkeys(self.agents, False)
        return {a: np.full(1, self.t) for a in each}, dict.fromkeys(each, 1.0), each, each, {}

    def close(self): ...


class Stated(Meeting):
    given = None

    def state(self):
        return np.array([[self.t, 2 * self.t, 7]]) if self.given is None else self.given


class Spaced(Stated):
    state_space = Dict(a=Discrete(2), b=Box(0, 255, (2,), np.uint8))

    def state(self):
        return {"a": 1, "b": np.array([0, 255], np.uint8)}


def test_the_state_is_central():
    env = PythonEnv(Stated())
    assert env.spec.central_size == 3
    np.testing.assert_array_equal(env.reset(0).central, [0, 0, 7])
    np.testing.assert_array_equal(env.step(np.zeros(2, int)).central, [1, 2, 7])
    np.testing.assert_array_equal(PythonEnv(Spaced()).reset(0).central, [0, 1, 0, 1])
    for without in (PythonEnv(Meeting()), PythonEnv(Stated(), central=False)):
        assert without.spec.central_size == 0
        assert without.reset(0).central.shape == (0,)


def test_a_state_that_only_refuses_is_none():
    from pettingzoo import ParallelEnv

    class Silent(Meeting, ParallelEnv): ...

    assert PythonEnv(Silent()).spec.central_size == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros((1, 2)), r"reset: the state has shape \(1, 2\), but its space has \(1, 3\)"),
        (np.array([[1, np.nan, 0]]), "the state holds NaN"),
    ],
)
def test_states_are_checked(given, reason):
    theirs = Stated()
    env = PythonEnv(theirs)
    theirs.given = given
    with pytest.raises(EnvironmentFault, match=reason):
        env.reset(0)


# Faults ----------------------------------------------------------------------------------------


def test_faults_name_environment_step_and_agent_and_keep_the_cause(monkeypatch):
    env = PythonEnv(Meeting(), name="meeting")
    env.reset(0)
    env.step(np.zeros(2, int))
    flattener = {0: np.zeros(1), 1: np.full(1, np.inf)}
    each = dict.fromkeys((0, 1), False)
    monkeypatch.setattr(Meeting, "step", lambda self, a: (flattener, {0: 1, 1: 1}, each, each, {}))
    with pytest.raises(EnvironmentFault) as caught:
        env.step(np.zeros(2, int))
    fault = caught.value
    assert (fault.environment, fault.agent, fault.step) == ("meeting", "1", 2)
    assert str(fault).startswith("meeting, step 2, agent 1: the observation holds NaN or infinity")

    def broken(self, actions):
        raise KeyError("left")

    monkeypatch.setattr(Meeting, "step", broken)
    with pytest.raises(EnvironmentFault, match="meeting, step 3: step raised KeyError") as caught:
        env.step(np.zeros(2, int))
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.agent is None


@pytest.mark.parametrize(
    ("reward", "paid"),
    [
        (np.float64(2), 2.0),
        (True, 1.0),
        (np.array([3]), 3.0),
        (np.array(4.5), 4.5),
        (-np.inf, None),
        (np.nan, None),
        (1e39, None),
        (np.array([1.0, 2.0]), None),
        (None, None),
    ],
)
def test_rewards_are_single_finite_numbers(reward, paid, monkeypatch):
    env = PythonEnv(Meeting())
    env.reset(0)
    each, seen = dict.fromkeys((0, 1), False), dict.fromkeys((0, 1), np.zeros(1))
    step = (seen, {0: 1.5, 1: reward}, each, each, {})
    monkeypatch.setattr(Meeting, "step", lambda self, actions: step)
    if paid is not None:
        np.testing.assert_array_equal(env.step(np.zeros(2, int)).rewards, [1.5, paid])
    else:
        with pytest.raises(EnvironmentFault, match="agent 1: reward"):
            env.step(np.zeros(2, int))


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [
        ([1, np.nan], [1, 0]),
        (np.array([1, -np.inf]), [1, 0]),
        ([1, 2], [1, 2]),
        ([np.nan, 2], None),
        (np.nan, None),
        (3, [3, 3]),
    ],
)
def test_what_is_no_number_is_refused_of_the_living_alone(rewards, kept):
    """Gymnasium's lists have a reward for the dead too: agent_1 terminated at the first step."""
    box, two = Tuple((Box(-9, 9, (1,)),) * 2), Tuple((Discrete(2),) * 2)
    seen = (np.zeros(1, np.float32),) * 2
    steps = iter([(seen, [0, 0], [False, True], False, {}), (seen, rewards, False, False, {})])
    theirs = SimpleNamespace(
        observation_space=box, action_space=two, close=lambda: None,
        reset=lambda seed: (seen, {}), step=lambda actions: next(steps),
    )  # fmt: skip
    env = PythonEnv(theirs, name="theirs")
    env.reset(0)
    env.step(np.zeros(2, int))
    if kept is None:
        with pytest.raises(EnvironmentFault, match="reward is"):
            env.step(np.zeros(2, int))
    else:
        np.testing.assert_array_equal(env.step(np.zeros(2, int)).rewards, kept)


@pytest.mark.parametrize("kind", [Meeting, SimpleNamespace])
def test_not_every_environment_needs_closing(kind, monkeypatch):
    if kind is Meeting:
        theirs = Meeting()
        monkeypatch.delattr(Meeting, "close", raising=False)
    else:
        theirs = SimpleNamespace(
            observation_space=Tuple((Box(-9, 9, (1,)),)), action_space=Tuple((Discrete(2),)),
            reset=lambda seed: ((np.zeros(1, np.float32),), {}), step=lambda actions: None,
        )  # fmt: skip
    env = PythonEnv(theirs)
    env.reset(0)
    env.close()


def test_nothing_follows_the_end_of_an_episode():
    env = PythonEnv(Meeting(), time_limit=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the episode is over; reset starts the next"):
            env.step(np.zeros(2, int))
        env.reset(0)
        assert env.step(np.zeros(2, int)).truncated


# Turns -----------------------------------------------------------------------------------------


def legal(shown: TimeStep, rng: np.random.Generator) -> np.ndarray:
    return np.where(shown.action_mask, rng.random(shown.action_mask.shape), -1).argmax(1)


def play(env: PythonEnv, steps: int, watch) -> None:
    rng, shown = np.random.default_rng(0), env.reset(0)
    for _ in range(steps):
        if shown.terminated or shown.truncated:
            shown = env.reset()
        actions = legal(shown, rng)
        before, shown = shown, env.step(actions)
        watch(before, actions, shown)


def test_who_is_not_on_the_move_has_one_harmless_action():
    env = make_factory(TICTACTOE)()
    assert env.spec.agents == ("player_1", "player_2")
    assert (env.spec.observation_sizes, env.spec.action_counts) == ((18, 18), (9, 9))
    shown = env.reset(0)
    nothing = [1, *[0] * 8]
    np.testing.assert_array_equal(shown.action_mask, [[1] * 9, nothing])
    shown = env.step(np.array([4, 0]))
    free = [1, 1, 1, 1, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(shown.action_mask, [nothing, free])
    assert shown.observations[0].sum() == shown.observations[1].sum() == 1
    for actions in ([0, 0], [3, 0], [0, 1], [5, 0]):  # player 1 completes the middle row
        shown = env.step(np.array(actions))
    assert shown.terminated
    np.testing.assert_array_equal(shown.rewards, [1, -1])
    np.testing.assert_array_equal(shown.alive, [True, True])


@pytest.mark.parametrize(("name", "steps"), [(TICTACTOE, 4_000), ("connect_four_v3", 1_000)])
def test_no_move_of_a_turn_based_game_is_illegal(name, steps, monkeypatch):
    from pettingzoo.utils.env_logger import EnvLogger

    illegal, ends = [], []
    monkeypatch.setattr(EnvLogger, "warn_on_illegal_move", lambda: illegal.append(1))
    name = name if ":" in name else f"pettingzoo:pettingzoo.classic.{name}"
    env = make_factory(name)()

    def watch(before, actions, shown):
        assert before.action_mask.any(1).all()
        assert (before.action_mask.sum(1) == 1).any()  # one of the two has no choice
        if shown.terminated:
            ends.append(shown.rewards.tolist())
        assert not shown.truncated

    play(env, steps, watch)
    assert not illegal
    assert {(1.0, -1.0), (-1.0, 1.0)} <= {tuple(end) for end in ends}
    shown = env.reset(0)
    while not shown.terminated:  # the same square or column again, until the game refuses
        shown = env.step(np.array([0, 0]))
    assert illegal


# Real packages ---------------------------------------------------------------------------------


def test_agents_of_knights_archers_zombies_die_at_their_own_time(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    make = make_factory("pettingzoo:pettingzoo.butterfly.knights_archers_zombies_v11")
    env = make()
    assert env.spec.n_agents == 4
    assert env.spec.observation_sizes == (135,) * 4
    assert env.spec.central_size == 104
    deaths, ends = [], []

    def watch(before, actions, shown):
        gone = before.alive & ~shown.alive
        if not (shown.terminated or shown.truncated) and gone.any():
            deaths.append(gone)
            assert not shown.observations[gone].any()
        assert np.abs(shown.observations).max() <= 1
        assert not shown.rewards[~before.alive].any()
        ends.append(shown.terminated)

    play(env, 700, watch)
    assert deaths
    assert any(ends)
    env.close()


def test_images_of_knights_archers_zombies(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    make_factory("pettingzoo:pettingzoo.butterfly.knights_archers_zombies_v11")
    from pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies import raw_env

    env = PythonEnv(raw_env(obs_method="image", max_cycles=2), central=False)
    assert env.spec.observations == (ObservationSpace.of((512, 512, 3), "uint8"),) * 4
    assert env.spec.central_size == 0
    shown = env.reset(0)
    assert 0 <= shown.observations.min() < 128 < shown.observations.max() <= 255
    assert not env.step(np.zeros(4, int)).truncated
    assert env.step(np.zeros(4, int)).truncated
    env.close()


def test_rware_through_the_bridge_is_rware():
    ours = make_factory("gymnasium:rware:rware-tiny-2ag-v2")()
    theirs = gymnasium.make("rware:rware-tiny-2ag-v2", disable_env_checker=True)
    assert (ours.spec.observation_sizes, ours.spec.action_counts) == ((71, 71), (5, 5))
    shown, rng = ours.reset(3), np.random.default_rng(0)
    expected, _ = theirs.reset(seed=3)
    for _ in range(200):
        np.testing.assert_array_equal(shown.observations, np.stack(expected))
        actions = rng.integers(0, 5, 2)
        shown = ours.step(actions)
        expected, rewards, _, _, _ = theirs.step(actions.tolist())
        np.testing.assert_array_equal(shown.rewards, np.float32(rewards))


# Sources ---------------------------------------------------------------------------------------


def test_modules_and_callables_are_factories_too():
    module = types.ModuleType("meetings")
    module.env = Meeting  # type: ignore[attr-defined]
    for source in (Meeting, lambda: Meeting()):
        env = make_factory(source, 3)()
        assert (env.spec.time_limit, env.spec.agents) == (3, ("0", "1"))
    assert make_factory(Meeting)().name == "Meeting"
    make_factory(TICTACTOE)  # imports it, and keeps PettingZoo's advice to use its registry quiet
    tictactoe_v3 = sys.modules[TICTACTOE.removeprefix("pettingzoo:")]
    assert make_factory(tictactoe_v3)().spec.action_counts == (9, 9)
    opened, name = open_environment(tictactoe_v3, {})
    assert (opened.spec().action_counts, name) == ((9, 9), TICTACTOE)
    with pytest.raises(UsageError, match="has no parallel_env, env or raw_env to call"):
        make_factory(types)
    with pytest.raises(UsageError, match="Meeting is no name, module or callable"):
        make_factory(Meeting())
