"""How a learner sees an environment: padded, masked, time-limited, reset by itself.

``Game`` is one environment made uniform; ``VectorState`` is K of them stepping together, with
starts prepared in batches outside the scan (a reset costs more than a step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coterie.envs.base import Environment
from coterie.types import EnvSpec, PRNGKey, PyTree, Reward, TimeStep, UInt, UsageError

SEED_AXIS = "seed"
"""Name of the outer ``vmap`` axis over seeds; every compiled loop runs under it."""

Central = Literal["none", "state", "joint"]


class View(eqx.Module):
    """A ``TimeStep`` made complete: nothing is missing, everything is padded."""

    observations: Float[Array, "*S N O"]
    rewards: Float[Array, "*S N"]
    terminated: Bool[Array, "*S"]
    truncated: Bool[Array, "*S"]
    action_mask: Bool[Array, "*S N A"]
    alive: Bool[Array, "*S N"]
    central: Float[Array, "*S Z"]


class GameState(eqx.Module):
    """One environment's own state and the steps taken in this episode."""

    env: PyTree
    t: Int[Array, ""]


@dataclass(frozen=True)
class Game:
    """An environment as a learner sees it.

    Attributes:
        env: the native environment.
        central: what z is: nothing, the environment's state, or the joint observation.
        reward: whom the learner is paid for; the environment's own rewards stay in the record.
    """

    env: Environment
    central: Central = "none"
    reward: Reward = "individual"

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec()

    @property
    def central_size(self) -> int:
        spec = self.spec
        sizes = {
            "none": 0,
            "state": spec.central_size,
            "joint": spec.n_agents * spec.observation_size,
        }
        return sizes[self.central]

    def reset(self, key: PRNGKey) -> tuple[GameState, View]:
        state, shown = self.env.reset(key)
        return GameState(state, jnp.zeros((), jnp.int32)), self._complete(shown)

    def step(
        self, key: PRNGKey, state: GameState, actions: Int[Array, " N"]
    ) -> tuple[GameState, View]:
        """One step; at the time limit an episode that is not over is truncated."""
        env_state, led_to = self.env.step(key, state.env, actions)
        t = state.t + 1
        shown = self._complete(led_to)
        if self.spec.time_limit is not None:
            cut = (t >= self.spec.time_limit) | shown.truncated
            shown = eqx.tree_at(lambda s: s.truncated, shown, cut & ~shown.terminated)
        return GameState(env_state, t), shown

    def _complete(self, shown: TimeStep) -> View:
        """Pads observations to [N, O] and fills in masks, alive flags and z."""
        spec = self.spec
        available = jnp.asarray(spec.available_actions)
        observations = pad_observations(shown.observations, spec)
        mask = shown.action_mask
        if mask is None:
            mask = available
        elif mask.shape != available.shape:
            raise UsageError(f"action_mask must be {available.shape} [N, A]; got {mask.shape}")
        alive = jnp.ones(spec.n_agents, bool) if shown.alive is None else shown.alive
        return View(
            observations=observations,
            rewards=jnp.asarray(shown.rewards, jnp.float32),
            terminated=jnp.asarray(shown.terminated, bool),
            truncated=jnp.asarray(shown.truncated, bool),
            action_mask=mask & available,
            alive=alive,
            central=self._central(observations, shown.central),
        )

    def _central(
        self, observations: Float[Array, "N O"], state: Float[Array, " Z"] | None
    ) -> Float[Array, " Z"]:
        if self.central == "joint":
            return observations.reshape(-1)
        if self.central == "none":
            return jnp.zeros((0,), jnp.float32)
        if state is None:
            raise UsageError("this environment offers no state; use --central joint")
        return jnp.asarray(state, jnp.float32)


def pad_observations(observations: Any, spec: EnvSpec) -> Float[Array, "N O"]:
    """Unequal observation vectors (a tuple) padded with zeros to [N, O]; [N, O] unchanged."""
    if isinstance(observations, tuple):
        width = spec.observation_size
        rows = [jnp.pad(jnp.asarray(o, jnp.float32), (0, width - o.shape[0])) for o in observations]
        return jnp.stack(rows)
    return jnp.asarray(observations, jnp.float32)


def learner_rewards(rewards: Float[Array, "*S N"], reward: Reward) -> Float[Array, "*S N"]:
    """What each agent's learner is paid: its own r_i, or the common Σ_i r_i or Σ_i r_i / n."""
    if reward == "individual":
        return rewards
    total = jnp.sum if reward == "sum" else jnp.mean
    return jnp.broadcast_to(total(rewards, axis=-1, keepdims=True), rewards.shape)


