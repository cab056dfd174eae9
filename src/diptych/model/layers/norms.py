"""Normalisation layers. All of them compute in test mode, with the uncorrected variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from diptych.errors import ModelError, ShapeError
from diptych.model.layers.base import Array, Layer, Shape, by
from diptych.model.layers.checks import (
    MOST_AXES,
    check_axis,
    check_least,
    check_not_negative,
    check_rank,
    check_shape,
    check_sizes,
    need_channels,
)
from diptych.model.layers.elementwise import IDENTITY, Activated, Activation, need_axis
from diptych.model.layers.receptive import Field
from diptych.model.layers.weighted import per_channel, with_bias

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "NormFormula",
    "Normalise",
    "RMSNorm",
]

NormFormula: TypeAlias = Literal["sqrt(var + eps)", "sqrt(var + eps^2)", "std + eps"]


class _ChannelNorm(Activated):
    """What the norms with one scale and one shift for each channel share."""

    scale: Array | None
    shift: Array | None
    mean: Array | None
    variance: Array | None
    epsilon: float

    @property
    def tracked(self) -> bool:
        """Whether stored statistics are used, and not those of the input."""
        return self.mean is not None and self.variance is not None

    def check(self) -> None:
        check_not_negative(self.epsilon, "epsilon")
        if (self.mean is None) != (self.variance is None):
            raise ModelError("fields 'mean' and 'variance' must both be there, or neither")
        for name, array in self.arrays.items():
            check_rank(array, (1,), name)
        for name, array in self._by_channel().items():
            check_shape(array, next(iter(self._by_channel().values())).shape, name)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ShapeError(f"takes (N, C, ...), got {shape}")
        for array in self._by_channel().values():
            need_channels(array.shape[0], shape)
        return shape

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field if self.tracked else field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def _by_channel(self) -> dict[str, Array]:
        """The arrays of shape (C,)."""
        return self.arrays

    def _normalised(self, x: Array, axes: tuple[int, ...]) -> Array:
        """(x - mean) / sqrt(variance + epsilon), by stored statistics for axis 1 or those of `x` over `axes`."""
        if self.mean is not None and self.variance is not None:
            mean, variance = per_channel(self.mean, x), per_channel(self.variance, x)
        else:
            mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
        result: Array = (x - mean) / np.sqrt(variance + self.epsilon)
        return result

    def _affine(self, x: Array) -> Array:
        scaled = x if self.scale is None else x * per_channel(self.scale, x)
        return with_bias(scaled, self.shift)


@dataclass(frozen=True, eq=False)
class BatchNorm(_ChannelNorm):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift for each channel (axis 1), in test mode.

    Attributes:
        scale, shift: (C,), or None for 1 and 0.
        mean, variance: (C,). With both None the batch's own statistics are used.
        epsilon: Added to the variance.
        momentum: Of the running statistics when training goes on, in PyTorch's meaning.
        activation: Applied last.
    """

    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    momentum: float = 0.1
    activation: Activation = IDENTITY

    def describe(self) -> list[str]:
        statistics = "" if self.tracked else "statistics of the batch"
        return [_with_channels("BatchNorm", self.arrays), statistics, _epsilon(self.epsilon)]

    def mixes_samples(self, shape: Shape) -> bool:
        return not self.tracked

    def compute(self, x: Array) -> Array:
        return self._affine(self._normalised(x, (0, *range(2, x.ndim))))


@dataclass(frozen=True, eq=False)
class InstanceNorm(_ChannelNorm):
    """Normalisation of each channel of each sample over its spatial axes.

    Attributes:
        scale, shift: (C,), or None for 1 and 0.
        mean, variance: (C,), tracked statistics that are used instead of the sample's, as in test mode.
        epsilon: Added to the variance.
        activation: Applied last.
    """

    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    activation: Activation = IDENTITY

    def describe(self) -> list[str]:
        statistics = "tracked statistics" if self.tracked else ""
        return [_with_channels("InstanceNorm", self.arrays), statistics, _epsilon(self.epsilon)]

    def compute(self, x: Array) -> Array:
        flat = x.reshape(*x.shape[:2], -1)
        return self._affine(self._normalised(flat, (2,)).reshape(x.shape))


