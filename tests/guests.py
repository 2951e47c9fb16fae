"""Small PettingZoo environments, found by worker processes under their names here.

They import neither JAX nor Coterie.
"""

import functools
import multiprocessing
import os
import time

import numpy as np
from gymnasium.spaces import Box, Discrete


class Relay:
    """Three unequal agents without chance; all that training must get right happens in 7 steps.

    The number is that of the joint actions so far, mod 5. Agent c dies after its reward of step
    3; action 1 of agent a is forbidden at odd steps. When the number is 4 at step 2 or later the
    game is over, terminally; after 7 steps it is cut.
    """

    possible_agents = ("a", "b", "c")
    sizes = (2, 3, 4)
    counts = (2, 3, 2)

    def __init__(self):
        self.agents = []

    def observation_space(self, agent):
        return Box(-99, 99, (self.sizes["abc".index(agent)],))

    def action_space(self, agent):
        return Discrete(self.counts["abc".index(agent)])

    @property
    def state_space(self):
        return Box(0, 9, (2,))

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.t = self.number = 0
        return self.look(), self.masks()

    def step(self, actions):
        chosen = [actions.get(a, 0) for a in self.possible_agents]
        self.number = (self.number + chosen[0] + 2 * chosen[1] + chosen[2]) % 5
        self.t += 1
        over = self.number == 4 and self.t >= 2
        acting = self.agents
        rewards = {a: float(self.number + 10 * i) for i, a in enumerate(self.possible_agents)}
        ends = {a: over or (a == "c" and self.t >= 3) for a in acting}
        cuts = dict.fromkeys(acting, self.t == 7 and not over)
        self.agents = [a for a in acting if not (ends[a] or cuts[a])]
        shown = self.look(acting)
        return shown, {a: rewards[a] for a in acting}, ends, cuts, self.masks(acting)

    def look(self, agents=possible_agents):
        seen = np.float32([self.number / 5, self.t / 7, 1, -1])
        return {a: seen[:size] for a, size in zip("abc", self.sizes, strict=True) if a in agents}

    def masks(self, agents=possible_agents):
        odd = self.t % 2 == 1
        return {a: {"action_mask": np.array([1, not odd])} if a == "a" else {} for a in agents}

    def state(self):
        return np.array([self.number, self.t])

    def close(self):
        pass


class Dice:
    """Two agents that see dice drawn from the seed; paid alike; ends by chance, cut at 9 steps."""

    possible_agents = ("left", "right")
    limit = 9

    def __init__(self):
        self.agents = []

    def observation_space(self, agent):
        return Box(0, 1, (3,))

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.agents, self.t = list(self.possible_agents), 0
        return self.look(), {}

    def step(self, actions):
        self.t += 1
        over = bool(self.rng.random() < 0.15)
        pay = float(sum(actions.values())) + round(float(self.rng.random()), 2)
        shown = self.look()
        acting, cut = self.agents, self.t == self.limit and not over
        if over or cut:
            self.agents = []
        each = dict.fromkeys
        return shown, each(acting, pay), each(acting, over), each(acting, cut), each(acting, {})

    def look(self):
        return {a: self.rng.random(3).astype(np.float32) for a in self.possible_agents}

    def close(self):
        pass


class Unequal(Dice):
    """As ``Dice``, but only the left one is paid."""

    def step(self, actions):
        shown, rewards, *rest = super().step(actions)
        return (shown, {"left": rewards["left"], "right": 0.0}, *rest)


class Forgetful(Dice):
    """Draws its dice from nowhere: no seed repeats an episode."""

    def reset(self, seed=None, options=None):
        return super().reset(None)


class Faulty(Dice):
    """Goes wrong in the step that follows the third, in every episode whose seed is even."""

    def reset(self, seed=None, options=None):
        self.bad = seed % 2 == 0
        return super().reset(seed)

    def step(self, actions):
        due = self.bad and self.t == 3
        shown = super().step(actions)
        return self.wrong(*shown) if due else shown


