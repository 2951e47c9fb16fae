"""The first number that is not finite, found in the iteration that made it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from coterie.errors import NotFinite
from coterie.learners.contract import Algorithm
from coterie.ops.observations import finite as all_finite
from coterie.types import PyTree, Transition
from coterie.views.game import Game


class FiniteChecks(eqx.Module):
    """Where one iteration of one seed met a number that is not finite.

    Attributes:
        observations, rewards: of which agents.
        central, parameters: of z, of any network.
        losses: of each, by name in alphabetical order.
    """

    observations: Bool[Array, "*S N"]
    central: Bool[Array, "*S"]
    rewards: Bool[Array, "*S R"]
    losses: Bool[Array, "*S M"]
    parameters: Bool[Array, "*S"]


def passed(algorithm: Algorithm, game: Game) -> FiniteChecks:
    """What ``check_finite`` says where every check passes."""
    no = jnp.zeros((), bool)
    return FiniteChecks(
        observations=jnp.zeros(game.spec.n_agents, bool),
        central=no,
        rewards=jnp.zeros(game.players.n_agents, bool),
        losses=jnp.zeros(len(algorithm.metrics), bool),
        parameters=no,
    )


def check_finite(
    algorithm: Algorithm,
    game: Game,
    rollout: Transition,
    losses: dict[str, Array],
    parameters: PyTree,
) -> FiniteChecks:
    """Looks at all that an iteration saw, and at what it learned.

    A gradient that is not finite makes a parameter that is not, in the same update; biases stand
    for all of them. Those of dead agents have been made finite before (``views.game``).
    """
    space, central = game.spec.observation_space, finite((rollout.central, rollout.next_central))
    if space is None:
        seen = rollout.observations + rollout.next_observations
        sound = jnp.all(jnp.isfinite(seen), axis=-1)
    else:
        sound = all_finite(rollout.observations, space) & all_finite(
            rollout.next_observations, space
        )
        if game.central == "joint":
            z = all_finite(rollout.central, game.central_space)
            after = all_finite(rollout.next_central, game.central_space)
            central = jnp.all(z) & jnp.all(after)
    return FiniteChecks(
        observations=jnp.any(~sound, axis=(0, 1)),
        central=~central,
        rewards=jnp.any(~jnp.isfinite(rollout.rewards), axis=(0, 1)),
        losses=~jnp.isfinite(jnp.stack([losses[name] for name in sorted(algorithm.metrics)])),
        # One small operation on all of them: there are few numbers, and many layers.
        parameters=jnp.any(~jnp.isfinite(jnp.concatenate(_biases(parameters)))),
    )


def _biases(parameters: PyTree) -> list[Float[Array, " _"]]:
    """The biases of all layers, or everything where there are none.

    They are few, and what is wrong with a layer's outputs is in the gradient of its bias. What
    they do not show, a sum that overflows in a weight alone, is found at the end of the chunk.
    """
    paths = [
        (jax.tree_util.keystr(path), x.ravel())
        for path, x in jax.tree_util.tree_leaves_with_path(parameters)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return [x for path, x in paths if "bias" in path] or [x for _, x in paths]


def finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point number in a tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    if not leaves:
        return jnp.ones((), bool)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def any_failed(checks: FiniteChecks) -> Bool[Array, ""]:
    """Whether any check failed, in any seed."""
    return jnp.any(jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(checks)]))


def without_replay(learner: PyTree) -> PyTree:
    """A learner without its replay, by far the largest part of it, if it has one."""
    if not hasattr(learner, "replay"):
        return learner
    return eqx.tree_at(lambda part: part.replay, learner, None)


def failure(
    algorithm: Algorithm, game: Game, checks: FiniteChecks, learner: PyTree, step: int
) -> NotFinite:
    """The first thing wrong, in the order in which one follows from another.

    Args:
        checks, learner: of all seeds [S, ...].
        step: of every seed.
    """
    checks = jax.tree.map(np.asarray, checks)
    flags = np.stack([x.reshape(len(x), -1).any(1) for x in jax.tree.leaves(checks)])
    seed = int(flags.any(0).argmax())
    one = jax.tree.map(lambda x: x[seed], checks)
    what = "a number"
    if one.observations.any():
        what = f"the observation of {_names(game.spec.agents, one.observations)}"
    elif one.central:
        what = "the centralised information z"
    elif one.rewards.any():
        what = f"the reward of {_names(game.players.agents, one.rewards)}"
    elif wrong := [n for n, bad in zip(sorted(algorithm.metrics), one.losses, strict=True) if bad]:
        what = "the " + ", the ".join(name.replace("_", " ") for name in wrong)
    else:
        own = jax.tree.map(lambda x: np.asarray(x[seed]), without_replay(learner))
        what = _part(own, game.spec.agents, algorithm.policy(learner).index) or what
    return NotFinite(what, seed, step)


def check_returns(agents: tuple[str, ...], returns: Any, seed: int, step: int) -> None:
    """NotFinite unless all returns [E, R] of an evaluation are finite."""
    bad = ~np.isfinite(returns).all(axis=0)
    if bad.any():
        raise NotFinite(f"the return of {_names(agents, bad)} in an evaluation", seed, step)


def _names(agents: tuple[str, ...], chosen: Any) -> str:
    return ", ".join(agent for agent, bad in zip(agents, chosen, strict=True) if bad)


_PARTS = {
    "optimiser": "the gradient", "moments": "the variance of rewards",
    "so_far": "the discounted sum of rewards", "": "a parameter",
}  # fmt: skip
"""What a part of a learner tells of: Adam's moments are finite as long as gradients are."""


def _part(learner: PyTree, agents: tuple[str, ...], network_of: tuple[int, ...]) -> str | None:
    """What is wrong with one seed's learner, gradients first."""
    found: dict[str, str] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(learner):
        bad = ~np.isfinite(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else np.zeros(1, bool)
        if not bad.any():
            continue
        path = jax.tree_util.keystr(key_path)
        part = next(word for word in _PARTS if word in path)
        owners = ""
        if ".networks" in path:
            ill_networks = np.flatnonzero(bad.reshape(len(bad), -1).any(1))
            owners = f" of {_names(agents, np.isin(network_of, ill_networks))}"
        elif part == "moments" and bad.shape == (len(agents),):
            owners = f" of {_names(agents, bad)}"
        found.setdefault(part, _PARTS[part] + owners)
    return next((found[part] for part in _PARTS if part in found), None)
