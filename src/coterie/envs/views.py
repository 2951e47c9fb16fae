"""How a learner sees an environment: padded, masked, time-limited, reset by itself.

``Game`` is one environment made uniform; ``VectorState`` is K of them stepping together, with
starts prepared in batches outside the scan (a reset costs more than a step).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from coterie.envs.base import Environment
from coterie.envs.fleet import Hosted
from coterie.envs.joint import JointView
from coterie.types import EnvSpec, PRNGKey, PyTree, Reward, TimeStep, UInt, UsageError

SEED_AXIS = "seed"
"""Name of the outer ``vmap`` axis over seeds; every compiled loop runs under it."""

Central = Literal["none", "state", "joint"]


class View(eqx.Module):
    """A ``TimeStep`` made complete: nothing is missing, everything is padded.

    ``rewards`` are those of the environment's own agents, R of them (R = N but under central
    learning, where N = 1).
    """

    observations: Float[Array, "*S N O"]
    rewards: Float[Array, "*S R"]
    terminated: Bool[Array, "*S"]
    truncated: Bool[Array, "*S"]
    action_mask: Bool[Array, "*S N A"]
    alive: Bool[Array, "*S N"]
    central: Float[Array, "*S Z"]


class Sight(eqx.Module):
    """The part of a ``View`` that agents act on."""

    observations: Float[Array, "*S N O"]
    action_mask: Bool[Array, "*S N A"]
    alive: Bool[Array, "*S N"]
    central: Float[Array, "*S Z"]


class GameState(eqx.Module):
    """One environment's own state and the steps taken in this episode."""

    env: PyTree
    t: Int[Array, "*S"]


