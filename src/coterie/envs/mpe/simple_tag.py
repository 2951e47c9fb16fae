"""Slow adversaries hunt faster agents among obstacles."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from coterie.envs.mpe.particles import (
    Observations,
    Particles,
    at_least,
    flat,
    gaps,
    others,
    repeated,
    see_others,
    seen_from,
)
from coterie.envs.mpe.physics import Body, State, World
from coterie.types import Array, Float

ADVERSARY = Body(0.075, push=3.0, max_speed=1.0, collides=True)
GOOD = Body(0.05, push=4.0, max_speed=1.3, collides=True)
CATCH = 10.0


@dataclass(frozen=True, kw_only=True)
class Tag(Particles):
    """Each catch gives every adversary 10 and costs the caught agent 10; leaving costs too.

    Attributes:
        num_good: number of agents that are hunted.
        num_adversaries: number of agents that hunt.
        num_obstacles: number of landmarks.
    """

    default_reward = "individual"
    num_good: int = 1
    num_adversaries: int = 3
    num_obstacles: int = 2

    def build(self) -> World:
        at_least("num_good", self.num_good, 1)
        at_least("num_adversaries", self.num_adversaries, 1)
        at_least("num_obstacles", self.num_obstacles, 0)
        hunters = {f"adversary_{i}": ADVERSARY for i in range(self.num_adversaries)}
        return World(
            agents=hunters | {f"agent_{i}": GOOD for i in range(self.num_good)},
            landmarks=self.num_obstacles,
            landmark=Body(0.2, collides=True, reach=0.9),
        )

    def observe(self, state: State) -> Observations:
        """Own velocity and position, obstacles, the others, velocities of the other good ones."""
        a, n = self.num_adversaries, self.num_adversaries + self.num_good
        agents, obstacles = state.positions[:n], state.positions[n:]
        seen = [state.velocities, agents, seen_from(agents, obstacles), see_others(agents)]
        known = jnp.concatenate(seen, 1)
        good = state.velocities[a:]
        other_good = others(repeated(good, self.num_good))
        hunters = jnp.concatenate([known[:a], repeated(flat(good), a)], 1)
        return *hunters, *jnp.concatenate([known[a:], other_good], 1)

    def reward(self, state: State) -> Float[Array, " N *b"]:
        a, n = self.num_adversaries, self.num_adversaries + self.num_good
        hunters, good = state.positions[:a], state.positions[a:n]
        caught = jnp.sum(gaps(good, hunters) < ADVERSARY.size + GOOD.size, 1)
        fled = jnp.sum(out_of_bounds(jnp.abs(good)), 1)
        catches = CATCH * jnp.sum(caught, 0)
        return jnp.concatenate([repeated(catches, a), -CATCH * caught - fled])


def out_of_bounds(x: Float[Array, "*m"]) -> Float[Array, "*m"]:
    """What coordinate ±x costs: nothing below 0.9, then 10 (x - 0.9), above 1 e^(2x-2) ≤ 10."""
    outside = jnp.minimum(jnp.exp(2 * jnp.minimum(x, 4.0) - 2), 10.0)
    return jnp.where(x < 0.9, 0.0, jnp.where(x < 1, (x - 0.9) * 10, outside))
