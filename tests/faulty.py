"""One environment of PettingZoo's parallel convention with selectable faults.

Healthy, it is deterministic under a seed and ends after six to twelve steps. A fault shows at
step ``AT`` of every episode, at agent ``right`` where it is an agent's own, unless its line in
``FAULTS`` says otherwise. ``faulty:NAME`` is a factory of the environment with that fault, and
``faulty:Mixed`` has another one in every episode.
"""

import functools
import os
import time

import numpy as np
from gymnasium.spaces import Box, Discrete

AT = 3

FAULTS = {
    "raise_in_reset": "reset raises, at every episode",
    "raise_in_step": "step raises",
    "raise_in_close": "close raises",
    "raise_in_init": "it cannot be made",
    "hang_in_reset": "reset does not return",
    "hang_in_step": "step does not return",
    "exit_in_step": "the process ends",
    "wrong_shape": "an observation has one number too many",
    "nan_observation": "an observation holds NaN",
    "no_observation": "an observation is None",
    "missing_observation": "an observation is left out",
    "out_of_space": "an observation lies outside its space",
    "wrong_dtype": "an observation has fractions where its space has whole numbers",
    "text_observation": "an observation is text",
    "stale_observation": "observations are one array, changed in place; at every step",
    "infinite_reward": "a reward is infinite",
    "missing_reward": "a reward is left out",
    "text_reward": "a reward is text",
    "unknown_agent": "an agent appears that is not possible",
    "vanishing_agent": "an agent vanishes without a flag",
    "lingering_agent": "an agent ends and stays in agents",
    "all_masked": "an action mask forbids everything",
    "short_mask": "an action mask has one flag too few",
    "four_values": "step returns four values, as Gym once did",
    "not_dictionaries": "step returns lists",
    "nan_state": "the state holds NaN",
    "nondeterministic": "the seed is ignored",
    "forgets_to_reset": "an episode goes on from where the last one ended",
    "never_ends": "no episode ends",
    "time_out_as_end": "every episode terminates after eight steps",
    "slow": "every step takes 30 ms",
}


class Faulty:
    """See the module."""

    possible_agents = ("left", "right")
    state_space = Box(0, 1, (2,))

    def __init__(self, fault: str = "none") -> None:
        assert fault in FAULTS or fault == "none", fault
        self.fault = fault
        self.agents: list[str] = []
        self.spaces = {agent: self._space() for agent in self.possible_agents}
        self.shared = {agent: np.zeros(3, np.float32) for agent in self.possible_agents}
        self.rng = np.random.default_rng()
        self.drift = 0.0
        if fault == "raise_in_init":
            raise LookupError("no such map")

    def observation_space(self, agent: str) -> Box:
        return self.spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        return Discrete(3)

    def state(self) -> np.ndarray:
        return np.full(2, np.nan if self._now("nan_state") else 0.5, np.float32)

    def reset(self, seed=None, options=None):
        if self.fault == "raise_in_reset":
            raise LookupError("no such map")
        if self.fault == "hang_in_reset":
            time.sleep(1e6)
        if self.fault != "nondeterministic":
            self.rng = np.random.default_rng(seed)
        self.t = 0
        self.agents = list(self.possible_agents)
        self.length = 8 if self.fault == "time_out_as_end" else int(self.rng.integers(6, 13))
        return self._observations(), self._infos()

    def step(self, actions):
        self.t += 1
        self._break_down()
        acted = list(self.agents)
        over = self.t >= self.length and self.fault != "never_ends"
        rewards = {a: float(actions[a]) for a in acted}
        ended = dict.fromkeys(acted, over)
        self.agents = [] if over else acted
        observations = self._observations()
        self._spoil(observations, rewards, ended)
        values = (observations, rewards, ended, dict.fromkeys(acted, False), self._infos())
        if self._now("four_values"):
            return values[:4]
        return tuple([*v.values()] for v in values) if self._now("not_dictionaries") else values

    def close(self) -> None:
        if self.fault == "raise_in_close":
            raise LookupError("no window")

    def _now(self, fault: str) -> bool:
        return self.fault == fault and self.t == AT

    def _space(self) -> Box:
        whole = self.fault == "wrong_dtype"
        return Box(0, 1, (3,), np.int64 if whole else np.float32)

    def _break_down(self) -> None:
        if self._now("raise_in_step"):
            raise LookupError("no such door")
        if self._now("hang_in_step"):
            time.sleep(1e6)
        if self._now("exit_in_step"):
            os._exit(7)
        if self.fault == "slow":
            time.sleep(0.03)

    def _observations(self) -> dict:
        self.drift += self.fault == "forgets_to_reset"
        seen = {}
        for agent in self.possible_agents:
            own = self.rng.random(3).astype(np.float32) + np.float32(1e-4 * self.drift)
            own = np.clip(own, 0, 1)
            seen[agent] = own.round().astype(np.int64) if self.fault == "wrong_dtype" else own
            if self.fault == "stale_observation":
                self.shared[agent][:] = own
                seen[agent] = self.shared[agent]
        return seen

    def _infos(self) -> dict:
        masks = {agent: np.ones(3, np.int8) for agent in self.possible_agents}
        if self._now("all_masked"):
            masks["right"][:] = 0
        if self._now("short_mask"):
            masks["right"] = np.ones(2, np.int8)
        return {agent: {"action_mask": mask} for agent, mask in masks.items()}

    def _spoil(self, observations: dict, rewards: dict, ended: dict) -> None:
        if self.t != AT or "right" not in rewards:
            return
        own = observations["right"]
        spoiled = {
            "wrong_shape": np.zeros(4, np.float32),
            "nan_observation": np.array([0, np.nan, 0], np.float32),
            "no_observation": None,
            "out_of_space": own + np.float32(7),
            "wrong_dtype": np.full(3, 0.5),
            "text_observation": "nothing",
        }
        observations["right"] = spoiled.get(self.fault, own)
        if self.fault == "missing_observation":
            del observations["right"]
        rewards["right"] = {"infinite_reward": np.inf, "text_reward": "1"}.get(
            self.fault, rewards["right"]
        )
        if self.fault == "missing_reward":
            del rewards["right"]
        if self.fault == "unknown_agent":
            self.agents.append("ghost")
        if self.fault == "vanishing_agent":
            self.agents.remove("right")
            del ended["right"]
        if self.fault == "lingering_agent":
            ended["right"] = True


MIXED = (
    "none", "raise_in_reset", "raise_in_step", "wrong_shape", "nan_observation", "no_observation",
    "missing_observation", "text_observation", "infinite_reward", "missing_reward", "text_reward",
    "unknown_agent", "lingering_agent", "all_masked", "short_mask", "four_values",
    "not_dictionaries", "nan_state",
)  # fmt: skip


class Mixed(Faulty):
    """In each episode the one of ``MIXED`` that its seed says."""

    def reset(self, seed=None, options=None):
        self.fault = fault_of(seed)
        return super().reset(seed, options)


def fault_of(seed: int) -> str:
    return MIXED[seed % len(MIXED)]


def __getattr__(name: str):
    if name in FAULTS or name == "none":
        return functools.partial(Faulty, name)
    raise AttributeError(name)


def __dir__() -> list[str]:
    return [*globals(), *FAULTS]
