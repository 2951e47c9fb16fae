"""Compiled functions that take an algorithm's numbers as arguments.

So a program that is compiled once serves every learning rate, discount factor and the like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from coterie.learners.contract import Algorithm


class ForAnyNumbers:
    """``function(algorithm, *arguments)``, compiled for any values of ``algorithm.numbers()``.

    Where the algorithm's code needs a value while it is compiled, as ``if self.gamma == 1`` or
    ``f"{self.lr:g}"`` do, they are constants instead. Code that takes an argument for something
    else in silence, as ``isinstance(self.gamma, float)`` does, has none: ``Algorithm.numbers``.

    Args:
        donated: which of ``arguments`` are consumed.
    """

    def __init__(
        self, algorithm: Algorithm, function: Callable[..., Any], donated: tuple[int, ...] = ()
    ):
        def compiled(numbers: dict[str, Any], *arguments: Any) -> Any:
            return function(algorithm.with_numbers(numbers), *arguments)

        compiled.__name__ = function.__name__  # what JAX says of it
        # Python's own floats are weakly typed: they compute as constants would.
        self._numbers, self._decided = algorithm.numbers(), False
        self._compiled = jax.jit(compiled, donate_argnums=tuple(i + 1 for i in donated))

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(self._fitting(arguments), *arguments)

    def lower(self, *arguments: Any) -> Any:
        """What ``jax.jit``'s ``lower`` gives."""
        return self._compiled.lower(self._fitting(arguments), *arguments)

    def _fitting(self, arguments: Any) -> dict[str, float]:
        """The numbers that are arguments: all, or none where one decides what is compiled."""
        if self._numbers and not self._decided:
            try:
                self._compiled.trace(self._numbers, *arguments)  # JAX keeps it: not traced again
            except Exception:  # as constants they compile, or the error is shown then
                self._numbers = {}
        self._decided = True
        return self._numbers
