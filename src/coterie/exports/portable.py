"""A team's networks as arrays and a description, for programs that have no JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.networks.layers import GRU, Linear
from coterie.networks.torsos import Torso
from coterie.runs.team import Team
from coterie.views.preprocessing import UNCHANGED

FORMAT = "coterie-team 1"


@dataclass(frozen=True)
class Portable:
    """What a greedy step of a team takes, in the order in which it is computed.

    1. (x − mean) / std, clipped to ±10, of each number that an agent observes, if there is `mean`;
    2. `ids` appended, if there are any;
    3. layers 0, 1, ... but the last: x W + b, then (x − mean(x)) / √(variance(x) + 1e-5) · scale +
       shift if there is `norm_0_scale`, then the activation;
    4. a GRU, if there is `gru_input_weight`, whose gates stand in the order reset, update, new;
    5. the last layer, and the greatest output of a legal action.

    Attributes:
        about: agents, sizes, activation, hidden size; JSON.
        arrays: float32, by name; agents first, [N, ...], or [1, ...] where all share one network.
            `available` is bool [N, A], the actions that each agent has.
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def layers(self) -> int:
        return sum(name.startswith("layer_") and name.endswith("_weight") for name in self.arrays)


def portable(team: Team) -> Portable:
    """The networks of a team.

    Raises:
        UsageError: the team has a part that only StableHLO holds.
    """
    _check(team)
    policy = team.policy
    networks = policy.networks
    index = np.asarray(policy.index) if max(policy.index) else np.zeros(1, int)
    arrays: dict[str, Any] = {
        "available": np.arange(max(team.action_counts)) < np.array(team.action_counts)[:, None]
    }
    if policy.statistics is not None:
        arrays |= _statistics(team)
    if any(policy.identify):
        arrays["ids"] = np.diag(np.asarray(policy.identify, np.float32))
    parts: dict[str, Any] = {f"layer_{k}": layer for k, layer in enumerate(networks.body.layers)}
    parts |= {f"norm_{k}": norm for k, norm in enumerate(networks.body.norms)}
    if networks.gru is not None:
        parts |= {"gru_input": networks.gru.inputs, "gru_hidden": networks.gru.hidden}
    for part, module in parts.items():
        for name, array in vars(module).items():
            arrays[f"{part}_{name}"] = np.asarray(array, np.float32)[index]
    about = {
        "format": FORMAT,
        "agents": list(team.agents),
        "observation_sizes": list(team.observation_sizes),
        "action_counts": list(team.action_counts),
        "activation": policy.activation,
        "hidden_size": policy.hidden_size,
        "outputs": "logits" if team.stochastic else "Q-values",
        "which": team.which,
        "env_steps": team.env_steps,
    }
    return Portable(about, arrays)


def _statistics(team: Team) -> dict[str, np.ndarray]:
    """[N, O] mean and deviation by which each agent's observation is normalised, 0 in padding."""
    found = team.policy.statistics
    assert found is not None
    n, size = len(team.agents), max(team.observation_sizes)
    spread, floor = map(np.asarray, found.moments.spread())
    std = np.where(spread > floor, spread, 1.0).reshape(-1, size)[list(found.index)]
    mean = np.asarray(found.moments.mean).reshape(-1, size)[list(found.index)]
    there = np.arange(size) < np.asarray(team.observation_sizes).reshape(n, 1)
    return {"mean": np.where(there, mean, 0), "std": np.where(there, std, 1)}


def _check(team: Team) -> None:
    """UsageError where a team is more than perceptrons and GRUs on vectors, with single choices."""
    policy = team.policy
    torso = policy.networks.torso
    plain = all(isinstance(layer, Linear) for layer in policy.networks.body.layers)
    reasons = {
        "was trained by central learning": team.joint,
        "has actions that are vectors": bool(team.actions),
        "preprocesses observations": team.preprocessing != UNCHANGED,
        "observes images or several arrays": isinstance(torso, Torso),
        "has a network of your own": not plain or not isinstance(torso, Torso | None),
        "has a hidden state that is no GRU's": not isinstance(policy.networks.gru, GRU | None),
    }
    if reason := next((words for words, holds in reasons.items() if holds), None):
        raise UsageError(
            f"this team {reason}, which this format does not hold: export it with --format "
            "stablehlo, which holds every team"
        )