@dataclass(frozen=True, eq=False)
class GroupNorm(_ChannelNorm):
    """Normalisation over groups of channels and all spatial axes of a sample (Wu and He, ECCV 2018).

    Attributes:
        groups: How many groups of neighbouring channels there are; divides the number of channels.
        scale, shift: (C,), or None for 1 and 0.
        mean, variance: (groups,), used instead of a sample's own where a file tracked them (Flux <= 0.12).
        epsilon: Added to the variance.
        activation: Applied last.
    """

    groups: int
    scale: Array | None = None
    shift: Array | None = None
    mean: Array | None = None
    variance: Array | None = None
    epsilon: float = 1e-5
    activation: Activation = IDENTITY

    def check(self) -> None:
        super().check()
        check_least(self.groups, 1, "groups")
        for name in ("mean", "variance"):
            check_shape(self.arrays.get(name), (self.groups,), name)
        for array in self._by_channel().values():
            if array.shape[0] % self.groups:
                raise ModelError(f"{self.groups} groups do not divide {array.shape[0]} channels")

    def describe(self) -> list[str]:
        statistics = "tracked statistics" if self.tracked else ""
        return [f"GroupNorm {self.groups} groups", statistics, _epsilon(self.epsilon)]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) > 1 and shape[1] % self.groups:
            raise ShapeError(f"cannot split {shape[1]} channels into {self.groups} groups")
        return super().output_shape(shape)

    def compute(self, x: Array) -> Array:
        grouped = x.reshape(len(x), self.groups, -1)
        return self._affine(self._normalised(grouped, (2,)).reshape(x.shape))

    def _by_channel(self) -> dict[str, Array]:
        return {name: array for name, array in self.arrays.items() if name in ("scale", "shift")}


class _OverLastAxes(Layer):
    """What the norms over the last axes share."""

    shape: tuple[int, ...]

    def output_shape(self, shape: Shape) -> Shape:
        if shape[len(shape) - len(self.shape) :] != self.shape:
            raise ShapeError(f"normalises the last axes {self.shape}, got {shape}")
        return shape

    def mixes_samples(self, shape: Shape) -> bool:
        return len(self.shape) == len(shape)

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.whole()

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class LayerNorm(_OverLastAxes, Activated):
    """Normalisation over the last `len(shape)` axes, then scale and shift of that shape.

    The divisor differs between Flux versions: <= 0.14 "std + eps", 0.15 to 0.16.10 "sqrt(var + eps^2)",
    PyTorch and Flux >= 0.16.11 "sqrt(var + eps)". The deviation is the uncorrected one.

    Attributes:
        shape: The sizes of the last axes.
        scale, shift: Of that shape, or None for 1 and 0.
        epsilon, formula: The divisor.
        activation: Applied last.
    """

    shape: tuple[int, ...]
    scale: Array | None = None
    shift: Array | None = None
    epsilon: float = 1e-5
    formula: NormFormula = "sqrt(var + eps)"
    activation: Activation = IDENTITY

    def check(self) -> None:
        check_not_negative(self.epsilon, "epsilon")
        check_sizes(self.shape, MOST_AXES, "shape")
        for name, array in self.arrays.items():
            check_shape(array, self.shape, name)

    def describe(self) -> list[str]:
        return [f"LayerNorm {by(self.shape)}", _divisor(self.formula), _epsilon(self.epsilon)]

    def compute(self, x: Array) -> Array:
        result = _standardised(x, tuple(range(-len(self.shape), 0)), self.epsilon, self.formula)
        result = result if self.scale is None else result * self.scale
        return result if self.shift is None else result + self.shift


@dataclass(frozen=True, eq=False)
class RMSNorm(_OverLastAxes):
    """x / sqrt(mean(x^2) + epsilon) over the last `len(shape)` axes (Zhang and Sennrich, NeurIPS 2019), then a scale.

    Attributes:
        shape: The sizes of the last axes.
        scale: Of that shape, or None for 1.
        epsilon: Added to the mean of the squares.
    """

    shape: tuple[int, ...]
    scale: Array | None = None
    epsilon: float = 1e-5

    def check(self) -> None:
        check_not_negative(self.epsilon, "epsilon")
        check_sizes(self.shape, MOST_AXES, "shape")
        check_shape(self.scale, self.shape, "scale")

    def describe(self) -> list[str]:
        return [f"RMSNorm {by(self.shape)}", _epsilon(self.epsilon)]

    def compute(self, x: Array) -> Array:
        squares = np.square(x).mean(axis=tuple(range(-len(self.shape), 0)), keepdims=True)
        result: Array = x / np.sqrt(squares + self.epsilon)
        return result if self.scale is None else result * self.scale


