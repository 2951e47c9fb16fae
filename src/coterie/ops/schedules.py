"""Settings that change linearly over environment steps, computed on the host."""

from __future__ import annotations

import numpy as np


def moved(
    iterations: np.ndarray, per_iteration: int, start: float, end: float | None, over: int | None
) -> np.ndarray:
    """A setting that moves linearly from ``start`` to ``end`` over so many environment steps."""
    done = np.clip(iterations * per_iteration / (over or 1), 0, 1)
    return (start + done * ((start if end is None else end) - start)).astype(np.float32)


def share_of(end: float | None, start: float) -> float | None:
    """``end`` as a share of ``start``."""
    return None if end is None else end / start
