"""Layer normalisation, normalised observations, preprocessed images and stacked frames."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import small
from quick import quick_compilation

import coterie
from coterie.networks.layers import MLP, LayerNorm

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


# Layer normalisation -----------------------------------------------------------------------------


def test_layer_norm_by_hand():
    """1, 3 has mean 2 and variance 1; scale and shift follow."""
    norm = LayerNorm(2)
    np.testing.assert_allclose(norm(jnp.array([[1.0, 3.0]])), [[-1, 1]], atol=1e-5)
    object.__setattr__(norm, "scale", jnp.array([2.0, 3.0]))
    object.__setattr__(norm, "shift", jnp.array([10.0, 20.0]))
    np.testing.assert_allclose(norm(jnp.array([5.0, 1.0])), [12, 17], atol=1e-4)


def test_layers_are_normalised_before_their_activation_and_the_last_is_not():
    mlp = MLP([3, 4, 5, 2], jax.random.key(0), "relu", layer_norm=True)
    x = jnp.array([0.5, -2.0, 1.0])
    expected = x
    for layer in mlp.layers[:-1]:
        y = np.asarray(expected @ layer.weight + layer.bias)
        expected = np.maximum((y - y.mean()) / np.sqrt(y.var() + 1e-5), 0)
    expected = expected @ mlp.layers[-1].weight + mlp.layers[-1].bias
    np.testing.assert_allclose(mlp(x), expected, rtol=1e-5)
    assert MLP([3, 4, 5, 2], jax.random.key(0)).norms == ()


@pytest.mark.parametrize("name", ["idqn", "ippo"])
def test_scales_and_shifts_are_learned_saved_and_in_the_recipe(name, tmp_path, monkeypatch):
    algorithm = small(name, layer_norm=True, hidden=(4, 6), **relu(name))
    run = trained(algorithm, tmp_path / "run")
    team = coterie.load(run)
    norms = team.policy.networks.body.norms
    assert [n.scale.shape[-1] for n in norms] == [4, 6]
    assert all(np.abs(np.asarray(n.shift)).max() > 0 for n in norms), "shifts learn"
    recipe_agrees(run, team, monkeypatch)


def relu(name: str) -> dict[str, str]:
    """The activation that the recipe of docs/formats.md has."""
    return {"activation": "relu"} if name == "ippo" else {}


def trained(algorithm, path: Path, environment="matrix/climbing", steps=64, **options) -> Path:
    given = {"evaluations": 1, "final_episodes": 0, "seeds": 1} | options
    coterie.train(algorithm, environment, steps, out=path, **given)
    return path


def recipe_agrees(run: Path, team, monkeypatch) -> None:
    """NumPy alone, as docs/formats.md shows it, computes what the team computes."""
    monkeypatch.chdir(run)
    page = (ROOT / "docs" / "formats.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names: dict = {}
    exec(next(block for block in blocks if "about = " in block), names)
    size = max(team.observation_sizes)
    for observation in (np.full(size, 0.3, np.float32), np.arange(size, dtype=np.float32)):
        seen = jnp.broadcast_to(observation, (len(team.agents), size))
        hidden_state = team.policy.initial_hidden_state()
        expected, _ = team.policy.step(hidden_state, seen, jnp.zeros(len(team.agents), bool))
        found, _ = names["scores"](1, observation, None)
        np.testing.assert_allclose(found, expected[1], atol=1e-4)
