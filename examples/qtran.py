"""QTRAN (Son et al. 2019) as your own algorithm: a joint value that need not be monotone.

The team's value Q(z, a) is learned by itself. The sum of utilities Σ_i Q_i is pulled to
Q(z, a) − V(z) at the utilities' own greedy joint action, and kept above it everywhere else: then
each agent's greedy action is its part of the best joint action. Q(z, a) and V(z) see z, and no
histories. In this folder, ``coterie train qtran:QTRAN lbf/5x5-2p-1f`` trains it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import coterie
from coterie.learners.contract import Mode
from coterie.learners.experience import Experience, q_values
from coterie.learners.value_based import ValueBased, Values
from coterie.networks.layers import MLP
from coterie.ops.action_selection import greedy, of_action
from coterie.ops.losses import masked_mean, one_step_target, summed_mean
from coterie.settings import Weight, Width
from coterie.types import PRNGKey
from coterie.views.game import Game


class JointValues(eqx.Module):
    """Q(z, a) of joint actions, given one-hot, and V(z)."""

    q: MLP
    v: MLP
    actions: int = eqx.field(static=True)

    def __init__(self, game: Game, width: int, key: PRNGKey):
        q_key, v_key = jax.random.split(key)
        z, self.actions = game.central_size, game.spec.action_count
        self.q = MLP([z + game.spec.n_agents * self.actions, width, width, 1], q_key)
        self.v = MLP([z, width, width, 1], v_key)

    def of(self, z: Float[Array, "L B Z"], actions: Int[Array, "L B N"]) -> Float[Array, "L B 1"]:
        one_hot = jax.nn.one_hot(actions, self.actions).reshape(*actions.shape[:-1], -1)
        return self.q(jnp.concatenate([z, one_hot], axis=-1))

    def value(self, z: Float[Array, "L B Z"]) -> Float[Array, "L B 1"]:
        return self.v(z)


@dataclass(frozen=True, kw_only=True)
class QTRAN(ValueBased):
    """QTRAN-base: three losses on one minibatch."""

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = True
    central: ClassVar[bool] = True
    own_minibatch: ClassVar[bool] = False
    replays: ClassVar[tuple[str, ...]] = ("action_mask",)  # to know the greedy action of old steps

    joint_width: Width = 64
    """Width of the networks of Q(z, a) and V(z)."""
    greedy_weight: Weight = 1.0
    """Weight of the loss at the greedy joint action."""
    other_weight: Weight = 1.0
    """Weight of the loss at the joint action taken."""

    def make_mixer(self, key: PRNGKey, game: Game) -> JointValues:
        return JointValues(game, self.joint_width, key)

    def joint(
        self, mixer: JointValues, utilities: Float[Array, "*S N"], central: Float[Array, "*S Z"]
    ) -> Float[Array, "*S 1"]:
        """Σ_i Q_i(h_i, a_i)."""
        return jnp.sum(utilities, axis=-1, keepdims=True)

    def target(
        self, batch: Experience, next_values: Float[Array, "L B 1"]
    ) -> Float[Array, "L B 1"]:
        """y = r + γ Q(z', ū'; θ̄), ū' the greedy joint action of the utilities."""
        common, terminal = batch.rewards[..., :1], batch.terminated[..., :1]
        return one_step_target(common, terminal, next_values, self.gamma)

    def step_loss(
        self, targets: Float[Array, "L B 1"], values: Float[Array, "L B 1"]
    ) -> Float[Array, "L B 1"]:
        return (targets - values) ** 2

    def loss(
        self, values: Values, target: Values, batch: Experience
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        utilities, next_utilities = q_values(values.utility, batch)
        living = jnp.where(batch.alive[..., None], utilities, 0.0)
        best = greedy(utilities, batch.more["action_mask"])
        if not self.double_q:
            _, next_utilities = q_values(target.utility, batch)
        next_best = greedy(next_utilities, batch.next_action_mask)

        # The joint value, by temporal differences.
        q = values.mixer.of(batch.central, batch.actions)
        y = self.target(batch, target.mixer.of(batch.next_central, next_best))

        # The utilities and V: equal to the joint value at ū, not below it at the action taken.
        v = values.mixer.value(batch.central)
        q_best = values.mixer.of(batch.central, best)
        gap_best = self.joint(values.mixer, of_action(living, best), batch.central) + v
        gap = self.joint(values.mixer, of_action(living, batch.actions), batch.central) + v
        at_best = (gap_best - jax.lax.stop_gradient(q_best)) ** 2
        elsewhere = jnp.minimum(gap - jax.lax.stop_gradient(q), 0.0) ** 2

        counts = jnp.any(batch.counts, axis=-1, keepdims=True)
        steps = self.step_loss(y, q) + self.greedy_weight * at_best + self.other_weight * elsewhere
        return summed_mean(steps, counts.astype(q.dtype)), {
            "q_mean": masked_mean(q, counts),
            "td_error": masked_mean(jnp.abs(y - q), counts),
        }


if __name__ == "__main__":
    climbing = coterie.train(
        QTRAN(
            environments=8, learning_starts=500, update_ratio=1 / 8, epsilon_start=1.0,
            epsilon_end=1.0, lr=1e-3, reward_scaling="none", gamma=0.0,
        ),
        "matrix/climbing", 40_000, reward="mean", evaluations=4,
    )  # fmt: skip
    found = climbing.metrics["eval/return/team_mean"]["mean"]
    print(f"climbing: {found:.1f} each; the optimum is 11, and VDN and QMIX do not find it")
    assert found == 11

    foraging = coterie.train(
        QTRAN(
            sharing="shared", environments=8, lr=1e-3, epsilon_steps=80_000, other_weight=0.1
        ),
        "lbf/5x5-2p-1f", 200_000, evaluations=4,
    )  # fmt: skip
    found = foraging.metrics["eval/return/team_sum"]["mean"]
    print(f"foraging: {found:.2f} of the food is collected; 0.48 by random play")
    assert found > 0.7
