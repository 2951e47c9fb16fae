"""What is executed: the actors alone, saved as plain arrays, loaded as a team that acts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from coterie.errors import UsageError
from coterie.former import former_arguments, former_attribute
from coterie.networks.per_agent import PerAgent
from coterie.ops.action_vectors import ActionVectors
from coterie.policies.acting import act, noise
from coterie.runs.policy_files import (
    default_policy,
    environment_of,
    load_policy,
    preprocessing_of,
)
from coterie.spec import ActionSpace, EnvSpec, ObservationSpace
from coterie.types import PRNGKey
from coterie.views.game import usable
from coterie.views.joint_actions import JointView
from coterie.views.preprocessing import UNCHANGED, Preprocessing


@dataclass(repr=False)
class Team:
    """A trained team, executed decentrally: each agent acts on its own observations.

    Attributes:
        agents: names, in the order of lists of observations and actions.
        policy: the networks.
        joint: the team was trained by central learning: one policy sees all and acts for all.
        stochastic: the policies are distributions, from which actions can be sampled.
        actions: the agents' action spaces, where not all of them are single choices.
        seen: the agents' observation spaces, where they are no vectors.
        preprocessing: what becomes of observations before the policy sees them.
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
    actions: tuple[ActionSpace, ...] = ()
    seen: tuple[ObservationSpace, ...] = ()
    preprocessing: Preprocessing = UNCHANGED

    def __repr__(self) -> str:
        steps = "" if self.env_steps is None else f" of step {self.env_steps:,}"
        return f"Team({', '.join(self.agents)}; {self.which or 'its own'} policies{steps})"

    def __post_init__(self) -> None:
        self._spec = EnvSpec(
            self.agents,
            self.observation_sizes,
            self.action_counts,
            actions=self.actions,
            observations=self.seen,
        )
        self._act = jax.jit(self._choose)

    def initial_hidden_state(self) -> Any:
        """Hidden state before the first observation; give it anew at every episode's start.

        An array [N, H]; where agents see several observations at once, ``Remembered``.
        """
        hidden_state = self.policy.initial_hidden_state()
        frames = self.preprocessing.no_frames(self._spec)
        if frames is None:
            return hidden_state
        return Remembered(hidden_state, frames, jnp.zeros((), bool))

    initial_memory = former_attribute("initial_memory", "initial_hidden_state")

    @former_arguments(memory="hidden_state")
    def act(
        self,
        observations: Any,
        hidden_state: Any,
        action_masks: Any = None,
        key: PRNGKey | None = None,
    ) -> tuple[Any, Any]:
        """One action for each agent: the likeliest or most valued one, unless a key is given.

        Without a key stochastic policies play their arg max too. That need not be as good as the
        sampled play by which they are evaluated first: an arg max can walk in circles.

        Args:
            observations: one vector per agent, as a list or as a dict by agent name; where agents
                observe an image, the image; where several arrays, a tuple or dict of them. None
                for an agent that is no longer in the episode.
            hidden_state: what the last call returned, or ``initial_hidden_state()``.
            action_masks: legal actions per agent in the same form; all are legal without it. Of an
                agent that decides several choices a flag for every alternative of each, one choice
                after the other; of one that decides numbers alone, or is not in the episode, None
                or no entry of the dict.
            key: sample the actions of stochastic policies with this key of ``jax.random``.

        Returns:
            the actions in the form of the observations (list, or dict), and the hidden state after
            them. An action is an int; where agents decide several things it is a float32 vector of
            choices, counted from 0, and then of numbers within their bounds. That of an agent that
            is not in the episode is None.
        """
        if self.preprocessing.frame_stack > 1 and not isinstance(hidden_state, Remembered):
            raise UsageError(
                "this team remembers its last observations: give the hidden state that the last "
                "call returned, or initial_hidden_state()"
            )
        named = isinstance(observations, Mapping)
        padded, alive = self._observed(observations)
        masks = self._masks(action_masks, alive)
        if key is not None and not self.stochastic:
            raise UsageError(
                "this team acts by Q-values, so there is nothing to sample: give no key"
            )
        actions, hidden_state = self._act(hidden_state, padded, masks, alive, key)
        if self.actions:
            sizes = [space.size for space in self.actions]
            chosen = [row[:k] for row, k in zip(np.asarray(actions), sizes, strict=True)]
        else:
            chosen = np.asarray(actions).tolist()
        chosen = [action if there else None for action, there in zip(chosen, alive, strict=True)]
        return (dict(zip(self.agents, chosen, strict=True)) if named else chosen), hidden_state

    def _observed(self, observations: Any) -> tuple[np.ndarray, np.ndarray]:
        """[N, O] what the environment showed, flat, and [N] to whom: zeros to the others."""
        each = self._each(observations, "observations")
        alive = np.array([row is not None for row in each])
        padded = np.zeros(
            (len(self.agents), self._spec.observation_size), self._spec.observation_dtype
        )
        if self.seen:
            for row, own, space in zip(padded, each, self.seen, strict=True):
                if own is not None:
                    row[:] = _flat(own, space)
            return padded, alive
        rows = [
            np.zeros(k, np.float32) if row is None else np.asarray(row, np.float32)
            for row, k in zip(each, self.observation_sizes, strict=True)
        ]
        sizes = [row.shape[-1] if row.ndim == 1 else row.shape for row in rows]
        if tuple(sizes) != self.observation_sizes:
            raise UsageError(
                f"observations must have sizes {list(self.observation_sizes)}; got {sizes}"
            )
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        return padded, alive

    def _masks(self, given: Any, alive: np.ndarray) -> np.ndarray:
        """bool [N, A]: what is legal of what the agents have."""
        masks = self._spec.available_actions
        if given is None:
            return masks
        alternatives = [sum(space.choices) for space in self.actions] or self.action_counts
        none = [a for a, k in zip(self.agents, alternatives, strict=True) if not k]
        optional = [*none, *(a for a, there in zip(self.agents, alive, strict=True) if not there)]
        each = zip(self.agents, self._each(given, "action_masks", optional), strict=True)
        rows = [
            None if row is None and agent in optional else np.asarray(row, np.float32)
            for agent, row in each
        ]
        for agent, row in zip(self.agents, rows, strict=True):
            if agent in none and row is not None:
                raise UsageError(
                    f"agent {agent} has no choices, so there is nothing to mask: give None for it "
                    "in action_masks"
                )
        if any(
            row is not None and row.shape != (k,) for row, k in zip(rows, alternatives, strict=True)
        ):
            sizes = [k or None for k in alternatives]
            raise UsageError(f"action_masks must have sizes {sizes}")
        for row, own in zip(rows, masks, strict=True):
            if row is not None:
                own[: len(row)] = row
        return masks

    def _each(self, given: Any, word: str, optional: Sequence[str] = ()) -> Any:
        """What is given for each agent, in their order; None for optional ones left out."""
        if isinstance(given, Mapping):
            missing = [a for a in self.agents if a not in given and a not in optional]
            if missing:
                raise UsageError(f"{word} lack {', '.join(missing)}")
            given = [given.get(a) for a in self.agents]
        if not isinstance(given, Sequence | np.ndarray | jax.Array) or len(given) != len(
            self.agents
        ):
            what = "observation" if self.seen and word == "observations" else "vector"
            raise UsageError(f"{word} must hold one {what} for each of {', '.join(self.agents)}")
        return given

    def _choose(
        self, hidden_state: Any, observations: Any, mask: Any, alive: Any, key: Any
    ) -> tuple[Array, Any]:
        n = len(self.policy.index)
        frames = start = None
        stacked = isinstance(hidden_state, Remembered)
        if stacked:
            hidden_state, frames, begun = hidden_state
            start = ~begun
        observations, frames = self.preprocessing.look(
            self._spec, observations, alive, frames, start
        )
        observations = jnp.where(alive[:, None], observations, 0)
        mask = usable(mask, alive, bool(self._spec.actions))
        team = JointView(self.preprocessing.spec(self._spec)) if self.joint else None
        if team:
            observations, mask = team.observe(observations), team.mask(mask)
        vectors = self.policy.vectors
        drawn = None if key is None else noise(key, (), n, vectors)
        actions, hidden_state, _ = act(self.policy, hidden_state, observations, mask, drawn)
        own = team.split(actions) if team else actions
        if vectors is not None:
            own = ActionVectors(self.actions, vectors.bounds).to_env(own)
        if stacked:
            return own, Remembered(hidden_state, frames, jnp.ones((), bool))
        return own, hidden_state


