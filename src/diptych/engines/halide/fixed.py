"""8-bit filters in integer arithmetic of 16 bits, where bounds from the weights prove that it is accurate enough.

A value is a whole number times a power of two, the unit of its layer, as fine as the largest possible value allows. A
product with a weight below 1 is rounded to whole units, by one instruction for 32 pixels. What rounding can add up to
is followed through the layers: with at most `MOST` levels at the end, no pixel differs by more than one level from
the result in floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import halide as hl
import numpy as np

from diptych.engines.halide.lowering import pads_first
from diptych.engines.halide.program import Loops, buffer_of, threads
from diptych.engines.tiled.preparing import PreparedFilter, leaves
from diptych.model import layers as L
from diptych.model.layers import Array, Chain, Layer

__all__ = ["FixedProgram", "Plan", "planned"]

MOST = 0.5  # levels
_LARGEST = 32767
_MOST_WEIGHTS = 600  # other than 0; with more, arithmetic in floats is as fast and compiles sooner
_MOST_CHANNELS = 48
_LANES = 32
_ROWS = 64  # of a strip
_FOLDS = ("identity", "relu", "abs", "clamp")

Expr: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class _Step:
    """A layer in integers: a sum of weighted inputs and a bias, then an activation.

    Attributes:
        weight: In units of the output for a unit of the input, (C', C / groups, h, w).
        bias: In units of the output, (C',), whole numbers.
        groups, dilation: As in `Conv`.
        activation: Its name, one of `_FOLDS`.
        limits: Of a clamp, in units.
    """

    weight: Array
    bias: Array
    groups: int
    dilation: tuple[int, ...]
    activation: str
    limits: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Plan:
    """A filter in integers.

    Attributes:
        steps: The layers.
        first: The binary logarithm of the units in a level of the picture.
        last: The same for the result.
        error: The largest possible distance, in levels, of the result before rounding from that in real numbers.
        offset: (row, column) of the first pixel that is read, relative to the pixel of the result.
    """

    steps: tuple[_Step, ...]
    first: int
    last: int
    error: float
    offset: tuple[int, int]


def planned(prepared: PreparedFilter, most: float = MOST) -> Plan | None:
    """The filter in integers; None where the error could be more than `most` levels, or a layer is of another kind."""
    if prepared.peak != 255 or prepared.divisor != 1 or not _is_sequence(prepared.layers):
        return None
    layers = leaves(pads_first(prepared.layers))
    pads = [layer for layer in layers if isinstance(layer, L.Pad)]
    rest = layers[len(pads) :]
    if any(isinstance(layer, L.Pad) for layer in rest) or len({pad.mode for pad in pads}) > 1:
        return None
    convs = [_as_conv(layer, prepared.channels[0] or 3) for layer in rest]
    if not convs or any(conv is None for conv in convs):
        return None
    made = [conv for conv in convs if conv is not None]
    if sum(np.count_nonzero(conv.weight) for conv in made) > _MOST_WEIGHTS:
        return None
    if any(len(conv.weight) > _MOST_CHANNELS for conv in made):
        return None
    channels = made[0].weight.shape[1] * made[0].groups
    follower = _Follower(channels)
    steps = tuple(follower.step(conv) for conv in made)
    whole = all((conv.weight == np.rint(conv.weight)).all() for conv in made if conv.groups)
    if follower.scale < 1 or follower.error.max() > (
        0.0 if whole else most
    ):  # floats add up whole numbers exactly
        return None
    top, left = (sum(pad.padding[axis][0] for pad in pads) for axis in (0, 1))
    return Plan(steps, _Follower.FIRST, follower.scale, float(follower.error.max()), (-top, -left))


def _is_sequence(layer: Layer) -> bool:
    return not layer.children or (isinstance(layer, Chain) and all(map(_is_sequence, layer.children)))


def _as_conv(layer: Layer, channels: int) -> L.Conv | None:
    """The layer as a convolution; None where it is of another kind."""
    if isinstance(layer, L.Conv):
        return layer if layer.activation.name in _FOLDS else None
    if isinstance(layer, L.Activation):
        scale, shift = layer.parameters if layer.name == "affine" else (1.0, 0.0)
        if layer.name not in (*_FOLDS, "affine"):
            return None
        ones = np.full((1, 1, 1, 1), scale, np.float32)
        activation = L.Activation() if layer.name == "affine" else layer
        return L.Conv(
            ones, np.array([shift], np.float32), activation=activation, groups=0
        )  # for any number of channels
    return None


class _Follower:
    """Follows the bounds and the error of values through the layers, and chooses their units.

    Attributes:
        scale: The binary logarithm of the units in a level.
        low, high: The bounds of each channel in levels.
        error: How far each channel can be from its value in real numbers, in levels.
        grain: The binary logarithm of a number of units of which all values are multiples.
    """

    FIRST = 6  # 255 levels are 16,320 units

    def __init__(self, channels: int) -> None:
        self.scale = self.grain = self.FIRST
        self.low, self.high, self.error = np.zeros(channels), np.full(channels, 255.0), np.zeros(channels)

    def step(self, layer: L.Conv) -> _Step:
        channels = len(self.low)
        groups = layer.groups or channels
        weight = np.asarray(layer.weight, np.float64)
        if not layer.groups:
            weight = np.repeat(weight, channels, axis=0)
        bias = np.zeros(len(weight)) if layer.bias is None else np.asarray(layer.bias, np.float64)
        bias = np.broadcast_to(bias, (len(weight),))
        inputs = np.arange(len(weight))[:, None] // (len(weight) // groups) * weight.shape[1] + np.arange(
            weight.shape[1]
        )
        low, high, error = (of[inputs][:, :, None, None] for of in (self.low, self.high, self.error))
        axes = (1, 2, 3)
        above = np.where(weight > 0, weight * high, weight * low).sum(axes) + bias
        below = np.where(weight > 0, weight * low, weight * high).sum(axes) + bias
        carried = (np.abs(weight) * error).sum(axes)
        largest = float(max(np.abs(above + carried).max(), np.abs(below - carried).max(), 1e-9)) + 1e-6
        scale = min(
            math.floor(math.log2(_LARGEST / (largest + 0.5))), 12
        )  # with half a level more, for rounding
        units = weight * 2.0 ** (scale - self.scale)
        kept, lost = _representable(units)
        grains = kept * 2.0**self.grain
        rounded = (grains != np.rint(grains)).sum(axes) * 0.5
        most = 2.0**self.scale * (np.maximum(np.abs(low), np.abs(high)) + error)
        moved = np.rint(bias * 2.0**scale)
        made = rounded + (lost * most).sum(axes) + np.abs(moved - bias * 2.0**scale)
        self.error = carried + made / 2.0**scale
        self.low, self.high, self.scale = below, above, scale
        self.grain = _grain(np.concatenate([grains.ravel(), moved]))
        limits = self._activate(layer.activation)
        return _Step(kept, moved, groups, layer.dilation, layer.activation.name, limits)

    def _activate(self, activation: L.Activation) -> tuple[int, int]:
        limits = (0, 0)
        if activation.name == "relu":
            self.low, self.high = np.maximum(self.low, 0), np.maximum(self.high, 0)
        elif activation.name == "abs":
            largest = np.maximum(np.abs(self.low), np.abs(self.high))
            crossing = (self.low < 0) & (self.high > 0)
            smallest = np.where(crossing, 0, np.minimum(np.abs(self.low), np.abs(self.high)))
            self.low, self.high = smallest, largest
        elif activation.name == "clamp":
            low, high = activation.parameters
            limits = self._limit(low), self._limit(high)
            off = max(self._off(limits[0], low), self._off(limits[1], high))
            self.error = self.error + off
            self.low, self.high = np.clip(self.low, low, high), np.clip(self.high, low, high)
            self.grain = min(self.grain, _grain(np.array(limits)))
        return limits

    def _limit(self, value: float) -> int:
        return int(np.clip(np.rint(value * 2.0**self.scale), -_LARGEST, _LARGEST))

    def _off(self, limit: int, value: float) -> float:
        """By how many levels a limit differs from its value; limits beyond all numbers do nothing."""
        return abs(limit / 2.0**self.scale - value) if abs(limit) < _LARGEST else 0.0


def _grain(numbers: Array) -> int:
    """The binary logarithm of the largest power of two that divides all whole numbers; 0 for other numbers."""
    whole = np.abs(numbers[numbers != 0])
    if not len(whole) or (whole != np.rint(whole)).any() or whole.max() > 2**40:
        return 0
    least = int(np.bitwise_or.reduce(whole.astype(np.int64)))
    return (least & -least).bit_length() - 1


def _representable(units: Array) -> tuple[Array, Array]:
    """The weights as whole numbers plus multiples of 2^-15, and by how much they are off."""
    kept = np.rint(units * 32768) / 32768
    return kept, np.abs(kept - units)


# ---- The loop -----------------------------------------------------------------------------------------

_X, _Y, _C = hl.Var("x"), hl.Var("y"), hl.Var("c")


class FixedProgram:
    """A compiled `Plan`; it is used as a `Program` is.

    Attributes:
        channels: Of the output.
        dtype: Of the output.
        margin: How many pixels beyond the halo are read.
    """

    margin = 0
    dtype = np.uint8

    def __init__(self, plan: Plan, channels: int) -> None:
        self.channels = len(plan.steps[-1].weight)
        self._function = Loops(*_loops(plan, channels))

    def __call__(
        self,
        block: Array,
        at: tuple[int, int],
        size: tuple[int, int],
        result: Array,
        begin: tuple[int, int],
        halo_size: tuple[int, int] = (0, 0),
    ) -> None:
        """See `Program`."""
        rows = max(1, min(_ROWS, -(-result.shape[0] // threads())))
        self._function({"picture": buffer_of(block, at), "rows": rows}, buffer_of(result, begin))


def _loops(plan: Plan, channels: int) -> tuple[Any, ...]:
    """The scheduled output, (c, x, y)."""
    picture = hl.ImageParam(hl.UInt(8), 3, "picture")
    picture.dim(0).set_bounds(0, channels).set_stride(1)
    picture.dim(1).set_stride(channels)
    planes = hl.Func("planes")
    planes[_X, _Y] = _tuple([hl.cast(hl.Int(16), picture[c, _X, _Y]) << plan.first for c in range(channels)])
    made: list[tuple[Any, int, bool]] = [
        (planes, channels, False)
    ]  # functions, channels, read at other pixels
    for number, step in enumerate(plan.steps):
        func, count, _ = made[-1]
        wide = step.weight.shape[2:] != (1, 1)
        made[-1] = (func, count, wide)
        offset = (
            plan.offset
            if number == next((n for n, one in enumerate(plan.steps) if one.weight.shape[2:] != (1, 1)), -1)
            else (0, 0)
        )
        stage = hl.Func(f"stage_{number}")
        stage[_X, _Y] = _tuple(_outputs(step, func, count, offset))
        made.append((stage, len(step.weight), False))
    last, count, _ = made[-1]
    output, rows = hl.Func("filtered"), hl.Param(hl.Int(32), "rows", _ROWS)
    values = [
        hl.cast(hl.UInt(8), hl.clamp(_halved(_read(last, count, _X, _Y, c), plan.last), 0, 255))
        for c in range(count)
    ]
    output[_C, _X, _Y] = values[0] if count == 1 else hl.mux(_C, values)
    strips, row, steps, lanes = (hl.Var(n) for n in ("strips", "row", "steps", "lanes"))
    inwards = hl.TailStrategy.ShiftInwards
    output.bound(_C, 0, count).split(_Y, strips, row, rows, hl.TailStrategy.GuardWithIf)
    output.split(_X, steps, lanes, _LANES, inwards).reorder(lanes, _C, steps, row, strips)
    output.vectorize(lanes).unroll(_C).parallel(strips)
    output.output_buffer().dim(0).set_stride(1)
    output.output_buffer().dim(1).set_stride(count)
    loop, at = output, steps
    for func, _, stored in reversed(made):
        own, vector = hl.Var("own"), hl.Var("vector")
        if stored:
            func.store_at(output, strips).compute_at(output, row)
            func.split(_X, own, vector, _LANES, inwards).vectorize(vector)
            loop, at = func, own
        elif func is not planes or channels > 1:
            func.compute_at(loop, at).vectorize(_X, _LANES, hl.TailStrategy.RoundUp)
    return (output,)


def _tuple(values: Sequence[Expr]) -> Expr:
    return values[0] if len(values) == 1 else hl.Tuple(list(values))


def _read(func: Any, count: int, x: Expr, y: Expr, c: int) -> Expr:
    return hl.cast(hl.Int(16), func[x, y] if count == 1 else func[x, y][c])


def _outputs(step: _Step, func: Any, count: int, offset: tuple[int, int]) -> list[Expr]:
    made = []
    each = len(step.weight) // step.groups
    for output, kernels in enumerate(step.weight):
        total: Expr = None
        for i, kernel in enumerate(kernels):
            channel = output // each * len(kernels) + i
            for (r, c), weight in np.ndenumerate(kernel):
                if weight == 0:
                    continue
                x = _X + offset[1] + int(c) * step.dilation[1]
                y = _Y + offset[0] + int(r) * step.dilation[0]
                term = _times(_read(func, count, x, y, channel), float(weight))
                total = term if total is None else total + term
        bias = int(step.bias[output])
        if total is None:
            total = hl.cast(hl.Int(16), bias)
        elif bias:
            total = total + hl.cast(hl.Int(16), bias)
        made.append(_activated(step, total))
    return made


def _times(value: Expr, weight: float) -> Expr:
    """value x weight, the fraction rounded to whole units."""
    whole = math.trunc(weight)
    fraction = round((weight - whole) * 32768)
    made: Expr = None
    if whole:
        made = value * hl.cast(hl.Int(16), whole)
    if fraction:
        product = hl.cast(hl.Int(32), value) * hl.cast(hl.Int(32), hl.cast(hl.Int(16), fraction))
        rounded = hl.cast(hl.Int(16), hl.clamp((product + 16384) >> 15, -32768, 32767))
        made = rounded if made is None else made + rounded
    return hl.cast(hl.Int(16), 0) if made is None else made


def _activated(step: _Step, value: Expr) -> Expr:
    zero = hl.cast(hl.Int(16), 0)
    if step.activation == "relu":
        return hl.max(value, zero)
    if step.activation == "abs":
        return hl.cast(hl.Int(16), hl.abs(value))
    if step.activation == "clamp":
        low, high = (hl.cast(hl.Int(16), limit) for limit in step.limits)
        return hl.min(hl.max(value, low), high)
    return value


def _halved(value: Expr, scale: int) -> Expr:
    """value / 2^scale, rounded half to even."""
    odd = (value >> scale) & hl.cast(hl.Int(16), 1)
    below = hl.cast(hl.Int(16), 2 ** (scale - 1) - 1)
    return (value + below + odd) >> scale
