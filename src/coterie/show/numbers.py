"""How numbers are written in sentences and tables, on the terminal and on pages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import SupportsFloat

FEW_SEEDS = 5
"""So many seeds' steps are listed one by one."""

NOTHING = "\N{EN DASH}"
"""Where there is no number."""


def number(value: SupportsFloat | None) -> str:
    """A number as a reader writes it: at most four significant digits, and a true minus sign; a
    dash where there is none."""
    if value is None:
        return NOTHING
    value = float(value)
    text = f"{value:.0f}" if 1e4 <= abs(value) < 1e8 else f"{value:.4g}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def interval(ends: Sequence[SupportsFloat] | None) -> str:
    """The ends of an interval, with the decimals that its width calls for; nothing if None."""
    if not ends:
        return ""
    low, high = map(float, ends)
    places = 1 - math.floor(math.log10(high - low)) if high > low else 3
    places = min(max(places, 0), 4)
    return " to ".join(number(round(x, places)) for x in (low, high))


def proportion(count: int, of: int) -> str:
    """How many of how many, and what share of all that could be it stands for: "20 of 20 (83 to
    100%)"; the interval is the exact 95% one of a proportion."""
    from coterie.statistics import proportion_interval  # needs SciPy

    _, low, high = proportion_interval(count, of)
    return f"{count} of {of} ({100 * float(low):.0f} to {100 * float(high):.0f}%)"


def of_steps(steps: Sequence[int | None]) -> str:
    """Environment steps that each seed's policy was trained for: ", of step 4,000", ", of steps
    4,000, 1,000 (by seed)"; of many seeds only the range; nothing where a run does not say."""
    if not steps or None in steps:
        return ""
    known = [k for k in steps if k is not None]
    if len(set(known)) == 1:
        return f", of step {known[0]:,}"
    if len(known) <= FEW_SEEDS:
        return f", of steps {', '.join(f'{k:,}' for k in known)} (by seed)"
    return f", of steps {min(known):,} to {max(known):,}"


def folded(values: Iterable[float | None]) -> str:
    """All the numbers, equal ones once: "7 (18 times), 6 (2 times)"; a dash where there is none."""
    counts = Counter(None if x is None else round(x, 6) for x in values)
    each = ((number(x), k) for x, k in counts.items())
    return ", ".join(f"{x} ({k} times)" if k > 1 else x for x, k in each)


def decimals(values: Iterable[float | int]) -> int:
    """How many decimals a column of numbers needs: four digits of the largest one, at least 1."""
    sizes = [abs(x) for x in values if math.isfinite(x)]
    if all(x == round(x) for x in sizes):
        return 0
    return 3 if max(sizes) < 10 else 2 if max(sizes) < 100 else 1


def written(x: float | int, places: int) -> str:
    """A number as people write it: a true minus sign, thousands apart, no negative zero."""
    if not math.isfinite(x):
        return NOTHING if math.isnan(x) else ("∞" if x > 0 else "−∞")
    text = f"{x:,.{places}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def listed(values: Iterable[float | int], places: int) -> str:
    """Numbers one after the other: 1.50, −2.00."""
    return ", ".join(written(x, places) for x in values)


def two_decimals(x: float) -> str:
    """A reward in a few characters, with a true minus sign."""
    text = f"{x:.2f}" if abs(x) < 1000 else f"{x:.0f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def short(value: float | int) -> str:
    """1234567 as 1.23M."""
    for unit_size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit_size:
            return f"{value / unit_size:.3g}{unit}"
    return f"{value:.0f}"


def clock(seconds: float | int) -> str:
    """0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float | int) -> str:
    """Bytes, in a unit that suits them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.3g} MB"


def plural(count: int, word: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count:,} {word}" + "s" * (count != 1)
