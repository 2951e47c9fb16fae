"""Pictures of Python environments: making one that renders, and its frames as arrays of bytes."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from coterie.errors import NoPictures, described
from coterie.python_envs.adapters.lookup import takes_render_mode
from coterie.shapes import UInt8

MODE = "rgb_array"
_ADVICE = (
    f'what makes it must take render_mode="{MODE}", and its render() return an array '
    "[height, width, 3] of bytes (docs/reports.md)"
)
_HEADLESS = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}


def make_rendering(make: Callable[..., Any]) -> Any:
    """An environment that renders to arrays, of what makes one that need not.

    Where ``make`` takes no ``render_mode``, it is set on the environment that it makes.

    Raises:
        NoPictures: it cannot be made with this mode, or has no such attribute.
    """
    takes = takes_render_mode(make)
    try:
        env = make(render_mode=MODE) if takes else make()
    except Exception as error:
        what = f'it cannot be made with render_mode="{MODE}" ({described(error)})'
        raise NoPictures(f"{what}; {_ADVICE}") from error
    for each in (getattr(env, "unwrapped", env), env):
        if getattr(env, "render_mode", None) != MODE and hasattr(each, "render_mode"):
            with contextlib.suppress(AttributeError):  # a wrapper that shows what it wraps
                each.render_mode = MODE
    if getattr(env, "render_mode", None) != MODE or not callable(getattr(env, "render", None)):
        raise NoPictures(f"it has no pictures; {_ADVICE}")
    return env


def frame(environment: Any) -> UInt8[np.ndarray, "H W 3"]:
    """What the environment renders.

    Raises:
        NoPictures: it raises, or returns something else than a picture.
    """
    try:
        shown = np.asarray(_rendered(environment))
    except Exception as error:
        raise NoPictures(f"its render() raised {described(error)}; {_ADVICE}") from error
    if shown.ndim != 3 or shown.shape[2] not in (3, 4) or 0 in shown.shape:
        what = f"an array {list(shown.shape)}" if shown.ndim else "no array"
        raise NoPictures(f"its render() returned {what}; {_ADVICE}")
    if shown.dtype.kind not in "iu":
        raise NoPictures(f"its render() returned an array of {shown.dtype}; {_ADVICE}")
    return np.array(shown[:, :, :3], np.uint8)  # a copy: the next frame may be drawn over it


def _rendered(environment: Any) -> Any:
    """What ``render`` returns; of one that takes a mode, as Gym's once did, with it."""
    shown = environment.render()
    if np.ndim(shown) == 3:
        return shown
    render = getattr(getattr(environment, "unwrapped", None), "render", environment.render)
    return render(mode=MODE) if "mode" in inspect.signature(render).parameters else shown


def frames_a_second(environment: Any) -> float | None:
    """The speed that its metadata name, ``render_fps``; None where they do not."""
    metadata = getattr(environment, "metadata", None)
    speed = metadata.get("render_fps") if isinstance(metadata, dict) else None
    if not isinstance(speed, (int, float)) or isinstance(speed, bool):
        return None
    return float(speed) if 0 < speed < math.inf else None


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """No window is opened and no sound played by environments that draw with SDL (pygame)."""
    before = {name: os.environ.get(name) for name in _HEADLESS}
    os.environ.update(_HEADLESS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
