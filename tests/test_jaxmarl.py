"""Environments of JaxMARL by name: the same as the package's own, with ends told apart."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation
from sealing import make_run

import coterie
from coterie import UsageError
from coterie.cli.entry import main
from coterie.jax_envs import names
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

        if "scenario" in options:
            options["scenario"] = jaxmarl.environments.smax.map_name_to_scenario(
                options["scenario"]
            )
        if name == "overcooked" and "layout" in options:
            layouts = jaxmarl.environments.overcooked.overcooked_layouts
            options["layout"] = layouts[options["layout"]]
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
    spaces = [theirs.action_space(agent) for agent in theirs.agents]
    if name not in MASKED or not hasattr(spaces[0], "n"):
        return [space.sample(own) for space, own in zip(spaces, keys, strict=True)]
    flags = (theirs.get_legal_moves if name == "hanabi" else theirs.get_avail_actions)(state)
    return [
        jax.random.categorical(own, jnp.where(flags[agent] > 0, 0.0, -1e9))
        for own, agent in zip(keys, theirs.agents, strict=True)
    ]


def attack(name: str, key, theirs, state):
    """Every unit attacks what it can, and goes to meet the enemy where it cannot."""
    flags = theirs.get_avail_actions(state)
    last = [flags[a].shape[0] - 1 - jnp.argmax(flags[a][::-1]) for a in theirs.agents]
    return [jnp.where(action > 4, action, 1) for action in last]


def in_both(name: str, steps: int, episodes: int, choose=legal_actions, **options):
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

    def joint(rows, alive):
        if not spec.actions:  # action 0 is the only one that Coterie lets dead agents have
            actions = jnp.stack(rows).astype(jnp.int32)
            return actions if alive is None else jnp.where(alive, actions, 0)
        return padded([row.astype(jnp.float32) for row in rows], spec.action_shape[1])

    def episode(key):
        reset_key, run_key = jax.random.split(key)
        (_, state), (own, _) = theirs.reset(reset_key), game.reset(reset_key)

        def step(carry, key):
            state, own, live = carry
            act_key, step_key = jax.random.split(key)
            rows = choose(name, act_key, theirs, state)
            given = rows if name == "storm_2p" else dict(zip(theirs.agents, rows, strict=True))
            shown, after, rewards, dones, _ = theirs.step(step_key, state, given)
            # Their step is made with the first of two keys; the second one is for a reset.
            own, seen = game.step_env(jax.random.split(step_key)[0], own, joint(rows, own.alive))
            out = {
                "live": live,
                "rewards": jnp.stack([jnp.float32(rewards[a]) for a in theirs.agents]),
                "observations": padded(map(flat, observed(theirs, shown)), spec.observation_size),
                "dones": dones,
                "seen": seen,
            }
            if "SMAX" in name and not spec.actions:
                masks = theirs.get_avail_actions(after)
                out["masks"] = padded([masks[a] for a in theirs.agents], spec.action_count)
            if "SMAX" in name:
                out["world"] = shown["world_state"]
            return (after, own, live & ~dones["__all__"]), out

        keys = jax.random.split(run_key, steps)
        return jax.lax.scan(step, (state, own, jnp.bool_(True)), keys)[1]

    out = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(7), episodes))
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x), 0, 1), out)


def in_order(agent: str):
    """Allies before enemies, each by number."""
    side, number = agent.split("_")
    return side, int(number)


def check_equal(out) -> np.ndarray:
    """Rewards, observations and ends of both; returns how each episode ended."""
    seen, live, done = out["seen"], out["live"], out["dones"]["__all__"]
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(seen.rewards[live], out["rewards"][live], **close)
    # At an end the package shows the start of the next episode.
    going = seen.alive & (live & ~done)[..., None]
    np.testing.assert_allclose(seen.observations[going], out["observations"][going], **close)
    np.testing.assert_array_equal((seen.terminated | seen.truncated)[live], done[live])
    assert (live & done).any(0).all(), "an episode did not end"
    return np.where((seen.terminated & live).any(0), "terminated", "truncated")


SHORT = {"num_inner_steps": 3, "num_outer_steps": 2}
BOTH, OVER, CUT = {"terminated", "truncated"}, {"terminated"}, {"truncated"}
MPE = ("simple", "simple_spread", "simple_tag", "simple_world_comm", "simple_crypto",
       "simple_push", "simple_adversary", "simple_reference", "simple_facmac")  # fmt: skip


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "steps", "ends", "options"),
    [
        ("switch_riddle", 6, BOTH, {}),
        ("coin_game", 6, CUT, SHORT),
        slow("coin_game", 6, CUT, SHORT | {"cnn": True, "egocentric": True}),
        *(
            slow(f"MPE_{name}_v{1 if 'facmac' in name else 3}", 5, CUT, {"max_steps": 4})
            for name in MPE
        ),
        slow("MPE_simple_speaker_listener_v4", 26, CUT, {}),
        slow("MPE_simple_tag_v3", 5, CUT, {"max_steps": 4, "action_type": "Continuous"}),
        slow("MPE_simple_facmac_3a_v1", 26, CUT, {}),
        slow("overcooked", 6, CUT, {"max_steps": 6, "layout": "forced_coord"}),
        slow("overcooked_v2", 6, CUT, {"max_steps": 6, "agent_view_size": 2}),
        slow("hanabi", 80, OVER, {}),
        slow("storm", 6, CUT, SHORT),
        slow("storm_2p", 6, CUT, SHORT),
        slow("storm_np", 6, CUT, SHORT | {"num_agents": 3}),
        slow("jaxnav", 60, BOTH, {"max_steps": 60, "lidar_num_beams": 9}),
        slow("jaxnav", 60, BOTH, {"max_steps": 60, "lidar_num_beams": 9, "evaporating": True}),
        slow("hopper_3x1", 40, BOTH, {"episode_length": 40}),
    ],
)
def test_steps_are_those_of_the_package_and_ends_are_told_apart(name, steps, ends, options):
    assert set(check_equal(in_both(name, steps, 64, **options))) == ends


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "ends", "options"),
    [
        ("HeuristicEnemySMAX", 6, CUT, {"scenario": "3m", "max_steps": 5}),
        ("HeuristicEnemySMAX", 80, OVER, {"scenario": "smacv2_5_units"}),
        ("HeuristicEnemySMAX", 80, OVER, {"scenario": "5m_vs_6m", "observation_type": "conic"}),
        ("HeuristicEnemySMAX", 6, CUT, {"max_steps": 5, "action_type": "continuous"}),
        ("SMAX", 101, BOTH, {"scenario": "2s3z"}),
    ],
)
def test_smax_shows_units_that_die_what_is_legal_and_the_state(name, steps, ends, options):
    out = in_both(name, steps, 16, **options)
    assert set(check_equal(out)) == ends
    seen, going = out["seen"], out["live"] & ~out["dones"]["__all__"]
    np.testing.assert_allclose(seen.central[going], out["world"][going], rtol=1e-4, atol=1e-4)
    agents = [agent for agent in out["dones"] if agent != "__all__"]
    dead = np.stack([out["dones"][a] for a in sorted(agents, key=in_order)], -1)
    np.testing.assert_array_equal(~seen.alive[going], dead[going])
    assert dead[going].any() or steps < 20, "nobody died while others went on"
    assert not seen.observations[going][dead[going]].any()
    if "action_type" not in options:
        alive = going[..., None] & ~dead
        np.testing.assert_array_equal(seen.action_mask[alive], out["masks"][alive])


@pytest.mark.slow
def test_a_battle_is_won_where_the_scripts_of_jaxmarl_say_so():
    options = {"scenario": "3m", "max_steps": 40, "won_battle_bonus": 2.0}
    out = in_both("HeuristicEnemySMAX", 41, 64, attack, **options)
    ends = check_equal(out)
    last = out["live"] & out["dones"]["__all__"]
    won = out["seen"].info["won"][last]
    np.testing.assert_array_equal(won, (out["rewards"][last] >= 1.0).all(-1))
    assert set(won) == {0.0, 1.0}
    assert "terminated" in ends


@pytest.fixture
def quickly(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


TINY = {"environments": 2, "hidden": (8,)}
PPO = TINY | {"rollout_steps": 8, "minibatches": 1, "epochs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "name", "options"),
    [
        (coterie.MAPPO(**PPO), "HeuristicEnemySMAX", {"scenario": "3m", "max_steps": 7}),
        (
            coterie.QMIX(**TINY, learning_starts=8, batch_size=4, buffer_size=64),
            "HeuristicEnemySMAX",
            {"scenario": "3m", "max_steps": 7},
        ),
        (coterie.IPPO(**PPO), "overcooked_v2", {"layout": "cramped_room", "max_steps": 7}),
        (coterie.IPPO(**PPO), "hopper_3x1", {"episode_length": 7}),
    ],
)
@pytest.mark.timeout(900)
def test_a_run_trains_goes_on_and_is_evaluated_by_its_name(
    algorithm, name, options, tmp_path, quickly
):
    few = {"evaluations": 1, "evaluation_episodes": 2, "final_episodes": 2, "options": options}
    environment, path = f"jaxmarl:{name}", tmp_path / "run"
    coterie.train(algorithm, environment, steps=32, out=path, **few)
    resumed = coterie.resume(path, steps=64)
    assert (resumed.steps, resumed.config["environment_options"]) == (64, options)
    if isinstance(algorithm, coterie.MAPPO):
        whole = coterie.train(algorithm, environment, steps=64, **few)
        assert resumed.results["last"] == whole.results["last"]
    played = coterie.open_run(path).evaluate(episodes=3)
    assert 1 <= played["eval/length"]["mean"] <= 8
    assert ("eval/info/won" in played) == ("SMAX" in name)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    won = [line["train/info/won"] for line in lines if "train/info/won" in line]
    assert bool(won) == ("SMAX" in name)
    assert all(0 <= x <= 1 for x in won)


# Names and options -------------------------------------------------------------------------------


def test_all_of_the_package_have_names_but_those_that_need_objects_or_other_packages():
    with quietly():
        from jaxmarl.registration import registered_envs
    left = set(registered_envs) - set(names("jaxmarl"))
    assert {name for name in left if "Robotarium" not in name} == {"LearnedPolicyEnemySMAX"}
    assert set(names("jaxmarl")) <= set(registered_envs)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("jaxmarl:smax", {}, "JaxMARL has no environment 'smax'; did you mean jaxmarl:SMAX?"),
        ("jaxmarl:", {}, "JaxMARL has no environment ''; it has HeuristicEnemySMAX, SMAX, "),
        ("jaxmral:SMAX", {}, "jaxmral:SMAX: there is no jaxmral; did you mean jaxmarl:SMAX?"),
        ("SMAX", {}, "SMAX is an environment of JaxMARL: name it jaxmarl:SMAX"),
        ("jaxmarl/SMAX", {}, "environments of JaxMARL are named jaxmarl:NAME"),
        ("jaxmarl:SMAX", {"max_step": 3}, "no option 'max_step'; did you mean max_steps?"),
        ("jaxmarl:switch_riddle", {"x": 3}, "it has num_agents, initial_bulb_state, reward_all_"),
        ("jaxmarl:SMAX", {"max_steps": "x"}, "max_steps of jaxmarl:SMAX must be a whole number"),
        ("jaxmarl:SMAX", {"scenario": "4m"}, "has no scenario '4m' (it has 3m, 2s3z, 25m, "),
        ("jaxmarl:SMAX", {"scenario": {"a": 1}}, "scenario must be a number, a word, True"),
        ("jaxmarl:overcooked", {"layout": "cramped"}, "did you mean cramped_room? (it has "),
        ("jaxmarl:overcooked_v2", {"layout": "x"}, "has no layout 'x' (it has cramped_room, "),
        ("jaxmarl:jaxnav", {"map_id": "Grid-Buffer"}, "has no map_id 'Grid-Buffer' (it has Grid-"),
        ("jaxmarl:jaxnav", {"map_params": {"dir_path": "."}}, "has no option 'map_params'"),
        ("jaxmarl:hopper_3x1", {"auto_reset": True}, "has no option 'auto_reset'"),
        ("jaxmarl:switch_riddle", {"num_agents": 2}, "cannot be made with num_agents 2: Assertion"),
    ],
)
def test_what_does_not_exist_is_answered_in_a_sentence(name, options, sentence):
    with pytest.raises(UsageError) as caught:
        coterie.make(name, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"), [("map_id", "Grid-Buffer"), ("map_params", {"dir_path": "elsewhere"})]
)
def test_a_file_cannot_make_jaxmarl_unpickle_another(option, value, tmp_path):
    """A kind of map of JaxNav unpickles the files in a folder that its parameters name."""
    chosen = {"environment": "jaxmarl:jaxnav", "environment_options": {option: value}}
    run = make_run(tmp_path / "run", [], central="none", algorithm="ippo", **chosen)
    with pytest.raises(UsageError, match=f"jaxmarl:jaxnav has no (option )?'?{option}"):
        coterie.open_run(run)


def test_nothing_is_printed_or_warned_of_as_an_environment_is_made(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ippo", "jaxmarl:halfcheetah_6x1", "--env.nothing", "3"]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("coterie: jaxmarl:halfcheetah_6x1 has no option 'nothing'; it has ")
    coterie.make("jaxmarl:halfcheetah_6x1")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_answered_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"JaxMARL is not installed: pip install .*\[jaxm"):
        coterie.make("jaxmarl:SMAX")


def test_spaces_rewards_and_limits():
    speaker = coterie.make("jaxmarl:MPE_simple_speaker_listener_v4").spec()
    assert (speaker.agents, speaker.reward) == (("speaker_0", "listener_0"), "mean")
    assert (speaker.observation_sizes, speaker.action_counts) == ((3, 11), (3, 5))
    hopper = coterie.make("jaxmarl:hopper_3x1", episode_length=10, action_repeat=3).spec()
    assert (hopper.time_limit, hopper.central_size) == (4, 11)
    assert str(hopper.actions[0]) == "1 continuous number (from -1 to 1)"
    battle = coterie.make("jaxmarl:SMAX", scenario="5m_vs_6m").spec()
    assert battle.action_counts == (11,) * 5 + (10,) * 6
    assert (battle.reward, battle.central_size) == ("individual", 132)
    kitchen = coterie.make("jaxmarl:overcooked").spec()
    assert str(kitchen.observations[0]) == "float32 (4, 5, 26)"
    featurized = coterie.make("jaxmarl:overcooked_v2", observation_type="featurized").spec()
    assert not featurized.observations
