"""Legal actions at random, for random play before training and for checks."""

from __future__ import annotations

import numpy as np

from coterie.shapes import Bool, Float32, Integer
from coterie.spec import EnvSpec


def random_actions(
    spec: EnvSpec, masks: Bool[np.ndarray, "N A"], rng: np.random.Generator
) -> Integer[np.ndarray, " N"] | Float32[np.ndarray, "N P"]:
    """A legal action for each agent, uniformly; 0 where none is legal, and numbers without bounds
    are standard normal."""
    if spec.actions:
        actions = np.zeros(spec.action_shape, np.float32)
        for row, mask, space in zip(actions, masks, spec.actions):
            ends = np.cumsum((0, *space.choices)).tolist()
            for k, (first, end) in enumerate(zip(ends, ends[1:])):
                flags = mask[first:end]
                row[k] = np.where(flags, rng.random(len(flags)), -1.0).argmax()
            low, high = np.asarray(space.low), np.asarray(space.high)
            bounded = np.isfinite(low) & np.isfinite(high)
            inside = rng.uniform(np.where(bounded, low, 0), np.where(bounded, high, 1))
            drawn = np.where(bounded, inside, rng.standard_normal(len(low)))
            row[len(space.choices) : space.size] = np.clip(drawn, low, high)
        return actions
    return np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=-1)
