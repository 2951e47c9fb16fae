"""What agents learn of steps in which some are dead, truncated alone, or in which nobody is left.

Every number is worked out by hand: networks are zero but for one bias, so a value is that bias.
"""

import dataclasses
import functools
import math

import equinox as eqx
import guests
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import clock_at, game_for, items_of, quick, random_learner, small, spied

import coterie
from coterie.algorithms import algorithms, make
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.bookkeeping import Restarts, Seconds
from coterie.python_envs.check.check import check_env
from coterie.python_envs.opening import open_python_env
from coterie.python_envs.rollout import Collector, halves
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import Limits
from coterie.spec import EnvSpec
from coterie.training.finite import without_replay
from coterie.training.loop import Program
from coterie.types import TimeStep, Transition
from coterie.views.game import Game, ends_of
from coterie.views.steps import learner_steps

NO, YES = jnp.array(False), jnp.array(True)


class Sacrifice(coterie.Environment):
    """Agent a may die in the first step (action 1); then the next two pay 5 instead of 0.5 each.

    The best for the team is 10. The corpse's observation is absurd, and so is the mask of its
    actions; b's actions change nothing.
    """

    agents = ("a", "b")

    def spec(self):
        sizes = {"observation_sizes": (4, 4), "action_counts": (2, 2), "central_size": 4}
        return EnvSpec(self.agents, **sizes, time_limit=5, reward="mean")

    def reset(self, key):
        state = (jnp.zeros((), jnp.int32), NO)
        return state, self.show(state, 0.0)

    def step(self, key, state, actions):
        t, dead = state
        dead = dead | ((t == 0) & (actions[0] == 1))
        pay = jnp.where(t == 0, 0.0, jnp.where(dead, 5.0, 0.5))
        return (t + 1, dead), self.show((t + 1, dead), pay)

    def show(self, state, pay):
        t, dead = state
        seen = jnp.concatenate([jax.nn.one_hot(t, 3), dead[None].astype(jnp.float32)])
        corpse = jnp.where(dead, 99.0, seen)
        return TimeStep(
            observations=jnp.stack([corpse, seen]),
            rewards=jnp.full(2, pay),
            terminated=t >= 3,
            truncated=NO,
            alive=jnp.stack([~dead, YES]),
            central=seen,
        )


class AllDead(coterie.Environment):
    """Both die in step 1, which pays 1; nobody is left until step 6, and step 3 pays ``late``."""

    agents = ("a", "b")

    def __init__(self, late=0.0):
        self.late = late

    def spec(self):
        sizes = {"observation_sizes": (6, 6), "action_counts": (2, 2), "central_size": 6}
        return EnvSpec(self.agents, **sizes, time_limit=None, reward="mean")

    def reset(self, key):
        t = jnp.zeros((), jnp.int32)
        return t, self.show(t, 0.0)

    def step(self, key, t, actions):
        pay = jnp.where(t == 0, 1.0, jnp.where(t == 2, self.late, 0.0))
        return t + 1, self.show(t + 1, pay)

    def show(self, t, pay):
        seen = jax.nn.one_hot(t, 6)
        return TimeStep(
            observations=jnp.stack([seen, seen]),
            rewards=jnp.full(2, pay),
            terminated=t >= 6,
            truncated=NO,
            alive=jnp.full(2, t == 0),
            central=seen,
        )


class Shift(coterie.Environment):
    """Every step pays 1; a's shift is cut after step 2, b's after step 4: the end for nobody.

    ``dies`` makes a's leaving a death.
    """

    agents = ("a", "b")

    def __init__(self, dies=False):
        self.dies = dies

    def spec(self):
        sizes = {"observation_sizes": (1, 1), "action_counts": (2, 2)}
        return EnvSpec(self.agents, **sizes, time_limit=None)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self.show(jnp.zeros((), jnp.int32))

    def step(self, key, t, actions):
        return t + 1, self.show(t + 1)

    def show(self, t):
        left, late = jnp.stack([t == 2, NO]), jnp.stack([NO, t == 4])
        return TimeStep(
            observations=jnp.ones((2, 1)),
            rewards=jnp.stack([t <= 2, t >= 0]).astype(jnp.float32),
            terminated=left if self.dies else jnp.zeros(2, bool),
            truncated=late if self.dies else left | late,
        )


