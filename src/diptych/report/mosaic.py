"""Many feature maps as one image: the arithmetic of `plots.feature_maps`, in NumPy alone.

One array is drawn instead of hundreds of axes, so that a grid of 256 maps costs as much as one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_MAPS",
    "Grid",
    "Range",
    "arrange",
    "choose_channels",
    "dead_channels",
    "finite_range",
    "fit",
    "tile",
]

MOST_MAPS = 256
"""The most maps in one figure: more would be smaller than thumbnails."""

_HATCH_LIGHT, _HATCH_DARK = (222, 219, 211), (178, 173, 163)
_NOT_FINITE = (214, 39, 112)  # a magenta that viridis does not contain

FloatArray = NDArray[np.floating]
Pixels = NDArray[np.uint8]


def dead_channels(maps: NDArray[np.generic]) -> tuple[int, ...]:
    """The channels of (C, *spatial) that have the same value at every position.

    A map with a single position is dead if it is 0. A map with NaN or infinite values is broken, not dead.
    """
    flat = np.asarray(maps).reshape(len(maps), -1)
    if flat.shape[1] <= 1:
        dead = (flat == 0).all(axis=1)
    else:
        dead = (flat == flat[:, :1]).all(axis=1) & np.isfinite(flat[:, 0])
    return tuple(int(i) for i in np.flatnonzero(dead))


@dataclass(frozen=True)
class Range:
    """The smallest and largest finite value of an array; both 0 if there is none."""

    low: float
    high: float

    def scale(self, values: FloatArray) -> FloatArray:
        """`values` mapped from low..high to 0..1, and clipped; 0.5 everywhere if low and high are equal."""
        span = self.high - self.low
        if not span > 0:
            return np.full(values.shape, 0.5)
        return np.clip((values.astype(np.float64) - self.low) / span, 0.0, 1.0)


def finite_range(values: FloatArray) -> Range:
    """The range of the finite values of `values`."""
    finite = values[np.isfinite(values)]
    return Range(float(finite.min()), float(finite.max())) if finite.size else Range(0.0, 0.0)


def choose_channels(maps: FloatArray, most: int = MOST_MAPS) -> tuple[int, ...]:
    """Which channels to draw: all, or the `most` with the largest mean magnitude, in the order of channels."""
    if len(maps) <= most:
        return tuple(range(len(maps)))
    magnitude = np.abs(np.nan_to_num(maps.reshape(len(maps), -1), nan=np.inf)).mean(axis=1)
    strongest = np.argsort(-magnitude, kind="stable")[:most]
    return tuple(sorted(int(i) for i in strongest))


@dataclass(frozen=True)
class Grid:
    """Where tiles go: their size, the gap between columns and the height of captions, in pixels."""

    columns: int
    rows: int
    tile_height: int
    tile_width: int
    gap: int
    caption: int

    @property
    def width(self) -> int:
        """The width of the whole grid."""
        return self.columns * (self.tile_width + self.gap) - self.gap

    @property
    def height(self) -> int:
        """The height of the whole grid, with a caption under every tile."""
        return self.rows * (self.tile_height + self.caption)

    def corner(self, index: int) -> tuple[int, int]:
        """(top, left) of tile `index`, counted row by row."""
        row, column = divmod(index, self.columns)
        return row * (self.tile_height + self.caption), column * (self.tile_width + self.gap)


def arrange(count: int, height: int, width: int, space: int, largest: int, gap: int, caption: int) -> Grid:
    """A grid for `count` maps of height x width: a little wider than high, with few empty places.

    Maps are enlarged by whole factors, or reduced where they are larger than a tile.

    Args:
        count: How many maps.
        height: Rows of a map.
        width: Columns of a map.
        space: The width of the grid in pixels.
        largest: The largest width of a square tile; other tiles have about the same area.
        gap: Pixels between columns.
        caption: The height of a caption in pixels.
    """
    # Very long maps would become slivers: the shape of a tile stays between 1:8 and 8:1.
    aspect = min(max(height / width, 0.125), 8.0)

    def cost(columns: int) -> float:
        rows = -(-count // columns)
        empty = rows * columns - count
        shape = abs(math.log(rows * aspect / columns / 0.62))
        return shape + (0.3 + 2.5 * empty / count if empty else 0.0)

    columns = min(range(1, min(count, 32) + 1), key=cost)
    tile_width = min(
        (space + gap) // columns - gap, round(largest / math.sqrt(aspect)), round(1.3 * largest / aspect)
    )
    tile_width = max(tile_width, 4)
    if width <= tile_width:
        tile_width = tile_width // width * width
    tile_height = max(round(tile_width * aspect), 4)
    if height <= tile_height:
        tile_height = max(tile_height // height, 1) * height
    return Grid(columns, -(-count // columns), tile_height, tile_width, gap, caption)


def fit(values: FloatArray, height: int, width: int) -> FloatArray:
    """The map (H, W) at another size: each new cell is the mean of the area it covers.

    Enlarging by whole factors repeats values exactly. NaN and infinite values spread to every cell that
    they touch.
    """
    if values.shape == (height, width):
        return values
    if height % values.shape[0] == 0 and width % values.shape[1] == 0:
        rows = np.repeat(values, height // values.shape[0], axis=0)
        return np.repeat(rows, width // values.shape[1], axis=1)
    down, across = _coverage(values.shape[0], height), _coverage(values.shape[1], width)
    finite = np.isfinite(values)
    result = down @ np.where(finite, values, 0.0).astype(np.float64) @ across.T
    if not finite.all():
        result[(down @ (~finite).astype(np.float64) @ across.T) > 1e-9] = np.nan
    return result


@lru_cache(maxsize=8)
def _coverage(size: int, target: int) -> FloatArray:
    """The matrix (target, size) of how much of each new cell each old cell covers; rows sum to 1."""
    edges = np.arange(target + 1) * (size / target)
    low = np.maximum(edges[:-1, None], np.arange(size)[None, :])
    high = np.minimum(edges[1:, None], np.arange(1, size + 1)[None, :])
    cover = np.clip(high - low, 0.0, None)
    return np.asarray(cover / cover.sum(axis=1, keepdims=True))


def tile(values: FloatArray, grid: Grid, limits: Range, colours: Pixels, dead: bool) -> Pixels:
    """One map as uint8 (tile_height, tile_width, 3), in the 256 `colours`, or hatched if it is dead."""
    if dead:
        return _hatch(grid.tile_height, grid.tile_width)
    fitted = fit(values, grid.tile_height, grid.tile_width)
    shown = np.isfinite(fitted)
    index = np.rint(limits.scale(np.where(shown, fitted, limits.low)) * 255).astype(np.uint8)
    pixels = colours.take(index, axis=0)
    pixels[~shown] = _NOT_FINITE
    return pixels


def _hatch(height: int, width: int) -> Pixels:
    row, column = np.mgrid[:height, :width]
    stripe = (row + column) % 12 < 2
    return np.where(stripe[..., None], np.array(_HATCH_DARK), np.array(_HATCH_LIGHT)).astype(np.uint8)
