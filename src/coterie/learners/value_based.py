"""What IDQN, VDN and QMIX share: replay, ε-greedy behaviour, the temporal-difference update."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Annotated, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm, never_copied, scaling_remarks, unreached
from coterie.networks.per_agent import Groups, PerAgent, sharing_index
from coterie.ops import replay
from coterie.ops.action_selection import greedy, masked_max, of_action
from coterie.ops.losses import one_step_target, summed_mean
from coterie.ops.running_statistics import Moments, RewardScaling
from coterie.ops.schedules import moved, share_of
from coterie.ops.updates import clip_norm, follow
from coterie.policies.distributions import Distribution, EpsilonGreedy
from coterie.settings import (
    MOST,
    Count,
    EndRate,
    Layers,
    Part,
    Positive,
    Range,
    Rate,
    Share,
    StepCount,
)
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps, distinct_rewards, learner_steps

LEARNING_STARTS, TARGET_INTERVAL = 10_000, 200
"""Unless given, and unless the run is so short that fewer are needed."""
Ratio = Annotated[float, Range(1e-5, 1e3)]
Start = Annotated[int, Range(0, MOST)]


class Experience(eqx.Module):
    """What replay keeps of a sequence; leaves [..., L, N, ·], z without the agent axis.

    Flags of the joint step are repeated for each agent, so that agents can be given their own
    minibatch. ``memory`` is the one before the first step (L = 1). Steps with ``counts`` are
    learned from; ``terminated`` is each learner's own (``views.steps.learner_steps``).
    """

    memory: Float[Array, "*S one N H"]
    observations: Float[Array, "*S L N O"]
    alive: Bool[Array, "*S L N"]
    counts: Bool[Array, "*S L N"]
    start: Bool[Array, "*S L N"]
    actions: Int[Array, "*S L N"]
    rewards: Float[Array, "*S L N"]
    terminated: Bool[Array, "*S L N"]
    next_observations: Float[Array, "*S L N O"]
    next_action_mask: Bool[Array, "*S L N A"]
    next_alive: Bool[Array, "*S L N"]
    central: Float[Array, "*S L Z"]
    next_central: Float[Array, "*S L Z"]


class Values(eqx.Module):
    """Parameters θ: the utilities Q(h_i, a_i; θ_i), and the mixer where there is one."""

    utility: PerAgent
    mixer: Any


class Learner(eqx.Module):
    """θ, target θ̄, the optimiser's state, replay D, reward moments."""

    values: Values
    target: Values
    optimiser: PyTree
    replay: Experience
    moments: Moments


