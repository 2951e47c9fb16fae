"""Learning curves: a metric of finished or running runs against environment steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from coterie.envs.scene import PALETTE
from coterie.errors import UsageError
from coterie.show.colours import COLOURS
from coterie.show.lettering import LITERAL, lettered, plot_font
from coterie.show.metrics import bounds, check_asked, in_words, shared_metrics
from coterie.show.numbers import plural
from coterie.statistics import Bounds, mean_interval
from coterie.storage.files import warn
from coterie.storage.run_directory import RunDirectory
from coterie.sweeps.directory import label_in_sweep, runs_of
from coterie.text import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SUFFIXES = (".png", ".pdf", ".svg")

DASHES = ("-", "--", "-.", ":")
_INK, _FAINT, _GRID = (PALETTE[role][0] for role in ("ink", "faint", "rule"))

FEW_SEEDS = 10
"""From so many seeds on, an interval of their mean is drawn in place of the seeds themselves."""
_MAX_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: what the legend calls it.
        steps: [P] environment steps of one seed.
        mean: [P] over seeds.
        low, high: [P] ends of the 95% t interval of the mean; NaN with one seed.
        samples: [S, P] each seed's own line.
    """

    label: str
    steps: Float[np.ndarray, " P"]
    mean: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]
    samples: Float[np.ndarray, "S P"]

    @property
    def seeds(self) -> int:
        """How many seeds it averages."""
        return len(self.samples)


@dataclass(frozen=True)
class Scale:
    """What lies across a figure, other than environment steps.

    Attributes:
        kind: ``linear``, ``log``, or ``names``, where the k-th name stands at k.
        dots: each seed is a dot, and an interval a bar, rather than lines and bands.
        joined: lines join the means.
        seeds: curves are means over seeds, of which it is said how many.
    """

    title: str
    kind: Literal["linear", "log", "names"] = "linear"
    names: tuple[str, ...] = ()
    dots: bool = True
    joined: bool = True
    seeds: bool = True


def plot(
    runs: Sequence[Path],
    out: Path,
    metric: str | None = None,
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    greedy: bool = False,
) -> Path:
    """Draws one line a run, the mean over seeds, in one panel an environment.

    Fewer than ten seeds are drawn as thin lines; more have a band, the 95% interval of their mean.

    Args:
        runs: directories of runs, and of sweeps.
        out: the picture, .png, .pdf or .svg; replaced where it exists.
        metric: a name from ``metrics.jsonl``; each run's own (``own_metric``) unless given.
        title: printed above everything.
        references: horizontal lines by name, such as published numbers.
        greedy: of a run's own metric, greedy play, also of stochastic policies.

    Returns:
        ``out``.

    Raises:
        UsageError: nothing to draw, and why.
    """
    out = Path(out)
    check_picture(out)
    check_asked(metric, greedy)
    runs = runs_of(map(Path, runs))
    if not runs:
        raise UsageError("name at least one run directory to plot")
    configs = [RunDirectory.open(Path(run)).config() for run in runs]
    shown = [metric] * len(runs) if metric else shared_metrics(configs, greedy)
    read = [
        (Path(run), config, series(Path(run), name))
        for run, config, name in zip(runs, configs, shown, strict=True)
    ]
    named = [(run, str(c["algorithm"]), str(c["environment"])) for run, c, _ in read]
    panels: dict[str, list[Curve]] = {}
    titles: dict[str, list[str]] = {}
    for (_, config, data), label, name in zip(read, labels(named), shown, strict=True):
        curve = aggregate(label, data, bounds(config, name))
        panels.setdefault(config["environment"], []).append(curve)
        titles.setdefault(config["environment"], []).append(name)
    words = {environment: in_words(names) for environment, names in titles.items()}
    return save(draw(panels, words, title, references), out)


