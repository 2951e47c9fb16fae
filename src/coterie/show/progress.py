"""The live display of training, on standard error."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text



class _Column(ProgressColumn):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self.name, "")), style="cyan")


class TrainDisplay:
    """Reports of a run as a progress bar on a terminal, as plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Column("steps"),
            _Column("rate"),
            _Column("score"),
            _Column("left"),
            console=self.console,
        )
        self.task: Any = None
        self.first: tuple[int, float] | None = None
        self.total = 1

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        handler = getattr(self, f"_{event}", None)
        if handler:
            handler(facts)

    def __enter__(self) -> TrainDisplay:
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def _start(self, facts: dict[str, Any]) -> None:
        game, seeds = facts["game"], facts["seeds"]
        spec = game.spec
        self.total = facts["steps"]
        say = self.console.print
        say(
            f"[bold]{facts['algorithm']}[/] on [bold]{facts['environment']}[/]: "
            f"{spec.n_agents} agents, {_plural(seeds, 'seed')}, {facts['steps']:,} steps each"
        )
        pays = {
            "individual": "each agent its own",
            "sum": "common, the sum over agents",
            "mean": "common, the mean over agents",
        }[game.reward]
        z = {
            "none": "",
            "state": f" · z: environment state ({game.central_size})",
            "joint": f" · z: joint observation ({game.central_size})",
        }[game.central]
        say(f"{facts['mode']} · reward: {pays}{z} · memory: {_bytes(facts['bytes'])}")
        say("[dim]compiling ...[/]")

    def _warning(self, facts: dict[str, Any]) -> None:
        self.console.print(f"[yellow]warning[/]: {facts['sentence']}")

    def _progress(self, facts: dict[str, Any]) -> None:
        steps, seconds = facts["env_steps"], facts["seconds"]
        if not self.live:
            return
        if self.task is None:
            self.progress.start()
            self.task = self.progress.add_task("training", total=self.total)
            self.first = (steps, seconds)
            return
        assert self.first is not None
        rate = (steps - self.first[0]) / max(seconds - self.first[1], 1e-9)
        left = max(self.total - steps, 0) / rate if rate else 0.0
        self.progress.update(
            self.task,
            completed=steps,
            steps=f"{short(steps)}/{short(self.total)} steps",
            rate=f"{short(rate)} steps/s",
            score=_score(facts),
            left=f"{_clock(left)} left",
        )

    def _evaluation(self, facts: dict[str, Any]) -> None:
        if not self.live:
            self.console.print(f"{short(facts['env_steps']):>7} steps  {_score(facts)}")

    def _end(self, facts: dict[str, Any]) -> None:
        self.progress.stop()
        run = facts["run"]
        took = f"{short(facts['env_steps'])} steps a seed in {_clock(facts['seconds'])}"
        if facts["stopped"]:
            where = f"; continue with: coterie resume {run.path}" if run.path else ""
            self.console.print(f"[yellow]stopped[/] after {took}, everything kept{where}")
            return
        self.console.print(f"[green]done[/]: {took}")


def short(value: float) -> str:
    """1234567 as 1.23M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _score(facts: dict[str, Any]) -> str:
    words = {"eval/return/team_sum": "greedy return", "train/return/team_sum": "exploring"}
    return "  ".join(f"{word} {facts[k]:.3f}" for k, word in words.items() if k in facts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("s" if count != 1 else "")


__all__ = ["TrainDisplay", "short"]