@dataclass(frozen=True)
class Game:
    """An environment as a learner sees it.

    What is promised and how it is seen holds for every environment; ``reset``, ``step``,
    ``trace`` and ``varies`` are of native ones only, whose dynamics can be compiled.

    Attributes:
        env: the native environment, or a hosted one, which is stepped elsewhere.
        central: what z is: nothing, the environment's state, or the joint observation.
        reward: whom the learner is paid for; the environment's own rewards stay in the record.
        joint: the team appears as one agent that sees everything and chooses joint actions.
    """

    env: Environment | Hosted
    central: Central = "none"
    reward: Reward = "individual"
    joint: bool = False

    def __post_init__(self) -> None:
        self.env.spec()  # asked here, before anything of it is traced

    @property
    def players(self) -> EnvSpec:
        """The environment's own agents, who are paid and reported."""
        return self.env.spec()

    @property
    def spec(self) -> EnvSpec:
        """The agents that learn."""
        return self.team.spec if self.joint else self.players

    @cached_property
    def team(self) -> JointView:
        """How the environment's agents appear as one."""
        return JointView(self.players)

    @property
    def central_size(self) -> int:
        spec = self.players
        sizes = {
            "none": 0,
            "state": spec.central_size,
            "joint": spec.n_agents * spec.observation_size,
        }
        return sizes[self.central]

    @property
    def native(self) -> Environment:
        """The environment, where it is compiled."""
        assert isinstance(self.env, Environment)
        return self.env

    def reset(self, key: PRNGKey) -> tuple[GameState, View]:
        state, shown = self.native.reset(key)
        return GameState(state, jnp.zeros((), jnp.int32)), self._complete(shown)

    def step(
        self, key: PRNGKey, state: GameState, actions: Int[Array, " N"]
    ) -> tuple[GameState, View]:
        """One step; at the time limit an episode that is not over is truncated."""
        own = self.team.split(actions) if self.joint else actions
        env_state, led_to = self.native.step(key, state.env, own)
        t = state.t + 1
        shown = self._complete(led_to)
        if self.players.time_limit is not None:
            cut = (t >= self.players.time_limit) | shown.truncated
            shown = eqx.tree_at(lambda s: s.truncated, shown, cut & ~shown.terminated)
        return GameState(env_state, t), shown

    def trace(self) -> None:
        """Goes through a reset and a step without computing: wrong shapes are found here."""

        def both(key: PRNGKey) -> Any:
            reset_key, step_key = jax.random.split(key)
            state, _ = self.reset(reset_key)
            return self.step(step_key, state, jnp.zeros(self.spec.n_agents, jnp.int32))

        jax.eval_shape(both, jax.eval_shape(lambda: jax.random.key(0)))

    @cached_property
    def varies(self) -> tuple[bool, bool]:
        """Whether the environment ever gives action masks, and alive flags, of its own."""

        def both(key: PRNGKey) -> tuple[TimeStep, TimeStep]:
            reset_key, step_key = jax.random.split(key)
            state, first = self.native.reset(reset_key)
            actions = jnp.zeros(self.players.n_agents, jnp.int32)
            return first, self.native.step(step_key, state, actions)[1]

        first, second = jax.eval_shape(both, jax.eval_shape(lambda: jax.random.key(0)))
        masks = any(x.action_mask is not None for x in (first, second))
        alive = any(x.alive is not None for x in (first, second))
        return masks or (self.joint and alive), alive

    def _complete(self, shown: TimeStep) -> View:
        """Pads observations to [N, O] and fills in masks, alive flags and z."""
        spec = self.players
        available = jnp.asarray(spec.available_actions)
        observations = pad_observations(shown.observations, spec)
        mask = shown.action_mask
        if mask is None:
            mask = available
        elif mask.shape != available.shape:
            raise UsageError(f"action_mask must be {available.shape} [N, A]; got {mask.shape}")
        alive = jnp.ones(spec.n_agents, bool) if shown.alive is None else shown.alive
        if shown.alive is not None:  # 0 · NaN would reach gradients
            counts = alive[:, None] | jnp.isfinite(observations)
            observations = jnp.where(counts, observations, 0.0)
        for word, array, size in (
            ("observations", observations, (spec.n_agents, spec.observation_size)),
            ("rewards", shown.rewards, available.shape[:1]),
            ("alive", alive, available.shape[:1]),
        ):
            if jnp.shape(array) != size:
                raise UsageError(f"{word} must have shape {size}; got {jnp.shape(array)}")
        seen = self.see(observations, mask & available, alive, shown.central)
        return View(
            observations=seen.observations,
            rewards=jnp.asarray(shown.rewards, jnp.float32),
            terminated=jnp.asarray(shown.terminated, bool),
            truncated=jnp.asarray(shown.truncated, bool),
            action_mask=seen.action_mask,
            alive=seen.alive,
            central=seen.central,
        )

    def see(
        self,
        observations: Float[Array, "*S R O"],
        action_mask: Bool[Array, "*S R A"],
        alive: Bool[Array, "*S R"],
        central: Float[Array, "*S _"] | None,
    ) -> Sight:
        """What the agents that learn see of what is padded and complete, with any leading axes.

        Args:
            central: the environment's state, where it offers one.
        """
        z = self._central(observations, central)
        if self.joint:
            observations = self.team.observe(observations)
            action_mask = self.team.mask(action_mask)
            alive = jnp.any(alive, axis=-1, keepdims=True)
        return Sight(observations, action_mask, alive, z)

    def _central(
        self, observations: Float[Array, "*S R O"], state: Float[Array, "*S _"] | None
    ) -> Float[Array, "*S Z"]:
        lead = observations.shape[:-2]
        if self.central == "joint":
            return observations.reshape(*lead, -1)
        if self.central == "none":
            return jnp.zeros((*lead, 0), jnp.float32)
        if state is None:
            raise UsageError("this environment offers no state; use --central joint")
        if jnp.shape(state) != (*lead, self.players.central_size):
            raise UsageError(
                f"central must have the {self.players.central_size} numbers of the spec; "
                f"got shape {jnp.shape(state)}"
            )
        return jnp.asarray(state, jnp.float32)