def check_picture(out: Path) -> None:
    """UsageError where ``save`` could not write."""
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        raise UsageError(
            f"{out} must be a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def save(figure: Figure, out: Path) -> Path:
    """Writes a figure, with the folder that it lies in."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    return out


# ---------------------------------------------------------------------------------------------
# Reading runs
# ---------------------------------------------------------------------------------------------


def series(
    run: Path, metric: str, tell: Callable[[str], None] = warn
) -> dict[int, dict[int, float]]:
    """{seed: {environment steps: value}} of one metric; of equal steps the later line counts.

    Args:
        tell: called with what is damaged in the log; all else is read.

    Raises:
        UsageError: the run has no such metric (naming the nearest), or no evaluation yet.
    """
    found: dict[int, dict[int, float]] = {}
    names: set[str] = set()
    for line in RunDirectory.open(run).lines(tell):
        names |= line.keys()
        value = line.get(metric)
        if value is not None and math.isfinite(value):
            found.setdefault(line["seed"], {})[line["env_steps"]] = float(value)
    if found:
        return found
    kind = metric.partition("/")[0] + "/"
    if kind in ("eval/", "eval_sampled/") and not any(name.startswith("eval") for name in names):
        raise UsageError(f"{run} has no evaluations yet, so nothing to plot")
    hint = did_you_mean(metric, sorted(names), cutoff=0.3)
    raise UsageError(f"{run} has no numbers of a metric {metric!r}{hint}")


def aggregate(
    label: str, data: Mapping[int, Mapping[int, float]], within: Bounds | None = None
) -> Curve:
    """Mean and interval over seeds, on the steps at which every seed has data.

    Seeds report at differing steps: each is interpolated linearly onto all steps any of them
    reported, between the latest first and the earliest last one, so that none is extrapolated.
    Intervals stay ``within`` what the metric can be at least and at most, where that is known.
    """
    steps = [np.array(sorted(own)) for own in data.values()]
    first, last = max(s[0] for s in steps), min(s[-1] for s in steps)
    if first > last:
        raise UsageError(f"the seeds of {label} have no steps in common yet")
    grid = np.unique(np.concatenate(steps)).astype(float)
    grid = grid[(grid >= first) & (grid <= last)]
    if len(grid) > _MAX_POINTS:
        grid = np.linspace(first, last, _MAX_POINTS)
    values = [[own[k] for k in s.tolist()] for own, s in zip(data.values(), steps, strict=True)]
    samples = np.stack([np.interp(grid, s, v) for s, v in zip(steps, values, strict=True)])
    mean, low, high = mean_interval(samples).within(within)
    return Curve(label, grid, mean, low, high, samples)


def labels(named: Sequence[tuple[Path, str, str]]) -> list[str]:
    """The algorithm; where it ran twice on one environment, what its sweep varies, or the run
    directory's name as well."""
    pairs = [(algorithm, environment) for _, algorithm, environment in named]
    return [
        algorithm
        if pairs.count((algorithm, environment)) == 1
        else label_in_sweep(run) or f"{algorithm} · {_name(run)}"
        for run, algorithm, environment in named
    ]


def _name(run: Path) -> str:
    return run.resolve().name


# ---------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------


def draw(
    panels: Mapping[str, Sequence[Curve]],
    y_titles: Mapping[str, str],
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    scale: Scale | None = None,
) -> Figure:
    """A figure of one panel for each environment; a label has one colour throughout.

    ``y_titles`` are by environment, as ``metrics.in_words`` writes them; across lie environment
    steps unless there is a ``scale``.

    Legends stand beside the panels, ordered as the lines end, so that no line is ever covered.
    """
    import matplotlib as mpl  # slow to import

    with mpl.rc_context(LITERAL):
        return _figure(panels, y_titles, title, references or {}, scale)


def _figure(
    panels: Mapping[str, Sequence[Curve]],
    y_titles: Mapping[str, str],
    title: str | None,
    references: Mapping[str, float],
    scale: Scale | None,
) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = 8.0 if columns == 1 else 6.4 * columns
    layout = ConstrainedLayoutEngine(wspace=0.04, hspace=0.06)
    figure = Figure(figsize=(width, 4.2 * rows), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = list(dict.fromkeys(c.label for curves in panels.values() for c in curves))
    looks = {label: _look(k) for k, label in enumerate(labels)}
    for ax, (environment, curves) in zip(axes, panels.items(), strict=False):
        _panel(ax, environment, curves, looks, references, scale)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    alike = len({y_titles[environment] for environment in panels}) == 1
    for k, (ax, environment) in enumerate(zip(axes, panels, strict=False)):
        if k % columns == 0 or not alike:
            # What is measured stands above how policies acted.
            lines = [part for part in y_titles[environment].rpartition(", ")[::2] if part]
            words = ",\n".join(lettered(line, plot_font(), 48) for line in lines)
            ax.set_ylabel(words, color=_INK, fontsize=10.5, labelpad=8)
    if title:
        title = lettered(title, plot_font(bold=True), 70)
        figure.suptitle(title, x=0.012, ha="left", color=_INK, fontsize=14, fontweight="bold")
    figure.supxlabel(_footnote(panels, scale), x=0.988, ha="right", color=_FAINT, fontsize=8)
    return figure


def _look(k: int) -> dict[str, Any]:
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k // len(COLOURS) % 4]}


def _panel(
    ax: Axes,
    environment: str,
    curves: Sequence[Curve],
    looks: Mapping[str, dict[str, Any]],
    references: Mapping[str, float],
    scale: Scale | None,
) -> None:
    entries: list[Line2D] = []
    for curve in sorted(curves, key=lambda c: -c.mean[-1]):
        look = looks[curve.label]
        words = lettered(curve.label, plot_font(), 28)
        words += f" ({plural(curve.seeds, 'seed')})"
        if scale is not None and scale.dots:
            entries += _dots(ax, curve, look, words, scale)
        else:
            entries += _line(ax, curve, look, words)
    for name, value in references.items():
        level = {"color": _FAINT, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 1}
        entries.append(ax.axhline(value, label=lettered(name, plot_font(), 28), **level))
    title = lettered(environment, plot_font(bold=True), 60)
    ax.set_title(title, loc="left", color=_INK, fontsize=11.5, fontweight="bold", pad=9)
    _across(ax, scale)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(_FAINT)
    ax.tick_params(which="both", colors=_INK, labelsize=9.5, length=0)
    _legend(ax, entries)


def _line(ax: Axes, curve: Curve, look: Mapping[str, Any], words: str) -> list[Line2D]:
    """A mean, with lines of its seeds or a band around it."""
    if 1 < curve.seeds < FEW_SEEDS:
        own = {"color": look["color"], "linewidth": 0.8, "alpha": 0.45, "zorder": 2}
        ax.plot(curve.steps, curve.samples.T, label="_seeds", **own)
    elif curve.seeds > 1:
        band = {"color": look["color"], "alpha": 0.16, "lw": 0}
        ax.fill_between(curve.steps, curve.low, curve.high, **band)
    marker = {"marker": "o", "markersize": 5} if len(curve.steps) == 1 else {}
    return ax.plot(curve.steps, curve.mean, linewidth=1.9, label=words, zorder=3, **look, **marker)


def _dots(
    ax: Axes, curve: Curve, look: Mapping[str, Any], words: str, scale: Scale
) -> list[Line2D]:
    """Means as dots, with their seeds and intervals."""
    own = {"color": look["color"], "zorder": 2}
    if curve.seeds > 1:
        seeds = {"linestyle": "none", "marker": "o", "markersize": 4, "alpha": 0.4}
        ax.plot(curve.steps, curve.samples.T, label="_seeds", **own, **seeds)
        known = np.isfinite(curve.low)
        ends = (curve.steps[known], curve.low[known], curve.high[known])
        ax.vlines(*ends, linewidth=1.3, alpha=0.8, **own)
    style = dict(look) if scale.joined else {**look, "linestyle": "none"}
    marks = {"marker": "o", "markersize": 6.5, "linewidth": 1.9, "zorder": 3}
    return ax.plot(curve.steps, curve.mean, label=words, **style, **marks)


def _across(ax: Axes, scale: Scale | None) -> None:
    """The horizontal axis: environment steps unless there is a scale."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    words = lettered(scale.title, plot_font(), 60) if scale else "environment steps"
    ax.set_xlabel(words, color=_INK, fontsize=10.5, labelpad=6)
    ax.margins(x=0.05 if scale else 0.015)
    if scale is None:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    elif scale.kind == "names":
        ax.set_xticks(range(len(scale.names)), [lettered(n, plot_font(), 20) for n in scale.names])
        ax.set_xlim(-0.5, len(scale.names) - 0.5)
    elif scale.kind == "log":
        ax.set_xscale("log")


def _legend(ax: Axes, entries: Sequence[Line2D]) -> None:
    """Beside the panel: the lines and their labels."""
    legend = ax.legend(
        entries, [""] * len(entries), loc="upper left", bbox_to_anchor=(1.0, 1.02),
        frameon=False, fontsize=9.5, labelcolor=_INK,
    )  # fmt: skip
    # Labels that begin with an underscore mean hidden lines to Matplotlib: these are just words.
    for place, drawn in zip(legend.get_texts(), entries, strict=True):
        place.set_text(drawn.get_label())


def _footnote(panels: Mapping[str, Sequence[Curve]], scale: Scale | None) -> str:
    if scale is not None and scale.dots:
        return "small dots: the seeds · large dots: their mean · bars: its 95% t interval"
    return legend([curve for curves in panels.values() for curve in curves])


def legend(curves: Sequence[Curve]) -> str:
    """What the marks of these curves mean; nothing where each line is its only seed."""
    words = []
    if any(curve.seeds > 1 for curve in curves):
        words.append("thick line: mean over seeds")
    if any(1 < curve.seeds < FEW_SEEDS for curve in curves):
        words.append("thin lines: the seeds")
    if any(curve.seeds >= FEW_SEEDS for curve in curves):
        words.append("band: 95% t interval of the mean")
    return " · ".join(words)
