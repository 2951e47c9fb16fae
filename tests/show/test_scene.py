"""Pictures of states: what stands where, what it is called, and that nothing is drawn outside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie import envs
from coterie.envs.foraging import State as ForagingState
from coterie.envs.mpe.physics import State as ParticleState
from coterie.envs.scene import PALETTE, Circle, Label, Line, Polygon, Rect, Scene, compact, union

NAMES = [f"{family}/{v}" for family, module in envs.families().items() for v in module.EXAMPLES]


def of(scene, kind, role=None):
    return [s for s in scene.shapes if isinstance(s, kind) and role in (None, s.role)]


def words(scene):
    return {s.text: (s.x, s.y) for s in of(scene, Label)}


@pytest.mark.parametrize("name", NAMES)
def test_every_native_environment_draws_itself_and_names_its_actions(name):
    env = envs.make(name)
    spec = env.spec()
    assert tuple(map(len, env.action_names())) == spec.action_counts
    assert all(len(set(own)) == len(own) for own in env.action_names())
    key = jax.random.key(1)
    state, _ = env.reset(key)
    first = env.scene(jax.device_get(state))
    actions = jnp.ones(spec.n_agents, jnp.int32)
    state, _ = env.step(key, state, actions)
    second = env.scene(jax.device_get(state), actions.tolist())
    for scene in (first, second):
        assert {s.role for s in scene.shapes} <= PALETTE.keys()
        for label in of(scene, Label):
            assert scene.left <= label.x <= scene.left + scene.width
            assert scene.top <= label.y <= scene.top + scene.height
    assert first != second


def test_an_environment_without_pictures_says_so_and_numbers_its_actions():
    class Bare(coterie.Environment):
        agents = ("a", "b")

        def spec(self):
            return coterie.EnvSpec(self.agents, (1, 1), (2, 3))

        def reset(self, key): ...
        def step(self, key, state, actions): ...

    assert Bare().scene(None) is None
    assert Bare().action_names() == (("0", "1"), ("0", "1", "2"))


def test_foraging_shows_levels_places_and_who_loads():
    env = envs.make("lbf/5x6-2p-2f")
    entities = jnp.array([[1, 2, 3], [-1, -1, 0], [1, 1, 1], [4, 5, 2]], jnp.float32)
    scene = env.scene(ForagingState(entities, jnp.float32(3)), [5, 2])
    (food,) = of(scene, Polygon, "food")
    np.testing.assert_allclose(np.reshape(food.points, (4, 2)).mean(0), [2.5, 1.5])
    players = of(scene, Circle, "agent")
    assert [(int(p.x), int(p.y)) for p in players] == [(1, 1), (5, 4)]
    levels = [s.text for s in of(scene, Label, "paper")]
    assert levels == ["3", "1", "2"]
    (ring,) = of(scene, Circle, "goal")
    assert (ring.x, ring.y) == (players[0].x, players[0].y)
    assert ring.line > 0
    assert (scene.width, scene.height) == (6.2, 5.2)
    assert env.action_names()[0] == ("none", "north", "south", "west", "east", "load")
    assert not of(env.scene(ForagingState(entities, jnp.float32(3))), Circle, "goal")


def test_walks_go_where_their_names_say():
    env = envs.make("lbf/5x5-1p-1f")
    entities = jnp.array([[-1, -1, 0], [2, 2, 1]], jnp.float32)
    places = {}
    for action, name in enumerate(env.action_names()[0]):
        state = ForagingState(entities, jnp.float32(1))
        led_to, _ = env.step(jax.random.key(0), state, jnp.array([action]))
        (disc,) = of(env.scene(jax.device_get(led_to)), Circle, "agent")
        places[name] = (int(disc.x), int(disc.y))
    assert places == {
        "none": (2, 2), "load": (2, 2), "north": (2, 1), "south": (2, 3), "west": (1, 2),
        "east": (3, 2),
    }  # fmt: skip


def speaker_listener(said=1):
    positions = [[0.5, 0.25], [-0.5, -0.25], [0, 0.9], [0.9, 0], [-0.9, 0]]
    return ParticleState(
        jnp.array(positions, jnp.float32), jnp.array([[0, 0], [0.4, 0.8]], jnp.float32),
        jnp.array([said, -1], jnp.int32), jnp.array([2], jnp.int32),
    )  # fmt: skip


def test_particles_point_up_speak_and_ring_their_goal():
    env = envs.make("mpe/simple-speaker-listener")
    scene = env.scene(speaker_listener())
    speaker, listener = of(scene, Circle, "agent")
    assert (speaker.x, speaker.y) == (0.5, -0.25)
    assert (listener.x, listener.y) == (-0.5, 0.25)
    (arrow,) = [s for s in of(scene, Line) if s.head]
    np.testing.assert_allclose((arrow.x2 - arrow.x1, arrow.y2 - arrow.y1), [0.1, -0.2], atol=1e-6)
    (goal,) = of(scene, Circle, "goal")
    np.testing.assert_allclose((goal.x, goal.y), words(scene)["C"])
    np.testing.assert_allclose((goal.x, goal.y), (-0.9, 0), atol=1e-6)
    assert words(scene).keys() >= {"says 1", "speaker_0", "listener_0", "goal", "A", "B", "C"}
    assert not any(text.startswith("says") for text in words(env.scene(speaker_listener(-1))))
    assert env.action_names() == (
        ("says 0", "says 1", "says 2"), ("no", "left", "right", "down", "up")
    )  # fmt: skip


def test_moves_and_words_are_named_as_they_are_coded():
    """An action that moves and speaks is ``move + 5 word``."""
    env = envs.make("mpe/simple-reference")
    assert env.action_names()[0][14] == "up, says 2"
    scene = env.scene(jax.device_get(env.reset(jax.random.key(0))[0]))
    assert {"for agent_0", "for agent_1"} <= words(scene).keys()


def test_adversaries_carry_a_triangle_and_obstacles_their_size():
    env = envs.make("mpe/simple-tag")
    scene = env.scene(jax.device_get(env.reset(jax.random.key(0))[0]))
    assert len(of(scene, Circle, "rival")) == len(of(scene, Polygon, "paper")) == 3
    assert [c.radius for c in of(scene, Circle, "landmark")] == [0.2, 0.2]


def test_a_plane_grows_until_it_holds_everybody():
    env = envs.make("mpe/simple-speaker-listener")
    far = speaker_listener().positions.at[1].set(jnp.array([3.0, 0.0]))
    state = eqx.tree_at(lambda s: s.positions, speaker_listener(), far)
    scene = env.scene(state)
    assert scene.left + scene.width > 3
    assert env.scene(speaker_listener()).width == pytest.approx(2.4)


def test_a_payoff_table_marks_the_chosen_cell():
    env = envs.make("matrix/climbing")
    state, _ = env.reset(jax.random.key(0))
    assert not of(env.scene(jax.device_get(state)), Rect, "choice")
    state, _ = env.step(jax.random.key(0), state, jnp.array([1, 2]))
    scene = env.scene(jax.device_get(state))
    (cell,) = of(scene, Rect, "choice")
    inside = [
        s.text for s in of(scene, Label)
        if cell.x < s.x < cell.x + cell.width and cell.y < s.y < cell.y + cell.height
    ]  # fmt: skip
    assert inside == ["0"]
    assert [s.text for s in of(scene, Label) if s.bold] == ["C", "B", "0"]
    assert "−30" in words(scene)


def test_games_of_unequal_payoffs_and_of_three_players():
    hunt = envs.make("matrix/stag-hunt")
    assert "0, 3" in words(hunt.scene(jax.device_get(hunt.reset(jax.random.key(0))[0])))
    payoffs = np.arange(24.0).reshape(2, 2, 2, 3)
    three = coterie.envs.matrix.MatrixGame(payoffs, agents=("x", "y", "z"))
    state, _ = three.step(
        jax.random.key(0), three.reset(jax.random.key(0))[0], jnp.array([1, 0, 1])
    )
    texts = [s.text for s in of(three.scene(jax.device_get(state)), Label)]
    assert texts == ["x", "B", "15", "y", "A", "16", "z", "B", "17"]


def test_shapes_are_said_briefly_and_views_are_joined():
    circle = Circle(1 / 3, 2.0, 1, "agent", 0.5)
    assert compact(circle) == ["circle", 0.3333, 2, 1, "agent", 0.5]
    assert compact(Polygon((0, 1.5), "food")) == ["polygon", [0, 1.5], "food", 0]
    assert compact(Label(1, 2, "<b>", 3, bold=True)) == ["label", 1, 2, "<b>", 3, "ink", 1]
    scenes = [Scene((), 2, 2), Scene((), 1, 3, -0.5, -2)]
    assert union(scenes) == (-0.5, -2.0, 2.5, 4.0)
