"""Small environments whose true values are known by hand, and quick ways to train on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from quick import QUICK

from coterie.algorithms import find
from coterie.envs.base import Environment
from coterie.learners import replay
from coterie.learners.contract import Algorithm
from coterie.learners.experience import Experience
from coterie.learners.value_based import ValueBased
from coterie.spec import EnvSpec
from coterie.training.loop import Program
from coterie.training.rollout import scan_rollout
from coterie.types import TimeStep, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps
from coterie.views.vector import SEED_AXIS, init_vector

END = "end"


def quick(function, **options):
    """``jax.jit`` for tests, which compile for longer than they run."""
    return jax.jit(function, compiler_options=QUICK, **options)


@dataclass(frozen=True)
class Place:
    """One state of a ``Probe``.

    Attributes:
        see: what each agent observes, a number that is shown one-hot.
        pay: (a_0, a_1) -> rewards.
        lead: (a_0, a_1) -> name of the next place, ``END`` for the terminal one.
        illegal: (agent, action) pairs that are masked.
        dead: agents that no longer take part.
        start: episodes start here.
    """

    see: tuple[int, int]
    pay: Callable[[int, int], tuple[float, float]]
    lead: Callable[[int, int], str] = lambda a, b: END
    illegal: tuple[tuple[int, int], ...] = ()
    dead: tuple[int, ...] = ()
    start: bool = True


def always(*value):
    """The same whatever is done."""
    return lambda a, b: value if len(value) > 1 else value[0]


# Each group of places is one probe of one property; agent 0 has three actions, agent 1 two.
PLACES = {
    # Never terminates: only the time limit ends it.
    "constant": Place((0, 0), always(1.0, 0.5), always("constant")),
    # Is paid as it ends.
    "terminal": Place((1, 1), always(2.0, 1.0)),
    # What is paid depends on the observation.
    "good": Place((2, 2), always(1.0, 3.0)),
    "bad": Place((3, 3), always(-1.0, -3.0)),
    # ... on the own action.
    "action": Place((4, 4), lambda a, b: (float(a), -2.0 * b)),
    # ... on what was done a step before.
    "delay": Place((5, 5), always(0.0, 0.0), lambda a, b: "paid" if a == 1 else "unpaid"),
    "paid": Place((6, 6), always(4.0, 2.0), start=False),
    "unpaid": Place((7, 7), always(0.0, 0.0), start=False),
    # ... on the other's action: additively, and only together.
    "linear": Place((8, 8), lambda a, b: (0.5 + 2.0 * (a + b),) * 2, illegal=((0, 2),)),
    "together": Place((9, 9), lambda a, b: (5.0 * a * b,) * 2, illegal=((0, 2),)),
    # The observation promises 6 for action 2, which is illegal where "tempted" leads.
    "promise": Place((10, 10), lambda a, b: (6.0 if a == 2 else 1.0, 0.0)),
    "tempted": Place((11, 11), always(0.0, 0.0), always("refused")),
    "refused": Place(
        (10, 10), lambda a, b: (6.0 if a == 2 else 1.0, 0.0), illegal=((0, 2),), start=False
    ),
    # Agent 1 dies after its last reward; its corpse "sees" the richest observation there is.
    "fatal": Place((12, 12), always(0.0, 3.0), always("alone")),
    "alone": Place((13, 14), always(1.0, 0.0), dead=(1,), start=False),
    "rich": Place((14, 14), always(8.0, 8.0)),
    # The cue is seen at the first step only and paid for at the second.
    "cue+": Place((15, 15), always(0.0, 0.0), always("recall+")),
    "cue-": Place((16, 16), always(0.0, 0.0), always("recall-")),
    "recall+": Place((17, 17), always(4.0, 2.0), start=False),
    "recall-": Place((17, 17), always(-4.0, -2.0), start=False),
}
NAMES = tuple(PLACES)


class Probes(Environment):
    """All places as one game: an episode starts at a uniformly random one that is a start."""

    agents = ("left", "right")
    counts = (3, 2)

    def __init__(self, time_limit: int = 4):
        self.time_limit = time_limit
        joint = [(a, b) for a in range(3) for b in range(2)]
        index = {name: k for k, name in enumerate((*NAMES, END))}
        places = list(PLACES.values())
        self.see = np.array([p.see for p in places] + [(0, 0)])
        self.pay = np.array([[p.pay(*ab) for ab in joint] for p in places], np.float32)
        self.lead = np.array([[index[p.lead(*ab)] for ab in joint] for p in places])
        self.mask = np.ones((len(places) + 1, 2, 3), bool)
        self.alive = np.ones((len(places) + 1, 2), bool)
        for k, p in enumerate(places):
            for i, action in p.illegal:
                self.mask[k, i, action] = False
            for i in p.dead:
                self.alive[k, i] = False
                self.mask[k, i] = False
        self.starts = np.array([k for k, p in enumerate(places) if p.start])

    def spec(self) -> EnvSpec:
        width = int(self.see.max()) + 1
        return EnvSpec(
            agents=self.agents,
            observation_sizes=(width, width),
            action_counts=self.counts,
            central_size=len(NAMES) + 1,
            time_limit=self.time_limit,
        )

    def reset(self, key):
        place = jax.random.choice(key, jnp.asarray(self.starts))
        return place, self._show(place, jnp.zeros(2))

    def step(self, key, state, actions):
        joint = actions[0] * 2 + actions[1]
        rewards = jnp.asarray(self.pay)[state, joint]
        place = jnp.asarray(self.lead)[state, joint]
        return place, self._show(place, rewards)

    def _show(self, place, rewards) -> TimeStep:
        see = jnp.asarray(self.see)[place]
        return TimeStep(
            observations=jax.nn.one_hot(see, int(self.see.max()) + 1),
            rewards=rewards,
            terminated=place == len(NAMES),
            truncated=jnp.zeros((), bool),
            action_mask=jnp.asarray(self.mask)[place],
            alive=jnp.asarray(self.alive)[place],
            central=jax.nn.one_hot(place, len(NAMES) + 1),
        )


class Walk(Environment):
    """Three unequal agents; each start is one random number; episodes end by chance or by time.

    Agent i observes [start, step, number drawn at this step] padded with i more zeros; the game
    pays agent i its action plus ten times i, and 100 more at the terminal step. Agent 2 may die.
    """

    agents = ("a", "b", "c")

    def __init__(self, time_limit: int | None = 5, chance: float = 0.25, mortal: bool = True):
        self.time_limit, self.chance, self.mortal = time_limit, chance, mortal

    def spec(self) -> EnvSpec:
        return EnvSpec(
            agents=self.agents,
            observation_sizes=(3, 4, 5),
            action_counts=(2, 3, 4),
            central_size=2,
            time_limit=self.time_limit,
            reward="mean",
        )

    def reset(self, key):
        state = {
            "start": jax.random.uniform(key),
            "t": jnp.zeros(()),
            "alive": jnp.ones(3, bool),
        }
        return state, self._show(state, jnp.zeros(()), jnp.zeros(3), jnp.zeros((), bool))

    def step(self, key, state, actions):
        end_key, draw_key, death_key = jax.random.split(key, 3)
        over = jax.random.uniform(end_key) < self.chance
        rewards = actions + 10.0 * jnp.arange(3) + 100.0 * over
        dies = jax.random.bernoulli(death_key, 0.3) & self.mortal
        state = {
            "start": state["start"],
            "t": state["t"] + 1,
            "alive": state["alive"] & ~(dies & (jnp.arange(3) == 2)),
        }
        return state, self._show(state, jax.random.uniform(draw_key), rewards, over)

    def _show(self, state, drawn, rewards, over) -> TimeStep:
        seen = jnp.stack([state["start"], state["t"], drawn])
        odd = jnp.asarray(state["t"] % 2 == 1)
        mask = jnp.ones((3, 4), bool).at[1, 0].set(~odd).at[2, 3].set(odd)
        return TimeStep(
            observations=tuple(jnp.pad(seen, (0, i)) for i in range(3)),
            rewards=jnp.where(jnp.ones(3, bool), rewards, 0.0),
            terminated=over,
            truncated=jnp.zeros((), bool),
            action_mask=mask & state["alive"][:, None],
            alive=state["alive"],
            central=jnp.stack([state["start"], state["t"]]),
        )


class Steady(Environment):
    """No chance: each agent observes the time, one-hot, and is paid the number of its action."""

    agents = ("a", "b")

    def spec(self):
        return EnvSpec(self.agents, (6, 6), (9, 9), time_limit=6)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), self._show(jnp.zeros((), jnp.int32), jnp.zeros(2))

    def step(self, key, state, actions):
        return state + 1, self._show(state + 1, actions.astype(jnp.float32))

    def _show(self, t, rewards):
        never = jnp.zeros((), bool)
        seen = jnp.tile(jax.nn.one_hot(t, 6), (2, 1))
        return TimeStep(seen, rewards, terminated=never, truncated=never)


class Starts(Environment):
    """Observes the number drawn at the start, which also says when the episode ends."""

    agents = ("a",)

    def __init__(self, time_limit):
        self.time_limit = time_limit

    def spec(self):
        return EnvSpec(self.agents, (1,), (2,), time_limit=self.time_limit)

    def reset(self, key):
        start = jax.random.uniform(key)
        return (start, 0.0 * start), self._show(start, 0.0)

    def step(self, key, state, actions):
        start, t = state
        return (start, t + 1.0), self._show(start, t + 1.0)

    def _show(self, start, t):
        return TimeStep(
            observations=start[None, None],
            rewards=jnp.ones(1),
            terminated=(17 * start + t / 3) % 1 < 0.2,
            truncated=jnp.zeros((), bool),
        )


def small(name: str, **settings) -> Algorithm:
    """An algorithm with tiny networks; of the settings, those that it has."""
    cls = find(name)
    tiny = {
        "environments": 4,
        "hidden": (8,),
        "activation": "tanh",
        "sharing": "own",
        "n_steps": 1,
        "double_q": False,
        "batch_size": 8,
        "buffer_size": 64,
        "update_ratio": 1 / 8,
        "learning_starts": 16,
        "epsilon_steps": 100,
        "sequence_length": 2,
        "mixer_embedding": 4,
        "hyper_hidden": 4,
        "reward_scaling": "none",
        "rollout_steps": 4,
        "epochs": 2,
        "minibatches": 2,
    }
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**{k: v for k, v in (tiny | settings).items() if k in known})


def spied(algorithm: Algorithm, **methods) -> Algorithm:
    """The same algorithm with some methods replaced."""
    cls = type(algorithm)
    replaced = type(f"Spied{cls.__name__}", (cls,), methods | {"__module__": cls.__module__})
    return replaced(**algorithm.settings())


def game_for(algorithm: Algorithm, env: Environment, reward=None) -> Game:
    """The environment as the algorithm needs it."""
    offered = "state" if env.spec().central_size else "joint"
    pays = reward or ("sum" if algorithm.common_reward else "individual")
    return Game(env, offered if algorithm.central else "none", pays, algorithm.joint_view)


def items_of(algorithm: ValueBased, game: Game, rollout: Transition, steps: Steps) -> Experience:
    """All items of a rollout as one minibatch, [L, M, ...]."""
    length, environments = rollout.start.shape
    layout = replay.Layout(length, algorithm._length, 1, replay.span_of(game.spec.time_limit))
    alone = game.truncates_alone
    ring = replay.empty(layout, environments, rollout, steps, alone, algorithm.replays)
    zero = jnp.zeros((), jnp.int32)
    ring = replay.store(ring, rollout, steps, {"slot": zero, "rollout": zero})
    index = jnp.arange(length // algorithm._length * environments)
    if algorithm.own_minibatch:
        index = jnp.stack([index] * game.spec.n_agents, -1)
    return replay.minibatch(ring, index, algorithm.own_minibatch)


def quick_program(algorithm: Algorithm, game: Game, seeds: int = 1) -> Program:
    """The program as it is, compiled for a quick compilation."""
    program = Program(algorithm, game, seeds, episodes=4)
    program._init = quick(program._init.__wrapped__)
    program._advance = quick(partial(program._run_chunk, program.algorithm))
    return program


def train(algorithm: Algorithm, game: Game, iterations: int, seeds: int = 1, seed: int = 0):
    """The state after so many iterations, and the program."""
    program = quick_program(algorithm, game, seeds)
    state = program.init(seed)
    for first in range(0, iterations, program.chunk):
        state = program.advance(state, first, min(program.chunk, iterations - first))
    return state, program


def random_like(shapes, seed: int = 0):
    """Numbers drawn by NumPy for a tree of shapes: initial networks without compiling any."""
    rng = np.random.default_rng(seed)

    def draw(x):
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype)
        return jnp.zeros(x.shape, x.dtype)

    return jax.tree.map(draw, shapes)


def random_learner(algorithm: Algorithm, game: Game, seed: int = 0):
    """A learner whose parameters are random, its target's others; optimiser and replay zero."""
    learner = jax.eval_shape(lambda: algorithm.init(jax.random.key(0), game))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), learner)
    networks = {f: getattr(learner, f, None) for f in ("values", "target", "actor", "critic")}
    drawn = random_like({k: v for k, v in networks.items() if v is not None}, seed)
    return dataclasses.replace(zeros, **drawn)


