"""Steps that change the levels of a picture, or smooth it before it is made smaller."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ModelError

__all__ = ["LIGHTS", "Invert", "Light", "LowPass", "Standardise", "applied"]

Array = NDArray[Any]

LIGHTS = ("linear", "srgb")
_MOST_SIGMA = 512.0  # pixels: a picture of 16384 made one of 24


@dataclass(frozen=True)
class Invert:
    """Turns dark into light: 255 - x, or 1 - x after `Scale`, as for digits that are black on white."""


@dataclass(frozen=True)
class Standardise:
    """Subtracts the mean of the picture itself and divides by its standard deviation, over all pixels and channels.

    Args:
        epsilon: Added to the standard deviation, 1e-12 to 1.
        corrected: Whether the deviation is divided by n - 1, as Julia's `std` does by default, rather than by n.

    Raises:
        ModelError: If a setting is out of range.
    """

    epsilon: float = 1e-5
    corrected: bool = False

    def __post_init__(self) -> None:
        good = isinstance(self.epsilon, int | float) and not isinstance(self.epsilon, bool)
        if not good or not 1e-12 <= self.epsilon <= 1:
            raise ModelError("Standardise expects epsilon to be a number from 1e-12 to 1")
        if not isinstance(self.corrected, bool):
            raise ModelError("Standardise expects corrected to be true or false")


@dataclass(frozen=True)
class LowPass:
    """Smooths a picture before it is made smaller, as the documentation of Julia's `imresize` advises.

    The kernel is `KernelFactors.gaussian` with the deviation 0.75 times how much smaller each side becomes, with 4
    ceil(deviation) + 1 taps; at the edge those that are there count (`imfilter(img, kernel, NA())`). The result is
    float32.

    Args:
        height: Rows after the resize that follows.
        width: Columns after it.

    Raises:
        ModelError: If a size is not a whole number from 1 to 16384.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16384:
                raise ModelError(f"LowPass expects {name} to be a whole number from 1 to 16384")


@dataclass(frozen=True)
class Light:
    """Converts levels between sRGB, in which pictures are stored, and linear light, in which some programs resize them.

    Args:
        to: "linear" or "srgb".

    Raises:
        ModelError: If it is another word.
    """

    to: str = "linear"

    def __post_init__(self) -> None:
        if self.to not in LIGHTS:
            raise ModelError(f"Light expects to be one of {', '.join(LIGHTS)}")


def applied(step: Invert | Standardise | LowPass | Light, pixels: Array, top: float) -> Array:
    """The pixels, (H, W) or (H, W, 3), after a step; `top` is the level of white, 255 or 1."""
    if isinstance(step, Invert):
        turned: Array = pixels.dtype.type(top) - pixels
        return turned
    values = pixels.astype(np.float32, copy=False)
    if isinstance(step, Standardise):
        spread = values.std(dtype=np.float64, ddof=int(step.corrected and values.size > 1))
        standard: Array = (values - np.float32(values.mean(dtype=np.float64))) / np.float32(
            spread + step.epsilon
        )
        return standard
    if isinstance(step, LowPass):
        for axis, size in enumerate((step.height, step.width)):
            values = _smoothed(values, axis, 0.75 * values.shape[axis] / size)
        return values
    return _light(values / np.float32(top), step.to) * np.float32(top)


def _smoothed(values: Array, axis: int, sigma: float) -> Array:
    if sigma > _MOST_SIGMA:
        raise ModelError(f"LowPass would smooth over {sigma:.0f} pixels; resize to a larger size")
    reach = 2 * math.ceil(sigma)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    n = values.shape[axis]
    places = np.arange(n)
    total, weight = np.zeros(values.shape), np.zeros(n)
    column = [-1 if i == axis else 1 for i in range(values.ndim)]
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        inside = (places + offset >= 0) & (places + offset < n)
        total += tap * values.take(np.clip(places + offset, 0, n - 1), axis) * inside.reshape(column)
        weight += tap * inside
    return (total / weight.reshape(column)).astype(np.float32)


def _light(values: Array, to: str) -> Array:
    """The transfer function of sRGB (IEC 61966-2-1), or its inverse, on values in 0-1."""
    if to == "linear":
        made = np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)
    else:
        made = np.where(
            values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055
        )
    return made.astype(np.float32)
