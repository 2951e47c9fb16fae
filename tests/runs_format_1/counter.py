"""The Python environment that one of the runs was trained in."""

import numpy as np
from gymnasium.spaces import Box, Discrete


class Counter:
    """Two agents in turns of PettingZoo's kind: a number from the seed, and joint steps of 3 or 4.

    Each is paid 1 where it named the number's parity, and the number counts on.
    """

    metadata = {"name": "counter"}  # noqa: RUF012
    possible_agents = ("left", "right")

    def observation_space(self, agent):
        return Box(0, 20, (2,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        self.number = int(np.random.default_rng(seed).integers(10))
        self.length = 3 + self.number % 2
        return self._each(self._seen()), self._each({})

    def step(self, actions):
        rewards = {a: float(actions[a] == self.number % 2) for a in self.possible_agents}
        self.t, self.number = self.t + 1, self.number + 1
        over = self.t == self.length
        if over:
            self.agents = []
        ends, cuts = self._each(over), self._each(False)
        return self._each(self._seen()), rewards, ends, cuts, self._each({})

    def _seen(self):
        return np.float32([self.number % 2, self.t])

    def _each(self, value):
        return dict.fromkeys(self.possible_agents, value)

    def close(self): ...