class VectorState(eqx.Module):
    """K environments side by side, and the starts prepared for those that will end.

    Start number j of a seed is drawn from ``fold_in(key, j)``: each is used once, and which one an
    episode gets does not depend on when the pool was filled. j is two 32-bit words, low first.

    Attributes:
        state, shown: [B] current states and what the agents see.
        fresh: [B] the current observation is the first of its episode.
        returns, lengths: running totals of the episode, in the environment's own rewards.
        pool: [P] prepared (state, shown) pairs, of which ``used`` are taken; None inside a scan,
            which reads the pool from outside.
        drawn: number of the pool's first start.
    """

    state: GameState
    shown: View
    fresh: Bool[Array, " B"]
    returns: Float[Array, "B N"]
    lengths: Int[Array, " B"]
    pool: Any
    used: Int[Array, ""]
    drawn: UInt[Array, "2"]
    key: PRNGKey


def init_vector(game: Game, key: PRNGKey, environments: int, steps: int) -> VectorState:
    """K fresh environments and a pool that ``refill`` keeps good for ``steps`` steps each."""
    drawn = jnp.zeros(2, jnp.uint32)
    state, shown = draw_starts(game, key, drawn, environments)
    drawn = _count_on(drawn, environments)
    n = game.spec.n_agents
    return VectorState(
        state=state,
        shown=shown,
        fresh=jnp.ones(environments, bool),
        returns=jnp.zeros((environments, n)),
        lengths=jnp.zeros(environments, jnp.int32),
        pool=draw_starts(game, key, drawn, 2 * environments * steps),
        used=jnp.zeros((), jnp.int32),
        drawn=drawn,
        key=key,
    )


def draw_starts(
    game: Game, key: PRNGKey, first: UInt[Array, "2"], count: int
) -> tuple[GameState, View]:
    """Starts ``first`` .. ``first + count - 1`` of this key's endless sequence, [count]."""

    def one(offset: UInt[Array, ""]) -> tuple[GameState, View]:
        low, high = _count_on(first, offset)
        return game.reset(jax.random.fold_in(jax.random.fold_in(key, high), low))

    return jax.vmap(one)(jnp.arange(count, dtype=jnp.uint32))


def refill(game: Game, vector: VectorState, needed: int) -> VectorState:
    """Draws the pool anew from the first unused start when fewer than ``needed`` are left.

    The test is shared by all seeds, so that it stays one branch under ``vmap`` over them.
    """
    size = vector.pool[1].terminated.shape[0]
    short = jax.lax.pmax((size - vector.used < needed).astype(jnp.int32), SEED_AXIS) > 0

    def draw(v: VectorState) -> tuple[Any, ...]:
        drawn = _count_on(v.drawn, v.used.astype(jnp.uint32))
        return draw_starts(game, v.key, drawn, size), jnp.zeros_like(v.used), drawn

    def keep(v: VectorState) -> tuple[Any, ...]:
        return v.pool, v.used, v.drawn

    pool, used, drawn = jax.lax.cond(short, draw, keep, vector)
    return eqx.tree_at(lambda v: (v.pool, v.used, v.drawn), vector, (pool, used, drawn))


def step_vector(
    game: Game, vector: VectorState, pool: Any, keys: Any, actions: Int[Array, "B N"]
) -> tuple[VectorState, View]:
    """Steps all K environments and starts the ended ones anew.

    Returns:
        the new state (whose ``shown`` is what to act on next), and the views the actions
        truly led to [B]: their observations are the final ones where an episode ended.
    """
    state, led_to = jax.vmap(game.step)(keys, vector.state, actions)
    ended = led_to.terminated | led_to.truncated
    slot = vector.used + jnp.cumsum(ended) - ended
    taken = jax.tree.map(lambda x: x.at[slot].get(mode="promise_in_bounds"), pool)
    state, shown = jax.tree.map(
        lambda new, old: jnp.where(jnp.expand_dims(ended, tuple(range(1, new.ndim))), new, old),
        taken,
        (state, led_to),
    )
    going = ~vector.fresh
    return (
        VectorState(
            state=state,
            shown=shown,
            fresh=ended,
            returns=vector.returns * going[:, None] + led_to.rewards,
            lengths=vector.lengths * going + 1,
            pool=vector.pool,
            used=vector.used + jnp.sum(ended, dtype=jnp.int32),
            drawn=vector.drawn,
            key=vector.key,
        ),
        led_to,
    )


def _count_on(words: UInt[Array, "2"], more: Any) -> UInt[Array, "2"]:
    """Adds to a 64-bit count held as two 32-bit words, low first."""
    low = words[0] + jnp.asarray(more, jnp.uint32)
    return jnp.stack([low, words[1] + (low < words[0]).astype(jnp.uint32)])
