"""Layers that pick, reorder, repeat or supply values: what other frameworks write as indexing and views.

Axes count from 0, the batch; no layer here touches the batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape, by
from diptych.model.layers.checks import MOST_AXES, check_least, check_rank
from diptych.model.layers.receptive import Axis, Field

__all__ = ["Constant", "Expand", "Gather", "Permute", "Slice"]


class _Arranging(Layer):
    """A layer without arithmetic of its own."""

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Permute(_Arranging):
    """Axis i of the output is axis `order[i]` of the input; the batch stays first, so `order` begins with 0."""

    order: tuple[int, ...]

    def check(self) -> None:
        count = len(self.order)
        if not 2 <= count <= MOST_AXES or self.order[0] != 0 or sorted(self.order) != list(range(count)):
            raise ModelError(
                f"field 'order' must hold the numbers 0 to {max(count - 1, 1)} once each, 0 first, got {self.order}"
            )

    def describe(self) -> list[str]:
        return [f"Permute {' '.join(map(str, self.order))}"]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != len(self.order):
            raise ShapeError(f"takes {len(self.order)} axes, got {len(shape)}: {shape}")
        return tuple(shape[axis] for axis in self.order)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field if self.order[2:] == tuple(range(2, len(self.order))) else None

    def compute(self, x: Array) -> Array:
        return x.transpose(self.order)


@dataclass(frozen=True, eq=False)
class Slice(_Arranging):
    """The values start, start + step, ... before `stop` along `axis`.

    Attributes:
        axis: 1 or more.
        start, stop: As Python counts them, negative ones from the end; `stop` may lie beyond the end.
        step: 1 or more.
    """

    axis: int
    start: int
    stop: int
    step: int = 1

    def check(self) -> None:
        _check_inner_axis(self.axis)
        check_least(self.step, 1, "step")

    def describe(self) -> list[str]:
        stop = "the end" if self.stop == 2**31 - 1 else self.stop
        step = "" if self.step == 1 else f"step {self.step}"
        return [f"Slice {self.start} to {stop}", step, "" if self.axis == 1 else f"axis {self.axis}"]

    def output_shape(self, shape: Shape) -> Shape:
        _need_inner_axis(self.axis, shape)
        kept = range(shape[self.axis])[self.start : self.stop : self.step]
        return (*shape[: self.axis], len(kept), *shape[self.axis + 1 :])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        if self.axis == 1 or not field.spatial:
            return field
        steps = [self.step if axis == self.axis else 1 for axis in range(2, 2 + len(field.axes))]
        return field.windowed([1] * len(steps), steps)

    def compute(self, x: Array) -> Array:
        chosen: Array = x[(slice(None),) * self.axis + (slice(self.start, self.stop, self.step),)]
        return chosen


@dataclass(frozen=True, eq=False)
class Gather(_Arranging):
    """The values at `indices` along `axis`: channel shuffles, reversals, repetitions.

    Attributes:
        indices: (n,), whole numbers of 0 or more, as floats as every weight is.
        axis: 1 or more.
    """

    indices: Array
    axis: int = 1

    def check(self) -> None:
        _check_inner_axis(self.axis)
        check_rank(self.indices, (1,), "indices")
        if not np.all((self.indices >= 0) & (self.indices < 2**24) & (self.indices == np.rint(self.indices))):
            raise ModelError("field 'indices' must hold whole numbers from 0 to 16777215")

    def describe(self) -> list[str]:
        return [f"Gather {len(self.indices)}", "" if self.axis == 1 else f"axis {self.axis}"]

    def output_shape(self, shape: Shape) -> Shape:
        _need_inner_axis(self.axis, shape)
        largest = int(self.indices.max())
        if largest >= shape[self.axis]:
            raise ShapeError(f"takes the value {largest} along axis {self.axis}, which {shape} does not have")
        return (*shape[: self.axis], len(self.indices), *shape[self.axis + 1 :])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field if self.axis == 1 or not field.spatial else None

    def compute(self, x: Array) -> Array:
        return x.take(self.indices.astype(int), self.axis)


@dataclass(frozen=True, eq=False)
class Expand(_Arranging):
    """Repeats axes of length 1: (N, C, 1, 1) -> (N, *shape); an entry of 1 leaves its axis as it is."""

    shape: tuple[int, ...]

    def check(self) -> None:
        if not 1 <= len(self.shape) < MOST_AXES or any(n < 1 for n in self.shape):
            raise ModelError(
                f"field 'shape' must be 1 to {MOST_AXES - 1} sizes of 1 or more, got {self.shape}"
            )

    def describe(self) -> list[str]:
        return [f"Expand to {by(self.shape)}"]

    def output_shape(self, shape: Shape) -> Shape:
        own = shape[1:]
        fits = len(own) == len(self.shape) and all(
            n in (1, m) or m == 1 for n, m in zip(own, self.shape, strict=True)
        )
        if not fits:
            raise ShapeError(f"cannot repeat {own} to {self.shape}")
        return (shape[0], *map(max, own, self.shape))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def compute(self, x: Array) -> Array:
        return np.broadcast_to(x, self.output_shape(x.shape))


@dataclass(frozen=True, eq=False)
class Constant(_Arranging):
    """The same `value` for every sample, whatever the input: (N, ...) -> (N, *value.shape)."""

    value: Array

    def check(self) -> None:
        check_rank(self.value, range(1, MOST_AXES), "value")

    def describe(self) -> list[str]:
        return [f"Constant {by(self.value.shape)}"]

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *self.value.shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return Field(tuple(Axis(_nothing) for _ in field.axes), spatial=field.spatial)

    def compute(self, x: Array) -> Array:
        return np.broadcast_to(self.value.astype(np.float64), (len(x), *self.value.shape))


def _nothing(n: int) -> int:
    """n values of a constant see no pixel."""
    return 0


def _check_inner_axis(axis: int) -> None:
    if not 1 <= axis < MOST_AXES:
        raise ModelError(f"field 'axis' must be 1 to {MOST_AXES - 1}, got {axis}; the batch stays whole")


def _need_inner_axis(axis: int, shape: Shape) -> None:
    if axis >= len(shape):
        raise ShapeError(f"works along axis {axis}, which {shape} does not have")
