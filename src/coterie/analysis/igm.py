"""What VDN and QMIX learned of a game, and whether agents that act alone act for the team.

The individual-global-max property (lecture, "Individual-Global-Max Property"; Son et al. 2019): the
agents' own greedy actions together are greedy for Q_tot. Monotonicity, ∂Q_tot/∂Q_i ≥ 0, suffices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coterie.analysis.learned import only_view, policy_outputs, single_shot
from coterie.errors import UsageError
from coterie.games import decomposition
from coterie.games.solution_concepts import Joint, plain
from coterie.learners.normalisation import normalised_central
from coterie.learners.value_based import Learner, ValueBased
from coterie.networks.per_agent import PerAgent
from coterie.runs.learner import check_seed, learner
from coterie.runs.run import Run
from coterie.types import PRNGKey
from coterie.views.game import Game
from coterie.views.steps import learner_rewards

JointValue = Callable[[Array, Array], Array]
"""Utilities [..., N] and z [..., Z] to Q_tot [...]."""


@dataclass(frozen=True)
class Decomposition:
    """Learned joint values of a single-shot game beside the true ones; the lecture's tables.

    Values are in the game's own units: where the learner scaled or standardised rewards, that is
    undone, Q -> σ Q + μ, and each utility carries 1/n of μ.

    Attributes:
        rewards: float [A_1, ..., A_n], the true common reward of each joint action.
        utilities: for each agent float [A_i].
        q_tot: float [A_1, ..., A_n], the learned joint value.
        residual: q_tot - rewards.
        mse: its mean square over all joint actions.
        greedy: the joint action of each agent's greatest utility; the first of equals.
    """

    rewards: np.ndarray
    utilities: list[np.ndarray]
    q_tot: np.ndarray
    residual: np.ndarray
    mse: float
    greedy: Joint

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it: lists, numbers."""
        return plain(asdict(self))


def learned_utilities(run: Run, seed: int = 0, which: str = "last") -> list[np.ndarray]:
    """Each agent's utilities Q_i, float [A_i], in a single-shot game, as the networks say them.

    For IDQN, VDN and QMIX. Where rewards were scaled or standardised, these are in those units.

    Raises:
        UsageError: another algorithm, no single-shot matrix game, no such seed or policy.
    """
    _value_based(run)
    check_seed(run, seed)
    outputs = policy_outputs(run, which)[seed].astype(np.float64)
    counts = single_shot(run).payoffs.shape[:-1]
    return [own[:count] for own, count in zip(outputs, counts, strict=True)]


def learned_decomposition(run: Run, seed: int = 0, which: str = "last") -> Decomposition:
    """The tables of one seed of VDN or QMIX on a single-shot matrix game.

    Args:
        which: ``last``, or ``best`` where the joint value is the utilities' alone (VDN): mixers
            are kept as they were at the end only.

    Raises:
        UsageError: another algorithm, no single-shot matrix game, no such seed or policy.
    """
    algorithm = _joint_valued(run)
    learned = learner(run, seed)
    if which == "last":  # a killed run may hold later policies than the checkpoint of its mixer
        own = jax.tree.map(lambda x: x[None], algorithm.policy(learned))
        utilities = learned_utilities(replace(run, policies={"last": own}))
    elif learned.values.mixer is not None:
        raise UsageError(
            f"{algorithm.name}'s mixer is kept as it was at the end: take which='last'"
        )
    else:
        utilities = learned_utilities(run, seed, which)
    view, payoffs = only_view(run), single_shot(run).payoffs
    counts, n = payoffs.shape[:-1], payoffs.shape[-1]
    combined = np.stack(np.meshgrid(*utilities, indexing="ij"), axis=-1)
    z = jnp.broadcast_to(view.central, (*counts, view.central.shape[-1]))
    q = np.asarray(joint_value(algorithm, learned, run.game)(jnp.asarray(combined, jnp.float32), z))
    scale, shift = _units(algorithm, learned)
    q_tot = scale * q.astype(np.float64) + shift
    rewards = np.asarray(learner_rewards(jnp.asarray(payoffs), run.game)[..., 0], np.float64)
    return Decomposition(
        rewards=rewards,
        utilities=[scale * u + shift / n for u in utilities],
        q_tot=q_tot,
        residual=q_tot - rewards,
        mse=decomposition.mse(rewards, q_tot),
        greedy=tuple(int(u.argmax()) for u in utilities),
    )


def joint_value(algorithm: ValueBased, learned: Learner, game: Game) -> JointValue:
    """Q_tot of a learner as a function of utilities and z."""

    def joint(utilities: Array, z: Array) -> Array:
        z = normalised_central(learned.normaliser, game, z)
        return algorithm.joint(learned.values.mixer, utilities, z)[..., 0]

    return joint


def smallest_slope(
    joint: JointValue, utilities: Float[Array, "M N"], central: Float[Array, "M Z"]
) -> float:
    """min over M points and N agents of ∂Q_tot/∂Q_i, by automatic differentiation.

    Not negative for a monotone Q_tot, up to rounding. Points are all it has seen: a slope can be
    negative between them.
    """
    slopes = jax.jit(jax.vmap(jax.grad(joint)))(utilities, central)
    return float(jnp.min(slopes))