@dataclass(frozen=True, eq=False)
class Normalise(Layer):
    """Normalisation along one axis without weights: mean 0 and deviation 1, by `LayerNorm`'s formulas.

    Flux's `normalise` works along Julia's last axis, which is the batch: axis 0 here.
    """

    axis: int = 0
    epsilon: float = 1e-5
    formula: NormFormula = "sqrt(var + eps)"

    def check(self) -> None:
        check_not_negative(self.epsilon, "epsilon")
        check_axis(self.axis)

    def describe(self) -> list[str]:
        return [f"Normalise along axis {self.axis}", _divisor(self.formula), _epsilon(self.epsilon)]

    def output_shape(self, shape: Shape) -> Shape:
        need_axis(self.axis, shape)
        return shape

    def mixes_samples(self, shape: Shape) -> bool:
        return self.axis in (0, -len(shape))

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field.along(self.axis)

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def compute(self, x: Array) -> Array:
        return _standardised(x, (self.axis,), self.epsilon, self.formula)


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float, formula: NormFormula) -> Array:
    """Mean 0 and deviation 1 over `axes`."""
    variance = x.var(axis=axes, keepdims=True)
    divisor = {
        "sqrt(var + eps)": np.sqrt(variance + epsilon),
        "sqrt(var + eps^2)": np.sqrt(variance + epsilon**2),
        "std + eps": np.sqrt(variance) + epsilon,
    }[formula]
    result: Array = (x - x.mean(axis=axes, keepdims=True)) / divisor
    return result


def _with_channels(name: str, arrays: dict[str, Array]) -> str:
    return " ".join([name, *map(str, sorted({array.shape[0] for array in arrays.values()}))])


def _divisor(formula: NormFormula) -> str:
    return "" if formula == "sqrt(var + eps)" else f"divided by {formula}"


def _epsilon(epsilon: float) -> str:
    return "" if abs(epsilon / 1e-5 - 1) < 1e-6 else f"epsilon {epsilon:g}"


@dataclass(frozen=True, eq=False)
class LocalResponseNorm(Layer):
    """x / (bias + alpha * mean of x^2 over neighbouring channels)^beta (Krizhevsky et al., NeurIPS 2012).

    The mean divides by the whole number of neighbours also at the first and last channels, where some are missing.

    Attributes:
        before, after: How many channels before and after its own take part; a window is before + 1 + after.
        alpha, beta, bias: As in the formula.
    """

    before: int
    after: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    @property
    def size(self) -> int:
        """The number of channels in a window."""
        return self.before + 1 + self.after

    def check(self) -> None:
        check_least(self.before, 0, "before")
        check_least(self.after, 0, "after")

    def describe(self) -> list[str]:
        numbers = f"alpha {self.alpha:g}, beta {self.beta:g}, bias {self.bias:g}"
        return [f"LocalResponseNorm {self.before}+1+{self.after} channels", numbers]

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ShapeError(f"takes (N, C, ...), got {shape}")
        return shape

    def receptive_field(self, field: Field, entry: Shape | None, result: Shape | None) -> Field | None:
        return field

    def multiply_adds(self, entry: Shape, result: Shape) -> int:
        return 0

    def reach(self, channels: int) -> tuple[int, int]:
        """How many of the channels before and after are there at most, of so many in all."""
        return min(self.before, channels - 1), min(self.after, channels - 1)

    def compute(self, x: Array) -> Array:
        channels = x.shape[1]
        sides = [(0, 0)] * x.ndim
        sides[1] = self.reach(channels)
        squares = np.pad(x**2, sides)
        total = sum(squares[:, i : i + channels] for i in range(sum(sides[1]) + 1))
        result: Array = x / (self.bias + self.alpha / self.size * total) ** self.beta
        return result
