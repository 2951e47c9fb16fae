"""What the value-based algorithms share: replay, ε-greedy exploration, gradient updates.

Read ``learn`` from top to bottom: keep a rollout, then make the updates that are due, each on a
minibatch. The joint value, the target and the loss are each algorithm's own.
"""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num

from coterie.learners.contract import (
    Algorithm,
    never_copied,
    replaceable,
    scaling_remarks,
    unreached,
    whole_rollouts,
)
from coterie.learners.experience import Experience, Values, blank_rollout, q_values
from coterie.learners.normalisation import (
    Normaliser,
    acting,
    counted,
    make_normaliser,
    normalised,
)
from coterie.learners.parts import ValueSettings, target_rate
from coterie.learners.replay import Layout, Replay, empty, minibatch, period, span_of, store
from coterie.networks.per_agent import PerAgent, sharing_index
from coterie.networks.torsos import observed
from coterie.ops.action_selection import greedy, masked_max, of_action
from coterie.ops.losses import masked_mean, summed_mean
from coterie.ops.running_statistics import Moments
from coterie.ops.schedules import moved, share_of
from coterie.ops.updates import clip_norm, follow, norm
from coterie.policies.distributions import Categorical, Distribution, EpsilonGreedy
from coterie.types import PRNGKey, PyTree, Schedules, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps, distinct_rewards, learner_steps

LEARNING_STARTS, TARGET_INTERVAL = 10_000, 200
"""Unless given, and unless the run is so short that fewer are needed."""


class Learner(eqx.Module):
    """θ, target θ̄, the optimiser's state, replay D, reward moments, observations' statistics."""

    values: Values
    target: Values
    optimiser: PyTree
    replay: Replay
    moments: Moments
    normaliser: Normaliser | None = None


