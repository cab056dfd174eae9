"""Rank filters: morphology and the median. Levels stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.model.layers import Array

__all__ = ["median", "morphology"]


def morphology(operation: str, image: Array, size: int, shape: str) -> Array:
    """OpenCV's MORPH_ERODE, MORPH_DILATE and others with a "box" or a "cross" of `size` pixels."""
    import cv2

    outline = cv2.MORPH_CROSS if shape == "cross" else cv2.MORPH_RECT
    element: Any = cv2.getStructuringElement(outline, (size, size))
    kind = getattr(cv2, f"MORPH_{operation}")
    return np.asarray(cv2.morphologyEx(np.ascontiguousarray(image), kind, element))


def median(image: Array, size: int) -> Array:
    """The median of a square of `size` pixels."""
    import cv2

    return np.asarray(cv2.medianBlur(np.ascontiguousarray(image), size))
