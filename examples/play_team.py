"""Trains a team in the compiled foraging task and lets it act in the original lbforaging."""

import tempfile
import warnings
from pathlib import Path

import gymnasium
import lbforaging  # noqa: F401 - registers the environments

import coterie

EPISODES = 20


def play(team, env, seed):
    """One episode; returns what the team collected, 1 for everything."""
    observations, _ = env.reset(seed=seed)
    hidden_state, collected, ended = team.initial_hidden_state(), 0.0, False
    while not ended:
        actions, hidden_state = team.act(list(observations), hidden_state)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        collected += sum(rewards)
        ended = terminated or truncated
    return collected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        # More updates a step than the defaults: this run is short.
        algorithm = coterie.VDN(gamma=0.9, lr=1e-3, update_ratio=1 / 4, learning_starts=2_000)
        out = Path(folder) / "run"
        coterie.train(algorithm, "lbf/5x5-2p-1f", steps=80_000, evaluations=4, out=out)
        team = coterie.load(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium expects one reward, lbforaging gives a list
        env = gymnasium.make("Foraging-5x5-2p-1f-v3", disable_env_checker=True)
    collected = [play(team, env, seed) for seed in range(EPISODES)]
    mean = sum(collected) / EPISODES
    print(f"collected {mean:.0%} of the food in {EPISODES} episodes of the original")
    assert mean > 0.5
