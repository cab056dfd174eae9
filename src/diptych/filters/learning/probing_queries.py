"""Pictures to probe a filter with, and what its results tell: radius, channels, whole levels."""

from __future__ import annotations

import numpy as np

from diptych.filters.learning.pairs import Pair
from diptych.filters.planes import coloured
from diptych.filters.target import Target
from diptych.model.layers import Array

__all__ = ["LEVEL", "colours", "dependence", "extremes", "find_radius", "in_whole_levels", "noise"]

LEVEL = 1 / 255
MAX_RADIUS = 16  # pixels
CHANGE = 1e-6  # in 0..1; smaller differences are rounding


def noise(target: Target, seed: int, size: int = 112) -> tuple[Pair, ...]:
    """Noise pictures from full contrast to nearly flat, with the filter's results.

    A filter that clips shows its unclipped side on the flat ones.
    """
    random = np.random.default_rng([seed, 1])
    shape = (size, size, 3)[: 3 if target.channels[0] == 3 else 2]
    pictures = [random.integers(0, 256, shape), random.integers(0, 2, shape) * 255]
    for contrast in (96, 32, 12):
        # Each block of 28 x 28 pixels has its own brightness, so that few pictures cover all.
        blocks = random.integers(0, 256 - contrast, (size // 28, size // 28, *shape[2:]))
        pictures.append(blocks.repeat(28, 0).repeat(28, 1) + random.integers(0, contrast, shape))
    return tuple(Pair.of(target, picture.astype(np.uint8)) for picture in pictures)


def colours(target: Target, seed: int) -> tuple[Pair, ...]:
    """Pictures with every level of grey and a great many colours, with the filter's results."""
    random = np.random.default_rng([seed, 5])
    greys = np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2)
    pictures = [greys, random.integers(0, 256, (256, 256, 3)), greys.repeat(8, 0).repeat(8, 1)]
    pictures[2] = np.clip(pictures[2] + random.integers(-3, 4, pictures[2].shape), 0, 255)
    shaped = pictures if target.channels[0] == 3 else [picture[..., 0] for picture in pictures]
    return tuple(Pair.of(target, np.ascontiguousarray(picture, dtype=np.uint8)) for picture in shaped)


def extremes(target: Target, seed: int) -> tuple[Pair, ...]:
    """Artificial pictures with the filter's results: black, white, checks, dots, ramps and noise."""
    random = np.random.default_rng([seed, 2])
    size = 40
    rows, columns = np.mgrid[:size, :size]
    dots = np.where(random.random((size, size)) < 0.02, 255, 0)
    planes = [
        np.zeros((size, size)),
        np.full((size, size), 255),
        (rows + columns) % 2 * 255,
        (rows // 4 + columns // 4) % 2 * 255,
        dots,
        255 - dots,
        columns * 255 // (size - 1),
        (rows * 97 + columns * 31) % 256,
    ]
    colours = [random.integers(0, 256, (size, size, 3)), random.integers(0, 2, (size, size, 3)) * 255]
    shaped = [*map(coloured, planes), *colours]
    if target.channels[0] == 1:
        shaped = [picture[..., 0] for picture in shaped]
    return tuple(Pair.of(target, np.ascontiguousarray(picture, dtype=np.uint8)) for picture in shaped)


def find_radius(target: Target, seed: int = 0) -> int:
    """How far a changed pixel changes the result, in pixels; at most `MAX_RADIUS`."""
    random = np.random.default_rng([seed, 3])
    middle = MAX_RADIUS + 1
    size = 2 * middle + 1
    farthest = 0
    for contrast in (256, 256, 60, 60, 20, 4, 1):
        base = random.integers(0, contrast, (size, size, target.channels[0])) + (256 - contrast) // 2
        for value in (0, 255):
            changed = base.copy()
            changed[middle, middle] = value
            difference = np.abs(_answer(target, changed) - _answer(target, base)).max(axis=0)
            felt = np.argwhere(difference > CHANGE)
            farthest = max(farthest, int(np.abs(felt - middle).max(initial=0)))
    return min(farthest, MAX_RADIUS)


def dependence(target: Target, seed: int = 0) -> Array:
    """Whether each output channel changes with each input channel, bool (C', C)."""
    inputs, outputs = target.channels
    random = np.random.default_rng([seed, 4])
    base = random.integers(60, 196, (24, 24, inputs))
    found = np.zeros((outputs, inputs), bool)
    before = _answer(target, base)
    for channel in range(inputs):
        for low, high in ((0, 256), (40, 216)):
            changed = base.copy()
            changed[..., channel] = random.integers(low, high, base.shape[:2])
            difference = np.abs(_answer(target, changed) - before)
            found[:, channel] |= difference.max(axis=(1, 2)) > CHANGE
    return found


def in_whole_levels(pairs: tuple[Pair, ...]) -> bool:
    """Whether all targets are whole levels of 255."""
    return all(np.abs(255 * p.target - np.rint(255 * p.target)).max() < 1e-3 for p in pairs)


def _answer(target: Target, picture: Array) -> Array:
    """The filter's result, (C', H, W), for an integer picture (H, W, C)."""
    pixels = picture.astype(np.uint8)
    return Pair.of(target, pixels if target.channels[0] == 3 else pixels[..., 0]).target
