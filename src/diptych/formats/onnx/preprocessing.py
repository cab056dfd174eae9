"""Adds a recipe to the beginning of an ONNX graph: "pixels", uint8 (N, H, W, 3) -> "input", as the model takes it.

The pictures of a batch have the same size, which is free; each resize computes its weights from it. 8-bit steps are
computed in integers, or exactly in float64, and are rounded where and as the imitated library rounds. Measured
differences from `Preprocessing.apply`: none, except one level in "opencv-cubic" where a sum is halfway between two
levels or a picture has fewer than four rows or columns, and less than 0.02 of a level in Pillow's and OpenCV's kernels
without rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from diptych.errors import ModelError
from diptych.formats.onnx.graph import OnnxGraph, OnnxSite
from diptych.model.layers import Chain
from diptych.preprocessing import (
    CentreCrop,
    Colour,
    Grey,
    Normalise,
    Preprocessing,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
)

__all__ = ["put_in_front"]

Shape: TypeAlias = tuple[int, ...]

_EXPLAINED = (
    "Upright sRGB pictures, channels in the order RGB, values 0-255, all of the same size; a grey picture has "
    "three equal channels. The preprocessing is part of the graph."
)


def put_in_front(graph: OnnxGraph, recipe: Preprocessing | None, shape: Shape, free: bool) -> Any:
    """Inserts the nodes of a recipe before those of a graph.

    Args:
        graph: The graph of the model; is changed.
        recipe: The recipe of the model.
        shape: The input shape of the model, (1, C, H, W).
        free: Whether the model takes other sizes than H and W.

    Returns:
        The declaration of the new input, "pixels".

    Raises:
        ModelError: There is no recipe, or its result is not what the model takes.
    """
    if recipe is None:
        raise ModelError(
            "preprocessing inside the file needs a model that carries a recipe, but this one has none; "
            "give it one with model.with_(preprocessing=...) or --preprocessing"
        )
    own = OnnxGraph(Chain(()))
    place = _Place(own, "preprocessing", "pixels", ())
    pixels = _Pixels(place.node("Transpose", "pixels", perm=[0, 3, 1, 2]))
    for step in recipe.steps:
        pixels = _applied(place, pixels, step)
    _check_fit(recipe, pixels.channels, shape, free)
    own.named(place.cast(pixels.value, TensorProto.FLOAT), "input", final=True)
    graph.nodes[:0] = own.nodes
    graph.constants.update(own.constants)
    return _declared(recipe, shape, free)


def _check_fit(recipe: Preprocessing, channels: int, shape: Shape, free: bool) -> None:
    size = recipe.size or shape[2:]
    if len(shape) != 4 or channels != shape[1] or not (free or size == shape[2:]):
        result = " x ".join(map(str, (channels, *(recipe.size or ("height", "width")))))
        raise ModelError(
            f"the recipe turns a colour picture into {result}, but the model takes "
            f"{' x '.join(map(str, shape[1:]))}; give it the recipe that it was trained with"
        )


def _declared(recipe: Preprocessing, shape: Shape, free: bool) -> Any:
    sizes: tuple[str | int, ...] = ("height", "width")
    if (
        recipe.size is None and not free
    ):  # without a resize the pictures must have the size that the model takes
        turned = any(isinstance(step, SpatialOrder) and step.order == "wh" for step in recipe.steps)
        sizes = shape[:1:-1] if turned else shape[2:]
    return helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *sizes, 3], _EXPLAINED)


class _Place(OnnxSite):
    """Adds arithmetic to a graph. An operand is the name of a value, or a number, which becomes a constant.

    A Python float becomes float64 and an int int64; a NumPy number or array keeps its type.
    """

    def do(self, operation: str, *operands: Any, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        return self.node(
            operation, *(o if isinstance(o, str) else self.number(o) for o in operands), **attributes
        )

    def number(self, value: Any) -> str:
        """The name of a constant; equal constants are stored once."""
        array = np.asarray(value)
        for name, known in self.graph.constants.items():
            if known.dtype == array.dtype and np.array_equal(known, array):
                return name
        return self.constant(array, array.dtype)

    def cast(self, value: str, kind: int) -> str:
        """The value cast to a type of `TensorProto`."""
        return self.node("Cast", value, to=kind)

    def double(self, value: str) -> str:
        """The value cast to float64."""
        return self.cast(value, TensorProto.DOUBLE)

    def summed(self, values: list[str]) -> str:
        """The sum, added from left to right as the libraries do."""
        total = values[0]
        for value in values[1:]:
            total = self.node("Add", total, value)
        return total


@dataclass(frozen=True)
class _Pixels:
    """The pictures between two steps.

    Attributes:
        value: The name of the value (N, C, H, W), uint8 or float32.
        channels: C.
        eight_bit: Whether it is uint8.
        scaled: Whether levels are 0..1 instead of 0..255.
    """

    value: str
    channels: int = 3
    eight_bit: bool = True
    scaled: bool = False


def _applied(place: _Place, pixels: _Pixels, step: RecipeStep) -> _Pixels:
    if isinstance(step, Grey):
        return _grey(place, pixels, step.weights)
    if isinstance(step, Colour):
        if pixels.channels == 3:
            return pixels
        return replace(pixels, value=place.node("Concat", *[pixels.value] * 3, axis=1), channels=3)
    if isinstance(step, Resize):
        return _resized(place, pixels, step)
    if isinstance(step, CentreCrop):
        return _centred(place, pixels, step)
    if isinstance(step, Scale):
        levels = place.cast(pixels.value, TensorProto.FLOAT)
        return replace(pixels, value=place.do("Div", levels, np.float32(255)), eight_bit=False, scaled=True)
    if isinstance(step, Normalise):
        mean, std = (np.array(n, np.float32).reshape(-1, 1, 1) for n in (step.mean, step.std))
        return replace(pixels, value=place.do("Div", place.do("Sub", pixels.value, mean), std))
    if step.order == "wh":
        return replace(pixels, value=place.node("Transpose", pixels.value, perm=[0, 1, 3, 2]))
    return pixels


# ---- Grey ---------------------------------------------------------------------------------------------

_GREY = {
    "julia": (299, 587, 114),
    "pillow": (19595, 38470, 7471),
    "opencv": (9798, 19235, 3735),
    "float": (0.299, 0.587, 0.114),
}


def _grey(place: _Place, pixels: _Pixels, kind: str) -> _Pixels:
    """The formulas of `diptych.preprocessing.grey`; the weighted sums are below 2^24 and so exact in float32."""
    if pixels.channels == 1:
        return pixels
    weights = np.array(_GREY[kind], np.float32).reshape(3, 1, 1)
    weighted = place.do("Mul", place.cast(pixels.value, TensorProto.FLOAT), weights)
    planes = [place.do("Slice", weighted, [c], [c + 1], [1]) for c in range(3)]
    level = place.summed(planes)
    if kind == "float":
        return replace(pixels, value=level, channels=1, eight_bit=False)
    if kind == "julia":
        level = place.node("Round", place.do("Mul", level, np.float32(0.001)))
    else:
        whole = np.float32(sum(_GREY[kind]))
        level = place.node("Floor", place.do("Div", place.do("Add", level, whole / 2), whole))
    return replace(pixels, value=place.cast(level, TensorProto.UINT8), channels=1)


# ---- Resize: the positions of the new pixels ----------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize; the attributes are names of values.

    Attributes:
        source, target: The number of pixels before and after scaling, float64 scalars.
        positions: The pixels of the scaled picture that are kept, float64 (n,).
        inside: Which of the kept pixels the scaled picture covers, bool (n,); empty if it covers all.
    """

    source: str
    target: str
    positions: str
    inside: str = ""


