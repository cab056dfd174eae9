"""How close two pictures are: PSNR, SSIM, and the difference in levels of 255."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import ShapeError
from diptych.model.layers import Array

__all__ = ["Levels", "levels", "mean_squared_error", "psnr", "psnr_of", "ssim", "to_levels"]

_RADIUS, _SIGMA = 5, 1.5  # the 11 x 11 Gaussian window of Wang et al.
_K1, _K2 = 0.01, 0.03


class Levels(NamedTuple):
    """Two pictures after rounding to 8 bits: the largest difference, and the share of identical pixels."""

    largest: int
    identical: float


def psnr(a: Array, b: Array) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10 of the mean squared error; infinite for equal pictures.

    `a`, `b`: (H, W) or (H, W, C), 0..1. Raises `ShapeError` where the shapes differ.
    """
    return psnr_of(mean_squared_error(a, b))


def psnr_of(error: float) -> float:
    """The PSNR in dB of a mean squared error on the scale 0..1."""
    return -10 * math.log10(error) if error > 0 else math.inf


def mean_squared_error(a: Array, b: Array) -> float:
    """The mean of (a - b)^2 in double precision. Raises `ShapeError` where the shapes differ."""
    _alike(a, b)
    return float(np.mean(np.square(a.astype(np.float64) - b)))


def ssim(a: Array, b: Array) -> float:
    """Structural similarity, 1 for equal pictures, the mean over pixels and channels.

    `a`, `b`: (H, W) or (H, W, C), 0..1. Wang, Bovik, Sheikh and Simoncelli 2004, equation 13: a Gaussian
    window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, and only where the window
    lies within the picture. This is scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`. Along a side shorter than 11 pixels no window fits: there
    the picture is mirrored at its border and nothing is cropped. Raises `ShapeError` where the shapes differ.
    """
    _alike(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    if x.ndim == 3:
        return float(np.mean([_ssim(x[..., i], y[..., i]) for i in range(x.shape[2])]))
    return _ssim(x, y)


def _ssim(x: Array, y: Array) -> float:
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x * mean_x + mean_y * mean_y + c1) * (variances + c2)
    whole = tuple(slice(_RADIUS, -_RADIUS) if side > 2 * _RADIUS else slice(None) for side in x.shape)
    return float(np.mean((above / below)[whole]))


def _blurred(values: Array) -> Array:
    import cv2

    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window /= window.sum()
    blurred: Any = cv2.sepFilter2D(values, cv2.CV_64F, window, window, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred)


def levels(a: Array, b: Array) -> Levels:
    """The largest difference in levels of 255, and the share of pixels that are equal in every channel.

    `a`, `b`: (H, W) or (H, W, C), uint8, or floats in 0..1, which are rounded half to even first. Raises
    `ShapeError` where the shapes differ.
    """
    _alike(a, b)
    apart = np.abs(to_levels(a).astype(np.int16) - to_levels(b))
    worst = apart.max(axis=2) if apart.ndim == 3 else apart
    return Levels(int(worst.max()), float(np.mean(worst == 0)))


def to_levels(values: Array) -> Array:
    """Floats in 0..1 as uint8: rounded half to even and clipped; uint8 stays as it is."""
    if values.dtype == np.uint8:
        return values
    # In single precision 255 (k/255) is k again for all multiples of a half: a tie is a tie, which it is not
    # in double precision, where k/255 as a float32 lies beside it.
    rounded: Array = np.clip(np.rint(values.astype(np.float32) * np.float32(255)), 0, 255).astype(np.uint8)
    return rounded


def _alike(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim not in (2, 3) or 0 in a.shape:
        raise ShapeError(
            f"two pictures to compare are both (H, W) or (H, W, C) of one size, got {a.shape} and {b.shape}"
        )
