"""Environments of Jumanji, by the names it registers: https://github.com/instadeepai/jumanji."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from coterie.envs.base import Environment
from coterie.jax_envs.figures import drawn
from coterie.jax_envs.jumanji_suites import ACTIONS, BOARDS, SUITES, Suite, encoded
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

_PARTS = {"generator": "generator", "reward_fn": "reward", "reward_function": "reward"}
"""Arguments that are objects, chosen by the names of their classes, and the modules of those."""
_OBJECTS = {*_PARTS, "viewer", "done_function", "target_dynamics", "observation"}
_MASKED_BY_CHOICE = {"JobShop"}
"""Environments whose mask has a row for each choice; others' masks are of joint actions."""
_DRAWN_FROM_JAX_ARRAYS = {"Maze", "Minesweeper", "PacMan", "Tetris"}
_UNIT_SQUARE = {"MMST"}
"""Environments whose viewers update arrays of JAX, or leave the limits of what they draw open."""


def names() -> tuple[str, ...]:
    """All environments that Jumanji registers."""
    return tuple(sorted(_package().registered_environments()))


def make(name: str, options: dict[str, Any]) -> Environment:
    """The environment that Jumanji registers under a name, as a team; of one agent for most.

    Args:
        options: numbers and words for its constructor and its generator; ``generator`` and
            ``reward_fn`` take names of Jumanji's own classes.

    Raises:
        UsageError: unknown name or option, or Jumanji refuses them.
    """
    package = _package()
    check_name("jumanji", name, names())
    full, kind = f"jumanji:{name}", getattr(package.environments, name.partition("-")[0])
    takes = keywords(kind)
    words = {option: _classes(kind, option) for option in _PARTS if option in takes}
    takes = {option: usual for option, usual in takes.items() if option not in _OBJECTS}
    given: dict[str, Any] = {}
    for option, value in options.items():
        if option in words:
            given[option] = chosen(full, option, value, words[option])
        elif option in takes:
            given[option] = fitting(full, option, value, takes[option])
    others = {option: value for option, value in options.items() if option not in given}
    maker = given.pop("generator", None)
    given |= {option: part() for option, part in given.items() if option in words}
    with quietly(), in_a_sentence(full, options):
        if others or (maker and inspect.signature(maker).parameters):
            usual = _generator_of(package.make(name, **given))
            maker = maker or type(usual)
            own = {} if usual is None else _settings(maker, usual)
            plain = {option: value for option, value in own.items() if _is_plain(value)}
            check_options(full, others, [*takes, *words, *plain])
            own |= {option: fitting(full, option, others[option], plain[option])
                    for option in others}  # fmt: skip
            given["generator"] = maker(**own)
        elif maker:
            given["generator"] = maker()
        return JumanjiEnvironment(name, package.make(name, **given))


def _package() -> Any:
    package = imported("jumanji", "jumanji")
    imported("jumanji", "jumanji.environments")
    ignore_warnings_of("jumanji", "esquilax")
    return package


