"""What JaxMARL's suites of environments leave unsaid, or say each in its own way."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp

from coterie.errors import UsageError
from coterie.extras import how_to_install
from coterie.spec import Reward


def _by_name(env: Any, shown: Any) -> list[Any]:
    return [shown[agent] for agent in env.agents]


def _named(env: Any, actions: Sequence[Any]) -> Any:
    return dict(zip(env.agents, actions, strict=True))


def _no_limit(env: Any) -> None:
    return None


def _max_steps(env: Any) -> int:
    return int(env.max_steps)


def _one_step_more(env: Any) -> int:
    """Of suites that ask for the limit before they count the step."""
    return int(env.max_steps) + 1


def _never(env: Any, before: Any, after: Any, actions: Any) -> Any:
    return jnp.zeros((), bool)


@dataclass(frozen=True)
class Suite:
    """A suite; functions take JaxMARL's environment first.

    JaxMARL says that an episode is done, and not why: ``over`` tells whether the game itself ended
    there. Every other end is a time limit.

    Attributes:
        names: what its environments are called, and their classes.
        reward: the environment's default reward.
        over: (state before, state after, actions) -> whether the game was over in the latter.
        time_limit: steps of the longest episode, None where nothing limits it.
        alive: (state before, state after) -> [N] who still takes part in the latter, the same twice
            after a reset; None where everybody always does.
        idle: (state, actions) -> the actions, of agents that are dead what they do then.
        legal: (state) -> flags of legal actions by agent; None where all always are.
        central: (observations, state) -> z; None where the environment has no state to offer.
        info: (state) -> a number, by the name under which it is logged at an episode's end.
        observations: (observations) -> of each agent in turn what it observes.
        joined: (each agent's action) -> the actions as ``step_env`` takes them.
        inner: further classes whose keywords the constructor passes on.
        words: what an option takes by name where the constructor wants an object.
        withheld: keywords that cannot be given: they are objects, or not safe to take from a file.
        fixed: keywords that are always given.
        needs: what has to be installed besides JaxMARL.
    """

    names: Mapping[str, str]
    reward: Callable[[Any], Reward]
    over: Callable[[Any, Any, Any, Any], Any] = _never
    time_limit: Callable[[Any], int | None] = _max_steps
    alive: Callable[[Any, Any, Any], Any] | None = None
    idle: Callable[[Any, Any, Any], Any] | None = None
    legal: Callable[[Any, Any], Any] | None = None
    central: Callable[[Any, Any, Any], Any] | None = None
    info: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    observations: Callable[[Any, Any], list[Any]] = _by_name
    joined: Callable[[Any, Sequence[Any]], Any] = _named
    inner: tuple[str, ...] = ()
    words: Mapping[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    needs: str = ""

    def refuse(self, name: str) -> None:
        """UsageError for an environment that needs what is not installed."""
        raise UsageError(f"jaxmarl:{name} needs {self.needs}: {how_to_install('jaxmarl')}")


def _individual(env: Any) -> Reward:
    return "individual"


def _common(env: Any) -> Reward:
    """All agents get the same, or nearly so: the mean is what JaxMARL's scripts report."""
    return "mean"


def _attribute(path: str) -> Callable[[], Mapping[str, Any]]:
    """What a module of JaxMARL's environments holds."""
    module, name = path.split(":")
    return lambda: getattr(importlib.import_module(f"jaxmarl.environments.{module}"), name)


# SMAX --------------------------------------------------------------------------------------------


def _battle(state: Any) -> Any:
    """The state of the units, without that of a policy of the enemy."""
    return getattr(state, "state", state)


def _sides(env: Any, state: Any) -> tuple[Any, Any]:
    """Whether any of the allies, and of the enemies, is alive."""
    alive = _battle(state).unit_alive
    return alive[: env.num_allies].any(), alive[env.num_allies :].any()


def _a_side_is_dead(env: Any, before: Any, after: Any, actions: Any) -> Any:
    allies, enemies = _sides(env, after)
    return ~(allies & enemies)


def _won(env: Any, state: Any) -> Any:
    """As ``returned_won_episode`` of JaxMARL's scripts: the enemy is dead, and not the allies."""
    allies, enemies = _sides(env, state)
    return (allies & ~enemies).astype(jnp.float32)


def _units(env: Any, before: Any, after: Any) -> Any:
    return _battle(after).unit_alive[: len(env.agents)]


def _dead_stop(env: Any, state: Any, actions: Any) -> Any:
    """Dead units may only stop; another action of theirs would still be seen by the others."""
    if env.action_type != "discrete":
        return actions
    stop, alive = env.num_movement_actions - 1, _units(env, state, state)
    return list(jnp.where(alive, jnp.stack(actions), stop))


SMAX = Suite(
    {"HeuristicEnemySMAX": "HeuristicEnemySMAX"},
    _common,
    over=_a_side_is_dead,
    time_limit=_one_step_more,
    alive=_units,
    idle=_dead_stop,
    legal=lambda env, state: env.get_avail_actions(state),
    central=lambda env, shown, state: shown["world_state"],
    info={"won": _won},
    inner=("SMAX",),
    words={"scenario": _attribute("smax.smax_env:MAP_NAME_TO_SCENARIO")},
)

# Particles ---------------------------------------------------------------------------------------

TEAM = Suite(
    {
        "MPE_simple_v3": "SimpleMPE",
        "MPE_simple_spread_v3": "SimpleSpreadMPE",
        "MPE_simple_speaker_listener_v4": "SimpleSpeakerListenerMPE",
        "MPE_simple_reference_v3": "SimpleReferenceMPE",
    },
    _common,
    time_limit=_one_step_more,
    withheld=(
        "agents",
        "landmarks",
        "action_spaces",
        "observation_spaces",
        "colour",
        "dim_p",
        "dim_c",
    ),
)
CONFLICT = replace(
    TEAM,
    names={
        "MPE_simple_tag_v3": "SimpleTagMPE",
        "MPE_simple_world_comm_v3": "SimpleWorldCommMPE",
        "MPE_simple_crypto_v3": "SimpleCryptoMPE",
        "MPE_simple_push_v3": "SimplePushMPE",
        "MPE_simple_adversary_v3": "SimpleAdversaryMPE",
        "MPE_simple_facmac_v1": "SimpleFacmacMPE",
        "MPE_simple_facmac_3a_v1": "SimpleFacmacMPE3a",
        "MPE_simple_facmac_6a_v1": "SimpleFacmacMPE6a",
        "MPE_simple_facmac_9a_v1": "SimpleFacmacMPE9a",
    },
    reward=_individual,
    withheld=(*TEAM.withheld, "num_agents"),
)

# Games of several inner episodes -----------------------------------------------------------------

# The end of an inner episode shows the start of the next and rewards nothing: it is part of the
# game, whose own end is the limit of them all.
COINS = Suite(
    {"coin_game": "CoinGame"},
    lambda env: "individual",
    time_limit=lambda env: int(env.num_inner_steps * env.num_outer_steps),
)


def _agents_last(env: Any, shown: Any) -> list[Any]:
    """Of the grids the first axis is of agents, of the inventories the last one."""
    return [
        {"observation": shown["observations"][i], "inventory": shown["inventory"][:, i]}
        for i in env.agents
    ]


STORM = replace(COINS, names={"storm": "InTheGrid"}, observations=_agents_last)
STORM_PAIR = replace(COINS, names={"storm_2p": "InTheGrid_2p"}, joined=lambda env, acts: acts)
STORM_MANY = replace(COINS, names={"storm_np": "InTheMatrix"})

# One each ----------------------------------------------------------------------------------------


def _told(env: Any, before: Any, after: Any, actions: Any) -> Any:
    return jnp.stack(actions)[before.agent_in_room] == env.game_actions["TELL"]


RIDDLE = Suite({"switch_riddle": "SwitchRiddle"}, _common, over=_told)

OVERCOOKED = Suite(
    {"overcooked": "Overcooked"},
    _common,
    words={"layout": _attribute("overcooked:overcooked_layouts")},
)
OVERCOOKED_V2 = Suite(
    {"overcooked_v2": "OvercookedV2"},
    _common,
    words={
        "layout": _attribute("overcooked_v2:overcooked_v2_layouts"),
        "observation_type": lambda: {"default": "default", "featurized": "featurized"},
    },
    withheld=("initial_state_buffer", "force_path_planning"),
)

HANABI = Suite(
    {"hanabi": "Hanabi"},
    _common,
    over=lambda env, before, after, actions: after.terminal,
    time_limit=_no_limit,
    legal=lambda env, state: env.get_legal_moves(state),
    withheld=("agents", "action_spaces", "observation_spaces", "num_moves"),
)

MABRAX = Suite(
    {
        "ant_4x2": "Ant",
        "halfcheetah_6x1": "HalfCheetah",
        "hopper_3x1": "Hopper",
        "humanoid_9|8": "Humanoid",
        "walker2d_2x3": "Walker2d",
    },
    _common,
    over=lambda env, before, after, actions: after.info["truncation"] == 0,
    time_limit=lambda env: -(-int(env.episode_length) // int(env.action_repeat)),
    central=lambda env, shown, state: state.obs,
    withheld=("env_name", "auto_reset", "agent_obs_mapping", "agent_action_mapping"),
    fixed={"auto_reset": False},
    needs="brax",
)


def _all_arrived_or_crashed(env: Any, before: Any, after: Any, actions: Any) -> Any:
    return jnp.all(before.done | after.goal_reached | after.move_term)


def _on_the_map(env: Any, before: Any, after: Any) -> Any:
    """With ``evaporating`` agents vanish where they arrive or crash."""
    if not env.evaporating:
        return None
    return ~(before.done | after.goal_reached | after.move_term)


def _room(env: Any, shown: Any, state: Any) -> Any:
    """What JaxMARL's world state says of all agents together, without each one's own part."""
    own = shown[env.agents[0]].shape[0]
    return env.get_world_state(state)[0, env.num_agents : -own]


JAXNAV = Suite(
    {"jaxnav": "JaxNav"},
    _individual,
    over=_all_arrived_or_crashed,
    alive=_on_the_map,
    central=_room,
    # Other maps need a dict of parameters, and one kind unpickles the files that it is given.
    words={"map_id": lambda: {name: name for name in ("Grid-Rand", "Grid-Rand-Poly")}},
    withheld=("map_params", "do_sep_reward"),
)

SUITES = (
    SMAX,
    replace(SMAX, names={"SMAX": "SMAX"}, reward=_individual),
    TEAM,
    CONFLICT,
    OVERCOOKED,
    OVERCOOKED_V2,
    HANABI,
    COINS,
    STORM,
    STORM_PAIR,
    STORM_MANY,
    RIDDLE,
    JAXNAV,
    MABRAX,
)
