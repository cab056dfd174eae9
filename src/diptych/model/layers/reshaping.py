"""Layers that move, repeat or add values: reshapes, padding and enlargement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Pads, Shape, by
from diptych.model.layers.checks import MOST_AXES, check_least, check_pads, check_sizes, need_spatial
from diptych.model.layers.receptive import Extent, Field, itself, spread
from diptych.model.layers.weighted import padding_label

__all__ = [
    "NUMPY_PAD",
    "Flatten",
    "Pad",
    "PadMode",
    "PixelShuffle",
    "Reshape",
    "Upsample",
    "sample_positions",
]


class _Reshaping(Layer):
    """A layer without arithmetic of its own."""

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Flatten(_Reshaping):
    """(N, C, H, W) -> (N, C·H·W), the last axis fastest, as in PyTorch and, reversed, in Flux."""

    def check(self) -> None:
        """There is nothing to check."""

    def describe(self) -> list[str]:
        return ["Flatten"]

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], math.prod(shape[1:]))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return Field(field.axes, spatial=False)

    def compute(self, x: Array) -> Array:
        return x.reshape(self.output_shape(x.shape))


@dataclass(frozen=True, eq=False)
class Reshape(_Reshaping):
    """(N, ...) -> (N, *shape); one entry may be -1. The batch axis always stays."""

    shape: tuple[int, ...]

    def check(self) -> None:
        many, free = len(self.shape) > MOST_AXES, self.shape.count(-1) > 1
        if many or free or any(n < 1 and n != -1 for n in self.shape):
            raise ModelError(f"field 'shape' must be sizes of 1 or more, one of them -1, got {self.shape}")

    def describe(self) -> list[str]:
        return [f"Reshape {by('?' if n == -1 else n for n in self.shape)}"]

    def output_shape(self, shape: Shape) -> Shape:
        total, known = math.prod(shape[1:]), math.prod(n for n in self.shape if n != -1)
        free = self.shape.count(-1)
        if free > 1 or known == 0 or total % known or (not free and total != known):
            raise ShapeError(f"cannot make {self.shape} of {total} values a sample, from {shape}")
        return (shape[0], *(total // known if n == -1 else n for n in self.shape))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return None  # which values are neighbours now is not known

    def compute(self, x: Array) -> Array:
        return x.reshape(self.output_shape(x.shape))


PadMode: TypeAlias = Literal["zero", "constant", "reflect", "symmetric", "replicate", "wrap"]

# What `numpy.pad` calls each.
NUMPY_PAD: Mapping[PadMode, Any] = {
    "zero": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "wrap": "wrap",
}


@dataclass(frozen=True, eq=False)
class Pad(_Reshaping):
    """Extends the spatial axes.

    Attributes:
        padding: How many values at the (low, high) end of each spatial axis. With mode "zero" a negative
            number takes values away.
        mode: "reflect" does not repeat the edge value and "symmetric" does, "replicate" repeats nothing else;
            "constant" puts `value`.
        value: For the mode "constant".
    """

    padding: Pads
    mode: PadMode = "zero"
    value: float = 0.0

    def check(self) -> None:
        if not 1 <= len(self.padding) <= 3:
            raise ModelError(f"field 'padding' must hold 1 to 3 pairs, got {len(self.padding)}")
        check_pads(self.padding, len(self.padding))
        if math.isnan(self.value) or (self.value != 0 and self.mode != "constant"):
            raise ModelError(
                f"field 'value' must be a number, 0 unless the mode is constant, got {self.value}"
            )

    def describe(self) -> list[str]:
        kind = f"Pad {self.mode}" + (f" {self.value:g}" if self.mode == "constant" else "")
        return [kind, padding_label(self.padding).removeprefix("padding ")]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(len(self.padding), shape)
        for n, pads in zip(shape[2:], self.padding, strict=True):
            limit = {"reflect": n - 1, "symmetric": n, "wrap": n}.get(self.mode)
            if limit is not None and max(pads) > limit:
                raise ShapeError(
                    f"pads by {max(pads)} with mode {self.mode}, which needs a larger input than {n}"
                )
        return (*shape[:2], *[n + low + high for n, (low, high) in zip(shape[2:], self.padding, strict=True)])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def compute(self, x: Array) -> Array:
        sizes = zip(x.shape[2:], self.padding, strict=True)
        kept = x[:, :, *(slice(max(0, -low), n + min(0, high)) for n, (low, high) in sizes)]
        added = [(max(0, low), max(0, high)) for low, high in self.padding]
        more = {"constant_values": self.value} if self.mode == "constant" else {}
        result: Array = np.pad(kept, [(0, 0), (0, 0), *added], mode=NUMPY_PAD[self.mode], **more)
        return result


@dataclass(frozen=True, eq=False)
class Upsample(_Reshaping):
    """Enlarges the spatial axes by `scale` or to `size`; exactly one of them is given.

    Attributes:
        scale: One positive factor for each spatial axis.
        size: One output size for each spatial axis.
        mode: "nearest" reads index floor(i n / m); "linear" interpolates (bilinear for images).
        align_corners: For "linear": corners aligned, as Flux's `:bilinear` has them, instead of half-pixel
            centres.
    """

    scale: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    mode: Literal["nearest", "linear"] = "nearest"
    align_corners: bool = False

    def __post_init__(self) -> None:
        if bool(self.scale) == bool(self.size):
            raise ValueError("Upsample takes either scale or size")

    def check(self) -> None:
        if self.size:
            check_sizes(self.size, 3, "size")
        elif len(self.scale) > 3 or not all(0 < s < math.inf for s in self.scale):
            raise ModelError(f"field 'scale' must be 1 to 3 positive numbers, got {self.scale}")

    def describe(self) -> list[str]:
        target = f"to {by(self.size)}" if self.size else by(f"{s:g}" for s in self.scale)
        return [f"Upsample {target}", self.mode, "corners aligned" if self.align_corners else ""]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(len(self.size or self.scale), shape)
        if self.size:
            return (*shape[:2], *self.size)
        return (*shape[:2], *[int(n * s) for n, s in zip(shape[2:], self.scale, strict=True)])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        if entry is None or result is None:
            return None
        return field.behind([self._extent(n, m) for n, m in zip(entry[2:], result[2:], strict=True)])

    def _extent(self, size: int, output: int) -> Extent:
        """Positions lie size / output apart; linear interpolation reads the value before and the one after."""
        if size == output:
            return itself
        if self.mode == "nearest":
            return lambda n: ceil((n - 1) * size / output) + 1
        gap = (size - 1) / max(output - 1, 1) if self.align_corners else size / output
        return lambda n: min(ceil((n - 1) * gap) + 2, max(size, n))

    def compute(self, x: Array) -> Array:
        # One axis after the other: each new value lies between two old ones.
        for axis, size in enumerate(self.output_shape(x.shape)[2:], start=2):
            n = x.shape[axis]
            if self.mode == "nearest":
                x = x.take([i * n // size for i in range(size)], axis)
                continue
            positions = np.array(sample_positions(n, size, self.align_corners))
            low = positions.astype(int)
            share = (positions - low).reshape(-1, *[1] * (x.ndim - axis - 1))
            x = (1 - share) * x.take(low, axis) + share * x.take(np.minimum(low + 1, n - 1), axis)
        return x


def sample_positions(size: int, output: int, align_corners: bool) -> list[float]:
    """Where, in 0 ... size - 1, linear upsampling to `output` values reads along one axis."""
    if align_corners:
        return [i * (size - 1) / max(output - 1, 1) for i in range(output)]
    return [min(max((i + 0.5) * size / output - 0.5, 0.0), size - 1.0) for i in range(output)]


@dataclass(frozen=True, eq=False)
class PixelShuffle(_Reshaping):
    """(N, C r^k, *spatial) -> (N, C, *spatial r), PyTorch's channel order, over k spatial axes."""

    factor: int

    def check(self) -> None:
        check_least(self.factor, 1, "factor")

    def describe(self) -> list[str]:
        return [f"PixelShuffle {self.factor}"]

    def output_shape(self, shape: Shape) -> Shape:
        r, rank = self.factor, len(shape) - 2
        if rank < 1:
            raise ShapeError(f"takes (N, C, *spatial), got {shape}")
        if shape[1] % r**rank:
            raise ShapeError(f"needs a multiple of {r}^{rank} channels, got {shape}")
        return (shape[0], shape[1] // r**rank, *[n * r for n in shape[2:]])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.behind([spread(self.factor, self.factor)] * len(field.axes))

    def compute(self, x: Array) -> Array:
        rank, factor = x.ndim - 2, self.factor
        split = x.reshape(len(x), -1, *[factor] * rank, *x.shape[2:])
        pairs = [axis for i in range(rank) for axis in (2 + rank + i, 2 + i)]  # each size, then its factor
        return split.transpose(0, 1, *pairs).reshape(self.output_shape(x.shape))
