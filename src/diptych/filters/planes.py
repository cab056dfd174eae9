"""A picture as planes and back, with three channels for one, and extended beyond its border.

A picture is (H, W, 3) or (H, W), as files and filters have it; planes are (C, H, W), as networks have it.
"""

from __future__ import annotations

import numpy as np

from diptych.model.layers import NUMPY_PAD, Array, PadMode
from diptych.preprocessing.grey import WEIGHTS

__all__ = ["REC601", "coloured", "extended", "greyed", "picture_of", "planes_of"]

REC601 = (0.299, 0.587, 0.114)  # what red, green and blue weigh in grey


def planes_of(picture: Array) -> Array:
    """(H, W, 3) or (H, W) -> (C, H, W), contiguous, in the same dtype."""
    return np.ascontiguousarray(picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1))


def picture_of(planes: Array) -> Array:
    """(C, H, W) -> (H, W) of one plane, (H, W, C) of several; a view."""
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def coloured(picture: Array) -> Array:
    """Grey as three equal channels, (H, W) -> (H, W, 3); colour as it is."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def greyed(picture: Array, weights: str) -> Array:
    """Colour as grey, (H, W, 3) -> (H, W) in the same dtype; grey as it is.

    `weights` as in `preprocessing.Grey`: who rounds 8-bit pictures. With "float", and for all others, integers
    are rounded half to even.
    """
    if picture.ndim == 2:
        return picture
    if picture.dtype == np.uint8 and weights != "float":
        return WEIGHTS[weights](picture)
    red, green, blue = REC601
    grey: Array = red * picture[..., 0] + green * picture[..., 1] + blue * picture[..., 2]
    return (grey if picture.dtype.kind == "f" else np.rint(grey)).astype(picture.dtype)


def extended(planes: Array, radius: int, mode: PadMode) -> Array:
    """(C, H, W) -> (C, H + 2 radius, W + 2 radius), by the edge mode."""
    sides = ((0, 0), (radius, radius), (radius, radius))
    result: Array = np.pad(planes, sides, mode=NUMPY_PAD[mode])
    return result
