"""A loaded team plays in a loop of the user's own: in, what the environment shows; out, what it
takes; and the actions are those of the run's own evaluation, step by step."""

import collections
import copy
import json
import random
import shutil

import guests
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Text,
    Tuple,
)
from memory import forget_peak, megabytes
from pettingzoo import AECEnv
from probes import small

import coterie
from coterie import UsageError
from coterie.python_envs.adapters.agent_spaces import AgentSpaces
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.space_data import NotData, from_data, to_data
from coterie.python_envs.bookkeeping import FINAL_EVALUATION, episode_seed
from coterie.storage.files import seal

SERIAL = coterie.PythonEnvSettings(workers=0)
EPISODES = 3
PLAYED = collections.defaultdict(list)
"""What environments were asked to do, by the seed of the episode."""


class Hikers:
    """Three agents with spaces of all kinds; the third leaves, and all depends on the actions."""

    possible_agents = ("ann", "bob", "cy")
    comes_back = False
    observed = (
        Dict({"map": Box(-9, 9, (2, 3)), "bag": MultiBinary(3)}),
        Tuple((Discrete(4, start=2), Box(0, 1, (2,)))),
        MultiDiscrete([3, 2], start=[1, 0]),
    )
    done = (Discrete(3, start=-1), MultiDiscrete([2, 3], start=[5, 0]), MultiBinary(2))

    def __init__(self):
        self.agents = []

    def observation_space(self, agent):
        return self.observed[self.possible_agents.index(agent)]

    def action_space(self, agent):
        return self.done[self.possible_agents.index(agent)]

    def reset(self, seed=None, options=None):
        self.seed, self.t = seed, 0
        PLAYED[seed] = []
        self.agents = self.there()
        return self.look([0]), {a: {} for a in self.agents}

    def step(self, actions):
        assert sorted(actions) == sorted(self.agents), "exactly those that are there act"
        for agent, action in actions.items():
            assert self.action_space(agent).contains(action), (agent, action)
        # One agent or many side by side, floats differ in their last digit.
        words = {a: np.round(np.float64(x), 4).tolist() for a, x in sorted(actions.items())}
        PLAYED[self.seed].append(words)
        self.t += 1
        acted, over = self.agents, self.t == 8
        self.agents = [] if over else self.there()
        number = sum(json.dumps(words).encode())
        each = dict.fromkeys
        ends = {a: over or a not in self.agents for a in acted}
        return self.look([number]), each(acted, float(self.t)), ends, each(acted, False), {}

    def there(self):
        gone = self.t in ((0, 3, 4) if self.comes_back else range(3, 9))
        return ["ann", "bob"] if gone else list(self.possible_agents)

    def look(self, words):
        rng = np.random.default_rng([self.seed, self.t, *words])
        shown = {}
        for agent in self.possible_agents:
            space = copy.deepcopy(self.observation_space(agent))
            space.seed(int(rng.integers(2**31)))
            shown[agent] = space.sample()
        return {a: shown[a] for a in self.agents} if self.comes_back else shown

    def close(self):
        pass


class Wanderers(Hikers):
    """The third is not there at first, comes, goes and comes back."""

    comes_back = True


class Archers(Hikers):
    """Actions are numbers, and several choices at once."""

    done = (Box(-1, 2, (2, 1)), MultiDiscrete([[2, 3], [2, 2]]), Box(0, 5, (3,), np.int32))


class Cards(AECEnv):
    """Two agents move in turn; observations come with masks, of zeros where it is not the turn."""

    metadata = {"name": "cards"}  # noqa: RUF012
    possible_agents = ("west", "east")

    def observation_space(self, agent):
        return Dict({"observation": Box(-5, 5, (2, 2)), "action_mask": Box(0, 1, (4,), np.int8)})

    def action_space(self, agent):
        return Discrete(4)

    def reset(self, seed=None, options=None):
        self.seed, self.agents, self.number = seed, list(self.possible_agents), 0
        PLAYED[seed] = []
        self.agent_selection = self.agents[seed % 2]
        each = dict.fromkeys
        self.rewards, self._cumulative_rewards = each(self.agents, 0.0), each(self.agents, 0.0)
        self.terminations, self.truncations = each(self.agents, False), each(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}

    def observe(self, agent):
        word = self.possible_agents.index(agent)
        rng = np.random.default_rng([self.seed, len(PLAYED[self.seed]), self.number, word])
        mask = np.zeros(4, np.int8)
        if agent == self.agent_selection:
            mask[rng.permutation(4)[:3]] = 1
        return {"observation": rng.normal(size=(2, 2)).astype(np.float32), "action_mask": mask}

    def step(self, action):
        mover = self.agent_selection
        if self.terminations[mover]:
            return self._was_dead_step(action)
        assert self.observe(mover)["action_mask"][action], "it is legal"
        PLAYED[self.seed].append([mover, int(action)])
        self.number = self.number * 4 + int(action)
        # The first to move moves twice in a row once, so turns do not simply alternate.
        stays = len(PLAYED[self.seed]) == 3
        self.rewards = dict.fromkeys(self.agents, float(action))
        self.terminations = dict.fromkeys(self.agents, len(PLAYED[self.seed]) == 7)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self._accumulate_rewards()
        if not stays:
            self.agent_selection = next(a for a in self.possible_agents if a != mover)
        return None