class Remembered(NamedTuple):
    """The hidden state of a team whose agents see several observations at once.

    Attributes:
        hidden_state: of the networks, [N, H].
        frames: the last ones, as ``views.preprocessing.Preprocessing.look`` gives them.
        begun: whether the episode has begun.
    """

    hidden_state: Any
    frames: Any
    begun: Any


def _flat(own: Any, space: ObservationSpace) -> np.ndarray:
    """One agent's observation, an array or several, laid out flat."""
    if space.names:
        if not isinstance(own, Mapping) or not {*space.names} <= {*own}:
            found = ", ".join(map(str, own)) if isinstance(own, Mapping) else type(own).__name__
            raise UsageError(
                f"an agent's observation must be a dict with {', '.join(space.names)}; got {found}"
            )
        own = tuple(own[name] for name in space.names)
    elif isinstance(own, Mapping):
        raise UsageError(
            f"an agent's observation must be {space}, and its mask, if it has one, be given in "
            f"action_masks; got a dict with {', '.join(map(str, own))}"
        )
    given = [_numbers(x) for x in (own if isinstance(own, tuple) else (own,))]
    if tuple(x.shape for x in given) != space.shapes:
        shapes = ", ".join(str(x.shape) for x in given)
        raise UsageError(f"an agent's observation must be {space}; got shape {shapes}")
    for x, dtype in zip(given, space.dtypes, strict=True):
        if dtype == "uint8" and (x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255):
            raise UsageError(f"images must be of whole numbers from 0 to 255; got {x.dtype}")
    parts = [x.astype(dtype) for x, dtype in zip(given, space.dtypes, strict=True)]
    return np.concatenate([np.ascontiguousarray(x).view(space.dtype).ravel() for x in parts])


def _numbers(given: Any) -> np.ndarray:
    with contextlib.suppress(ValueError, TypeError):
        found = np.asarray(given)
        if found.dtype.kind in "biuf":
            return found
    raise UsageError(f"an agent's observation must be arrays of numbers; got {given!r:.40}")


def load(
    run: str | Path,
    seed: int = 0,
    which: str | None = None,
    *,
    torso: Any = None,
    head: Any = None,
) -> Team:
    """The team that a run trained: ``coterie.load("runs/vdn-lbf", seed=0, which="best")``.

    Args:
        which: ``best`` by evaluation or ``last``; best unless given, or last where the agents'
            interests conflict.
        torso, head: those of the run; needed where they are networks of the user's own.
    """
    which = which or default_policy(Path(run))
    policy, d = load_policy(Path(run), seed, which, {"torso": torso, "head": head})
    spec = environment_of(d)
    return Team(
        agents=spec.agents,
        observation_sizes=spec.observation_sizes,
        action_counts=spec.action_counts,
        actions=spec.actions,
        seen=spec.observations,
        preprocessing=preprocessing_of(d),
        policy=policy,
        joint=d["joint"],
        stochastic=d["stochastic"],
        which=which,
        env_steps=d["env_steps"],
    )
