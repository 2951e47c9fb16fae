"""``coterie list``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie.cli.printing import answer_json, say


@dataclass(frozen=True)
class ListArgs:
    """Lists algorithms with their mode of training and execution, environments, and experiments of
    the lecture."""

    json: bool = False
    """One JSON document instead of tables."""


MODES = {
    "decentralised training and execution": "decentralised",
    "centralised training, decentralised execution": "CTDE",
    "centralised training and execution": "central",
}


def command_list(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.algorithms import algorithms, title
    from coterie.envs import families
    from coterie.extras import how_to_install
    from coterie.jax_envs import EXAMPLES, installed
    from coterie.jax_envs import names as names_of
    from coterie.lecture import experiments
    from coterie.naming import PACKAGES

    found = {
        "algorithms": [
            {"name": name, "mode": cls.mode, "common_reward": cls.common_reward,
             "title": title(cls), "about": (cls.__doc__ or "").strip().splitlines()[0]}
            for name, cls in algorithms().items()
        ],
        "environments": [f"{f}/{v}" for f, m in families().items() for v in m.EXAMPLES],
        "lecture": [{"name": name, "title": item.title} for name, item in experiments().items()],
    }  # fmt: skip
    if parsed.run.json:
        packages = {package: names_of(package) for package in installed()}
        return answer_json(found | {"packages": packages})
    from rich.table import Column, Table

    from coterie.show.terminal.console import line

    def bold(text: str, colour: str = "") -> Any:
        return line(text, style=f"bold {colour}")

    first = Column(bold("algorithm"))
    table = Table(first, "mode", "reward", "", box=None, pad_edge=False)
    for a in found["algorithms"]:
        kind = "common" if a["common_reward"] else "any"
        title = line(a["title"], style="dim")
        table.add_row(bold(a["name"], "cyan"), MODES[a["mode"]], kind, title)
    homes = Table.grid(padding=(0, 2, 0, 0))
    homes.add_column(no_wrap=True)
    homes.add_column()
    for name, module in families().items():
        homes.add_row(bold(f"{name}/", "cyan"), "  ".join(module.EXAMPLES))
    for package in PACKAGES:
        there = package in installed()
        more = "and others" if there else how_to_install(package)
        some = "  ".join((*EXAMPLES[package], "")) if there else ""
        homes.add_row(bold(f"{package}:", "cyan"), line(some, (more, "dim")))
    where = ("(a JAX or a Python environment; docs/your-environment.md)", "dim")
    homes.add_row(bold("yours"), line("package.module:callable ", where))
    homes.add_row(bold("Python"), "gymnasium:ID  pettingzoo:MODULE")
    table.add_row(
        bold("yours"), "", "", line("module:Class (docs/add-an-algorithm.md)", style="dim")
    )
    legend = "CTDE: centralised training, decentralised execution. Common: one reward for all."
    lessons = Table.grid(padding=(0, 2, 0, 0))
    for name, item in experiments().items():
        lessons.add_row(bold(name, "cyan"), line(item.title, style="dim"))
    say(
        table, line(legend, style="dim"), "", bold("environments"), homes,
        "", bold("experiments of the lecture"), lessons,
    )  # fmt: skip
    return None