def _axes(place: _Place, pixels: _Pixels, step: Resize) -> tuple[_Axis, _Axis]:
    """The rule of `diptych.preprocessing.resize.size_within`, for a size that is known only at run time."""
    shape = place.node("Shape", pixels.value)
    h, w = (place.double(place.do("Gather", shape, axis)) for axis in (2, 3))
    height, width = float(step.height), float(step.width)
    places = [np.arange(n, dtype=np.float64) for n in (step.height, step.width)]
    if step.fit == "stretch":
        rows, columns = (place.number(p) for p in places)
        return _Axis(h, place.number(height), rows), _Axis(w, place.number(width), columns)
    if step.fit in ("cover-rounded", "contain"):
        ratios = place.do("Div", h, height), place.do("Div", w, width)
        ratio = place.node("Min" if step.fit == "cover-rounded" else "Max", *ratios)
        scaled = [place.do("Max", place.node("Round", place.node("Div", n, ratio)), 1.0) for n in (h, w)]
        return _whole(place, h, scaled[0]), _whole(place, w, scaled[1])
    wider = place.do("Greater", place.do("Mul", w, height), place.do("Mul", h, width))
    if step.fit in ("crop", "cover"):
        scaled_h = place.do("Where", wider, height, _floored(place, place.do("Mul", h, width), w))
        scaled_w = place.do("Where", wider, _floored(place, place.do("Mul", w, height), h), width)
    else:
        scaled_h = place.do("Where", wider, _contained(place, h, w, width), height)
        scaled_w = place.do("Where", wider, width, _contained(place, w, h, height))
    if step.fit == "cover":
        return _whole(place, h, scaled_h), _whole(place, w, scaled_w)
    return (
        _moved(place, _Axis(h, scaled_h, ""), places[0], step.fit),
        _moved(place, _Axis(w, scaled_w, ""), places[1], step.fit),
    )


