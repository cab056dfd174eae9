"""Linear filters, in float64: each output is a fixed weighted sum of the inputs around it."""

from __future__ import annotations

import numpy as np

from diptych.extras import imported
from diptych.filters.planes import REC601, coloured
from diptych.model.layers import Array

__all__ = [
    "along_both",
    "box",
    "difference_of_gaussians",
    "emboss",
    "gaussian",
    "gaussian_radius",
    "grey",
    "high_pass",
    "identity",
    "laplacian",
    "laplacian_of_gaussian",
    "luma",
    "motion",
    "random",
    "random_kernel",
    "sepia",
    "sharpen",
    "unsharp",
]

SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], float)
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float)
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], float)
MIDDLE = 127.5  # added to make negative values visible
TRUNCATE = 3.0  # sigmas at which a Gaussian is cut off


def luma(image: Array) -> Array:
    """Rec.601 luma in levels, float64 (H, W); a grey picture keeps its values."""
    values = image.astype(np.float64)
    return values if image.ndim == 2 else np.asarray(values @ np.array(REC601))


def identity(image: Array) -> Array:
    """The picture unchanged."""
    return image


def grey(image: Array) -> Array:
    """Rec.601 luma, (H, W)."""
    return luma(image)


def sepia(image: Array) -> Array:
    """The usual 3 x 3 colour matrix for sepia, clipped."""
    return np.asarray(coloured(image).astype(np.float64) @ SEPIA.T)


def box(image: Array, size: int) -> Array:
    """The mean of a square."""
    return along_both(image, *(np.full(size, 1 / size),) * 2)


def gaussian_radius(sigma: float) -> int:
    """The radius in pixels of SciPy's Gaussian when it is cut off at three sigma."""
    return int(TRUNCATE * sigma + 0.5)


def gaussian(image: Array, sigma: float) -> Array:
    """A Gaussian blur, cut off at three sigma."""
    radius = gaussian_radius(sigma)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return along_both(image, *(bell / bell.sum(),) * 2)


def sharpen(image: Array) -> Array:
    """The sharpening kernel of the four neighbours."""
    return _correlate(image, SHARPEN)


def emboss(image: Array) -> Array:
    """A relief lit from the lower right; the weights sum to 1."""
    return _correlate(image, EMBOSS)


def unsharp(image: Array, sigma: float, amount: float) -> Array:
    """x + amount (x - blurred x)."""
    return image + amount * (image - gaussian(image, sigma))


def high_pass(image: Array, sigma: float) -> Array:
    """What a Gaussian blur removes, about middle grey."""
    return MIDDLE + image - gaussian(image, sigma)


def difference_of_gaussians(image: Array, sigma: float, ratio: float) -> Array:
    """Twice the difference of two blurs of the luma, about middle grey."""
    grey_levels = luma(image)
    return MIDDLE + 2 * (gaussian(grey_levels, sigma) - gaussian(grey_levels, ratio * sigma))


def laplacian(image: Array) -> Array:
    """Half the Laplacian of the luma from the four neighbours, about middle grey."""
    return MIDDLE + _correlate(luma(image), LAPLACIAN) / 2


def laplacian_of_gaussian(image: Array, sigma: float) -> Array:
    """sigma^2 times the Laplacian of the blurred luma, about middle grey."""
    ndimage = imported("scipy.ndimage")

    response = ndimage.gaussian_laplace(luma(image), sigma, mode="nearest", truncate=TRUNCATE)
    return np.asarray(MIDDLE + sigma**2 * response)


def motion(image: Array, size: int, angle: int) -> Array:
    """The mean along a line; `angle` in degrees, anticlockwise from the horizontal."""
    kernel = np.zeros((size, size))
    middle, steps = size // 2, np.arange(size)
    rows = {0: np.full(size, middle), 45: steps[::-1], 90: steps, 135: steps}[angle]
    kernel[rows, middle if angle == 90 else steps] = 1 / size
    return _correlate(image, kernel)


def random_kernel(seed: int, size: int) -> Array:
    """A kernel of random weights, float64 (size, size, 3).

    The weights are uniform in -1..1, scaled to sum |k| = 2, and shifted to sum k = 1.
    """
    kernel = np.random.default_rng(seed).uniform(-1, 1, (size, size, 3))
    kernel *= 2 / np.abs(kernel).sum()
    return np.asarray(kernel + (1 - kernel.sum()) / kernel.size)


def random(image: Array, seed: int, size: int) -> Array:
    """A seeded linear kernel over all three channels, (H, W)."""
    colour, kernel = coloured(image), random_kernel(seed, size)
    return np.asarray(sum(_correlate(colour[..., c], kernel[..., c]) for c in range(3)))


def _correlate(image: Array, kernel: Array) -> Array:
    import cv2

    values = image.astype(np.float64)
    return np.asarray(cv2.filter2D(values, cv2.CV_64F, kernel, borderType=cv2.BORDER_REPLICATE))


def along_both(image: Array, down: Array, across: Array) -> Array:
    """Every channel correlated with `down` along columns and `across` along rows."""
    import cv2  # the same as scipy.ndimage.correlate1d, with a tenth of the import time

    values = image.astype(np.float64)
    return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, across, down, borderType=cv2.BORDER_REPLICATE))
