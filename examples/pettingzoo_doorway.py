"""Your own environment with PettingZoo's interface, checked and trained with IPPO."""

import numpy as np
from gymnasium.spaces import Box, Discrete

import coterie


class Doorway:
    """Two agents walk up to a door that lets one of them through at a time.

    An agent gets 1 when it is through, and leaves. Every step costs 0.1, and 1 more if both bump
    into each other in the door.
    """

    metadata = {"name": "doorway"}  # noqa: RUF012
    possible_agents = ["left", "right"]  # noqa: RUF012
    spaces = dict.fromkeys(possible_agents, Box(0, 3, (2,), np.float32))

    def observation_space(self, agent):
        return self.spaces[agent]

    def action_space(self, agent):
        return Discrete(2)  # wait, go

    def reset(self, seed=None, options=None):
        if seed is not None:  # without one the generator goes on
            self.rng = np.random.default_rng(seed)
        self.agents, self.t = list(self.possible_agents), 0
        self.distance = {agent: int(self.rng.integers(1, 4)) for agent in self.agents}
        return self.seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.t += 1
        acted = self.agents
        going = [a for a in acted if actions[a] == 1]
        bump = len(going) == 2 and all(self.distance[a] == 1 for a in going)
        rewards = dict.fromkeys(acted, -1.1 if bump else -0.1)
        for a in [] if bump else going:
            self.distance[a] -= 1
        through = {a: self.distance[a] == 0 for a in acted}
        rewards = {a: reward + through[a] for a, reward in rewards.items()}
        late = {a: self.t == 12 and not through[a] for a in acted}
        self.agents = [a for a in acted if not (through[a] or late[a])]
        return self.seen(), rewards, through, late, {a: {} for a in acted}

    def seen(self):
        """Each agent's observation: how far it and the other one still have to go."""
        own, other = self.distance["left"], self.distance["right"]
        return {"left": np.float32([own, other]), "right": np.float32([other, own])}

    def close(self): ...


if __name__ == "__main__":
    report = coterie.check_env(Doorway)
    print(*report.findings or ["nothing is wrong with it"], sep="\n")
    assert report.ok

    algorithm = coterie.IPPO(environments=16, lr=1e-3, hidden=(32,))
    run = coterie.train(algorithm, Doorway, steps=20_000, evaluations=2, final_episodes=100)
    for name, metric in run.metrics.items():
        print(f"{name:30} {metric['mean']:6.2f}")
    # The best return is 0.78: a step costs 0.1, and one of two agents that arrive together waits.
    # Random play gets 0.35.
    assert run.metrics["eval/return/team_mean"]["mean"] > 0.65
