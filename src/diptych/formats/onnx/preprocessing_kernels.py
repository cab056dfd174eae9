"""The resize kernels as operations of an ONNX graph: Pillow's, Julia's and OpenCV's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from diptych.formats.onnx.preprocessing_values import Axis, Pixels, Place

__all__ = ["KERNELS"]


# ---- Pillow: one matrix for each axis -----------------------------------------------------------------

_ONE = 2.0**22  # Pillow's 8-bit weights are integers in units of 1 / _ONE


def _pillow(window: Callable[[Place, str], str], support: float) -> _Kernel:
    """Pillow's Resample.c: two passes, after each of which 8-bit pictures are rounded and clipped.

    The horizontal pass is first. Since Pillow 13 the vertical pass is first for pictures that lose more
    than twice as many rows as columns (python-pillow pull request 9549); for these, Pillow 11 and 12
    differ by one level.
    """

    def kernel(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
        matrices = [_matrix(place, pixels, axis, window, support) for axis in (rows, columns)]
        down, across = matrices[0], place.node("Transpose", matrices[1], perm=[1, 0])
        value = place.double(pixels.value)

        def passed(taller: bool) -> str:
            first = ("MatMul", down, value) if taller else ("MatMul", value, across)
            half = _settled(place, pixels, place.node(*first))
            last = ("MatMul", half, across) if taller else ("MatMul", down, half)
            return _settled(place, pixels, place.node(*last))

        higher, wider = (place.node("Sub", axis.source, axis.target) for axis in (rows, columns))
        tall = place.node("Greater", higher, place.do("Max", place.do("Mul", wider, 2.0), 0.0))
        branches = {f"{word}_branch": _branch(place, passed, word == "then") for word in ("then", "else")}
        return place.node("If", tall, **branches)

    return kernel


def _branch(place: Place, passed: Callable[[bool], str], taller: bool) -> Any:
    """A branch of an If, as a subgraph that can use the values before it."""
    outside, place.graph.nodes = place.graph.nodes, []
    result = helper.make_tensor_value_info(passed(taller), TensorProto.DOUBLE, None)
    inside, place.graph.nodes = place.graph.nodes, outside
    return helper.make_graph(inside, "down first" if taller else "across first", [], [result])


def _matrix(
    place: Place, pixels: Pixels, axis: Axis, window: Callable[[Place, str], str], support: float
) -> str:
    """The weights (new, old) of one axis, float64: the window, widened when shrinking and cut at the borders."""
    scale = place.node("Div", axis.source, axis.target)
    stretch = place.do("Max", scale, 1.0)
    reach = place.do("Mul", stretch, support)
    middle = place.do("Mul", place.do("Add", place.do("Unsqueeze", axis.positions, [1]), 0.5), scale)
    first = place.node("Floor", place.do("Add", place.node("Sub", middle, reach), 0.5))
    end = place.node("Floor", place.do("Add", place.node("Add", middle, reach), 0.5))
    old = place.do("Range", 0.0, axis.source, 1.0)
    offset = place.do("Add", place.node("Sub", old, middle), 0.5)
    level = window(place, place.node("Mul", offset, place.node("Reciprocal", stretch)))
    seen = place.node("And", place.node("GreaterOrEqual", old, first), place.node("Less", old, end))
    weights = place.do("Where", seen, level, 0.0)
    weights = place.node("Div", weights, place.do("ReduceSum", weights, [1]))
    if not pixels.eight_bit:
        return weights
    size = place.do("Add", place.do("Mul", place.node("Abs", weights), _ONE), 0.5)
    return place.node("Mul", place.node("Sign", weights), place.node("Floor", size))


def _settled(place: Place, pixels: Pixels, value: str) -> str:
    """The result of a pass in float64: rounded to levels of 0..255, or to float32."""
    if not pixels.eight_bit:
        return place.double(place.cast(value, TensorProto.FLOAT))
    return _clipped(place, place.node("Floor", place.do("Div", place.do("Add", value, _ONE / 2), _ONE)))


def _clipped(place: Place, value: str) -> str:
    return place.do("Clip", value, 0.0, 255.0)


def _triangle(place: Place, x: str) -> str:
    return place.do("Max", place.do("Sub", 1.0, place.node("Abs", x)), 0.0)


def _cubic(place: Place, x: str) -> str:
    """Keys' cubic with a = -0.5."""
    x = place.node("Abs", x)
    near = _polynomial(place, x, 1.5, -2.5, 0.0, 1.0)
    far = _polynomial(place, x, -0.5, 2.5, -4.0, 2.0)
    return place.do(
        "Where", place.do("Less", x, 1.0), near, place.do("Where", place.do("Less", x, 2.0), far, 0.0)
    )