class Raises(Faulty):
    def wrong(self, *shown):
        raise KeyError("no such dice")


class SaysNaN(Faulty):
    def wrong(self, seen, *rest):
        return {**seen, "right": np.full(3, np.nan, np.float32)}, *rest


class PaysInfinity(Faulty):
    def wrong(self, seen, rewards, *rest):
        return seen, {**rewards, "left": float("inf")}, *rest


class Hangs(Faulty):
    def wrong(self, *shown):
        while True:
            time.sleep(0.01)


class Exits(Faulty):
    def wrong(self, *shown):
        raise SystemExit(3)


class Dies(Faulty):
    """Takes its process with it."""

    def wrong(self, *shown):
        os._exit(3)


class Stubborn(Faulty):
    """Neither comes back nor lets itself be interrupted."""

    def wrong(self, *shown):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue


class Homebound(Dice):
    """Can be made in the first process only."""

    def __init__(self):
        if multiprocessing.parent_process():
            raise LookupError("no display")
        super().__init__()


class Dawdling(Dice):
    """Is never made but in the first process."""

    def __init__(self):
        if multiprocessing.parent_process():
            time.sleep(600)
        super().__init__()


class Restive(Dice):
    """Pays each agent 1 in each of its two steps; an episode with an odd seed cannot begin."""

    def reset(self, seed=None, options=None):
        if seed % 2:
            raise LookupError("not today")
        return super().reset(seed)

    def step(self, actions):
        shown, *_, infos = super().step(actions)
        self.agents = list(self.possible_agents) if self.t < 2 else []
        each = functools.partial(dict.fromkeys, self.possible_agents)
        return shown, each(1.0), each(self.t == 2), each(False), infos


class Fatal(Restive):
    """Takes its process with it where an episode cannot begin."""

    def reset(self, seed=None, options=None):
        if seed % 2:
            os._exit(3)
        return super().reset(seed)


class Bereaved(Dice):
    """Whoever lives is paid alike, but left dies in the second step of each episode."""

    def step(self, actions):
        self.t += 1
        acting, over = self.agents, self.t == 5
        ends = {a: over or (a == "left" and self.t == 2) for a in acting}
        self.agents = [a for a in acting if not ends[a]]
        each = functools.partial(dict.fromkeys, acting)
        return self.look(), each(1.0), ends, each(False), each({})


class Closable(Dice):
    """Is of no use once it was closed."""

    closed = False

    def reset(self, seed=None, options=None):
        assert not self.closed
        return super().reset(seed)

    def close(self):
        self.closed = True


class Sleeps(Dice):
    """Never comes back from a step, and says in a file which process it is in."""

    def step(self, actions):
        with open(os.environ.get("GUESTS", os.devnull), "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)


class Score:
    """Two agents that report numbers: left leaves after 2 steps, right after 3 to 6 by the seed."""

    possible_agents = ("left", "right")

    def __init__(self):
        self.agents = []

    def observation_space(self, agent):
        return Box(0, 9, (1,))

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        self.last = int(np.random.default_rng(seed).integers(3, 7))
        return self.look(), {a: {"goals": 99} for a in self.agents}

    def step(self, actions):
        self.t += 1
        acted, ends = self.agents, {"left": self.t == 2, "right": self.t == self.last}
        infos = {"left": {"goals": 1}, "right": {"goals": np.int64(4), "steps": self.t}}
        infos["right"] |= {"who": "right", "time": {"idle": 0.5}}
        if self.last == 6:
            infos["right"]["six"] = True
        self.agents = [a for a in acted if not ends[a]]
        return (
            self.look(acted), dict.fromkeys(acted, 1.0), {a: ends[a] for a in acted},
            dict.fromkeys(acted, False), {a: infos[a] for a in acted},
        )  # fmt: skip

    def look(self, agents=possible_agents):
        return {a: np.float32([self.t]) for a in agents}

    def close(self):
        pass
