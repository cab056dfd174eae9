"""Filters that choose among the levels around a pixel: morphology and the median. Levels stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.model.layers import Array

__all__ = ["closing", "dilation", "erosion", "gradient", "median", "opening", "top_hat"]


def erosion(image: Array, size: int, shape: str) -> Array:
    """The least level in the window."""
    return _morphology("MORPH_ERODE", image, size, shape)


def dilation(image: Array, size: int, shape: str) -> Array:
    """The largest level in the window."""
    return _morphology("MORPH_DILATE", image, size, shape)


def opening(image: Array, size: int, shape: str) -> Array:
    """Erosion, then dilation."""
    return _morphology("MORPH_OPEN", image, size, shape)


def closing(image: Array, size: int, shape: str) -> Array:
    """Dilation, then erosion."""
    return _morphology("MORPH_CLOSE", image, size, shape)


def gradient(image: Array, size: int, shape: str) -> Array:
    """Dilation minus erosion."""
    return _morphology("MORPH_GRADIENT", image, size, shape)


def top_hat(image: Array, size: int, shape: str) -> Array:
    """The picture minus its opening."""
    return _morphology("MORPH_TOPHAT", image, size, shape)


def median(image: Array, size: int) -> Array:
    """The middle level of a square."""
    import cv2

    return np.asarray(cv2.medianBlur(np.ascontiguousarray(image), size))


def _morphology(operation: str, image: Array, size: int, shape: str) -> Array:
    import cv2

    outline = cv2.MORPH_CROSS if shape == "cross" else cv2.MORPH_RECT
    element: Any = cv2.getStructuringElement(outline, (size, size))
    return np.asarray(cv2.morphologyEx(np.ascontiguousarray(image), getattr(cv2, operation), element))
