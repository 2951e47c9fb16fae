"""The page of trained runs: curves, final returns, an episode of each, settings, commands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.module_paths import options, path_of
from coterie.runs.api import open_run
from coterie.runs.policy_files import default_policy, saved_steps
from coterie.runs.user_code import Given, named_by, recorded_code
from coterie.show import curves
from coterie.show.film.recording import NoPictures, record
from coterie.show.metrics import bounds, check_asked, in_words, own_metric, shared_metrics
from coterie.show.numbers import decimals, folded, of_steps, plural, written
from coterie.show.report.blocks import (
    Block,
    Cell,
    Command,
    Curves,
    Grid,
    Section,
    Settings,
    Table,
    Text,
    Viewer,
)
from coterie.show.report.html import quoted
from coterie.show.report.of_sweeps import sweep_section
from coterie.show.report.page import check, write_report
from coterie.statistics import summarise
from coterie.storage.files import warn
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.directory import label_in_sweep, runs_of

MOST_CURVES = 12
"""Of a sweep's runs on one environment, the best so many are drawn."""


@dataclass(frozen=True)
class Source:
    """A run as a page reads it.

    Attributes:
        config: what ``config.json`` holds.
        metric: what is shown of it.
        series: the metric at each evaluation, by seed and environment steps.
        steps: environment steps done, per seed.
        absolute: [S] the metric in the final evaluation, of other episodes; None before a run's
            end, and for a metric that is not the run's own.
        results: by ``best`` and ``last``, the final evaluation's summaries; None where there are
            none, as of version 0.1.
        damage: sentences on what could not be read.
    """

    path: Path
    config: dict[str, Any]
    metric: str
    series: dict[int, dict[int, float]]
    steps: int
    absolute: list[float] | None
    results: dict[str, Any] | None = None
    damage: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, metric: str | None = None) -> Source:
        """UsageError, in one sentence, where there is no run or nothing of it can be shown."""
        directory = RunDirectory.open(path)
        config, damage = directory.config(), dict[str, None]()

        def tell(sentence: str) -> None:
            damage[sentence] = None
            warn(sentence)

        own = own_metric(config)
        shown = metric or own
        series = curves.series(path, shown, tell)
        steps, episodes = directory.steps_done(tell), directory.absolute(tell)
        absolute = None
        if episodes is not None and shown == own:
            # Episodes are recorded as sums over agents.
            agents = len(config["sizes"]["action counts"])
            share = agents if own.endswith("team_mean") else 1
            absolute = [float(np.mean(episode)) / share for episode in episodes]
        results = directory.result(config)
        return cls(path, config, shown, series, steps, absolute, results, tuple(damage))

    @cached_property
    def finished(self) -> bool:
        return RunDirectory(self.path).is_finished(self.config)

    @cached_property
    def per_seed(self) -> list[float]:
        """[S] the team return by which a seed is evaluated."""
        if self.absolute is not None:
            return self.absolute
        return [own[max(own)] for _, own in sorted(self.series.items())]

    @property
    def policies(self) -> str:
        """The policies of the final evaluation."""
        return default_policy(self.path)

    @property
    def best_seed(self) -> int:
        """The team with the highest return, whatever metric is shown."""
        if self.absolute is not None:
            return int(np.argmax(self.absolute))
        returns = curves.series(self.path, own_metric(self.config), lambda sentence: None)
        best = max(returns, key=lambda seed: returns[seed][max(returns[seed])])
        return best - self.config["seed"]


