"""What both sides of a comparison give, packed for the slider of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.report.grid import colours
from diptych.report.mosaic import finite_range
from diptych.report.packing import Packed, Scripts, as_json, pack

__all__ = ["Sliding", "as_maps", "most_apart", "sliding"]

Array = NDArray[Any]

_SCRIPTS = Scripts(("common.js", "comparison.js"))
_MOST_BYTES = 12_000_000  # of all planes, before they are compressed
_MOST_CHANNELS = 64
_LONGEST = 448  # rows or columns of a plane; longer maps are thinned out


@dataclass(frozen=True)
class Sliding:
    """The parts of the slider.

    Attributes:
        facts: What the page's script must know, as JSON.
        planes: For each layer and channel: A, B and, where the shapes are equal, their difference, as uint8.
        layers: The labels of the layers.
        first: The number of the layer that is shown first.
        scripts: The scripts of the page.
    """

    facts: str
    planes: Packed
    layers: tuple[str, ...]
    first: int
    scripts: Scripts = _SCRIPTS


def sliding(sides: Sequence[tuple[Array, Array]], labels: Sequence[str], first: int) -> Sliding:
    """Packs the layers of a comparison.

    Args:
        sides: What A and B give for one sample, float32 (...), for each layer.
        labels: What the layers are called.
        first: The number of the layer to show first.
    """
    share = _MOST_BYTES // max(len(sides), 1)
    layers, planes = [], []
    for a, b in sides:
        whole = as_maps(a), as_maps(b)
        flat = all(m.shape[1:] == (1, 1) for m in whole)
        maps = [_thinned(m.reshape(1, 1, -1) if flat else m) for m in whole]
        alike = whole[0].shape == whole[1].shape
        bytes_each = maps[0][0].size + maps[1][0].size + (maps[0][0].size if alike else 0)
        count = min(max(share // bytes_each, 1), _MOST_CHANNELS, *map(len, maps))
        chosen = most_apart(maps[0], maps[1], count) if alike else tuple(range(count))
        packed, channels = _channels(maps, chosen, alike)
        planes += packed
        layers.append(
            {
                "a": maps[0].shape[1:],
                "b": maps[1].shape[1:],
                "alike": alike,
                "flat": flat,
                "thin": _step(whole[0].reshape(1, 1, -1) if flat else whole[0]),
                "all": len(whole[0]),
                "channels": channels,
            }
        )
    facts = {
        "difference": colours("magma").reshape(-1).tolist(),
        "layers": layers,
        "values": colours().reshape(-1).tolist(),
    }
    content = b"".join(plane.tobytes() for plane in planes)
    return Sliding(as_json(facts), pack(content), tuple(labels), first)


def as_maps(values: Array) -> Array:
    """One sample's activation as maps (C, H, W): a value becomes a map of one cell, a volume its middle slice."""
    if values.ndim < 2:
        return values.reshape(-1, 1, 1)
    if values.ndim == 2:
        return values[:, None, :]
    return values if values.ndim == 3 else as_maps(values[:, values.shape[1] // 2])


def most_apart(a: Array, b: Array, count: int) -> tuple[int, ...]:
    """The channels in which maps (C, H, W) differ most, in their own order."""
    apart = np.nan_to_num(np.abs(a - b).reshape(len(a), -1), nan=np.inf).max(axis=1)
    return tuple(sorted(int(i) for i in np.argsort(-apart, kind="stable")[:count]))


def _step(maps: Array) -> int:
    return -(-int(max(maps.shape[1:])) // _LONGEST)


def _thinned(maps: Array) -> Array:
    step = _step(maps)
    return maps[:, ::step, ::step]


def _channels(
    maps: Sequence[Array], chosen: tuple[int, ...], alike: bool
) -> tuple[list[Array], list[list[float | int]]]:
    """The planes of each channel, and its number, lowest, highest and largest difference."""
    planes: list[Array] = []
    channels: list[list[float | int]] = []
    for channel in chosen:
        a, b = (m[channel].astype(np.float64) for m in maps)
        limits = finite_range(np.concatenate([a.ravel(), b.ravel()]))
        most = 0.0
        planes += [_index(side, limits.low, limits.high) for side in (a, b)]
        if alike:
            apart = np.abs(a - b)
            most = finite_range(apart).high
            planes.append(_index(apart, 0.0, most))
        channels.append([channel, *(float(f"{value:.6g}") for value in (limits.low, limits.high, most))])
    return planes, channels


def _index(values: Array, low: float, high: float) -> Array:
    """Places in a table of 256 colours; what is not finite gets the last."""
    span = high - low
    scaled = (
        (np.nan_to_num(values, nan=high, posinf=high, neginf=low) - low) / span if span > 0 else values * 0
    )
    return np.rint(np.clip(np.nan_to_num(scaled), 0, 1) * 255).astype(np.uint8)
