"""Films of Python environments: what they render, of the episodes that are played without it."""

import copy
import functools
import io
import os

import equinox as eqx
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from PIL import Image

import coterie
from coterie.cli.entry import main
from coterie.errors import NoPictures
from coterie.networks.per_agent import PerAgent
from coterie.python_envs.adapters.rendering import headless
from coterie.runs.environments import open_environment
from coterie.runs.run import Run
from coterie.show.film.encode import film
from coterie.show.film.recording import record
from coterie.show.film.rendered import RenderedPlayer
from coterie.views.game import Game


class Lamps:
    """Two agents; a lamp shows a number drawn from the seed, in a picture of 20 x 40 pixels."""

    possible_agents = ("left", "right")
    metadata = {"render_fps": 12}  # noqa: RUF012
    open = 0

    def __init__(self, render_mode=None):
        self.render_mode, self.agents = render_mode, []
        Lamps.open += 1

    def observation_space(self, agent):
        return Box(0, 255, (1,))

    def action_space(self, agent):
        return Discrete(3, start=5)

    def reset(self, seed=None, options=None):
        self.rng, self.agents, self.t = np.random.default_rng(seed), [*self.possible_agents], 0
        return self.look(), {a: {} for a in self.agents}

    def step(self, actions):
        assert all(5 <= action < 8 for action in actions.values())
        self.t += 1
        acted, over = self.agents, self.t == 4
        gone = {a: over or (a == "right" and self.t == 2) for a in acted}
        rewards = {a: float(actions[a]) + (a == "right") for a in acted}
        self.agents = [a for a in acted if not gone[a]]
        return self.look(acted), rewards, gone, dict.fromkeys(acted, False), {a: {} for a in acted}

    def look(self, agents=possible_agents):
        self.lamp = int(self.rng.integers(1, 255))
        return {a: np.float32([self.lamp]) for a in agents}

    def render(self):
        assert self.render_mode == "rgb_array"
        assert os.environ["SDL_VIDEODRIVER"] == "dummy"
        return np.full((20, 40, 3), [self.lamp, self.t, 7], np.uint8)

    def close(self):
        Lamps.open -= 1


class Lamp(gymnasium.Env):
    """A single agent; nothing but the attribute says how it renders."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space, action_space = Box(-1, 1, (2,)), Box(-1, 1, (2,))
    shown = np.zeros((8, 8, 3), np.uint8)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, True, False, {}

    def render(self):
        return self.shown if self.render_mode == "rgb_array" else None


class Fussy(Lamp):
    def __init__(self, **kwargs):
        assert not kwargs, "no render modes"


class OldLamp(Lamp):
    """Made for Gym 0.21: the mode is an argument of render, and nothing else is heard."""

    def render(self, mode="human"):
        return self.shown if mode == "rgb_array" else True


class Wrapper(gymnasium.Env):
    """Not of Gymnasium's own: the mode is an attribute of the wrapper, unknown to what it wraps."""

    observation_space, action_space = Lamp.observation_space, Lamp.action_space

    def __init__(self):
        self.inner, self.render_mode = object(), "human"

    @property
    def unwrapped(self):
        return self.inner

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    step, shown, render = Lamp.step, Lamp.shown, Lamp.render


class Broken(Lamp):
    def render(self):
        raise ValueError("no\nscreen")


class Blind(Lamps):
    def __init__(self):
        super().__init__()
        del self.render_mode


def shows(value):
    return type("Other", (Lamp,), {"shown": value})


def a_run(environment):
    """A run as it is opened, its policies untrained."""
    env, name = open_environment(environment, {}, coterie.PythonEnvSettings(workers=0))
    game = Game(env)
    algorithm = coterie.IPPO(hidden=(4,))
    policies = eqx.filter_vmap(lambda key: algorithm.policy(algorithm.init(key, game)))(
        jax.random.split(jax.random.key(1), 2)
    )
    assert isinstance(policies, PerAgent)
    config = {"algorithm": "ippo", "environment": name, "seeds": 2}
    return Run(config, game, {"best": policies, "last": policies}, None, 0, algorithm=algorithm)


def pixels(frame):
    picture, _ = frame.scene.shapes
    return np.asarray(Image.open(io.BytesIO(picture.png)))


