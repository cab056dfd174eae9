"""Adds a recipe to the beginning of an ONNX graph: "pixels", uint8 (N, H, W, 3) -> "input", as the model takes it.

The pictures of a batch have the same size, which is free; each resize computes its weights from it. 8-bit steps are
computed in integers, or exactly in float64, and are rounded where and as the imitated library rounds. Measured
differences from `Preprocessing.apply`: none, except one level in "opencv-cubic" where a sum is halfway between two
levels or a picture has fewer than four rows or columns, and less than 0.02 of a level in Pillow's and OpenCV's kernels
without rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from diptych.errors import ModelError
from diptych.formats.onnx.graph import OnnxGraph
from diptych.formats.onnx.preprocessing_kernels import KERNELS
from diptych.formats.onnx.preprocessing_levels import levelled
from diptych.formats.onnx.preprocessing_values import Axis, Pixels, Place
from diptych.model.layers import Chain
from diptych.preprocessing import (
    CentreCrop,
    Colour,
    Grey,
    Invert,
    Light,
    LowPass,
    Normalise,
    Preprocessing,
    RecipeStep,
    Resize,
    Scale,
    SpatialOrder,
    Standardise,
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
    place = Place(own, "preprocessing", "pixels", ())
    pixels = Pixels(place.node("Transpose", "pixels", perm=[0, 3, 1, 2]))
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


def _applied(place: Place, pixels: Pixels, step: RecipeStep) -> Pixels:
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
    if isinstance(step, Invert):
        top = np.float32(1 if pixels.scaled else 255)
        levels = pixels.value if not pixels.eight_bit else place.cast(pixels.value, TensorProto.FLOAT)
        turned = place.do("Sub", top, levels)
        kept = place.cast(turned, TensorProto.UINT8) if pixels.eight_bit else turned
        return replace(pixels, value=kept)
    if isinstance(step, Light | LowPass | Standardise):
        levels = place.cast(pixels.value, TensorProto.FLOAT)
        made = levelled(place, levels, step, 1.0 if pixels.scaled else 255.0)
        return replace(pixels, value=made, eight_bit=False)
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


def _grey(place: Place, pixels: Pixels, kind: str) -> Pixels:
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


def _axes(place: Place, pixels: Pixels, step: Resize) -> tuple[Axis, Axis]:
    """The rule of `diptych.preprocessing.resize.size_within`, for a size that is known only at run time."""
    shape = place.node("Shape", pixels.value)
    h, w = (place.double(place.do("Gather", shape, axis)) for axis in (2, 3))
    height, width = float(step.height), float(step.width)
    places = [np.arange(n, dtype=np.float64) for n in (step.height, step.width)]
    if step.fit == "stretch":
        rows, columns = (place.number(p) for p in places)
        return Axis(h, place.number(height), rows), Axis(w, place.number(width), columns)
    if step.fit in ("cover-rounded", "contain"):
        ratios = place.do("Div", h, height), place.do("Div", w, width)
        ratio = place.node("Min" if step.fit == "cover-rounded" else "Max", *ratios)
        scaled = [place.do("Max", place.node("Round", place.node("Div", n, ratio)), 1.0) for n in (h, w)]
        return _whole(place, h, scaled[0]), _whole(place, w, scaled[1])
    wider = place.do("Greater", place.do("Mul", w, height), place.do("Mul", h, width))
    if step.fit in ("crop", "cover"):
        scaled_h = place.do("Where", wider, height, place.floored(place.do("Mul", h, width), w))
        scaled_w = place.do("Where", wider, place.floored(place.do("Mul", w, height), h), width)
    else:
        scaled_h = place.do("Where", wider, _contained(place, h, w, width), height)
        scaled_w = place.do("Where", wider, width, _contained(place, w, h, height))
    if step.fit == "cover":
        return _whole(place, h, scaled_h), _whole(place, w, scaled_w)
    return (
        _moved(place, Axis(h, scaled_h, ""), places[0], step.fit),
        _moved(place, Axis(w, scaled_w, ""), places[1], step.fit),
    )


def _whole(place: Place, source: str, target: str) -> Axis:
    return Axis(source, target, place.do("Range", 0.0, target, 1.0))


def _contained(place: Place, side: str, other: str, fitted: float) -> str:
    size = place.node("Round", place.do("Mul", place.node("Div", side, other), fitted))
    return place.do("Max", size, 1.0)


def _moved(place: Place, axis: Axis, places: Any, fit: str) -> Axis:
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


def _resized(place: Place, pixels: Pixels, step: Resize) -> Pixels:
    if pixels.eight_bit and not step.round:
        pixels = replace(pixels, value=place.cast(pixels.value, TensorProto.FLOAT), eight_bit=False)
    rows, columns = _axes(place, pixels, step)
    kind = TensorProto.UINT8 if pixels.eight_bit else TensorProto.FLOAT
    value = place.cast(KERNELS[step.kernel](place, pixels, rows, columns), kind)
    if rows.inside:
        covered = place.node("And", place.do("Unsqueeze", rows.inside, [1]), columns.inside)
        ground = step.fill / 255 if pixels.scaled else step.fill
        value = place.do("Where", covered, value, helper.tensor_dtype_to_np_dtype(kind).type(ground))
    return replace(pixels, value=value)


def _centred(place: Place, pixels: Pixels, step: CentreCrop) -> Pixels:
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
