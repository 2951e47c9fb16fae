"""How JaxMARL's environments are drawn: by its own renderers where they give pixels, else here."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coterie.envs.pictures import plane
from coterie.envs.scene import Circle, Label, Line, Rect, Role, Scene, Shape, diamond, of_pixels
from coterie.errors import NoPictures
from coterie.jax_envs.figures import drawn

Draw = Callable[[Any, Any, Sequence[Any] | None], Scene]
"""(environment of JaxMARL, state of NumPy arrays, actions) -> a scene."""


def battle(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """SMAX: allies and enemies with their kinds, health as a bar, and who is shot at."""
    state = getattr(state, "state", state)
    width, height = float(env.map_width), float(env.map_height)
    shapes: list[Shape] = [
        Rect(0, 0, width, height, "board"),
        Rect(0, 0, width, height, "rule", 0.1),
    ]
    places = np.asarray(state.unit_positions) * [1, -1] + [0, height]
    kinds, alive = np.asarray(state.unit_types), np.asarray(state.unit_alive)
    health = np.asarray(state.unit_health) / np.asarray(env.unit_type_health)[kinds]
    radii = np.asarray(env.unit_type_radiuses)[kinds].tolist()
    for shooter, target in _shots(env, state):
        (x, y), (u, v) = places[shooter].tolist(), places[target].tolist()
        shapes += [Line(x, y, u, v, "goal", 0.12)]
    for i, (x, y) in enumerate(places.tolist()):
        if not alive[i]:
            continue
        r, left = radii[i], max(float(health[i]), 0.0)
        role = "agent" if i < env.num_allies else "rival"
        shapes += [
            Circle(x, y, r, role),
            Label(x, y, env.unit_type_shorthands[kinds[i]], 1.1 * r, "paper", bold=True),
            Rect(x - r, y - r - 0.4, 2 * r, 0.22, "rule"),
            Rect(x - r, y - r - 0.4, 2 * r * left, 0.22, "food"),
        ]
    low, high = (f(places[alive], axis=0, initial=width / 2) for f in (np.min, np.max))
    side = max(float(np.max(high - low)) + 3, 10.0)  # where the units are, of a far wider map
    left, top = ((low + high - side) / 2).tolist()
    return Scene(tuple(shapes), side, side, left, top)


def _shots(env: Any, state: Any) -> list[tuple[int, int]]:
    """Pairs of units, the first of which shoots at the second one."""
    acts, found = np.asarray(state.prev_attack_actions), []
    if acts.ndim != 1:
        return []
    allies, moves = env.num_allies, env.num_movement_actions
    for i, act in enumerate(acts.tolist()):
        if act >= moves and state.unit_alive[i]:
            target = int(act - moves + allies if i < allies else allies - 1 - (act - moves))
            if 0 <= target < len(acts) and state.unit_alive[target]:
                found.append((i, target))
    return found


def particles(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """MPE: as Coterie's own particles are drawn, without their goals."""
    n, radii = env.num_agents, np.asarray(env.rad).tolist()
    silent = np.broadcast_to(np.asarray(env.silent), n).tolist()
    said = np.asarray(state.c)
    words = [
        f"says {said[i].argmax()}" if not silent[i] and said[i].any() else None for i in range(n)
    ]
    velocities = np.asarray(state.p_vel)[:n]
    return plane(
        list(zip(env.agents, radii, strict=False)), radii[n:], np.asarray(state.p_pos), velocities,
        words, (), walls=bool(np.asarray(env.collide)[n:].any()),
    )  # fmt: skip


class _Screen:
    """In place of the window of a visualiser: it keeps what it is shown."""

    def show_img(self, image: Any) -> None:
        self.image = np.asarray(image, np.uint8)


@cache
def _visualiser(module: str, kind: str) -> Any:
    try:
        made = getattr(importlib.import_module(f"jaxmarl.viz.{module}"), kind)()
    except ModuleNotFoundError as error:
        raise NoPictures(
            f"JaxMARL draws this environment with {error.name}, which is not installed: "
            f"pip install {error.name}"
        ) from error
    made.window = _Screen()
    return made


