"""Recordings and films: that what is shown is what was played."""

import itertools
import json
import subprocess
import sys

import equinox as eqx
import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import coterie
from coterie import UsageError, envs
from coterie.cli.entry import main
from coterie.envs.scene import Label, Scene
from coterie.networks.per_agent import PerAgent
from coterie.runs.run import Run
from coterie.runs.team import Team
from coterie.show.film import encode as films
from coterie.show.film import recording as records
from coterie.show.film.encode import film, pictures_of
from coterie.show.film.recording import NoPictures, record
from coterie.show.numbers import two_decimals as number
from coterie.views.game import Game


class Clock(coterie.Environment):
    """Counts to three, pays the time and the right agent's action, and draws the time."""

    agents = ("left", "right")

    def spec(self):
        return coterie.EnvSpec(self.agents, (2, 2), (3, 2), time_limit=10)

    def reset(self, key):
        return jnp.zeros(()), self._show(jnp.zeros(()), jnp.zeros(2))

    def step(self, key, state, actions):
        return state + 1, self._show(state + 1, jnp.stack([state + 1, actions[1] * 1.0]))

    def _show(self, t, rewards):
        seen = jnp.stack([jnp.stack([jnp.sin(3 * t), 1.0]), jnp.stack([jnp.cos(5 * t), 1.0])])
        return coterie.TimeStep(seen, rewards, t >= 3, jnp.array(False))

    def action_names(self):
        return ("stay", "go", "turn"), ("no", "yes")

    def scene(self, state, actions=None):
        text = f"{float(state):.0f} {actions}"
        return Scene((Label(0.5, 0.5, text, 0.2),), 1, 1)


class Endless(Clock):
    def spec(self):
        return coterie.EnvSpec(self.agents, (2, 2), (3, 2))

    def _show(self, t, rewards):
        shown = super()._show(t, rewards)
        return eqx.tree_at(lambda s: s.terminated, shown, jnp.array(False))


class Blind(Clock):
    def scene(self, state, actions=None):
        return None


def a_run(env, name="clock:Clock", seeds=2, joint=False, stochastic=True, recurrent=True):
    """A run as it is opened, its policies untrained."""
    game = Game(env, joint=joint)
    spec = game.spec

    def one(key):
        return PerAgent(
            tuple(range(spec.n_agents)), spec.observation_size, spec.action_count, (8, 8), key,
            recurrent, "tanh",
        )  # fmt: skip

    policies = eqx.filter_vmap(one)(jax.random.split(jax.random.key(7), seeds))
    scaled = jax.tree.map(lambda x: 5 * x if eqx.is_inexact_array(x) else x, policies)
    config = {"algorithm": "mappo", "environment": name, "seeds": seeds}
    algorithm = coterie.MAPPO() if stochastic else coterie.IDQN()
    return Run(config, game, {"best": policies, "last": scaled}, None, 0, algorithm=algorithm)


def test_frames_follow_the_episode_to_its_final_state():
    (frames,) = record(a_run(Clock())).episodes
    assert [f.scene.shapes[0].text.split()[0] for f in frames] == ["0", "1", "2", "3"]
    assert frames[0].scene.shapes[0].text == "0 None"
    assert [f.end for f in frames] == [None, None, None, "terminated"]
    assert frames[0].actions == ()
    assert [f.rewards[0] for f in frames] == [0, 1, 2, 3]
    assert [f.returns[0] for f in frames] == [0, 1, 3, 6]
    for before, after in itertools.pairwise(frames):
        assert after.rewards[1] == {"no": 0, "yes": 1}[after.actions[1]]
        assert after.returns[1] == before.returns[1] + after.rewards[1]


@pytest.mark.parametrize("which", ["best", "last"])
def test_every_team_plays_as_it_does_when_it_is_loaded(which):
    run = a_run(Clock(), seeds=4)
    played = set()
    for seed in range(4):
        policy = jax.tree.map(lambda x, k=seed: x[k], run.policies[which])
        team = Team(("left", "right"), (2, 2), (3, 2), policy, stochastic=True)
        hidden_state, expected = team.initial_hidden_state(), []
        for t in range(3):
            shown = Clock()._show(jnp.asarray(float(t)), jnp.zeros(2))
            chosen, hidden_state = team.act(list(shown.observations), hidden_state)
            expected.append(
                tuple(own[a] for own, a in zip(Clock().action_names(), chosen, strict=True))
            )
        (frames,) = record(run, seed=seed, which=which, greedy=True).episodes
        assert [f.actions for f in frames[1:]] == expected
        played.add(tuple(expected))
    assert len(played) > 1


def test_a_central_learner_is_shown_by_its_agents():
    recording = record(a_run(Clock(), joint=True))
    assert recording.agents == ("left", "right")
    assert all(len(f.actions) == 2 for f in recording.episodes[0][1:])


def test_sampling_differs_between_episodes_and_repeats_with_its_seed():
    run = a_run(Clock())
    drawn = record(run, episodes=12)
    played = {tuple(f.actions for f in frames) for frames in drawn.episodes}
    assert len(played) > 3
    assert record(run, greedy=False, episodes=12).episodes == drawn.episodes
    assert record(run, greedy=False, episodes=12, episode_seed=1).episodes != drawn.episodes
    greedy = record(run, greedy=True, episodes=4)
    assert len({tuple(f.actions for f in frames) for frames in greedy.episodes}) == 1