def _lanczos(place: Place, x: str) -> str:
    """sinc(x) sinc(x / 3) for |x| < 3."""
    level = place.node("Mul", _sinc(place, x), _sinc(place, place.do("Div", x, 3.0)))
    return place.do("Where", place.do("Less", place.node("Abs", x), 3.0), level, 0.0)


def _sinc(place: Place, x: str) -> str:
    angle = place.do("Mul", x, np.pi)
    middle = place.do("Equal", x, 0.0)
    return place.do(
        "Where",
        middle,
        1.0,
        place.node("Div", place.node("Sin", angle), place.do("Where", middle, 1.0, angle)),
    )


def _polynomial(place: Place, x: str, *coefficients: Any) -> str:
    """Horner's rule; `coefficients` begin with that of the highest power, and have the type of `x`."""
    total: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        total = place.do("Add", place.do("Mul", total, x), coefficient)
    return str(total)


# ---- Julia and OpenCV: a few neighbours for each pixel ------------------------------------------------

# Along one axis: indices (new,) int64, and their weights (new,) float64.
_Taps: TypeAlias = list[tuple[str, str]]


def _picked(place: Place, pixels: Pixels, row: str, column: str) -> str:
    return place.node("Gather", place.node("Gather", pixels.value, row, axis=2), column, axis=3)


def _across(place: Place, pixels: Pixels, row: str, columns: _Taps) -> str:
    """The rows `row`, resized to the new width, float64."""
    parts = [(place.double(_picked(place, pixels, row, index)), weight) for index, weight in columns]
    return place.summed([place.node("Mul", value, weight) for value, weight in parts])


def _down(place: Place, value: str, weight: str) -> str:
    return place.node("Mul", value, place.do("Unsqueeze", weight, [1]))


def _index(place: Place, axis: Axis, value: str) -> str:
    """An index clipped to the picture, int64."""
    return place.cast(place.do("Clip", value, 0.0, place.do("Sub", axis.source, 1.0)), TensorProto.INT64)


