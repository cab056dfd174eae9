"""Convolutions, dense layers and other layers that multiply by weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Pads, Shape, by
from diptych.model.layers.checks import (
    MOST_AXES,
    check_least,
    check_pads,
    check_rank,
    check_shape,
    check_sizes_per_axis,
    need_channels,
    need_spatial,
)
from diptych.model.layers.elementwise import IDENTITY, Activated, Activation
from diptych.model.layers.receptive import Field, spread

__all__ = [
    "Bilinear",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Embedding",
    "PReLU",
    "Reduction",
    "Scale",
    "padding_label",
    "per_channel",
    "stride_label",
    "with_bias",
]


@dataclass(frozen=True, eq=False)
class Conv(Activated):
    """Cross-correlation over 1 to 3 spatial axes, then the activation.

    Output size: floor((size + low + high - dilation (kernel - 1) - 1) / stride) + 1.

    Attributes:
        weight: (out, in / groups, *kernel).
        bias: (out,), or None.
        stride, dilation: One number of 1 or more for each spatial axis.
        padding: Zeros put around the input; for other edges put a `Pad` in front.
        groups: Channels are split into so many groups, each with kernels of its own.
        activation: Applied to the sum.
    """

    weight: Array
    bias: Array | None = None
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    activation: Activation = IDENTITY

    def __post_init__(self) -> None:
        rank = self.weight.ndim - 2
        object.__setattr__(self, "stride", self.stride or (1,) * rank)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * rank)
        object.__setattr__(self, "dilation", self.dilation or (1,) * rank)

    def check(self) -> None:
        check_rank(self.weight, (3, 4, 5), "weight")
        outputs, rank = self.weight.shape[0], self.weight.ndim - 2
        check_least(self.groups, 1, "groups")
        if outputs % self.groups:
            raise ModelError(f"{self.groups} groups do not divide {outputs} output channels")
        check_shape(self.bias, (outputs,), "bias")
        check_sizes_per_axis(self.stride, rank, 1, "stride")
        check_pads(self.padding, rank)
        check_sizes_per_axis(self.dilation, rank, 1, "dilation")

    def describe(self) -> list[str]:
        outputs, inputs, *kernel = self.weight.shape
        return [
            f"Conv {by(kernel)}",
            f"{inputs * self.groups} -> {outputs}",
            stride_label(self.stride),
            padding_label(self.padding),
            _unless(self.dilation, 1, "dilation"),
            f"groups {self.groups}" if self.groups > 1 else "",
            "" if self.bias is not None else "no bias",
        ]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(self.weight.ndim - 2, shape)
        need_channels(self.weight.shape[1] * self.groups, shape)
        kernel = self.weight.shape[2:]
        windows = zip(shape[2:], self.padding, kernel, self.dilation, self.stride, strict=True)
        sizes = [(n + low + high - d * (k - 1) - 1) // s + 1 for n, (low, high), k, d, s in windows]
        return (shape[0], self.weight.shape[0], *sizes)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        kernels = zip(self.weight.shape[2:], self.dilation, strict=True)
        return field.windowed([d * (k - 1) + 1 for k, d in kernels], self.stride)

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return prod(result) * prod(map(int, self.weight.shape[1:]))

    def compute(self, x: Array) -> Array:
        # The sum over kernel taps of (weight at the tap) @ (input shifted to the tap).
        outputs, per_group, *kernel = self.weight.shape
        sizes = self.output_shape(x.shape)[2:]
        x = np.pad(x, [(0, 0), (0, 0), *self.padding])
        x = x.reshape(len(x), self.groups, per_group, *x.shape[2:])
        weight = self.weight.astype(np.float64).reshape(self.groups, -1, per_group, *kernel)
        total = np.zeros((len(x), self.groups, outputs // self.groups, prod(sizes)))
        for tap in np.ndindex(*kernel):
            seen = x[_touched(tap, sizes, self.stride, self.dilation)]
            total += weight[(..., *tap)] @ seen.reshape(*seen.shape[:3], -1)
        return with_bias(total.reshape(len(x), outputs, *sizes), self.bias)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Activated):
    """The adjoint of `Conv` (PyTorch's ConvTransposeNd), then the activation.

    Output size: (size - 1) stride - low - high + dilation (kernel - 1) + 1 + output_padding.

    Attributes:
        weight: (in, out / groups, *kernel).
        bias: (out,), or None.
        padding: Crops the full output at (low, high).
        output_padding: Lengthens it at the high end.
        stride, dilation, groups, activation: As `Conv`'s.
    """

    weight: Array
    bias: Array | None = None
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    activation: Activation = IDENTITY

    def __post_init__(self) -> None:
        rank = self.weight.ndim - 2
        object.__setattr__(self, "stride", self.stride or (1,) * rank)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * rank)
        object.__setattr__(self, "output_padding", self.output_padding or (0,) * rank)
        object.__setattr__(self, "dilation", self.dilation or (1,) * rank)

    def check(self) -> None:
        check_rank(self.weight, (3, 4, 5), "weight")
        inputs, rank = self.weight.shape[0], self.weight.ndim - 2
        check_least(self.groups, 1, "groups")
        if inputs % self.groups:
            raise ModelError(f"{self.groups} groups do not divide {inputs} input channels")
        check_shape(self.bias, (self.weight.shape[1] * self.groups,), "bias")
        check_sizes_per_axis(self.stride, rank, 1, "stride")
        check_pads(self.padding, rank)
        check_sizes_per_axis(self.dilation, rank, 1, "dilation")
        check_sizes_per_axis(self.output_padding, rank, 0, "output_padding")

    def describe(self) -> list[str]:
        inputs, outputs, *kernel = self.weight.shape
        return [
            f"ConvTranspose {by(kernel)}",
            f"{inputs} -> {outputs * self.groups}",
            stride_label(self.stride),
            padding_label(self.padding),
            _unless(self.output_padding, 0, "output padding"),
            _unless(self.dilation, 1, "dilation"),
            f"groups {self.groups}" if self.groups > 1 else "",
            "" if self.bias is not None else "no bias",
        ]

    def output_shape(self, shape: Shape) -> Shape:
        need_spatial(self.weight.ndim - 2, shape)
        need_channels(self.weight.shape[0], shape)
        kernel = self.weight.shape[2:]
        parts = zip(
            shape[2:], self.stride, self.padding, kernel, self.dilation, self.output_padding, strict=True
        )
        sizes = [
            (n - 1) * s - low - high + d * (k - 1) + 1 + extra for n, s, (low, high), k, d, extra in parts
        ]
        return (shape[0], self.weight.shape[1] * self.groups, *sizes)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        axes = zip(self.weight.shape[2:], self.dilation, self.stride, strict=True)
        return field.behind([spread(d * (k - 1) + 1, s) for k, d, s in axes])

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return prod(entry) * prod(map(int, self.weight.shape[1:]))

    def compute(self, x: Array) -> Array:
        # Every input value spreads the kernel, times itself, over the output; then the edges are cropped.
        inputs, per_group, *kernel = self.weight.shape
        sizes, outputs = x.shape[2:], per_group * self.groups
        result_sizes = self.output_shape(x.shape)[2:]
        # Room for every tap, and for `output_padding` beyond the last one.
        room = [m + low + high for m, (low, high) in zip(result_sizes, self.padding, strict=True)]
        weight = self.weight.astype(np.float64)
        weight = weight.reshape(self.groups, inputs // self.groups, per_group, *kernel)
        x = x.reshape(len(x), self.groups, inputs // self.groups, -1)
        full = np.zeros((len(x), self.groups, per_group, *room))
        for tap in np.ndindex(*kernel):
            product = weight[(..., *tap)].swapaxes(1, 2) @ x
            place = _touched(tap, sizes, self.stride, self.dilation)
            full[place] += product.reshape(*product.shape[:3], *sizes)
        low = [pads[0] for pads in self.padding]
        cropped = full[_touched(low, result_sizes, [1] * len(low), [1] * len(low))]
        return with_bias(cropped.reshape(len(x), outputs, *result_sizes), self.bias)


def _touched(tap: Sequence[int], sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """An index of the last axes: where one kernel tap meets the long side, for `sizes` on the short one."""
    axes = zip(tap, sizes, stride, dilation, strict=True)
    return (..., *[slice(t * d, t * d + s * (m - 1) + 1, s) for t, m, s, d in axes])


def _over_last_axis(weight: Array, shape: Shape) -> Shape:
    outputs, inputs = weight.shape[:2]
    if shape[-1] != inputs:
        raise ShapeError(
            f"takes {inputs} features on the last axis, got {shape[-1]} in {shape}; "
            "the input has another size than the model was made for"
        )
    return (*shape[:-1], outputs)


@dataclass(frozen=True, eq=False)
class Dense(Activated):
    """activation(x W^T + b) over the last axis.

    Attributes:
        weight: (out, in).
        bias: (out,), or None.
        activation: Applied to the sum.
    """

    weight: Array
    bias: Array | None = None
    activation: Activation = IDENTITY

    def check(self) -> None:
        check_rank(self.weight, (2,), "weight")
        check_shape(self.bias, (self.weight.shape[0],), "bias")

    def describe(self) -> list[str]:
        outputs, inputs = self.weight.shape
        return [f"Dense {inputs} -> {outputs}", "" if self.bias is not None else "no bias"]

    def output_shape(self, shape: Shape) -> Shape:
        return _over_last_axis(self.weight, shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return prod(result) * int(self.weight.shape[1])

    def compute(self, x: Array) -> Array:
        result: Array = x @ self.weight.astype(np.float64).T
        return result if self.bias is None else result + self.bias


@dataclass(frozen=True, eq=False)
class Bilinear(Activated):
    """activation(x W x + b) over the last axis: output k is the sum of weight[k, i, j] x[i] x[j].

    Attributes:
        weight: (out, in, in).
        bias: (out,), or None.
        activation: Applied to the sum.
    """

    weight: Array
    bias: Array | None = None
    activation: Activation = IDENTITY

    def check(self) -> None:
        check_rank(self.weight, (3,), "weight")
        outputs, first, second = self.weight.shape
        if first != second:
            raise ModelError(f"one input cannot be both of {first} and of {second} features")
        check_shape(self.bias, (outputs,), "bias")

    def describe(self) -> list[str]:
        outputs, inputs, _ = self.weight.shape
        return [f"Bilinear {inputs} -> {outputs}", "" if self.bias is not None else "no bias"]

    def output_shape(self, shape: Shape) -> Shape:
        return _over_last_axis(self.weight, shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        result: Array = np.einsum("...i,kij,...j->...k", x, self.weight.astype(np.float64), x)
        return result if self.bias is None else result + self.bias


@dataclass(frozen=True, eq=False)
class Scale(Activated):
    """activation(x * scale + bias); both are broadcast against the last axes of x."""

    scale: Array
    bias: Array | None = None
    activation: Activation = IDENTITY

    def check(self) -> None:
        for name, array in self.arrays.items():
            check_rank(array, range(MOST_AXES + 1), name)

    def describe(self) -> list[str]:
        return [f"Scale {by(self.scale.shape)}", "" if self.bias is not None else "no bias"]

    def output_shape(self, shape: Shape) -> Shape:
        for name, array in self.arrays.items():
            own = array.shape
            fits = all(o in (1, s) for o, s in zip(own[::-1], shape[::-1], strict=False))
            if len(own) > len(shape) or not fits:
                what = "scales by" if name == "scale" else "adds"
                raise ShapeError(f"{what} an array of shape {own}, which does not fit {shape}")
        return shape

    def mixes_samples(self, shape: Shape) -> bool:
        return any(a.ndim == len(shape) and a.shape[0] > 1 for a in self.arrays.values())  # each has its own

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        result: Array = x * self.scale
        return result if self.bias is None else result + self.bias


@dataclass(frozen=True, eq=False)
class PReLU(Layer):
    """x where it is positive, elsewhere slope * x; the slope, (C, 1, 1) for images, meets the last axes of x."""

    slope: Array

    def check(self) -> None:
        check_rank(self.slope, range(1, MOST_AXES), "slope")

    def describe(self) -> list[str]:
        return [f"PReLU {by(self.slope.shape)}"]

    def output_shape(self, shape: Shape) -> Shape:
        own = self.slope.shape
        if len(own) >= len(shape) or any(
            n not in (1, m) for n, m in zip(own[::-1], shape[::-1], strict=False)
        ):
            raise ShapeError(f"has slopes of the shape {own}, which does not fit {shape}")
        return shape

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        return np.where(x > 0, x, x * self.slope)


Reduction: TypeAlias = Literal["none", "mean", "sum", "max"]
_REDUCTIONS: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max}


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Rows of `weight` by their numbers: (N, ...) -> (N, ..., features).

    Attributes:
        weight: (entries, features).
        first: The number of the first row. Numbers outside are taken as the nearest there is.
        reduction: Takes the mean, sum or largest value over the last axis of numbers:
            (N, ..., L) -> (N, ..., features).
    """

    weight: Array
    first: int = 0
    reduction: Reduction = "none"

    def check(self) -> None:
        check_rank(self.weight, (2,), "weight")

    def describe(self) -> list[str]:
        entries, features = self.weight.shape
        reduced = "" if self.reduction == "none" else self.reduction
        return [f"Embedding {entries} -> {features}", reduced, f"from {self.first}" if self.first else ""]

    def output_shape(self, shape: Shape) -> Shape:
        if self.reduction == "none":
            return (*shape, self.weight.shape[1])
        if len(shape) < 2:
            raise ShapeError(f"reduces over an axis of numbers, (N, L), got {shape}")
        return (*shape[:-1], self.weight.shape[1])

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field if self.reduction == "none" else field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        rows = np.clip(np.rint(x) - self.first, 0, len(self.weight) - 1).astype(int)
        found: Array = self.weight.astype(np.float64)[rows]
        return found if self.reduction == "none" else _REDUCTIONS[self.reduction](found, axis=-2)


# ---- Shared by layers with weights or windows ---------------------------------------------------------


def with_bias(x: Array, bias: Array | None) -> Array:
    """x plus one number for each channel."""
    return x if bias is None else x + per_channel(bias, x)


def per_channel(values: Array, x: Array) -> Array:
    """(C,) as float64, shaped to meet axis 1 of `x`."""
    return values.astype(np.float64).reshape(1, -1, *[1] * (x.ndim - 2))


def stride_label(stride: tuple[int, ...]) -> str:
    """The stride where it is not 1."""
    return _unless(stride, 1, "stride")


def padding_label(padding: Pads) -> str:
    """One number where all edges agree, one an axis where its two ends do, else low+high an axis."""
    if not any(edge for pads in padding for edge in pads):
        return ""
    if len({edge for pads in padding for edge in pads}) == 1:
        return f"padding {padding[0][0]}"
    if all(low == high for low, high in padding):
        return f"padding {by(low for low, _ in padding)}"
    return f"padding {' x '.join(f'{low}+{high}' for low, high in padding)}"


def _unless(sizes: tuple[int, ...], default: int, name: str) -> str:
    if set(sizes) == {default}:
        return ""
    return f"{name} {sizes[0] if len(set(sizes)) == 1 else by(sizes)}"
