"""The file preprocess.jl: a recipe in plain Julia, with the parts of the templates that its steps need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.formats.julia_project.templates import template
from diptych.preprocessing import (
    CentreCrop,
    Colour,
    Grey,
    Invert,
    Light,
    LowPass,
    Normalise,
    Preprocessing,
    Resize,
    Scale,
    SpatialOrder,
    Standardise,
)
from diptych.preprocessing.steps import RecipeStep

__all__ = ["preprocess_text"]

# For each kernel: the template that contains it, and its function there.
_KERNELS = {
    "imresize": ("imresize", "imresize"),
    "nearest": ("nearest", "nearest"),
    "pillow-bilinear": ("pillow", "pillow_bilinear"),
    "pillow-bicubic": ("pillow", "pillow_bicubic"),
    "pillow-lanczos": ("pillow", "pillow_lanczos"),
    "opencv-linear": ("opencv", "opencv_linear"),
    "opencv-area": ("opencv", "opencv_area"),
    "opencv-cubic": ("opencv", "opencv_cubic"),
}

_HEAD = '''# The recipe that turns a picture into the model's input, in plain Julia.
#
{steps}

"""UInt8 (H, W) or (H, W, 3) -> Float32 (W, H, C), the model's input for one picture."""
function preprocess(pixels)
{body}
    return Float32.(ndims(pixels) == 2 ? reshape(turned_pixels, size(turned_pixels)..., 1) : turned_pixels)
end
'''


def preprocess_text(recipe: Preprocessing | None) -> str:
    """The contents of preprocess.jl."""
    if recipe is None:
        refusal = "this model carries no recipe for pictures; give an array that is already prepared"
        return f'preprocess(pixels) = error("{refusal}")\n'
    parts, lines, scaled = ["steps"], [], False
    for step in recipe.steps:
        line, needed = _line(step, scaled)
        lines.append(f"    pixels = {line}" if line else "")
        parts += needed
        scaled = scaled or isinstance(step, Scale)
    steps = "\n".join(f"#   {sentence}" for sentence in recipe.describe())
    body = "\n".join([*(line for line in lines if line), "    turned_pixels = swapped(pixels)"])
    texts = [_HEAD.format(steps=steps, body=body), *(template(f"{p}.jl") for p in dict.fromkeys(parts))]
    return "\n".join(texts)


def _line(step: RecipeStep, scaled: bool) -> tuple[str, list[str]]:
    """The Julia code of one step, and the templates that it needs."""
    expression: Callable[[Any, bool], tuple[str, list[str]]] = _STEPS[type(step)]
    return expression(step, scaled)


def _grey(step: Grey, scaled: bool) -> tuple[str, list[str]]:
    return f"grey_{step.weights}(pixels)", [f"grey_{step.weights}"]


def _resize(step: Resize, scaled: bool) -> tuple[str, list[str]]:
    part, function = _KERNELS[step.kernel]
    given = "pixels" if step.round else "as_float(pixels)"
    ground = _literal(step.fill / 255) if scaled else str(step.fill)
    line = f'resized({given}, {step.height}, {step.width}, {function}, "{step.fit}", {ground})'
    return line, ["fit", part]


def _centre_crop(step: CentreCrop, scaled: bool) -> tuple[str, list[str]]:
    levels = [_literal(float(np.float32(n) / np.float32(255))) if scaled else str(n) for n in step.fill]
    return f"centred(pixels, {step.height}, {step.width}, [{', '.join(levels)}])", ["centre"]


def _normalise(step: Normalise, scaled: bool) -> tuple[str, list[str]]:
    mean, std = (", ".join(_literal(v) for v in values) for values in (step.mean, step.std))
    return f"normalised(pixels, [{mean}], [{std}])", []


def _literal(value: float) -> str:
    mantissa, _, exponent = str(np.float32(value)).partition("e")
    return f"{mantissa}f{int(exponent or 0)}"


def _light(step: Light, scaled: bool) -> tuple[str, list[str]]:
    return f"{step.to}_light(pixels, {'1.0f0' if scaled else '255.0f0'})", ["light"]


def _low_pass(step: LowPass, scaled: bool) -> tuple[str, list[str]]:
    return f"low_pass(pixels, {step.height}, {step.width})", ["low_pass"]


def _standardise(step: Standardise, scaled: bool) -> tuple[str, list[str]]:
    corrected = "true" if step.corrected else "false"
    return f"standardised_picture(pixels, {_literal(step.epsilon)}, {corrected})", []


_STEPS: dict[type[Any], Callable[[Any, bool], tuple[str, list[str]]]] = {
    Grey: _grey,
    Colour: lambda step, scaled: ("colour(pixels)", []),
    Invert: lambda step, scaled: (f"inverted(pixels, {'1.0f0' if scaled else '255'})", []),
    Light: _light,
    LowPass: _low_pass,
    Standardise: _standardise,
    Resize: _resize,
    CentreCrop: _centre_crop,
    Scale: lambda step, scaled: ("scaled(pixels)", []),
    Normalise: _normalise,
    SpatialOrder: lambda step, scaled: ("swapped(pixels)" if step.order == "wh" else "", []),
}
