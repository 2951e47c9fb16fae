"""What every learning algorithm is to the training loop.

Each method is abstract (every algorithm defines it), ``replaceable`` (a subclass may replace the
default entirely), or final. An override never calls what it replaces; shared code is a function.
From ``Algorithm`` to an algorithm there are at most three classes; beside them stand parts that
hold settings only (``learners/parts.py``).
"""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Float

from coterie.errors import UsageError
from coterie.former import under_former_name, warn_former
from coterie.module_paths import path_of, said_of
from coterie.networks.own import OwnNetwork
from coterie.networks.per_agent import PerAgent
from coterie.ops.running_statistics import RewardScaling
from coterie.policies.acting import act
from coterie.policies.distributions import Categorical, Distribution
from coterie.settings import arithmetic, check
from coterie.spec import Observation
from coterie.storage.formats import refuse_former
from coterie.types import Actions, Number, PRNGKey, PyTree, Schedules, Transition
from coterie.views.game import Game

Mode = Literal[
    "decentralised training and execution",
    "centralised training, decentralised execution",
    "centralised training and execution",
]


Method = TypeVar("Method", bound=Callable[..., Any])


def replaceable(method: Method) -> Method:
    """Marks a method whose default a subclass may replace as a whole."""
    method.__replaceable__ = True  # pyright: ignore[reportFunctionMemberAccess]
    return method


