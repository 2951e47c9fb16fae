"""Settings that several algorithms have: parts of their dataclasses, which have no methods.

A class that gives a setting another default repeats its name and its type, but not its description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from coterie.networks.per_agent import Groups
from coterie.ops.running_statistics import RewardScaling
from coterie.settings import (
    MOST,
    Count,
    EndRate,
    Layers,
    Part,
    Positive,
    Range,
    Rate,
    Share,
    StepCount,
    Weight,
)

Ratio = Annotated[float, Range(1e-5, 1e3)]
Start = Annotated[int, Range(0, MOST)]


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """Settings of every algorithm."""

    gamma: Share = 0.99
    """Discount factor γ."""
    lr: Rate = 5e-4
    """Learning rate of Adam."""
    lr_end: EndRate | None = None
    """The learning rate moves linearly to this one; constant if None."""
    lr_steps: StepCount | None = None
    """Environment steps over which the learning rate moves; the whole run unless given."""
    recurrent: bool = False
    """Put a GRU before the last layer: networks see histories instead of observations."""
    sharing: Literal["own", "shared"] = "own"
    """Each agent its own parameters, or one set with the agent's id appended."""
    groups: Groups = ()
    """Groups that share parameters, each ``agent,agent`` by name; others keep their own."""


@dataclass(frozen=True, kw_only=True)
class ValueSettings(LearnerSettings):
    """Settings of the value-based algorithms."""

    gamma: Share = 0.95
    batch_size: Count = 128
    """Sequences in a minibatch, B; a sequence is one transition unless recurrent."""
    buffer_size: Count = 500_000
    """Transitions kept in replay D, over all environments."""
    environments: Count = 16
    """Parallel environments K that fill replay."""
    update_ratio: Ratio = 1 / 16
    """Gradient updates per environment step, whatever K is."""
    learning_starts: Start | None = None
    """Environment steps collected before the first update; 10,000, and at most a tenth of the run,
    unless given."""
    epsilon_start: Share = 1.0
    """Exploration probability ε at the start."""
    epsilon_end: Share = 0.05
    """ε from ``epsilon_steps`` on."""
    epsilon_steps: StepCount | None = None
    """Environment steps over which ε falls linearly; a quarter of the run unless given."""
    target_interval: Count | None = None
    """Updates between two copies of θ to the target θ̄; 200, and at most a fifth of the run's,
    unless given."""
    target_tau: Part | None = None
    """If given, θ̄ moves by this share towards θ at every update instead of being copied."""
    double_q: bool = False
    """Select the target's action with θ and value it with θ̄ (double Q-learning)."""
    reward_scaling: RewardScaling = "scale"
    """Learn from rewards divided by their root mean square so far (scale), as they are (none), or
    (r - mean)/std (standardise), which changes the task where an episode's length is a choice."""
    max_grad_norm: Positive | None = 10.0
    """Clip gradients to this norm, each independent loss by itself; None for no clipping."""
    hidden: Layers = (64, 64)
    """Hidden layer sizes of the utility networks (ReLU)."""
    sequence_length: Count = 16
    """Steps L of a replayed sequence when recurrent."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings(LearnerSettings):
    """Settings of REINFORCE and the actor-critics."""

    environments: Count = 16
    """Parallel synchronous environments K."""
    entropy: Weight = 0.01
    """Weight of the entropy bonus in the actor loss, at the start."""
    entropy_end: float | None = None
    """The weight of the entropy bonus moves linearly to this one, below 0 to reward certainty;
    constant if None."""
    entropy_steps: StepCount | None = None
    """Environment steps over which that weight moves; the whole run unless given."""
    reward_scaling: RewardScaling = "scale"
    """Learn from rewards divided by the root mean square of their discounted sums so far (scale),
    as they are (none), or (r - mean)/std (standardise), which changes the task where an episode's
    length is a choice."""
    max_grad_norm: Positive | None = 0.5
    """Clip every network's gradient to this norm, each by itself; None for no clipping."""
    hidden: Layers = (64, 64)
    """Hidden layer sizes of actors and critics."""
    activation: Literal["relu", "tanh"] = "tanh"
    """Between hidden layers."""
    gain: Positive = 1.414
    """Initial weights of hidden layers have standard deviation gain/√inputs; biases are 0."""


@dataclass(frozen=True, kw_only=True)
class ProximalSettings:
    """Settings of IPPO and MAPPO beside those of the actor-critics (Schulman et al. 2017)."""

    environments: Count = 64
    rollout_steps: Count = 32
    gae_lambda: Share | None = 0.95
    normalise_advantages: bool = True
    clip: Positive = 0.2
    """ε: how far the probability ratio may move from 1 before its gradient is cut."""
    epochs: Count = 4
    """Passes over every rollout."""
    minibatches: Count | None = None
    """Parts a rollout is split into in a pass, by environment; 4, or the most below that divide
    the environments, unless given."""


def contradictory_sharing(settings: LearnerSettings) -> list[str]:
    """A sentence where two settings say differently who shares parameters."""
    if settings.groups and settings.sharing == "shared":
        return ["sharing shared and groups contradict each other: give one of them"]
    return []
