"""Curves: each level of each channel is mapped to another."""

from __future__ import annotations

import numpy as np

from diptych.model.layers import Array

__all__ = [
    "brightness",
    "contrast",
    "gamma",
    "invert",
    "posterise",
    "s_curve",
    "saturation",
    "solarise",
    "threshold",
]


def invert(image: Array) -> Array:
    """255 - x."""
    return 255 - image


def threshold(image: Array, level: int) -> Array:
    """White above `level`, otherwise black, in every channel."""
    return np.where(image > level, np.uint8(255), np.uint8(0))


def posterise(image: Array, levels: int) -> Array:
    """Bands of equal width, shown as equally spaced levels from 0 to 255."""
    return (image.astype(np.int64) * levels // 256) * (255 / (levels - 1))


def gamma(image: Array, gamma: float) -> Array:
    """255 (x / 255)^gamma."""
    return 255 * (image / 255) ** gamma


def solarise(image: Array, level: int) -> Array:
    """Levels from `level` upwards inverted."""
    return np.where(image < level, image, 255 - image)


def brightness(image: Array, amount: float) -> Array:
    """x + 255 amount."""
    return image + 255 * amount


def contrast(image: Array, amount: float) -> Array:
    """127.5 + amount (x - 127.5)."""
    return 127.5 + amount * (image - 127.5)


def s_curve(image: Array, gain: float) -> Array:
    """The logistic curve 255 / (1 + exp(gain (0.5 - x / 255)))."""
    return 255 / (1 + np.exp(gain * (0.5 - image / 255)))


def saturation(image: Array, amount: float) -> Array:
    """luma + amount (x - luma) in every channel; grey pixels stay unchanged."""
    from diptych.filters.targets.linear import luma

    if image.ndim == 2:
        return image.astype(np.float64)
    grey = luma(image)[..., None]
    return grey + amount * (image - grey)
