"""Particle environments, equal to ``mpe2`` 1.1.1 within rounding.

Every module here that defines a scenario (a class of ``Particles``) is found by its name: the
file ``simple_spread.py`` is ``mpe/simple-spread``. Observations, rewards, options and quirks:
``docs/environments-mpe.md``.

Source: Lowe et al., NeurIPS 2017; Mordatch and Abbeel, AAAI 2018; Terry et al., NeurIPS 2021.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import asdict, dataclass, fields
from typing import Annotated

from coterie.envs.mpe.particles import Particles
from coterie.errors import UsageError
from coterie.settings import Agents, Range, Share, TimeLimit
from coterie.text import did_you_mean


def scenarios() -> dict[str, type[Particles]]:
    """Every scenario by its name."""
    return {
        m.name.replace("_", "-"): found
        for m in pkgutil.iter_modules(__path__)
        for found in vars(importlib.import_module(f"{__name__}.{m.name}")).values()
        if inspect.isclass(found)
        and issubclass(found, Particles)
        and found.__module__.endswith(f".{m.name}")
        and not inspect.isabstract(found)
    }


FAMILY = "mpe"
EXAMPLES = tuple(scenarios())


@dataclass(frozen=True)
class Options:
    """Settings of the family; those not given are as in the original.

    Attributes:
        time_limit: steps after which an episode is truncated.
        n: agents, and landmarks, of simple-spread (3); of simple-adversary (2), which has its
            adversary besides.
        local_ratio: weight of an agent's own part of the reward in simple-spread and
            simple-reference (0.5).
        num_good: hunted agents of simple-tag (1).
        num_adversaries: hunting agents of simple-tag (3).
        num_obstacles: landmarks of simple-tag (2).
        continuous_actions: agents decide how strongly they push in each direction, and say each
            word, by numbers between 0 and 1.
    """

    time_limit: TimeLimit = 25
    n: Agents | None = None
    local_ratio: Share | None = None
    num_good: Agents | None = None
    num_adversaries: Agents | None = None
    num_obstacles: Annotated[int, Range(0, 1000)] | None = None
    continuous_actions: bool = False


def make(variant: str, options: Options) -> Particles:
    """The scenario ``mpe/<variant>``.

    Raises:
        UsageError: there is none of that name, or an option is not its own or impossible.
    """
    known = scenarios()
    if variant not in known:
        hint = did_you_mean(variant, known, f"; it has {', '.join(known)}", cutoff=0.4)
        raise UsageError(f"mpe has no scenario {variant!r}{hint}")
    own = [field.name for field in fields(known[variant])]
    given = {name: value for name, value in asdict(options).items() if value is not None}
    for name in given:
        if name not in own:
            raise UsageError(f"mpe/{variant} has no option {name!r}; it has {', '.join(own)}")
    try:
        return known[variant](**given)
    except UsageError as error:
        raise UsageError(f"mpe/{variant}: {error}") from None