@dataclass(frozen=True, kw_only=True)
class ValueBased(Algorithm):
    """Base of the value-based algorithms; a final class says how the joint value is formed."""

    own_minibatch: ClassVar[bool]
    """Each agent samples its own minibatch (separate buffers D_i) instead of a joint one."""

    gamma: Share = 0.95
    """Discount factor γ."""
    lr: Rate = 5e-4
    """Learning rate of Adam."""
    lr_end: EndRate | None = None
    """It moves linearly to this one; constant unless given."""
    lr_steps: StepCount | None = None
    """Environment steps over which it does; the whole run unless given."""
    batch_size: Count = 128
    """Sequences in a minibatch, B; a sequence is one transition unless recurrent."""
    buffer_size: Count = 500_000
    """Transitions kept in replay D, over all environments."""
    environments: Count = 16
    """Parallel environments K that fill replay."""
    update_ratio: Ratio = 1 / 16
    """Gradient updates per environment step, whatever K is."""
    learning_starts: Start | None = None
    """Environment steps collected before the first update; 10,000, and at most a tenth of the run,
    unless given."""
    epsilon_start: Share = 1.0
    """Exploration probability ε at the start."""
    epsilon_end: Share = 0.05
    """ε from ``epsilon_steps`` on."""
    epsilon_steps: StepCount | None = None
    """Environment steps over which ε falls linearly; a quarter of the run unless given."""
    target_interval: Count | None = None
    """Updates between two copies of θ to the target θ̄; 200, and at most a fifth of the run's,
    unless given."""
    target_tau: Part | None = None
    """If given, θ̄ moves by this share towards θ at every update instead of being copied."""
    double_q: bool = False
    """Select the target's action with θ and value it with θ̄ (double Q-learning)."""
    reward_scaling: RewardScaling = "scale"
    """Learn from rewards divided by their root mean square so far (scale), as they are (none), or
    (r - mean)/std (standardise), which changes the task where an episode's length is a choice."""
    max_grad_norm: Positive | None = 10.0
    """Clip gradients to this norm, each independent loss by itself; None for no clipping."""
    hidden: Layers = (64, 64)
    """Hidden layer sizes of the utility networks (ReLU)."""
    recurrent: bool = False
    """Put a GRU before the last layer: utilities of histories instead of observations."""
    sequence_length: Count = 16
    """Steps L of a replayed sequence when recurrent."""
    sharing: Literal["own", "shared"] = "own"
    """Each agent its own parameters, or one set with the agent's id appended."""
    groups: Groups = ()
    """Groups that share parameters, each ``agent,agent`` by name; others keep their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups and self.sharing == "shared":
            raise UsageError("sharing shared and groups contradict each other: give one of them")
        if self._capacity() < 1:
            raise UsageError(
                f"buffer_size {self.buffer_size} is smaller than one rollout "
                f"({self.environments} environments x {self.rollout_shape()[0]} steps)"
            )
        if self.batch_size > self.buffer_size:
            raise UsageError(
                f"batch_size {self.batch_size} is more than replay holds, buffer_size "
                f"{self.buffer_size}"
            )

    def remarks(self, game: Game) -> list[str]:
        return scaling_remarks(self.reward_scaling)

    # What a final class says -----------------------------------------------------------------

    def make_mixer(self, key: PRNGKey, game: Game) -> Any:
        """Parameters of the joint value beside the utilities; none by default."""
        del key, game

    def joint(
        self, mixer: Any, utilities: Float[Array, "*S N"], central: Float[Array, "*S Z"]
    ) -> Float[Array, "*S M"]:
        """The values that are learned: each agent's own (M = N) or the team's (M = 1)."""
        del mixer, central
        return utilities

    # Time ------------------------------------------------------------------------------------

    @property
    def _length(self) -> int:
        return self.sequence_length if self.recurrent else 1

    @property
    def _ratio(self) -> Fraction:
        return Fraction(self.update_ratio).limit_denominator(100_000)

    def rollout_shape(self) -> tuple[int, int]:
        """The shortest rollout after which a whole number of updates is due."""
        per_step = self._ratio * self.environments
        return lcm(per_step.denominator, self._length), self.environments

    def _updates(self) -> int:
        steps, environments = self.rollout_shape()
        return int(self._ratio * steps * environments)

    def _items(self) -> int:
        steps, environments = self.rollout_shape()
        return steps // self._length * environments

    def _capacity(self) -> int:
        """Items replay holds: a whole number of rollouts, so that writes never wrap."""
        return self.buffer_size // self._length // self._items() * self._items()

    def resolve(self, steps: int, time_limit: int | None = None) -> ValueBased:
        found: dict[str, int] = {}
        if self.learning_starts is None:
            found["learning_starts"] = min(LEARNING_STARTS, steps // 10)
        if self.epsilon_steps is None:
            found["epsilon_steps"] = max(1, steps // 4)
        if self.lr_end is not None and self.lr_steps is None:
            found["lr_steps"] = steps
        resolved = dataclasses.replace(self, **found)
        if self.target_interval is None and self.target_tau is None:
            updates = resolved.updates(resolved.iterations(steps))
            interval = min(TARGET_INTERVAL, max(1, updates // 5))
            resolved = dataclasses.replace(resolved, target_interval=interval)
        return resolved

    def shortfalls(self, steps: int) -> list[str]:
        said = super().shortfalls(steps)
        updates = self.updates(self.iterations(steps))
        if not updates:
            said.append(
                f"learning starts after {self._starts:,} steps, but the run has {steps:,}: it "
                "makes no update; lower --learning-starts"
            )
        else:
            said += never_copied(self.target_interval, self.target_tau, updates)
        if self.epsilon_start != self.epsilon_end:
            said += unreached("epsilon", self.epsilon_end, self.epsilon_steps, steps)
        return said + unreached("lr", self.lr_end, self.lr_steps, steps)

    @property
    def _starts(self) -> int:
        return LEARNING_STARTS if self.learning_starts is None else self.learning_starts

    @property
    def _interval(self) -> int:
        return self.target_interval or TARGET_INTERVAL

    def _first(self) -> int:
        """The first iteration at whose end ``learning_starts`` steps are collected."""
        steps, environments = self.rollout_shape()
        return max(-(-self._starts // (steps * environments)) - 1, 0)

    def updates(self, iterations: int) -> int:
        return max(iterations - self._first(), 0) * self._updates()

    def clock(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        steps, environments = self.rollout_shape()
        each = steps * environments
        done = np.maximum(iterations - self._first(), 0) * self._updates()
        start, end = self.epsilon_start, self.epsilon_end
        stored = (iterations + 1) * self._items()
        return {
            "epsilon": moved(iterations, each, start, end, self.epsilon_steps),
            "rate": moved(iterations, each, 1.0, share_of(self.lr_end, self.lr), self.lr_steps),
            "slot": (iterations * self._items() % self._capacity()).astype(np.int32),
            "stored": np.minimum(stored, self._capacity()).astype(np.int32),
            "updates": np.where(iterations >= self._first(), self._updates(), 0).astype(np.int32),
            "since_copy": (done % self._interval).astype(np.int32),
        }

    # The learner -----------------------------------------------------------------------------

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.lr)

    def init(self, key: PRNGKey, game: Game) -> Learner:
        utility_key, mixer_key = jax.random.split(key)
        spec = game.spec
        utility = PerAgent(
            sharing_index(spec, self.sharing, self.groups),
            spec.observation_size,
            spec.action_count,
            self.hidden,
            utility_key,
            self.recurrent,
        )
        values = Values(utility, self.make_mixer(mixer_key, game))
        return Learner(
            values=values,
            target=values,
            optimiser=self._optimiser().init(eqx.filter(values, eqx.is_array)),
            replay=replay.init(self._item(game, utility.memory_size), self._capacity()),
            moments=Moments.empty(distinct_rewards(game)),
        )

    def _item(self, game: Game, memory: int) -> Experience:
        n, o, a = game.spec.n_agents, game.spec.observation_size, game.spec.action_count
        z, length = game.central_size, self._length
        flag, seen = jnp.zeros((length, n), bool), jnp.zeros((length, n, o))
        centre = jnp.zeros((length, z))
        return Experience(
            memory=jnp.zeros((1, n, memory)),
            observations=seen,
            alive=flag,
            counts=flag,
            start=flag,
            actions=jnp.zeros((length, n), jnp.int32),
            rewards=jnp.zeros((length, n)),
            terminated=flag,
            next_observations=seen,
            next_action_mask=jnp.zeros((length, n, a), bool),
            next_alive=flag,
            central=centre,
            next_central=centre,
        )

    def policy(self, learner: Learner) -> PerAgent:
        return learner.values.utility

    def parameters(self, learner: Learner) -> Values:
        return learner.values

    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return jax.random.uniform(key, (*shape, 2, game.spec.n_agents))

    def distribution(
        self, outputs: Float[Array, "*S N A"], mask: Bool[Array, "*S N A"], clock: dict[str, Array]
    ) -> Distribution:
        return EpsilonGreedy(outputs, mask, clock["epsilon"])

    # Learning --------------------------------------------------------------------------------

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        clock: dict[str, Array],
    ) -> tuple[Learner, dict[str, Array]]:
        steps = learner_steps(rollout, game)
        moments = learner.moments.update(steps.rewards, steps.counts)
        experience = self._sequences(rollout, steps)
        ring = replay.add(learner.replay, experience, clock["slot"])
        shape = (self._updates(), self.batch_size)
        if self.own_minibatch:
            shape = (*shape, game.spec.n_agents)
        index = jax.random.randint(key, shape, 0, clock["stored"])

        def update(u: Array, carry: tuple[Values, Values, PyTree, Array]) -> Any:
            values, target, optimiser, total = carry
            batch = self._minibatch(ring, index[u])
            rewards = moments.apply(self.reward_scaling, batch.rewards)
            batch = eqx.tree_at(lambda b: b.rewards, batch, rewards)
            loss, grads = eqx.filter_value_and_grad(self.loss)(values, target, batch)
            step, optimiser = self._optimiser().update(self._clip(grads), optimiser)
            values = eqx.apply_updates(values, jax.tree.map(lambda x: clock["rate"] * x, step))
            count = clock["since_copy"] + u + 1
            target = follow(target, values, count, self._interval, self.target_tau)
            return values, target, optimiser, total + loss

        carry = (learner.values, learner.target, learner.optimiser, jnp.zeros(()))
        values, target, optimiser, total = jax.lax.fori_loop(0, clock["updates"], update, carry)
        metrics = {"loss": total, "updates": clock["updates"].astype(jnp.float32)}
        return Learner(values, target, optimiser, ring, moments), metrics

    def loss(self, values: Values, target: Values, batch: Experience) -> Float[Array, ""]:
        """Mean over the minibatch of Σ (y − Q)², summed over agents where each has its own."""
        memory = batch.memory[0]
        q, memories = values.utility.unroll(memory, batch.observations, batch.start)
        chosen = of_action(q, batch.actions)

        _, target_memories = target.utility.unroll(memory, batch.observations, batch.start)
        fresh = jnp.zeros_like(batch.start)
        next_q, _ = target.utility.step(target_memories, batch.next_observations, fresh)
        best = masked_max(next_q, batch.next_action_mask)
        if self.double_q:
            online, _ = values.utility.step(memories, batch.next_observations, fresh)
            selected = greedy(online, batch.next_action_mask)
            best = of_action(next_q, selected)

        if not (self.own_minibatch or self.joint_view):  # the dead have no part in a team's value
            chosen = jnp.where(batch.alive, chosen, 0.0)
            best = jnp.where(batch.next_alive, best, 0.0)
        joint = self.joint(values.mixer, chosen, batch.central)
        next_joint = self.joint(target.mixer, best, batch.next_central)
        m = joint.shape[-1]
        y = one_step_target(
            batch.rewards[..., :m], batch.terminated[..., :m], next_joint, self.gamma
        )
        counts = batch.counts
        if not self.own_minibatch:
            counts = jnp.any(counts, axis=-1, keepdims=True)
        return summed_mean((y - joint) ** 2, counts.astype(joint.dtype))

    def _sequences(self, rollout: Transition, steps: Steps) -> Experience:
        """Cuts a rollout [T, B, ·] into items [T/L·B, L, ·]."""
        length = self._length

        def cut(x: Array) -> Array:
            x = x.reshape(x.shape[0] // length, length, *x.shape[1:])
            x = jnp.moveaxis(x, 2, 1)
            return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

        start = jnp.broadcast_to(rollout.start[..., None], rollout.alive.shape)
        return Experience(
            memory=cut(rollout.memory)[:, :1],
            observations=cut(rollout.observations),
            alive=cut(rollout.alive),
            counts=cut(steps.counts),
            start=cut(start),
            actions=cut(rollout.actions),
            rewards=cut(steps.rewards),
            terminated=cut(steps.terminated),
            next_observations=cut(rollout.next_observations),
            next_action_mask=cut(rollout.next_action_mask),
            next_alive=cut(rollout.next_alive),
            central=cut(rollout.central),
            next_central=cut(rollout.next_central),
        )

    def _minibatch(self, ring: Experience, index: Int[Array, "M *N"]) -> Experience:
        """The sampled sequences, time-major: leaves [L, M, N, ·]."""
        if not self.own_minibatch:
            return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), replay.sample(ring, index))
        agents = jnp.arange(index.shape[-1])

        def own(x: Array) -> Array:
            picked = x.at[index, :, agents].get(mode="promise_in_bounds")
            return jnp.moveaxis(picked, 2, 0)

        centre = jnp.zeros((self._length, index.shape[0], 0))

        def joint(e: Experience) -> Any:
            return e.central, e.next_central

        per_agent = jax.tree.map(own, eqx.tree_at(joint, ring, (None, None)))
        return eqx.tree_at(joint, per_agent, (centre, centre), is_leaf=lambda x: x is None)

    def _clip(self, grads: Any) -> Any:
        """Each independent loss by itself."""
        clip = lambda g: clip_norm(g, self.max_grad_norm)  # noqa: E731
        return jax.vmap(clip)(grads) if self.own_minibatch else clip(grads)
