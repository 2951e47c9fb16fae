"""Shapes of arrays in annotations: those of jaxtyping, where it is installed.

Modules that worker processes read take them from here, because another Python in which
environments run (``--python``) has NumPy and no more than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Bool", "Float", "Float32", "Float64", "Int32", "Int64", "Integer", "Num", "UInt8", "UInt32",
]  # fmt: skip


class Shaped:
    """In place of every kind of array: nothing is checked."""

    def __class_getitem__(cls, shape: Any) -> type[Shaped]:
        return cls


if TYPE_CHECKING:
    from jaxtyping import (
        Bool,
        Float,
        Float32,
        Float64,
        Int32,
        Int64,
        Integer,
        Num,
        UInt8,
        UInt32,
    )  # fmt: skip
else:
    try:
        from jaxtyping import (
            Bool,
            Float,
            Float32,
            Float64,
            Int32,
            Int64,
            Integer,
            Num,
            UInt8,
            UInt32,
        )  # fmt: skip
    except ImportError:
        Bool = Float = Float32 = Float64 = Int32 = Int64 = Integer = Num = UInt8 = UInt32 = Shaped
