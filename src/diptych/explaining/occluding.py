"""Occlusion: how much a classifier's answer falls where a part of the picture is covered."""

from __future__ import annotations

import numpy as np

from diptych.engines import Compiled
from diptych.errors import UsageError
from diptych.model.layers import Array

__all__ = ["fall"]

_CHUNK = 32  # pictures in a batch


def fall(compiled: Compiled, item: Array, target: int, patch: int | None = None) -> Array:
    """Covers one square after the other, and averages how much the target's value falls over the squares of a pixel.

    The squares overlap by half, and hold the mean of each channel.

    Args:
        compiled: The model.
        item: One input, float32 (C, H, W).
        target: Which value of the flattened output.
        patch: The side of the squares; by default an eighth of the shorter side, at least 2.

    Returns:
        float64 (H, W), in the unit of the output.

    Raises:
        UsageError: The patch is not smaller than the input.
    """
    height, width = item.shape[1:]
    side = max(2, min(height, width) // 8) if patch is None else patch
    if not 1 <= side < max(height, width):
        raise UsageError(
            f"a patch for an input of {width} x {height} has 1 to {max(height, width) - 1} pixels a side, not {side}"
        )
    places = [(y, x) for y in _starts(height, side) for x in _starts(width, side)]
    grey = item.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)[:, np.newaxis, np.newaxis]
    whole = float(compiled(item[np.newaxis]).reshape(-1)[target])
    falls, counts = np.zeros((height, width)), np.zeros((height, width))
    for first in range(0, len(places), _CHUNK):
        chosen = places[first : first + _CHUNK]
        batch = np.repeat(item[np.newaxis], len(chosen), axis=0)
        for covered, (y, x) in zip(batch, chosen, strict=True):
            covered[:, y : y + side, x : x + side] = grey
        values = compiled(batch).reshape(len(chosen), -1)[:, target]
        for value, (y, x) in zip(values, chosen, strict=True):
            falls[y : y + side, x : x + side] += whole - float(value)
            counts[y : y + side, x : x + side] += 1
    mean: Array = falls / counts
    return mean


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin along an axis, so that every pixel is covered."""
    last = max(0, length - side)
    return sorted({*range(0, last + 1, max(1, side // 2)), last})
