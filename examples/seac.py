"""SEAC, shared experience actor-critic (Christianos et al. 2020), as your own algorithm.

Every agent learns from its own experience as in independent A2C, and from that of the others,
weighted by the ratio π_i/π_k of the probabilities of the action that was taken.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import coterie
from coterie.errors import UsageError
from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates
from coterie.learners.contract import Mode
from coterie.networks.per_agent import PerAgent
from coterie.ops.losses import policy_gradient, summed_mean
from coterie.ops.running_statistics import RewardScaling
from coterie.policies.distributions import Categorical, Distribution
from coterie.settings import Weight
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game
from coterie.views.steps import Steps


def of_others(x: Array) -> Array:
    """[T, B, N, ...] to [E, T, B, N, ...]: what agent i + e met, in the place of agent i."""
    return jnp.stack([jnp.roll(x, -e, axis=2) for e in range(x.shape[2])])


def last(x: Float[Array, "E T B N"]) -> Float[Array, "T B N E"]:
    return jnp.moveaxis(x, 0, -1)


@dataclass(frozen=True, kw_only=True)
class SEAC(ActorCritic):
    """Independent A2C on everybody's experience; agents must be alike."""

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = False
    # Not settings here: others' hidden states are not known, and units of reward must be the same.
    recurrent: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]
    normalise_advantages: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]
    reward_scaling: ClassVar[RewardScaling] = "none"  # pyright: ignore[reportIncompatibleVariableOverride]

    sharing: Literal["own", "shared"] = "own"
    share: Weight = 1.0
    """Weight λ of the others' experience."""

    def remarks(self, game: Game) -> list[str]:
        spec = game.spec
        if len(set(spec.observation_sizes)) > 1 or len(set(spec.action_counts)) > 1:
            raise UsageError(
                "agents that share experience must have equal observation and action sizes"
            )
        return []

    def extras(self, distribution: Distribution, actions: Int[Array, "*S N"]) -> PyTree:
        """log π_k(a_k | o_k) of whoever acted."""
        return distribution.log_prob(actions)

    def critic_inputs(
        self,
        game: Game,
        observations: Float[Array, "*S N O"],
        central: Float[Array, "*S Z"],
        actions: Int[Array, "*S N"],
    ) -> Float[Array, "*S N O"]:
        return observations

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y_ik = r_k + γ V(o_k'; θ_i), Adv_ik = y_ik − V(o_k; θ_i) of every agent k."""
        start = jnp.broadcast_to(rollout.start[..., None], rollout.alive.shape)

        def values(critic: PerAgent, observations: Array) -> Float[Array, "E T B N"]:
            one = lambda seen: critic.unroll(learner.hidden_state, seen, start)[0][..., 0]  # noqa: E731
            return jax.vmap(one)(of_others(observations))

        v = values(learner.critic, rollout.observations)
        next_v = values(learner.target or learner.critic, rollout.next_observations)
        y = jax.vmap(self.returns)(jax.tree.map(of_others, steps), next_v)
        return Estimates(
            advantages=last(y - v),
            targets=last(y),
            values=last(v),
            hidden_state=learner.hidden_state,
        )

    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N 1"], batch: Batch) -> Float[Array, "T B N"]:
        return (batch.targets - outputs[..., 0]) ** 2

    def loss(
        self, networks: dict[str, PerAgent], batch: Batch, schedules: dict[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Own experience counts fully, that of others by λ π_i(a_k | o_k) / π_k(a_k | o_k)."""
        n = batch.alive.shape[2]
        share = jnp.full(n, self.share).at[0].set(1.0)  # e = 0: the agent's own experience

        def one(
            share: Array, seen: Array, mask: Array, actions: Array, extras: Array,
            alive: Array, counts: Array, advantages: Array, targets: Array,
        ) -> tuple[Array, Array, Array]:  # fmt: skip
            logits, _ = networks["actor"].unroll(batch.hidden_state[0], seen, batch.start)
            values, _ = networks["critic"].unroll(batch.critic_hidden_state[0], seen, batch.start)
            policy = self.behaviour(Categorical(logits, mask), schedules)
            log_probs, entropy = policy.log_prob_and_entropy(actions)
            weight = share * jax.lax.stop_gradient(jnp.exp(log_probs - extras))
            actor = weight * self.actor_loss(log_probs, extras, advantages)
            critic = weight * self.critic_loss(values, dataclasses.replace(batch, targets=targets))
            acting, counted = alive.astype(weight.dtype), counts.astype(weight.dtype)
            return (
                summed_mean(actor, acting), summed_mean(critic, counted),
                summed_mean(entropy, acting),
            )  # fmt: skip

        met = (
            batch.observations, batch.action_mask, batch.actions, batch.extras, batch.alive,
            batch.counts,
        )  # fmt: skip
        estimates = (jnp.moveaxis(x, -1, 0) for x in (batch.advantages, batch.targets))
        actor, critic, entropy = jax.vmap(one)(share, *map(of_others, met), *estimates)
        actor, critic, bonus = actor.sum(), critic.sum(), entropy[0]
        metrics = {"actor_loss": actor, "critic_loss": critic, "entropy": bonus}
        return actor - schedules["entropy"] * bonus + critic, metrics


if __name__ == "__main__":
    climbing = coterie.train(SEAC(), "matrix/climbing", 40_000, reward="mean", evaluations=4)
    found = climbing.metrics["eval_sampled/return/team_mean"]["mean"]
    print(f"climbing: {found:.1f} each (A2C: 7)")
    assert found > 4

    foraging = coterie.train(SEAC(), "lbf/5x5-2p-1f", 200_000, evaluations=4)
    found = foraging.metrics["eval_sampled/return/team_sum"]["mean"]
    print(f"foraging: {found:.2f} of the food is collected; 0.48 by random play")
    assert found > 0.7