class Lever(gymnasium.Env):
    """A single agent, whose observation and action are themselves dicts and arrays."""

    observation_space = Dict({"a": Box(0, 1, (2,)), "b": Discrete(3)})
    action_space = Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        self.rng, self.seed_of_it = np.random.default_rng(seed), seed
        PLAYED[seed] = []
        return self.look(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        PLAYED[self.seed_of_it].append(np.round(np.float64(action), 4).tolist())
        return self.look(), 1.0, False, len(PLAYED[self.seed_of_it]) == 4, {}

    def look(self):
        return {"a": self.rng.random(2).astype(np.float32), "b": int(self.rng.integers(3))}


class Dial(Lever):
    """Its observation has one entry, so that a list of it is much like it."""

    observation_space = Box(-99, 99, (1,))
    action_space = Discrete(9, start=4)

    def look(self):
        return self.rng.normal(0, 30, 1).astype(np.float32)


MEMORY = {"recurrent": True, "frame_stack": 3}
FEW = {"evaluations": 1, "evaluation_episodes": 1, "final_episodes": 0, "python_env": SERIAL}


def trained(name, environment, out, reward=None, **settings):
    return coterie.train(small(name, **settings), environment, 96, out=out, reward=reward, **FEW)


@pytest.fixture(scope="module")
def hikers(tmp_path_factory):
    return trained("idqn", Hikers, tmp_path_factory.mktemp("hikers") / "run", **MEMORY).path


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    return trained("idqn", Cards, tmp_path_factory.mktemp("cards") / "run", sharing="shared").path


@pytest.fixture(scope="module")
def archers(tmp_path_factory):
    return trained("ippo", Archers, tmp_path_factory.mktemp("archers") / "run").path


def evaluated(path, environment):
    """What the run's own evaluation plays greedily, by the seed of the episode."""
    run = coterie.open_run(path, environment=environment)
    PLAYED.clear()
    run.evaluate(EPISODES, environment=environment)
    seeds = [episode_seed(FINAL_EVALUATION, 0, 0, number, 0) for number in range(EPISODES)]
    played = {seed: list(PLAYED[seed]) for seed in seeds}
    assert len({json.dumps(actions) for actions in played.values()}) == EPISODES
    return played, coterie.load(path, which=run.which)


def same_as_evaluated(path, environment, loop):
    played, team = evaluated(path, environment)
    for seed, actions in played.items():
        loop(team, environment(), seed)
        assert PLAYED[seed] == actions


# Loops, as users write them ----------------------------------------------------------------------


def by_name(team, env, seed):
    observations, _ = env.reset(seed=seed)
    hidden_state = team.initial_hidden_state()
    while env.agents:
        living = {agent: observations[agent] for agent in env.agents}
        actions, hidden_state = team.act(living, hidden_state)
        observations, *_ = env.step(actions)


def all_by_name(team, env, seed):
    """None for agents that are not there."""
    observations, _ = env.reset(seed=seed)
    hidden_state = team.initial_hidden_state()
    while env.agents:
        given = {agent: observations.get(agent) for agent in team.agents}
        actions, hidden_state = team.act(given, hidden_state)
        observations, *_ = env.step({agent: actions[agent] for agent in env.agents})


def each_by_itself(team, env, seed):
    observations, _ = env.reset(seed=seed)
    hidden = {agent: team[agent].initial_hidden_state() for agent in team.agents}
    while env.agents:
        actions = {}
        for agent in env.agents:
            actions[agent], hidden[agent] = team[agent].act(observations[agent], hidden[agent])
        observations, *_ = env.step(actions)


def in_turn(team, env, seed):
    """Of one agent after the other; as PettingZoo's tutorials play."""
    env.reset(seed=seed)
    hidden_state = team.initial_hidden_state()
    for agent in env.agent_iter():
        observation, _, terminated, truncated, _ = env.last()
        action = None
        if not (terminated or truncated):
            actions, hidden_state = team.act({agent: observation}, hidden_state)
            assert list(actions) == [agent]
            action = actions[agent]
        env.step(action)


def in_turn_seen_by_all(team, env, seed):
    """All agents observe every move, as in training."""
    env.reset(seed=seed)
    hidden_state = team.initial_hidden_state()
    while not any(env.terminations.values()):
        given = {agent: env.observe(agent) for agent in env.agents}
        actions, hidden_state = team.act(given, hidden_state)
        env.step(actions[env.agent_selection])


@pytest.mark.parametrize("loop", [by_name, each_by_itself])
def test_agents_that_leave(hikers, loop):
    """With hidden states and frames, whose spaces are of all kinds."""
    same_as_evaluated(hikers, Hikers, loop)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["idqn", "central_q"])
