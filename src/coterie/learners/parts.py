"""Settings that several algorithms have: parts of their dataclasses, which have no methods.

A class that gives a setting another default repeats its name and its type, but not its description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from coterie.networks.own import HeadSetting
from coterie.networks.per_agent import Groups
from coterie.networks.torsos import TorsoSetting
from coterie.ops.action_vectors import Bounds
from coterie.ops.running_statistics import RewardScaling
from coterie.settings import (
    ARITHMETIC,
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
from coterie.types import Number

Ratio = Annotated[float, Range(1e-5, 1e3)]
Start = Annotated[int, Range(0, MOST)]
ImageSize = Annotated[tuple[Annotated[int, Range(1, 10_000)], ...], Range(2, 2)]
Frames = Annotated[int, Range(1, 64)]


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """Settings of every algorithm."""

    gamma: Annotated[Share, ARITHMETIC] = 0.99
    """Discount factor γ."""
    lr: Annotated[Rate, ARITHMETIC] = 5e-4
    """Learning rate of Adam."""
    lr_end: EndRate | None = None
    """Learning rate at the end of a linear schedule; without it the learning rate is constant."""
    lr_steps: StepCount | None = None
    """Environment steps over which the learning rate moves to lr_end; by default the whole run."""
    grey: bool = False
    """Turn RGB images of bytes into their luminance."""
    resize: ImageSize | None = None
    """Height and width that images of bytes are made smaller to."""
    frame_stack: Frames = 1
    """Number of observations that agents see at once: the last ones of the episode."""
    torso: TorsoSetting = "auto"
    """Layers that make features of images. nature: three convolutions, for images from 36 x 36.
    impala: residual ones, from 8 x 8. grid: two small ones, from 5 x 5. flat: none. auto: nature or
    grid, by the image's size. MODULE:NAME: a network of your own, of any observations."""
    head: HeadSetting = "linear"
    """Last layer. linear: weights and biases. MODULE:NAME: a network of your own, from features to
    what the algorithm needs."""
    normalise_observations: bool = False
    """Normalise each number observed by its running mean and deviation, clipped to ±10; pixels stay
    as they are."""
    layer_norm: bool = False
    """Normalise what each hidden layer computes before its activation, to mean 0 and deviation 1
    over the layer's units."""
    recurrent: bool = False
    """Put a GRU before the last layer, so that networks see observation histories."""
    sharing: Literal["own", "shared"] = "shared"
    """Whether all agents share one set of parameters and observe their agent id, or each has its
    own."""
    groups: Groups = ()
    """Instead of sharing, groups of agents that share parameters, each a list of names such as
    agent_0,agent_1; other agents have their own."""


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """How target networks θ̄ follow θ."""

    target_interval: Count | None = None
    target_tau: Annotated[Part | None, ARITHMETIC] = None


def target_rate(settings: TargetSettings) -> Number | None:
    """τ of targets that move at every update, or None; target_interval replaces a default τ."""
    usual = type(settings).target_tau
    return (
        None if settings.target_interval and settings.target_tau == usual else settings.target_tau
    )