class PythonShift:
    """``Shift`` after PettingZoo's convention."""

    possible_agents = ("a", "b")

    def observation_space(self, agent):
        return guests.Box(0, 1, (1,))

    def action_space(self, agent):
        return guests.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return self.seen(self.agents), {}

    def step(self, actions):
        self.t += 1
        acted = self.agents
        cut = {a: (a, self.t) in (("a", 2), ("b", 4)) for a in acted}
        self.agents = [a for a in acted if not cut[a]]
        each = dict.fromkeys
        return self.seen(acted), each(acted, 1.0), each(acted, False), cut, each(acted, {})

    def seen(self, agents):
        return {a: np.ones(1, np.float32) for a in agents}

    def close(self):
        pass


@functools.cache
def stepped(game):
    return quick(game.reset), quick(game.step)


def played(game, actions):
    """The steps [T, 1] of one episode in which the agents that learn do these things [T, N]."""
    reset, step = stepped(game)
    state, seen = reset(jax.random.key(0))
    steps = []
    for t, chosen in enumerate(actions):
        now = jnp.asarray(chosen, jnp.int32)
        state, led = step(jax.random.key(1), state, now)
        final = led if led.final is None else led.final
        steps.append(
            Transition(
                observations=seen.observations,
                action_mask=seen.action_mask,
                alive=seen.alive,
                central=seen.central,
                hidden_state=jnp.zeros((game.spec.n_agents, 0)),
                start=jnp.array(t == 0),
                actions=now,
                extras=jnp.full(game.spec.n_agents, math.log(0.5)),
                rewards=led.rewards,
                terminated=led.terminated,
                truncated=led.truncated,
                next_observations=final.observations,
                next_action_mask=final.action_mask,
                next_alive=led.alive,
                next_central=final.central,
                truncated_alone=led.truncated_alone,
            )
        )
        seen = led
    return jax.tree.map(lambda *x: jnp.stack(x)[:, None], *steps)


SACRIFICE, SHIFT, DEADLY_SHIFT = Sacrifice(), Shift(), Shift(dies=True)
ALL_DEAD = {late: AllDead(late) for late in (0.0, 3.0)}


def constant(learner, **biases):
    """The learner with networks that are zero, but for the last layer's bias where one is given."""

    def zero(tree):
        return jax.tree.map(jnp.zeros_like, tree)

    def flat(network, bias):
        last = lambda n: n.networks.body.layers[-1].bias  # noqa: E731
        return eqx.tree_at(last, zero(network), replace_fn=lambda x: x + bias)

    words = [w for w in ("actor", "critic") if hasattr(learner, w)]
    parts = {w: flat(getattr(learner, w), biases.get(w, 0.0)) for w in words}
    if getattr(learner, "target", None) is not None and "critic" in words:
        parts["target"] = parts["critic"]
    return dataclasses.replace(learner, **parts)


def report(self, carry, batch, key, clock):
    """Instead of updates: what they would have seen."""
    targets = batch.targets if isinstance(batch.targets, dict) else {"y": batch.targets}
    return carry, {k: v for k, v in vars(batch).items() if k != "targets"} | targets


ACTOR_CRITICS = ("ia2c", "ippo", "maa2c", "mappo", "coma", "pac", "central_a2c")
SACRIFICED = [[1, 0], [0, 0], [0, 1]]
PLAIN = {"environments": 1, "minibatches": 1, "reward_scaling": "none", "entropy": 0.0}


def seen_by_updates(name, env, actions, reward=None, **settings):
    """What an update of an actor-critic would see of this episode, its critic saying 2."""
    plain = {"gae_lambda": None, "rollout_steps": len(actions), "normalise_advantages": False}
    algorithm = small(name, **(PLAIN | plain | settings))
    game = game_for(algorithm, env, reward)
    if game.joint:
        actions = [game.team.join(jnp.asarray(a)) for a in actions]
    spy = spied(algorithm, _make_updates=report)
    learner = constant(random_learner(algorithm, game), critic=2.0)
    rollout = played(game, actions)
    learn = quick(lambda r: spy.learn(game, learner, r, jax.random.key(0), {}))
    after, seen = learn(rollout)
    found = {k: np.asarray(v)[:, 0] for k, v in seen.items() if np.ndim(v) > 1}
    return {"y": found.get("q"), "moments": np.asarray(after.moments.count).tolist()} | found


