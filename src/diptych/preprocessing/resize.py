"""The resize kernels, the ways to fit a picture of another aspect ratio, and the centre crop.

Every kernel takes (H, W) or (H, W, 3), uint8 or float32, and gives a new array of the same dtype. uint8 is rounded in
the way of the library that the kernel reproduces; float32 is not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ShapeError

__all__ = ["KERNELS", "imresize", "imresize_neighbours", "nearest", "size_within"]

Array = NDArray[Any]
Kernel = Callable[[Array, int, int], Array]

_BLOCK = 2**18  # new pixels computed at a time, so that the float64 intermediates stay in the cache
# The most pixels that a picture may be scaled to before a centre crop: one of 1 x 60000 must not need gigabytes.
_MOST_SCALED = 2**27


def imresize(image: Array, height: int, width: int) -> Array:
    """Julia's `imresize` (ImageTransformations 0.5 and later): bilinear, half-pixel centres, no antialiasing.

    Values are blended in float64, as there. uint8 stands for Julia's N0f8 and is rounded to nearest, ties to even.
    The operations are exactly Julia's, so that ties agree: for `Gray`, value/255 is multiplied by the weights
    (FixedPointNumbers); for `RGB`, the integer is multiplied by weight * (1/255) (ColorVectorSpace).
    """
    if image.shape[:2] == (height, width):
        return image.copy()
    above, below, down = imresize_neighbours(image.shape[0], height)
    across = imresize_neighbours(image.shape[1], width)
    result = np.empty((height, width, *image.shape[2:]), image.dtype)
    lines = max(1, _BLOCK // width)
    for start in range(0, height, lines):
        part = slice(start, start + lines)
        # Only the rows that are read, and each one once: enlarging reads the same rows again and again.
        rows, again = np.unique([above[part], below[part]], return_inverse=True)
        wide = _blend_columns(image, rows, *across)
        top, bottom = wide[again.reshape(2, -1)]
        weight = down[part].reshape(-1, *(1,) * (image.ndim - 1))
        block = (1 - weight) * top + weight * bottom
        result[part] = np.rint(block * 255) if image.dtype == np.uint8 else block
    return result


def _blend_columns(
    image: Array, rows: Array, left: Array, right: Array, weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Some rows at the new width, in float64; of uint8, as a fraction of 255."""
    first, second = 1 - weight, weight
    a, b = image[rows[:, None], left], image[rows[:, None], right]
    if image.ndim == 2:
        if image.dtype == np.uint8:
            return np.add(first * (a / 255), second * (b / 255))
        return np.add(first * a.astype(np.float64), second * b.astype(np.float64))
    unit = 1 / 255 if image.dtype == np.uint8 else 1.0
    return np.add((first * unit)[:, None] * a, (second * unit)[:, None] * b)


def imresize_neighbours(n: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Along one axis from n to m: every new pixel's two neighbours (from 0) and the second one's weight.

    The source coordinate is s*i + (0.5 - 0.5*s) with s = n/m, counted from 1 and clamped to 1..n.
    """
    s = n / m
    x = np.clip(s * np.arange(1, m + 1) + (0.5 - 0.5 * s), 1, n)
    # The last pixel is reached from its left neighbour with weight 1; of a single pixel both are itself.
    first = np.minimum(np.floor(x), max(n - 1, 1))
    low = first.astype(np.intp) - 1
    return low, np.minimum(low + 1, n - 1), x - first


def nearest(image: Array, height: int, width: int) -> Array:
    """The pixel under each new pixel's centre: row floor((i + 1/2) * n / m), in exact integers.

    The rule of Pillow's NEAREST and PyTorch's "nearest-exact"; OpenCV's plain INTER_NEAREST is another,
    floor(i * n / m).
    """
    rows = (2 * np.arange(height) + 1) * image.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * image.shape[1] // (2 * width)
    result: Array = image[rows[:, None], columns]
    return result


def pillow_bilinear(image: Array, height: int, width: int) -> Array:
    """Pillow's BILINEAR: antialiased when shrinking."""
    return _pillow(image, height, width, "BILINEAR")


def pillow_bicubic(image: Array, height: int, width: int) -> Array:
    """Pillow's BICUBIC: antialiased when shrinking; float32 may overshoot the range of its input."""
    return _pillow(image, height, width, "BICUBIC")


def pillow_lanczos(image: Array, height: int, width: int) -> Array:
    """Pillow's LANCZOS: antialiased when shrinking; float32 may overshoot the range of its input."""
    return _pillow(image, height, width, "LANCZOS")


def _pillow(image: Array, height: int, width: int, name: str) -> Array:
    from PIL import Image

    if image.ndim == 3 and image.dtype != np.uint8:  # Pillow has no colour floats: one channel at a time
        return np.stack([_pillow(image[..., c], height, width, name) for c in range(image.shape[2])], axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling[name]))