def test_frames_are_what_the_environment_renders_beside_actions_and_rewards():
    recording = record(a_run(Lamps), seed=1, episodes=2, episode_seed=3)
    assert recording.fps == 12
    first, second = recording.episodes
    assert [f.end for f in first] == [None] * 4 + ["terminated"]
    assert first[0].actions == ()
    for t, frame in enumerate(first):
        shown = pixels(frame)
        assert shown.shape == (20, 40, 3)
        assert (shown == [shown[0, 0, 0], t, 7]).all()
        assert (frame.scene.width, frame.scene.height) == (40, 20)
        if t:
            assert frame.rewards[0] == int(frame.actions[0]) in (5, 6, 7)
    assert [f.actions[1] == "–" for f in first[1:]] == [False, False, True, True]
    assert [f.rewards[1] for f in first[3:]] == [0, 0]
    assert first[-1].returns == tuple(map(sum, zip(*(f.rewards for f in first), strict=True)))
    lamps = [[pixels(f)[0, 0, 0] for f in frames] for frames in (first, second)]
    assert lamps[0] != lamps[1]
    assert Lamps.open == 0


def test_the_episode_is_the_same_whether_it_is_drawn_or_not():
    run = a_run(Lamps)
    policy = jax.tree.map(lambda x: x[0], run.policies["last"])
    played = []
    for drawn in (True, False):
        with RenderedPlayer(run, policy, greedy=False, drawn=drawn) as player:
            moments = list(player.episode(0, 1, jax.random.key(2)))
        assert (len(moments[0].scene.shapes) > 0) == drawn
        played.append([(m.actions, m.rewards.tolist(), m.step.observations) for m in moments])
    for (*a, seen), (*b, other) in zip(*played, strict=True):
        assert a == b
        np.testing.assert_array_equal(seen, other)


def test_whatever_can_be_made_to_render_is():
    gymnasium.register("Lamp-v0", lambda render_mode=None: Lamp(), max_episode_steps=5)
    made = Lamp()
    for source in ("gymnasium:Lamp-v0", Lamp, made, lambda render_mode=None: Lamp(), Lamps,
                   functools.partial(Lamps, render_mode=None), lambda **more: Lamps(**more),
                   lambda: Lamps(render_mode="rgb_array"), OldLamp, Wrapper):  # fmt: skip
        ((*_, last),) = record(a_run(source)).episodes
        assert pixels(last).ndim == 3, source
    assert made.render_mode is None  # it was copied


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (Fussy, r'made with render_mode="rgb_array" \(AssertionError: no render modes.*; what m'),
        (Broken, r"render\(\) raised ValueError: no"),
        (Blind, "it has no pictures; what makes it must take render_mode="),
        (shows(None), r"render\(\) returned no array; what makes it"),
        (shows(np.zeros((4, 4), np.uint8)), r"render\(\) returned an array \[4, 4\]"),
        (shows(np.zeros((4, 4, 3))), r"render\(\) returned an array of float64"),
    ],
)
def test_what_does_not_render_is_refused_in_one_sentence(source, sentence):
    with pytest.raises(NoPictures, match=f"^.* cannot be watched: .*{sentence}") as refused:
        record(a_run(source))
    assert "docs/reports.md" in str(refused.value)


def test_variables_of_the_process_are_as_before(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.delenv("SDL_AUDIODRIVER", raising=False)
    before = copy.copy(dict(os.environ))
    with headless():
        assert os.environ["SDL_VIDEODRIVER"] == os.environ["SDL_AUDIODRIVER"] == "dummy"
    assert dict(os.environ) == before


def test_films_of_pixels(tmp_path):
    recording = record(a_run(Lamps))
    (*_, last) = recording.episodes[0]
    with Image.open(film(recording, tmp_path / "x.gif")) as gif:
        assert gif.n_frames == 5
        gif.seek(4)
        assert gif.info["duration"] == round(1000 / 12) * 7 // 10 * 10
        shown = np.asarray(gif.convert("RGB")).astype(int)
    near = np.abs(shown - pixels(last)[0, 0]).max(-1) < 4
    assert near.sum() > 0.9 * 520 * 260  # the picture fills its place
    page = film(recording, tmp_path / "x.html").read_text()
    assert page.count("data:image/webp;base64,") == 5
    assert '"fps":12' in page.replace(" ", "")


@pytest.mark.slow
def test_commands_show_what_the_named_environment_renders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "test_watch_python_envs:Lamps"
    train = ["train", "ippo", name, "--steps", "64", "--environments", "2", "--hidden", "4",
             "--evaluations", "1", "--final-episodes", "2", "--workers", "0"]  # fmt: skip
    assert main([*train, "--out", "run"]) == 0
    assert main(["watch", "run"]) == 2
    assert f"give --environment {name}" in capsys.readouterr().err
    assert main(["watch", "run", "--environment", name]) == 0
    assert capsys.readouterr().out == "episode.gif\n"
    assert main(["report", "run"]) == 0
    assert 'class="viewer"' not in (tmp_path / "report.html").read_text()
    assert main(["report", "run", "--environment", "guests:Relay"]) == 2
    assert f"no run has the environment guests:Relay; theirs: {name}" in capsys.readouterr().err
    assert main(["report", "run", "--environment", name]) == 0
    assert 'class="viewer"' in (tmp_path / "report.html").read_text()
