"""Colour to grey, rounded to 8 bits as Julia, Pillow and OpenCV each do it, or not rounded at all.

(H, W, 3) -> (H, W); a picture that is grey already keeps its values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["WEIGHTS", "grey_float", "grey_julia", "grey_opencv", "grey_pillow"]

Array = NDArray[Any]

_BLOCK = 2**15  # pixels at a time: what is computed in between stays in the cache


def grey_julia(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colors.jl 0.11 and later, `Gray{N0f8}(c)`: round(0.001f0 * (299r + 587g + 114b)), ties to even.

    The sum is below 2^24, so float32 holds it exactly in any order of summing.
    """
    if image.ndim == 2:
        return image
    pixels = image.reshape(-1, 3)
    result = np.empty(len(pixels), np.uint8)
    weights = np.array([299, 587, 114], np.float32)
    for start in range(0, len(pixels), _BLOCK):
        part = slice(start, start + _BLOCK)
        level = pixels[part].astype(np.float32) @ weights
        level *= np.float32(0.001)
        result[part] = np.rint(level, out=level)
    return result.reshape(image.shape[:2])


def grey_pillow(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pillow's `convert("L")`: (19595 R + 38470 G + 7471 B + 0x8000) >> 16."""
    if image.ndim == 2:
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))


def grey_opencv(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """OpenCV's `cvtColor`: (9798 R + 19235 G + 3735 B + 0x4000) >> 15."""
    if image.ndim == 2:
        return image
    import cv2

    result: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return result


def grey_float(image: Array) -> NDArray[np.float32]:
    """0.299 R + 0.587 G + 0.114 B in float32, as Julia's Gray of Float32 colours."""
    if image.ndim == 2:
        return image.astype(np.float32, copy=False)
    red, green, blue = (image[..., c].astype(np.float32) for c in range(3))
    result: NDArray[np.float32] = (
        np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    )
    return result


WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "julia": grey_julia,
    "pillow": grey_pillow,
    "opencv": grey_opencv,
    "float": grey_float,
}
