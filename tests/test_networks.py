"""Networks: who uses which, what memory keeps, what the mixer may do."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import Walk, game_for, quick, small

from coterie.algorithms import algorithms
from coterie.errors import UsageError
from coterie.networks.layers import GRU, History
from coterie.networks.mixers import MonotonicMixer
from coterie.networks.per_agent import PerAgent, sharing_index

KEY = jax.random.key(0)
INDICES = {"own": (0, 1, 2), "shared": (0, 0, 0), "grouped": (0, 1, 1)}
T, B, N, O, J, H = 5, 2, 3, 2, 4, 6  # noqa: E741


@functools.cache
def per_agent(index, recurrent=False):
    return quick(lambda: PerAgent(index, O, J, (H,), KEY, recurrent))()


def agent_network(network: PerAgent, i: int) -> History:
    return jax.tree.map(lambda p: p[network.index[i]], network.networks)


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def inputs():
    start = np.random.default_rng(2).random((T, B, N)) < 0.3
    return normal(T, B, N, O), jnp.asarray(start), normal(B, N, H, seed=3)


@quick
def unroll(network, hidden_state, obs, start):
    return network.unroll(hidden_state, obs, start)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("sharing", INDICES)
def test_each_agent_uses_its_own_network(sharing, recurrent):
    index = INDICES[sharing]
    network = per_agent(index, recurrent)
    obs, start, hidden_state = inputs()
    hidden_state = hidden_state if recurrent else hidden_state[..., :0]
    outputs, hidden_states = unroll(network, hidden_state, obs, start)
    assert outputs.shape == (T, B, N, J)
    assert hidden_states.shape == (T, B, N, H if recurrent else 0)

    def alone(network, i):
        ids = jnp.eye(N)[i] * (index.count(index[i]) > 1) if sharing != "own" else jnp.zeros(0)
        x = jnp.concatenate([obs[:, :, i], jnp.broadcast_to(ids, (T, B, *ids.shape))], axis=-1)
        return agent_network(network, i).unroll(hidden_state[:, i], x, start[:, :, i])

    each = quick(lambda network: [alone(network, i) for i in range(N)])(network)
    for i, (output, kept) in enumerate(each):
        np.testing.assert_allclose(outputs[:, :, i], output, atol=1e-6)
        np.testing.assert_allclose(hidden_states[:, :, i], kept, atol=1e-6)


@pytest.mark.parametrize("sharing", INDICES)
def test_the_id_is_appended_exactly_when_shared(sharing):
    network = per_agent(INDICES[sharing])
    width = network.networks.body.layers[0].weight.shape[-2]
    assert width == (O if sharing == "own" else O + N)
    same = jnp.ones((1, 1, N, O))
    q, _ = unroll(network, jnp.zeros((1, N, 0)), same, jnp.zeros((1, 1, N), bool))
    assert len(np.unique(q[0, 0], axis=0)) == N, "agents with equal observations act differently"


def test_networks_start_different():
    weight = np.asarray(per_agent(INDICES["own"]).networks.body.layers[0].weight)
    assert not np.array_equal(weight[0], weight[1])


def test_the_gradient_of_a_shared_network_is_the_sum_over_its_agents():
    obs, start, hidden_state = inputs()

    @quick
    @jax.grad
    def gradient(network, weight):
        q, _ = network.unroll(hidden_state, obs, start)
        return jnp.sum(weight[:, None] * q**2)

    shared = per_agent((0, 0, 0), True)
    whole = gradient(shared, jnp.ones(N))
    parts = [gradient(shared, one) for one in jnp.eye(N)]
    for total, *each in zip(*map(jax.tree.leaves, (whole, *parts)), strict=True):
        np.testing.assert_allclose(total, sum(map(np.asarray, each)), rtol=1e-4, atol=1e-5)
    grouped = gradient(per_agent((0, 1, 0), True), jnp.array([1.0, 0.0, 1.0]))
    weight = np.asarray(grouped.networks.body.layers[0].weight)
    assert weight[0].any(), "the group's network learns"
    assert not weight[1].any(), "another's does not"


@pytest.mark.parametrize(
    ("sharing", "groups", "index"),
    [
        ("own", (), (0, 1, 2)),
        ("shared", (), (0, 0, 0)),
        ("own", ("a,c",), (0, 1, 0)),
        ("own", ("c,b",), (0, 1, 1)),
        ("own", ("b", "c,a"), (0, 1, 0)),
    ],
)
def test_sharing_by_name(sharing, groups, index):
    assert sharing_index(Walk().spec(), sharing, groups) == index


@pytest.mark.parametrize(
    ("sharing", "groups", "says"),
    [("all", (), "own or shared"), ("own", ("a,d",), "'d'"), ("own", ("a,b", "b"), "two groups")],
)
def test_impossible_sharing_is_refused(sharing, groups, says):
    with pytest.raises(UsageError, match=says):
        sharing_index(Walk().spec(), sharing, groups)


@pytest.mark.parametrize("sharing", INDICES)
def test_unrolling_is_stepping(sharing):
    network = per_agent(INDICES[sharing], True)
    obs, start, hidden_state = inputs()
    outputs, hidden_states = unroll(network, hidden_state, obs, start)
    step = quick(lambda n, m, o, s: n.step(m, o, s))
    for t in range(T):
        output, hidden_state = step(network, hidden_state, obs[t], start[t])
        np.testing.assert_allclose(outputs[t], output, atol=1e-6)
        np.testing.assert_allclose(hidden_states[t], hidden_state, atol=1e-6)


def test_memory_holds_nothing_of_an_earlier_episode():
    network, (obs, _, hidden_state) = per_agent((0, 1, 0), True), inputs()
    start = jnp.asarray(np.zeros((T, B, N), bool))
    start = start.at[3, 0].set(True)

    @quick
    def sensitivity(network):
        def later(hidden_state, obs):
            outputs, _ = network.unroll(hidden_state, obs, start)
            return jnp.sum(outputs[3:] ** 2, axis=(0, 2, 3))

        return jax.jacrev(later, (0, 1))(hidden_state, obs)

    by_memory, by_obs = map(np.asarray, sensitivity(network))
    assert not by_memory[0].any()
    assert not by_obs[0, :3].any()
    assert by_obs[0, 3].any()
    assert by_memory[1, 1].any(), "where no episode starts, memory is used"
    assert by_obs[1, 0, 1].any()
    kept, _ = unroll(network, hidden_state, obs, start)
    fresh, _ = unroll(network, 0 * hidden_state, obs.at[:2].set(obs[3:]), start & False)
    np.testing.assert_allclose(kept[3:, 0], fresh[:2, 0], atol=1e-6)


def test_gru_by_its_equations():
    gru = quick(lambda: GRU(O, 1, KEY))()
    x, h = np.array([0.3, -2.0]), 0.7
    x_r, x_u, x_n = x @ np.asarray(gru.inputs.weight) + np.asarray(gru.inputs.bias)
    h_r, h_u, h_n = h * np.asarray(gru.hidden.weight)[0] + np.asarray(gru.hidden.bias)
    r, u = 1 / (1 + np.exp(-(x_r + h_r))), 1 / (1 + np.exp(-(x_u + h_u)))
    expected = (1 - u) * np.tanh(x_n + r * h_n) + u * h
    x = jnp.asarray(x, jnp.float32)
    actual = quick(lambda g: g.unroll(jnp.array([h]), x[None], jnp.array([False])))(gru)
    np.testing.assert_allclose(actual, [[expected]], rtol=1e-5)


def test_the_gradient_of_the_gru_is_that_of_its_equations():
    gru, x, start = quick(lambda: GRU(O, 3, KEY))(), normal(5, 2, 4, O), np.zeros((5, 2, 4), bool)
    start[0, 0, 1] = start[2, 1, 3] = start[4] = True
    x, start = jnp.asarray(x), jnp.asarray(start)
    first, towards = jnp.asarray(normal(2, 4, 3, seed=1)), normal(5, 2, 4, 3, seed=2)

    def by_equations(gru, first, x):
        h, after = first, []
        for k in range(len(x)):
            x_r, x_u, x_n = jnp.split(gru.inputs(x[k]), 3, axis=-1)
            h = jnp.where(start[k, ..., None], 0, h)
            h_r, h_u, h_n = jnp.split(gru.hidden(h), 3, axis=-1)
            r, u = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_u + h_u)
            h = (1 - u) * jnp.tanh(x_n + r * h_n) + u * h
            after.append(h)
        return jnp.stack(after)

    def unrolled(gru, first, x):
        return gru.unroll(first, x, start)

    slopes = [
        quick(jax.grad(lambda *args, f=f: jnp.sum(towards * f(*args)), (0, 1, 2)))(gru, first, x)
        for f in (by_equations, unrolled)
    ]
    for one, other in zip(*map(jax.tree.leaves, slopes), strict=True):
        assert np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_product_of_a_hessian_and_a_vector_is_a_gradient_of_gradients(recurrent):
    made = quick(lambda: PerAgent((0, 1, 0), O, J, (H,), KEY, recurrent, activation="tanh"))
    network, (obs, start, hidden_state) = made(), inputs()
    hidden_state = hidden_state[..., : network.hidden_size]
    towards = jax.tree.map(lambda p: jnp.asarray(normal(*p.shape)), network)

    def loss(network):
        outputs, _ = network.unroll(hidden_state, obs, start)
        return jnp.mean(jnp.sin(outputs))

    def slope(network, step):
        return jax.grad(loss)(jax.tree.map(lambda p, d: p + step * d, network, towards))

    product = quick(lambda n: jax.jvp(jax.grad(loss), (n,), (towards,))[1])(network)
    twice = quick(jax.grad(lambda n: optax.tree.vdot(jax.grad(loss)(n), towards)))(network)
    after, before = quick(slope)(network, 1e-2), quick(slope)(network, -1e-2)
    trees = product, twice, after, before
    for exact, again, high, low in zip(*map(jax.tree.leaves, trees), strict=True):
        assert np.abs(exact).max() > 1e-3
        np.testing.assert_allclose(exact, again, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(exact, (high - low) / 2e-2, atol=0.02 * np.abs(exact).max())


@functools.cache
def mixer(scale=1.0):
    made = quick(lambda: MonotonicMixer(agents=N, central=O, embedding=4, hyper=5, key=KEY))()
    return jax.tree.map(lambda p: jnp.asarray(scale * np.asarray(p)), made)


mix = quick(lambda m, q, z: m(q, z))
slopes = quick(jax.vmap(jax.grad(lambda m, q, z: m(q, z), (1, 2)), (None, 0, 0)))


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_the_mixer_is_monotone_in_every_utility(scale):
    q, z = 10 * normal(500, N), 3 * normal(500, O, seed=2)
    by_q = np.asarray(slopes(mixer(scale), q, z)[0])
    assert by_q.min() >= 0
    assert by_q.max() > 0


def test_a_small_scale_lets_joint_values_begin_near_zero_whatever_z_holds():
    def first(scale):
        made = MonotonicMixer(agents=N, central=O, embedding=4, hyper=5, key=KEY, scale=scale)
        return made(normal(200, N), 1000 * normal(200, O, seed=2))

    usual, small = (np.abs(np.asarray(quick(lambda s=s: first(s))())) for s in (1.0, 0.001))
    assert usual.mean() > 10
    assert small.max() < 0.01


def test_the_mixer_by_its_equations():
    m = mixer()
    q, z = np.array([1.0, -2.0, 0.5], np.float32), np.array([0.3, -1.2], np.float32)

    def linear(layer, x):
        return x @ np.asarray(layer.weight) + np.asarray(layer.bias)

    def two_layers(mlp):
        first, second = mlp.layers
        return linear(second, np.maximum(linear(first, z), 0))

    hidden = q @ np.abs(two_layers(m.hyper_w1)).reshape(N, 4) + linear(m.hyper_b1, z)
    elu = np.where(hidden > 0, hidden, np.expm1(hidden))
    expected = elu @ np.abs(two_layers(m.hyper_w2)) + two_layers(m.value)[0]
    np.testing.assert_allclose(mix(m, jnp.asarray(q), jnp.asarray(z)), expected, rtol=1e-5)


def test_the_mixer_depends_on_z():
    by_q, by_z = map(np.asarray, slopes(mixer(), jnp.ones((9, N)), normal(9, O)))
    assert by_z.all()
    assert not np.allclose(by_q[0], by_q[1]), "so do its weights"


@pytest.mark.parametrize("name", algorithms())
def test_no_qr_in_any_initialisation(name):
    algorithm = small(name)
    game = game_for(algorithm, Walk())
    program = str(jax.make_jaxpr(lambda k: algorithm.init(k, game))(KEY))
    for factorisation in ("qr", "geqrf", "householder", "svd", "eigh"):
        assert f" {factorisation}" not in program


def test_batched_initialisation_does_not_hang():
    """Several batched QRs in one jitted function would deadlock jaxlib on two cores."""
    code = """
import jax
from coterie.networks.mixers import MonotonicMixer
from coterie.networks.per_agent import PerAgent

def make(key):
    one, two = jax.random.split(key)
    return (PerAgent((0, 1, 2, 3), 16, 5, (64, 64, 64, 64), one, True),
            MonotonicMixer(4, 20, 32, 64, two))

quick = {"xla_backend_optimization_level": 0}
made = jax.jit(jax.vmap(make), compiler_options=quick)(jax.random.split(jax.random.key(0), 3))
jax.block_until_ready(jax.tree.leaves(made))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("gain", "hidden", "last", "bias"), [(None, 3**-0.5, 3**-0.5, True), (2**0.5, 2**0.5, 1, False)]
)
def test_initial_weights_have_the_stated_spread(gain, hidden, last, bias):
    network = quick(lambda: History(100, 90, (80, 70), KEY, gain=gain))()
    for layer, spread in zip(network.body.layers, (hidden, hidden, last), strict=True):
        inputs = layer.weight.shape[0]
        assert float(jnp.std(layer.weight)) == pytest.approx(spread / inputs**0.5, rel=0.05)
        assert bool(jnp.any(layer.bias != 0)) == bias
