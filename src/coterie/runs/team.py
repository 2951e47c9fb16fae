"""What is executed: the actors alone, saved as plain arrays, loaded as a team that acts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
from coterie.python_envs.adapters.agent_spaces import AgentSpaces
from coterie.runs.policy_files import (
    default_policy,
    environment_of,
    load_policy,
    preprocessing_of,
    spaces_of,
)
from coterie.runs.team_input import TeamInput
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
        spec: all of that about what agents see and do.
        spaces: the Python environment that the team was trained in, as far as its agents' spaces
            go; None where that is not known, or was a JAX environment.
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
    spaces: AgentSpaces | None = None

    def __repr__(self) -> str:
        steps = "" if self.env_steps is None else f" of step {self.env_steps:,}"
        return f"Team({', '.join(self.agents)}; {self.which or 'its own'} policies{steps})"

    def __post_init__(self) -> None:
        self.spec = EnvSpec(
            self.agents,
            self.observation_sizes,
            self.action_counts,
            actions=self.actions,
            observations=self.seen,
        )
        self._input = TeamInput(self.spec, self.spaces)
        self._act = jax.jit(self._choose)
        self._initial = self._initial_hidden_state()

    def __getitem__(self, agent: str) -> TeamMember:
        """One agent, to act by itself: ``team["archer_0"].act(observation, hidden_state)``.

        Raises:
            UsageError: there is no such agent, or one policy acts for all of them.
        """
        name = self.agents[self._input.place(agent)]
        if self.joint:
            raise UsageError(
                f"{name} cannot act by itself: this team was trained by central learning, and its "
                "one policy sees all agents' observations; use act of the team"
            )
        return TeamMember(self, name)

    def initial_hidden_state(self) -> Any:
        """Hidden state before the first observation; give it anew at every episode's start.

        An array [N, H]; where agents see several observations at once, ``Remembered``.
        """
        return self._initial

    initial_memory = former_attribute("initial_memory", "initial_hidden_state")

    def _initial_hidden_state(self) -> Any:
        hidden_state = self.policy.initial_hidden_state()
        frames = self.preprocessing.no_frames(self.spec)
        if frames is None:
            return hidden_state
        return Remembered(hidden_state, _by_agent(frames), jnp.zeros(len(self.agents), bool))

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
            observations: what the environment shows, as a dict by agent name or as a list with one
                for each agent, or the observation of a single-agent environment itself. An element
                of the agent's space, or it flattened to a vector; a dict with an ``action_mask`` if
                the space has one. Of a team without ``spaces``: a vector, an image, or a tuple or
                dict of arrays. None for an agent that is not in the episode. Agents that a dict
                leaves out do not act, and their hidden state stays as it is.
            hidden_state: what the last call returned, or ``initial_hidden_state()``.
            action_masks: legal actions in the same form, in the place of those that came with the
                observations; all are legal without any. A flag for each action; of an agent that
                decides several choices a flag for every alternative of each, one choice after the
                other, or a tuple of one mask for each choice. None where all is legal. Where
                nothing is, the agent takes its first action.
            key: sample the actions of stochastic policies with this key of ``jax.random``.

        Returns:
            the actions in the form of the observations, and the hidden state after them. An action
            is what the environment takes: of a ``Discrete`` an int, of other spaces an array. Of a
            team without ``spaces`` it is an int, or, where agents decide several things, a float32
            vector of choices, counted from 0, and then of numbers within their bounds. That of an
            agent whose observation is None is None.

        Raises:
            UsageError: an observation, a mask or the hidden state does not fit, an agent is
                unknown, or there is nothing to sample.
        """
        _check_like(hidden_state, self._initial)
        if key is not None and not isinstance(key, jax.Array | np.ndarray):
            raise UsageError(f"key must be one of jax.random.key(...); got {key!r:.60}")
        if key is not None and not self.stochastic:
            raise UsageError(
                "this team acts by Q-values, so there is nothing to sample: give no key"
            )
        given = self._input.read(observations, action_masks)
        turns = self.spaces is not None and self.spaces.convention == "aec"
        if self.joint and turns and not given.named.all():
            raise UsageError(
                "this team was trained by central learning, so its policy sees what all agents "
                "observe: give the observations of all, and None for agents that have left"
            )
        actions, hidden_state = self._act(hidden_state, *given[:4], key)
        chosen = self._input.spaces.actions(np.asarray(actions))
        each = zip(chosen, given.alive, strict=True)
        return given.answer([action if there else None for action, there in each]), hidden_state

    def step(
        self, hidden_state: Any, observations: Any, action_masks: Any, alive: Any
    ) -> tuple[Any, Any]:
        """``act`` without a key, as a pure function of arrays that JAX can trace.

        Args:
            observations: [N, O], flat and padded.
            action_masks: [N, A], legal actions.
            alive: [N], agents that are in the episode.
        """
        named = jnp.ones(len(self.agents), bool)
        return self._choose(hidden_state, observations, action_masks, alive, named, None)

    def _choose(
        self, before: Any, observations: Any, mask: Any, alive: Any, named: Any, key: Any
    ) -> tuple[Array, Any]:
        n, stacked = len(self.policy.index), isinstance(before, Remembered)
        hidden_state = before.hidden_state if stacked else before
        observations, frames = self._look(before if stacked else None, observations, alive)
        observations = jnp.where(alive[:, None], observations, 0)
        mask = usable(mask, alive, bool(self.spec.actions))
        team = JointView(self.preprocessing.spec(self.spec)) if self.joint else None
        if team:
            observations, mask = team.observe(observations), team.mask(mask)
        vectors = self.policy.vectors
        drawn = None if key is None else noise(key, (), n, vectors)
        actions, hidden_state, _ = act(self.policy, hidden_state, observations, mask, drawn)
        own = team.split(actions) if team else actions
        if vectors is not None:
            own = ActionVectors(self.actions, vectors.bounds).to_env(own)
        after = hidden_state
        if stacked:
            after = Remembered(hidden_state, frames, jnp.ones(len(self.agents), bool))
        return own, after if team else jax.tree.map(partial(_of, named), after, before)

    def _look(self, before: Remembered | None, observations: Any, alive: Any) -> tuple[Any, Any]:
        """What agents see, [N, O], and each agent's frames to remember, [N, K - 1, P]."""
        look = partial(self.preprocessing.look, self.spec, observations, alive)
        first, fresh = look()
        if before is None:
            return first, None
        later, kept = look(jnp.moveaxis(before.frames, 0, -2))
        frames = _of(before.begun, _by_agent(kept), _by_agent(fresh))
        return _of(before.begun, later, first), frames