class JumanjiEnvironment(Environment):
    """A Jumanji environment for Coterie's learners.

    A discount of 0 at the last step is a termination, another one a truncation. Jumanji keeps its
    randomness in its states, so ``step`` leaves the key that it is given unused.
    """

    def __init__(self, name: str, inner: Any) -> None:
        kind = name.partition("-")[0]
        self.inner, self.kind, self.suite = inner, kind, SUITES.get(kind)
        shape = inner.action_spec.shape
        n = shape[0] if self.suite else 1
        self.agents = tuple(f"agent_{i}" for i in range(n))
        key = jax.eval_shape(lambda: jax.random.key(0))
        state, first = jax.eval_shape(inner.reset, key)
        self._masked = hasattr(first.observation, "action_mask")
        self._common = first.reward.ndim == 0
        self._mask_shape: tuple[int, ...] = (
            first.observation.action_mask.shape if self._masked else ()
        )
        seen = jax.eval_shape(self._observe, first.observation)
        central = jax.eval_shape(self._central, state, seen)
        self._spec = EnvSpec(
            agents=self.agents,
            actions=self._action_spaces(),
            time_limit=getattr(inner, "time_limit", None),
            central_size=0 if central is None else central.shape[0],
            reward="mean" if self._common else "individual",
            **_observed(seen),
        )

    def spec(self) -> EnvSpec:
        return self._spec

    def reset(self, key: PRNGKey) -> tuple[Any, TimeStep]:
        state, step = self.inner.reset(key)
        return state, self._shown(state, step)

    def step(self, key: PRNGKey, state: Any, actions: Actions) -> tuple[Any, TimeStep]:
        del key
        state, step = self.inner.step(state, self._own_actions(actions))
        return state, self._shown(state, step)

    def action_names(self) -> tuple[tuple[str, ...], ...]:
        if self.kind in ACTIONS:
            return (ACTIONS[self.kind],) * len(self.agents)
        if counts := self._joint_choices:
            return (tuple(" ".join(map(str, choice)) for choice in np.ndindex(*counts)),)
        return super().action_names()

    def picture(self, state: Any) -> UInt8[np.ndarray, "H W 3"]:
        from matplotlib.pyplot import axis

        def draw() -> None:
            as_jax = self.kind in _DRAWN_FROM_JAX_ARRAYS
            self.inner.render(jax.tree.map(jnp.asarray, state) if as_jax else state)
            if self.kind in _UNIT_SQUARE:
                axis((0, 1, 0, 1))

        return drawn(draw)

    def _shown(self, state: Any, step: Any) -> TimeStep:
        n, seen = len(self.agents), self._observe(step.observation)
        ended, nothing = step.last(), step.discount == 0
        if self.suite and self.suite.leave:
            terminated, truncated = nothing, ended & ~nothing
        else:
            terminated = ended & jnp.all(nothing)
            truncated = ended & ~terminated
        mask = step.observation.action_mask.reshape(n, -1) if self._masked else None
        return TimeStep(
            observations=seen if self._spec.observations else seen[0],
            rewards=jnp.broadcast_to(step.reward, (n,)).astype(jnp.float32),
            terminated=terminated,
            truncated=truncated,
            action_mask=mask,
            alive=self.suite.alive(state) if self.suite and self.suite.alive else None,
            central=self._central(state, seen),
            info={name: x for name, x in step.extras.items() if jnp.ndim(x) == 0} or None,
        )

    def _observe(self, observation: Any) -> tuple[Float[Array, "N ..."], ...]:
        """What agents see: each image, then all else as one vector."""
        n, suite = len(self.agents), self.suite or Suite()
        replaced = suite.view(observation, n) if suite.view else {}
        images, rows = [], []
        for field, name, x, spec in _leaves(observation, self.inner.observation_spec):
            if field == "action_mask" or field in suite.hidden:
                continue
            x = replaced[field] if field in replaced else encoded(name, x, spec)
            if field in suite.turned:
                x = x[(jnp.arange(n)[:, None] + jnp.arange(n)) % n]
            elif field not in (*suite.own, *replaced):
                x = jnp.broadcast_to(x, (n, *x.shape))
            x = x.astype(jnp.float32)
            image = field in BOARDS and x.ndim in (3, 4)
            images += [x] if image else []
            rows += [] if image else [x.reshape(n, -1)]
        vector = jnp.concatenate(rows, axis=1) if rows else jnp.zeros((n, 0))
        return (*images, vector) if vector.shape[1] else tuple(images)

    def _central(
        self, state: Any, seen: tuple[Float[Array, "N ..."], ...]
    ) -> Float[Array, " Z"] | None:
        if self.suite is None:
            return None
        whole = self.suite.state
        parts = whole(self.inner, state) if whole else [x[0] for x in seen]
        return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in parts])

    @property
    def _joint_choices(self) -> tuple[int, ...]:
        """The numbers of alternatives of a single agent's choices, where the mask is of their
        combinations, each of which is then an action; else none."""
        own = self.inner.action_spec
        several = not self.suite and np.ndim(getattr(own, "num_values", 0)) == 1
        if not several or not self._masked or self.kind in _MASKED_BY_CHOICE:
            return ()
        return tuple(np.asarray(own.num_values).tolist())

    def _action_spaces(self) -> tuple[ActionSpace, ...]:
        own, n = self.inner.action_spec, len(self.agents)
        if not jnp.issubdtype(own.dtype, jnp.integer):
            shape = own.shape if self.suite else (1, *own.shape)
            bounds = (np.broadcast_to(x, shape).reshape(n, -1) for x in (own.minimum, own.maximum))
            pairs = zip(*(bound.tolist() for bound in bounds), strict=True)
            return tuple(ActionSpace(low=tuple(low), high=tuple(high)) for low, high in pairs)
        if self.suite:
            # Of MultiCVRP the bounds name one action more than there is.
            counts = [self._mask_shape[-1]] * n if self._masked else own.num_values
            return tuple(ActionSpace((int(count),)) for count in np.asarray(counts))
        if counts := self._joint_choices:
            return (ActionSpace((math.prod(counts),)),)
        return (ActionSpace(tuple(np.ravel(own.num_values).tolist())),)

    def _own_actions(self, actions: Actions) -> Array:
        own = self.inner.action_spec
        if self.suite is None:
            actions = actions[0]
            if counts := self._joint_choices:
                actions = jnp.stack(jnp.unravel_index(actions, counts))
        return actions.astype(own.dtype)


def _observed(seen: tuple[Any, ...]) -> dict[str, Any]:
    """The part of an ``EnvSpec`` about observations, of their shapes [N, ...]."""
    n = seen[0].shape[0]
    if len(seen) == 1 and seen[0].ndim == 2:
        return {"observation_sizes": (seen[0].shape[1],) * n}
    shapes = tuple(x.shape[1:] for x in seen)
    return {"observations": (ObservationSpace(shapes, ("float32",) * len(shapes)),) * n}


def _leaves(value: Any, spec: Any, top: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """The arrays of an observation: the field that each stands in, its name, itself, its spec."""
    fields = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]
    for name in fields:
        inner, own = getattr(value, name), spec[name]
        if hasattr(own, "shape"):
            yield top or name, name, jnp.asarray(inner), own
        else:
            yield from _leaves(inner, own, top or name)


# Options -----------------------------------------------------------------------------------------


def _classes(kind: type, option: str) -> dict[str, type]:
    """The classes of Jumanji's that an option can name: rewards need no arguments."""
    module = importlib.import_module(f"{kind.__module__.rpartition('.')[0]}.{_PARTS[option]}")
    return {
        name: each
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__.startswith(module.__name__) and not inspect.isabstract(each)
        if option == "generator" or not _required(each)
    }


def _required(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def _generator_of(env: Any) -> Any:
    return getattr(env, "generator", None) or getattr(env, "_generator", None)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _settings(maker: type, usual: Any) -> dict[str, Any]:
    """What a generator is made with, unless told otherwise: as the usual one of the environment,
    which keeps its arguments under their names."""
    found = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        value = getattr(usual, name, getattr(usual, f"_{name}", parameter.default))
        if value is not parameter.empty:
            found[name] = value
    return found
