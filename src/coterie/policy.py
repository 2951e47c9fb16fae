"""What is executed: the actors alone, saved as plain arrays, loaded as a team that acts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from coterie.algorithms._base import Algorithm
from coterie.checkpoint import CheckpointError, read_tree, write_tree
from coterie.envs.joint import JointView
from coterie.envs.views import Game
from coterie.files import make_directory, read_sealed
from coterie.networks import ACTIVATIONS, PerAgent
from coterie.ops.exploration import greedy, sample
from coterie.types import EnvSpec, PRNGKey, PyTree, UsageError

FORMAT = "coterie-policy"
WHICH = ("best", "last")
LISTS = {
    "agents": str, "observation_sizes": int, "action_counts": int, "network_of_agent": int,
    "hidden": int,
}  # fmt: skip
WORDS = {"recurrent": bool, "activation": str, "joint": bool, "stochastic": bool, "run": str}
"""What must stand in ``policy.json``: lists and single values, of which kind."""
_GREATEST, _DEEPEST = 2**24, 1000
"""A size, and a number of layers, beyond what is meant."""


def describe(policy: PerAgent, game: Game, algorithm: Algorithm) -> dict[str, Any]:
    """All that is needed beside the arrays to act with them (``policy/policy.json``)."""
    spec = game.players
    return {
        "format": FORMAT,
        "version": 1,
        "algorithm": algorithm.name,
        "agents": list(spec.agents),
        "observation_sizes": list(spec.observation_sizes),
        "action_counts": list(spec.action_counts),
        "network_of_agent": list(policy.index),
        "hidden": list(policy.hidden),
        "recurrent": policy.memory_size > 0,
        "activation": policy.activation,
        "joint": game.joint,
        "stochastic": algorithm.stochastic,
    }


def save_policies(path: Path, which: str, policies: PyTree, run: str, steps: Sequence[int]) -> None:
    """Writes the policies of all seeds [S, ...] to ``policy/seed-<k>/<which>.safetensors``.

    Args:
        path: the run directory.
        run: names the run, so that a file of another one is not taken for its own.
        steps: [S] environment steps that each was trained for.
    """
    arrays = jax.tree.map(np.asarray, policies)
    for k in range(jax.tree.leaves(arrays)[0].shape[0]):
        folder = path / "policy" / f"seed-{k}"
        make_directory(folder, path)
        one = jax.tree.map(lambda x, k=k: x[k], arrays)
        label = _label(which, k, run) | {"env_steps": steps[k]}
        write_tree(folder / f"{which}.safetensors", one, label)


def _label(which: str, seed: int, run: str) -> dict[str, Any]:
    return {"format": FORMAT, "run": run, "seed": seed, "which": which}


def load_policy(run: Path, seed: int, which: str) -> tuple[PerAgent, dict[str, Any]]:
    """The policy of one seed and its description; ``env_steps`` is None in older files.

    Raises:
        UsageError: no run there, no such seed, no such policy.
        CheckpointError: the file is damaged.
    """
    if which not in WHICH:
        raise UsageError(f"which must be one of {', '.join(WHICH)}; got {which!r}")
    d = _description(run)
    path = run / "policy" / f"seed-{seed}" / f"{which}.safetensors"
    if not os.path.lexists(path):
        names = [p.name[5:] for p in (run / "policy").glob("seed-*")]
        have = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
        raise UsageError(f"{run} has no {which} policy of seed {seed}; it has seeds {have}")
    spec = EnvSpec(tuple(d["agents"]), tuple(d["observation_sizes"]), tuple(d["action_counts"]))
    spec = JointView(spec).spec if d["joint"] else spec
    template = eqx.filter_eval_shape(
        PerAgent,
        tuple(d["network_of_agent"]),
        spec.observation_size,
        spec.action_count,
        tuple(d["hidden"]),
        jax.random.key(0),
        d["recurrent"],
        d["activation"],
    )
    policy, label = read_tree(path, template)
    if label | _label(which, seed, d["run"]) != label:
        raise CheckpointError(f"{path} is not the {which} policy of seed {seed} of this run")
    steps = label.get("env_steps")
    if steps is not None and (type(steps) is not int or steps < 0):
        raise CheckpointError(f"{path} is damaged: env_steps is no number of steps")
    return policy, d | {"env_steps": steps}


def _description(run: Path) -> dict[str, Any]:
    """``policy.json``, checked."""
    about = run / "policy" / "policy.json"
    if not os.path.lexists(about):
        raise UsageError(f"{run} holds no policy: is it a run directory that finished a step?")
    d = read_sealed(about)
    known = d.get("default", "best") in WHICH
    if d.get("format") != FORMAT or not d.keys() >= {*LISTS, *WORDS} or not known:
        raise UsageError(f"{about} is not a Coterie policy")
    kinds = all(type(d[name]) is kind for name, kind in WORDS.items()) and all(
        isinstance(d[name], list) and all(type(x) is kind for x in d[name])
        for name, kind in LISTS.items()
    )
    if not kinds or not _fits_together(d):
        raise UsageError(f"{about} is damaged: its agents and networks do not fit together")
    return d


def _fits_together(d: dict[str, Any]) -> bool:
    sizes = (*d["observation_sizes"], *d["action_counts"], *d["hidden"])
    networks = d["network_of_agent"]
    return (
        all(0 < n < _GREATEST for n in sizes)
        and d["activation"] in ACTIVATIONS
        and 0 < len(d["hidden"]) <= _DEEPEST
        and len(networks) == (1 if d["joint"] else len(d["agents"]))
        and sorted(set(networks)) == list(range(len(set(networks))))
    )


@dataclass(repr=False)
class Team:
    """A trained team, executed decentrally: each agent acts on its own observations.

    Attributes:
        agents: names, in the order of lists of observations and actions.
        policy: the networks.
        joint: the team was trained by central learning: one policy sees all and acts for all.
        stochastic: the policies are distributions, from which actions can be sampled.
        which, env_steps: the ``best`` or the ``last`` policies, and the environment steps that
            they were trained for; None where that is not known.
    """

    agents: tuple[str, ...]
    observation_sizes: tuple[int, ...]
    action_counts: tuple[int, ...]
    policy: PerAgent
    joint: bool = False
    stochastic: bool = False
    which: str | None = None
    env_steps: int | None = None

    def __repr__(self) -> str:
        steps = "" if self.env_steps is None else f" of step {self.env_steps:,}"
        return f"Team({', '.join(self.agents)}; {self.which or 'its own'} policies{steps})"

    def __post_init__(self) -> None:
        self._spec = EnvSpec(self.agents, self.observation_sizes, self.action_counts)
        self._act = jax.jit(self._choose)

    def initial_memory(self) -> Float[Array, "N H"]:
        """Memory before the first observation; give it anew at every episode's start."""
        return self.policy.initial_memory()

    def act(
        self,
        observations: Any,
        memory: Any,
        action_masks: Any = None,
        key: PRNGKey | None = None,
    ) -> tuple[Any, Any]:
        """One action for each agent: the likeliest or most valued one, unless a key is given.

        Without a key stochastic policies play their arg max too. That need not be as good as the
        sampled play by which they are evaluated first: an arg max can walk in circles.

        Args:
            observations: one vector per agent, as a list or as a dict by agent name.
            memory: what the last call returned, or ``initial_memory()``.
            action_masks: legal actions per agent in the same form; all are legal without it.
            key: sample the actions of stochastic policies with this key of ``jax.random``.

        Returns:
            the actions in the form of the observations (list of int, or dict), and the memory.
        """
        named = isinstance(observations, Mapping)
        rows = self._rows(observations, "observations")
        sizes = [row.shape[-1] if row.ndim == 1 else row.shape for row in rows]
        if tuple(sizes) != self.observation_sizes:
            raise UsageError(
                f"observations must have sizes {list(self.observation_sizes)}; got {sizes}"
            )
        padded = np.zeros((len(self.agents), self._spec.observation_size), np.float32)
        masks = self._spec.available_actions
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        if action_masks is not None:
            rows = self._rows(action_masks, "action_masks")
            if tuple(row.shape for row in rows) != tuple((k,) for k in self.action_counts):
                raise UsageError(f"action_masks must have sizes {list(self.action_counts)}")
            for i, row in enumerate(rows):
                masks[i, : len(row)] = row
        if key is not None and not self.stochastic:
            raise UsageError("this team acts by values, there is nothing to draw from: no key")
        actions, memory = self._act(memory, padded, masks, key)
        chosen = np.asarray(actions).tolist()
        return (dict(zip(self.agents, chosen, strict=True)) if named else chosen), memory

    def _rows(self, given: Any, word: str) -> list[np.ndarray]:
        if isinstance(given, Mapping):
            missing = [a for a in self.agents if a not in given]
            if missing:
                raise UsageError(f"{word} lack {', '.join(missing)}")
            given = [given[a] for a in self.agents]
        if not isinstance(given, Sequence | np.ndarray | jax.Array) or len(given) != len(
            self.agents
        ):
            raise UsageError(f"{word} must hold one vector for each of {', '.join(self.agents)}")
        return [np.asarray(row, np.float32) for row in given]

    def _choose(self, memory: Any, observations: Any, mask: Any, key: Any) -> tuple[Array, Array]:
        n = len(self.policy.index)
        team = JointView(self._spec) if self.joint else None
        if team:
            observations, mask = team.observe(observations), team.mask(mask)
        scores, memory = self.policy.step(memory, observations, jnp.zeros(n, bool))
        if key is None:
            actions = greedy(scores, mask)
        else:
            actions = sample(scores, mask, jax.random.uniform(key, (n,)))
        return (team.split(actions) if team else actions), memory


def load(run: str | Path, seed: int = 0, which: str | None = None) -> Team:
    """The team that a run trained: ``coterie.load("runs/vdn-lbf", seed=0, which="best")``.

    Args:
        which: ``best`` by evaluation or ``last``; best unless given, or last where the agents'
            interests conflict.
    """
    which = which or default_policy(Path(run))
    policy, d = load_policy(Path(run), seed, which)
    return Team(
        agents=tuple(d["agents"]),
        observation_sizes=tuple(d["observation_sizes"]),
        action_counts=tuple(d["action_counts"]),
        policy=policy,
        joint=d["joint"],
        stochastic=d["stochastic"],
        which=which,
        env_steps=d["env_steps"],
    )


def saved_steps(run: Path, which: str) -> list[int | None]:
    """[S] the environment steps that each seed's saved policy was trained for."""
    seeds = len(list((run / "policy").glob("seed-*")))
    return [load_policy(run, k, which)[1]["env_steps"] for k in range(seeds)]


def default_policy(run: Path) -> str:
    """Which policies of a run directory are played unless asked otherwise."""
    return _description(run).get("default", "best")
