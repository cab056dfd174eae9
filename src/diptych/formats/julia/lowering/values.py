"""What expressions of Julia stand for while they are lowered: values that depend on the input, and all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.formats.graph import Value
from diptych.formats.julia.expressions import Name
from diptych.formats.julia.lowering.sizes import Shape
from diptych.model.layers import Array, Layer

__all__ = [
    "COLON",
    "Flow",
    "Made",
    "Pending",
    "SizeOf",
    "SomeSize",
    "Test",
    "array_of",
    "is_number",
    "number",
    "whole",
    "wholes",
]

COLON = Name(":")


@dataclass(frozen=True, eq=False)
class Flow:
    """A value that depends on the input.

    Attributes:
        value: In the graph, batch first.
        shape: As it is seen, in our order; None if not even the number of axes is known.
        order: Axis i, as it is seen, is axis `order[i]` of the value; None for the same order.
        summed: For a sum: what is summed, and the product of the sizes that it goes over.
    """

    value: Value
    shape: Shape | None
    order: tuple[int, ...] | None = None
    summed: tuple[Flow, tuple[int, ...], Any] | None = None

    @property
    def rank(self) -> int | None:
        """The number of axes."""
        return None if self.shape is None else len(self.shape)


class Pending:
    """A size, an index or a range that is known only where it is used."""


@dataclass(frozen=True)
class SizeOf(Pending):
    """`size(x, axis)`, counted from 1, of an array whose number of axes is not known."""

    axis: int


class Shares(Pending):
    """The second of the values that an attention gives."""


class SomeSize(Pending):
    """A size that is computed of others, and is not known."""


@dataclass(frozen=True, eq=False)
class Test:
    """A comparison of two items, of which one is a `Flow`, number by number: ">", "<", ">=" or "<="."""

    sign: str
    left: Any
    right: Any


@dataclass(frozen=True, eq=False)
class Made:
    """A layer that the code makes and calls, such as `MaxPool((2, 2))`."""

    layers: tuple[Layer, ...]


def is_number(item: Any) -> bool:
    """Whether an item is a real number that is known."""
    return isinstance(item, (bool, int, float, np.number, np.bool_)) and not np.iscomplexobj(item)


def number(item: Any) -> float | None:
    """A real number that is known, or None."""
    if isinstance(item, np.ndarray) and item.ndim == 0:
        item = item[()]
    return float(item) if is_number(item) and abs(float(item)) < 1e30 else None


def whole(item: Any) -> int | None:
    """A whole number that is known, or None."""
    good = isinstance(item, (int, np.integer)) and not isinstance(item, bool)
    return int(item) if good and abs(int(item)) < 2**31 else None


def wholes(item: Any) -> tuple[int, ...] | None:
    """A whole number, or a tuple or vector of them, or None."""
    parts: Sequence[Any] = item if isinstance(item, (tuple, list, range)) else (item,)
    if isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "iu":
        parts = [int(n) for n in item]
    found = [n for part in parts if (n := whole(part)) is not None]
    return tuple(found) if len(found) == len(parts) and len(parts) <= 4096 else None


def array_of(item: Any) -> Array | None:
    """A constant array, or a number, in our order; None for anything else."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "fiub":
        return item
    return np.asarray(item, np.float64) if is_number(item) else None
