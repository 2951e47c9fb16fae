"""Environments of JaxMARL by name, ``jaxmarl:NAME``: one class, and what differs in ``SUITES``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from coterie.envs.base import Environment
from coterie.envs.scene import Scene
from coterie.jax_envs.jaxmarl_pictures import scene_of
from coterie.jax_envs.jaxmarl_suites import SUITES, Suite
from coterie.jax_envs.making import (
    check_name,
    check_options,
    chosen,
    fitting,
    ignore_warnings_of,
    imported,
    in_a_sentence,
    keywords,
    quietly,
)
from coterie.spec import ActionSpace, EnvSpec, ObservationSpace
from coterie.types import Actions, PRNGKey, TimeStep


def names() -> tuple[str, ...]:
    """All environments that can be made by name, as JaxMARL calls them."""
    package = _package()
    return tuple(name for suite in SUITES for name, kind in suite.names.items() if kind in package)


def make(name: str, options: dict[str, Any]) -> Environment:
    """The environment that JaxMARL has under this name.

    Args:
        options: keywords of its constructor, as far as they are numbers, words or lists of those;
            what takes an object, as a scenario of SMAX, takes its name.

    Raises:
        UsageError: unknown name or option, or JaxMARL refuses them.
    """
    package = _package()
    suite = next((suite for suite in SUITES if name in suite.names), None)
    if suite is not None and suite.needs and suite.names[name] not in package:
        suite.refuse(name)
    check_name("jaxmarl", name, names())
    assert suite is not None
    full, kind = f"jaxmarl:{name}", package[suite.names[name]]
    known = keywords(kind, *(package[inner] for inner in suite.inner))
    known = {option: value for option, value in known.items() if option not in suite.withheld}
    words = {option: find() for option, find in suite.words.items()}
    check_options(full, options, list(known))
    given = {
        option: chosen(full, option, value, words[option])
        if option in words
        else fitting(full, option, value, known[option])
        for option, value in options.items()
    }
    with quietly(), in_a_sentence(full, options):
        return JaxMARLEnvironment(kind(**(suite.fixed | given)), suite)


def _package() -> dict[str, Any]:
    """What JaxMARL's package of environments holds, by name."""
    package = vars(imported("jaxmarl", "jaxmarl.environments"))
    ignore_warnings_of("jaxmarl", "brax", "mujoco")
    if mujoco := sys.modules.get("mujoco"):  # it would write a file into the current directory
        mujoco.set_mju_user_warning(lambda text: None)
    return package