@dataclass(frozen=True, kw_only=True)
class ValueSettings(TargetSettings, LearnerSettings):
    """Settings of the value-based algorithms."""

    gamma: Annotated[Share, ARITHMETIC] = 0.95
    batch_size: Count = 128
    """Minibatch size B: transitions, or sequences of transitions with --recurrent."""
    buffer_size: Count = 500_000
    """Capacity of the replay memory D, in transitions of all environments together."""
    environments: Count = 16
    """Number K of environments that are stepped in parallel and fill the replay memory."""
    update_ratio: Ratio = 1 / 8
    """Gradient updates for each environment step; it does not depend on the number of
    environments."""
    learning_starts: Start | None = None
    """Environment steps before the first update; by default 10,000, and at most a tenth of the
    run."""
    epsilon_start: Share = 1.0
    """Probability ε of a random action, at the start."""
    epsilon_end: Share = 0.05
    """Probability ε of a random action after epsilon_steps environment steps."""
    epsilon_steps: StepCount | None = None
    """Environment steps over which ε moves linearly to epsilon_end; by default a quarter of the
    run."""
    target_tau: Annotated[Part | None, ARITHMETIC] = 0.01
    """Move the target network θ̄ by this share towards θ at every update."""
    target_interval: Count | None = None
    """Instead of moving it, copy the network θ to the target network θ̄ after so many updates; with
    --target-tau None after 200, and at most a fifth of all updates."""
    double_q: bool = True
    """Double Q-learning: θ selects the action of the target, θ̄ evaluates it."""
    reward_scaling: RewardScaling = "scale"
    """How rewards are changed before learning. scale: divided by their root mean square so far.
    none: unchanged. standardise: (r - mean)/std, which changes the task if agents can influence how
    long an episode lasts."""
    max_grad_norm: Annotated[Positive | None, ARITHMETIC] = 10.0
    """Largest norm of a gradient, for each independent loss; None for no clipping."""
    hidden: Layers = (64, 64)
    """Sizes of the hidden layers of the utility networks, which use ReLU."""
    sequence_length: Count = 16
    """Length L of a replayed sequence with --recurrent, in steps."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings(LearnerSettings):
    """Settings of REINFORCE and the actor-critics."""

    environments: Count = 16
    """Number K of environments that are stepped in parallel."""
    entropy: Weight = 0.001
    """Weight of the entropy bonus in the actor loss, at the start."""
    entropy_end: float | None = None
    """Weight of the entropy bonus at the end of a linear schedule, possibly negative; without it
    the weight is constant."""
    entropy_steps: StepCount | None = None
    """Environment steps over which the entropy weight moves to entropy_end; by default the whole
    run."""
    reward_scaling: RewardScaling = "scale"
    """How rewards are changed before learning. scale: divided by the root mean square of their
    discounted sums so far. none: unchanged. standardise: (r - mean)/std, which changes the task if
    agents can influence how long an episode lasts."""
    max_grad_norm: Annotated[Positive | None, ARITHMETIC] = 10.0
    """Largest norm of a gradient, for each network; None for no clipping."""
    hidden: Layers = (128, 128)
    """Sizes of the hidden layers of actors and critics."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation function between layers."""
    gain: Positive = 1.414
    """Initial weights of hidden layers have a standard deviation of gain/√inputs; biases are 0."""


@dataclass(frozen=True, kw_only=True)
class VectorSettings:
    """Settings of policy-gradient algorithms whose actions may be vectors, for their numbers."""

    std: Positive = 1.0
    """Standard deviation σ of continuous actions at the start, in units where finite bounds are
    ±1; it is learned."""
    std_of_observation: bool = False
    """Let σ of continuous actions depend on what agents observe; otherwise each is one number."""
    least_std: Weight = 0.0
    """Smallest σ of continuous actions."""
    action_bounds: Bounds = "clip"
    """How continuous actions are kept within their bounds. clip: what is beyond is set to the
    bound. tanh: they are squashed by tanh."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualSettings:
    """Settings of COMA, which learns foraging less than half as well with the others' defaults."""

    entropy: Weight = 0.01
    max_grad_norm: Annotated[Positive | None, ARITHMETIC] = 0.5
    hidden: Layers = (64, 64)
    activation: Literal["relu", "tanh"] = "tanh"


@dataclass(frozen=True, kw_only=True)
class ProximalSettings:
    """Settings of IPPO and MAPPO beside those of the actor-critics (Schulman et al. 2017)."""

    environments: Count = 64
    rollout_steps: Count = 32
    gae_lambda: Annotated[Share | None, ARITHMETIC] = 0.95
    normalise_advantages: bool = True
    entropy: Weight = 0.01
    max_grad_norm: Annotated[Positive | None, ARITHMETIC] = 0.5
    clip: Annotated[Positive, ARITHMETIC] = 0.2
    """PPO's ε: the probability ratio is clipped to 1 - ε and 1 + ε."""
    epochs: Count = 4
    """Number of passes over each rollout."""
    minibatches: Count | None = None
    """Number of minibatches in each pass; all steps of an environment stay in one of them. By
    default 4, or the largest smaller number that divides --environments."""
