"""Algorithms of a user's own, as a module of theirs; most of them are wrong."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import coterie
from coterie.learners.value_based import ValueBased
from coterie.networks.own import NetworkSetting
from coterie.settings import Range

NUMBER = 3


@dataclass(frozen=True, kw_only=True)
class Half(coterie.VDN):
    """VDN with targets times a factor."""

    factor: Annotated[float, Range(0, 1)] = 0.5
    """What targets are multiplied by."""
    kind: Literal["plain", "odd"] = "plain"

    def step_loss(self, targets, values):
        return (self.factor * targets - values) ** 2


class Inherits(coterie.IDQN):
    """No setting of its own, and no decorator."""


@dataclass(frozen=True, kw_only=True)
class Raises(Half):
    def step_loss(self, targets, values):
        return {}["no such loss"]


@dataclass(frozen=True, kw_only=True)
class Narrow(Half):
    """Takes fewer arguments than it is given."""

    def joint(self, utilities):
        return utilities


@dataclass(frozen=True, kw_only=True)
class Flat(Half):
    """Returns an array of another shape than it should."""

    def joint(self, mixer, utilities, central):
        del mixer, central
        return utilities.sum()


class Breaks(Half):
    def contradictions(self):
        return {}["no such setting"]


class Exits(Half):
    def remarks(self, game):
        raise SystemExit(3)


class Undecorated(coterie.VDN):
    factor: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Untyped(coterie.VDN):
    gamma = 0.5


class Base(ValueBased):
    pass


@dataclass(frozen=True, kw_only=True)
class Whole(ValueBased):
    def joint(self, mixer, utilities, central):
        return utilities.sum(-1, keepdims=True)

    def target(self, batch, next_values):
        return batch.rewards[..., :1]

    def step_loss(self, targets, values):
        return (targets - values) ** 2


class NoMode(Whole):
    common_reward: ClassVar[bool] = True


class NoReward(Whole):
    mode: ClassVar[str] = coterie.VDN.mode


@dataclass(frozen=True, kw_only=True)
class Table(coterie.VDN):
    table: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Call(coterie.VDN):
    call: object = print


@dataclass(frozen=True, kw_only=True)
class Numbers(coterie.VDN):
    choice: Literal[1, 2] = 1


@dataclass(frozen=True, kw_only=True)
class Required(coterie.VDN):
    needed: int


@dataclass(frozen=True, kw_only=True)
class Unknown(coterie.VDN):
    there: "Nowhere" = 3


@dataclass(frozen=True, kw_only=True)
class Steps(coterie.VDN):
    steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Out(coterie.VDN):
    out: int = 3


@dataclass(frozen=True, kw_only=True)
class Name(coterie.VDN):
    name: str = "x"


@dataclass(frozen=True, kw_only=True)
class Encoder(coterie.VDN):
    encoder: NetworkSetting = "own_nets:Net"
    """Kept as it is given, and not used."""


def make():
    class Inner(coterie.VDN):
        pass

    return Inner


Made = make()