# A common reward: the team's return goes on ------------------------------------------------------


@pytest.mark.parametrize("name", ACTOR_CRITICS)
def test_the_return_of_a_sacrifice_reaches_the_one_that_dies(name):
    """Returns of whole episodes are 10, 10, 5 to both; actors learn from living steps."""
    seen = seen_by_updates(name, SACRIFICE, SACRIFICED, "mean", n_steps=9, gamma=1.0)
    n = 1 if name == "central_a2c" else 2
    np.testing.assert_allclose(seen["y"], [[10.0] * n, [10.0] * n, [5.0] * n], rtol=1e-6)
    assert seen["counts"].all()
    assert seen["moments"] == [3], "the common reward counts once a step"
    lives = [[True] * n, [n == 1, True][-n:], [n == 1, True][-n:]]
    np.testing.assert_array_equal(seen["alive"], lives)
    if name not in ("central_a2c", "pac", "coma"):
        gain = seen["y"] - 2.0
        np.testing.assert_allclose(seen["advantages"][seen["alive"]], gain[seen["alive"]])


@pytest.mark.parametrize("name", ACTOR_CRITICS)
def test_the_value_of_the_dead_is_bootstrapped(name):
    """One-step targets r + V/2, V being 2 everywhere: the last step alone has no future."""
    seen = seen_by_updates(name, SACRIFICE, SACRIFICED, "sum", n_steps=1, gamma=0.5)
    np.testing.assert_allclose(seen["y"], np.repeat([[1.0], [11.0], [10.0]], seen["y"].shape[1], 1))


@pytest.mark.parametrize("name", [n for n in ACTOR_CRITICS if not algorithms()[n].common_reward])
def test_under_individual_rewards_nothing_follows_a_death(name):
    seen = seen_by_updates(name, SACRIFICE, SACRIFICED, "individual", n_steps=9, gamma=1.0)
    np.testing.assert_allclose(seen["y"][:, 1], [10.0, 10.0, 5.0])
    assert seen["y"][0, 0] == 0.0
    np.testing.assert_array_equal(seen["counts"], [[True, True], [False, True], [False, True]])
    np.testing.assert_array_equal(seen["alive"], seen["counts"])
    assert seen["moments"] == [1, 3]


@pytest.mark.parametrize("name", ACTOR_CRITICS)
@pytest.mark.parametrize("late", [0.0, 3.0])
def test_what_is_paid_after_everyone_died_counts(name, late):
    """Nobody lives from step 1 on: all six steps count for critics, the first for actors."""
    nothing = [[0, 0]] * 6
    seen = seen_by_updates(name, ALL_DEAD[late], nothing, "mean", n_steps=9, gamma=1.0)
    expected = np.array([1 + late, late, late, 0, 0, 0])
    np.testing.assert_allclose(seen["y"], np.repeat(expected[:, None], seen["y"].shape[1], 1))
    assert seen["counts"].all()
    assert seen["alive"].any(1).tolist() == [True] + [False] * 5


@pytest.mark.parametrize(("reward", "of_a"), [("mean", 10.0), ("sum", 20.0), ("individual", 0.0)])
def test_reinforce_credits_the_one_that_died(reward, of_a):
    """-1/T Σ u log π of even odds: a lives for one step, b for three with 10, 10, 5 to go."""
    algorithm = small("reinforce", **(PLAIN | {"gamma": 1.0})).resolve(3, 3)
    game = game_for(algorithm, SACRIFICE, reward)
    learner = constant(random_learner(algorithm, game))
    rollout = played(game, SACRIFICED)
    now = clock_at(algorithm, 0)
    learn = quick(lambda r: algorithm.learn(game, learner, r, jax.random.key(0), now))
    after, metrics = learn(rollout)
    of_b = (2 if reward == "sum" else 1) * 25 / 3
    np.testing.assert_allclose(metrics["actor_loss"], (of_a + of_b) * math.log(2), rtol=1e-5)
    counted = np.asarray(after.moments.count).tolist()
    assert counted == ([1, 3] if reward == "individual" else [3])


