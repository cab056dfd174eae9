"""Edge detectors on the Rec.601 luma, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.extras import imported
from diptych.filters.targets.linear import MIDDLE, along_both, luma
from diptych.model.layers import Array

__all__ = ["by_skimage", "sobel", "sobel_l1", "sobel_x", "sobel_y"]


def sobel(image: Array, ksize: int) -> Array:
    """sqrt((gx^2 + gy^2) / 2)."""
    across, down = _gradients(image, ksize)
    return np.asarray(np.sqrt((across**2 + down**2) / 2))


def sobel_l1(image: Array) -> Array:
    """|gx| + |gy|."""
    across, down = _gradients(image, 3)
    return np.abs(across) + np.abs(down)


def sobel_x(image: Array, ksize: int) -> Array:
    """Half the horizontal derivative, about middle grey."""
    return MIDDLE + _gradients(image, ksize)[0] / 2


def sobel_y(image: Array, ksize: int) -> Array:
    """Half the vertical derivative, about middle grey."""
    return MIDDLE + _gradients(image, ksize)[1] / 2


def by_skimage(name: str, image: Array) -> Array:
    """scikit-image's gradient magnitude "scharr", "prewitt" or "roberts"."""
    filters = imported("skimage.filters")

    return np.asarray(getattr(filters, name)(luma(image)))


def _gradients(image: Array, ksize: int) -> tuple[Array, Array]:
    """Horizontal and vertical derivatives in levels a pixel; weights of either sign sum to 1."""
    import cv2

    kernels: Any = cv2.getDerivKernels(1, 0, ksize, ktype=cv2.CV_64F)
    slope, smooth = (np.asarray(kernel, np.float64).ravel() for kernel in kernels)
    slope, smooth = slope / slope[slope > 0].sum(), smooth / smooth.sum()
    values = luma(image)
    return along_both(values, smooth, slope), along_both(values, slope, smooth)
