"""Pictures beyond their borders: the few pixels that a filter sees there, as copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych.engines.tiled.regions import Halo, Region
from diptych.engines.tiled.running import border_indices
from diptych.model.layers import Array, PadMode

__all__ = ["extended", "parts", "seeing"]

COPIED = 1_000_000  # pixels that are sooner copied with their border than computed in five parts


def extended(
    block: Array, at: tuple[int, int], size: tuple[int, int], needed: Region, mode: PadMode | None
) -> Array:
    """The pixels `needed` of a picture of `size`, of which `block` is the part that begins at `at`.

    With mode "wrap" the block itself goes on beyond the border. Where the block ends before `needed` does,
    its last pixels are repeated: what depends on them is not asked for.
    """
    places: PadMode = "zero" if mode is None else mode
    rows = _indices(needed.top, needed.bottom, at[0], block.shape[0], size[0], places)
    columns = _indices(needed.left, needed.right, at[1], block.shape[1], size[1], places)
    result = np.empty((len(rows), len(columns), block.shape[2]), block.dtype)
    first = max(needed.left, at[1])
    inner = block[:, first - at[1] : needed.right - at[1]]  # all that lies in a row as it does in the block
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
    """What `np.clip` gives, which for a few numbers takes five times as long."""
    return np.minimum(np.maximum(places, 0), count - 1)


def seeing(places: Array, at: tuple[int, int], region: Region, halo: Halo) -> Array:
    """Which pixels of `region` have any of `places`, a mask whose first pixel is `at`, within their halo."""
    needed = region.grown(halo)
    held = needed.common(Region(*at, at[0] + places.shape[0], at[1] + places.shape[1]))
    seen = np.zeros(needed.shape, bool)
    inside = places[held.top - at[0] : held.bottom - at[0], held.left - at[1] : held.right - at[1]]
    seen[held.top - needed.top :, held.left - needed.left :][: held.shape[0], : held.shape[1]] = inside
    for axis, count in enumerate((halo.top + halo.bottom + 1, halo.left + halo.right + 1)):
        seen = np.asarray(np.lib.stride_tricks.sliding_window_view(seen, count, axis=axis).any(axis=-1))
    return seen


def parts(region: Region, inside: Region, halo: Halo, narrowest: int) -> Iterator[tuple[Region, bool]]:
    """`region` in parts: those that see nothing beyond `inside`, the block (True), and those that do.

    No part is narrower than `narrowest`, so that those at the sides may overlap with the middle. A small
    region that sees anything beyond the block is one part.
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
