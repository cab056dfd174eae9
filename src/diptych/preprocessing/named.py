"""Recipes by name: how the known projects, and the libraries that they use, prepare a picture."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from diptych.errors import ModelError, UsageError
from diptych.preprocessing.recipe import Preprocessing
from diptych.preprocessing.steps import Colour, Grey, Normalise, RecipeStep, Resize, Scale, SpatialOrder

__all__ = ["NAMES", "named"]

_RECIPES: tuple[tuple[str, str, tuple[RecipeStep, ...]], ...] = (
    (
        "colour-32",
        "32 x 32 colour in 0-1, as PyTorch notebooks make it: Pillow's antialiased bilinear, then / 255",
        (Colour(), Resize(32, 32, "pillow-bilinear"), Scale()),
    ),
    (
        "grey-224",
        "224 x 224 grey in 0-1, as OpenCV scripts make it: cvtColor, resize (not antialiased), / 255",
        (Grey("opencv"), Resize(224, 224, "opencv-linear"), Scale()),
    ),
    (
        "grey-224-normalised",
        "224 x 224 grey, mean 0.5 and std 0.5 (so -1 to 1), as torchvision transforms of a Pillow picture",
        (Grey("pillow"), Resize(224, 224, "pillow-bilinear"), Scale(), Normalise((0.5,), (0.5,))),
    ),
    (
        "imagenet-224",
        "224 x 224 colour, centre crop, ImageNet mean and std: networks trained on ImageNet in PyTorch",
        (
            Colour(),
            Resize(224, 224, "pillow-bilinear", fit="crop"),
            Scale(),
            Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ),
    ),
    (
        "julia-grey-224",
        "Julia: Float32.(imresize(Gray.(img), (224, 224))), grey first, rounded to 8 bits again when resized",
        (Grey("julia"), Resize(224, 224, "imresize"), Scale()),
    ),
    (
        "julia-grey-224-wh",
        "julia-grey-224 fed with reshape(img, 224, 224, 1, 1): the picture's rows are the model's W",
        (Grey("julia"), Resize(224, 224, "imresize"), Scale(), SpatialOrder("wh")),
    ),
    (
        "julia-resize-then-grey-224",
        "Julia: Float32.(Gray.(imresize(img, (224, 224)))), resized in colour and rounded, then grey",
        (Resize(224, 224, "imresize"), Grey("julia"), Scale()),
    ),
    (
        "julia-resize-then-grey-224-wh",
        "julia-resize-then-grey-224 fed with reshape(img, 224, 224, 1, 1): rows are the model's W",
        (Resize(224, 224, "imresize"), Grey("julia"), Scale(), SpatialOrder("wh")),
    ),
    (
        "julia-float-grey-224",
        "Julia: imresize(Float32.(Gray.(img)), (224, 224)), Float32 when resized, so not rounded again",
        (Grey("julia"), Scale(), Resize(224, 224, "imresize", round=False)),
    ),
    (
        "julia-colour-32",
        "Julia: Float32.(channelview(imresize(img, (32, 32)))), colour in 0-1, not antialiased",
        (Colour(), Resize(32, 32, "imresize"), Scale()),
    ),
    (
        "julia-colour-32-wh",
        "julia-colour-32 fed with permutedims(channelview(img), (2, 3, 1)): rows are the model's W",
        (Colour(), Resize(32, 32, "imresize"), Scale(), SpatialOrder("wh")),
    ),
)

NAMES: dict[str, str] = {name: description for name, description, _ in _RECIPES}

_SIZE = re.compile(r"(?<=-)([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?(?=-|$)")
_FAMILIES = {_SIZE.sub("N", name): steps for name, _, steps in _RECIPES}


def named(name: str) -> Preprocessing:
    """A recipe by name.

    Args:
        name: One of `NAMES`, or one of these with another size: "grey-64" is "grey-224" with 64 x 64 pixels,
            "colour-48x64" has 48 rows of 64 pixels.

    Raises:
        UsageError: If the name is unknown; the message suggests the most similar one.
    """
    size = _SIZE.search(str(name))
    steps = _FAMILIES.get(_SIZE.sub("N", str(name))) if size else None
    if size is None or steps is None:
        near = difflib.get_close_matches(_SIZE.sub("224", str(name)), NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}; " if near else ""
        raise UsageError(
            f"no recipe is called {str(name)[:60]!r}: {hint}known are {', '.join(NAMES)}, and these with "
            "another size, such as grey-64 or colour-48x64 (height x width)"
        )
    height, width = int(size[1]), int(size[2] or size[1])
    text = str(height) if height == width else f"{height}x{width}"
    try:
        sized = tuple(
            replace(step, height=height, width=width) if isinstance(step, Resize) else step for step in steps
        )
    except ModelError as error:
        raise UsageError(f"no recipe is called {name!r}: {error}") from error
    return Preprocessing(sized, name=_SIZE.sub(text, str(name)))
