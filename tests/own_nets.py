"""Networks of a user's own, as a module of theirs."""

import equinox as eqx
import jax
import jax.numpy as jnp

WIDTH = 6


class Net(eqx.Module):
    """One layer; also what a module may hold besides: functions and numbers."""

    layer: eqx.nn.Linear
    activation: object
    scale: tuple
    factor: float

    def __init__(self, space, key, width=WIDTH):
        self.layer = eqx.nn.Linear(space.size, width, key=key)
        self.activation = lambda x: jnp.maximum(x, 0)  # another one in every network
        self.scale, self.factor = (2,) * width, 0.5

    def __call__(self, observation):
        return self.factor * jnp.array(self.scale) * self.activation(self.layer(observation))


class Recall(eqx.Module):
    """A hidden state of two arrays, whose first values are learned."""

    weight: jax.Array
    first: jax.Array

    def __init__(self, space, key):
        self.weight = jax.random.normal(key, (WIDTH, space.size))
        self.first = jnp.ones(WIDTH)

    def initial_hidden_state(self):
        return {"sum": self.first, "steps": jnp.zeros(1)}

    def __call__(self, observation, hidden_state):
        total = jnp.tanh(self.weight @ observation + 0.5 * hidden_state["sum"])
        return total, {"sum": total, "steps": hidden_state["steps"] + 1}


NUMBER = 3


class Dueling(eqx.Module):
    """The head of Wang et al. 2016: V + A - mean A."""

    value: eqx.nn.Linear
    advantage: eqx.nn.Linear

    def __init__(self, inputs, outputs, key):
        keys = jax.random.split(key)
        self.value = eqx.nn.Linear(inputs, 1, key=keys[0])
        self.advantage = eqx.nn.Linear(inputs, outputs, key=keys[1])

    def __call__(self, features):
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean()