@dataclass(frozen=True, kw_only=True)
class ValueBased(ValueSettings, Algorithm):
    """Base of the value-based algorithms: a utility Q(h_i, a_i; θ_i) of each agent."""

    diagnostics: ClassVar[tuple[str, ...]] = ("gradient_norm", "q_mean", "td_error")
    own_minibatch: ClassVar[bool]
    """Each agent samples its own minibatch (separate buffers D_i) instead of a joint one."""
    replays: ClassVar[tuple[str, ...]] = ()
    """Fields of ``Transition`` that replay keeps in ``Experience.more``; they must have an agent
    axis, as action_mask and behaviour have."""

    # What each algorithm says -----------------------------------------------------------------

    @replaceable
    def make_mixer(self, key: PRNGKey, game: Game) -> Any:
        """Parameters of the joint value beside the utilities; none by default."""
        del key, game

    @abc.abstractmethod
    def joint(
        self, mixer: Any, utilities: Float[Array, "*S N"], central: Num[Array, "*S Z"]
    ) -> Float[Array, "*S M"]:
        """The values that are learned: each agent's own (M = N) or the team's (M = 1).

        Args:
            utilities: Q(h_i, a_i; θ_i) of the actions taken, or the greatest of each agent.
        """

    @abc.abstractmethod
    def target(
        self, batch: Experience, next_values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """y of every step.

        Args:
            next_values: ``joint`` of the greatest utilities max_a' Q(h_i', a'; θ̄_i).
        """

    @abc.abstractmethod
    def step_loss(
        self, targets: Float[Array, "L B M"], values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """The loss of every step."""

    # Settings and time ------------------------------------------------------------------------

    @replaceable
    def contradictions(self) -> list[str]:
        return contradictions_of(self)

    @replaceable
    def remarks(self, game: Game) -> list[str]:
        del game
        return scaling_remarks(self.reward_scaling)

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

    def _updates_per_rollout(self) -> int:
        steps, environments = self.rollout_shape()
        return int(self._ratio * steps * environments)

    def _items(self) -> int:
        steps, environments = self.rollout_shape()
        return steps // self._length * environments

    def _rollouts(self) -> int:
        """Rollouts that replay holds; they are whole, so that writes never wrap."""
        return self.buffer_size // self._length // self._items()

    def _capacity(self) -> int:
        """Items replay holds."""
        return self._rollouts() * self._items()

    @replaceable
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

    @replaceable
    def shortfalls(self, steps: int) -> list[str]:
        said = whole_rollouts(self, steps)
        updates = self.updates(self.iterations(steps))
        if not updates:
            said.append(
                f"learning starts after {self._starts:,} steps, but the run has {steps:,}: it "
                "makes no update; lower --learning-starts"
            )
        else:
            said += never_copied(self.target_interval, target_rate(self), updates)
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
        return max(iterations - self._first(), 0) * self._updates_per_rollout()

    def schedules(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        steps, environments = self.rollout_shape()
        each = steps * environments
        due = self._updates_per_rollout()
        done = np.maximum(iterations - self._first(), 0) * due
        start, end = self.epsilon_start, self.epsilon_end
        stored = (iterations + 1) * self._items()
        return {
            "epsilon": moved(iterations, each, start, end, self.epsilon_steps),
            "rate": moved(iterations, each, 1.0, share_of(self.lr_end, self.lr), self.lr_steps),
            "slot": (iterations * self._items() % self._capacity()).astype(np.int32),
            "stored": np.minimum(stored, self._capacity()).astype(np.int32),
            "rollout": (iterations % period(self._rollouts())).astype(np.int32),
            "updates": np.where(iterations >= self._first(), self._updates_per_rollout(), 0).astype(
                np.int32
            ),
            "since_copy": (done % self._interval).astype(np.int32),
        }

    def logged_schedules(self, iteration: int) -> dict[str, float]:
        schedules = self.schedules(np.array([iteration]))
        return {
            "learning_rate": self.lr * float(schedules["rate"][0]),
            "epsilon": float(schedules["epsilon"][0]),
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
            space=observed(spec, self.torso),
            torso=self.torso,
            layer_norm=self.layer_norm,
            head=self.head,
        )
        values = Values(utility, self.make_mixer(mixer_key, game))
        return Learner(
            values=values,
            target=values,
            optimiser=self._optimiser().init(eqx.filter(values, eqx.is_array)),
            replay=self._empty_replay(game, utility.hidden_size),
            moments=Moments.empty(distinct_rewards(game)),
            normaliser=make_normaliser(self, game),
        )

    def _empty_replay(self, game: Game, hidden_size: int) -> Replay:
        steps, environments = self.rollout_shape()
        span = span_of(game.spec.time_limit)
        layout = Layout(steps, self._length, self._rollouts(), span)

        def make() -> Replay:
            rollout = blank_rollout(game, 1, hidden_size)
            outputs = jnp.zeros(rollout.action_mask.shape)
            schedules = {
                k: jnp.asarray(x[0]) for k, x in self.schedules(np.zeros(1, np.int64)).items()
            }
            acting = self.behaviour(Categorical(outputs, rollout.action_mask), schedules)
            extras = self.extras(acting, rollout.actions)
            rollout = dataclasses.replace(rollout, extras=extras)
            steps = self.learning_steps(game, rollout)
            # A joint minibatch shows all agents as they were when any of them was truncated.
            alone = game.truncates_alone and self.own_minibatch
            return empty(layout, environments, rollout, steps, alone, self.replays)

        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(make))

    def policy(self, learner: Learner) -> PerAgent:
        return acting(learner.values.utility, learner.normaliser)

    def parameters(self, learner: Learner) -> Values:
        return learner.values

    @replaceable
    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return jax.random.uniform(key, (*shape, 2, game.spec.n_agents))

    @replaceable
    def behaviour(self, chosen: Distribution, schedules: Schedules) -> Distribution:
        """ε-greedy."""
        return EpsilonGreedy(chosen.outputs, chosen.mask, schedules["epsilon"])

    # Learning ---------------------------------------------------------------------------------

    @replaceable
    def learning_steps(self, game: Game, rollout: Transition) -> Steps:
        """Rewards that are learned from, where nothing follows, which steps count."""
        return learner_steps(rollout, game)

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        schedules: Schedules,
    ) -> tuple[Learner, dict[str, Array]]:
        steps = self.learning_steps(game, rollout)
        moments = learner.moments.update(steps.rewards, steps.counts)
        ring = store(learner.replay, rollout, steps, schedules)
        shape = (self._updates_per_rollout(), self.batch_size)
        if self.own_minibatch:
            shape = (*shape, game.spec.n_agents)
        index = jax.random.randint(key, shape, 0, schedules["stored"])

        def update(u: Array, carry: Any) -> Any:
            values, target, optimiser, totals = carry
            batch = minibatch(ring, index[u], each_its_own=self.own_minibatch)
            rewards = moments.apply(self.reward_scaling, batch.rewards)
            batch = eqx.tree_at(lambda b: b.rewards, batch, rewards)
            batch = normalised(learner.normaliser, game, batch)
            values, optimiser, metrics = self.update(values, target, optimiser, batch, schedules)
            count = schedules["since_copy"] + u + 1
            target = follow(target, values, count, self._interval, target_rate(self))
            return values, target, optimiser, jax.tree.map(jnp.add, totals, metrics)

        totals = {name: jnp.zeros(()) for name in self.metrics + self.diagnostics}
        totals.pop("updates")
        carry = (learner.values, learner.target, learner.optimiser, totals)
        values, target, optimiser, totals = jax.lax.fori_loop(
            0, schedules["updates"], update, carry
        )
        metrics = totals | {"updates": schedules["updates"].astype(jnp.float32)}
        normaliser = counted(learner.normaliser, rollout)
        return Learner(values, target, optimiser, ring, moments, normaliser), metrics

    @replaceable
    def update(
        self,
        values: Values,
        target: Values,
        optimiser: PyTree,
        batch: Experience,
        schedules: Schedules,
    ) -> tuple[Values, PyTree, dict[str, Array]]:
        """One step down the loss: parameters, the optimiser's state, what the log says of it."""
        value_and_grad = eqx.filter_value_and_grad(self.loss, has_aux=True)
        (loss, metrics), grads = value_and_grad(values, target, batch)
        # Independent losses are clipped each by itself.
        each = jax.vmap if self.own_minibatch else lambda f: f
        metrics = metrics | {"loss": loss, "gradient_norm": jnp.mean(each(norm)(grads))}
        clipped = each(lambda g: clip_norm(g, self.max_grad_norm))(grads)
        step, optimiser = self._optimiser().update(clipped, optimiser)
        step = jax.tree.map(lambda x: schedules["rate"] * x, step)
        return eqx.apply_updates(values, step), optimiser, metrics

    @replaceable
    def loss(
        self, values: Values, target: Values, batch: Experience
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Mean over the minibatch of the loss, summed over agents where each has its own.

        Returns: the loss, and ``diagnostics`` except the gradient's.
        """
        chosen, best = self.utilities(values, target, batch)
        joint = self.joint(values.mixer, chosen, batch.central)
        y = self.target(batch, self.joint(target.mixer, best, batch.next_central))
        counts = batch.counts
        if not self.own_minibatch:
            counts = jnp.any(counts, axis=-1, keepdims=True)
        loss = summed_mean(self.step_loss(y, joint), counts.astype(joint.dtype))
        counts = jnp.broadcast_to(counts, joint.shape)
        return loss, {
            "q_mean": masked_mean(joint, counts),
            "td_error": masked_mean(jnp.abs(y - joint), counts),
        }

    def utilities(
        self, values: Values, target: Values, batch: Experience
    ) -> tuple[Float[Array, "L B N"], Float[Array, "L B N"]]:
        """Q(h_i, a_i; θ_i) of the actions taken, and max_a' Q(h_i', a'; θ̄_i) over legal actions."""
        q, online = q_values(values.utility, batch)
        _, next_q = q_values(target.utility, batch)
        chosen = of_action(q, batch.actions)
        best = masked_max(next_q, batch.next_action_mask)
        if self.double_q:
            best = of_action(next_q, greedy(online, batch.next_action_mask))

        if not (self.own_minibatch or self.joint_view):  # the dead have no part in a team's value
            chosen = jnp.where(batch.alive, chosen, 0.0)
            best = jnp.where(batch.next_alive, best, 0.0)
        return chosen, best


def contradictions_of(settings: ValueBased) -> list[str]:
    """Settings of a value-based algorithm that cannot stand together, a sentence each."""
    said: list[str] = []
    if settings._capacity() < 1:
        said.append(
            f"buffer_size {settings.buffer_size} is smaller than one rollout "
            f"({settings.environments} environments x {settings.rollout_shape()[0]} steps)"
        )
    if settings.batch_size > settings.buffer_size:
        said.append(
            f"batch_size {settings.batch_size} is more than replay holds, buffer_size "
            f"{settings.buffer_size}"
        )
    return said
