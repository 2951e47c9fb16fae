"""How numbers are written in sentences and tables, on the terminal and on pages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import SupportsFloat


def number(value: SupportsFloat | None) -> str:
    """A number as a reader writes it: at most four significant digits, and a true minus sign; a
    dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
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


def folded(values: Iterable[float | None]) -> str:
    """All the numbers, equal ones once: "7 (18 times), 6 (2 times)"; a dash where there is none."""
    counts = Counter(None if x is None else round(x, 6) for x in values)
    each = ((number(x), k) for x, k in counts.items())
    return ", ".join(f"{x} ({k} times)" if k > 1 else x for x, k in each)
