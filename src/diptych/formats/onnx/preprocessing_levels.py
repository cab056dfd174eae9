"""The steps of `preprocessing.levels` in an ONNX graph."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from diptych.formats.onnx.preprocessing_values import Place
from diptych.preprocessing import Light, LowPass, Standardise

__all__ = ["levelled"]


def levelled(place: Place, levels: str, step: Light | LowPass | Standardise, top: float) -> str:
    """The name of the levels, float32 (N, C, H, W), after a step; `top` is the level of white."""
    if isinstance(step, Standardise):
        return _standardised(place, levels, step)
    if isinstance(step, LowPass):
        down = _smoothing(place, levels, 2, step.height)
        rows = place.cast(place.node("MatMul", down, place.double(levels)), TensorProto.FLOAT)
        across = place.node("Transpose", _smoothing(place, levels, 3, step.width), perm=[1, 0])
        return place.cast(place.node("MatMul", place.double(rows), across), TensorProto.FLOAT)
    white = np.float32(top)
    return place.do("Mul", _light(place, place.do("Div", levels, white), step.to), white)


def _standardised(place: Place, levels: str, step: Standardise) -> str:
    axes = place.ints(1, 2, 3)
    exact = place.double(levels)
    mean = place.node("ReduceMean", exact, axes)
    centred = place.node("Sub", exact, mean)
    variance = place.node("ReduceMean", place.node("Mul", centred, centred), axes)
    if step.corrected:
        shape = place.node("Shape", levels)
        sizes = [place.double(place.do("Gather", shape, axis)) for axis in (1, 2, 3)]
        count = place.node("Mul", place.node("Mul", sizes[0], sizes[1]), sizes[2])
        less = place.do("Max", place.do("Sub", count, 1.0), 1.0)
        variance = place.node("Mul", variance, place.node("Div", count, less))
    spread = place.do("Add", place.node("Sqrt", variance), float(step.epsilon))
    shifted = place.node("Sub", levels, place.cast(mean, TensorProto.FLOAT))
    return place.node("Div", shifted, place.cast(spread, TensorProto.FLOAT))


def _smoothing(place: Place, levels: str, axis: int, size: int) -> str:
    """The matrix (n, n) that smooths along an axis; each row has the taps that lie inside, which sum to 1."""
    n = place.double(place.do("Gather", place.node("Shape", levels), axis))
    sigma = place.do("Div", place.do("Mul", n, 0.75), float(size))
    places = place.do("Range", 0.0, n, 1.0)
    apart = place.node("Sub", place.node("Unsqueeze", places, place.ints(1)), places)
    square = place.node("Mul", apart, apart)
    taps = place.node(
        "Exp",
        place.node("Div", place.node("Neg", square), place.do("Mul", place.node("Mul", sigma, sigma), 2.0)),
    )
    reach = place.do("Mul", place.node("Ceil", sigma), 2.0)
    inside = place.double(place.node("LessOrEqual", place.node("Abs", apart), reach))
    kept = place.node("Mul", taps, inside)
    return place.node("Div", kept, place.node("ReduceSum", kept, place.ints(1)))


def _light(place: Place, values: str, to: str) -> str:
    """The transfer function of sRGB (IEC 61966-2-1), or its inverse, on values in 0-1."""
    positive = place.do("Max", values, np.float32(0))
    if to == "linear":
        low = place.do("Div", values, np.float32(12.92))
        ratio = place.do("Div", place.do("Add", positive, np.float32(0.055)), np.float32(1.055))
        high, limit = place.do("Pow", ratio, np.float32(2.4)), np.float32(0.04045)
    else:
        low = place.do("Mul", values, np.float32(12.92))
        root = place.do("Pow", positive, np.float32(1 / 2.4))
        high = place.do("Sub", place.do("Mul", root, np.float32(1.055)), np.float32(0.055))
        limit = np.float32(0.0031308)
    return place.node("Where", place.do("LessOrEqual", values, limit), low, high)
