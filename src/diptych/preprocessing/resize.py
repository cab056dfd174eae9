"""The resize kernels: one function each, and the literal table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KERNELS", "imresize", "imresize_neighbours", "nearest"]

Array = NDArray[Any]


def imresize(image: Array, height: int, width: int) -> NDArray[np.float32]:
    """Julia's `imresize` (ImageTransformations 0.5 and later): bilinear, half-pixel, edge-clamped, no antialias.

    (H, W) or (H, W, 3), uint8 or float32 -> float32 of `height` x `width` in the same scale. Per axis from n
    to m the source coordinate is s*i + (0.5 - 0.5*s) with s = n/m, counted from 1 and clamped to 1..n; the
    blend runs in float64, as there.
    """
    return np.asarray(_imresize(image, height, width), dtype=np.float32)


def _imresize(image: Array, height: int, width: int) -> NDArray[np.float64]:
    if image.shape[:2] == (height, width):
        return image.astype(np.float64)
    above, below, down = imresize_neighbours(image.shape[0], height)
    left, right, across = imresize_neighbours(image.shape[1], width)
    extra = (1,) * (image.ndim - 2)
    down = down.reshape(-1, 1, *extra)
    across = across.reshape(1, -1, *extra)
    upper, lower = image[above], image[below]
    top = (1 - across) * upper[:, left] + across * upper[:, right]
    bottom = (1 - across) * lower[:, left] + across * lower[:, right]
    result: NDArray[np.float64] = (1 - down) * top + down * bottom
    return result


def imresize_neighbours(n: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Along one axis from n to m: the two neighbours (from 0) of every new pixel, and the second one's weight."""
    s = n / m
    x = np.clip(s * np.arange(1, m + 1) + (0.5 - 0.5 * s), 1, n)
    # The last pixel is reached from its left neighbour with weight 1; of a single pixel both are itself.
    first = np.minimum(np.floor(x), max(n - 1, 1))
    low = first.astype(np.intp) - 1
    return low, np.minimum(low + 1, n - 1), x - first


def nearest(image: Array, height: int, width: int) -> Array:
    """The pixel under each new pixel's centre: row floor((i + 1/2) * n / m), in exact integers.

    The rule of Pillow's NEAREST, PyTorch's "nearest-exact" and OpenCV's INTER_NEAREST_EXACT; OpenCV's plain
    INTER_NEAREST is another, floor(i * n / m).
    """
    rows = (2 * np.arange(height) + 1) * image.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * image.shape[1] // (2 * width)
    return image[rows[:, None], columns]


def _pillow(filter_name: str) -> Callable[[Array, int, int], Array]:
    def kernel(image: Array, height: int, width: int) -> Array:
        from PIL import Image

        method = Image.Resampling[filter_name]
        if image.dtype == np.uint8:
            return np.asarray(Image.fromarray(image).resize((width, height), method))
        planes = [image] if image.ndim == 2 else [image[..., c] for c in range(image.shape[2])]
        done = [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize((width, height), method)) for p in planes]
        return done[0] if image.ndim == 2 else np.stack(done, axis=-1)

    kernel.__doc__ = f"Pillow's `Image.resize` with {filter_name}: antialiased when shrinking."
    return kernel


def _opencv(interpolation: str) -> Callable[[Array, int, int], Array]:
    def kernel(image: Array, height: int, width: int) -> Array:
        import cv2

        result: Array = cv2.resize(
            np.ascontiguousarray(image), (width, height), interpolation=getattr(cv2, interpolation)
        )
        return result

    kernel.__doc__ = f"OpenCV's `resize` with {interpolation}, on the dtype that comes."
    return kernel


KERNELS: dict[str, Callable[[Array, int, int], Array]] = {
    "imresize": imresize,
    "pillow-bilinear": _pillow("BILINEAR"),
    "pillow-bicubic": _pillow("BICUBIC"),
    "pillow-lanczos": _pillow("LANCZOS"),
    "opencv-linear": _opencv("INTER_LINEAR"),
    "opencv-area": _opencv("INTER_AREA"),
    "opencv-cubic": _opencv("INTER_CUBIC"),
    "nearest": nearest,
}
