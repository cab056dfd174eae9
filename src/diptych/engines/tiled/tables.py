"""Filters of single levels as tables: one entry for each of the 256 or 65536 levels that a channel can have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from diptych.engines.tiled.preparing import PreparedFilter, leaves
from diptych.engines.tiled.regions import Region
from diptych.engines.tiled.running import General
from diptych.model import layers as L
from diptych.model.layers import Array, Connection, Layer, fold

__all__ = ["NAME", "Table", "table"]

NAME = "table"
_POINTWISE = (L.Conv, L.Scale, L.Activation)


class Table:
    """A `TiledFilter` that looks every level up.

    Args:
        prepared: The filter, for integer pictures.
        inputs: The input channel on which each output channel depends.
        channels: The number of input channels.
    """

    engine = NAME
    device = "cpu"
    cell = 1

    def __init__(self, prepared: PreparedFilter, inputs: Sequence[int], channels: int) -> None:
        assert prepared.peak is not None
        self.prepared, self._inputs, self._same = prepared, inputs, list(inputs) == list(range(channels))
        dtype = np.uint8 if prepared.peak == 255 else np.uint16
        levels = np.arange(prepared.peak + 1, dtype=dtype)[:, None, None]
        every = np.ascontiguousarray(
            np.broadcast_to(levels.reshape(-1, 256, 1), (len(levels) // 256, 256, channels))
        )
        size = every.shape[:2]
        made = General(prepared, "numpy", "cpu")(every, (0, 0), size, Region(0, 0, *size))
        self._table = np.ascontiguousarray(made.reshape(len(levels), -1))
        self._alike = bool((self._table == self._table[:, :1]).all())

    def __call__(self, block: Array, at: tuple[int, int], size: tuple[int, int], region: Region) -> Array:
        """See `TiledFilter`."""
        import cv2

        top, left = region.top - at[0], region.left - at[1]
        pixels = block[top : top + region.shape[0], left : left + region.shape[1]]
        if not self._same:
            pixels = pixels[..., list(self._inputs)]
        if pixels.dtype == np.uint8:
            # One table for all channels is looked up three times as fast.
            table: Any = self._table[:, 0] if self._alike else self._table[None]
            return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), table)).reshape(pixels.shape)
        result = np.empty(pixels.shape, pixels.dtype)
        for channel in range(pixels.shape[2]):
            np.take(self._table[:, channel], pixels[..., channel], out=result[..., channel], mode="clip")
        return result


def table(prepared: PreparedFilter) -> Table | None:
    """The filter as a table; None where a result depends on neighbours, on several channels, or on fractions."""
    channels = prepared.channels[0]
    if prepared.peak is None or channels is None or not all(map(_is_pointwise, leaves(prepared.layers))):
        return None
    seen = fold(prepared.layers, np.eye(channels, dtype=bool), _leaf, _join)
    if len(seen) > 4 or any(row.sum() > 1 for row in seen):
        return None
    return Table(prepared, [int(row.argmax()) for row in seen], channels)


def _is_pointwise(layer: Layer) -> bool:
    if isinstance(layer, L.Conv):
        return layer.weight.shape[2:] == (1, 1)
    return isinstance(layer, _POINTWISE)


def _leaf(layer: Layer, seen: Array, path: str) -> Array:
    """Which inputs each channel depends on, bool (channels, inputs), after a layer."""
    if isinstance(layer, L.Scale):
        return np.repeat(seen, max(1, layer.scale.size // len(seen)), axis=0)
    if not isinstance(layer, L.Conv):
        return seen
    used = layer.weight[..., 0, 0] != 0
    outputs, inputs = len(used) // layer.groups, used.shape[1]
    parts = [
        used[g * outputs : (g + 1) * outputs].astype(int) @ seen[g * inputs : (g + 1) * inputs].astype(int)
        > 0
        for g in range(layer.groups)
    ]
    return np.concatenate(parts)


def _join(connection: Connection, values: Sequence[Array], path: str) -> Array:
    if connection.operation == "concatenate":
        return np.concatenate(values)
    return reduce(np.logical_or, values)
