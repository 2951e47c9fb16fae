"""What a check of an environment found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from coterie.spec import EnvSpec


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        sentence: what, and what to change.
        violation: it breaks a promise; otherwise it is suspected, harmless here, or slow.
        agent: whose, where it is an agent's own.
        step: of the episode where it was seen first; 0 is the reset.
    """

    sentence: str
    violation: bool = True
    agent: str | None = None
    step: int | None = None

    def __str__(self) -> str:
        when = {None: "", 0: "reset"}.get(self.step, f"step {self.step}")
        whose = f"agent {self.agent}" if self.agent is not None else ""
        where = ", ".join(word for word in (when, whose) if word)
        return f"{where}: {self.sentence}" if where else self.sentence


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        spec: what the environment promises; ``None`` where it could not be opened.
        lengths: steps of the episodes that were played to their end.
        steps: how many were taken in all.
        step_seconds: what a step took, the median, in seconds.
        algorithms: a sentence on which algorithms can play, as far as actions and their masks go;
            empty where it could not be opened.
    """

    environment: str
    findings: tuple[Finding, ...]
    spec: EnvSpec | None = None
    lengths: tuple[int, ...] = ()
    steps: int = 0
    step_seconds: float = 0.0
    algorithms: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that breaks a promise."""
        return not any(finding.violation for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}


class Beat(NamedTuple):
    """Told before a call of the environment."""

    call: str
    step: int | None