def report(
    runs: Sequence[str | Path],
    out: str | Path,
    command: str = "",
    metric: str | None = None,
    greedy: bool = False,
    environment: str | None = None,
    *,
    algorithm: Any = None,
    torso: Any = None,
    head: Any = None,
    python: str | None = None,
) -> Path:
    """Writes the page of some runs, a section an environment; replaces ``out``.

    A sweep has a section of its own, and of its runs only the best one of each algorithm and
    environment is shown with an episode and its settings.

    Args:
        runs: directories of runs, finished or not, and of sweeps.
        command: the command line that asked for it, to be shown.
        metric: a name from ``metrics.jsonl``; each run's own unless given.
        greedy: of a run's own metric, greedy play, also of stochastic policies.
        environment: name of a Python environment, or of one in the user's own code, that may be
            opened to show an episode of the runs on it.
        algorithm, torso, head: the user's own, that may be opened to show an episode of the runs
            with them.
        python: another Python in which the environment of those runs that had one may be opened.

    Raises:
        UsageError: no runs, a missing or damaged one, none with the code that was passed, or
            ``out`` does not end in ``.html``.
    """
    out = Path(out)
    check(out)
    check_asked(metric, greedy)
    if not runs:
        raise UsageError("name at least one run directory to report on")
    paths = [Path(run) for run in runs]
    runs = runs_of(paths)
    of_sweeps = [sweep_section(path, metric) for path in paths]
    chosen = {run for _, best in of_sweeps for run in best}
    configs = [RunDirectory.open(Path(run)).config() for run in runs]
    shown = [metric] * len(runs) if metric else shared_metrics(configs, greedy)
    sources = [Source.read(Path(run), name) for run, name in zip(runs, shown, strict=True)]
    labels = _labels(sources)
    environments = list(dict.fromkeys(s.config["environment"] for s in sources))
    given = {"environment": environment, "algorithm": algorithm, "torso": torso, "head": head}
    given = {word: code for word, code in given.items() if code is not None}
    _check_used(given, configs)
    given |= {"python": python} if python else {}
    sections = [section for section, _ in of_sweeps if section]
    for name in environments:
        own = [(s, labels[k]) for k, s in enumerate(sources) if s.config["environment"] == name]
        sections.append(_section(name, own, greedy, given, chosen))
    if command:
        sections.append(Section("This page", [Command(command)], summary="How it was made."))
    versions = sorted({quoted(s.config.get("coterie", "unknown")) for s in sources})
    facts = {
        "Runs": str(len(sources)),
        "Environments": str(len(environments)),
        "Trained with Coterie": ", ".join(versions),
    }
    title = "Trained teams" if len(environments) > 1 else f"Trained teams on {environments[0]}"
    return write_report(out, title, sections, facts=facts)


def _check_used(given: Given, configs: Sequence[dict[str, Any]]) -> None:
    """UsageError if code was passed that is no run's."""
    names = [named_by(config) for config in configs]
    for word, code in given.items():
        known = dict.fromkeys(each[word] for each in names if word in each)
        if _path(code) not in known:
            theirs = ", ".join(quoted(name) for name in known) or "none"
            raise UsageError(f"no run has the {word} {_path(code)}; theirs: {theirs}")


def _path(code: Any) -> str:
    return code if isinstance(code, str) else path_of(code)


def _labels(sources: Sequence[Source]) -> list[str]:
    """As in plots: the algorithm, and the directory's name where that is not enough."""
    names = curves.labels(
        [(s.path, s.config["algorithm"], s.config["environment"]) for s in sources]
    )
    return [n if s.finished else f"{n} (unfinished)" for n, s in zip(names, sources, strict=True)]


def _section(
    environment: str,
    sources: Sequence[tuple[Source, str]],
    greedy: bool,
    given: Given,
    chosen: Collection[Path],
) -> Section:
    """The runs of an environment; of a sweep, those ``chosen`` are shown in full."""
    full = [(s, label) for s, label in sources if s.path in chosen or not label_in_sweep(s.path)]
    full = full or sources[:MOST_CURVES]
    drawn = _drawn(sources, full)
    lines = [curves.aggregate(label, s.series, bounds(s.config, s.metric)) for s, label in drawn]
    y_title = in_words(s.metric for s, _ in sources)
    left = len(sources) - len(drawn)
    caption = f"The {len(drawn)} runs with the highest returns of {len(sources)}." if left else ""
    blocks: list[Block] = [
        Curves({"Learning curves": lines}, y_title, caption=caption),
        _table(sources),
        Grid([_episode(s, label, greedy, given) for s, label in full], columns=2),
    ]
    for source, label in full:
        asked = source.config.get("command")
        if asked:
            blocks.append(Command(asked, f"Trained **{quoted(label)}**"))
        blocks += [Text(sentence) for sentence in _origin(source.config)]
        blocks.append(Settings(_settings(source), f"Settings of {label}"))
    blocks += [Text(quoted(sentence)) for s, _ in sources for sentence in s.damage]
    late = [label for s, label in sources if not s.finished]
    summary = plural(len(sources), "run") + (f", {len(late)} of them unfinished." if late else ".")
    return Section(quoted(environment), blocks, summary=summary)


def _drawn(
    sources: Sequence[tuple[Source, str]], full: Sequence[tuple[Source, str]]
) -> list[tuple[Source, str]]:
    """The runs whose curves are drawn: as many of a sweep as can be told apart."""
    if len(sources) <= MOST_CURVES or len(full) == len(sources):
        return list(sources)
    ranked = sorted(sources, key=lambda each: -float(np.mean(each[0].per_seed)))
    kept = {s.path for s, _ in [*full, *ranked][:MOST_CURVES]}
    return [each for each in sources if each[0].path in kept]


