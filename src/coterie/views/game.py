"""How a learner sees an environment: padded, masked, time-limited, reset by itself.

``Game`` is one environment made uniform; ``VectorState`` is K of them stepping together, with
reset states sampled in batches outside the scan (a reset costs more than a step).
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from coterie.envs.base import Environment
from coterie.errors import UsageError
from coterie.games.solution_concepts import no_conflict
from coterie.ops.action_vectors import ActionVectors, Bounds
from coterie.ops.observations import flat
from coterie.spec import EnvSpec, Observation, ObservationSpace, PythonEnvFactory, Reward
from coterie.types import Actions, PRNGKey, PyTree, TimeStep
from coterie.views.joint_actions import JointView, joint_space
from coterie.views.preprocessing import UNCHANGED, Preprocessing

Central = Literal["none", "state", "joint"]


class GameState(eqx.Module):
    """One environment's own state, the steps taken in this episode, and who is still alive.

    ``alive`` is of the environment's own agents; None where they always are. ``frames`` are the
    last K − 1 frames they observed, where they see K of them (``views.preprocessing``).
    """

    env: PyTree
    t: Int[Array, "*S"]
    alive: Bool[Array, "*S R"] | None = None
    frames: Num[Array, "*S K R P"] | None = None


def ends_of(shown: TimeStep, before: Bool[Array, " R"]) -> TimeStep:
    """The step with flags of the whole episode, and who is alive after it or was truncated alone.

    With flags per agent the episode ends when no agent is left: as a truncation if any of the last
    ones was truncated, else as a termination. An agent flagged as both is terminated; one that is
    not alive any more and was not flagged has died. At a truncation those count as alive that were
    truncated: their final observations are bootstrapped from.

    Args:
        before: who was alive when the step was taken.
    """
    given = before if shown.alive is None else shown.alive
    terminated, truncated = (jnp.asarray(x, bool) for x in (shown.terminated, shown.truncated))
    alone = jnp.zeros_like(before)
    if terminated.ndim == truncated.ndim == 0:
        return dataclasses.replace(
            shown, terminated=terminated, truncated=truncated, alive=given, truncated_alone=alone
        )
    cut = before & truncated & ~terminated
    staying = given & ~(terminated | truncated)
    over = ~jnp.any(staying)
    terminated = over & ~jnp.any(cut)
    return dataclasses.replace(
        shown,
        terminated=terminated,
        truncated=over & ~terminated,
        alive=jnp.where(over, jnp.where(terminated, before, cut), staying),
        truncated_alone=cut & ~over,
    )


@dataclass(frozen=True)
class Game:
    """An environment as a learner sees it.

    What is promised and how it is seen holds for every environment; ``reset``, ``step``,
    ``trace`` and ``varies`` are of JAX environments only, whose dynamics can be compiled.

    Attributes:
        env: the JAX environment, or a Python environment, which is stepped elsewhere.
        central: what z is: nothing, the environment's state, or the joint observation.
        reward: the rewards that learners get, individual or common; transitions keep the
            environment's own rewards.
        joint: the team appears as one agent that sees everything and chooses joint actions.
        bounds: how the numbers in learners' actions become legal, ``clip`` or ``tanh``.
        preprocessing: what becomes of observations before agents see them.
    """

    env: Environment | PythonEnvFactory
    central: Central = "none"
    reward: Reward = "individual"
    joint: bool = False
    bounds: Bounds = "clip"
    preprocessing: Preprocessing = UNCHANGED

    def __post_init__(self) -> None:
        self.env.spec()  # asked here, before anything of it is traced

    @property
    def players(self) -> EnvSpec:
        """The environment's own agents, whose rewards are reported."""
        return self.env.spec()

    @property
    def spec(self) -> EnvSpec:
        """The agents that learn."""
        return self.team.spec if self.joint else self.observers

    @cached_property
    def observers(self) -> EnvSpec:
        """The environment's own agents, with what they see after preprocessing."""
        return self.preprocessing.spec(self.players)

    @cached_property
    def team(self) -> JointView:
        """How the environment's agents appear as one."""
        return JointView(self.observers)

    def own_actions(self, actions: Actions) -> Int[Array, "*S R"] | Float[Array, "*S R Q"]:
        """The actions of the environment's own agents, from those of the agents that learn.

        Those of the learners are in units in which finite bounds are ±1, and have no bounds.
        """
        own = self.team.split(actions) if self.joint else actions
        if not self.players.actions:
            return own
        return ActionVectors(self.players.actions, self.bounds).to_env(own)

    @property
    def central_size(self) -> int:
        spec = self.observers
        sizes = {
            "none": 0,
            "state": spec.central_size,
            "joint": spec.n_agents * spec.observation_size,
        }
        return sizes[self.central]

    @property
    def central_space(self) -> ObservationSpace:
        """Of z."""
        if self.players.observations and self.central == "joint":
            return joint_space(self.observers)
        return ObservationSpace(((max(self.central_size, 1),),))

    @property
    def central_dtype(self) -> type[np.generic]:
        return self.central_space.dtype

    @property
    def jax_env(self) -> Environment:
        """The environment, where it is compiled."""
        assert isinstance(self.env, Environment)
        return self.env

    @cached_property
    def no_conflict(self) -> bool | None:
        """Whether all agents prefer the same joint actions, as far as rewards of their own go; None
        where the environment has no payoff table to tell it from."""
        table = self.env.payoff_table() if isinstance(self.env, Environment) else None
        return None if table is None else no_conflict(table)

    @property
    def mortal(self) -> bool:
        """Whether agents can leave before the episode ends; of Python environments that is open."""
        return isinstance(self.env, PythonEnvFactory) or self.varies[1]

    @property
    def truncates_alone(self) -> bool:
        """Whether an agent truncated while others go on keeps its bootstrap.

        Under a common reward it is to the team as if it had died.
        """
        if self.reward != "individual" or self.joint:
            return False
        return isinstance(self.env, PythonEnvFactory) or self._shapes[1].truncated.ndim > 0

    def reset(self, key: PRNGKey) -> tuple[GameState, TimeStep]:
        state, shown = self.jax_env.reset(key)
        self._check(shown)
        no, t = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        everybody = jnp.ones(self.players.n_agents, bool)
        begun = ends_of(dataclasses.replace(shown, terminated=no, truncated=no), everybody)
        alive = begun.alive if self.mortal else None
        first, frames = self._complete(begun, None)
        return GameState(state, t, alive, frames), first.onward()  # no step led to a start

    def step(self, key: PRNGKey, state: GameState, actions: Actions) -> tuple[GameState, TimeStep]:
        """One step; at the time limit an episode that is not over is truncated."""
        return self.step_env(key, state, self.own_actions(actions))

    def step_env(
        self, key: PRNGKey, state: GameState, actions: Actions
    ) -> tuple[GameState, TimeStep]:
        """``step``, given the actions of the environment's own agents."""
        env_state, next_step = self.jax_env.step(key, state.env, actions)
        t = state.t + 1
        everybody = jnp.ones(self.players.n_agents, bool)
        before = everybody if state.alive is None else state.alive
        self._check(next_step)
        next_step = ends_of(next_step, before)
        shown, frames = self._complete(next_step, state.frames)
        if self.players.time_limit is not None:
            cut = (t >= self.players.time_limit) | shown.truncated
            shown = dataclasses.replace(shown, truncated=cut & ~shown.terminated)
        if not self.mortal:
            return GameState(env_state, t, None, frames), shown
        # Rewards of dead agents count for the team, but they need not be numbers.
        counts = before | jnp.isfinite(shown.rewards)
        shown = dataclasses.replace(shown, rewards=jnp.where(counts, shown.rewards, 0.0))
        return GameState(env_state, t, next_step.alive, frames), shown

    def trace(self) -> None:
        """Goes through a reset and a step without computing: wrong shapes are found here."""

        def both(key: PRNGKey) -> Any:
            reset_key, step_key = jax.random.split(key)
            state, _ = self.reset(reset_key)
            actions = jnp.zeros(self.spec.action_shape, self.spec.action_dtype)
            return self.step(step_key, state, actions)

        jax.eval_shape(both, jax.eval_shape(lambda: jax.random.key(0)))

    @cached_property
    def varies(self) -> tuple[bool, bool]:
        """Whether action masks, and alive flags, ever differ from one step to another."""
        masks = any(x.action_mask is not None for x in self._shapes)
        alive = any(x.alive is not None for x in self._shapes)
        flags = any(x.terminated.ndim + x.truncated.ndim for x in self._shapes)
        return masks or (self.joint and (alive or flags)), alive or flags

    @cached_property
    def reports(self) -> tuple[str, ...]:
        """Names of the numbers that a JAX environment reports of its episodes (``info``)."""
        if isinstance(self.env, PythonEnvFactory):
            return ()
        return tuple(self._shapes[1].info or ())

    @cached_property
    def _shapes(self) -> tuple[TimeStep, TimeStep]:
        """The shapes of what a JAX environment shows after a reset and after a step."""

        def step(key: PRNGKey, state: Any) -> TimeStep:
            actions = jnp.zeros(self.players.action_shape, self.players.action_dtype)
            return self.jax_env.step(key, state, actions)[1]

        key = jax.eval_shape(lambda: jax.random.key(0))
        state, first = jax.eval_shape(self.jax_env.reset, key)
        # A step that raises says so where it is taken, not in a reset.
        with contextlib.suppress(Exception):
            return first, jax.eval_shape(step, key, state)
        return first, first

    def _check(self, shown: TimeStep) -> None:
        """UsageError where a shape is not that of the spec."""
        n = self.players.n_agents
        for word, array, sizes in (
            ("rewards", shown.rewards, ((n,),)),
            ("alive", shown.alive, ((n,),)),
            ("terminated", shown.terminated, ((), (n,))),
            ("truncated", shown.truncated, ((), (n,))),
        ):
            if array is not None and jnp.shape(array) not in sizes:
                wanted = " or ".join(map(str, sizes))
                raise UsageError(f"{word} must have shape {wanted}; got {jnp.shape(array)}")
        for name, number in (shown.info or {}).items():
            if jnp.shape(number) != ():
                raise UsageError(f"info {name} must be one number; got shape {jnp.shape(number)}")

    def _complete(
        self, shown: TimeStep, frames: Num[Array, "K R P"] | None
    ) -> tuple[TimeStep, Num[Array, "K R P"] | None]:
        """Pads observations to [N, O] and fills in masks and z; ends are those of ``ends_of``.

        Args:
            frames: those before; None at the start of an episode.

        Returns: the completed step, and the frames to remember.
        """
        spec = self.players
        available = jnp.asarray(spec.available_actions)
        observations = laid_out(shown.observations, spec)
        size = (spec.n_agents, spec.observation_size)
        if observations.shape != size:
            raise UsageError(f"observations must have shape {size}; got {observations.shape}")
        mask = shown.action_mask
        if mask is None:
            mask = available
        elif mask.shape != available.shape:
            raise UsageError(
                f"action_mask must be {available.shape} [N, A]; got {mask.shape}{_layout(spec)}"
            )
        observations, frames = self.look(observations, shown.alive, frames)
        given = (observations, mask & available, shown.alive, shown.central)
        seen, alone = self.see(*given), shown.truncated_alone
        final = self.final(*given, alone) if self.truncates_alone else None
        step = TimeStep(
            observations=seen.observations,
            rewards=jnp.asarray(shown.rewards, jnp.float32),
            terminated=shown.terminated,
            truncated=shown.truncated,
            action_mask=seen.action_mask,
            alive=seen.alive,
            central=seen.central,
            truncated_alone=None if final is None else alone,
            final=final,
            info={k: jnp.asarray(x, jnp.float32) for k, x in (shown.info or {}).items()} or None,
        )
        return step, frames

    def look(
        self,
        observations: Num[Array, "*S R _"],
        alive: Bool[Array, "*S R"] | None,
        frames: Num[Array, "*S K R P"] | None,
        start: Bool[Array, "*S"] | None = None,
    ) -> tuple[Num[Array, "*S R O"], Num[Array, "*S K R P"] | None]:
        """Observations as agents see them (``see``), from what the environment shows, padded; and
        the frames to remember (``Preprocessing.look``)."""
        return self.preprocessing.look(self.players, observations, alive, frames, start)

    def see(
        self,
        observations: Num[Array, "*S R O"],
        action_mask: Bool[Array, "*S R A"],
        alive: Bool[Array, "*S R"],
        central: Num[Array, "*S _"] | None,
    ) -> Observation:
        """What the agents that learn see of what is padded and complete, with any leading axes.

        Args:
            observations: as ``look`` gives them.
            central: the environment's state, where it offers one.
        """
        if self.mortal:
            observations = jnp.where(alive[..., None], observations, 0)
            action_mask = usable(action_mask, alive, bool(self.players.actions))
        z = self._central(observations, central)
        if self.joint:
            observations = self.team.observe(observations)
            action_mask = self.team.mask(action_mask)
            alive = jnp.any(alive, axis=-1, keepdims=True)
        return Observation(observations, action_mask, alive, z)

    def final(
        self,
        observations: Num[Array, "*S N O"],
        action_mask: Bool[Array, "*S N A"],
        alive: Bool[Array, "*S N"],
        central: Num[Array, "*S _"] | None,
        truncated_alone: Bool[Array, "*S N"],
    ) -> Observation:
        """The next observation: as ``see``, but who was truncated alone still sees its final one.

        Where z is the joint observation there is one for each agent, [..., N, Z]: those that were
        truncated alone see each other's last moment, too, all others do not see them any more.
        """
        onward = self.see(observations, action_mask, alive, central)
        last = self.see(observations, action_mask, alive | truncated_alone, central)
        z = onward.central
        if self.central == "joint":
            alone = truncated_alone[..., None]
            z = jnp.where(alone, last.central[..., None, :], z[..., None, :])
        return Observation(last.observations, last.action_mask, alive, z)

    def _central(
        self, observations: Num[Array, "*S R O"], state: Num[Array, "*S _"] | None
    ) -> Num[Array, "*S Z"]:
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


def usable(
    mask: Bool[Array, "*S N A"], alive: Bool[Array, "*S N"], vectors: bool = False
) -> Bool[Array, "*S N A"]:
    """The mask, of action 0 alone for agents that are not alive.

    Args:
        vectors: actions are vectors; then agents that are not alive have no flag set.
    """
    left = False if vectors else jnp.arange(mask.shape[-1]) == 0
    return jnp.where(alive[..., None], mask, left)


def _layout(spec: EnvSpec) -> str:
    """What the flags of an action mask are, where that is not plain."""
    if not spec.actions:
        return ""
    return " (a flag for every alternative of every choice, then one for every number)"


def laid_out(observations: Any, spec: EnvSpec) -> Num[Array, "N O"]:
    """Observations flat, [N, O]: unequal vectors (a tuple) are padded with zeros, images and
    several arrays laid out one after the other; [N, O] unchanged."""
    space = spec.observation_space
    if space is not None:
        return flat(observations, space, spec.n_agents)
    if isinstance(observations, tuple):
        width = spec.observation_size
        rows = [jnp.pad(jnp.asarray(o, jnp.float32), (0, width - o.shape[0])) for o in observations]
        return jnp.stack(rows)
    return jnp.asarray(observations, jnp.float32)
