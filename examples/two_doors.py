"""Your own JAX environment, trained with IDQN."""

import jax
import jax.numpy as jnp

import coterie


class TwoDoors(coterie.Environment):
    """Both agents get a reward if they open the same door, twice as much if treasure is behind it.

    The left agent observes where the treasure is, the right one observes nothing. In each step both
    agents choose a door; then the treasure is hidden anew.
    """

    agents = ("left", "right")

    def spec(self) -> coterie.EnvSpec:
        return coterie.EnvSpec(
            agents=self.agents,
            observation_sizes=(2, 1),  # left: where the treasure is, one-hot; right: a constant
            action_counts=(2, 2),
            time_limit=10,
            central_size=2,
            reward="mean",
        )

    def reset(self, key):
        treasure = jax.random.randint(key, (), 0, 2)
        return treasure, self.show(treasure, jnp.zeros(2))

    def step(self, key, state, actions):
        together = actions[0] == actions[1]
        reward = jnp.where(together, jnp.where(actions[0] == state, 2.0, 1.0), 0.0)
        treasure = jax.random.randint(key, (), 0, 2)
        return treasure, self.show(treasure, jnp.full(2, reward))

    def show(self, treasure, rewards) -> coterie.TimeStep:
        where = jax.nn.one_hot(treasure, 2)
        return coterie.TimeStep(
            observations=(where, jnp.ones(1)),
            rewards=rewards,
            terminated=jnp.array(False),  # the time limit alone ends the game
            truncated=jnp.array(False),  # Coterie sets this from spec().time_limit
            central=where,
        )


if __name__ == "__main__":
    algorithm = coterie.IDQN(learning_starts=1_000, epsilon_steps=10_000, target_interval=200)
    run = coterie.train(algorithm, TwoDoors, steps=20_000, seeds=3, evaluations=5)
    for name, metric in run.metrics.items():
        print(f"{name:26} {metric['mean']:6.2f}")
    # If both always open the same door, each gets 1.5 a step, 15 an episode; random doors give 7.5.
    assert run.metrics["eval/return/team_mean"]["mean"] > 13