def _whole(place: _Place, source: str, target: str) -> _Axis:
    return _Axis(source, target, place.do("Range", 0.0, target, 1.0))


def _floored(place: _Place, product: str, by: str) -> str:
    """floor(product / by) of integers far below 2^52, whose float64 quotient is never rounded up to an integer."""
    return place.node("Floor", place.node("Div", product, by))


def _contained(place: _Place, side: str, other: str, fitted: float) -> str:
    size = place.node("Round", place.do("Mul", place.node("Div", side, other), fitted))
    return place.do("Max", size, 1.0)


def _moved(place: _Place, axis: _Axis, places: Any, fit: str) -> _Axis:
    """Centres the scaled picture in the result; offsets are rounded half to even."""
    if fit == "crop":
        offset = place.node("Round", place.do("Div", place.do("Sub", axis.target, float(len(places))), 2.0))
        return replace(axis, positions=place.do("Add", places, offset))
    offset = place.node("Round", place.do("Div", place.do("Sub", float(len(places)), axis.target), 2.0))
    positions, last = place.do("Sub", places, offset), place.do("Sub", axis.target, 1.0)
    inside = place.node(
        "And", place.do("GreaterOrEqual", positions, 0.0), place.node("LessOrEqual", positions, last)
    )
    return replace(axis, positions=place.do("Clip", positions, 0.0, last), inside=inside)


def _resized(place: _Place, pixels: _Pixels, step: Resize) -> _Pixels:
    if pixels.eight_bit and not step.round:
        pixels = replace(pixels, value=place.cast(pixels.value, TensorProto.FLOAT), eight_bit=False)
    rows, columns = _axes(place, pixels, step)
    kind = TensorProto.UINT8 if pixels.eight_bit else TensorProto.FLOAT
    value = place.cast(_KERNELS[step.kernel](place, pixels, rows, columns), kind)
    if rows.inside:
        covered = place.node("And", place.do("Unsqueeze", rows.inside, [1]), columns.inside)
        ground = step.fill / 255 if pixels.scaled else step.fill
        value = place.do("Where", covered, value, helper.tensor_dtype_to_np_dtype(kind).type(ground))
    return replace(pixels, value=value)


