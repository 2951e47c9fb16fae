"""The display of training, on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
from rich.table import Column
from rich.text import Text

from coterie.show.metrics import own_metric
from coterie.show.numbers import clock, number, plural, short, size
from coterie.show.terminal.console import Terminal, line

REWARDS = {
    "individual": "each agent its own",
    "sum": "common, the sum over agents",
    "mean": "common, the mean over agents",
}
RETURNS = {"team_sum": "of the team, the sum over agents", "team_mean": "per agent, the mean"}
CENTRAL = {"state": "the environment's state", "joint": "the joint observation"}


COMPILING = "compiling"


@contextlib.contextmanager
def frames_counted() -> Iterator[Callable[[int], None]]:
    """A live line on standard error, if that is a terminal, which says how many frames there are:
    drawing one can take a tenth of a second."""
    console = Terminal(sys.stderr)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda count: None
        return
    with console.status(line("playing")) as status:
        yield lambda count: status.update(line(f"{plural(count, 'frame')} played"))


class _Words(ProgressColumn):
    """One phrase of the live line, which stays on one line."""

    def __init__(self, field: str, style: str = "") -> None:
        super().__init__(Column(no_wrap=True))
        self.field, self.style = field, style

    def render(self, task: Task) -> Text:
        text = task.fields.get(self.field, "")
        if text == COMPILING:
            text += f" {clock(task.elapsed or 0)}"
        return line(text, style=self.style)


class TrainDisplay:
    """Shows the events that ``coterie.train`` reports."""

    def __init__(self) -> None:
        self.console = Terminal(sys.stderr)
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            _Words("steps"),
            _Words("rate", "dim"),
            _Words("split", "dim"),
            _Words("score", "cyan"),
            _Words("left", "dim"),
            console=self.console,
            transient=True,
            expand=True,
        )
        self.task: Any = None
        self.origin: dict[str, Any] | None = None
        self.facts: dict[str, Any] = {}
        self.total = 1
        self.metric = own_metric({})

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        handler = getattr(self, f"_{event}", None)
        if handler:
            handler(facts)

    def __enter__(self) -> TrainDisplay:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def say(self, *parts: str | tuple[str, str], style: str = "") -> None:
        """One line, never broken; a part is text, or a tuple of text and its style."""
        self.console.print(line(*parts, style=style), soft_wrap=True)

    def _stop(self) -> None:
        if self.task is not None:
            self.bar.stop()
            self.bar.remove_task(self.task)
            self.task = None

    def _start(self, facts: dict[str, Any]) -> None:
        game, seeds, self.total = facts["game"], facts["seeds"], facts["steps"]
        self.metric = own_metric(facts)
        teams = f"{plural(seeds, 'seed')}, {self.total:,} steps" + " each" * (seeds > 1)
        what = ((facts["algorithm"], "bold"), " on ", (facts["environment"], "bold"))
        self.say(*what, f" · {plural(game.players.n_agents, 'agent')} · {teams}")
        self.say(f"{facts['mode']} · {size(facts['bytes'])}", style="dim")
        z = [f"z: {CENTRAL[game.central]}"] if game.central in CENTRAL else []
        sampled = ["policies sampled"] if self.metric.startswith("eval_sampled/") else []
        alone = game.players.n_agents == 1  # what is common to one agent needs no words
        learned = z if alone else [f"reward: {REWARDS[game.reward]}", *z]
        returns = [] if alone else [RETURNS[self.metric.rpartition("/")[2]]]
        for what, parts, joint in (("", learned, " · "), ("returns: ", returns + sampled, ", ")):
            if parts:
                self.say(what + joint.join(parts), style="dim")
        if self.live:
            self.bar.start()
            usual = "usual: 5 to 30 seconds, once"
            self.task = self.bar.add_task("", total=None, steps=COMPILING, rate=usual)

    def _note(self, facts: dict[str, Any]) -> None:
        self.say(facts["sentence"], style="dim")

    def _warning(self, facts: dict[str, Any]) -> None:
        self.say(("warning", "yellow"), f": {facts['sentence']}")

    def _stopping(self, facts: dict[str, Any]) -> None:
        self.say(
            ("stopping", "yellow"),
            " after this chunk, with a checkpoint; ask once more to stop at once",
        )

    def _progress(self, facts: dict[str, Any]) -> None:
        if self.origin is None:  # the first chunk holds the compilation
            self.origin = facts
        self.facts = facts
        if self.task is not None:
            self.bar.update(
                self.task, total=self.total, completed=facts["env_steps"], **self._words(facts)
            )

    def _words(self, facts: dict[str, Any]) -> dict[str, Any]:
        assert self.origin is not None
        steps = facts["env_steps"] - self.origin["env_steps"]
        words = {
            "steps": f"{short(facts['env_steps'])}/{short(self.total)}",
            "score": _exploring(facts, self.metric),
            "split": _split(facts, self.origin),
            "rate": "",
        }
        if steps > 0:
            rate = steps / max(facts["seconds"] - self.origin["seconds"], 1e-9)
            left = max(self.total - facts["env_steps"], 0) / rate
            words |= {"rate": f"{short(rate)} steps/s", "left": f"{clock(left)} left"}
        return words

    def _evaluation(self, facts: dict[str, Any]) -> None:
        words = self._words(self.facts | facts) if self.origin else {}
        shown = ("rate", "split") if self.live else ("rate", "split", "left")
        rest = [words[w] for w in shown if words.get(w)]
        steps = f"{short(facts['env_steps']):>6} steps"
        self.say("  ".join([steps, _score(facts, self.metric), *rest]))

    def _end(self, facts: dict[str, Any]) -> None:
        self._stop()
        took = f"{facts['env_steps']:,} steps in {clock(facts['seconds'])}"
        if facts["stopped"]:
            where = f"; continue with: {facts['resume']}" if facts["resume"] else ""
            self.say(("stopped", "yellow"), f" after {took}{where}")
        else:
            self.say(("done", "green"), f": {took}")


def _score(facts: dict[str, Any], metric: str) -> str:
    """Returns by the run's own metric, the greedy policy's in brackets beside a sampled one's."""
    when, _, what = metric.partition("/")
    shown = f"return {number(facts[metric])}" if metric in facts else ""
    seeds = facts.get("per_seed", {}).get(metric, [])
    if len({number(x) for x in seeds}) > 1:
        shown += f" ({number(min(seeds))} to {number(max(seeds))} over seeds)"
    if when == "eval_sampled" and f"eval/{what}" in facts:
        shown += f" (greedy {number(facts[f'eval/{what}'])})"
    return "  ".join(word for word in (shown, _exploring(facts, metric)) if word)


def _exploring(facts: dict[str, Any], metric: str) -> str:
    """The return of the episodes that are learned from, explored in."""
    name = f"train/{metric.partition('/')[2]}"
    return f"exploring {number(facts[name])}" if name in facts else ""


def _split(facts: dict[str, Any], origin: dict[str, Any]) -> str:
    """What time went to, where environments are stepped outside of the compiled program."""
    names = {word: f"seconds_{word}" for word in ("environment", "acting", "learning")}
    spent = {word: facts[name] - origin[name] for word, name in names.items() if name in facts}
    total = sum(spent.values())
    return " · ".join(f"{word} {100 * s / total:.0f}%" for word, s in spent.items() if total > 0)
