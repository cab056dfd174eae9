"""Reductions over any axes but the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape
from diptych.model.layers.checks import MOST_AXES
from diptych.model.layers.receptive import Field

__all__ = ["Reduce", "ReduceKind"]

ReduceKind: TypeAlias = Literal["mean", "sum", "max", "min", "product", "logsumexp"]


def _logsumexp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    total: Array = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else total.squeeze(axis)


_KINDS: dict[str, Callable[..., Array]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "product": np.prod,
    "logsumexp": _logsumexp,
}


@dataclass(frozen=True, eq=False)
class Reduce(Layer):
    """One number in place of all values along some axes.

    Attributes:
        kind: "mean", "sum", "max", "min", "product" or "logsumexp", the logarithm of the sum of exponentials.
        axes: 1 or more each, in order.
        keep: Whether the reduced axes stay, with length 1.
    """

    kind: ReduceKind
    axes: tuple[int, ...]
    keep: bool = True

    def check(self) -> None:
        if not self.axes or sorted(set(self.axes)) != list(self.axes) or not self.axes[0] >= 1:
            raise ModelError(f"field 'axes' must hold numbers of 1 or more in order, got {self.axes}")
        if self.axes[-1] >= MOST_AXES:
            raise ModelError(f"field 'axes' must be below {MOST_AXES}, got {self.axes}")

    def describe(self) -> list[str]:
        where = f"over {'axes' if len(self.axes) > 1 else 'axis'} {' '.join(map(str, self.axes))}"
        return [f"Reduce {self.kind} {where}", "" if self.keep else "axes dropped"]

    def output_shape(self, shape: Shape) -> Shape:
        if self.axes[-1] >= len(shape):
            raise ShapeError(f"works along axis {self.axes[-1]}, which {shape} does not have")
        return tuple(
            1 if i in self.axes else n for i, n in enumerate(shape) if self.keep or i not in self.axes
        )

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        if not field.spatial or (self.axes == (1,) and self.keep):
            return field
        return None if self.axes == (1,) else field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        result: Array = _KINDS[self.kind](x, axis=self.axes, keepdims=self.keep)
        return result