def loss_of(name, env, actions, reward, q=0.0, target=1.0):
    """The value-based loss of the whole episode, utilities (QMIX: V(z)) saying q and target."""
    algorithm = small(name, gamma=0.5, environments=1, update_ratio=1.0)
    game = game_for(algorithm, env, reward)
    if game.joint:
        actions = [game.team.join(jnp.asarray(a)) for a in actions]
    learner = random_learner(algorithm, game)

    def flat(values, bias):
        zero = jax.tree.map(jnp.zeros_like, values)
        if name == "qmix":
            last = lambda v: v.mixer.value.layers[-1].bias  # noqa: E731
        else:
            last = lambda v: v.utility.networks.body.layers[-1].bias  # noqa: E731
        return eqx.tree_at(last, zero, replace_fn=lambda x: x + bias)

    rollout = played(game, actions)
    batch = items_of(algorithm, game, rollout, learner_steps(rollout, game))
    loss = quick(algorithm.loss)
    return float(loss(flat(learner.values, q), flat(learner.target, target), batch)[0])


@pytest.mark.parametrize("name", ["idqn", "vdn", "qmix", "central_q"])
def test_values_go_on_after_a_death(name):
    """y = 1/2, 5 + 1/2, 5 where one value goes on: b's or the team's; IDQN's agents have two."""
    one = (0.5**2 + 5.5**2 + 5**2) / 3
    loss = loss_of(name, SACRIFICE, SACRIFICED, "mean")
    np.testing.assert_allclose(loss, 2 * one if name == "idqn" else one, rtol=1e-6)
    if name == "idqn":
        np.testing.assert_allclose(loss_of(name, SACRIFICE, SACRIFICED, "individual"), one)


@pytest.mark.parametrize("late", [0.0, 3.0])
@pytest.mark.parametrize("name", ["idqn", "vdn", "qmix", "central_q"])
def test_values_go_on_where_nobody_is_left(name, late):
    """y = r + 1/2 in all steps but the last. Of VDN the dead make 0, whatever is paid."""
    future = 0.0 if name == "vdn" else 0.5
    y = np.array([1.0, 0.0, late, 0.0, 0.0, 0.0]) + future * (np.arange(6) < 5)
    agents = 2 if name == "idqn" else 1
    loss = loss_of(name, ALL_DEAD[late], [[0, 0]] * 6, "mean")
    np.testing.assert_allclose(loss, agents * np.mean(y**2), rtol=1e-6)


def test_replayed_histories_go_on_across_a_death():
    """An episode's start alone resets the hidden state of a sequence."""
    algorithm = small("idqn", environments=1, update_ratio=1.0, recurrent=True, sequence_length=3)
    game = game_for(algorithm, SACRIFICE, "mean")
    rollout = played(game, SACRIFICED)
    items = items_of(algorithm, game, rollout, learner_steps(rollout, game))
    assert not items.alive.all()
    start = items.start[:, 0]
    np.testing.assert_array_equal(start, [[True, True], [False, False], [False, False]])


# Truncated alone ---------------------------------------------------------------------------------

TWO_SHIFTS = [[0, 0]] * 4


@pytest.mark.parametrize("name", ["ia2c", "ippo", "maa2c", "mappo", "pac"])
def test_who_is_truncated_alone_bootstraps_from_its_final_observation(name):
    """V is 2: one-step targets 1 + 2/2 in every step that is taken, for a as for b."""
    seen = seen_by_updates(name, SHIFT, TWO_SHIFTS, "individual", n_steps=1, gamma=0.5)
    np.testing.assert_allclose(seen["y"][seen["counts"]], 2.0)
    np.testing.assert_array_equal(seen["counts"], [[1, 1], [1, 1], [0, 1], [0, 1]])
    # And where returns look further, a's ends with its last step.
    seen = seen_by_updates(name, SHIFT, TWO_SHIFTS, "individual", n_steps=9, gamma=0.5)
    np.testing.assert_allclose(seen["y"][:2, 0], [2.0, 2.0])


@pytest.mark.parametrize("name", ["ia2c", "maa2c"])
def test_who_dies_alone_does_not(name):
    seen = seen_by_updates(name, DEADLY_SHIFT, TWO_SHIFTS, "individual", n_steps=1, gamma=0.5)
    np.testing.assert_allclose(seen["y"][:2, 0], [2.0, 1.0])
    np.testing.assert_allclose(seen["y"][:, 1], 2.0)


