"""The first steps of a recipe on a picture that Pillow holds, without the way through an array and back.

That way costs a sixth of decoding and resizing a photograph. The values are the same: these are Pillow's own
operations, which the array kernels call too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ModelError
from diptych.preprocessing.resize import check_scaled, margin, size_within
from diptych.preprocessing.steps import FREE_FITS, CentreCrop, Colour, Grey, RecipeStep, Resize

__all__ = ["begin", "is_pillow_picture"]


def is_pillow_picture(picture: Any) -> bool:
    """Whether this is a `PIL.Image.Image`, found out without importing Pillow."""
    return any(kind.__module__ == "PIL.Image" for kind in type(picture).__mro__)


def begin(picture: Any, steps: tuple[RecipeStep, ...]) -> tuple[NDArray[np.uint8], tuple[RecipeStep, ...]]:
    """The picture after those first steps that Pillow itself can do, as an array, and the steps left to do.

    Raises `ModelError` for a picture of another mode than L and RGB.
    """
    from PIL import Image

    if picture.mode not in ("L", "RGB"):
        raise ModelError(
            f"a Pillow picture is expected in mode L or RGB, but this one is {picture.mode}; "
            "read it with diptych, or convert it first"
        )
    done = 0
    for step in steps:
        if isinstance(step, Grey) and step.weights == "pillow":
            picture = picture.convert("L")
        elif (
            isinstance(step, Resize)
            and step.kernel.startswith("pillow-")
            and step.round
            and step.fit in ("stretch", *FREE_FITS)
        ):
            method = Image.Resampling[step.kernel.removeprefix("pillow-").upper()]
            height, width = size_within(picture.height, picture.width, step.height, step.width, step.fit)
            check_scaled(picture.height, picture.width, height, width)
            picture = picture.resize((width, height), method)
        elif isinstance(step, CentreCrop) and picture.width >= step.width and picture.height >= step.height:
            left, top = margin(picture.width, step.width), margin(picture.height, step.height)
            picture = picture.crop((left, top, left + step.width, top + step.height))
        elif not (isinstance(step, Colour) and picture.mode == "RGB"):
            break
        done += 1
    return np.asarray(picture), steps[done:]
