"""Pools: sliding windows, all positions at once, and as many windows as are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Pads, Shape, by
from diptych.model.layers.checks import check_pads, check_sizes, check_sizes_per_axis, need_spatial, short
from diptych.model.layers.receptive import Extent, Field
from diptych.model.layers.weighted import padding_label, stride_label

__all__ = [
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "MaxPool",
    "MeanPool",
    "WindowRule",
    "pool_windows",
]

_MOST_WINDOWS = 65_536  # of an adaptive pool, along one axis


class _Pool(Layer):
    """What the sliding pools share."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads

    @property
    def spans(self) -> tuple[int, ...]:
        """How many neighbouring values a window reaches over, along each axis."""
        return self.kernel

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", self.stride or self.kernel)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * len(self.kernel))

    def check(self) -> None:
        check_sizes(self.kernel, 3, "kernel")
        check_sizes_per_axis(self.stride, len(self.kernel), 1, "stride")
        check_pads(self.padding, len(self.kernel))

    def describe(self) -> list[str]:
        stride = "" if self.stride == self.kernel else stride_label(self.stride) or "stride 1"
        return [f"{type(self).__name__} {by(self.kernel)}", stride, padding_label(self.padding)]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(len(self.kernel), shape)
        windows = zip(shape[2:], self.padding, self.spans, self.stride, strict=True)
        return (*shape[:2], *[(n + low + high - k) // s + 1 for n, (low, high), k, s in windows])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.windowed(self.spans, self.stride)

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def _windows(self, x: Array, edge: float) -> Array:
        """(N, C, *positions, *kernel): what the window sees at every position, padding filled with `edge`."""
        x = np.pad(x, [(0, 0), (0, 0), *self.padding], constant_values=edge)
        axes = tuple(range(2, x.ndim))
        windows: Array = np.lib.stride_tricks.sliding_window_view(x, self.spans, axes)
        taps = zip(self.spans, self.kernel, strict=True)
        inside = [slice(None, None, (span - 1) // max(k - 1, 1) or 1) for span, k in taps]
        every: Any = (..., *[slice(None, None, s) for s in self.stride], *inside)
        strided: Array = windows[every]
        return strided


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The largest value under the window; padding counts as -inf; sizes are floored.

    Attributes:
        kernel: The size of the window.
        stride: From one window to the next; () for the size of the window.
        padding: Values of -inf around the input.
        dilation: From one value under the window to the next; () for neighbours.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    dilation: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dilation", self.dilation or (1,) * len(self.kernel))

    @property
    def spans(self) -> tuple[int, ...]:
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def dilated(self) -> bool:
        """Whether the window skips values."""
        return self.spans != self.kernel

    def check(self) -> None:
        super().check()
        check_sizes_per_axis(self.dilation, len(self.kernel), 1, "dilation")

    def describe(self) -> list[str]:
        return [*super().describe(), f"dilation {by(self.dilation)}" if self.dilated else ""]

    def compute(self, x: Array) -> Array:
        result: Array = self._windows(x, -np.inf).max(axis=_spatial_axes(x))
        return result


@dataclass(frozen=True, eq=False)
class MeanPool(_Pool):
    """The mean under the window; sizes are floored.

    Attributes:
        kernel: The size of the window.
        stride: From one window to the next; () for the size of the window.
        padding: Zeros around the input.
        count_padding: Whether padded zeros count in the divisor, as in Flux and PyTorch's default.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    count_padding: bool = True

    def describe(self) -> list[str]:
        return [*super().describe(), "" if self.count_padding else "padding not counted"]

    def compute(self, x: Array) -> Array:
        total: Array = self._windows(x, 0).sum(axis=_spatial_axes(x))
        if self.count_padding:
            return total / prod(self.kernel)
        counts = self._windows(np.ones_like(x), 0).sum(axis=_spatial_axes(x))
        result: Array = total / np.maximum(counts, 1)
        return result


class _GlobalPool(Layer):
    """What the global pools share."""

    def check(self) -> None:
        """There is nothing to check."""

    def describe(self) -> list[str]:
        return [type(self).__name__]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 3:
            raise ShapeError(f"takes (N, C, *spatial), got {shape}")
        return (*shape[:2], *(1 for _ in shape[2:]))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class GlobalMaxPool(_GlobalPool):
    """The largest value over all spatial axes, which stay with length 1."""

    def compute(self, x: Array) -> Array:
        result: Array = x.max(axis=_spatial_axes(x), keepdims=True)
        return result


@dataclass(frozen=True, eq=False)
class GlobalMeanPool(_GlobalPool):
    """The mean over all spatial axes, which stay with length 1."""

    def compute(self, x: Array) -> Array:
        result: Array = x.mean(axis=_spatial_axes(x), keepdims=True)
        return result


WindowRule: TypeAlias = Literal["pytorch", "flux"]


class _AdaptivePool(Layer):
    """What the adaptive pools share."""

    output: tuple[int, ...]
    rule: WindowRule

    def check(self) -> None:
        check_sizes(self.output, 3, "output")
        if max(self.output) > _MOST_WINDOWS:  # each is a pair of numbers in `pool_windows`
            raise ModelError(
                f"field 'output' must be at most {_MOST_WINDOWS:,} windows, got {short(self.output)}"
            )

    def describe(self) -> list[str]:
        windows = "Flux's windows" if self.rule == "flux" else ""
        return [f"{type(self).__name__} to {by(self.output)}", windows]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(len(self.output), shape)
        if self.rule == "flux" and any(n < m for n, m in zip(shape[2:], self.output, strict=True)):
            raise ShapeError(f"cannot give {self.output} windows from {shape[2:]}")
        return (*shape[:2], *self.output)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        if entry is None or result is None:
            return None
        if all(m == 1 for m in result[2:]):
            return field.whole()
        sizes = zip(entry[2:], result[2:], strict=True)
        return field.behind([_covered(pool_windows(n, m, self.rule)) for n, m in sizes])

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def _pooled(self, x: Array, pool: Any) -> Array:
        # One axis after the other: a window is a box, so its maximum and its mean are those of its rows.
        for axis, count in enumerate(self.output, start=2):
            windows = pool_windows(x.shape[axis], count, self.rule)
            x = np.stack([pool(x.take(range(*w), axis), axis=axis) for w in windows], axis)
        return x


@dataclass(frozen=True, eq=False)
class AdaptiveMaxPool(_AdaptivePool):
    """The largest value in `output` windows along each axis.

    Attributes:
        output: How many windows, for each spatial axis.
        rule: Which [start, stop) window i of m takes of n values. "pytorch": [floor(i n / m),
            ceil((i + 1) n / m)). "flux": stride n // m and kernel n - (m - 1) stride. They agree where m divides n.
    """

    output: tuple[int, ...]
    rule: WindowRule = "pytorch"

    def compute(self, x: Array) -> Array:
        return self._pooled(x, np.max)


@dataclass(frozen=True, eq=False)
class AdaptiveMeanPool(_AdaptivePool):
    """The mean in `output` windows along each axis; the rules are `AdaptiveMaxPool`'s."""

    output: tuple[int, ...]
    rule: WindowRule = "pytorch"

    def compute(self, x: Array) -> Array:
        return self._pooled(x, np.mean)


def pool_windows(size: int, output: int, rule: str) -> list[tuple[int, int]]:
    """The [start, stop) windows of an adaptive pool along one axis; the rules are `AdaptiveMaxPool`'s."""
    if rule == "flux":
        stride = size // output
        kernel = size - (output - 1) * stride
        return [(i * stride, i * stride + kernel) for i in range(output)]
    return [(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]


def _spatial_axes(x: Array) -> tuple[int, ...]:
    """The spatial axes counted from the end, where those of the window stand too."""
    return tuple(range(2 - x.ndim, 0))


def _covered(windows: Sequence[tuple[int, int]]) -> Extent:
    """Of windows that need not be equally long: the longest stretch that n neighbours cover."""
    starts, stops = [start for start, _ in windows], [stop for _, stop in windows]

    def extent(n: int) -> int:
        beyond = max(n - len(windows), 0)  # what padding adds behind this layer
        inside = min(n, len(windows))
        return beyond + max(b - a for a, b in zip(starts, stops[inside - 1 :], strict=False))

    return extent
