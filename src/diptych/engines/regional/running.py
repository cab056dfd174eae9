"""The general way to run a part of a picture: borders here, everything between them on any engine.

Engines choose their kernels, and with them the order of additions, by the size of an array. So everything
is computed on one grid of cells that begins at the picture's first pixel: a pixel always lies in the same
place of an array of the same size, whatever part of the picture is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from diptych import engines
from diptych.engines.regional.preparing import Prepared, taps
from diptych.engines.regional.regions import Region
from diptych.errors import ShapeError
from diptych.model import layers as L
from diptych.model.layers import Array, Chain, Layer, Parallel, SkipConnection
from diptych.model.model import Model

__all__ = ["CELL", "General", "border_indices", "from_values", "to_values"]

CELL = 256  # pixels a side: small enough for the caches, large enough that a halo of ten costs a sixth


def to_values(prepared: Prepared, block: Array) -> Array:
    """Pixels as the float32 values that the layers take."""
    values = block.astype(np.float32)
    return values if prepared.divisor == 1 else values / np.float32(prepared.divisor)


def from_values(prepared: Prepared, values: Array, dtype: Any) -> Array:
    """The layers' values as pixels: for integers rounded half to even and clipped to the levels there are."""
    if prepared.divisor != 1:
        values = values * np.float32(prepared.divisor)
    if prepared.peak is None:
        return values.astype(dtype, copy=False)
    # `fmax` makes black of what is not a number: it has no level, and casting it would be left to chance.
    levels = np.fmin(np.fmax(values, np.float32(0)), np.float32(prepared.peak))
    return np.rint(levels, out=levels).astype(dtype)


def border_indices(mode: str, low: int, size: int, high: int) -> Array:
    """Where each element of an axis of `size`, padded by `low` and `high`, is taken from; -1: it is 0.

    NumPy's meaning of reflect, edge and wrap, for padding of any length.
    """
    positions = np.arange(-low, size + high)
    if mode == "replicate":
        clipped: Array = np.clip(positions, 0, size - 1)
        return clipped
    if mode == "wrap":
        return positions % size
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        return np.abs((positions + size - 1) % period - (size - 1)) if size > 1 else positions * 0
    return np.where((positions < 0) | (positions >= size), -1, positions)


@dataclass(frozen=True)
class _Part:
    """Part of an array of the whole picture: the values (1, C, h, w), where they begin, and its whole size."""

    values: Any
    at: tuple[int, int]
    whole: tuple[int, int]


class General:
    """A filter on any engine that runs models."""

    cell = CELL

    def __init__(self, prepared: Prepared, engine: str, device: str) -> None:
        self.prepared = prepared
        self._engine, self._device = engine, device
        self._compiled: dict[tuple[int, ...], engines.Compiled] = {}
        first = engines.compile(Model(Chain()), engine, device)
        self.engine, self.device = first.engine, first.device
        for leaf in _leaves(prepared.layers):  # what the engine cannot express is said now
            if not isinstance(leaf, L.Pad):
                self._ready([leaf])

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """See `Regional`. Pixels of a cell that `block` does not hold count as 0, and reach no result."""
        result: Array | None = None
        for cell in _cells(region, size, self.cell):
            pixels = self._cell(block, at, size, cell)
            wanted = cell.common(region)
            if result is None:
                result = np.empty((*region.shape, pixels.shape[2]), block.dtype)
            result[_inside(wanted, region)] = pixels[_inside(wanted, cell)]
        if result is None:
            raise ShapeError(f"a region to filter has at least one pixel, got {region}")
        return result

    def _cell(self, block: Array, at: tuple[int, int], size: tuple[int, int], cell: Region) -> Array:
        needed = cell.grown(self.prepared.reach)
        needed = needed if self.prepared.wraps else needed.clipped(size)
        there = Region(*at, at[0] + block.shape[0], at[1] + block.shape[1])
        known = needed.common(there)
        pixels = np.zeros((*needed.shape, block.shape[2]), block.dtype)
        pixels[_inside(known, needed)] = block[_inside(known, there)]
        values = to_values(self.prepared, pixels.transpose(2, 0, 1)[None])
        result = self._chain(self.prepared.layers, _Part(values, (needed.top, needed.left), size))
        top, left = cell.top - result.at[0], cell.left - result.at[1]
        height, width = cell.shape
        own = result.values[0, :, top : top + height, left : left + width].transpose(1, 2, 0)
        return from_values(self.prepared, own, block.dtype)

    def _chain(self, chain: Chain, part: _Part) -> _Part:
        """Runs of layers that need no border go to the engine together."""
        run: list[Layer] = []
        at, whole = part.at, part.whole  # where `run` will have come to
        for layer in chain.layers:
            if isinstance(layer, SkipConnection | Parallel):
                part = self._join(layer, self._run(run, part, at, whole))
                run, at, whole = [], part.at, part.whole
            elif isinstance(layer, L.Pad):
                if not self.prepared.wraps and _touches(at, self._extent(run, part), whole):
                    part = _padded(layer, self._run(run, part, at, whole))
                    run, at, whole = [], part.at, part.whole
                else:
                    (top, bottom), (left, right) = layer.padding
                    at = (at[0] + top, at[1] + left)
                    whole = (whole[0] + top + bottom, whole[1] + left + right)
            else:
                run.append(layer)
                rows, columns = taps(layer)
                whole = (whole[0] - rows, whole[1] - columns)
        return self._run(run, part, at, whole)

    def _extent(self, run: Sequence[Layer], part: _Part) -> tuple[int, int]:
        taken = [taps(layer) for layer in run]
        height, width = part.values.shape[2:]
        return height - sum(rows for rows, _ in taken), width - sum(columns for _, columns in taken)

    def _run(self, run: Sequence[Layer], part: _Part, at: tuple[int, int], whole: tuple[int, int]) -> _Part:
        return _Part(self._ready(run)(part.values) if run else part.values, at, whole)

    def _ready(self, run: Sequence[Layer]) -> engines.Compiled:
        key = tuple(map(id, run))
        if key not in self._compiled:
            self._compiled[key] = engines.compile(_model(run), self._engine, self._device)
        return self._compiled[key]

    def _join(self, layer: SkipConnection | Parallel, part: _Part) -> _Part:
        if isinstance(layer, SkipConnection):
            parts = [self._chain(_as_chain(layer.inner), part), part]
        else:
            parts = [self._chain(_as_chain(branch), part) for branch in layer.branches]
        held = [Region(*p.at, p.at[0] + p.values.shape[2], p.at[1] + p.values.shape[3]) for p in parts]
        common = reduce(Region.common, held)
        cut = [
            p.values[(slice(None), slice(None), *_inside(common, region))]
            for p, region in zip(parts, held, strict=True)
        ]
        joined = _JOINS[layer.connection.operation](cut)
        return _Part(np.ascontiguousarray(joined), (common.top, common.left), parts[0].whole)