def pad_observations(observations: Any, spec: EnvSpec) -> Float[Array, "N O"]:
    """Unequal observation vectors (a tuple) padded with zeros to [N, O]; [N, O] unchanged."""
    if isinstance(observations, tuple):
        width = spec.observation_size
        rows = [jnp.pad(jnp.asarray(o, jnp.float32), (0, width - o.shape[0])) for o in observations]
        return jnp.stack(rows)
    return jnp.asarray(observations, jnp.float32)


def learner_rewards(rewards: Float[Array, "*S R"], game: Game) -> Float[Array, "*S N"]:
    """What each agent's learner is paid: its own r_i, or the common Σ_i r_i or Σ_i r_i / n."""
    if game.reward == "individual":
        return rewards
    total = jnp.sum if game.reward == "sum" else jnp.mean
    common = total(rewards, axis=-1, keepdims=True)
    return jnp.broadcast_to(common, (*rewards.shape[:-1], game.spec.n_agents))


def distinct_rewards(game: Game) -> int:
    """How many of ``learner_rewards`` can differ: N, or the 1 that is common to all."""
    return game.spec.n_agents if game.reward == "individual" else 1


class Start(eqx.Module):
    """What differs between the starts of a game; masks and alive flags only where they vary."""

    env: PyTree
    observations: Float[Array, "*S N O"]
    central: Float[Array, "*S Z"]
    action_mask: Bool[Array, "*S N A"] | None
    alive: Bool[Array, "*S N"] | None


def as_start(game: Game, state: GameState, view: View) -> Start:
    """The parts of a state and its view that a prepared start replaces."""
    masks, alive = game.varies
    return Start(
        state.env,
        view.observations,
        view.central,
        view.action_mask if masks else None,
        view.alive if alive else None,
    )


class VectorState(eqx.Module):
    """K environments side by side, and the starts prepared for those that will end.

    Start number j of a seed is drawn from ``fold_in(key, j)``: each is used once, and which one an
    episode gets does not depend on when the pool was filled. j is two 32-bit words, low first.

    Attributes:
        state, shown: [B] current states and what the agents see; ``shown``'s rewards and flags are
            those of the last step, also where a new episode begins.
        fresh: [B] the current observation is the first of its episode.
        returns, lengths: running totals of the episode, in the environment's own rewards.
        pool: [blocks, block] prepared starts, a ring; None inside a scan, which reads the pool
            from outside.
        head: the ring's oldest block.
        used: starts taken since the beginning of that block.
        drawn: number of that block's first start.
    """

    state: GameState
    shown: View
    fresh: Bool[Array, " B"]
    returns: Float[Array, "B R"]
    lengths: Int[Array, " B"]
    pool: Any
    head: Int[Array, ""]
    used: Int[Array, ""]
    drawn: UInt[Array, "2"]
    key: PRNGKey


