"""What the actor-critic algorithms share: rollouts, advantages, one update of actors and critics.

Read ``learn`` from top to bottom: estimate advantages and targets once for a rollout, then step
actors and critics down their losses, on the whole rollout or on minibatches of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from coterie.errors import UsageError
from coterie.learners.contract import never_copied
from coterie.learners.policy_gradient import PolicyGradient, per_agent
from coterie.networks.per_agent import PerAgent, sharing_index
from coterie.ops.action_selection import of_action
from coterie.ops.losses import entropy, log_probabilities, normalise, policy_gradient, summed_mean
from coterie.ops.returns import lambda_return, n_step_return
from coterie.ops.running_statistics import Moments
from coterie.ops.updates import follow
from coterie.settings import Count, Part, Rate, Share
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps, distinct_rewards, learner_steps


class Learner(eqx.Module):
    """Actors φ, critics θ, target critics θ̄ if any, the optimiser, the critics' memory.

    ``so_far`` are the discounted rewards so far of every running episode, where rewards are scaled.
    """

    actor: PerAgent
    critic: PerAgent
    target: PerAgent | None
    optimiser: PyTree
    memory: Float[Array, "B N C"]
    moments: Moments
    so_far: Float[Array, "B N"] | None


class Batch(eqx.Module):
    """What an update sees of a rollout; environments are axis 1 of every leaf.

    Memories are those before the first step. ``targets`` are what the critic loss wants. Actors
    learn from steps with ``alive``, critics from those with ``counts``.
    """

    memory: Float[Array, "one B N H"]
    critic_memory: Float[Array, "one B N C"]
    observations: Float[Array, "T B N O"]
    action_mask: Bool[Array, "T B N A"]
    alive: Bool[Array, "T B N"]
    counts: Bool[Array, "T B N"]
    start: Bool[Array, "T B N"]
    actions: Int[Array, "T B N"]
    behaviour: PyTree
    critic_inputs: Float[Array, "T B N I"]
    advantages: Float[Array, "T B N"]
    targets: PyTree


@dataclass(frozen=True, kw_only=True)
class ActorCritic(PolicyGradient):
    """Base of the actor-critics. As it stands the critic is V(h_i) or, where the algorithm is
    ``central``, V(h_i, z), and a rollout makes one update.
    """

    metrics: ClassVar[tuple[str, ...]] = ("actor_loss", "critic_loss", "entropy", "updates")

    rollout_steps: Count = 10
    """Steps T of every environment between two updates."""
    n_steps: Count = 1
    """Rewards in a target before it bootstraps, at most T; 1 is the lecture's."""
    gae_lambda: Share | None = None
    """Use λ-returns instead: generalised advantage estimation."""
    normalise_advantages: bool = False
    """Standardise each agent's advantages over the rollout."""
    critic_lr: Rate | None = None
    """Learning rate of the critics; that of the actors unless given."""
    target_interval: Count | None = None
    """Bootstrap from target critics θ̄, copied from θ whenever so many updates were made."""
    target_tau: Part | None = None
    """Bootstrap from target critics θ̄ that move by this share towards θ at every update instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gae_lambda is not None and self.n_steps != 1:
            raise UsageError(
                f"n_steps {self.n_steps} and gae_lambda {self.gae_lambda} contradict each other: "
                "set n_steps to 1 or gae_lambda to None"
            )

    # What a final class may say otherwise -----------------------------------------------------

    def critic_size(self, game: Game) -> tuple[int, int]:
        """Numbers a critic sees and numbers it says."""
        return game.spec.observation_size + game.central_size, 1

    def critic_inputs(
        self,
        game: Game,
        observations: Float[Array, "*S N O"],
        central: Float[Array, "*S Z"] | Float[Array, "*S N Z"],
        actions: Int[Array, "*S N"],
    ) -> Float[Array, "*S N I"]:
        """What each critic sees: o_i, and z where there is one (of its own, if each has one)."""
        del game, actions
        if central.ndim < observations.ndim:
            central = central[..., None, :]
        z = jnp.broadcast_to(central, (*observations.shape[:-1], central.shape[-1]))
        return jnp.concatenate([observations, z], axis=-1)

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> tuple[Float[Array, "T B N"], PyTree, Float[Array, "B N C"]]:
        """Advantages, the critics' targets, and the critics' memory to go on from."""
        del key
        outputs, led_to, memory = self.evaluate(game, learner, rollout, rollout.actions)
        values, next_values = outputs[..., 0], led_to[..., 0]
        returns = self.returns(steps, next_values)
        return returns - values, returns, memory

    def critic_loss(self, outputs: Float[Array, "T B N J"], batch: Batch) -> Float[Array, "T B N"]:
        """(y − V(h_i, z; θ_i))² of every step."""
        return (batch.targets - outputs[..., 0]) ** 2

    def surrogate(
        self, log_probs: Float[Array, "T B N"], behaviour: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """The actor loss of every step."""
        del behaviour
        return policy_gradient(log_probs, advantages)

    def passes(self) -> tuple[int, int]:
        """How often an update goes through a rollout, and in how many minibatches."""
        return 1, 1

    # Time ------------------------------------------------------------------------------------

    def rollout_shape(self) -> tuple[int, int]:
        return self.rollout_steps, self.environments

    def shortfalls(self, steps: int) -> list[str]:
        said = super().shortfalls(steps)
        if self.gae_lambda is None and self.n_steps > self.rollout_steps:
            said.append(
                f"a rollout has {self.rollout_steps:,} steps of each environment, so targets hold "
                f"at most so many rewards and not {self.n_steps:,}: raise --rollout-steps"
            )
        updates = self.updates(self.iterations(steps))
        return said + never_copied(self.target_interval, self.target_tau, updates)

    def updates(self, iterations: int) -> int:
        epochs, minibatches = self.passes()
        return iterations * epochs * minibatches

    def clock(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        epochs, minibatches = self.passes()
        since = iterations * (epochs * minibatches) % (self.target_interval or 1)
        return super().clock(iterations) | {"since_copy": since.astype(np.int32)}

    # Values ----------------------------------------------------------------------------------

    @property
    def _has_target(self) -> bool:
        return self.target_interval is not None or self.target_tau is not None

    def init(self, key: PRNGKey, game: Game) -> Learner:
        actor_key, critic_key = jax.random.split(key)
        actor = self.make_actor(actor_key, game)
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
        )
        scaled = self.reward_scaling == "scale"
        return Learner(
            actor=actor,
            critic=critic,
            target=critic if self._has_target else None,
            optimiser=self.init_optimiser({"actor": actor, "critic": critic}),
            memory=critic.initial_memory(self.environments),
            moments=Moments.empty(distinct_rewards(game)),
            so_far=jnp.zeros((self.environments, game.spec.n_agents)) if scaled else None,
        )

    def parameters(self, learner: Learner) -> PyTree:
        return {"actor": learner.actor, "critic": learner.critic}

    def evaluate(
        self, game: Game, learner: Learner, rollout: Transition, next_actions: Int[Array, "T B N"]
    ) -> tuple[Float[Array, "T B N J"], Float[Array, "T B N J"], Float[Array, "B N C"]]:
        """What critics say at every step, what (target) critics say where it led, the memory.

        Args:
            next_actions: what is done there, for critics that see actions.
        """
        start = per_agent(rollout.start, rollout.alive)
        inputs = self.critic_inputs(game, rollout.observations, rollout.central, rollout.actions)
        led_to = self.critic_inputs(
            game, rollout.next_observations, rollout.next_central, next_actions
        )
        outputs, memories = learner.critic.unroll(learner.memory, inputs, start)
        judge, judged = learner.critic, memories
        if learner.target is not None:
            judge = learner.target
            _, judged = judge.unroll(learner.memory, inputs, start)
        next_outputs, _ = judge.step(judged, led_to, jnp.zeros_like(start))
        return outputs, next_outputs, memories[-1]

    def returns(self, steps: Steps, next_values: Float[Array, "T B N"]) -> Float[Array, "T B N"]:
        """Targets y: n-step or λ-returns."""
        ends = (steps.terminated, steps.ended)
        if self.gae_lambda is None:
            return n_step_return(steps.rewards, next_values, *ends, self.gamma, self.n_steps)
        return lambda_return(steps.rewards, next_values, *ends, self.gamma, self.gae_lambda)

    # Learning --------------------------------------------------------------------------------

    def learn(
        self,
        game: Game,
        learner: Learner,
        rollout: Transition,
        key: PRNGKey,
        clock: dict[str, Array],
    ) -> tuple[Learner, dict[str, Array]]:
        estimate_key, shuffle_key = jax.random.split(key)
        steps = learner_steps(rollout, game)
        rewards, moments, so_far = self.in_units(
            learner.moments, learner.so_far, steps.rewards, steps.counts, rollout.start
        )
        steps = dataclasses.replace(steps, rewards=rewards)
        advantages, targets, memory = self.estimate(game, learner, rollout, steps, estimate_key)
        if self.normalise_advantages:
            advantages = normalise(advantages, rollout.alive)
        batch = Batch(
            memory=rollout.memory[:1],
            critic_memory=learner.memory[None],
            observations=rollout.observations,
            action_mask=rollout.action_mask,
            alive=rollout.alive,
            counts=steps.counts,
            start=per_agent(rollout.start, rollout.alive),
            actions=rollout.actions,
            behaviour=rollout.behaviour,
            critic_inputs=self.critic_inputs(
                game, rollout.observations, rollout.central, rollout.actions
            ),
            advantages=advantages,
            targets=targets,
        )
        networks = {"actor": learner.actor, "critic": learner.critic}
        carry = (networks, learner.target, learner.optimiser)
        (networks, target, optimiser), metrics = self._updates(carry, batch, shuffle_key, clock)
        learner = Learner(
            networks["actor"], networks["critic"], target, optimiser, memory, moments, so_far
        )
        return learner, metrics

    def _updates(
        self, carry: Any, batch: Batch, key: PRNGKey, clock: dict[str, Array]
    ) -> tuple[Any, dict[str, Array]]:
        """All updates a rollout makes: in each pass every environment is in one minibatch."""
        epochs, minibatches = self.passes()
        if epochs == minibatches == 1:
            return self._update(carry, batch, clock, jnp.ones((), jnp.int32))
        order = jax.vmap(lambda k: jax.random.permutation(k, self.environments))(
            jax.random.split(key, epochs)
        ).reshape(epochs * minibatches, -1)

        def one(carry: Any, xs: tuple[Array, Array]) -> Any:
            chosen, count = xs
            part = jax.tree.map(lambda x: jnp.take(x, chosen, axis=1), batch)
            return self._update(carry, part, clock, count)

        counts = jnp.arange(1, epochs * minibatches + 1)
        carry, metrics = jax.lax.scan(one, carry, (order, counts))
        return carry, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    def _update(
        self, carry: Any, batch: Batch, clock: dict[str, Array], count: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One step down the actors' and the critics' losses."""
        networks, target, optimiser = carry
        value_and_grad = eqx.filter_value_and_grad(self.loss, has_aux=True)
        (_, metrics), grads = value_and_grad(networks, batch, clock["entropy"])
        rates = {"actor": self.lr, "critic": self.critic_lr or self.lr}
        networks, optimiser = self.descend(networks, grads, optimiser, rates, clock["rate"])
        if target is not None:
            now = clock["since_copy"] + count
            target = follow(target, networks["critic"], now, self.target_interval, self.target_tau)
        return (networks, target, optimiser), metrics | {"updates": jnp.ones(())}

    def loss(
        self, networks: dict[str, PerAgent], batch: Batch, weight: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Actor and critic losses, each summed over agents and averaged over steps and K.

        Actors learn from the steps in which they live, critics from all that count.
        They share no parameter, so their sum's gradient is that of each.
        """
        scores, _ = networks["actor"].unroll(batch.memory[0], batch.observations, batch.start)
        log_probs = log_probabilities(scores, batch.action_mask)
        chosen = of_action(log_probs, batch.actions)
        outputs, _ = networks["critic"].unroll(
            batch.critic_memory[0], batch.critic_inputs, batch.start
        )
        acting, counts = (x.astype(chosen.dtype) for x in (batch.alive, batch.counts))
        surrogate = self.surrogate(chosen, batch.behaviour, batch.advantages)
        actor = summed_mean(surrogate, acting)
        critic = summed_mean(self.critic_loss(outputs, batch), counts)
        bonus = summed_mean(entropy(log_probs, batch.action_mask), acting)
        metrics = {"actor_loss": actor, "critic_loss": critic, "entropy": bonus}
        return actor - weight * bonus + critic, metrics