@dataclass(frozen=True)
class Algorithm(abc.ABC):
    """An algorithm is its hyperparameters and a handful of pure functions on a learner PyTree.

    It never logs, checkpoints or knows where the environment runs: the loop hands it transitions.
    """

    mode: ClassVar[Mode]
    common_reward: ClassVar[bool]
    """The algorithm is defined for common-reward games only."""
    central: ClassVar[bool] = False
    """Training uses centralised information z."""
    stochastic: ClassVar[bool] = False
    """Policies are distributions: they are evaluated greedily and by sampling."""
    joint_view: ClassVar[bool] = False
    """Central learning: one learner sees the joint observation and chooses joint actions."""
    whole_episodes: ClassVar[bool] = False
    """Every rollout begins with a new episode in every environment."""
    numbers_as_arguments: ClassVar[bool] = False
    """Code of this very class, and what it calls, only computes with settings marked ARITHMETIC:
    compiled programs then take them as arguments. Not inherited; Coterie's own all do."""
    action_vectors: ClassVar[bool] = False
    """Actions may be vectors of choices and numbers; else they are single choices."""
    metrics: ClassVar[tuple[str, ...]] = ("loss", "updates")
    """What ``learn`` reports, as sums over the updates it made; a run ends where one of them is
    not finite."""
    diagnostics: ClassVar[tuple[str, ...]] = ()
    """What it reports beside them, as such sums too; the log leaves out what is not finite."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for former, present in (("clock", "schedules"), ("scheduled", "logged_schedules")):
            own = vars(cls)
            if callable(own.get(former)) and present not in own:
                warn_former(f"{cls.__name__}.{former}", present, stacklevel=4)
                setattr(cls, present, own[former])
            elif callable(own.get(present)):
                setattr(cls, former, under_former_name(own[present], former, present))
        if "distribution" in vars(cls) and "behaviour" not in vars(cls):
            warn_former(f"{cls.__name__}.distribution", "behaviour", stacklevel=3)
            cls.behaviour = _by_outputs

    def __new__(cls, *args: Any, **settings: Any):
        refuse_former(settings.keys() - cls.__dataclass_fields__.keys())
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check(self)
        with said_of(type(self), "was made"):
            contradictions = self.contradictions()
        for sentence in contradictions:
            raise UsageError(sentence)

    @property
    def name(self) -> str:
        """``vdn``, the file's, or ``module:Class`` of one outside the package."""
        kind = type(self)
        return kind.__module__.rpartition(".")[2] if _is_ours(kind) else path_of(kind)

    def settings(self) -> dict[str, Any]:
        """The hyperparameters, JSON-able; a network of the user's own as its path."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        paths = {name: value.path for name, value in own.items() if isinstance(value, OwnNetwork)}
        return dataclasses.asdict(self) | paths

    def numbers(self) -> dict[str, float]:
        """Settings that compiled programs take as arguments, by name: those marked ARITHMETIC.

        None of a class outside the package that does not itself set ``numbers_as_arguments``, as
        its code may look at values in ways that no trace notices.
        """
        if not (_is_ours(type(self)) or vars(type(self)).get("numbers_as_arguments")):
            return {}
        found = arithmetic(self)
        if getattr(self, "target_interval", None):  # what becomes of τ depends on its value
            found.pop("target_tau", None)
        return found

    def with_numbers(self, numbers: Mapping[str, Number]) -> Algorithm:
        """The algorithm with arguments of a compiled program in the place of settings."""
        new = copy.copy(self)
        for name, value in numbers.items():
            object.__setattr__(new, name, value)
        return new

    @replaceable
    def contradictions(self) -> list[str]:
        """Settings that cannot stand together, a sentence each."""
        return []

    @replaceable
    def resolve(self, steps: int, time_limit: int | None = None) -> Algorithm:
        """Fixes what depends on the run's length and the episodes', when the run starts.

        Args:
            steps: environment steps of a seed; schedules become absolute.
            time_limit: the longest episode, if there is one.
        """
        del steps, time_limit
        return self

    @replaceable
    def remarks(self, game: Game) -> list[str]:
        """Sentences a user should read before the run starts.

        Raises:
            UsageError: the algorithm cannot learn this game.
        """
        del game
        return []

    def iterations(self, steps: int) -> int:
        """Whole rollouts that make at least so many environment steps."""
        each, environments = self.rollout_shape()
        return -(-steps // (each * environments))

    @replaceable
    def shortfalls(self, steps: int) -> list[str]:
        """What a run of so many steps will lack with these resolved settings, a sentence each.

        Said before the run starts, beside ``remarks``.
        """
        return whole_rollouts(self, steps)

    @abc.abstractmethod
    def rollout_shape(self) -> tuple[int, int]:
        """(T, K): steps of each of K parallel environments between two calls of ``learn``."""

    @abc.abstractmethod
    def schedules(self, iterations: np.ndarray) -> dict[str, np.ndarray]:
        """Everything that depends on time only, for each of these iterations (int64 [I]).

        Computed on the host, where integers do not overflow, and the same for all seeds.
        """

    @replaceable
    def logged_schedules(self, iteration: int) -> dict[str, float]:
        """Settings that change with time, by the names under which the log shows them."""
        del iteration
        return {}

    @abc.abstractmethod
    def updates(self, iterations: int) -> int:
        """Gradient updates made in the first so many iterations."""

    @abc.abstractmethod
    def init(self, key: PRNGKey, game: Game) -> PyTree:
        """The learner: parameters, targets, optimiser, replay, normalisers."""

    @abc.abstractmethod
    def policy(self, learner: PyTree) -> PerAgent:
        """What is executed: maps each agent's own history to Q-values, or logits, of actions."""

    @replaceable
    def parameters(self, learner: PyTree) -> PyTree:
        """All that gradients change, looked at after every rollout: the executed networks alone,
        unless there are more."""
        return self.policy(learner)

    @abc.abstractmethod
    def noise(self, key: PRNGKey, game: Game, shape: tuple[int, ...]) -> PyTree:
        """All randomness of acting for a rollout, drawn at once; leaves lead with shape [T, B]."""

    @replaceable
    def behaviour(self, chosen: Distribution, schedules: Schedules) -> Distribution:
        """How agents act while training, exploration included; as the policy says by default.

        Args:
            chosen: what the policy says.
        """
        del schedules
        return chosen

    def distribution(self, outputs: Any, mask: Any, schedules: Schedules) -> Distribution:
        """The former ``behaviour``, which got the outputs of networks."""
        warn_former("distribution", "behaviour", stacklevel=3)
        mro = type(self).__mro__
        own = next(c for c in mro if vars(c).get("behaviour", _by_outputs) is not _by_outputs)
        return own.behaviour(self, Categorical(outputs, mask), schedules)

    @replaceable
    def extras(self, distribution: Distribution, actions: Actions) -> PyTree:
        """What ``learn`` needs to know of the actions: ``Transition.extras``."""
        del distribution, actions
        return ()

    def explore(
        self,
        policy: PerAgent,
        hidden: Float[Array, "B N H"],
        seen: Observation,
        start: Bool[Array, " B"],
        noise: PyTree,
        schedules: Schedules,
    ) -> tuple[Actions, Float[Array, "B N H"], PyTree]:
        """Actions while training, the hidden state after them, and ``extras``."""
        return act(
            policy, hidden, seen.observations, seen.action_mask, noise, start=start,
            explore=lambda chosen: self.behaviour(chosen, schedules),
            extras=self.extras,
        )  # fmt: skip

    @abc.abstractmethod
    def learn(
        self,
        game: Game,
        learner: PyTree,
        rollout: Transition,
        key: PRNGKey,
        schedules: Schedules,
    ) -> tuple[PyTree, dict[str, Array]]:
        """Learns from one rollout [T, B].

        Returns: the learner, and the sums named by ``metrics`` and ``diagnostics``.
        """