def _nearest(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
    def index(axis: Axis) -> str:
        odd = place.do("Add", place.do("Mul", axis.positions, 2.0), 1.0)
        doubled = place.do("Mul", axis.target, 2.0)
        return place.cast(place.floored(place.node("Mul", odd, axis.source), doubled), TensorProto.INT64)

    return _picked(place, pixels, index(rows), index(columns))


def _imresize(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
    """The operations of `diptych.preprocessing.resize.imresize`, in the same order."""
    down, across = _julia_taps(place, rows), _julia_taps(place, columns)
    if not pixels.eight_bit:
        return place.summed(
            [_down(place, _across(place, pixels, row, across), weight) for row, weight in down]
        )
    lines = []
    for row, weight in down:
        parts = []
        for column, share in across:
            level = place.double(_picked(place, pixels, row, column))
            if pixels.channels == 1:
                parts.append(place.node("Mul", share, place.do("Div", level, 255.0)))
            else:
                parts.append(place.node("Mul", place.do("Mul", share, 1 / 255), level))
        lines.append(_down(place, place.summed(parts), weight))
    return place.node("Round", place.do("Mul", place.summed(lines), 255.0))


def _julia_taps(place: Place, axis: Axis) -> _Taps:
    s = place.node("Div", axis.source, axis.target)
    start = place.do("Sub", 0.5, place.do("Mul", 0.5, s))
    x = place.node("Add", place.node("Mul", s, place.do("Add", axis.positions, 1.0)), start)
    x = place.do("Clip", x, 1.0, axis.source)
    before_last = place.do("Max", place.do("Sub", axis.source, 1.0), 1.0)
    first = place.node("Min", place.node("Floor", x), before_last)
    weight = place.node("Sub", x, first)
    low = place.do("Sub", first, 1.0)
    return [
        (_index(place, axis, low), place.do("Sub", 1.0, weight)),
        (_index(place, axis, first), weight),
    ]


def _opencv_linear(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
    return _opencv_pairs(
        place, pixels, *(_opencv_taps(place, pixels, axis, _two) for axis in (rows, columns))
    )


def _opencv_pairs(place: Place, pixels: Pixels, down: _Taps, across: _Taps) -> str:
    """OpenCV's resize.cpp. 8-bit pictures in integers: weights of 11 bits, and low bits dropped between the passes."""
    wide = [(_across(place, pixels, row, across), weight) for row, weight in down]
    if not pixels.eight_bit:
        return place.summed([_down(place, value, weight) for value, weight in wide])
    shortened = [(place.node("Floor", place.do("Div", value, 16.0)), weight) for value, weight in wide]
    lines = [_down(place, value, weight) for value, weight in shortened]
    total = place.summed([place.node("Floor", place.do("Div", line, 65536.0)) for line in lines])
    return _clipped(place, place.node("Floor", place.do("Div", place.do("Add", total, 2.0), 4.0)))


def _opencv_area(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
    """Shrinking averages over the area; enlarging interpolates linearly only at the edges between old pixels."""
    larger = [place.node("Greater", axis.target, axis.source) for axis in (rows, columns)]

    def chosen(enlarging: bool) -> str:
        if enlarging:
            return _opencv_pairs(
                place, pixels, *(_edged_taps(place, pixels, axis) for axis in (rows, columns))
            )
        down, across = (_areas(place, axis) for axis in (rows, columns))
        value = place.node("MatMul", down, place.double(pixels.value))
        value = place.node("MatMul", value, place.node("Transpose", across, perm=[1, 0]))
        if not pixels.eight_bit:
            return value
        value = place.double(place.cast(value, TensorProto.FLOAT))
        halved = place.node("And", *(_is_half(place, axis) for axis in (rows, columns)))
        half_up = place.node("Floor", place.do("Add", value, 0.5))
        return place.node("Where", halved, half_up, place.node("Round", value))  # as OpenCV does

    branches = {f"{word}_branch": _branch(place, chosen, word == "then") for word in ("then", "else")}
    return place.node("If", place.node("Or", *larger), **branches)


def _is_half(place: Place, axis: Axis) -> str:
    return place.node("Equal", axis.source, place.do("Mul", axis.target, 2.0))


def _areas(place: Place, axis: Axis) -> str:
    """The weights (new, old): the share of each old pixel in a new one; parts below 0.001 of a pixel are left out."""
    scale = place.node("Div", axis.source, axis.target)
    start = place.node("Mul", place.do("Unsqueeze", axis.positions, [1]), scale)
    old = place.do("Range", 0.0, axis.source, 1.0)
    end = place.node("Min", place.do("Add", old, 1.0), place.node("Add", start, scale))
    part = place.node("Sub", end, place.node("Max", old, start))
    whole = place.node("Min", scale, place.node("Sub", axis.source, start))
    return place.node("Div", place.do("Where", place.do("Greater", part, 1e-3), part, 0.0), whole)


def _edged_taps(place: Place, pixels: Pixels, axis: Axis) -> _Taps:
    growth = place.node("Div", axis.target, axis.source)
    # For products near an integer the last bit decides the floor. So this must be neither source / target nor
    # 1 / growth, which ONNX Runtime would fold into the product.
    first = place.node("Floor", place.node("Mul", axis.positions, place.node("Reciprocal", growth)))
    reached = place.node("Mul", place.do("Add", first, 1.0), growth)
    part = place.do("Max", place.node("Sub", place.do("Add", axis.positions, 1.0), reached), 0.0)
    part = place.cast(part, TensorProto.FLOAT)
    part = place.node("Sub", part, place.node("Floor", part))
    return _weighted(place, pixels, axis, first, *_two(place, part, np.float32))


def _opencv_cubic(place: Place, pixels: Pixels, rows: Axis, columns: Axis) -> str:
    down, across = (_opencv_taps(place, replace(pixels, eight_bit=False), a, _four) for a in (rows, columns))
    total = place.summed([_down(place, _across(place, pixels, row, across), weight) for row, weight in down])
    return _clipped(place, place.node("Round", total)) if pixels.eight_bit else total


def _opencv_taps(
    place: Place,
    pixels: Pixels,
    axis: Axis,
    weights_of: Callable[[Place, str, Any], tuple[int, list[str]]],
) -> _Taps:
    """Half-pixel coordinates, float32 for 8-bit pictures and float64 for others, as OpenCV has them on x86."""
    scale = place.node("Reciprocal", place.node("Div", axis.target, axis.source))
    x = place.do("Sub", place.node("Mul", place.do("Add", axis.positions, 0.5), scale), 0.5)
    kind: Any = np.float32 if pixels.eight_bit else np.float64
    x = place.cast(x, helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    whole = place.node("Floor", x)
    part = place.node("Sub", x, whole)
    return _weighted(place, pixels, axis, place.double(whole), *weights_of(place, part, kind))


def _weighted(place: Place, pixels: Pixels, axis: Axis, whole: str, first: int, weights: list[str]) -> _Taps:
    """The neighbours from `whole` + `first` on; the border pixel is repeated."""
    taps = []
    for number, weight in enumerate(weights, first):
        index = _index(place, axis, place.do("Add", whole, float(number)))
        weight = place.double(weight)
        if pixels.eight_bit:
            weight = place.node("Round", place.do("Mul", weight, 2048.0))
        taps.append((index, weight))
    return taps


def _two(place: Place, part: str, kind: Any) -> tuple[int, list[str]]:
    return 0, [place.do("Sub", kind(1), part), part]


def _four(place: Place, part: str, kind: Any) -> tuple[int, list[str]]:
    """Keys' cubic with a = -0.75; the last weight is 1 minus the others."""
    one = kind(1)
    rest = place.do("Sub", one, part)
    outer = [kind(n) for n in (-0.75, 3.75, -6.0, 3.0)]
    inner = [kind(n) for n in (1.25, -2.25, 0.0, 1.0)]
    weights = [
        _polynomial(place, place.do("Add", part, one), *outer),
        _polynomial(place, part, *inner),
        _polynomial(place, rest, *inner),
    ]
    last: str = place.do("Sub", one, weights[0])
    for weight in weights[1:]:
        last = place.node("Sub", last, weight)
    return -1, [*weights, last]


_Kernel: TypeAlias = Callable[[Place, Pixels, Axis, Axis], str]

KERNELS: dict[str, _Kernel] = {
    "imresize": _imresize,
    "pillow-bilinear": _pillow(_triangle, 1.0),
    "pillow-bicubic": _pillow(_cubic, 2.0),
    "pillow-lanczos": _pillow(_lanczos, 3.0),
    "opencv-linear": _opencv_linear,
    "opencv-area": _opencv_area,
    "opencv-cubic": _opencv_cubic,
    "nearest": _nearest,
}
