"""What the actor-critic algorithms share: rollouts, and updates of actors and critics.

Read ``learn`` from top to bottom: estimate advantages and targets once for a rollout, then step
actors and critics down their losses, on the whole rollout or on minibatches of it. What critics
see, the advantages, the targets and the losses are each algorithm's own.
"""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from coterie.learners.batches import Batch, Estimates, Learner
from coterie.learners.contract import (
    Algorithm,
    never_copied,
    replaceable,
    scaling_remarks,
    whole_rollouts,
)
from coterie.learners.normalisation import acting, counted, make_normaliser, normalised
from coterie.learners.parts import PolicySettings, TargetSettings, target_rate
from coterie.learners.policy_gradient import (
    descend,
    gradient_norm,
    impossible_std,
    in_the_log,
    in_units,
    init_optimiser,
    make_actor,
    per_agent,
    schedule_ends,
    schedules,
    unreached_ends,
    vectors_of,
)
from coterie.networks.per_agent import PerAgent, sharing_index
from coterie.networks.torsos import observed
from coterie.ops.losses import explained_variance, normalise, summed_mean
from coterie.ops.returns import lambda_return, n_step_return
from coterie.ops.running_statistics import Moments
from coterie.ops.updates import follow
from coterie.policies.acting import distribution, noise
from coterie.settings import ARITHMETIC, Count, Part, Rate, Share
from coterie.spec import ObservationSpace
from coterie.types import Actions, PRNGKey, PyTree, Schedules, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps, distinct_rewards, learner_steps


