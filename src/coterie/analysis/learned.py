"""What a run learned, read out of it; and what its teams play in a single-shot matrix game."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from coterie.envs.matrix import MatrixGame
from coterie.errors import UsageError
from coterie.games.solution_concepts import Equilibrium, Joint, describe, deviation_gains, plain
from coterie.ops.losses import log_probabilities
from coterie.runs.policy_files import WHICH
from coterie.runs.run import Run
from coterie.types import TimeStep


def single_shot(run: Run) -> MatrixGame:
    """The run's environment, which must be a matrix game of one round."""
    env = run.game.env
    if not isinstance(env, MatrixGame) or env.rounds != 1:
        raise UsageError(
            f"tables of joint actions are read off single-shot matrix games; "
            f"{run.config['environment']} is none"
        )
    return env


def only_view(run: Run) -> TimeStep:
    """What agents see in a game that starts in one state only; z is in ``central``."""
    return run.game.reset(jax.random.key(0))[1]


def policy_outputs(run: Run, which: str = "last") -> Float[np.ndarray, "S N A"]:
    """Each seed's Q-values or logits of every action in a single-shot game.

    Padded to the widest agent; under central learning N = 1 and A is the number of joint actions.
    """
    single_shot(run)
    if which not in WHICH:
        raise UsageError(f"which must be {' or '.join(WHICH)}; got {which!r}")
    seen = only_view(run).observations
    never = jnp.zeros(seen.shape[0], bool)

    def one(policy: Any) -> Any:
        return policy.step(policy.initial_hidden_state(), seen, never)[0]

    return np.asarray(jax.vmap(one)(run.policies[which]))


def joint_deviation_gain(
    payoffs: Float[np.ndarray, "*A n"], joint: Float[np.ndarray, "*A"]
) -> Float[np.ndarray, " n"]:
    """max_{a_i} E[u_i(a_i, a_-i)] - E[u_i(a)] for a ~ ``joint``: what i gains by deviating alone.

    For independent policies it is ``solution_concepts.deviation_gain``; for any other joint policy
    all of it <= 0 makes a coarse correlated equilibrium (book §4.6).
    """
    n = payoffs.shape[-1]
    axes = tuple(range(n))
    gains = []
    for i in range(n):
        others = tuple(j for j in axes if j != i)
        elsewhere = joint.sum(axis=i, keepdims=True)
        alone = (elsewhere * payoffs[..., i]).sum(axis=others)
        gains.append(alone.max() - (joint * payoffs[..., i]).sum())
    return np.asarray(gains)


@dataclass(frozen=True)
class Sampled:
    """A joint policy that is a distribution.

    Attributes:
        probabilities: float [A_1, ..., A_n], of each joint action.
        payoffs: each agent's expected payoff.
        gain: what each agent could gain by deviating alone; the maximum is the eps of the
            eps-equilibrium.
    """

    probabilities: np.ndarray
    payoffs: tuple[float, ...]
    gain: tuple[float, ...]


@dataclass(frozen=True)
class Play:
    """How the team of one seed plays a single-shot game.

    Attributes:
        seed: its number within the run.
        actions: the joint action it plays greedily; where actions tie, the first of them.
        labels: the same, by name.
        payoffs: each agent's payoff there.
        equilibrium: the pure equilibrium that is; None where it is none.
        kind: what kind of equilibrium, in words.
        gain: what each agent could gain by leaving it alone.
        sampled: the policies themselves, where they are distributions.
    """

    seed: int
    actions: Joint
    labels: tuple[str, ...]
    payoffs: tuple[float, ...]
    equilibrium: Equilibrium | None
    kind: str
    gain: tuple[float, ...]
    sampled: Sampled | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it: lists, numbers, strings."""
        return plain(asdict(self))


def learned_play(run: Run, which: str = "last") -> list[Play]:
    """What each seed's team plays in a single-shot matrix game, and what that is worth.

    Evaluated by the payoffs of the game's own agents, whatever reward the learner got.

    Args:
        which: ``last``, or ``best``, which is the best for the team as a whole: in a game of
            conflicting interests hardly what learning leads to.

    Raises:
        UsageError: the run is not on a single-shot matrix game, or ``which`` is unknown.
    """
    env = single_shot(run)
    equilibria = {
        e.actions: e for e in describe(env.payoffs, env.agents, env.action_labels).equilibria
    }
    plays = []
    for seed, outputs in enumerate(policy_outputs(run, which)):
        actions = _greedy(run, outputs)
        found = equilibria.get(actions)
        play = Play(
            seed=seed,
            actions=actions,
            labels=tuple(own[a] for own, a in zip(env.action_labels, actions, strict=True)),
            payoffs=tuple(env.payoffs[actions].tolist()),
            equilibrium=found,
            kind=kind_of(found),
            gain=tuple(deviation_gains(env.payoffs)[actions].tolist()),
            sampled=_sampled(run, env.payoffs, outputs) if run.stochastic else None,
        )
        plays.append(play)
    return plays


def _greedy(run: Run, outputs: Float[np.ndarray, "N A"]) -> Joint:
    best = np.where(run.game.spec.available_actions, outputs, -np.inf).argmax(axis=-1)
    own = run.game.team.table[best[0]] if run.game.joint else best
    return tuple(int(a) for a in own)


def _sampled(
    run: Run, payoffs: Float[np.ndarray, "*A n"], outputs: Float[np.ndarray, "N A"]
) -> Sampled:
    legal = jnp.asarray(run.game.spec.available_actions)
    own = np.exp(np.asarray(log_probabilities(jnp.asarray(outputs), legal), np.float64))
    counts = run.game.spec.action_counts
    policies = [row[:count] / row[:count].sum() for row, count in zip(own, counts, strict=True)]
    joint = functools.reduce(np.multiply.outer, policies).reshape(payoffs.shape[:-1])
    expected = np.tensordot(joint, payoffs, joint.ndim)
    gain = joint_deviation_gain(payoffs, joint)
    return Sampled(joint, tuple(expected.tolist()), tuple(gain.tolist()))


def kind_of(equilibrium: Equilibrium | None) -> str:
    """An outcome in words: "Pareto-optimal, payoff-dominant equilibrium", "no equilibrium"."""
    if equilibrium is None:
        return "no equilibrium"
    words = {
        "weak": not equilibrium.strict,
        "Pareto-optimal": equilibrium.pareto_optimal,
        "Pareto-dominated": not equilibrium.pareto_optimal,
        "payoff-dominant": equilibrium.payoff_dominant,
        "risk-dominant": equilibrium.risk_dominant,
    }
    return ", ".join(word for word, holds in words.items() if holds) + " equilibrium"