def clock_at(algorithm: Algorithm, iteration: int) -> dict:
    """What the host tells one iteration."""
    return {k: jnp.asarray(v[0]) for k, v in algorithm.schedules(np.array([iteration])).items()}


def collector(algorithm: Algorithm, game: Game, seeds: int = 1):
    """(policy, epsilons [R], drawn) -> R rollouts on end without learning, in one program:
    Transition [S, R, T, B, ...], totals [S, R], the environments before and after."""
    steps, environments = algorithm.rollout_shape()

    def one(key, policy, epsilons, drawn):
        vector_key, act_key = jax.random.split(key)
        pool = steps + algorithm.whole_episodes
        before = init_vector(game, vector_key, environments, pool)
        before = dataclasses.replace(before, sampled=drawn)

        def rollout(carry, xs):
            key, clock = xs[0], {"epsilon": xs[1]}
            vector, hidden_state, seen, totals = scan_rollout(
                algorithm, game, policy, *carry, key, clock
            )
            return (vector, hidden_state), (seen, totals)

        carry = (before, policy.initial_hidden_state(environments))
        keys = jax.random.split(act_key, len(epsilons))
        (after, _), seen = jax.lax.scan(rollout, carry, (keys, epsilons))
        return *seen, before, after

    each = jax.vmap(one, in_axes=(0, None, None, None), axis_name=SEED_AXIS)
    program = quick(lambda *x: each(jax.vmap(jax.random.key)(jnp.arange(seeds)), *x))

    def collect(policy, epsilons, drawn=(environments, 0)):
        out = program(policy, jnp.asarray(epsilons), jnp.asarray(drawn, jnp.uint32))
        return *jax.tree.map(np.asarray, out[:2]), *out[2:]

    return collect