def test_an_endless_episode_is_followed_so_far(monkeypatch):
    monkeypatch.setattr(records, "MAX_STEPS", 5)
    (frames,) = record(a_run(Endless())).episodes
    assert len(frames) == 6
    assert frames[-1].end == "cut"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"seed": 2}, "the run has teams 0 to 1; there is no team 2"),
        ({"seed": -1}, "there is no team -1"),
        ({"which": "first"}, "which must be best or last; got 'first'"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"greedy": False}, "mappo acts by Q-values, so there is nothing to sample"),
    ],
)
def test_what_cannot_be_recorded_is_one_sentence(asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        record(a_run(Clock(), stochastic=False), **asked)


def test_an_environment_without_pictures_cannot_be_watched():
    with pytest.raises(NoPictures, match="clock:Blind cannot be watched: it has no pictures"):
        record(a_run(Blind(), "clock:Blind"))


def test_a_shape_is_said_once():
    run = a_run(envs.make("lbf/6x6-2p-2f"), "lbf/6x6-2p-2f", recurrent=False)
    recording = record(run, episodes=2)
    said = json.loads(json.dumps(recording.to_dict(), allow_nan=False))
    assert said["agents"] == ["agent_0", "agent_1"]
    rows = [json.dumps(row) for row in said["shapes"]]
    assert len(set(rows)) == len(rows)
    drawn = sum(len(frame[0]) for frames in said["episodes"] for frame in frames)
    assert len(rows) < drawn / 10
    first = recording.episodes[0][0].scene.shapes
    kinds = [said["shapes"][k][0] for k in said["episodes"][0][0][0]]
    assert kinds == [type(shape).__name__.lower() for shape in first]
    assert [len(frames) for frames in said["episodes"]] == [len(e) for e in recording.episodes]


# Films -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short():
    return record(a_run(Clock()), episodes=2)


def test_a_gif_has_a_picture_for_every_step_and_holds_the_last(short, tmp_path):
    out = film(short, tmp_path / "deep" / "x.gif", fps=10)
    with Image.open(out) as gif:
        durations = []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
    assert durations == [100, 100, 100, 600] * 2


def test_an_mp4_plays_as_long(short, tmp_path):
    out = film(short, tmp_path / "x.mp4", fps=5)
    reader = imageio_ffmpeg.get_ffmpeg_exe()
    said = subprocess.run([reader, "-i", out, "-f", "null", "-"], capture_output=True, text=True)
    assert "yuv420p" in said.stderr
    frames = said.stderr.rsplit("frame=", 1)[1].split()[0]
    assert int(frames) == 2 * (3 + films.HOLD)


def test_an_html_film_is_a_page_with_a_player(short, tmp_path):
    page = film(short, tmp_path / "x.html").read_text()
    assert page.count('class="viewer"') == 1
    assert "mappo on clock:Clock, team 0, last policy, sampled" in page


def test_pictures_show_what_changed():
    run = a_run(envs.make("matrix/climbing"), "matrix/climbing", recurrent=False)
    (start, _), (end, hold) = pictures_of(record(run))
    assert hold == films.HOLD
    choice = np.array([0xFB, 0xE3, 0xB0])
    near = [(np.abs(np.asarray(p).astype(int) - choice).max(-1) < 4).sum() for p in (start, end)]
    assert near[0] == 0
    assert near[1] > 1000


@pytest.mark.parametrize(("x", "text"), [(-0.001, "0.00"), (-1.5, "−1.50"), (12345.6, "12346")])
def test_rewards_are_short(x, text):
    assert number(x) == text


@pytest.mark.parametrize(
    ("out", "fps", "sentence"),
    [
        ("x.avi", 4, "must be a file that ends in .gif, .mp4 or .html"),
        ("x.gif", 0, "fps must be between 0.1 and 50"),
        ("x.gif", float("nan"), "fps must be between 0.1 and 50"),
    ],
)
def test_impossible_films_are_refused(short, tmp_path, out, fps, sentence):
    with pytest.raises(UsageError, match=sentence):
        film(short, tmp_path / out, fps)
    assert not list(tmp_path.iterdir())


def test_a_missing_encoder_names_the_extra(short, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"pip install .*\[video\]'"):
        film(short, tmp_path / "x.mp4")


# The command -------------------------------------------------------------------------------------


def test_the_command_refuses_before_it_plays(tmp_path, capsys):
    def call(*args):
        status = main(["watch", str(tmp_path), *args])
        return status, capsys.readouterr().err

    assert call("--out", "x.avi") == (
        2, "coterie: x.avi must be a file that ends in .gif, .mp4 or .html\n"
    )  # fmt: skip
    status, said = call("--environment", "lbf/8x8-2p-3f")
    assert status == 2
    assert "lbf/8x8-2p-3f is built in" in said
    status, said = call("--out", "x.gif")
    assert status == 2
    assert "is not a run directory" in said
