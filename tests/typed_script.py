"""A user's script with types, which `test_typing` checks as type checkers see it: an environment,
training, a loaded team in a loop of one's own. Lines marked `type: ignore` are mistakes that
a type checker must find."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import coterie


class Guess(coterie.Environment):
    """Two agents get a reward if both choose the number that both see."""

    def spec(self) -> coterie.EnvSpec:
        return coterie.EnvSpec(
            agents=("a", "b"), observation_sizes=(2, 2), action_counts=(2, 2), time_limit=5,
            central_size=2, reward="mean",
        )  # fmt: skip

    def reset(self, key: jax.Array) -> tuple[jax.Array, coterie.TimeStep]:
        number = jax.random.randint(key, (), 0, 2)
        return number, self.show(number, jnp.zeros(2))

    def step(
        self, key: jax.Array, state: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, coterie.TimeStep]:
        rewards = jnp.full(2, jnp.all(actions == state), jnp.float32)
        number = jax.random.randint(key, (), 0, 2)
        return number, self.show(number, rewards)

    def show(self, number: jax.Array, rewards: jax.Array) -> coterie.TimeStep:
        seen = jax.nn.one_hot(number, 2)
        no = jnp.array(False)
        return coterie.TimeStep((seen, seen), rewards, terminated=no, truncated=no, central=seen)


def train(out: Path) -> coterie.Run:
    algorithm = coterie.VDN(environments=4, hidden=(8,), learning_starts=20, buffer_size=400)
    return coterie.train(
        algorithm, Guess(), steps=400, evaluations=1, final_episodes=4, out=out,
        callback=stop_early,
    )  # fmt: skip


def play(team: coterie.Team) -> float:
    """The reward of an episode."""
    env, total = Guess(), 0.0
    state, shown = env.reset(jax.random.key(0))
    hidden_state = team.initial_hidden_state()
    for t in range(5):
        actions, hidden_state = team.act(shown.observations, hidden_state)
        state, shown = env.step(jax.random.key(t), state, jnp.asarray(actions))
        total += float(shown.rewards[0])
    return total


def stop_early(event: coterie.Event) -> bool | None:
    return event.env_steps > 1_000


def mistakes() -> None:
    coterie.VDN(gama=0.9)  # type: ignore[call-arg]  # pyright: ignore
    coterie.IPPO(sharing="some")  # type: ignore[arg-type]  # pyright: ignore
    coterie.train(coterie.VDN(), Guess(), step=4)  # type: ignore[call-arg]  # pyright: ignore
    coterie.load(7)  # type: ignore[arg-type]  # pyright: ignore
    coterie.resume("run").path.grow()  # type: ignore[union-attr]  # pyright: ignore


if __name__ == "__main__":
    run = train(Path(sys.argv[1]))
    returns: float = run.evaluate(episodes=4)["eval/return/team_mean"]["mean"]
    team = coterie.load(sys.argv[1], seed=0, which="last")
    print(returns, play(team), run.path, sorted(run.metrics))
