"""What a run learned, read out of it; and what its teams play in a single-shot matrix game."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import coterie.checkpoint as checkpoints
from coterie.algorithms import Algorithm
from coterie.analysis.games import Equilibrium, Joint, describe, deviation_gains, plain
from coterie.envs.matrix import MatrixGame
from coterie.envs.views import View
from coterie.formats import FORMAT, format_of
from coterie.health import without_replay
from coterie.lanes import Lanes, stack
from coterie.ops.losses import log_probabilities
from coterie.policy import WHICH
from coterie.runs import Run, restore
from coterie.tracking import RunDirectory, identity
from coterie.types import PyTree, UsageError


def algorithm_of(run: Run) -> Algorithm:
    """The algorithm a run was trained with, its settings included."""
    return restore(run.config, run.game.env)[0]


def learner(run: Run, seed: int = 0) -> PyTree:
    """What seed number ``seed`` learned with at the end: parameters, targets, reward moments.

    Of a run that was opened from its directory it is that of ``learner.safetensors``, if there is
    one, or of the newest checkpoint.

    Raises:
        UsageError: no such seed.
        CheckpointError: the run has no good checkpoint.
    """
    check_seed(run, seed)
    return jax.tree.map(lambda x: x[seed], _learners(run))


def settle(run: Run) -> None:
    """Drops a complete run's checkpoints, replay and all, for ``learner.safetensors``.

    Everything can still be read off the run, but it cannot be resumed any more.

    Raises:
        CheckpointError: it has no good checkpoint, or the file cannot be written.
    """
    assert run.path is not None
    directory = RunDirectory(run.path)
    every = _learners(run)
    about = {"run": identity(run.config), "env_steps": run.steps}
    checkpoints.write_tree(directory.learner, every, about)
    checkpoints.drop(run.path)


def _learners(run: Run) -> PyTree:
    """What all seeds learned with, [S, ...], without replay."""
    if run.learner is None:
        assert run.path is not None
        seeds, kept = run.config["seeds"], RunDirectory(run.path).learner
        lanes = 1 if kept.is_file() else run.config["lanes"]
        like = Lanes(algorithm_of(run), run.game, seeds, count=lanes).template()
        former = format_of(run.config) < FORMAT
        if kept.is_file():
            read = read_former if former else checkpoints.read_tree
            learner, meta = read(kept, without_replay(like[0].learner))
            if meta.get("run") != identity(run.config):
                raise checkpoints.CheckpointError(f"{kept} is of another run")
            run.learner = learner
        elif former:
            learners = tuple({"learner": without_replay(state.learner)} for state in like)
            parts = _newest(run, learners, read_former)
            run.learner = stack([part["learner"] for part in parts])
        else:
            states = _newest(run, like, checkpoints.read_tree)
            run.learner = stack([without_replay(state.learner) for state in states])
    return run.learner


Read = Callable[[Path, PyTree], tuple[PyTree, dict[str, Any]]]


def _newest(run: Run, like: PyTree, read: Read) -> PyTree:
    """The tree of the run's newest good checkpoint."""
    assert run.path is not None
    name = identity(run.config)

    def object_to(_: int, meta: dict[str, Any]) -> str | None:
        return None if meta.get("run") == name else "is of another run"

    return checkpoints.latest(run.path, like, object_to=object_to, read=read).tree


def read_former(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The leaves of ``like`` from a file of a former format, which may hold others beside them.

    What was one number of a learner and is one for each agent now is repeated for each agent.

    Raises:
        CheckpointMismatch: a leaf of ``like`` is not there, or has a shape that cannot be repeated.
    """
    arrays, meta = checkpoints.read_arrays(path)

    def leaf(key_path: Any, wanted: Any) -> Any:
        if not hasattr(wanted, "shape"):
            return wanted
        found = arrays.get(checkpoints.leaf_name(key_path))
        if found is None or found.shape != wanted.shape[: found.ndim]:
            raise checkpoints.CheckpointMismatch(
                f"{path} is of a former version, and {checkpoints.leaf_name(key_path)} cannot be "
                "read from it"
            )
        more = wanted.shape[found.ndim :]
        return np.broadcast_to(found.reshape(found.shape + (1,) * len(more)), wanted.shape)

    return jax.tree_util.tree_map_with_path(leaf, like), meta


def check_seed(run: Run, seed: int) -> None:
    """UsageError unless the run has so many seeds."""
    if not 0 <= seed < run.config["seeds"]:
        raise UsageError(f"this run has seeds 0 to {run.config['seeds'] - 1}; got {seed}")


def single_shot(run: Run) -> MatrixGame:
    """The run's environment, which must be a matrix game of one round."""
    env = run.game.env
    if not isinstance(env, MatrixGame) or env.rounds != 1:
        raise UsageError(
            f"tables of joint actions are read off single-shot matrix games; "
            f"{run.config['environment']} is none"
        )
    return env


def only_view(run: Run) -> View:
    """What agents see in a game that starts in one state only; z is in ``central``."""
    return run.game.reset(jax.random.key(0))[1]


def action_scores(run: Run, which: str = "last") -> Float[np.ndarray, "S N A"]:
    """Each seed's scores of every action in a single-shot game: utilities, or logits.

    Padded to the widest agent; under central learning N = 1 and A is the number of joint actions.
    """
    single_shot(run)
    if which not in WHICH:
        raise UsageError(f"which must be {' or '.join(WHICH)}; got {which!r}")
    seen = only_view(run).observations
    never = jnp.zeros(seen.shape[0], bool)

    def one(policy: Any) -> Any:
        return policy.step(policy.initial_memory(), seen, never)[0]

    return np.asarray(jax.vmap(one)(run.policies[which]))


def joint_deviation_gain(
    payoffs: Float[np.ndarray, "*A n"], joint: Float[np.ndarray, "*A"]
) -> Float[np.ndarray, " n"]:
    """max_{a_i} E[u_i(a_i, a_-i)] - E[u_i(a)] for a ~ ``joint``: what i gains by deviating alone.

    For independent policies it is ``games.deviation_gain``; for any other joint policy all of it
    <= 0 makes a coarse correlated equilibrium (book §4.6).
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
        actions: the joint action it plays greedily; where scores tie, the first of them.
        labels: the same, by name.
        payoffs: what each agent is paid there.
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

    Judged by the payoffs of the game's own agents, whatever reward the learner was paid.

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
    for seed, scores in enumerate(action_scores(run, which)):
        actions = _greedy(run, scores)
        found = equilibria.get(actions)
        play = Play(
            seed=seed,
            actions=actions,
            labels=tuple(own[a] for own, a in zip(env.action_labels, actions, strict=True)),
            payoffs=tuple(env.payoffs[actions].tolist()),
            equilibrium=found,
            kind=kind_of(found),
            gain=tuple(deviation_gains(env.payoffs)[actions].tolist()),
            sampled=_sampled(run, env.payoffs, scores) if run.stochastic else None,
        )
        plays.append(play)
    return plays


def _greedy(run: Run, scores: Float[np.ndarray, "N A"]) -> Joint:
    best = np.where(run.game.spec.available_actions, scores, -np.inf).argmax(axis=-1)
    own = run.game.team.table[best[0]] if run.game.joint else best
    return tuple(int(a) for a in own)


def _sampled(
    run: Run, payoffs: Float[np.ndarray, "*A n"], scores: Float[np.ndarray, "N A"]
) -> Sampled:
    legal = jnp.asarray(run.game.spec.available_actions)
    own = np.exp(np.asarray(log_probabilities(jnp.asarray(scores), legal), np.float64))
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