class TeamMember:
    """One agent of a team, acting by itself with a hidden state of its own."""

    def __init__(self, team: Team, agent: str) -> None:
        self._team, self.agent = team, agent
        self._place = team.agents.index(agent)

    def __repr__(self) -> str:
        return f"{self._team!r}[{self.agent!r}]"

    def initial_hidden_state(self) -> Any:
        """Hidden state before the agent's first observation, [H] or ``Remembered``."""
        return jax.tree.map(lambda x: np.asarray(x)[self._place], self._team.initial_hidden_state())

    def act(
        self,
        observation: Any,
        hidden_state: Any,
        action_mask: Any = None,
        key: PRNGKey | None = None,
    ) -> tuple[Any, Any]:
        """The agent's action and its hidden state after it, as ``Team.act`` gives them.

        With the same key it is the same action.
        """
        if observation is None:
            raise UsageError(f"there is no observation of {self.agent} to act on; give one")
        _check_like(hidden_state, self.initial_hidden_state())
        team, i = self._team, self._place
        every = jax.tree.map(partial(_placed, i), team.initial_hidden_state(), hidden_state)
        masks = None if action_mask is None else {self.agent: action_mask}
        actions, every = team.act({self.agent: observation}, every, masks, key)
        return actions[self.agent], jax.tree.map(lambda x: np.asarray(x)[i], every)


def _placed(i: int, every: Any, own: Any) -> np.ndarray:
    """[N, ...] of all agents, with that of agent i in its place."""
    changed = np.array(every)  # on the host: indexing on a device takes longer than acting
    changed[i] = own
    return changed


def _of(which: Any, one: Any, other: Any) -> Array:
    """[N, ...] of ``one`` for these agents, of ``other`` for the rest."""
    return jnp.where(which.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def _by_agent(frames: Any) -> Array:
    """[K - 1, N, P] frames of each agent, [N, K - 1, P]."""
    return jnp.moveaxis(frames, -2, 0)


class Remembered(NamedTuple):
    """The hidden state of a team whose agents see several observations at once.

    Attributes:
        hidden_state: of the networks, [N, H].
        frames: each agent's last K - 1, [N, K - 1, P]; see ``views.preprocessing``.
        begun: [N], whose episode has begun.
    """

    hidden_state: Any
    frames: Any
    begun: Any


def _check_like(hidden_state: Any, expected: Any) -> None:
    """UsageError unless a hidden state has the parts and shapes of what is expected."""
    parts = [jax.tree.flatten(x) for x in (hidden_state, expected)]
    shapes = [[np.shape(leaf) for leaf in leaves] for leaves, _ in parts]
    if parts[0][1] != parts[1][1] or shapes[0] != shapes[1]:
        raise UsageError(
            "the hidden state does not fit: give the one that the last call returned, or, at the "
            "start of an episode, initial_hidden_state()"
        )


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
        spaces=spaces_of(Path(run), d),
        policy=policy,
        joint=d["joint"],
        stochastic=d["stochastic"],
        which=which,
        env_steps=d["env_steps"],
    )
