"""Episodes of a trained team, step by step: what films and pages play."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array

from coterie.envs.base import Environment
from coterie.envs.scene import Scene, compact, of_pixels, union
from coterie.errors import NoPictures, UsageError
from coterie.networks.per_agent import PerAgent
from coterie.policies.acting import act, noise
from coterie.runs.run import Run
from coterie.show.film.rendered import Moment, RenderedPlayer
from coterie.types import PRNGKey

FPS, MOST_FPS = 4.0, 50.0
"""Frames a second of a film, usual and at most."""
MAX_STEPS = 2000
"""An episode is not followed any longer."""

End = Literal["terminated", "truncated", "cut"]


@dataclass(frozen=True)
class Frame:
    """One state of an episode, and what led to it.

    Attributes:
        scene: the state, drawn.
        actions: what each agent did to get there, in words; empty at the start.
        rewards: each agent's, of that step.
        returns: the sum of each agent's rewards so far, undiscounted.
        end: how the episode ended here, if it did; ``cut`` where it was followed no longer.
    """

    scene: Scene
    actions: tuple[str, ...]
    rewards: tuple[float, ...]
    returns: tuple[float, ...]
    end: End | None = None


@dataclass(frozen=True)
class Recording:
    """Episodes of one team.

    Attributes:
        title: who plays what.
        agents: names, in the order of everything kept by agent.
        episodes: frames from the start to the final state.
        fps: environment steps shown in a second, unless others are asked for.
    """

    title: str
    agents: tuple[str, ...]
    episodes: tuple[tuple[Frame, ...], ...]
    fps: float = FPS

    @cached_property
    def view(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) that shows every frame of all episodes."""
        return union([frame.scene for frames in self.episodes for frame in frames])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able and small: a shape is said once, however many frames it stays in.

        Frames are ``[shape numbers, actions, rewards, returns, end]``, rewards to five digits.
        """
        shapes: dict[str, int] = {}
        table: list[list[Any]] = []

        def number(shape: Any) -> int:
            row = compact(shape)
            if (known := shapes.setdefault(repr(row), len(table))) == len(table):
                table.append(row)
            return known

        episodes = [
            [
                [
                    [number(shape) for shape in frame.scene.shapes],
                    list(frame.actions),
                    [_digits(r) for r in frame.rewards],
                    [_digits(r) for r in frame.returns],
                    frame.end,
                ]
                for frame in frames
            ]
            for frames in self.episodes
        ]
        return {
            "title": self.title,
            "agents": list(self.agents),
            "view": [_digits(x) for x in self.view],
            "shapes": table,
            "episodes": episodes,
        }


def _digits(x: float) -> float:
    return float(f"{x:.5g}")


def record(
    run: Run,
    seed: int = 0,
    which: str | None = None,
    episodes: int = 1,
    greedy: bool | None = None,
    episode_seed: int = 0,
    told: Callable[[int], Any] = lambda count: None,
) -> Recording:
    """Episodes that one trained team plays in the environment it was trained in.

    Args:
        seed: which team, counted from 0.
        which: its ``best`` policy or its ``last``; ``Run.which`` unless given.
        greedy: play the likeliest or most valued actions; stochastic policies are sampled unless
            this is True.
        episode_seed: of the starts.
        told: called at every frame with how many there are so far.

    Raises:
        UsageError: there is no such team, or it cannot be drawn from.
        NoPictures: the environment has none.
    """
    which = which or run.which
    greedy = not run.stochastic if greedy is None else greedy
    if which not in run.policies:
        raise UsageError(f"which must be {' or '.join(run.policies)}; got {which!r}")
    seeds = run.config["seeds"]
    if not 0 <= seed < seeds:
        raise UsageError(f"the run has teams 0 to {seeds - 1}; there is no team {seed}")
    if episodes < 1:
        raise UsageError(f"episodes must be at least 1; got {episodes}")
    if not greedy and not run.stochastic:
        raise UsageError(
            f"{run.config['algorithm']} acts by Q-values, so there is nothing to sample"
        )
    policy = jax.tree.map(lambda x: x[seed], run.policies[which])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(episode_seed), 0xF11A), episodes)
    fps = FPS
    if isinstance(run.game.env, Environment):
        player = _Player(run, policy, greedy)
        played = _played((player.episode(key) for key in keys), told)
    else:
        with RenderedPlayer(run, policy, greedy) as rendered:
            fps = min(rendered.fps or FPS, MOST_FPS)
            starts = ((episode_seed, k, key) for k, key in enumerate(keys))
            played = _played((_frames(rendered.episode(*start)) for start in starts), told)
    trained = run.policy_steps.get(which)
    steps = trained[seed] if trained else None
    of_step = "" if steps is None else f" of step {steps:,}"
    title = f"{run.config['algorithm']} on {run.config['environment']}, team {seed}, {which} policy"
    manner = "greedy" if greedy else "sampled"
    return Recording(f"{title}{of_step}, {manner}", run.game.players.agents, played, fps)


def _played(
    episodes: Iterable[Iterator[Frame]], told: Callable[[int], Any]
) -> tuple[tuple[Frame, ...], ...]:
    numbers = itertools.count(1)

    def counted(frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            told(next(numbers))
            yield frame

    return tuple(tuple(counted(frames)) for frames in episodes)


def _frames(moments: Iterator[Moment]) -> Iterator[Frame]:
    """The frames of an episode in a Python environment."""
    returns: Any = 0.0
    for t, (scene, actions, rewards, step) in enumerate(moments):
        returns = returns + rewards
        end = _end(step, t)
        yield Frame(scene, actions, tuple(rewards.tolist()), tuple(returns.tolist()), end)
        if end:
            return


def _end(step: Any, steps: int) -> End | None:
    if bool(step.terminated):
        return "terminated"
    if bool(step.truncated):
        return "truncated"
    return "cut" if steps == MAX_STEPS else None


class _Player:
    """Plays episodes on the host, one compiled step at a time."""

    def __init__(self, run: Run, policy: PerAgent, greedy: bool):
        self.game, self.policy, self.greedy = run.game, policy, greedy
        self.name = run.config["environment"]
        self._advance = jax.jit(self._step)
        self._reset = jax.jit(run.game.reset)

    def _step(self, state: Any, shown: Any, hidden_state: Array, key: PRNGKey) -> tuple[Any, ...]:
        """One step: state, view, hidden state, and the actions of the environment's own agents."""
        act_key, step_key = jax.random.split(key)
        n = self.game.spec.n_agents
        drawn = None if self.greedy else noise(act_key, (), n, self.policy.vectors)
        actions, hidden_state, _ = act(
            self.policy, hidden_state, shown.observations, shown.action_mask, drawn
        )
        state, shown = self.game.step(step_key, state, actions)
        return state, shown, hidden_state, self.game.own_actions(actions)

    def episode(self, key: PRNGKey) -> Iterator[Frame]:
        """The frames of one episode; the last one is its final state."""
        reset_key, play_key = jax.random.split(key)
        state, shown = self._reset(reset_key)
        hidden_state = self.policy.initial_hidden_state()
        returns = np.zeros(self.game.players.n_agents)
        nothing = (0.0,) * len(returns)
        yield Frame(self._draw(state, None), (), nothing, nothing)
        for t in range(MAX_STEPS):
            state, shown, hidden_state, actions = self._advance(
                state, shown, hidden_state, jax.random.fold_in(play_key, t)
            )
            chosen = np.asarray(actions).tolist()
            rewards = np.asarray(shown.rewards, np.float64)
            returns = returns + rewards
            end = _end(shown, t + 1)
            words = self.game.jax_env.in_words(actions)
            scene = self._draw(state, chosen)
            yield Frame(scene, words, tuple(rewards.tolist()), tuple(returns.tolist()), end)
            if end:
                return

    def _draw(self, state: Any, actions: list[Any] | None) -> Scene:
        env, own = self.game.jax_env, jax.device_get(state.env)
        scene = env.scene(own, actions)
        if scene is None and (given := env.picture(own)) is not None:
            pixels = np.asarray(given)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise NoPictures(
                    f"{self.name} cannot be watched: its picture must be an array "
                    f"[height, width, 3] of uint8; it is {list(pixels.shape)} of {pixels.dtype}"
                )
            scene = of_pixels(pixels)
        if scene is None:
            raise NoPictures(
                f"{self.name} cannot be watched: it has no pictures (its class needs a method "
                "scene or picture, see docs/reports.md)"
            )
        return scene
