"""Synthetic pictures with what photographs rarely contain: sharp edges, noise, and the extreme levels.

All pictures are uint8 (size, size, 3), and the same for the same state of the random generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dead_leaves", "extremes", "pink_noise", "synthetic", "white_noise"]

Pixels = NDArray[np.uint8]


def synthetic(count: int, size: int, seed: int = 0) -> list[Pixels]:
    """Makes pictures of all kinds in turn: dead leaves, 1/f noise, extremes and white noise.

    Args:
        count: The number of pictures.
        size: Their width and height in pixels.
        seed: Of the random generator.

    Returns:
        Pictures, uint8 (size, size, 3).
    """
    kinds = (dead_leaves, pink_noise, extremes, white_noise)
    generator = np.random.default_rng(seed)
    return [kinds[index % len(kinds)](size, generator) for index in range(count)]


def dead_leaves(size: int, generator: np.random.Generator) -> Pixels:
    """The dead leaves model: 4 x size discs of random colour, which hide one another.

    The density of the radius r is proportional to r^-3, from size / 64 (at least 2) to size / 3 pixels. The pictures
    have statistics like those of photographs, and sharp edges at every angle.

    Source: Lee, Mumford and Huang, "Occlusion models for natural images: a statistical study of a scale-invariant dead
    leaves model" (2001).

    Args:
        size: The width and height in pixels.
        generator: The source of randomness.

    Returns:
        uint8 (size, size, 3).
    """
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = generator.integers(0, 256, 3)
    count, least, most = 4 * size, max(size / 64, 2.0), max(size / 3, 2.0)
    # The inverse of the cumulative distribution of r between the two radii.
    radii = (most**-2 + generator.random(count) * (least**-2 - most**-2)) ** -0.5
    centres = generator.uniform(-radii, size + radii, (2, count)).T
    colours = generator.integers(0, 256, (count, 3), dtype=np.uint8)
    for radius, (row, column), colour in zip(radii, centres, colours, strict=True):
        top, left = max(int(row - radius), 0), max(int(column - radius), 0)
        rows, columns = np.ogrid[top : int(row + radius) + 2, left : int(column + radius) + 2]
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        part = picture[top : top + inside.shape[0], left : left + inside.shape[1]]
        part[inside[: part.shape[0], : part.shape[1]]] = colour
    return picture


def pink_noise(size: int, generator: np.random.Generator) -> Pixels:
    """Noise whose amplitude falls as 1/f, as that of photographs does on average.

    The channels are correlated: each is the sum of a common part and a part of its own.

    Args:
        size: The width and height in pixels.
        generator: The source of randomness.

    Returns:
        uint8 (size, size, 3).
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    white = generator.normal(size=(4, size, size))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    planes = pink[3] + generator.uniform(0.1, 1) * pink[:3]  # in photographs, channels are correlated
    planes *= generator.uniform(30, 70) / max(float(planes.std()), 1e-9)
    return _to_levels(planes.transpose(1, 2, 0) + generator.uniform(90, 165))


def white_noise(size: int, generator: np.random.Generator) -> Pixels:
    """Independent noise, in which every level 0..255 of every channel is equally likely: uint8 (size, size, 3)."""
    return generator.integers(0, 256, (size, size, 3), dtype=np.uint8)


def extremes(size: int, generator: np.random.Generator) -> Pixels:
    """A grid of checkerboards, ramps, single pixels, rectangles, and strokes like handwriting.

    Most colours are extreme levels, 0 or 255 in each channel.

    Args:
        size: The width and height in pixels.
        generator: The source of randomness.

    Returns:
        uint8 (size, size, 3).
    """
    kinds = (_checkerboard, _ramp, _lone_pixels, _rectangles, _strokes)
    picture = np.zeros((size, size, 3), np.uint8)
    cell = max(size // 4, 1)
    for index, (top, left) in enumerate((t, c) for t in range(0, size, cell) for c in range(0, size, cell)):
        part = picture[top : top + cell, left : left + cell]
        part[:] = kinds[index % len(kinds)](cell, generator)[: part.shape[0], : part.shape[1]]
    return picture


def _to_levels(values: NDArray[np.floating]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _corner_colour(generator: np.random.Generator) -> NDArray[np.int64]:
    return generator.integers(0, 2, 3) * 255


def _checkerboard(size: int, generator: np.random.Generator) -> Pixels:
    field = int(generator.integers(1, 5))
    rows, columns = np.indices((size, size)) // field
    one, other = _corner_colour(generator), _corner_colour(generator)
    return np.where(((rows + columns) % 2 == 1)[..., None], one, other).astype(np.uint8)


def _ramp(size: int, generator: np.random.Generator) -> Pixels:
    angle = generator.uniform(0, 2 * np.pi)
    rows, columns = np.indices((size, size))
    along = np.cos(angle) * rows + np.sin(angle) * columns
    along = (along - along.min()) / max(float(np.ptp(along)), 1)
    start, end = generator.integers(0, 256, 3), generator.integers(0, 256, 3)
    return _to_levels(start + along[..., None] * (end - start))


def _lone_pixels(size: int, generator: np.random.Generator) -> Pixels:
    picture = np.broadcast_to(_corner_colour(generator), (size, size, 3)).astype(np.uint8)
    chosen = generator.random((size, size)) < 0.03
    picture[chosen] = generator.integers(0, 2, (int(chosen.sum()), 3)) * 255
    return picture


def _rectangles(size: int, generator: np.random.Generator) -> Pixels:
    picture = np.zeros((size, size, 3), np.uint8)
    for _ in range(12):
        top, left = generator.integers(0, size, 2)
        height, width = generator.integers(1, max(size // 2, 2), 2)
        picture[top : top + height, left : left + width] = generator.integers(0, 256, 3)
    return picture


def _strokes(size: int, generator: np.random.Generator) -> Pixels:
    paper, ink = (255, 0) if generator.random() < 0.7 else (0, 255)
    picture = np.full((size, size, 3), paper, np.uint8)
    for _ in range(size // 2):
        row, column = generator.integers(0, size, 2)
        length, thickness = int(generator.integers(3, 12)), int(generator.integers(1, 3))
        down, across = generator.integers(-1, 2, 2)
        for step in range(length):
            top, left = row + step * down, column + step * across
            if 0 <= top < size and 0 <= left < size:
                picture[top : top + thickness, left : left + thickness] = ink
    return picture
