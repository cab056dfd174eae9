"""Filters that a local network cannot imitate. They have names so that users are told the reason."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Array

__all__ = ["auto_levels", "equalise", "noise"]


def auto_levels(image: Array) -> Array:
    """Levels stretched so that the darkest one of the picture becomes 0 and the brightest 255."""
    low, high = float(image.min()), float(image.max())
    return (image - low) * (255 / max(high - low, 1))


def equalise(image: Array) -> Array:
    """Histogram equalisation of every channel over the whole picture, by OpenCV."""
    import cv2

    planes = [image] if image.ndim == 2 else [image[..., c] for c in range(3)]
    done = [np.asarray(cv2.equalizeHist(np.ascontiguousarray(plane))) for plane in planes]
    return done[0] if image.ndim == 2 else np.stack(done, axis=2)


def noise(image: Array, sigma: float) -> Array:
    """Gaussian noise added, different on every call."""
    return image + np.random.default_rng().normal(0, sigma, image.shape)