def _centred(place: _Place, pixels: _Pixels, step: CentreCrop) -> _Pixels:
    """The rule of `diptych.preprocessing.resize.margin`, for a size that is known only at run time."""
    shape = place.node("Shape", pixels.value)
    value, inside = pixels.value, []
    for axis, wanted in ((2, step.height), (3, step.width)):
        side = place.double(place.do("Gather", shape, axis))
        cut = place.node("Round", place.do("Div", place.do("Sub", side, float(wanted)), 2.0))
        padded = place.node("Ceil", place.do("Div", place.do("Sub", side, float(wanted)), 2.0))
        start = place.node("Where", place.do("Less", side, float(wanted)), padded, cut)
        positions = place.do("Add", np.arange(wanted, dtype=np.float64), start)
        last = place.do("Sub", side, 1.0)
        inside.append(
            place.node(
                "And", place.do("GreaterOrEqual", positions, 0.0), place.node("LessOrEqual", positions, last)
            )
        )
        rows = place.cast(place.do("Clip", positions, 0.0, last), TensorProto.INT64)
        value = place.node("Gather", value, rows, axis=axis)
    covered = place.node("And", place.do("Unsqueeze", inside[0], [1]), inside[1])
    kind = np.uint8 if pixels.eight_bit else np.float32
    levels = np.array(step.fill, np.float32) / np.float32(255 if pixels.scaled else 1)
    ground = levels.astype(kind).reshape(-1, 1, 1)
    return replace(pixels, value=place.do("Where", covered, value, ground))


# ---- Pillow: one matrix for each axis -----------------------------------------------------------------

_ONE = 2.0**22  # Pillow's 8-bit weights are integers in units of 1 / _ONE


