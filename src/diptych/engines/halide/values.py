"""The outputs of layers as Halide functions of pixels, and the picture that they are computed from.

Coordinates count from the first pixel of each array, as in `engines/tiled/preparing`. A value of few channels is a
tuple, one function (x, y) -> (first, second, ...), which stays in registers. A value of many channels is a function
(x, y, c), used in loops.

The value of a pixel does not depend on its position, because arithmetic is separate from borders: there, values are
only copied, and the code that computes with the copies has no special cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import halide as hl

from diptych.engines.halide.elementwise import Expr, number
from diptych.model.layers import Pad, PadMode

__all__ = ["C", "InputPicture", "LayerValue", "X", "Y", "padded", "pointwise"]

X, Y, C = hl.Var("x"), hl.Var("y"), hl.Var("c")


@dataclass(eq=False)
class LayerValue:
    """The output of a layer.

    Attributes:
        func: The Halide function.
        channels: The number of channels.
        grown: (rows, columns) by which it is larger than the picture.
        sources: The values that it reads, each with whether only at the same pixel.
        tuple: Whether `func` is (x, y) -> one value for each channel; otherwise it is (x, y, c) -> a value.
        copies: Whether it only copies pixels.
        sums: The accumulators and the loop of a convolution that loops over its weights.
        rows: How many of its rows are needed at a time.
    """

    func: Any
    channels: int
    grown: tuple[int, int] = (0, 0)
    sources: list[tuple[LayerValue, bool]] = field(default_factory=list)
    tuple: bool = True
    copies: bool = False
    sums: Any = None
    rows: int = 1

    def read(self, x: Expr, y: Expr, c: int | Expr) -> Expr:
        """The float32 value at a pixel. A value of one channel has it for every `c`."""
        if self.channels == 1:
            c = 0
        if not self.tuple:
            value = self.func[x, y, c]
        elif self.channels == 1:
            value = self.func[x, y]
        elif isinstance(c, int):
            value = self.func[x, y][c]
        else:
            value = hl.mux(c, [self.func[x, y][i] for i in range(self.channels)])
        return hl.cast(hl.Float(32), value)  # makes an expression of a reference

    def __add__(self, other: LayerValue) -> LayerValue:
        return pointwise([self, other], lambda a, b: a + b)

    def __mul__(self, other: LayerValue) -> LayerValue:
        return pointwise([self, other], lambda a, b: a * b)

    def __sub__(self, other: LayerValue) -> LayerValue:
        return pointwise([self, other], lambda a, b: a - b)


def of_channels(
    sources: Sequence[tuple[LayerValue, bool]], exprs: Sequence[Expr], grown: tuple[int, int]
) -> LayerValue:
    """A value given by an expression for each channel."""
    func = hl.Func("tuple")
    func[X, Y] = exprs[0] if len(exprs) == 1 else hl.Tuple(exprs)
    return LayerValue(func, len(exprs), grown, list(sources))


def pointwise(values: Sequence[LayerValue], function: Callable[..., Expr]) -> LayerValue:
    """A function applied to several values, pixel by pixel and channel by channel."""
    channels = max(value.channels for value in values)
    sources = [(value, True) for value in values]
    if any(not v.tuple and not v.copies for v in values):
        func = hl.Func("pointwise")
        func[X, Y, C] = function(*(v.read(X, Y, C) for v in values))
        return LayerValue(func, channels, values[0].grown, sources, tuple=False)
    exprs = [function(*(v.read(X, Y, c) for v in values)) for c in range(channels)]
    return of_channels(sources, exprs, values[0].grown)


# ---- The picture ---------------------------------------------------------------------------------------


class InputPicture:
    """The input: a block (c, x, y) of a picture, with coordinates of the whole picture.

    The block holds all pixels that are read, also those beyond the border of the picture, filled as `mode` says.

    Args:
        pixel: The Halide type of the pixels.
        channels: The number of channels.
        divisor: By which pixels are divided.
        mode: Of every `Pad` of the picture itself.
    """

    def __init__(self, pixel: Any, channels: int, divisor: int, mode: PadMode | None) -> None:
        self.param = hl.ImageParam(pixel, 3, "picture")
        self.param.dim(0).set_bounds(0, channels).set_stride(1)
        self.param.dim(1).set_stride(channels)
        self.width = hl.Param(hl.Int(32), "width", 1)
        self.height = hl.Param(hl.Int(32), "height", 1)
        self.channels, self.divisor, self.mode = channels, divisor, mode
        self.raw = self._planes("planes", self.param[C, X, Y], as_floats=False)
        self._floats = self._planes("floats", self._fraction(self.param[C, X, Y]), as_floats=True)

    def _planes(self, name: str, expr: Expr, as_floats: bool) -> _Planes:
        func = hl.Func(name)
        func[X, Y, C] = expr
        return _Planes(func, self.channels, tuple=False, copies=True, picture=self, as_floats=as_floats)

    def _fraction(self, pixel: Expr) -> Expr:
        value = hl.cast(hl.Float(32), pixel)
        return value if self.divisor == 1 else value * number(1 / self.divisor)

    def often(self, value: LayerValue) -> LayerValue:
        """`value` in float32, for values that are read several times."""
        if not isinstance(value, _Planes) or value.as_floats:
            return value
        return replace(self._floats, of=self._floats, offset=value.offset, grown=value.grown)

    def padded(self, value: LayerValue, pad: Pad) -> LayerValue | None:
        """The padded picture, which the block already holds; None if `value` is not the picture itself."""
        if not isinstance(value, _Planes) or (pad.mode != self.mode and any(map(any, pad.padding))):
            return None
        (top, bottom), (left, right) = pad.padding
        return replace(
            value,
            of=value.of or value,
            offset=(value.offset[0] + top, value.offset[1] + left),
            grown=(value.grown[0] + top + bottom, value.grown[1] + left + right),
        )


@dataclass(eq=False)
class _Planes(LayerValue):
    """The picture by channels, in its own type or in float32, moved by `offset` (rows, columns)."""

    picture: Any = None
    as_floats: bool = False
    offset: tuple[int, int] = (0, 0)
    of: LayerValue | None = None

    def read(self, x: Expr, y: Expr, c: int | Expr) -> Expr:
        value = hl.Expr(self.func[x - self.offset[1], y - self.offset[0], 0 if self.channels == 1 else c])
        return value if self.as_floats else self.picture._fraction(value)


# ---- Borders inside ------------------------------------------------------------------------------------


def padded(value: LayerValue, pad: Pad, picture: InputPicture) -> LayerValue:
    """A padded value that is not the picture itself."""
    (top, bottom), (left, right) = pad.padding
    grown = (value.grown[0] + top + bottom, value.grown[1] + left + right)
    width, height = picture.width + value.grown[1], picture.height + value.grown[0]
    x, y = X - left, Y - top
    if pad.mode != "wrap":  # otherwise every Pad wraps round, and the block is periodic
        x, y = _inner(x, (left, right), pad.mode, width), _inner(y, (top, bottom), pad.mode, height)
    outside = _outside(X - left, width) | _outside(Y - top, height)

    def moved(c: int | Expr) -> Expr:
        read = value.read(x, y, c)
        return hl.select(outside, number(0), read) if pad.mode == "zero" else read

    func = hl.Func("padded")
    if not value.tuple:
        func[X, Y, C] = moved(C)
    else:
        exprs = [moved(c) for c in range(value.channels)]
        func[X, Y] = exprs[0] if len(exprs) == 1 else hl.Tuple(exprs)
    return LayerValue(func, value.channels, grown, [(value, False)], tuple=value.tuple, copies=True)


def _inner(i: Expr, pads: tuple[int, int], mode: PadMode, size: Expr) -> Expr:
    """The index that pixel `i` is copied from, in a form from which Halide derives tight bounds."""
    if mode not in ("reflect", "symmetric"):
        return hl.clamp(hl.likely(i), 0, size - 1)
    mirrored = _mirrored(i, size) if mode == "reflect" else _repeated(i, size)
    inside = hl.select(_outside(i, size), mirrored, hl.likely(i))
    lowest, highest = hl.max(hl.min(i, size - 1 - pads[1]), 0), hl.min(hl.max(i, pads[0]), size - 1)
    return hl.unsafe_promise_clamped(inside, lowest, highest)


def _mirrored(i: Expr, size: Expr) -> Expr:
    """As NumPy's "reflect", which does not repeat the edge pixel, at any distance."""
    period = hl.max(2 * (size - 1), 1)
    return hl.cast(hl.Int(32), hl.abs((i + size - 1) % period - (size - 1)))


def _repeated(i: Expr, size: Expr) -> Expr:
    """As NumPy's "symmetric", which repeats the edge pixel, at any distance."""
    place = i % (2 * size)
    return hl.min(place, 2 * size - 1 - place)


def _outside(i: Expr, size: Expr) -> Expr:
    return (i < 0) | (i >= size)