_JOINS: dict[str, Any] = {
    "add": lambda values: reduce(np.add, values),
    "multiply": lambda values: reduce(np.multiply, values),
    "subtract": lambda values: reduce(np.subtract, values),
    "maximum": lambda values: reduce(np.maximum, values),
    "concatenate": lambda values: np.concatenate(values, axis=1),
}


def _as_chain(layer: Layer) -> Chain:
    return layer if isinstance(layer, Chain) else Chain((layer,))


def _leaves(layer: Layer) -> list[Layer]:
    return [leaf for child in layer.children for leaf in _leaves(child)] if layer.children else [layer]


def _model(run: Sequence[Layer]) -> Model:
    """Layers of a prepared filter as a model by themselves."""
    first = next((layer for layer in run if isinstance(layer, L.Conv)), None)
    count = None if first is None else first.weight.shape[1] * first.groups
    return Model(Chain(tuple(run)), input_shape=(count, None, None))


def _cells(region: Region, size: tuple[int, int], cell: int) -> list[Region]:
    rows = range(region.top // cell * cell, region.bottom, cell)
    columns = range(region.left // cell * cell, region.right, cell)
    return [Region(r, c, r + cell, c + cell).clipped(size) for r in rows for c in columns]


def _inside(part: Region, whole: Region) -> tuple[slice, slice]:
    """The slices of an array that holds `whole` at which `part` lies."""
    return (
        slice(part.top - whole.top, part.bottom - whole.top),
        slice(part.left - whole.left, part.right - whole.left),
    )


def _touches(at: tuple[int, int], extent: tuple[int, int], whole: tuple[int, int]) -> bool:
    return 0 in at or any(a + n == size for a, n, size in zip(at, extent, whole, strict=True))


def _padded(pad: L.Pad, part: _Part) -> _Part:
    """Extended where the part ends at the picture's own border; elsewhere the halo serves."""
    values, at, whole = part.values, list(part.at), list(part.whole)
    for axis, (low, high) in enumerate(pad.padding):
        begin, size = at[axis], whole[axis]
        end = begin + values.shape[2 + axis]
        indices = border_indices(pad.mode, low, size, high)
        indices = indices[begin + low if begin else 0 : end + low if end < size else None]
        taken = values.take(np.maximum(indices - begin, 0), axis=2 + axis)
        if pad.mode == "zero":
            taken[(slice(None),) * (2 + axis) + (indices < 0,)] = 0
        values = taken
        at[axis], whole[axis] = begin + low if begin else 0, size + low + high
    return _Part(values, (at[0], at[1]), (whole[0], whole[1]))