def test_agents_that_come_back(name, tmp_path):
    reward = "sum" if name == "central_q" else None
    run = trained(name, Wanderers, tmp_path / "run", reward, **MEMORY)
    same_as_evaluated(run.path, Wanderers, all_by_name)


def test_numbers_and_several_choices(archers):
    same_as_evaluated(archers, Archers, by_name)


def test_turns(cards):
    for loop in (in_turn, in_turn_seen_by_all):
        same_as_evaluated(cards, Cards, loop)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["idqn", "central_q"])
def test_turns_with_memory(name, tmp_path):
    reward = "sum" if name == "central_q" else None
    run = trained(name, Cards, tmp_path / "run", reward, **MEMORY)
    same_as_evaluated(run.path, Cards, in_turn_seen_by_all)
    if name == "central_q":
        team, env = coterie.load(run.path), Cards()
        env.reset(seed=0)
        with pytest.raises(UsageError, match="give the observations of all"):
            team.act({"west": env.observe("west")}, team.initial_hidden_state())
        with pytest.raises(UsageError, match=r"west cannot act by itself: .* central learning"):
            team["west"]


@pytest.mark.slow
@pytest.mark.parametrize("environment", [Lever, Dial])
def test_a_single_agent_is_given_its_observation(environment, tmp_path):
    name = "ippo" if environment is Lever else "idqn"
    run = trained(name, environment, tmp_path / "run")

    def loop(team, env, seed):
        observation, _ = env.reset(seed=seed)
        hidden_state, truncated = team.initial_hidden_state(), False
        while not truncated:
            own = team["agent_0"].act(observation, team["agent_0"].initial_hidden_state())[0]
            (listed,), _ = team.act([observation], hidden_state)
            named, _ = team.act({"agent_0": observation}, hidden_state)
            action, hidden_state = team.act(observation, hidden_state)
            for same in (own, listed, named["agent_0"]):
                np.testing.assert_array_equal(same, action)
            observation, _, _, truncated, _ = env.step(action)

    same_as_evaluated(run.path, environment, loop)
    team = coterie.load(run.path)
    if environment is Dial:
        legal = np.arange(9) == 1
        assert team.act(np.float32([0.3]), team.initial_hidden_state(), legal)[0] == 5
    with pytest.raises(UsageError, match="agent agent_0: the observation"):
        team.act(np.zeros(7), team.initial_hidden_state())


# What is given -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_third_of_the_hikers_leaves_and_masks_of_infos_are_heeded(tmp_path):
    """Relay gives masks of one agent in its infos, and none of the others."""
    algorithm = small("idqn", recurrent=True)
    out = tmp_path / "run"
    coterie.train(algorithm, guests.Relay, 64, out=out, **FEW)
    team, env = coterie.load(out), guests.Relay()
    shown, infos = env.reset()
    hidden_state = team.initial_hidden_state()
    for _ in range(6):
        masks = {agent: infos[agent].get("action_mask") for agent in env.agents}
        living = {agent: shown[agent] for agent in env.agents}
        actions, hidden_state = team.act(living, hidden_state, masks)
        assert list(actions) == env.agents
        assert masks["a"][actions["a"]]
        shown, _, _, _, infos = env.step(actions)
        if not env.agents:
            break


