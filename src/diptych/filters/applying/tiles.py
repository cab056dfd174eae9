"""Filters a picture one row of tiles at a time, in memory that does not grow with its height."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from diptych.engines.tiled import Region, TiledFilter
from diptych.filters.planes import greyed
from diptych.images.streams import StreamSource
from diptych.model.layers import Array
from diptych.progress import Progress

__all__ = ["MEMORY_BYTES", "Adapted", "RowBuffer", "RowSource", "filtered", "run"]

STRIP_BYTES = 1 << 22  # of pixels read at a time without a `tile`
MEMORY_BYTES = 1 << 28  # the same for pictures in memory, which are not read


class RowSource(Protocol):
    """A picture that is read by rows, with the channels that the filter takes."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]

    def rows(self, top: int, bottom: int) -> Array:
        """Rows top ... bottom - 1, of shape (rows, width, channels)."""


class Adapted:
    """A source with the channels that a filter takes: grey repeated three times, or colour made grey by Rec.601.

    Args:
        source: The picture.
        channels: 1 or 3.
        weights: How colour is made grey and rounded, as in `preprocessing.Grey`.
        full: The value of white by which floats are divided.
    """

    def __init__(self, source: StreamSource, channels: int, weights: str = "float", full: int = 1) -> None:
        self._source, self._weights, self._full = source, weights, full
        self.height, self.width, self.dtype = source.height, source.width, source.dtype
        self.channels = channels

    def rows(self, top: int, bottom: int) -> Array:
        """See `RowSource`."""
        rows = self._source.rows(top, bottom)
        if self._full != 1:
            rows = rows / np.float32(self._full)
        if rows.shape[2] == self.channels:
            return rows
        if self.channels == 3:
            return np.repeat(rows, 3, axis=2)
        return greyed(rows, self._weights)[..., None]


class RowBuffer:
    """The rows that a row of tiles needs. It moves down the picture, and reads each row once."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._first = 0
        self._held = np.empty((0, source.width, source.channels), source.dtype)

    def rows(self, top: int, bottom: int) -> Array:
        """Rows top ... bottom - 1; where the picture wraps round, they may lie beyond its first and last row."""
        end = self._first + len(self._held)
        kept = self._held[top - self._first :] if self._first <= top < end else self._held[:0]
        parts = [kept] if len(kept) else []
        row = max(top, end) if len(kept) else top
        while row < bottom:
            inside = row % self._source.height
            count = min(bottom - row, self._source.height - inside)
            parts.append(self._source.rows(inside, inside + count))
            row += count
        self._held = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._first = top
        return self._held


def _block(
    window: RowBuffer, tiled_filter: TiledFilter, size: tuple[int, int], region: Region
) -> tuple[Array, Region]:
    """The pixels that `region` depends on, and their place."""
    needed = region.grown(tiled_filter.prepared.halo)
    if not tiled_filter.prepared.wraps:
        needed = needed.clipped(size)
    rows = window.rows(needed.top, needed.bottom)
    if needed.left < 0 or needed.right > size[1]:
        return rows.take(np.arange(needed.left, needed.right), axis=1, mode="wrap"), needed
    return rows[:, needed.left : needed.right], needed


def run(tiled_filter: TiledFilter, source: RowSource, window: RowBuffer, region: Region) -> Array:
    """The filtered pixels of `region`."""
    size = (source.height, source.width)
    pixels, place = _block(window, tiled_filter, size, region)
    return tiled_filter(pixels, (place.top, place.left), size, region)


def _tile_shape(source: RowSource, cell: int, tile: int | None, strip: int) -> tuple[int, int]:
    """(height, width) of the tiles, in whole cells; strips of the whole width without a `tile`."""
    if tile is not None:
        side = -(-tile // cell) * cell
        return side, side
    row_bytes = source.width * source.channels * source.dtype.itemsize
    return max(strip // row_bytes // cell, 1) * cell, source.width


def filtered(
    tiled_filter: TiledFilter,
    source: RowSource,
    tile: int | None,
    progress: Progress,
    what: str,
    strip: int = STRIP_BYTES,
) -> Iterator[Array]:
    """Yields the filtered picture from the top, as arrays (rows, W, C').

    Args:
        tiled_filter: The compiled filter.
        source: The picture.
        tile: The side of the tiles in pixels, rounded up to the engine's cells; None for strips of the whole
            width. The result is the same for every value.
        progress: Called with the rows done, all rows, and `what`.
        what: The picture's name.
        strip: The bytes of pixels of a strip.
    """
    tall, wide = _tile_shape(source, tiled_filter.cell, tile, strip)
    window = RowBuffer(source)
    progress(0, source.height, what)
    for top in range(0, source.height, tall):
        bottom = min(top + tall, source.height)
        row = [
            run(tiled_filter, source, window, Region(top, left, bottom, min(left + wide, source.width)))
            for left in range(0, source.width, wide)
        ]
        yield row[0] if len(row) == 1 else np.concatenate(row, axis=1)
        progress(bottom, source.height, what)
