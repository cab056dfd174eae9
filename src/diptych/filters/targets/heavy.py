"""Heavy filters, which divide, sort, iterate or depend on distant pixels; a small network only approximates them.

OpenCV's photographic functions take BGR in whole levels, and return whole levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.extras import imported
from diptych.filters.planes import coloured, planes_of
from diptych.filters.targets.linear import luma
from diptych.model.layers import Array

__all__ = [
    "bilateral",
    "clahe",
    "detail_enhance",
    "edge_preserving",
    "l0",
    "local_tone",
    "nlm",
    "pencil",
    "stylise",
    "tv",
]


def bilateral(image: Array, size: int, colour: float, space: float) -> Array:
    """The bilateral filter of Tomasi and Manduchi (1998), by OpenCV in float32."""
    import cv2

    values = image.astype(np.float32)
    return np.asarray(cv2.bilateralFilter(values, size, colour, space, borderType=cv2.BORDER_REPLICATE))


def tv(image: Array, weight: float, steps: int) -> Array:
    """Total variation denoising (Rudin, Osher and Fatemi 1992) by a fixed number of Chambolle's projections (2004)."""
    restoration = imported("skimage.restoration")

    axis = 2 if image.ndim == 3 else None
    values = image.astype(np.float32) / 255
    smooth = restoration.denoise_tv_chambolle(values, weight, eps=0, max_num_iter=steps, channel_axis=axis)
    return np.asarray(255 * smooth)


def nlm(image: Array, h: float, patch: int, search: int) -> Array:
    """Non-local means (Buades, Coll and Morel 2005) by OpenCV, on all three channels together."""
    import cv2

    return np.asarray(cv2.fastNlMeansDenoising(np.ascontiguousarray(image), None, h, patch, search))


def edge_preserving(image: Array, space: float, colour: float) -> Array:
    """The recursive domain transform (Gastal and Oliveira 2011) by OpenCV."""
    import cv2

    return _photographic(cv2.edgePreservingFilter, image, cv2.RECURS_FILTER, space, colour)


def detail_enhance(image: Array, space: float, colour: float) -> Array:
    """The detail above the domain transform amplified, by OpenCV."""
    import cv2

    return _photographic(cv2.detailEnhance, image, space, colour)


def stylise(image: Array, space: float, colour: float) -> Array:
    """Smooth areas between dark edges, by OpenCV."""
    import cv2

    return _photographic(cv2.stylization, image, space, colour)


def pencil(image: Array, space: float, colour: float, shade: float) -> Array:
    """The grey one of OpenCV's two pencil sketches, (H, W)."""
    import cv2

    return np.asarray(cv2.pencilSketch(_bgr(image), None, None, space, colour, shade)[0])


def clahe(image: Array, clip: float, tile: int) -> Array:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of CIE lightness, by OpenCV."""
    import cv2

    height, width = image.shape[:2]
    equalise = cv2.createCLAHE(clip, (-(-width // tile), -(-height // tile))).apply
    if image.ndim == 2:
        return np.asarray(equalise(np.ascontiguousarray(image)))
    lab: Any = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = equalise(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def local_tone(image: Array, compression: float, size: int) -> Array:
    """Tone mapping after Durand and Dorsey (2002).

    The bilateral base of log luma is compressed towards white; detail and hue are kept.
    """
    import cv2

    light = (luma(image) + 1) / 256
    logarithm = np.log(light).astype(np.float32)
    base = cv2.bilateralFilter(logarithm, size, 0.4, size / 4, borderType=cv2.BORDER_REPLICATE)
    factor = np.exp((compression - 1) * np.asarray(base, np.float64))
    return image * (factor if image.ndim == 2 else factor[..., None])


def l0(image: Array, strength: float, kappa: float) -> Array:
    """L0 gradient minimisation: Xu, Lu, Xu and Jia, "Image smoothing via L0 gradient minimization" (2011).

    Their algorithm 1, half-quadratic splitting: gradients below a threshold are set to zero in all channels together,
    and the picture closest to both the original and these gradients is solved for by FFT, with periodic borders.
    """
    fft = imported("scipy.fft")

    original = planes_of(image).astype(np.float32) / 255
    height, width = image.shape[:2]
    power = 2 - 2 * np.cos(2 * np.pi * np.fft.fftfreq(height))[:, None]
    power = (power + 2 - 2 * np.cos(2 * np.pi * np.fft.rfftfreq(width))).astype(np.float32)
    spectrum = fft.rfft2(original)
    smooth, beta = original, 2 * strength
    while beta < 1e5:
        down = np.roll(smooth, -1, 1) - smooth
        across = np.roll(smooth, -1, 2) - smooth
        steep = (down**2 + across**2).sum(axis=0) >= strength / beta
        down, across = down * steep, across * steep
        divergence = np.roll(down, 1, 1) - down + np.roll(across, 1, 2) - across
        smooth = fft.irfft2((spectrum + beta * fft.rfft2(divergence)) / (1 + beta * power), (height, width))
        beta *= kappa
    return 255 * np.asarray(smooth).transpose(1, 2, 0).reshape(image.shape)


def _bgr(image: Array) -> Array:
    return np.ascontiguousarray(coloured(image)[..., ::-1])


def _photographic(function: Any, image: Array, *parameters: float) -> Array:
    return np.asarray(function(_bgr(image), None, *parameters))[..., ::-1]