def _pillow(window: Callable[[_Place, str], str], support: float) -> _Kernel:
    """Pillow's Resample.c: two passes, after each of which 8-bit pictures are rounded and clipped.

    The horizontal pass is first. Since Pillow 13 the vertical pass is first for pictures that lose more
    than twice as many rows as columns (python-pillow pull request 9549); for these, Pillow 11 and 12
    differ by one level.
    """

    def kernel(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
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


def _branch(place: _Place, passed: Callable[[bool], str], taller: bool) -> Any:
    """A branch of an If, as a subgraph that can use the values before it."""
    outside, place.graph.nodes = place.graph.nodes, []
    result = helper.make_tensor_value_info(passed(taller), TensorProto.DOUBLE, None)
    inside, place.graph.nodes = place.graph.nodes, outside
    return helper.make_graph(inside, "down first" if taller else "across first", [], [result])


def _matrix(
    place: _Place, pixels: _Pixels, axis: _Axis, window: Callable[[_Place, str], str], support: float
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


def _settled(place: _Place, pixels: _Pixels, value: str) -> str:
    """The result of a pass in float64: rounded to levels of 0..255, or to float32."""
    if not pixels.eight_bit:
        return place.double(place.cast(value, TensorProto.FLOAT))
    return _clipped(place, place.node("Floor", place.do("Div", place.do("Add", value, _ONE / 2), _ONE)))


def _clipped(place: _Place, value: str) -> str:
    return place.do("Clip", value, 0.0, 255.0)


def _triangle(place: _Place, x: str) -> str:
    return place.do("Max", place.do("Sub", 1.0, place.node("Abs", x)), 0.0)


def _cubic(place: _Place, x: str) -> str:
    """Keys' cubic with a = -0.5."""
    x = place.node("Abs", x)
    near = _polynomial(place, x, 1.5, -2.5, 0.0, 1.0)
    far = _polynomial(place, x, -0.5, 2.5, -4.0, 2.0)
    return place.do(
        "Where", place.do("Less", x, 1.0), near, place.do("Where", place.do("Less", x, 2.0), far, 0.0)
    )


def _lanczos(place: _Place, x: str) -> str:
    """sinc(x) sinc(x / 3) for |x| < 3."""
    level = place.node("Mul", _sinc(place, x), _sinc(place, place.do("Div", x, 3.0)))
    return place.do("Where", place.do("Less", place.node("Abs", x), 3.0), level, 0.0)


def _sinc(place: _Place, x: str) -> str:
    angle = place.do("Mul", x, np.pi)
    middle = place.do("Equal", x, 0.0)
    return place.do(
        "Where",
        middle,
        1.0,
        place.node("Div", place.node("Sin", angle), place.do("Where", middle, 1.0, angle)),
    )


def _polynomial(place: _Place, x: str, *coefficients: Any) -> str:
    """Horner's rule; `coefficients` begin with that of the highest power, and have the type of `x`."""
    total: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        total = place.do("Add", place.do("Mul", total, x), coefficient)
    return str(total)


# ---- Julia and OpenCV: a few neighbours for each pixel ------------------------------------------------

# Along one axis: indices (new,) int64, and their weights (new,) float64.
_Taps: TypeAlias = list[tuple[str, str]]


def _picked(place: _Place, pixels: _Pixels, row: str, column: str) -> str:
    return place.node("Gather", place.node("Gather", pixels.value, row, axis=2), column, axis=3)


def _across(place: _Place, pixels: _Pixels, row: str, columns: _Taps) -> str:
    """The rows `row`, resized to the new width, float64."""
    parts = [(place.double(_picked(place, pixels, row, index)), weight) for index, weight in columns]
    return place.summed([place.node("Mul", value, weight) for value, weight in parts])


def _down(place: _Place, value: str, weight: str) -> str:
    return place.node("Mul", value, place.do("Unsqueeze", weight, [1]))


def _index(place: _Place, axis: _Axis, value: str) -> str:
    """An index clipped to the picture, int64."""
    return place.cast(place.do("Clip", value, 0.0, place.do("Sub", axis.source, 1.0)), TensorProto.INT64)


def _nearest(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
    def index(axis: _Axis) -> str:
        odd = place.do("Add", place.do("Mul", axis.positions, 2.0), 1.0)
        doubled = place.do("Mul", axis.target, 2.0)
        return place.cast(_floored(place, place.node("Mul", odd, axis.source), doubled), TensorProto.INT64)

    return _picked(place, pixels, index(rows), index(columns))


def _imresize(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
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


def _julia_taps(place: _Place, axis: _Axis) -> _Taps:
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


def _opencv_linear(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
    return _opencv_pairs(
        place, pixels, *(_opencv_taps(place, pixels, axis, _two) for axis in (rows, columns))
    )


def _opencv_pairs(place: _Place, pixels: _Pixels, down: _Taps, across: _Taps) -> str:
    """OpenCV's resize.cpp. 8-bit pictures in integers: weights of 11 bits, and low bits dropped between the passes."""
    wide = [(_across(place, pixels, row, across), weight) for row, weight in down]
    if not pixels.eight_bit:
        return place.summed([_down(place, value, weight) for value, weight in wide])
    shortened = [(place.node("Floor", place.do("Div", value, 16.0)), weight) for value, weight in wide]
    lines = [_down(place, value, weight) for value, weight in shortened]
    total = place.summed([place.node("Floor", place.do("Div", line, 65536.0)) for line in lines])
    return _clipped(place, place.node("Floor", place.do("Div", place.do("Add", total, 2.0), 4.0)))


def _opencv_area(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
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


def _is_half(place: _Place, axis: _Axis) -> str:
    return place.node("Equal", axis.source, place.do("Mul", axis.target, 2.0))


def _areas(place: _Place, axis: _Axis) -> str:
    """The weights (new, old): the share of each old pixel in a new one; parts below 0.001 of a pixel are left out."""
    scale = place.node("Div", axis.source, axis.target)
    start = place.node("Mul", place.do("Unsqueeze", axis.positions, [1]), scale)
    old = place.do("Range", 0.0, axis.source, 1.0)
    end = place.node("Min", place.do("Add", old, 1.0), place.node("Add", start, scale))
    part = place.node("Sub", end, place.node("Max", old, start))
    whole = place.node("Min", scale, place.node("Sub", axis.source, start))
    return place.node("Div", place.do("Where", place.do("Greater", part, 1e-3), part, 0.0), whole)


def _edged_taps(place: _Place, pixels: _Pixels, axis: _Axis) -> _Taps:
    growth = place.node("Div", axis.target, axis.source)
    # For products near an integer the last bit decides the floor. So this must be neither source / target nor
    # 1 / growth, which ONNX Runtime would fold into the product.
    first = place.node("Floor", place.node("Mul", axis.positions, place.node("Reciprocal", growth)))
    reached = place.node("Mul", place.do("Add", first, 1.0), growth)
    part = place.do("Max", place.node("Sub", place.do("Add", axis.positions, 1.0), reached), 0.0)
    part = place.cast(part, TensorProto.FLOAT)
    part = place.node("Sub", part, place.node("Floor", part))
    return _weighted(place, pixels, axis, first, *_two(place, part, np.float32))


def _opencv_cubic(place: _Place, pixels: _Pixels, rows: _Axis, columns: _Axis) -> str:
    down, across = (_opencv_taps(place, replace(pixels, eight_bit=False), a, _four) for a in (rows, columns))
    total = place.summed([_down(place, _across(place, pixels, row, across), weight) for row, weight in down])
    return _clipped(place, place.node("Round", total)) if pixels.eight_bit else total


def _opencv_taps(
    place: _Place,
    pixels: _Pixels,
    axis: _Axis,
    weights_of: Callable[[_Place, str, Any], tuple[int, list[str]]],
) -> _Taps:
    """Half-pixel coordinates, float32 for 8-bit pictures and float64 for others, as OpenCV has them on x86."""
    scale = place.node("Reciprocal", place.node("Div", axis.target, axis.source))
    x = place.do("Sub", place.node("Mul", place.do("Add", axis.positions, 0.5), scale), 0.5)
    kind: Any = np.float32 if pixels.eight_bit else np.float64
    x = place.cast(x, helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    whole = place.node("Floor", x)
    part = place.node("Sub", x, whole)
    return _weighted(place, pixels, axis, place.double(whole), *weights_of(place, part, kind))


def _weighted(
    place: _Place, pixels: _Pixels, axis: _Axis, whole: str, first: int, weights: list[str]
) -> _Taps:
    """The neighbours from `whole` + `first` on; the border pixel is repeated."""
    taps = []
    for number, weight in enumerate(weights, first):
        index = _index(place, axis, place.do("Add", whole, float(number)))
        weight = place.double(weight)
        if pixels.eight_bit:
            weight = place.node("Round", place.do("Mul", weight, 2048.0))
        taps.append((index, weight))
    return taps


def _two(place: _Place, part: str, kind: Any) -> tuple[int, list[str]]:
    return 0, [place.do("Sub", kind(1), part), part]


def _four(place: _Place, part: str, kind: Any) -> tuple[int, list[str]]:
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


_Kernel: TypeAlias = Callable[[_Place, _Pixels, _Axis, _Axis], str]

_KERNELS: dict[str, _Kernel] = {
    "imresize": _imresize,
    "pillow-bilinear": _pillow(_triangle, 1.0),
    "pillow-bicubic": _pillow(_cubic, 2.0),
    "pillow-lanczos": _pillow(_lanczos, 3.0),
    "opencv-linear": _opencv_linear,
    "opencv-area": _opencv_area,
    "opencv-cubic": _opencv_cubic,
    "nearest": _nearest,
}