class JaxMARLEnvironment(Environment):
    """An environment of JaxMARL as Coterie knows one: ends told apart, z, masks, deaths.

    Attributes:
        inner: JaxMARL's own.
    """

    def __init__(self, inner: Any, suite: Suite) -> None:
        self.inner, self.suite = inner, suite
        self.agents = tuple(a if isinstance(a, str) else f"agent_{a}" for a in inner.agents)
        self._state, seen, central = jax.eval_shape(self._start, jax.random.key(0))
        first, *others = observed = [
            tuple(leaf.shape for leaf in jax.tree.leaves(each)) for each in seen
        ]
        self._arrays = all(first == other for other in others) and any(len(s) > 1 for s in first)
        self._actions = tuple(_action_space(inner.action_space(a)) for a in inner.agents)
        space = ObservationSpace(tuple(s or (1,) for s in first), ("float32",) * len(first))
        self._spec = EnvSpec(
            agents=self.agents,
            observations=(space,) * len(self.agents) if self._arrays else (),
            observation_sizes=()
            if self._arrays
            else tuple(sum(int(np.prod(s)) for s in each) for each in observed),
            actions=self._actions,
            central_size=central.shape[0],
            time_limit=suite.time_limit(inner),
            reward=suite.reward(inner),
        )

    def _start(self, key: PRNGKey) -> tuple[Any, list[Any], Array]:
        """The state, what each agent observes, and z."""
        shown, state = self.inner.reset(key)
        seen = self.suite.observations(self.inner, shown)
        return state, seen, self._central(shown, state)

    def spec(self) -> EnvSpec:
        return self._spec

    def reset(self, key: PRNGKey) -> tuple[Any, TimeStep]:
        shown, state = self.inner.reset(key)
        never, nothing = jnp.zeros((), bool), jnp.zeros(len(self.agents))
        return state, self._shown(shown, state, state, nothing, never, never)

    def step(self, key: PRNGKey, state: Any, actions: Actions) -> tuple[Any, TimeStep]:
        inner, suite = self.inner, self.suite
        acts = self._own(actions)
        if suite.idle:
            acts = suite.idle(inner, state, acts)
        shown, after, rewards, dones, _ = inner.step_env(key, state, suite.joined(inner, acts))
        # Their states can come back with other dtypes than they began with, which no loop takes.
        after = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), after, self._state)
        over = suite.over(inner, state, after, acts)
        return after, self._shown(
            shown,
            state,
            after,
            jnp.stack([jnp.asarray(rewards[a], jnp.float32) for a in inner.agents]),
            dones["__all__"] & over,
            dones["__all__"] & ~over,
        )

    def scene(self, state: Any, actions: Sequence[Any] | None = None) -> Scene | None:
        with quietly():
            return scene_of(self.inner, state, actions)

    def _shown(
        self,
        shown: Any,
        before: Any,
        state: Any,
        rewards: Array,
        terminated: Array,
        truncated: Array,
    ) -> TimeStep:
        suite = self.suite
        return TimeStep(
            observations=self._observations(suite.observations(self.inner, shown)),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            action_mask=self._mask(state),
            alive=suite.alive(self.inner, before, state) if suite.alive else None,
            central=self._central(shown, state) if self._spec.central_size else None,
            info={name: find(self.inner, state) for name, find in suite.info.items()} or None,
        )

    def _observations(self, each: Sequence[Any]) -> Any:
        """Of each agent a tree of arrays: stacked, where all have images; vectors otherwise."""
        leaves = [[jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(one)] for one in each]
        if not self._arrays:
            return tuple(jnp.concatenate([x.ravel() for x in own]) for own in leaves)
        stacked = [
            jnp.stack([jnp.atleast_1d(x) for x in arrays]) for arrays in zip(*leaves, strict=True)
        ]
        return tuple(stacked) if len(stacked) > 1 else stacked[0]

    def _mask(self, state: Any) -> Bool[Array, "N A"] | None:
        if self.suite.legal is None or self._spec.actions:
            return None
        legal, width = self.suite.legal(self.inner, state), self._spec.action_count
        rows = [legal[a].astype(bool) for a in self.inner.agents]
        return jnp.stack([jnp.pad(row, (0, width - row.shape[0])) for row in rows])

    def _central(self, shown: Any, state: Any) -> Array:
        if self.suite.central is None:
            return jnp.zeros(0)
        return jnp.asarray(self.suite.central(self.inner, shown, state), jnp.float32).ravel()

    def _own(self, actions: Actions) -> list[Any]:
        """Each agent's action, as its space has it."""
        if not self._spec.actions:
            return list(actions)
        return [
            row[: space.size].astype(jnp.int32 if space.choices else jnp.float32)
            for row, space in zip(actions, self._actions, strict=True)
        ]


def _action_space(space: Any) -> ActionSpace:
    """A space of JaxMARL: ``Discrete``, ``MultiDiscrete`` or ``Box``."""
    if hasattr(space, "n"):
        return ActionSpace(choices=(int(space.n),))
    if hasattr(space, "num_categories"):
        return ActionSpace(choices=tuple(int(k) for k in space.num_categories))
    low, high = (np.broadcast_to(bound, space.shape).ravel() for bound in (space.low, space.high))
    return ActionSpace(low=tuple(low.tolist()), high=tuple(high.tolist()))
