"""Episodes in a Python environment that renders itself, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from coterie.envs.scene import Scene, of_pixels
from coterie.errors import NoPictures
from coterie.python_envs.adapters.environment import PythonEnv
from coterie.python_envs.adapters.rendering import headless
from coterie.python_envs.bookkeeping import FILM, episode_seed
from coterie.python_envs.evaluate import make_choose
from coterie.python_envs.other_python import RemoteEnv
from coterie.python_envs.process import within
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.worker import OPENING
from coterie.runs.config import python_env_of
from coterie.runs.run import Run
from coterie.spec import PythonEnvFactory, TimeStep
from coterie.types import PRNGKey, PyTree


class Moment(NamedTuple):
    """What an episode is at one step: drawn, what was done to get there, and what that brought."""

    scene: Scene
    actions: tuple[str, ...]
    rewards: np.ndarray
    step: TimeStep


class RenderedPlayer:
    """One team in one environment in this process, or in one of another Python; a context that
    closes it.

    Args:
        policy: of the one team, [...].
        drawn: whether to render; episodes are the same without.

    Raises:
        NoPictures: the environment cannot render.
        EnvironmentFault: it fails.
    """

    def __init__(self, run: Run, policy: PyTree, greedy: bool, drawn: bool = True) -> None:
        assert isinstance(run.game.env, PythonEnvFactory)
        self.factory, self.game, self.greedy, self.drawn = run.game.env, run.game, greedy, drawn
        self.policy = jax.tree.map(lambda x: x[None], policy)
        self.seconds = (python_env_of(run.config) or PythonEnvSettings()).step_timeout
        self._choose = make_choose(run.game)

    def __enter__(self) -> RenderedPlayer:
        with ExitStack() as stack:
            stack.enter_context(headless())
            with within(self.seconds + OPENING, self.factory.name):
                self.env = self._make()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        with self._open, within(self.seconds, self.factory.name):
            self.env.close()

    @property
    def fps(self) -> float | None:
        """Frames a second that the environment names."""
        return self.env.frames_a_second()

    def episode(self, seed: int, number: int, key: PRNGKey) -> Iterator[Moment]:
        """One episode, from its first to its final state.

        Args:
            seed, number: they give the seed of the environment's reset.
            key: of sampling.
        """
        env = self.env
        with within(self.seconds, self.factory.name):
            step = env.reset(episode_seed(FILM, seed, number))
        yield Moment(self._draw(), (), np.zeros(env.spec.n_agents), step)
        remembered = jax.vmap(lambda p: p.initial_hidden_state(1), out_axes=1)(self.policy), None
        t = 0
        while not (step.terminated or step.truncated):
            seen = (step.observations, step.action_mask, step.alive)
            flags = np.array([[t == 0]]), np.array([[not self.greedy]])
            actions, remembered = self._choose(
                self.policy, remembered, *(np.asarray(x)[None, None] for x in seen), *flags,
                key[None], np.uint32(t),
            )  # fmt: skip
            chosen, alive = np.asarray(actions)[0, 0], np.asarray(step.alive)
            with within(self.seconds, self.factory.name):
                step = env.step(chosen)
            words = zip(env.in_words(chosen), alive, strict=True)
            did = tuple(word if acted else "–" for word, acted in words)
            yield Moment(self._draw(), did, np.asarray(step.rewards, np.float64), step)
            t += 1

    def _make(self) -> PythonEnv | RemoteEnv:
        if not self.drawn:
            return self.factory.make()
        try:
            if self.factory.make_rendering is None:
                raise NoPictures("it has no pictures")
            env = self.factory.make_rendering()
        except NoPictures as error:
            raise NoPictures(f"{self.factory.name} cannot be watched: {error}") from error
        if env.spec != self.factory.promise:
            env.close()
            raise NoPictures(
                f"{self.factory.name} cannot be watched: made to render, it has other agents, "
                "observations or actions"
            )
        return env

    def _draw(self) -> Scene:
        if not self.drawn:
            return Scene((), 1, 1)
        try:
            with within(self.seconds, self.factory.name):
                pixels = self.env.frame()
        except NoPictures as error:
            raise NoPictures(f"{self.factory.name} cannot be watched: {error}") from error
        return of_pixels(pixels)
