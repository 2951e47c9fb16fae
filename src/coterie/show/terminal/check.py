"""What a check of an environment found, for the terminal (rich)."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from coterie.python_envs.check.findings import Report
from coterie.show.numbers import plural
from coterie.show.terminal.console import line
from coterie.spec import EnvSpec


def render_check(report: Report) -> RenderableType:
    """What the environment promises, how it was played, the findings, and the verdict."""
    parts: list[RenderableType] = [line(report.environment, style="bold")]
    if report.spec is not None:
        parts += [Padding(_promises(report.spec), (0, 0, 0, 2)), line(_played(report), style="dim")]
    if report.algorithms:
        parts.append(Padding(line(report.algorithms), (0, 0, 0, 2)))
    if report.findings:
        parts += [line(), _findings(report)]
    violations = sum(finding.violation for finding in report.findings)
    verdict = plural(violations, "violation") if violations else "no violation"
    style = "bold red" if violations else "bold green"
    return Group(*parts, line(), line(verdict, style=style))


def _promises(spec: EnvSpec) -> Table:
    table = Table("agent", "observation", "actions", box=None, pad_edge=False, header_style="dim")
    actions = map(str, spec.actions or spec.action_counts)
    seen = map(str, spec.observations or spec.observation_sizes)
    for agent, shape, own in zip(spec.agents, seen, actions, strict=True):
        table.add_row(line(agent), shape, own)
    state = str(spec.central_size) if spec.central_size else "none: z is the joint observation"
    table.add_row(line("state", style="dim"), state, "")
    return table


def _played(report: Report) -> str:
    lengths = report.lengths
    each = (
        f"{plural(len(lengths), 'whole episode')} of {_range(lengths)} steps"
        if lengths
        else "no whole episode"
    )
    steps = f"{report.steps} steps in all, repetitions included"
    return f"{each}; {steps}, {1000 * report.step_seconds:.2g} ms each"


def _range(lengths: tuple[int, ...]) -> str:
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f"{low} to {high}"


def _findings(report: Report) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in report.findings:
        kind, style = ("violation", "red") if finding.violation else ("warning", "yellow")
        table.add_row(line(kind, style=style), line(finding))
    return table