@dataclass(frozen=True, kw_only=True)
class ActorCritic(TargetSettings, PolicySettings, Algorithm):
    """Base of the actor-critics: actors π(a_i | h_i; φ_i) and a critic of each agent."""

    stochastic: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("actor_loss", "critic_loss", "entropy", "updates")
    diagnostics: ClassVar[tuple[str, ...]] = (
        "actor_gradient_norm", "critic_gradient_norm", "explained_variance",
    )  # fmt: skip

    rollout_steps: Count = 5
    """Length T of a rollout: steps of each environment between two updates."""
    n_steps: Count = 5
    """Number n of rewards in an n-step target, at most T, without gae_lambda; the lecture has 1."""
    gae_lambda: Annotated[Share | None, ARITHMETIC] = None
    """λ of generalised advantage estimation; None for n-step targets."""
    normalise_advantages: bool = False
    """Standardise the advantages of each agent over the rollout."""
    critic_lr: Annotated[Rate | None, ARITHMETIC] = None
    """Learning rate of the critics; by default --lr. With --lr-end it falls by the same factor."""
    target_interval: Count | None = None
    """Bootstrap from target critics θ̄, which are copied from θ every N updates."""
    target_tau: Annotated[Part | None, ARITHMETIC] = None
    """Bootstrap from target critics θ̄, which move by this share towards θ at every update."""

    # What each algorithm says -----------------------------------------------------------------

    @abc.abstractmethod
    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"] | Num[Array, "*S N Z"],
        actions: Actions,
    ) -> Num[Array, "*S N I"]:
        """What each critic sees of a state and of what is done there."""

    @replaceable
    def critic_outputs(self, game: Game) -> int:
        """How many numbers a critic outputs; one, a value, by default."""
        del game
        return 1

    @abc.abstractmethod
    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """Advantages of a rollout's actions, and targets of the critics."""

    @abc.abstractmethod
    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """The actor loss of every step.

        Args:
            log_probs: log π(a_i | h_i; φ_i) of the actions taken.
            extras: what ``extras`` noted of them then.
        """

    @abc.abstractmethod
    def critic_loss(self, outputs: Float[Array, "T B N J"], batch: Batch) -> Float[Array, "T B N"]:
        """The critic loss of every step, given what the critics say."""

    @replaceable
    def actor_diagnostics(
        self, log_probs: Float[Array, "T B N"], batch: Batch
    ) -> dict[str, Float[Array, ""]]:
        """What the log says of the actors' update beside the losses, named in ``diagnostics``."""
        del log_probs, batch
        return {}

    @replaceable
    def passes(self) -> tuple[int, int]:
        """How often an update goes through a rollout, and in how many minibatches."""
        return 1, 1

    # Settings and time ------------------------------------------------------------------------

    @replaceable
    def contradictions(self) -> list[str]:
        return contradictions_of(self)

    @replaceable
    def resolve(self, steps: int, time_limit: int | None = None) -> ActorCritic:
        del time_limit
        return dataclasses.replace(self, **schedule_ends(self, steps))

    @replaceable
    def remarks(self, game: Game) -> list[str]:
        del game
        return scaling_remarks(self.reward_scaling)

    @replaceable
    def shortfalls(self, steps: int) -> list[str]:
        said = whole_rollouts(self, steps) + unreached_ends(self, steps)
        if self.gae_lambda is None and self.n_steps > self.rollout_steps:
            said.append(
                f"a rollout has {self.rollout_steps:,} steps of each environment, so targets hold "
                f"at most so many rewards and not {self.n_steps:,}: raise --rollout-steps or lower "
                "--n-steps"
            )
        updates = self.updates(self.iterations(steps))
        return said + never_copied(self.target_interval, target_rate(self), updates)

    def rollout_shape(self) -> tuple[int, int]:
        return self.rollout_steps, self.environments

    def updates(self, iterations: int) -> int:
        epochs, minibatches = self.passes()
        return iterations * epochs * minibatches

    def schedules(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        epochs, minibatches = self.passes()
        since = iterations * (epochs * minibatches) % (self.target_interval or 1)
        moving = schedules(self, iterations, self.rollout_steps * self.environments)
        return moving | {"since_copy": since.astype(np.int32)}

    def logged_schedules(self, iteration: int) -> dict[str, float]:
        return in_the_log(self, self.schedules(np.array([iteration])))

    # The learner ------------------------------------------------------------------------------

    @property
    def _has_target(self) -> bool:
        return self.target_interval is not None or self.target_tau is not None

    def critic_size(self, game: Game) -> tuple[int, int]:
        """Numbers a critic sees and numbers it outputs."""
        n, o, z = game.spec.n_agents, game.spec.observation_size, game.central_size
        seen = jax.eval_shape(
            lambda *given: self.critic_inputs(game, *given),
            jax.ShapeDtypeStruct((n, o), game.spec.observation_dtype),
            jax.ShapeDtypeStruct((z,), game.central_dtype),
            jax.ShapeDtypeStruct(game.spec.action_shape, game.spec.action_dtype),
        )
        return seen.shape[-1], self.critic_outputs(game)

    def critic_space(self, game: Game) -> ObservationSpace | None:
        """Of what a critic's torso sees, where there is one: o_i, for central critics z, and
        whatever else are floats."""
        space = observed(game.spec, self.torso)
        if space is None:
            return None
        seen = space + game.central_space if self.central and game.central_size else space
        more = (self.critic_size(game)[0] - seen.size) // (4 if seen.dtype is np.uint8 else 1)
        return seen + ObservationSpace(((more,),)) if more else seen

    def init(self, key: PRNGKey, game: Game) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        actor = make_actor(self, actor_key, game)
        inputs, outputs = self.critic_size(game)
        critic = PerAgent(
            sharing_index(game.spec, self.sharing, self.groups),
            inputs,
            outputs,
            self.hidden,
            critic_key,
            self.recurrent,
            self.activation,
            gain=self.gain,
            space=self.critic_space(game),
            torso=self.torso,
            layer_norm=self.layer_norm,
            head=self.head,
        )
        scaled = self.reward_scaling == "scale"
        return Learner(
            actor=actor,
            critic=critic,
            target=critic if self._has_target else None,
            optimiser=init_optimiser({"actor": actor, "critic": critic}),
            hidden_state=critic.initial_hidden_state(self.environments),
            moments=Moments.empty(distinct_rewards(game)),
            so_far=jnp.zeros((self.environments, game.spec.n_agents)) if scaled else None,
            normaliser=make_normaliser(self, game),
        )

    def policy(self, learner: Learner) -> PerAgent:
        return acting(learner.actor, learner.normaliser)

    def parameters(self, learner: Learner) -> PyTree:
        return {"actor": learner.actor, "critic": learner.critic}

    @replaceable
    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        return noise(key, shape, game.spec.n_agents, vectors_of(self, game.spec))

    # Estimates --------------------------------------------------------------------------------

    def evaluate(
        self, game: Game, learner: Learner, rollout: Transition, next_actions: Actions
    ) -> tuple[Float[Array, "T B N J"], Float[Array, "T B N J"], Float[Array, "B N C"]]:
        """Critics' outputs at every step, (target) critics' at the next one, and the hidden state.

        Args:
            next_actions: what is done there, for critics that see actions.
        """
        start = per_agent(rollout.start, rollout.alive)
        inputs = self.critic_inputs(game, rollout.observations, rollout.central, rollout.actions)
        next_inputs = self.critic_inputs(
            game, rollout.next_observations, rollout.next_central, next_actions
        )
        outputs, hidden_states = learner.critic.unroll(learner.hidden_state, inputs, start)
        target, of_target = learner.critic, hidden_states
        if learner.target is not None:
            target = learner.target
            _, of_target = target.unroll(learner.hidden_state, inputs, start)
        next_outputs, _ = target.step(of_target, next_inputs, jnp.zeros_like(start))
        return outputs, next_outputs, hidden_states[-1]

    def returns(self, steps: Steps, next_values: Float[Array, "T B N"]) -> Float[Array, "T B N"]:
        """Targets y: n-step or λ-returns; by default y = r + γ V(h'), or r if h' is terminal."""
        ends = (steps.terminated, steps.ended)
        if self.gae_lambda is None:
            return n_step_return(steps.rewards, next_values, *ends, self.gamma, self.n_steps)
        return lambda_return(steps.rewards, next_values, *ends, self.gamma, self.gae_lambda)

    # Learning ---------------------------------------------------------------------------------

    @replaceable
    def learning_steps(self, game: Game, rollout: Transition) -> Steps:
        """Rewards that are learned from, where returns end, which steps count."""
        return learner_steps(rollout, game)

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        schedules: Schedules,
    ) -> tuple[Learner, dict[str, Array]]:
        estimate_key, shuffle_key = jax.random.split(key)
        normaliser = counted(learner.normaliser, rollout)
        rollout = normalised(learner.normaliser, game, rollout)
        steps = self.learning_steps(game, rollout)
        rewards, moments, so_far = in_units(
            self, learner.moments, learner.so_far, steps.rewards, steps.counts, rollout.start
        )
        steps = dataclasses.replace(steps, rewards=rewards)
        found = self.estimate(game, learner, rollout, steps, estimate_key)
        advantages = found.advantages
        if self.normalise_advantages:
            advantages = normalise(advantages, rollout.alive)
        batch = Batch(
            hidden_state=rollout.hidden_state[:1],
            critic_hidden_state=learner.hidden_state[None],
            observations=rollout.observations,
            action_mask=rollout.action_mask,
            alive=rollout.alive,
            counts=steps.counts,
            start=per_agent(rollout.start, rollout.alive),
            actions=rollout.actions,
            extras=rollout.extras,
            critic_inputs=self.critic_inputs(
                game, rollout.observations, rollout.central, rollout.actions
            ),
            advantages=advantages,
            targets=found.targets,
            aux=found.aux,
        )
        networks = {"actor": learner.actor, "critic": learner.critic}
        carry = (networks, learner.target, learner.optimiser)
        (networks, target, optimiser), metrics = self._make_updates(
            carry, batch, shuffle_key, schedules
        )
        explained = explained_variance(found.targets, found.values, steps.counts)
        metrics["explained_variance"] = self.updates(1) * explained
        new = networks["actor"], networks["critic"], target, optimiser
        return Learner(*new, found.hidden_state, moments, so_far, normaliser), metrics

    def _make_updates(
        self, carry: Any, batch: Batch, key: PRNGKey, schedules: Schedules
    ) -> tuple[Any, dict[str, Array]]:
        """All updates a rollout makes: in each pass every environment is in one minibatch."""
        epochs, minibatches = self.passes()
        if epochs == minibatches == 1:
            return self.update(carry, batch, schedules, jnp.ones((), jnp.int32))
        order = jax.vmap(lambda k: jax.random.permutation(k, self.environments))(
            jax.random.split(key, epochs)
        ).reshape(epochs * minibatches, -1)

        def one(carry: Any, xs: tuple[Array, Array]) -> Any:
            chosen, count = xs
            part = jax.tree.map(lambda x: jnp.take(x, chosen, axis=1), batch)
            return self.update(carry, part, schedules, count)

        counts = jnp.arange(1, epochs * minibatches + 1)
        carry, metrics = jax.lax.scan(one, carry, (order, counts))
        return carry, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    @replaceable
    def update(
        self, carry: Any, batch: Batch, schedules: Schedules, count: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One step down the actors' and the critics' losses.

        Args:
            carry: networks by name, the target critics, the optimiser's state.
            count: which update of this rollout it is, from 1.
        """
        networks, target, optimiser = carry
        value_and_grad = eqx.filter_value_and_grad(self.loss, has_aux=True)
        (_, metrics), grads = value_and_grad(networks, batch, schedules)
        for name, gradient in grads.items():
            metrics[f"{name}_gradient_norm"] = gradient_norm(gradient)
        critic_lr = self.lr if self.critic_lr is None else self.critic_lr
        rates = {"actor": self.lr, "critic": critic_lr}
        networks, optimiser = descend(self, networks, grads, optimiser, rates, schedules["rate"])
        if target is not None:
            now = schedules["since_copy"] + count
            target = follow(
                target, networks["critic"], now, self.target_interval, target_rate(self)
            )
        return (networks, target, optimiser), metrics | {"updates": jnp.ones(())}

    @replaceable
    def loss(
        self, networks: dict[str, PerAgent], batch: Batch, schedules: Schedules
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Actor and critic losses, each summed over agents and averaged over steps and K.

        Actors learn from the steps in which they live, critics from all that count.
        They share no parameter, so their sum's gradient is that of each.
        """
        actor = networks["actor"]
        outputs, _ = actor.unroll(batch.hidden_state[0], batch.observations, batch.start)
        chosen = distribution(actor, outputs, batch.action_mask)
        policy = self.behaviour(chosen, schedules)
        log_probs, entropies = policy.log_prob_and_entropy(batch.actions)
        valued, _ = networks["critic"].unroll(
            batch.critic_hidden_state[0], batch.critic_inputs, batch.start
        )
        acting, counts = (x.astype(log_probs.dtype) for x in (batch.alive, batch.counts))
        policy_loss = summed_mean(
            self.actor_loss(log_probs, batch.extras, batch.advantages), acting
        )
        critic = summed_mean(self.critic_loss(valued, batch), counts)
        bonus = summed_mean(entropies, acting)
        metrics = {"actor_loss": policy_loss, "critic_loss": critic, "entropy": bonus}
        metrics |= self.actor_diagnostics(log_probs, batch)
        return policy_loss - schedules["entropy"] * bonus + critic, metrics


def contradictions_of(settings: ActorCritic) -> list[str]:
    """Settings of an actor-critic that cannot stand together, a sentence each."""
    said = impossible_std(settings)
    n, gae = settings.n_steps, settings.gae_lambda
    if gae is not None and n not in (1, type(settings).n_steps):
        said.append(
            f"n_steps {n} and gae_lambda {gae} contradict each other: set gae_lambda to None for "
            "n-step targets, or leave n_steps out"
        )
    environments, parts = settings.environments, settings.passes()[1]
    if environments % parts:
        said.append(f"minibatches split the environments: {parts} must divide {environments}")
    return said
