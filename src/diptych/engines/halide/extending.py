"""Extends pictures beyond their borders by the pixels that a filter reads there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych.engines.tiled.regions import Halo, Region
from diptych.engines.tiled.running import border_indices
from diptych.model.layers import Array, PadMode

__all__ = ["extended", "parts", "seeing"]

COPIED = 1_000_000  # up to so many pixels, copying with the border is faster than computing in five parts


def extended(
    block: Array, at: tuple[int, int], size: tuple[int, int], needed: Region, mode: PadMode | None
) -> Array:
    """Pixels of a picture and beyond its border.

    Args:
        block: A part of the picture, (h, w, C).
        at: (row, column) of its first pixel.
        size: (height, width) of the picture.
        needed: The region to return.
        mode: The padding mode; None is treated as "zero". With "wrap" the block holds the pixels beyond the border.

    Returns:
        The pixels of `needed`, (height, width, C). Where the block is too small its last pixels are repeated; such
        pixels do not affect the requested result.
    """
    places: PadMode = "zero" if mode is None else mode
    rows = _indices(needed.top, needed.bottom, at[0], block.shape[0], size[0], places)
    columns = _indices(needed.left, needed.right, at[1], block.shape[1], size[1], places)
    result = np.empty((len(rows), len(columns), block.shape[2]), block.dtype)
    first = max(needed.left, at[1])
    inner = block[:, first - at[1] : needed.right - at[1]]  # the columns that are copied as they are
    result[:, first - needed.left :][:, : inner.shape[1]] = inner[np.maximum(rows, 0)]
    for column in (*range(first - needed.left), *range(first - needed.left + inner.shape[1], len(columns))):
        result[:, column] = block[np.maximum(rows, 0), max(columns[column], 0)]
    if mode == "zero":
        result[rows < 0] = 0
        result[:, columns < 0] = 0
    return result


def _indices(first: int, end: int, at: int, count: int, size: int, mode: PadMode) -> Array:
    if mode == "wrap":
        return _within(np.arange(first, end) - at, count)
    low = max(0, -first)
    places = border_indices(mode, low, size, max(0, end - size))[first + low : end + low]
    return np.where(places < 0, -1, _within(places - at, count))


def _within(places: Array, count: int) -> Array:
    """As `np.clip`, which takes five times as long for a few numbers."""
    return np.minimum(np.maximum(places, 0), count - 1)


def seeing(places: Array, at: tuple[int, int], region: Region, halo: Halo) -> Array:
    """Finds the pixels whose halo holds a marked pixel.

    Args:
        places: The marked pixels, bool (h, w).
        at: (row, column) of their first pixel.
        region: The region to examine.
        halo: The halo of a pixel.

    Returns:
        Bool (region height, region width).
    """
    needed = region.grown(halo)
    held = needed.common(Region(*at, at[0] + places.shape[0], at[1] + places.shape[1]))
    seen = np.zeros(needed.shape, bool)
    inside = places[held.top - at[0] : held.bottom - at[0], held.left - at[1] : held.right - at[1]]
    seen[held.top - needed.top :, held.left - needed.left :][: held.shape[0], : held.shape[1]] = inside
    for axis, count in enumerate((halo.top + halo.bottom + 1, halo.left + halo.right + 1)):
        seen = np.asarray(np.lib.stride_tricks.sliding_window_view(seen, count, axis=axis).any(axis=-1))
    return seen


def parts(region: Region, inside: Region, halo: Halo, narrowest: int) -> Iterator[tuple[Region, bool]]:
    """Divides a region into parts that can be computed from a block, and parts that need pixels beyond it.

    A small region that needs pixels beyond the block remains one part.

    Args:
        region: The region to compute.
        inside: The region of the block.
        halo: What is read around a pixel.
        narrowest: The smallest width of a part; parts at the sides may therefore overlap the middle one.

    Yields:
        (part, whether the block is sufficient).
    """
    top, bottom = inside.top + halo.top, inside.bottom - halo.bottom
    left, right = inside.left + halo.left, inside.right - halo.right
    middle = Region(top, left, bottom, right).common(region)
    few = region.shape[0] * region.shape[1] <= COPIED
    if (few and middle != region) or middle.shape[0] < 1 or middle.shape[1] < narrowest:
        yield region, False
        return
    yield middle, True
    if region.top < middle.top:
        yield Region(region.top, region.left, middle.top, region.right), False
    if middle.bottom < region.bottom:
        yield Region(middle.bottom, region.left, region.bottom, region.right), False
    if region.left < middle.left:
        end = max(middle.left, region.left + narrowest)
        yield Region(middle.top, region.left, middle.bottom, end), False
    if middle.right < region.right:
        begin = min(middle.right, region.right - narrowest)
        yield Region(middle.top, begin, middle.bottom, region.right), False
