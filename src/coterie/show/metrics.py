"""Names of metrics in words: what is measured, of which play."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coterie.errors import UsageError
from coterie.statistics import Bounds, bounds_by_metric
from coterie.storage.config_file import ABSENT_ONCE
from coterie.text import visible

PLAY = {"eval_sampled": "sampled", "eval": "greedy", "train": "while exploring"}
"""How policies acted, by a metric's first part; sampled play is listed first."""
_WORDS = {
    "return/team_sum": "return of the team (sum over agents)",
    "return/team_mean": "return per agent (mean)",
    "length": "episode length (steps)",
}


def own_metric(config: dict, greedy: bool = False) -> str:
    """The metric that a run is reported by, from its ``config.json``.

    Args:
        greedy: of greedy play, also where the policies are stochastic.
    """
    metric = (ABSENT_ONCE | config)["metric"]
    return metric.replace("eval_sampled/", "eval/") if greedy else metric


def bounds(config: dict, metric: str) -> Bounds | None:
    """What a metric of a run can be at least and at most, from its ``config.json``."""
    if (total := config.get("return_bounds")) is None:
        return None
    low, high = map(float, total)
    counts = config["sizes"].get("action counts")
    if not isinstance(counts, list) or not counts:
        return None
    known = bounds_by_metric((low, high), len(counts))
    return known.get(metric.partition("/")[2])


def check_asked(metric: str | None, greedy: bool) -> None:
    """UsageError where sampled play is asked for by name, and greedy play by a flag."""
    if greedy and metric is not None and metric.startswith("eval_sampled/"):
        raise UsageError(f"{metric} is of sampled play, and --greedy asks for greedy play")


def shared_metrics(configs: Sequence[dict], greedy: bool = False) -> list[str]:
    """Each run's own metric, of one return in every environment.

    Older runs do not name theirs: they are shown by that of a run beside them that does.
    """
    named = {c["environment"]: c["metric"] for c in configs if "metric" in c}
    shown = []
    for config in configs:
        play, what = own_metric(config, greedy).split("/", 1)
        what = named.get(config["environment"], f"/{what}").split("/", 1)[1]
        shown.append(f"{play}/{what}")
    return shown


def in_words(metrics: str | Iterable[str]) -> str:
    """ "return per agent (mean), sampled"; of several that differ in play alone, "as they act"."""
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    pairs = [visible(name).partition("/")[::2] for name in names]
    plays, what = {play for play, _ in pairs}, {what for _, what in pairs}
    if not plays <= PLAY.keys() or len(what) > 1:
        return ", ".join(visible(name) for name in names)
    (measured,) = what
    words = _WORDS.get(measured, measured)
    if measured.startswith("return/agent/"):
        words = f"return of {measured.removeprefix('return/agent/')}"
    if measured.startswith("info/"):
        words = f"{measured.removeprefix('info/')} (reported by the environment)"
    return f"{words}, {PLAY[plays.pop()] if len(plays) == 1 else 'policies as they act'}"
