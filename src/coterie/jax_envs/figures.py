"""Pictures of environments that draw themselves with Matplotlib, without a window."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

_SIDE, _INCHES = 640, 6.0
"""A picture's longer side: its pixels, and at most so many inches, so that its words, whose size is
that of print, can be read."""


def drawn(draw: Callable[[], Any]) -> UInt8[np.ndarray, "H W 3"]:
    """What a function draws into pyplot's current figure, which is then closed."""
    import matplotlib.pyplot as plt

    with _offscreen():
        draw()
        figure = plt.gcf()
        try:
            width, height = (float(x) for x in figure.get_size_inches())
            smaller = min(1.0, _INCHES / max(width, height))
            figure.set_size_inches(width * smaller, height * smaller)
            figure.set_dpi(_SIDE / (max(width, height) * smaller))
            figure.canvas.draw()
            return np.array(figure.canvas.buffer_rgba())[..., :3]  # pyright: ignore
        finally:
            plt.close(figure)


@contextlib.contextmanager
def _offscreen() -> Iterator[None]:
    """Pyplot draws into memory; ``plt.show`` opens no window."""
    import matplotlib
    import matplotlib.pyplot as plt

    before = matplotlib.get_backend()
    plt.switch_backend("agg")
    try:
        with matplotlib.rc_context(), plt.ion(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        plt.switch_backend(before)