def learned_slope(
    run: Run, seed: int = 0, samples: int = 4096, key: PRNGKey | None = None
) -> float:
    """``smallest_slope`` of a trained VDN or QMIX, on any environment.

    z is that of fresh starts of the environment. Utilities are drawn uniformly from three times the
    range of those learned at these starts, so that slopes are seen beyond what was visited too.

    Raises:
        UsageError: another algorithm, no such seed.
    """
    algorithm, learned = _joint_valued(run), learner(run, seed)
    start_key, draw_key = jax.random.split(jax.random.key(0) if key is None else key)
    utilities, central = _around_starts(
        run.game, algorithm.policy(learned), samples, start_key, draw_key
    )
    return smallest_slope(joint_value(algorithm, learned, run.game), utilities, central)


def _around_starts(
    game: Game, policy: PerAgent, samples: int, start_key: PRNGKey, draw_key: PRNGKey
) -> tuple[Float[Array, "M N"], Float[Array, "M Z"]]:
    """Random utilities [M, N] and the z [M, Z] of fresh starts to mix them with."""
    _, shown = jax.jit(jax.vmap(game.reset))(jax.random.split(start_key, samples))
    never = jnp.zeros(shown.observations.shape[:-1], bool)
    outputs, _ = policy.step(policy.initial_hidden_state(samples), shown.observations, never)
    legal = shown.action_mask
    low = jnp.min(jnp.where(legal, outputs, jnp.inf), axis=(0, 2))
    high = jnp.max(jnp.where(legal, outputs, -jnp.inf), axis=(0, 2))
    middle, half = (low + high) / 2, (high - low) / 2
    u = jax.random.uniform(draw_key, (samples, game.spec.n_agents), minval=-3.0, maxval=3.0)
    return middle + half * u, shown.central


@dataclass(frozen=True)
class Verdict:
    """Whether a decomposition serves its purpose, and how good it could have been.

    Attributes:
        igm: every combination of individually greedy actions attains max Q_tot.
        igm_strict: and every joint action that attains it is such a combination.
        monotone: Q_tot is a non-decreasing function of the utilities, on the table.
        smallest_slope: the smallest ∂Q_tot/∂Q_i seen, by automatic differentiation.
        greedy_individual: all joint actions of individually greedy actions.
        greedy_joint: all joint actions that attain max Q_tot.
        optimal: all joint actions of greatest true reward.
        finds_optimum: acting greedily is optimal in the true game.
        mse: of the learned table.
        additive_mse: of the best sum of utilities; no VDN is better under uniform weights.
        monotone_mse: of the best monotone table; no QMIX is better under uniform weights.
    """

    igm: bool
    igm_strict: bool
    monotone: bool
    smallest_slope: float
    greedy_individual: list[Joint]
    greedy_joint: list[Joint]
    optimal: list[Joint]
    finds_optimum: bool
    mse: float
    additive_mse: float
    monotone_mse: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it: lists, numbers."""
        return plain(asdict(self))


def learned_verdict(run: Run, seed: int = 0, which: str = "last", tol: float = 1e-4) -> Verdict:
    """The verdict on ``learned_decomposition``.

    Args:
        tol: joint values this close, as a share of the range of the true rewards, count as equal;
            utilities count as equal only if they are.

    Raises:
        UsageError: as ``learned_decomposition`` and ``decomposition.monotone_fit``.
    """
    found = learned_decomposition(run, seed, which)
    near = tol * max(float(np.ptp(found.rewards)), 1e-12)
    individual = decomposition.greedy_individual(found.utilities)
    optimal = decomposition.greedy_joint(found.rewards)
    return Verdict(
        igm=decomposition.igm_holds(found.utilities, found.q_tot, near),
        igm_strict=decomposition.igm_holds(found.utilities, found.q_tot, near, strict=True),
        monotone=decomposition.is_monotone(found.q_tot, found.utilities, near),
        smallest_slope=learned_slope(run, seed),
        greedy_individual=individual,
        greedy_joint=decomposition.greedy_joint(found.q_tot, near),
        optimal=optimal,
        finds_optimum=set(individual) <= set(optimal),
        mse=found.mse,
        additive_mse=decomposition.additive_fit(found.rewards).mse,
        monotone_mse=decomposition.monotone_fit(found.rewards).mse,
    )


def _value_based(run: Run) -> ValueBased:
    algorithm = run.algorithm
    if not isinstance(algorithm, ValueBased) or algorithm.joint_view:
        raise UsageError(f"{algorithm.name} learns no utilities; idqn, vdn and qmix do")
    return algorithm


def has_joint_value(run: Run) -> bool:
    """Whether the run learned a joint value of its agents' utilities, as VDN and QMIX do.

    One with a loss of its own, such as QTRAN's, need not learn what ``joint`` returns.
    """
    algorithm = run.algorithm
    return (
        isinstance(algorithm, ValueBased)
        and not algorithm.joint_view
        and not algorithm.own_minibatch
        and type(algorithm).loss is ValueBased.loss
    )


def _joint_valued(run: Run) -> ValueBased:
    algorithm = _value_based(run)
    if not has_joint_value(run):
        raise UsageError(f"{algorithm.name} learns no joint value of utilities; vdn and qmix do")
    return algorithm


def _units(algorithm: ValueBased, learned: Learner) -> tuple[float, float]:
    """(σ, μ) of the rewards learned from: what undoes their scaling; (1, 0) without."""
    points = jnp.array([[0.0], [1.0]])
    zero, one = learned.moments.apply(algorithm.reward_scaling, points).ravel().tolist()
    return 1.0 / (one - zero), -zero / (one - zero)