def _table(sources: Sequence[tuple[Source, str]]) -> Table:
    """What each run came to, over its seeds: its best and its last policies."""
    found = [(s, label, *row) for s, label in sources for row in _outcomes(s)]
    words = [in_words(metric) for _, _, _, metric, _ in found]
    alike = len(set(words)) == 1
    rows: list[list[Cell]] = []
    for (source, label, which, _, s), metric in zip(found, words, strict=True):
        rows.append(
            [quoted(label), *[metric] * (not alike), which, s["mean"], _interval(s),
             s["iqm"] if s["seeds"] > 1 else None, s["seeds"], source.steps, folded(s["per_seed"])]
        )  # fmt: skip
    headers = (
        "run", *["metric"] * (not alike), "policies", "mean", "95% interval", "IQM", "seeds",
        "steps trained", "each seed",
    )  # fmt: skip
    caption = f"{words[0][0].upper()}{words[0][1:]}. " if alike else ""
    caption += (
        "Mean over seeds with its 95% t interval, interquartile mean, and each seed; of one seed "
        "the interval is over its episodes. Best policies are those with the highest return at an "
        "evaluation; they and the last ones are then evaluated on other episodes."
    )
    return Table(headers, rows, caption)


def _outcomes(source: Source) -> list[tuple[str, str, dict[str, Any]]]:
    """Policies in words, the metric, and its summary over seeds; those that stand for the run
    first. Where interests conflict, each agent's return stands for itself."""
    results = source.results
    if results is None or any(source.metric not in each for each in results.values()):
        which = "last evaluation" if source.absolute is None else source.policies
        s = summarise(source.per_seed, bounds(source.config, source.metric))
        return [(which, source.metric, s)]
    metrics = [source.metric]
    play = source.metric.partition("/")[0]
    own = {own_metric(source.config, greedy) for greedy in (False, True)}
    if source.policies == "last" and source.metric in own:
        metrics = [name for name in results["last"] if name.startswith(f"{play}/return/agent/")]
    kinds = sorted(results, key=lambda which: which != source.policies)
    seeds = source.config["seeds"]
    steps = {which: saved_steps(source.path, which, seeds) for which in kinds}
    if None not in steps["best"] and steps["best"] == steps["last"]:
        words = {kinds[0]: f"best and last{of_steps(steps['best'])}"}
    else:
        words = {which: f"{which}{of_steps(steps[which])}" for which in kinds}
    return [(words[w], metric, results[w][metric]) for w in words for metric in metrics]


def _interval(s: dict[str, Any]) -> str | None:
    ends, over = (s["ci95"], "") if s["ci95"] else (s.get("ci95_episodes"), " over episodes")
    if not ends:
        return None
    places = min(3, decimals([x for x in (*s["per_seed"], *ends) if x is not None]))
    return " to ".join(written(x, places) for x in ends) + over


def _episode(source: Source, label: str, greedy: bool, given: Given) -> Block:
    """An episode of the run's best team, or why there is none to be seen."""
    code = recorded_code(source.config)
    again = {word: given[word] for word in code if word in given}
    missing = {
        word: path
        for word, path in code.items()
        if (word not in again if word == "python" else _path(again.get(word, "")) != path)
    }
    if missing:
        return Text(
            f"**{quoted(label)}** needs code that is imported only if you name it: "
            f"`{quoted(options(missing))}` shows an episode."
        )
    try:
        recording = record(
            open_run(source.path, **again), seed=source.best_seed, greedy=greedy or None
        )
    except NoPictures as error:
        return Text(quoted(error))
    seeds = len(source.per_seed)
    caption = f"**{quoted(label)}**, its best team of {seeds}: {quoted(recording.title)}."
    return Viewer(recording, caption, recording.fps)


def _origin(config: dict[str, Any]) -> list[str]:
    """Which run a fork or a warm start goes back to, and what it took or changed."""
    said = []
    if fork := config.get("fork"):
        changes = ", ".join(
            f"{quoted(name)} from {quoted(str(before))} to {quoted(str(now))}"
            for name, (before, now) in fork["changed"].items()
        )
        said.append(
            f"A fork of **{quoted(fork['of'])}** after {fork['env_steps']:,} steps, with other "
            f"settings: {changes}."
        )
    if source := config.get("init"):
        count = len(source["taken"]) + len(source["not_taken"])
        said.append(
            f"Began with the networks of **{quoted(source['of'])}** after {source['env_steps']:,} "
            f"steps: {len(source['taken'])} of {count} arrays were taken."
        )
    return said


def _settings(source: Source) -> dict[str, Any]:
    config = source.config
    named = ("preset", "environment_options", "reward", "central", "steps", "seeds", "seed",
             "versions")  # fmt: skip
    return {
        "algorithm": config["algorithm"],
        **config["settings"],
        **{name: config[name] for name in named if name in config},
    }