def test_agents_that_are_left_out_stay_as_they_are(hikers):
    team, env = coterie.load(hikers), Hikers()
    shown, _ = env.reset(seed=5)
    start = team.initial_hidden_state()
    both, after = team.act(shown, start)
    one, alone = team.act({"bob": shown["bob"]}, start)
    assert one.keys() == {"bob"}
    np.testing.assert_array_equal(one["bob"], both["bob"])
    for before, x, y in zip(*map(jax.tree.leaves, (start, alone, after)), strict=True):
        np.testing.assert_array_equal(x[::2], before[::2])
        np.testing.assert_array_equal(x[1], y[1])
    # The first frame of each agent is its own first one, whenever that is.
    _, one_by_one = team.act({a: shown[a] for a in ("cy", "ann")}, alone)
    jax.tree.map(np.testing.assert_array_equal, one_by_one, after)
    gone, remembered = team.act(shown | {"bob": None}, start)
    assert gone["bob"] is None
    assert remembered.begun.all(), "it is not there, which is remembered"
    assert team.act({}, start)[0] == {}


def test_an_agent_by_itself_does_what_it_does_in_its_team(archers):
    team, env = coterie.load(archers), Archers()
    shown, _ = env.reset(seed=5)
    key = jax.random.key(2)
    drawn, _ = team.act(shown, team.initial_hidden_state(), key=key)
    for agent in team.agents:
        own = team[agent]
        assert own.initial_hidden_state().shape == (0,)
        action, _ = own.act(shown[agent], own.initial_hidden_state(), key=key)
        np.testing.assert_array_equal(action, drawn[agent])
    masks = ([0, 1], [0, 0, 1], [1, 0], [0, 1])
    start = team["bob"].initial_hidden_state()
    for mask in (masks, [0, 1, 0, 0, 1, 1, 0, 0, 1]):
        action, _ = team["bob"].act(shown["bob"], start, mask)
        assert action.tolist() == [[1, 2], [0, 1]]
    with pytest.raises(UsageError, match=r"agent ann: there is an action mask, but .* continuous"):
        team["ann"].act(shown["ann"], start, [1, 1])


def test_vectors_by_hand_are_taken_as_they_were(hikers, cards):
    team, env = coterie.load(hikers), Hikers()
    shown, _ = env.reset(seed=3)
    flat = {a: gymnasium.spaces.flatten(env.observation_space(a), shown[a]) for a in shown}
    start = team.initial_hidden_state()
    for one, other in zip(*(team.act(x, start)[0].values() for x in (shown, flat)), strict=True):
        np.testing.assert_array_equal(one, other)
    team, env = coterie.load(cards), Cards()
    env.reset(seed=0)
    shown, start = env.observe("west"), team.initial_hidden_state()
    expected, _ = team.act({"west": shown}, start)
    own, mask = shown["observation"], shown["action_mask"]
    assert team.act({"west": own.ravel()}, start, {"west": mask})[0] == expected
    # A mask that is given takes the place of the one that came with the observation.
    for k in range(4):
        assert team.act({"west": shown}, start, {"west": np.arange(4) == k})[0] == {"west": k}
    free, _ = team.act({"west": own}, start)
    assert free == team.act({"west": own}, start, {"west": None})[0]


