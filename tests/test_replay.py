"""The ring against a Python list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import small

from coterie.ops import replay

add, sample = jax.jit(replay.add), jax.jit(replay.sample)


@pytest.mark.parametrize(("items", "capacity"), [(1, 3), (2, 8), (4, 4)])
def test_the_ring_holds_the_newest_items(items, capacity):
    """Over several wraps; every slot holds one whole item, never the tail of an older one."""
    ring = replay.init({"x": jnp.zeros((2, 3)), "n": jnp.zeros((), jnp.int32)}, capacity)
    seen: list[int] = []
    for write in range(4 * capacity // items):
        numbers = np.arange(write * items, (write + 1) * items)
        new = {"x": np.full((items, 2, 3), numbers[:, None, None], np.float32), "n": numbers}
        ring = add(ring, jax.tree.map(jnp.asarray, new), jnp.int32(write * items % capacity))
        seen += numbers.tolist()
        stored = min(len(seen), capacity)
        held = sample(ring, jnp.arange(stored))
        assert sorted(held["n"].tolist()) == seen[-stored:]
        assert (np.asarray(held["x"]) == np.asarray(held["n"])[:, None, None]).all()
        assert held["n"].dtype == jnp.int32


def test_samples_have_the_shape_of_the_index():
    ring = {"x": jnp.arange(12).reshape(6, 2)}
    picked = sample(ring, jnp.array([[5, 0, 0], [1, 2, 3]]))["x"]
    np.testing.assert_array_equal(picked[..., 0], [[10, 0, 0], [2, 4, 6]])


@pytest.mark.parametrize(
    "settings",
    [
        {"environments": 1},
        {"environments": 10, "update_ratio": 1 / 16, "buffer_size": 300},
        {"environments": 3, "recurrent": True, "sequence_length": 5, "buffer_size": 400},
    ],
)
def test_the_clock_writes_a_ring_without_gaps(settings):
    algorithm = small("vdn", **settings)
    steps, environments = algorithm.rollout_shape()
    length = algorithm.sequence_length if algorithm.recurrent else 1
    items = steps * environments // length
    clock = algorithm.schedules(np.arange(50))
    capacity = clock["stored"].max()
    assert algorithm.buffer_size - steps * environments < capacity * length
    assert capacity * length <= algorithm.buffer_size
    for i in range(50):
        assert clock["slot"][i] == i * items % capacity
        assert clock["slot"][i] + items <= capacity, "a write never wraps"
        assert clock["stored"][i] == min((i + 1) * items, capacity)