def opencv_linear(image: Array, height: int, width: int) -> Array:
    """OpenCV's INTER_LINEAR: two neighbours, not antialiased."""
    return _opencv(image, height, width, "INTER_LINEAR")


def opencv_area(image: Array, height: int, width: int) -> Array:
    """OpenCV's INTER_AREA: the mean of the area when shrinking, linear when enlarging."""
    return _opencv(image, height, width, "INTER_AREA")


def opencv_cubic(image: Array, height: int, width: int) -> Array:
    """OpenCV's INTER_CUBIC: not antialiased; float32 may overshoot the range of its input."""
    return _opencv(image, height, width, "INTER_CUBIC")


def _opencv(image: Array, height: int, width: int, name: str) -> Array:
    import cv2

    result: Array = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=getattr(cv2, name))
    return result


KERNELS: dict[str, Kernel] = {
    "imresize": imresize,
    "pillow-bilinear": pillow_bilinear,
    "pillow-bicubic": pillow_bicubic,
    "pillow-lanczos": pillow_lanczos,
    "opencv-linear": opencv_linear,
    "opencv-area": opencv_area,
    "opencv-cubic": opencv_cubic,
    "nearest": nearest,
}


def resized(image: Array, height: int, width: int, kernel: str, fit: str, ground: float) -> Array:
    """The picture, resized to `height` x `width`. `ground` is the level of the padding, on the picture's scale."""
    scaled_height, scaled_width = size_within(image.shape[0], image.shape[1], height, width, fit)
    check_scaled(image.shape[0], image.shape[1], scaled_height, scaled_width)
    scaled = KERNELS[kernel](image, scaled_height, scaled_width)
    if fit == "crop":
        top, left = margin(scaled_height, height), margin(scaled_width, width)
        return scaled[top : top + height, left : left + width]
    if fit == "pad" and scaled.shape[:2] != (height, width):
        result = np.full((height, width, *image.shape[2:]), ground, image.dtype)
        top, left = round((height - scaled_height) / 2), round((width - scaled_width) / 2)
        result[top : top + scaled_height, left : left + scaled_width] = scaled
        return result
    return scaled


def check_scaled(h: int, w: int, scaled_height: int, scaled_width: int) -> None:
    """Raises `ShapeError` for a picture so elongated that scaling it would take gigabytes."""
    if scaled_height * scaled_width > _MOST_SCALED:
        raise ShapeError(
            f"the recipe expects a picture less elongated than {h} x {w}, which it would scale to "
            f'{scaled_height} x {scaled_width}; use fit="pad" or fit="stretch"'
        )


def centred(image: Array, height: int, width: int, fill: Array) -> Array:
    """The centre of a picture; a side that is too short is padded with `fill`, (1,) or (3,), as in torchvision."""
    top, left = margin(image.shape[0], height), margin(image.shape[1], width)
    cut = image[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if cut.shape[:2] == (height, width):
        return cut
    result = np.empty((height, width, *image.shape[2:]), image.dtype)
    result[...] = fill if image.ndim == 3 else fill[0]
    top, left = max(-top, 0), max(-left, 0)
    result[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return result


def margin(side: int, wanted: int) -> int:
    """What is cut off before the centre of a side, as torchvision's center_crop rounds it; negative for padding."""
    return round((side - wanted) / 2) if side >= wanted else -((wanted - side) // 2)


def size_within(h: int, w: int, height: int, width: int, fit: str) -> tuple[int, int]:
    """The (height, width) to which an h x w picture is scaled before it is cropped or padded to the final size.

    For "crop" and "cover" the shorter side fits and the longer side is rounded down, as in torchvision's Resize. For
    "pad" the longer side fits and the shorter side is rounded, but not to 0, as in Pillow's `ImageOps.contain`. For
    "cover-rounded" and "contain" both sides are divided by one ratio and rounded, as in timm's ResizeKeepRatio.
    """
    if fit in ("cover-rounded", "contain"):
        ratio = (min if fit == "cover-rounded" else max)(h / height, w / width)
        return max(1, round(h / ratio)), max(1, round(w / ratio))
    if fit == "stretch" or h * width == w * height:
        return height, width
    wider = w * height > h * width
    if fit in ("crop", "cover"):
        return (height, w * height // h) if wider else (h * width // w, width)
    return (max(1, round(h / w * width)), width) if wider else (height, max(1, round(w / h * height)))
