"""What the steps of a rollout are to each agent's learner: rewards, ends, what counts."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from coterie.types import Transition
from coterie.views.game import Game


class Steps(eqx.Module):
    """Steps as each agent's learner takes them, any leading axes.

    Attributes:
        rewards: what the learner learns from.
        terminated: nothing follows for it: the bootstrap is cut.
        ended: its return ends here; where it did not terminate it bootstraps.
        counts: steps of which it learns the value. Policies learn from those with ``alive``.
    """

    rewards: Float[Array, "*S N"]
    terminated: Bool[Array, "*S N"]
    ended: Bool[Array, "*S N"]
    counts: Bool[Array, "*S N"]


def learner_steps(rollout: Transition, game: Game) -> Steps:
    """What the steps of a rollout are to each agent's learner.

    Under individual rewards nothing follows an agent's death, and its dead steps do not count; one
    that is truncated alone bootstraps from its final observation. Under a common reward the team's
    return goes on to the end of the episode, for the dead as well (death masking, Yu et al. 2022;
    posthumous credit, Cohen et al. 2022), and every step counts.
    """
    rewards = learner_rewards(rollout.rewards, game)

    def each(flag: Bool[Array, "*S"]) -> Bool[Array, "*S N"]:
        return jnp.broadcast_to(flag[..., None], rewards.shape)

    terminated, ended = each(rollout.terminated), each(rollout.terminated | rollout.truncated)
    if game.reward == "individual":
        gone = died = ~rollout.next_alive
        if rollout.truncated_alone is not None:
            died = gone & ~rollout.truncated_alone
        return Steps(rewards, terminated | died, ended | gone, rollout.alive)
    counts = jnp.ones_like(ended) if rollout.valid is None else each(rollout.valid)
    return Steps(rewards, terminated, ended, counts)


def learner_rewards(rewards: Float[Array, "*S R"], game: Game) -> Float[Array, "*S N"]:
    """The reward of each agent's learner: its own r_i, or the common Σ_i r_i or Σ_i r_i / n."""
    if game.reward == "individual":
        return rewards
    total = jnp.sum if game.reward == "sum" else jnp.mean
    common = total(rewards, axis=-1, keepdims=True)
    return jnp.broadcast_to(common, (*rewards.shape[:-1], game.spec.n_agents))


def distinct_rewards(game: Game) -> int:
    """How many of ``learner_rewards`` can differ: N, or the 1 that is common to all."""
    return game.spec.n_agents if game.reward == "individual" else 1