@pytest.mark.parametrize(
    ("observations", "masks", "sentence"),
    [
        ({"wets": 0}, None, r"observations: there is no agent 'wets'; did you mean west\?"),
        ({"b": 0}, None, r"there is no agent 'b' \(agents are west, east\)"),
        ({"west": np.ones(4)}, {"wst": [1] * 4}, "action_masks: there is no agent 'wst'"),
        ({"west": np.ones(4)}, {"east": [1] * 4}, "action_masks lack west"),
        ({"west": np.ones(4)}, {"west": [1] * 3}, r"agent west: the action mask has shape \(3,\)"),
        ({"west": np.ones(4)}, [[1] * 4], "action_masks must hold one for each of west, east"),
        ({"west": np.ones(5)}, None, r"agent west: the observation has shape \(5,\)"),
        ({"west": {"action_mask": [1] * 4}}, None, r"agent west: .* no 'observation'"),
        ({"west": [np.nan] * 4}, None, "agent west: the observation has a number that is not fin"),
        ({"west": "wall"}, None, "agent west: the observation is 'wall', not an array"),
        (np.ones(4), None, "observations must hold one for each of west, east"),
        (None, None, "observations must hold one for each"),
        ("we", None, "observations must hold one for each"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(observations, masks, sentence, cards):
    team = coterie.load(cards)
    with pytest.raises(UsageError, match=sentence):
        team.act(observations, team.initial_hidden_state(), masks)


def test_names_and_hidden_states_of_others_are_refused(hikers, cards):
    team = coterie.load(hikers)
    with pytest.raises(UsageError, match=r"there is no agent 'bop'; did you mean bob\?"):
        team["bop"]
    with pytest.raises(UsageError, match="no observation of bob"):
        team["bob"].act(None, team["bob"].initial_hidden_state())
    shown, _ = Hikers().reset(seed=0)
    other = coterie.load(cards).initial_hidden_state()
    for wrong in (None, other, team["bob"].initial_hidden_state(), {}):
        with pytest.raises(UsageError, match="the hidden state does not fit"):
            team.act(shown, wrong)
    with pytest.raises(UsageError, match="the hidden state does not fit"):
        team["bob"].act(shown["bob"], team.initial_hidden_state())


# In files ----------------------------------------------------------------------------------------

SPACES = (
    *Hikers.observed, *Archers.done, Discrete(3, start=-2), Lever.observation_space,
    Box(0, 255, (4, 4, 3), np.uint8), Box(np.float32([-1, -np.inf]), np.float32([np.inf, 0.1])),
    Box(-np.inf, np.inf, (), np.float64), Box(0, 1, (0,)), Box(-5, 2**40, (2,), np.int64),
    MultiBinary((2, 2)), Text(4, charset="zab"), Tuple((Discrete(2), Tuple((MultiBinary(1),)))),
    Dict([("z", Discrete(2)), ("a", Dict({"in": Discrete(3)}))]), Dict({1: Discrete(2)}),
)  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_are_kept_as_data(space):
    data = json.loads(json.dumps(to_data(space)))
    again = from_data(data, 100)
    assert again == space
    assert to_data(again) == data
    space.seed(0)
    for _ in range(3):
        seen = space.sample()
        flat = [gymnasium.spaces.flatten(x, seen) for x in (space, again)]
        np.testing.assert_array_equal(*flat)


@pytest.mark.slow
def test_spaces_without_a_description_are_left_out(tmp_path):
    class Odd(guests.Dice):
        def observation_space(self, agent):
            return OneOf((Discrete(2), Box(0, 1, (2,))))

        def look(self):
            return {a: (0, np.int64(1)) for a in self.possible_agents}

    with pytest.raises(NotData, match="a Sequence has no description"):
        to_data(Sequence(Discrete(2)))
    out = tmp_path / "run"
    coterie.train(small("idqn"), Odd, 32, out=out, **FEW)
    assert "spaces" not in json.loads((out / "policy" / "policy.json").read_text())
    team = coterie.load(out)
    assert team.spaces is None
    assert team.act([np.ones(3)] * 2, team.initial_hidden_state())[0]


def described(run):
    return json.loads((run / "policy" / "policy.json").read_text())


def rewritten(run, place, spaces):
    """A copy of a run whose policy file, with a digest that is right, holds these spaces."""
    shutil.copytree(run, place)
    about = described(run) | {"spaces": spaces}
    about = {k: v for k, v in about.items() if k != "digest" and (k != "spaces" or v is not None)}
    (place / "policy" / "policy.json").write_text(json.dumps(seal(about)))
    return place


def test_a_policy_file_without_spaces_is_played_as_before(hikers, tmp_path):
    team = coterie.load(rewritten(hikers, tmp_path / "run", None))
    assert team.spaces is None
    actions, _ = team.act(
        [np.zeros(n) for n in team.observation_sizes], team.initial_hidden_state()
    )
    assert all(type(action) is int for action in actions)
    with pytest.raises(UsageError, match="agent ann: the observation must be a vector of 9"):
        team.act(Hikers().reset(seed=0)[0], team.initial_hidden_state())


def forged(part, **changed):
    def change(spaces):
        spaces[part][0].update(changed)
        return spaces

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda spaces: [],
        lambda spaces: "parallel",
        lambda spaces: spaces | {"convention": "os:system"},
        lambda spaces: spaces | {"convention": ["aec"]},
        lambda spaces: spaces | {"convention": "single"},
        lambda spaces: {"convention": "aec"},
        lambda spaces: spaces | {"actions": spaces["actions"][:1]},
        lambda spaces: spaces | {"actions": spaces["observations"]},
        lambda spaces: spaces | {"observations": [None, None]},
        lambda spaces: spaces | {"actions": list(reversed(spaces["actions"]))[:0] * 2},
        forged("actions", n=5),
        forged("actions", n=4.0),
        forged("actions", n=10**400),
        forged("actions", n="4"),
        forged("actions", kind="os.system"),
        forged("actions", kind=["Box"]),
        forged("actions", more=1),
        forged("observations", kind="Tuple"),
        forged("observations", kind="Sequence"),
        forged("observations", spaces=[]),
        forged("observations", spaces=[["a"]]),
        forged("observations", spaces={"a": 1}),
    ],
)
def test_spaces_that_make_no_sense_are_refused(change, cards, tmp_path):
    spaces = change(described(cards)["spaces"])
    run = rewritten(cards, tmp_path / "run", spaces)
    with pytest.raises(UsageError, match=r"policy\.json is damaged: of its agents' spaces"):
        coterie.load(run)


def box(**changed):
    return {"kind": "Box", "shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0} | changed


@pytest.mark.parametrize(
    "data",
    [
        box(shape=[2**40]), box(shape=[2**12, 2**12, 2**12]), box(shape=[-1]), box(shape=[2.0]),
        box(shape=2), box(dtype="U999999999"), box(dtype="object"), box(dtype="os"),
        box(dtype=None), box(low=2.0), box(low=[0.0] * 3), box(low=[[0.0, 0.0]]), box(high="x"),
        box(high=float("nan")), box(high=1e300), box(high=10**400), box(seed=3),
        {"kind": "Tuple", "spaces": [box(shape=[1_000])] * 1_000},
        {"kind": "MultiBinary", "shape": [2**50]}, {"kind": "MultiBinary", "shape": 3},
        {"kind": "MultiDiscrete", "nvec": [2], "start": [0], "dtype": "U99999999"},
        {"kind": "MultiDiscrete", "nvec": [-2], "start": [0], "dtype": "int64"},
        {"kind": "MultiDiscrete", "nvec": [2], "start": [0, 1], "dtype": "int64"},
        {"kind": "Discrete", "n": 2**70, "start": 0}, {"kind": "Discrete", "n": 0, "start": 0},
        {"kind": "Text", "min_length": 5, "max_length": 1, "characters": "ab"},
        {"kind": "Dict", "spaces": [[[1], box()]]}, {"kind": "Dict", "spaces": [["a", box()]] * 2},
        {}, [], None, "Box", 3,
    ],
)  # fmt: skip
def test_no_description_makes_something_else_than_a_space(data):
    forget_peak()
    before = megabytes()
    with pytest.raises(NotData):
        from_data(data, 1_000)
    assert megabytes() - before < 20


def test_deep_descriptions_are_refused():
    deep = box()
    for _ in range(100_000):
        deep = {"kind": "Tuple", "spaces": [deep]}
    with pytest.raises(NotData):
        from_data(deep, 100)


def test_mutated_descriptions_give_spaces_or_a_sentence(hikers):
    spaces, chance = described(hikers)["spaces"], random.Random(3)
    spec = coterie.load(hikers).spaces.spec
    values = (0, -1, 2**63, 1.5, None, "Box", [], {}, True, [1, 2], float("nan"))
    refused = 0
    for _ in range(600):
        changed = copy.deepcopy(spaces)
        places = list(walk(changed))
        parent, key = chance.choice(places)
        parent[key] = chance.choice((*values, copy.deepcopy(chance.choice(places)[0])))
        try:
            found = AgentSpaces.of_data(changed, spec)
        except NotData:
            refused += 1
        else:
            assert found.spec == spec
    assert refused > 300


def walk(tree):
    """Every place in a tree of JSON: what it stands in, and where there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from walk(tree[key])


def test_an_environment_and_its_team_read_by_the_same_rules(hikers):
    """Row by row: what the team makes of an observation is what training made of it."""
    env, team = PythonEnv(Hikers(), combined=True), coterie.load(hikers)
    rows = env.reset(7).observations
    shown, _ = Hikers().reset(seed=7)
    np.testing.assert_array_equal(team._input.read(shown, None).observations, rows)
