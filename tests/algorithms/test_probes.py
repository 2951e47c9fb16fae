"""Learned values against values known by hand, in games that each isolate one property.

Behaviour is uniformly random and γ = 1/2, so that every number below can be checked in the head.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import NAMES, Probes, game_for, quick, small, train

FEED_FORWARD = {"hidden": (32,), "batch_size": 128, "lr": 2e-3, "target_interval": 50}
RECURRENT = {
    "hidden": (16,),
    "batch_size": 16,
    "lr": 5e-3,
    "target_interval": 25,
    "recurrent": True,
    "sequence_length": 2,
    "update_ratio": 1 / 32,
}


@functools.cache
def learned(name: str, recurrent: bool):
    """(path, joint actions) -> values [P, M] after the last place of the path, once trained."""
    algorithm = small(
        name,
        **{
            "gamma": 0.5,
            "environments": 16,
            "update_ratio": 1 / 16,
            "buffer_size": 4096,
            "learning_starts": 256,
            "epsilon_start": 1.0,
            "epsilon_end": 1.0,
            "mixer_embedding": 8,
            "hyper_hidden": 16,
        }
        | (RECURRENT if recurrent else FEED_FORWARD),
    )
    env = Probes()
    state, program = train(algorithm, game_for(algorithm, env), 1500 if recurrent else 4000)
    width = env.spec().observation_size
    assert state.losses["updates"][0] == program.algorithm.updates(1500 if recurrent else 4000)
    values = jax.tree.map(lambda x: x[0], state.learner.values)

    def unrolled(see):
        start = jnp.zeros(see.shape, bool).at[0].set(True)
        hidden_state = values.utility.initial_hidden_state()
        return values.utility.unroll(hidden_state, jax.nn.one_hot(see, width), start)[0]

    unroll = quick(unrolled)
    joint = quick(lambda q, z: algorithm.joint(values.mixer, q, z))

    def ask(path: str, actions: list[tuple[int, int]]):
        places = [NAMES.index(place) for place in path.split()]
        see = env.see[(places * 2)[:2]]
        utilities = np.asarray(unroll(jnp.asarray(see))[len(places) - 1])
        chosen = np.array([[utilities[0, a], utilities[1, b]] for a, b in actions])
        chosen = np.where(env.alive[places[-1]], chosen, 0.0).astype(np.float32)
        z = jax.nn.one_hot(jnp.full(len(actions), places[-1]), len(NAMES) + 1)
        return np.asarray(joint(jnp.asarray(chosen), z))

    return ask


ALL = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
FOUR = [(0, 0), (0, 1), (1, 0), (1, 1)]


def check(name, recurrent, path, actions, expected, within=0.2):
    values = learned(name, recurrent)(path, actions)
    if name != "idqn":
        expected = np.reshape(expected, -1)[:, None]
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=within)


# Where each agent's own value is known, the team's is the sum: the games pay Σ r_i then.
CERTAIN = {
    "constant reward: r/(1-γ), time-outs bootstrap": ("constant", ALL, [(2.0, 1.0)] * 6),
    "terminal reward: r, no bootstrap": ("terminal", ALL, [(2.0, 1.0)] * 6),
    "by observation, one": ("good", ALL, [(1.0, 3.0)] * 6),
    "by observation, another": ("bad", ALL, [(-1.0, -3.0)] * 6),
    "by own action": ("action", ALL, [(a, -2.0 * b) for a, b in ALL]),
    "a step later": ("delay paid", ALL, [(4.0, 2.0)] * 6),
    "illegal actions may tempt": ("promise", [(0, 0), (2, 1)], [(1.0, 0.0), (6.0, 0.0)]),
    "but not in the target": ("tempted", ALL, [(0.5, 0.0)] * 6),
    "the reward at death is kept, its bootstrap cut": ("fatal", ALL, [(0.5, 3.0)] * 6),
    "the value of an observation the dead also see": ("rich", ALL, [(8.0, 8.0)] * 6),
}
NAMES_OF_THREE = ["idqn", "vdn", "qmix"]


OF_INTEREST_WITH_MEMORY = [p for p in CERTAIN if "observation" not in p and "terminal" not in p]


@pytest.mark.parametrize(
    ("name", "recurrent", "probe"),
    [
        pytest.param(n, r, p, marks=pytest.mark.slow if r or n == "qmix" else ())
        for n in NAMES_OF_THREE
        for r in (False, True)
        for p in (OF_INTEREST_WITH_MEMORY if r else CERTAIN)
    ],
)
def test_known_values(name, recurrent, probe):
    path, actions, each = CERTAIN[probe]
    expected = each if name == "idqn" else np.sum(each, -1)
    check(name, recurrent, path, actions, expected, 0.6 if np.max(each) > 4 else 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES_OF_THREE)
def test_a_step_before_the_reward(name):
    """Action 1 of agent 0 leads to (4, 2), the others to nothing; to agent 1 that is one third."""
    own = [(2.0 * (a == 1), 1 / 3) for a, _ in ALL]
    together = [3.0 * (a == 1) for a, _ in ALL]
    check(name, False, "delay", ALL, own if name == "idqn" else together, 0.4)


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_the_survivor_alone_makes_the_teams_value(name):
    check(name, False, "fatal alone", ALL, [1.0] * 6)


def test_each_agent_averages_over_the_others_action():
    """[[1, 5], [5, 9]] / 2 against a uniform other: 1.5 and 3.5."""
    check("idqn", False, "linear", FOUR, [(1.5 + 2 * a, 1.5 + 2 * b) for a, b in FOUR], 0.7)


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_additive_joint_values_are_learned_exactly(name):
    check(name, False, "linear", FOUR, [1.0, 5.0, 5.0, 9.0], 0.4)


def test_monotone_joint_values_are_learned_by_qmix_and_projected_by_vdn():
    """[[0, 0], [0, 10]]: its least-squares sum is -2.5, 2.5, 2.5, 7.5."""
    check("qmix", False, "together", FOUR, [0.0, 0.0, 0.0, 10.0], 0.4)
    check("vdn", False, "together", FOUR, [-2.5, 2.5, 2.5, 7.5], 0.7)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES_OF_THREE)
def test_a_cue_is_remembered_with_memory_only(name):
    signs = {"cue+ recall+": 1.0, "cue- recall-": -1.0}
    for path, sign in signs.items():
        own, together = [(4.0 * sign, 2.0 * sign)] * 2, [6.0 * sign] * 2
        check(name, True, path, FOUR[:2], own if name == "idqn" else together, 1.0)
        if name != "qmix":  # whose z tells it
            nothing = [(0.0, 0.0)] * 2 if name == "idqn" else [0.0] * 2
            check(name, False, path, FOUR[:2], nothing, 1.9)
