"""Fits the layers of a filter to one part of a picture, so that an engine computes the part in one call.

Padding is kept only where the part ends at the border of the picture, and branches are cropped to a common part before
they are joined.
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.engines.tiled.preparing import shrinkage
from diptych.engines.tiled.regions import Region
from diptych.model import layers as L
from diptych.model.layers import Chain, Layer, PadMode, Parallel, SkipConnection

__all__ = ["Held", "fitted"]


@dataclass(frozen=True)
class _Along:
    """One axis of a part: its begin in the array of the whole picture, its size, and the size of that array."""

    begin: int
    size: int
    whole: int

    @property
    def end(self) -> int:
        return self.begin + self.size

    def without(self, taken: int) -> _Along:
        return _Along(self.begin, self.size - taken, self.whole - taken)

    def padding(self, low: int, high: int, wraps: bool) -> tuple[int, int]:
        """How much of (low, high) to add to the part. At sides inside the picture its halo is used instead."""
        ends = self.begin == 0 and not wraps, self.end == self.whole and not wraps
        return low if ends[0] else 0, high if ends[1] else 0

    def padded(self, low: int, high: int, added: tuple[int, int]) -> _Along:
        return _Along(self.begin + low - added[0], self.size + sum(added), self.whole + low + high)


@dataclass(frozen=True)
class Held:
    """The part of an array of the whole picture that is available."""

    rows: _Along
    columns: _Along

    @classmethod
    def of(cls, region: Region, size: tuple[int, int]) -> Held:
        """The part that is `region` of a picture of `size`, (height, width)."""
        height, width = region.shape
        return cls(_Along(region.top, height, size[0]), _Along(region.left, width, size[1]))

    @property
    def region(self) -> Region:
        """The part as a region of the whole array."""
        return Region(self.rows.begin, self.columns.begin, self.rows.end, self.columns.end)


def fitted(layers: Chain, held: Held, wraps: bool) -> tuple[Chain, Held]:
    """Fits layers to a part of a picture.

    Branches are cropped to their common part by a `Pad` with negative numbers.

    Args:
        layers: Those of a `PreparedFilter`.
        held: The part of their input that is available.
        wraps: Whether every `Pad` wraps round.

    Returns:
        The fitted layers, and the part of the output that they give.
    """
    made: list[Layer] = []
    for layer in layers.layers:
        if isinstance(layer, SkipConnection | Parallel):
            joined, held = _joined(layer, held, wraps)
            made.append(joined)
        elif isinstance(layer, L.Pad):
            pads, held = _padded(layer, held, wraps)
            made += pads
        else:
            rows, columns = shrinkage(layer)
            held = Held(held.rows.without(rows), held.columns.without(columns))
            made.append(layer)
    return Chain(tuple(made)), held


def _joined(layer: SkipConnection | Parallel, held: Held, wraps: bool) -> tuple[Parallel, Held]:
    inner = layer.branches if isinstance(layer, Parallel) else (layer.inner, Chain())
    chains = [branch if isinstance(branch, Chain) else Chain((branch,)) for branch in inner]
    branches = [fitted(chain, held, wraps) for chain in chains]
    common = branches[0][1]
    for _, other in branches[1:]:
        common = Held(_common(common.rows, other.rows), _common(common.columns, other.columns))
    cut = tuple(_cut(chain, part, common) for chain, part in branches)
    return Parallel(layer.connection, cut), common


def _common(one: _Along, other: _Along) -> _Along:
    begin, end = max(one.begin, other.begin), min(one.end, other.end)
    return _Along(begin, max(0, end - begin), one.whole)


def _cut(chain: Chain, part: Held, common: Held) -> Chain:
    away = tuple(
        (a.begin - b.begin, b.end - a.end)
        for a, b in ((part.rows, common.rows), (part.columns, common.columns))
    )
    return Chain((*chain.layers, L.Pad(away))) if any(map(any, away)) else chain


def _padded(pad: L.Pad, held: Held, wraps: bool) -> tuple[list[L.Pad], Held]:
    axes = list(zip((held.rows, held.columns), pad.padding, strict=True))
    added = [axis.padding(low, high, wraps) for axis, (low, high) in axes]
    sizes = [axis.size for axis, _ in axes]
    rows, columns = (axis.padded(*both, new) for (axis, both), new in zip(axes, added, strict=True))
    return _steps(pad.mode, added, sizes), Held(rows, columns)


def _steps(mode: PadMode, added: list[tuple[int, int]], sizes: list[int]) -> list[L.Pad]:
    """One `Pad`, or several if the part is smaller than its reflection, since engines reflect only once."""
    if not any(map(any, added)):
        return []
    least = {"reflect": 1, "symmetric": 0}.get(mode)  # how much larger than its reflection the part must be
    if least is None or all(max(pads) + least <= size for pads, size in zip(added, sizes, strict=True)):
        return [L.Pad(tuple(added), mode)]
    steps = []
    for axis, (pads, size) in enumerate(zip(added, sizes, strict=True)):
        low, high = pads
        while low or high:
            most = size - least or max(low, high)
            now = min(low, most), min(high, most)
            steps.append(
                L.Pad((now, (0, 0)) if axis == 0 else ((0, 0), now), mode if size > least else "replicate")
            )
            low, high, size = low - now[0], high - now[1], size + sum(now)
    return steps