def kitchen(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """Overcooked, by JaxMARL's visualiser."""
    made = _visualiser("overcooked_visualizer", "OvercookedVisualizer")
    made.render(env.agent_view_size, state, highlight=False)
    return of_pixels(made.window.image)


def kitchen_v2(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """Overcooked v2, by JaxMARL's visualiser."""
    made = _visualiser("overcooked_v2_visualizer", "OvercookedV2Visualizer")
    made.render(jax.tree.map(jnp.asarray, state))
    return of_pixels(made.window.image)


def matrices(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """STORM, as it renders itself, but without its bar of time, which NumPy 2 refuses to draw."""
    bare = copy.copy(env)
    bare.render_time = lambda state, width: np.zeros((0, width, 3), np.uint8)
    return of_pixels(np.asarray(bare.render(jax.tree.map(jnp.asarray, state)), np.uint8))


def coins(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """Coin Game: agents are discs, coins stand on their corners; R and B say whose they are."""
    shapes: list[Shape] = [Rect(0, 0, 3, 3, "board")]
    shapes += [Line(0, k, 3, k, "rule", 0.02) for k in range(4)]
    shapes += [Line(k, 0, k, 3, "rule", 0.02) for k in range(4)]
    roles: dict[str, Role] = {"red": "rival", "blue": "agent"}
    for name, role in roles.items():
        letter = name[0].upper()
        x, y = (float(c) for c in np.ravel(getattr(state, f"{name}_coin_pos")))
        shapes += [diamond(x + 0.72, y + 0.72, 0.22, role)]
        shapes += [Label(x + 0.72, y + 0.72, letter, 0.18, "paper", bold=True)]
        x, y = (float(c) for c in np.ravel(getattr(state, f"{name}_pos")))
        x, y = x + (0.3 if name == "red" else 0.7), y + 0.3
        shapes += [Circle(x, y, 0.22, role), Label(x, y, letter, 0.24, "paper", bold=True)]
    return Scene(tuple(shapes), 3.1, 3.1, -0.05, -0.05)


def course(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """JaxNav: the map, agents and their goals."""

    def draw() -> None:
        from matplotlib.pyplot import subplots

        _, axes = subplots(figsize=(6, 6), layout="tight")
        env.init_render(axes, state, lidar=False, ticks_off=True)

    return of_pixels(drawn(draw))


def printed(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """Environments that describe a state in words: what they print."""
    with contextlib.redirect_stdout(io.StringIO()) as page:
        env.render(state)
    return words([line.rstrip() for line in page.getvalue().splitlines() if line.strip()])


def words(lines: Sequence[str]) -> Scene:
    """Lines of text, one below the other."""
    width = 0.56 * max([24, *map(len, lines)])
    labels = [Label(width / 2, 1.4 * k + 1.2, line, 1.0) for k, line in enumerate(lines)]
    tall = 1.4 * len(lines) + 1.0
    return Scene((Rect(0, 0, width, tall, "board"), *labels), width, tall)


def limbs(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene:
    """MABrax: the body from its side, its middle in the middle, joints as discs."""
    places = np.asarray(state.pipeline_state.x.pos, float)
    x, z = (places[:, 0] - places[0, 0]).tolist(), (1.8 - places[:, 2]).tolist()
    shapes: list[Shape] = [Rect(-2, 0, 4, 1.8, "board"), Rect(-2, 1.8, 4, 0.2, "landmark")]
    mark = -float(places[0, 0] % 1)  # the ground moves, so that one sees the body run
    marks = [m for m in (mark - 1, mark, mark + 1, mark + 2) if abs(m) < 2]
    shapes += [Line(m, 1.8, m, 2.0, "paper", 0.02) for m in marks]
    for i, parent in enumerate(env.env.sys.link_parents):
        if parent >= 0:
            shapes += [Line(x[parent], z[parent], x[i], z[i], "agent", 0.07)]
    shapes += [Circle(a, b, 0.07, "goal") for a, b in zip(x, z, strict=True)]
    return Scene(tuple(shapes), 4, 2, -2)


DRAW: dict[str, Draw] = {
    "SMAX": battle,
    "EnemySMAX": battle,
    "SimpleMPE": particles,
    "Overcooked": kitchen,
    "OvercookedV2": kitchen_v2,
    "CoinGame": coins,
    "InTheGrid": matrices,
    "InTheGrid_2p": matrices,
    "InTheMatrix": matrices,
    "JaxNav": course,
    "HanabiEnv": printed,
    "SwitchRiddle": printed,
    "MABraxEnv": limbs,
}
"""By the names of JaxMARL's classes, or of a base of them."""


def scene_of(env: Any, state: Any, actions: Sequence[Any] | None) -> Scene | None:
    """One state of an environment of JaxMARL, drawn; None where nothing draws it."""
    kinds = (kind.__name__ for kind in type(env).__mro__)
    draw = next((DRAW[kind] for kind in kinds if kind in DRAW), None)
    return draw(env, state, actions) if draw else None
