"""Measures of the difference between two pictures: PSNR, SSIM, and levels of 255."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import ShapeError
from diptych.model.layers import Array

__all__ = [
    "Levels",
    "apart",
    "levels",
    "levels_of",
    "mean_squared_error",
    "psnr",
    "psnr_of",
    "similarities",
    "ssim",
    "to_levels",
]

_RADIUS, _SIGMA = 5, 1.5  # the 11 x 11 Gaussian window of Wang et al.
_K1, _K2 = 0.01, 0.03


class Levels(NamedTuple):
    """The difference of two 8-bit pictures.

    Attributes:
        largest: The largest difference in levels.
        identical: The share of identical pixels.
    """

    largest: int
    identical: float


def psnr(a: Array, b: Array) -> float:
    """Peak signal-to-noise ratio, -10 log10(mean squared error).

    Args:
        a: (H, W) or (H, W, C), in 0..1.
        b: The same shape.

    Returns:
        dB; infinite for equal pictures.

    Raises:
        ShapeError: The shapes differ.
    """
    return psnr_of(mean_squared_error(a, b))


def psnr_of(error: float) -> float:
    """The PSNR in dB for a mean squared error on the scale 0..1."""
    return -10 * math.log10(error) if error > 0 else math.inf


def mean_squared_error(a: Array, b: Array) -> float:
    """The mean of (a - b)^2 in double precision. Raises `ShapeError` where the shapes differ."""
    _alike(a, b)
    difference = np.subtract(a, b, dtype=np.float64)
    return float(np.mean(np.square(difference, out=difference)))


def ssim(a: Array, b: Array) -> float:
    """Structural similarity, the mean over pixels and channels.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity" (2004), equation 13, with a Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03 and
    population covariance, where the window lies within the picture. It equals scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)`. Along a side
    of less than 11 pixels no window fits; there the picture is mirrored at its border and nothing is cropped.

    Args:
        a: (H, W) or (H, W, C), in 0..1.
        b: The same shape.

    Returns:
        1 for equal pictures, otherwise less.

    Raises:
        ShapeError: The shapes differ.
    """
    return float(np.mean(similarities(a, b)))


def similarities(a: Array, b: Array) -> Array:
    """The local similarities of which `ssim` is the mean.

    Returns:
        Float64 (h, w) or (h, w, C), each at the centre of its window. The first is 5 pixels from the border, or 0
        along a side of less than 11 pixels.
    """
    _alike(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    both = mean_x * mean_y
    squares = np.square(mean_x, out=mean_x)
    squares += np.square(mean_y, out=mean_y)
    covariance = _blurred(x * y)
    covariance -= both
    variances = _blurred(np.square(x, out=x) + np.square(y, out=y))
    variances -= squares
    above = _shifted(both, 2, _K1**2)
    above *= _shifted(covariance, 2, _K2**2)
    above /= _shifted(squares, 1, _K1**2)
    above /= _shifted(variances, 1, _K2**2)
    inside: Array = above[tuple(_within(side) for side in x.shape[:2])]
    return inside


def _shifted(values: Array, factor: float, shift: float) -> Array:
    """factor x + shift, in place."""
    values *= factor
    values += shift
    return values


def _within(side: int) -> slice:
    """The centres of windows that lie within a picture."""
    return slice(_RADIUS, side - _RADIUS) if side > 2 * _RADIUS else slice(None)


def _blurred(values: Array) -> Array:
    import cv2

    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window /= window.sum()
    blurred: Any = cv2.sepFilter2D(values, cv2.CV_64F, window, window, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred)


def levels(a: Array, b: Array) -> Levels:
    """The largest difference in levels of 255, and the share of pixels that are equal in every channel.

    Args:
        a: (H, W) or (H, W, C): uint8, or floats in 0..1, which are rounded half to even.
        b: The same shape.

    Raises:
        ShapeError: The shapes differ.
    """
    return levels_of(apart(a, b))


def apart(a: Array, b: Array) -> Array:
    """The difference of two pictures in levels, uint8 (H, W), for the channel where it is largest."""
    _alike(a, b)
    x, y = to_levels(a), to_levels(b)
    differences = np.maximum(x, y) - np.minimum(x, y)
    # Plane by plane, because NumPy is slow for an axis of three elements.
    return differences if x.ndim == 2 else reduce(np.maximum, np.moveaxis(differences, 2, 0))


def levels_of(differences: Array) -> Levels:
    """The largest of the differences that `apart` returns, and the share of zeros."""
    return Levels(int(differences.max()), 1 - np.count_nonzero(differences) / differences.size)


def to_levels(values: Array) -> Array:
    """Floats in 0..1 as uint8, rounded half to even and clipped; uint8 unchanged."""
    if values.dtype == np.uint8:
        return values
    # In single precision 255 (k/255) is exactly k for all multiples of a half, so ties stay ties. In double precision
    # they do not, because k/255 as a float32 is inexact.
    rounded: Array = np.clip(np.rint(values.astype(np.float32) * np.float32(255)), 0, 255).astype(np.uint8)
    return rounded


def _alike(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim not in (2, 3) or 0 in a.shape:
        raise ShapeError(
            f"two pictures to compare are both (H, W) or (H, W, C) of one size, got {a.shape} and {b.shape}"
        )