@pytest.mark.parametrize("name", ACTOR_CRITICS)
@pytest.mark.parametrize("dies", [False, True])
def test_to_a_team_it_is_a_death_like_another(name, dies):
    """Sums of 2, 2, 1, 1 and V of 2; the last step of the last agent is a truncation."""
    seen = seen_by_updates(
        name, DEADLY_SHIFT if dies else SHIFT, TWO_SHIFTS, "sum", n_steps=1, gamma=0.5
    )
    expected = np.array([3.0, 3.0, 2.0, 2.0])
    np.testing.assert_allclose(seen["y"], np.repeat(expected[:, None], seen["y"].shape[1], 1))


def test_idqn_bootstraps_from_the_final_observation_of_who_is_truncated_alone():
    np.testing.assert_allclose(loss_of("idqn", SHIFT, TWO_SHIFTS, "individual"), 2 * 1.5**2)
    dead = loss_of("idqn", DEADLY_SHIFT, TWO_SHIFTS, "individual")
    np.testing.assert_allclose(dead, (1.5**2 + 1.0) / 2 + 1.5**2)


def test_its_last_moment_is_kept_for_it_and_gone_for_the_others():
    """Observation, mask and, where z is the joint observation, z; a step later it sees nothing."""
    game = Game(SHIFT, "joint", "individual")
    r = jax.tree.map(lambda x: np.asarray(x[:, 0]), played(game, TWO_SHIFTS))
    np.testing.assert_array_equal(r.truncated_alone, [[0, 0], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(r.alive, [[1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(r.next_alive, [[1, 1], [0, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(r.next_observations[..., 0], [[1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(r.observations[..., 0], r.alive)
    np.testing.assert_array_equal(r.next_central[1], [[1, 1], [0, 1]])
    np.testing.assert_array_equal(r.central, [[1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(r.next_action_mask[1], np.ones((2, 2)))
    np.testing.assert_array_equal(r.action_mask[2], [[1, 0], [1, 1]])
    assert r.truncated.tolist() == [False, False, False, True]
    assert not r.terminated.any()
    common = played(Game(SHIFT, "joint", "mean"), TWO_SHIFTS)
    assert common.truncated_alone is None
    np.testing.assert_array_equal(common.next_observations[1, 0, :, 0], [0, 1])
    np.testing.assert_array_equal(common.next_central[1, 0], [0, 1])


def test_pac_hopes_for_nothing_from_who_left():
    """b's best joint action after step 2 is without a, a's own is with both."""
    algorithm = small("pac", gamma=0.5, n_steps=1, environments=1, rollout_steps=4)
    game = game_for(algorithm, SHIFT, "individual")
    spy = spied(algorithm, _make_updates=report)
    learner = constant(random_learner(algorithm, game))
    # Q of joint actions (a's, b's) 00, 01, 10, 11, and V.
    bias = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0, 8.0, 0.0]), (2, 5))
    says = eqx.tree_at(lambda c: c.networks.body.layers[-1].bias, learner.critic, bias)
    learner = dataclasses.replace(learner, critic=says, target=says)
    learn = quick(lambda r: spy.learn(game, learner, r, jax.random.key(0), {}))
    _, seen = learn(played(game, TWO_SHIFTS))
    np.testing.assert_allclose(seen["q"][:, 0, 1], [5.0, 1.5, 1.5, 1.5])
    np.testing.assert_allclose(seen["q"][:2, 0, 0], [5.0, 5.0])


F, T = False, True
ENDINGS = {
    # terminated, truncated, alive after the step -> episode ends, alive, truncated alone
    "nothing": ((F, F), (F, F), None, (F, F), (T, T), (F, F)),
    "one dies": ((T, F), (F, F), None, (F, F), (F, T), (F, F)),
    "one is cut": ((F, F), (T, F), None, (F, F), (F, T), (T, F)),
    "both flags of one": ((T, F), (T, F), None, (F, F), (F, T), (F, F)),
    "all die": ((T, T), (F, F), None, (T, F), (T, T), (F, F)),
    "all are cut": ((F, F), (T, T), None, (F, T), (T, T), (F, F)),
    "one dies, the last is cut": ((T, F), (F, T), None, (F, T), (F, T), (F, F)),
    "one flag for all ends it": (T, (F, F), None, (T, F), (T, T), (F, F)),
    "one flag for all cuts it": ((F, T), T, None, (F, T), (T, F), (F, F)),
    "one vanishes": ((F, F), (F, F), (F, T), (F, F), (F, T), (F, F)),
    "all vanish": ((F, F), (F, F), (F, F), (T, F), (T, T), (F, F)),
    "flagged and yet alive": ((T, F), (F, F), (T, T), (F, F), (F, T), (F, F)),
    "the episode's flags only": (F, F, (F, F), (F, F), (F, F), (F, F)),
    "the episode's end": (T, F, (F, T), (T, F), (F, T), (F, F)),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_who_ends_how(case):
    terminated, truncated, alive, over, left, alone = ENDINGS[case]
    shown = TimeStep(
        observations=jnp.zeros((2, 1)),
        rewards=jnp.zeros(2),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        alive=None if alive is None else jnp.asarray(alive),
    )
    ends = ends_of(shown, jnp.ones(2, bool))
    assert (bool(ends.terminated), bool(ends.truncated)) == over
    np.testing.assert_array_equal(ends.alive, left)
    np.testing.assert_array_equal(ends.truncated_alone, alone)


def test_flags_of_who_left_before_are_ignored():
    cut = TimeStep(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(2, bool), jnp.array([True, False]))
    ends = ends_of(cut, jnp.array([False, True]))
    assert not ends.terminated | ends.truncated
    np.testing.assert_array_equal(ends.alive, [False, True])
    assert not ends.truncated_alone.any()


def test_who_left_does_not_come_back_where_its_flag_stays_up():
    """Also where the environment still shows it as alive."""
    flags = jnp.array([True, False]), jnp.zeros(2, bool)
    shown = TimeStep(jnp.zeros((2, 1)), jnp.zeros(2), *flags, alive=jnp.ones(2, bool))
    ends = ends_of(shown, jnp.array([False, True]))
    assert not ends.terminated | ends.truncated
    np.testing.assert_array_equal(ends.alive, [False, True])


@pytest.mark.parametrize("reward", ["individual", "mean"])
@pytest.mark.parametrize("name", ["idqn", "ia2c", "mappo", "pac", "reinforce"])
def test_whole_programs_take_environments_with_a_flag_for_each_agent(name, reward):
    """Training and evaluation are traced: what loops carry has one shape from start to end."""
    algorithm = make(name, environments=2, hidden=(4,)).resolve(100, 8)
    game = Game(SHIFT, "joint" if algorithm.central else "none", reward)
    program = Program(algorithm, game, 1, 2)
    state, clock = program.template(), algorithm.schedules(np.arange(program.chunk))
    jax.eval_shape(
        functools.partial(program._run_chunk, program.algorithm), state, clock, np.int32(1)
    )
    jax.eval_shape(program._evaluate, state, np.zeros(2, np.uint32))


def test_a_time_limit_cuts_who_is_left():
    """In the very step in which a is truncated alone: both bootstrap."""

    class Short(Shift):
        def spec(self):
            return dataclasses.replace(super().spec(), time_limit=2)

    r = played(Game(Short()), TWO_SHIFTS[:2])
    assert r.truncated[:, 0].tolist() == [False, True]
    steps = learner_steps(r, Game(Short()))
    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.ended[:, 0], [[False, False], [True, True]])


def test_the_shape_of_flags_is_checked():
    shown = SHIFT.show(jnp.array(1))
    object.__setattr__(shown, "truncated", jnp.zeros(3, bool))  # the tests' types refuse it
    with pytest.raises(coterie.UsageError, match=r"truncated must have shape \(\) or \(2,\)"):
        Game(SHIFT)._check(shown)


# In Python ---------------------------------------------------------------------------------------


def test_a_python_environment_shows_the_last_moment_of_who_is_truncated_alone():
    env = PythonEnv(PythonShift())
    env.reset(0)
    shown = [env.step(np.zeros(2, int)) for _ in range(4)]
    np.testing.assert_array_equal(
        [s.truncated_alone for s in shown], [[0, 0], [1, 0]] + [[0, 0]] * 2
    )
    np.testing.assert_array_equal([s.alive for s in shown], [[1, 1], [0, 1], [0, 1], [0, 1]])
    seen = [s.observations[:, 0] for s in shown]
    np.testing.assert_array_equal(seen, [[1, 1], [1, 1], [0, 1], [0, 1]])
    assert [(s.terminated, s.truncated) for s in shown] == [(F, F)] * 3 + [(F, T)]


def test_a_check_finds_nothing_wrong_with_it():
    for env in (PythonShift, Shift):
        assert check_env(env, episodes=2).findings == ()


def recorded(environment, steps):
    """A rollout of two environments in this process, everybody doing nothing; restarts allowed."""
    hosted = open_python_env("it", environment)
    restarts = Restarts("it", 1000)
    vector_env = make_vector_env(hosted, halves(1, 2), Limits(60.0), 0)
    stage = Collector(vector_env, hosted.promise, 1, 2, 0, restarts)
    stage.begin()
    n = hosted.promise.n_agents

    def act(t, first, seen, starts, hidden_state):
        nothing = np.zeros(seen.alive.shape, np.int32)
        return nothing, nothing, nothing, hidden_state

    nothing = np.zeros((2, 1, n, 0), np.float32), None
    record, _ = stage.collect(steps, nothing, act, Seconds())
    vector_env.close()
    return hosted, record, restarts


@pytest.mark.parametrize("reward", ["individual", "mean"])
def test_transitions_of_a_python_environment_are_those_of_its_compiled_twin(reward):
    from coterie.python_envs.record import transitions

    hosted, record, _ = recorded(PythonShift, 4)
    one = jax.tree.map(lambda x: jnp.asarray(x[:, :1, 0]), record)
    twin = played(Game(SHIFT, "joint", reward), TWO_SHIFTS)
    mine = transitions(Game(hosted, "joint", reward), one)
    assert mine.valid.all()
    mine = dataclasses.replace(mine, valid=None)
    for field in vars(twin):
        if field not in ("extras", "hidden_state", "rewards"):
            a, b = getattr(mine, field), getattr(twin, field)
            assert (a is None) == (b is None), field
            if b is not None:
                np.testing.assert_array_equal(a, b, err_msg=field)


# Steps that were never made ----------------------------------------------------------------------


def test_a_step_that_failed_is_marked():
    _, record, restarts = recorded(guests.Raises, 12)
    assert restarts.used > 0
    assert (~record.valid).sum() == restarts.used
    assert not record.observation.alive[~record.valid].any()
    assert record.truncated[~record.valid].all()


FAMILIES = ["idqn", "qmix", "reinforce", "mappo", "coma"]
OTHERS = [n for n in algorithms() if n not in FAMILIES]


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_a_step_that_failed_weighs_nothing(name):
    """Whatever it holds, the same is learned, to the bit; were it valid, it would not be."""
    settings = PLAIN | {"rollout_steps": 6, "update_ratio": 1 / 6, "learning_starts": 1}
    settings |= {"batch_size": 32, "reward_scaling": "standardise", "buffer_size": 32}
    algorithm = small(name, **settings).resolve(6, 6)
    game = game_for(algorithm, ALL_DEAD[0.0], "mean")
    nothing = [[0] * game.spec.n_agents] * 6
    rollout = played(game, nothing)
    failed = 0 if name == "reinforce" else 3  # which learns from first episodes only
    bad = np.arange(6)[:, None] == failed

    def spoilt(by):
        def other(x):
            if x.dtype == bool or not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            at = bad.reshape(6, 1, *[1] * (x.ndim - 2))
            return jnp.where(at, by, x)

        r = jax.tree.map(other, rollout)
        return dataclasses.replace(
            r,
            alive=r.alive & ~bad[..., None],
            truncated=jnp.asarray(bad | (np.arange(6)[:, None] == failed - 1)),
            valid=jnp.asarray(~bad),
        )

    learner = random_learner(algorithm, game)
    learn = quick(functools.partial(algorithm.learn, game))

    def learned(r):
        after, _ = learn(learner, r, jax.random.key(0), clock_at(algorithm, 0))
        return jax.tree.leaves(without_replay(after))

    one, other = learned(spoilt(0.5)), learned(spoilt(-7.0))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    valid = dataclasses.replace(spoilt(-7.0), valid=jnp.ones((6, 1), bool))
    pairs = zip(one, learned(valid), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)