def _is_ours(kind: type[Algorithm]) -> bool:
    """Whether it is one of the package's own algorithms."""
    return kind.__module__.rpartition(".")[0] == "coterie.algorithms"


def _by_outputs(self: Any, chosen: Distribution, schedules: Schedules) -> Distribution:
    """``behaviour`` of a class that still has the method ``distribution`` instead."""
    return self.distribution(chosen.outputs, chosen.mask, schedules)


def whole_rollouts(algorithm: Algorithm, steps: int) -> list[str]:
    """A sentence if whole rollouts make a run clearly longer than it was asked for."""
    each, environments = algorithm.rollout_shape()
    made = algorithm.iterations(steps) * each * environments
    if made <= 1.1 * steps:
        return []
    return [
        f"a run is made of whole rollouts, each of {environments:,} environments x {each:,} "
        f"steps: this one makes {made:,} steps instead of {steps:,}"
    ]


def unreached(name: str, end: float | None, over: int | None, steps: int) -> list[str]:
    """A sentence if a setting that moves to ``end`` does not get there in so many steps."""
    flag = name.replace("_", "-")
    if over is None:
        return []
    if end is None:
        return [f"{name} stays as it is: --{flag}-steps has no use without --{flag}-end"]
    if over <= steps:
        return []
    return [
        f"{name} moves over {over:,} steps, but the run has {steps:,}: it does not reach {end:g}; "
        f"lower --{flag}-steps"
    ]


def never_copied(interval: int | None, tau: Number | None, updates: int) -> list[str]:
    """A sentence if ``interval`` changes nothing in a run of so many updates."""
    if interval is None:
        return []
    if tau is not None:
        return [f"targets move by target_tau {tau:g} at every update: target_interval has no use"]
    if updates >= interval:
        return []
    return [
        f"targets are copied every {interval:,} updates, but the run makes {updates:,}: they stay "
        "as they were at the start; lower --target-interval"
    ]


def scaling_remarks(scaling: RewardScaling) -> list[str]:
    """What a user should know of it before the run starts."""
    if scaling != "standardise":
        return []
    return [
        "reward_scaling standardise subtracts the mean reward: where an episode's length is a "
        "choice, what is learned as best need not be best for the environment's own rewards"
    ]


def refuse_many(count: int, limit: int, what: str, flag: str) -> None:
    """UsageError if there are more than ``limit``."""
    if count > limit:
        raise UsageError(f"{count:,} {what}, are more than {limit:,}: raise {flag} to allow them")


def joint_actions_remark(count: int, limit: int) -> list[str]:
    """How many joint actions there are; refused above the limit."""
    refuse_many(count, limit, "joint actions, the product of all |A_i|", "--max-joint-actions")
    return [f"{count:,} joint actions"]
