"""Distributions over each agent's actions, made from what its network says."""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coterie.ops.action_selection import ILLEGAL, epsilon_greedy, greedy, of_action, sample
from coterie.ops.losses import entropy, log_probabilities
from coterie.types import Actions


class Distribution(eqx.Module):
    """A distribution over the actions of every agent, [..., N].

    An agent without legal actions takes action 0.

    Attributes:
        outputs: what the agents' networks say: logits or Q-values of each action, or more.
        mask: legal actions.
    """

    outputs: Float[Array, "*S N J"]
    mask: Bool[Array, "*S N A"]

    @abc.abstractmethod
    def sample(self, noise: Float[Array, "..."]) -> Actions:
        """Actions from numbers that are all the randomness there is."""

    @abc.abstractmethod
    def mode(self) -> Actions:
        """The likeliest or most valued actions; the first of equals."""

    @abc.abstractmethod
    def log_prob(self, actions: Actions) -> Float[Array, "*S N"]:
        """log π(a_i | h_i) of these actions."""

    @abc.abstractmethod
    def log_prob_and_entropy(
        self, actions: Actions
    ) -> tuple[Float[Array, "*S N"], Float[Array, "*S N"]]:
        """Both at once, for losses."""

    @abc.abstractmethod
    def entropy(self) -> Float[Array, "*S N"]:
        """H(π(· | h_i)) in nats; 0 where no action is legal."""


class SingleChoice(Distribution):
    """Over actions that are numbers, counted from 0; noise is uniform in [0, 1)."""

    @abc.abstractmethod
    def log_probabilities(self) -> Float[Array, "*S N A"]:
        """log π(· | h_i) of all actions; about -10³⁰ where illegal, never NaN."""

    def log_prob(self, actions: Int[Array, "*S N"]) -> Float[Array, "*S N"]:
        return of_action(self.log_probabilities(), actions)

    def log_prob_and_entropy(
        self, actions: Int[Array, "*S N"]
    ) -> tuple[Float[Array, "*S N"], Float[Array, "*S N"]]:
        """Both from one softmax, whose gradient is then taken once."""
        log_probs = self.log_probabilities()
        return of_action(log_probs, actions), entropy(log_probs, self.mask)


class Categorical(SingleChoice):
    """Softmax over the legal actions; noise is one number for each agent, [..., N]."""

    def sample(self, noise: Float[Array, "*S N"]) -> Int[Array, "*S N"]:
        return sample(self.outputs, self.mask, noise)

    def mode(self) -> Int[Array, "*S N"]:
        return greedy(self.outputs, self.mask)

    def log_probabilities(self) -> Float[Array, "*S N A"]:
        return log_probabilities(self.outputs, self.mask)

    def entropy(self) -> Float[Array, "*S N"]:
        return entropy(self.log_probabilities(), self.mask)


class EpsilonGreedy(SingleChoice):
    """The most valued legal action, or with probability ε any legal one.

    Each agent tosses its own coin: noise is two numbers for each, [..., 2, N], whether to explore
    and which action then.
    """

    epsilon: Float[Array, ""]

    def sample(self, noise: Float[Array, "*S 2 N"]) -> Int[Array, "*S N"]:
        coin, draw = noise[..., 0, :], noise[..., 1, :]
        return epsilon_greedy(self.outputs, self.mask, self.epsilon, coin, draw)

    def mode(self) -> Int[Array, "*S N"]:
        return greedy(self.outputs, self.mask)

    def log_probabilities(self) -> Float[Array, "*S N A"]:
        count = jnp.maximum(jnp.sum(self.mask, axis=-1, keepdims=True), 1)
        best = jnp.arange(self.mask.shape[-1]) == self.mode()[..., None]
        likely = jnp.where(self.mask, self.epsilon / count, 0.0) + (1 - self.epsilon) * best
        return jnp.where(likely > 0, jnp.log(jnp.where(likely > 0, likely, 1.0)), ILLEGAL)

    def entropy(self) -> Float[Array, "*S N"]:
        return entropy(self.log_probabilities(), self.mask)