def init_vector(game: Game, key: PRNGKey, environments: int, steps: int) -> VectorState:
    """K fresh environments and a pool that ``refill`` keeps good for ``steps`` steps of each."""
    first = jnp.zeros(2, jnp.uint32)
    state, shown = draw_starts(game, key, first, environments)
    first = _count_on(first, environments)
    # A block is small enough to stay in the cache, and large enough to fill vector units.
    block = min(max(environments * steps, 16), 1024)
    blocks = -(-environments * steps // block) + 1
    pool = jax.lax.map(
        lambda b: as_start(game, *draw_starts(game, key, _count_on(first, b * block), block)),
        jnp.arange(blocks, dtype=jnp.uint32),
    )
    return VectorState(
        state=state,
        shown=shown,
        fresh=jnp.ones(environments, bool),
        returns=jnp.zeros((environments, game.players.n_agents)),
        lengths=jnp.zeros(environments, jnp.int32),
        pool=pool,
        head=jnp.zeros((), jnp.int32),
        used=jnp.zeros((), jnp.int32),
        drawn=first,
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


def refill(game: Game, vector: VectorState) -> VectorState:
    """Draws used-up blocks of the pool anew; then all blocks but one are surely ready.

    A loop and not a branch: its carry is updated in place, and a loop that runs zero times costs
    nothing. Seeds share the number of turns; one that has no block to spare draws its oldest
    block again, which gives the same starts.
    """
    blocks, block = jax.tree.leaves(vector.pool)[0].shape[:2]

    def redraw(_: Array, v: VectorState) -> VectorState:
        spare = v.used >= block
        numbers = _count_on(v.drawn, jnp.where(spare, blocks * block, 0))
        fresh = as_start(game, *draw_starts(game, v.key, numbers, block))
        pool = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, v.head, 0),
            v.pool,
            fresh,
        )
        head = jnp.where(spare, (v.head + 1) % blocks, v.head)
        used = jnp.where(spare, v.used - block, v.used)
        drawn = jnp.where(spare, _count_on(v.drawn, block), v.drawn)
        return dataclasses.replace(v, pool=pool, head=head, used=used, drawn=drawn)

    turns = jax.lax.pmax(vector.used // block, SEED_AXIS)
    return jax.lax.fori_loop(0, turns, redraw, vector)


def step_vector(
    game: Game, vector: VectorState, pool: Any, keys: Any, actions: Int[Array, "B N"]
) -> tuple[VectorState, View]:
    """Steps all K environments and starts the ended ones anew.

    Returns:
        the new state (whose ``shown`` is what to act on next), and the views the actions
        truly led to [B]: their observations are the final ones where an episode ended.
    """
    state, led_to = jax.vmap(game.step)(keys, vector.state, actions)
    led_to = finite_pay(game, vector.shown, led_to)
    going = ~vector.fresh
    stepped = dataclasses.replace(
        vector,
        state=state,
        shown=led_to,
        fresh=jnp.zeros_like(vector.fresh),
        returns=vector.returns * going[:, None] + led_to.rewards,
        lengths=vector.lengths * going + 1,
    )
    return _renew(game, stepped, pool, led_to.terminated | led_to.truncated), led_to


def finite_pay(game: Game, acted: View, led_to: View) -> View:
    """What agents are paid that were dead when the others acted, 0 where it is not finite.

    Under central learning who of the team is dead is not seen, and nothing is changed.
    """
    if game.joint or not game.varies[1]:
        return led_to
    counts = acted.alive | jnp.isfinite(led_to.rewards)
    return dataclasses.replace(led_to, rewards=jnp.where(counts, led_to.rewards, 0.0))


def restart(game: Game, vector: VectorState, pool: Any) -> VectorState:
    """Breaks off every episode that has begun and starts a new one in its place."""
    return _renew(game, vector, pool, ~vector.fresh)


def _renew(game: Game, vector: VectorState, pool: Any, ended: Bool[Array, " B"]) -> VectorState:
    """The next prepared starts in place of the ended episodes; their totals stay to be read."""
    blocks, block = jax.tree.leaves(pool)[0].shape[:2]
    slot = vector.head * block + vector.used + jnp.cumsum(ended) - ended
    slot = slot % (blocks * block)

    def renew(prepared: Array, old: Array) -> Array:
        new = jax.lax.collapse(prepared, 0, 2).at[slot].get(mode="promise_in_bounds")
        return jnp.where(jnp.expand_dims(ended, tuple(range(1, new.ndim))), new, old)

    state, led_to = vector.state, vector.shown
    start = jax.tree.map(renew, pool, as_start(game, state, led_to))
    shown = dataclasses.replace(
        led_to,
        observations=start.observations,
        central=start.central,
        action_mask=led_to.action_mask if start.action_mask is None else start.action_mask,
        alive=led_to.alive if start.alive is None else start.alive,
    )
    return dataclasses.replace(
        vector,
        state=GameState(start.env, jnp.where(ended, 0, state.t)),
        shown=shown,
        fresh=vector.fresh | ended,
        used=vector.used + jnp.sum(ended, dtype=jnp.int32),
    )


def _count_on(words: UInt[Array, "2"], more: Any) -> UInt[Array, "2"]:
    """Adds to a 64-bit count held as two 32-bit words, low first."""
    low = words[0] + jnp.asarray(more, jnp.uint32)
    return jnp.stack([low, words[1] + (low < words[0]).astype(jnp.uint32)])
