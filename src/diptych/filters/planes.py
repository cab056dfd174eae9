"""Conversions between pictures and planes, between grey and colour, and padding.

A picture is (H, W, 3) or (H, W), as in files and filters; planes are (C, H, W), as in networks.
"""

from __future__ import annotations

import numpy as np

from diptych.model.layers import NUMPY_PAD, Array, PadMode
from diptych.preprocessing.grey import WEIGHTS

__all__ = ["REC601", "coloured", "extended", "greyed", "picture_of", "planes_of"]

REC601 = (0.299, 0.587, 0.114)  # the weights of red, green and blue in luma


def planes_of(picture: Array) -> Array:
    """(H, W, 3) or (H, W) -> (C, H, W), contiguous, in the same dtype."""
    return np.ascontiguousarray(picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1))


def picture_of(planes: Array) -> Array:
    """(C, H, W) -> (H, W) for one plane, (H, W, C) for several; a view."""
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def coloured(picture: Array) -> Array:
    """Grey as three equal channels, (H, W) -> (H, W, 3); colour unchanged."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def greyed(picture: Array, weights: str) -> Array:
    """Colour as grey by Rec.601, (H, W, 3) -> (H, W) in the same dtype; grey unchanged.

    Args:
        picture: (H, W, 3) or (H, W).
        weights: How 8-bit pictures are rounded, as in `preprocessing.Grey`. With "float", and for other dtypes,
            integers are rounded half to even.
    """
    if picture.ndim == 2:
        return picture
    if picture.dtype == np.uint8 and weights != "float":
        return WEIGHTS[weights](picture)
    red, green, blue = REC601
    grey: Array = red * picture[..., 0] + green * picture[..., 1] + blue * picture[..., 2]
    return (grey if picture.dtype.kind == "f" else np.rint(grey)).astype(picture.dtype)


def extended(planes: Array, radius: int, mode: PadMode) -> Array:
    """(C, H, W) -> (C, H + 2 radius, W + 2 radius), by the padding mode."""
    sides = ((0, 0), (radius, radius), (radius, radius))
    result: Array = np.pad(planes, sides, mode=NUMPY_PAD[mode])
    return result
