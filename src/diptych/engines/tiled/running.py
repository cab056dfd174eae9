"""Runs a filter on parts of a picture with any engine that runs models.

Engines choose their kernels, and so the order of additions, by the size of an array. Everything is therefore computed
on a grid of cells that begins at the first pixel of the picture: a pixel is always at the same place in an array of the
same size, whatever part of the picture is requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from diptych import engines
from diptych.engines.batches import processors
from diptych.engines.tiled.fitting import Held, fitted
from diptych.engines.tiled.preparing import PreparedFilter, leaves
from diptych.engines.tiled.regions import Region
from diptych.errors import ShapeError
from diptych.model import layers as L
from diptych.model.layers import Array
from diptych.model.model import Model

__all__ = ["CELL", "General", "border_indices", "from_values", "to_values"]

CELL = 256  # side in pixels: fits in the caches, while a halo of 10 pixels adds only a sixth to the work

# Engines that compute several cells at a time with one thread each. Threads that share the work of small layers would
# wait for each other, on a busy machine for longer than they compute.
_SIDE_BY_SIDE = ("onnxruntime",)


def to_values(prepared: PreparedFilter, block: Array) -> Array:
    """Converts pixels to the values that the layers take.

    Args:
        prepared: The filter.
        block: Pixels of any shape, uint8, uint16 or float32.

    Returns:
        Float32 of the same shape, divided by `prepared.divisor`.
    """
    values = block.astype(np.float32)
    return values if prepared.divisor == 1 else values / np.float32(prepared.divisor)


def from_values(prepared: PreparedFilter, values: Array, dtype: Any) -> Array:
    """Converts the output of the layers to pixels.

    Args:
        prepared: The filter.
        values: Float32 of any shape.
        dtype: Of the pixels. For integers, values are rounded half to even and clipped to 0..`prepared.peak`.

    Returns:
        Pixels of the same shape.
    """
    if prepared.divisor != 1:
        values = values * np.float32(prepared.divisor)
    if prepared.peak is None:
        return values.astype(dtype, copy=False)
    # `fmax` replaces NaN by 0, since casting NaN to an integer is undefined.
    levels = np.fmin(np.fmax(values, np.float32(0)), np.float32(prepared.peak))
    return np.rint(levels, out=levels).astype(dtype)


def border_indices(mode: str, low: int, size: int, high: int) -> Array:
    """The source of each element of a padded axis, as `numpy.pad` defines "reflect", "symmetric", "edge" and "wrap".

    Args:
        mode: One of `PADDING_MODES`.
        low, high: The number of elements added before and after; may exceed `size`.
        size: The length of the axis.

    Returns:
        Indices (low + size + high,), 0..size - 1, or -1 for an element that is 0.
    """
    positions = np.arange(-low, size + high)
    if mode == "replicate":
        clipped: Array = np.clip(positions, 0, size - 1)
        return clipped
    if mode == "wrap":
        return positions % size
    if mode == "symmetric":
        places = positions % (2 * size)
        return np.minimum(places, 2 * size - 1 - places)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        return np.abs((positions + size - 1) % period - (size - 1)) if size > 1 else positions * 0
    return np.where((positions < 0) | (positions >= size), -1, positions)


class General:
    """A `TiledFilter` on any engine that runs models.

    Args:
        prepared: The filter.
        engine, device: As for `engines.compile`, whose errors this raises.
    """

    cell = CELL

    def __init__(self, prepared: PreparedFilter, engine: str, device: str) -> None:
        self.prepared = prepared
        self._engine, self._device = engine, device
        self._compiled: dict[tuple[Any, ...], engines.Compiled] = {}
        self._lock = Lock()
        side = max(self.cell, *prepared.least)  # an unsupported layer is an error already here
        first = self._ready(Region(0, 0, side, side), (side, side), prepared.channels[0] or 3)[0]
        self.engine, self.device = first.engine, first.device

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """See `TiledFilter`. Pixels of a cell outside `block` count as 0, and do not affect the result."""
        result: Array | None = None
        cells = _cells(region, size, self.cell)
        for cell, pixels in zip(cells, self._each(partial(self._cell, block, at, size), cells), strict=True):
            overlap = cell.common(region)
            if result is None:
                result = np.empty((*region.shape, pixels.shape[2]), block.dtype)
            result[_inside(overlap, region)] = pixels[_inside(overlap, cell)]
        if result is None:
            raise ShapeError(f"a region to filter must have at least one pixel, got {region}")
        return result

    def _each(self, function: Callable[[Region], Array], cells: Sequence[Region]) -> Iterator[Array]:
        threads = min(processors() if self.engine in _SIDE_BY_SIDE else 1, len(cells))
        if threads <= 1:
            yield from map(function, cells)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(function, cells)

    def _cell(self, block: Array, at: tuple[int, int], size: tuple[int, int], cell: Region) -> Array:
        needed = cell.grown(self.prepared.halo)
        needed = needed if self.prepared.wraps else needed.clipped(size)
        there = Region(*at, at[0] + block.shape[0], at[1] + block.shape[1])
        known = needed.common(there)
        pixels = np.zeros((*needed.shape, block.shape[2]), block.dtype)
        pixels[_inside(known, needed)] = block[_inside(known, there)]
        compiled, held = self._ready(needed, size, block.shape[2])
        values = compiled(to_values(self.prepared, pixels.transpose(2, 0, 1)[None]))
        own = values[0][:, *_inside(cell, held)].transpose(1, 2, 0)
        return from_values(self.prepared, own, block.dtype)

    def _ready(self, needed: Region, size: tuple[int, int], channels: int) -> tuple[engines.Compiled, Region]:
        """The compiled layers for a part of a picture of `size`, and the region of the output that they give."""
        layers, held = fitted(self.prepared.layers, Held.of(needed, size), self.prepared.wraps)
        pads = (layer for layer in leaves(layers) if isinstance(layer, L.Pad))
        key = channels, *((pad.padding, pad.mode) for pad in pads)
        with self._lock:
            if key not in self._compiled:
                model = Model(layers, input_shape=(channels, *needed.shape))
                alone = {"parts": 1} if self._engine in _SIDE_BY_SIDE else {}
                self._compiled[key] = engines.compile(model, self._engine, self._device, **alone)
        return self._compiled[key], held.region


def _cells(region: Region, size: tuple[int, int], cell: int) -> list[Region]:
    rows = range(region.top // cell * cell, region.bottom, cell)
    columns = range(region.left // cell * cell, region.right, cell)
    return [Region(r, c, r + cell, c + cell).clipped(size) for r in rows for c in columns]


def _inside(part: Region, whole: Region) -> tuple[slice, slice]:
    """The slices that select `part` from an array of `whole`."""
    return (
        slice(part.top - whole.top, part.bottom - whole.top),
        slice(part.left - whole.left, part.right - whole.left),
    )
