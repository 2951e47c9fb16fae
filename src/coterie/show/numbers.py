"""How numbers are written wherever people read them: terminal, pages, films."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import SupportsFloat


def number(value: SupportsFloat) -> str:
    """A number as a reader writes it: at most four significant digits, and a true minus sign."""
    value = float(value)
    text = f"{value:.0f}" if 1e4 <= abs(value) < 1e8 else f"{value:.4g}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def interval(ends: Sequence[SupportsFloat] | None) -> str:
    """The ends of an interval, to three significant digits; nothing where there is none."""
    return " to ".join(number(float(f"{float(x):.3g}")) for x in ends) if ends else ""


def proportion(count: int, of: int) -> str:
    """How many of how many, and what share of all that could be it stands for: "20 of 20 (83 to
    100%)"; the interval is the exact 95% one of a proportion."""
    from coterie.analysis.statistics import proportion_interval  # needs SciPy

    _, low, high = proportion_interval(count, of)
    return f"{count} of {of} ({100 * float(low):.0f} to {100 * float(high):.0f}%)"


def folded(values: Iterable[float | None]) -> str:
    """All the numbers, equal ones once: "7 (18 times), 6 (2 times)"; None is "diverged"."""
    shown = ("diverged" if x is None else number(float(f"{x:.3g}")) for x in values)
    counts = Counter(shown)
    return ", ".join(f"{x} ({k} times)" if k > 1 else x for x, k in counts.items())
