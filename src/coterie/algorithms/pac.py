"""Pareto actor-critic (lecture, "Equilibrium selection problem"; Christianos et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.learners.actor_critic import ActorCritic, Learner
from coterie.learners.batches import Batch, Estimates, with_central
from coterie.learners.contract import Mode, refuse_many, scaling_remarks
from coterie.ops.action_selection import ILLEGAL, of_action
from coterie.ops.losses import policy_gradient
from coterie.ops.running_statistics import RewardScaling
from coterie.settings import ARITHMETIC, JointActions, Part, Rate, Weight
from coterie.types import PRNGKey, PyTree, Transition
from coterie.views.game import Game, usable
from coterie.views.joint_actions import JointView
from coterie.views.steps import Steps


@dataclass(frozen=True, kw_only=True)
class PAC(ActorCritic):
    """Each agent assumes that the others play what is best for all: π⁺_-i ∈ arg max Q_i.

    Adv_i = max_{a_-i} Q_i(h_i, z, ⟨a_i, a_-i⟩; θ_i) − V_i(h_i, z; θ_i), for no-conflict games,
    where all agents prefer the same joint actions. Targets of Q_i are n-step returns that
    bootstrap with the maximum of the target critic; V_i learns the maximum at the action taken.
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = False
    central: ClassVar[bool] = True

    reward_scaling: RewardScaling = "none"  # a large penalty would shrink what tells optima apart
    target_tau: Annotated[Part | None, ARITHMETIC] = 0.01
    # Above the actors': they act on what critics have learned.
    critic_lr: Annotated[Rate | None, ARITHMETIC] = 2e-3
    entropy: Weight = 1.0
    entropy_end: float | None = 0.01
    joint_optimum: bool = False
    """Break ties between optima: all agents assume the same best joint action."""
    max_others: JointActions = 1024
    """Largest number of joint actions of the other agents; games with more are refused."""

    def remarks(self, game: Game) -> list[str]:
        counts = game.spec.action_counts
        others = game.team.count // min(counts)
        what = "joint actions of the other agents, |A|^(n-1)"
        refuse_many(others, self.max_others, what, "--max-others")
        found = scaling_remarks(self.reward_scaling)
        if game.reward != "individual":
            return found
        if game.no_conflict is None:
            return [*found, "pac is for no-conflict games; whether this is one cannot be checked"]
        if game.no_conflict:
            return found
        conflict = (
            "pac is for no-conflict games, and this is none: agents prefer different outcomes"
        )
        return [*found, conflict]

    def critic_inputs(
        self,
        game: Game,
        observations: Num[Array, "*S N O"],
        central: Num[Array, "*S Z"] | Num[Array, "*S N Z"],
        actions: Int[Array, "*S N"],
    ) -> Num[Array, "*S N I"]:
        """A critic sees what its agent sees, and z."""
        return with_central(observations, central)

    def critic_outputs(self, game: Game) -> int:
        """Q_i of every joint action, and V_i last."""
        return game.team.count + 1

    def estimate(
        self, game: Game, learner: Learner, rollout: Transition, steps: Steps, key: PRNGKey
    ) -> Estimates:
        """y_i bootstraps with max_a' Q_i(h_i', z', a'; θ̄_i); V_i learns max_{a_-i} Q_i."""
        outputs, next_outputs, hidden_state = self.evaluate(game, learner, rollout, rollout.actions)
        q, v, next_q = outputs[..., :-1], outputs[..., -1], next_outputs[..., :-1]
        team = game.team
        legal, next_legal = team.mask(rollout.action_mask), team.mask(rollout.next_action_mask)
        if game.truncates_alone:  # agents that go on do so without those that were truncated
            onward = team.mask(usable(rollout.next_action_mask, rollout.next_alive))
            next_legal = jnp.where(rollout.next_alive[..., None], onward, next_legal)
        y = self.returns(steps, jnp.max(jnp.where(next_legal, next_q, ILLEGAL), axis=-1))
        optimistic = (
            with_joint_optimum(team, q, legal, rollout.alive)
            if self.joint_optimum
            else max_over_others(team, q, legal)
        )
        best = of_action(optimistic, rollout.actions)
        joint = team.join(rollout.actions)[..., 0]
        return Estimates(
            advantages=best - v,
            targets=jax.lax.stop_gradient({"q": y, "v": best}),
            values={"q": _of_joint_action(q, joint), "v": v},
            hidden_state=hidden_state,
            aux={"joint_action": joint},
        )

    def actor_loss(
        self, log_probs: Float[Array, "T B N"], extras: PyTree, advantages: Float[Array, "T B N"]
    ) -> Float[Array, "T B N"]:
        """−Adv_i log π(a_i | h_i; φ_i)."""
        return policy_gradient(log_probs, advantages)

    def critic_loss(self, outputs: Float[Array, "T B N J"], batch: Batch) -> Float[Array, "T B N"]:
        """(y_i − Q_i(h_i, z, a; θ_i))² + (max_{a_-i} Q_i − V_i(h_i, z; θ_i))²."""
        y, chosen = batch.targets, _of_joint_action(outputs, batch.aux["joint_action"])
        return (y["q"] - chosen) ** 2 + (y["v"] - outputs[..., -1]) ** 2


def _of_joint_action(q: Float[Array, "*S N J"], joint: Int[Array, "*S"]) -> Float[Array, "*S N"]:
    """Q_i(h_i, z, a) of every agent, a the joint action by its number."""
    return of_action(q, jnp.broadcast_to(joint[..., None], q.shape[:-1]))


def max_over_others(
    team: JointView, q: Float[Array, "*S N J"], legal: Bool[Array, "*S 1 J"]
) -> Float[Array, "*S N A"]:
    """max_{a_-i} Q_i(⟨a_i, a_-i⟩) for every agent i and own action a_i, over legal a_-i."""
    counts = team.players.action_counts
    q = jnp.where(legal, q, ILLEGAL)
    rows = []
    for i, count in enumerate(counts):
        own = q[..., i, :].reshape(*q.shape[:-2], *counts)
        others = tuple(k - len(counts) for k in range(len(counts)) if k != i)
        rows.append(_padded(jnp.max(own, axis=others), max(counts) - count))
    return jnp.stack(rows, axis=-2)


def with_joint_optimum(
    team: JointView,
    q: Float[Array, "*S N J"],
    legal: Bool[Array, "*S 1 J"],
    alive: Bool[Array, "*S N"],
) -> Float[Array, "*S N A"]:
    """Q_i(⟨a_i, a*_-i⟩), a* the one arg max of the living agents' mean Q, the same for all."""
    counts = team.players.action_counts
    total = jnp.sum(jnp.where(alive[..., None], q, 0.0), axis=-2)
    best = jnp.argmax(jnp.where(legal[..., 0, :], total, ILLEGAL), axis=-1)
    table = jnp.asarray(team.table)
    rows = []
    for i, count in enumerate(counts):
        stride = team.strides[i]
        base = best - table[best, i] * stride
        index = base[..., None] + stride * jnp.arange(count)
        own = jnp.take_along_axis(q[..., i, :], index, axis=-1)
        rows.append(_padded(own, max(counts) - count))
    return jnp.stack(rows, axis=-2)


def _padded(values: Float[Array, "*S K"], by: int) -> Float[Array, "*S A"]:
    widths = [(0, 0)] * (values.ndim - 1) + [(0, by)]
    return jnp.pad(values, widths, constant_values=ILLEGAL)
