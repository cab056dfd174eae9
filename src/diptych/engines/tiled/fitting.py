"""The layers of a filter for one part of a picture: padded where it ends at the border, cut where parts join.

So a part goes through an engine in one call, and what lies inside a picture is never padded.
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
    """One axis of a part: where it begins in an array of the whole picture, its size, and that array's."""

    begin: int
    size: int
    whole: int

    @property
    def end(self) -> int:
        return self.begin + self.size

    def without(self, taken: int) -> _Along:
        return _Along(self.begin, self.size - taken, self.whole - taken)

    def padding(self, low: int, high: int, wraps: bool) -> tuple[int, int]:
        """What of (low, high) is added to the part: elsewhere its halo serves."""
        ends = self.begin == 0 and not wraps, self.end == self.whole and not wraps
        return low if ends[0] else 0, high if ends[1] else 0

    def padded(self, low: int, high: int, added: tuple[int, int]) -> _Along:
        return _Along(self.begin + low - added[0], self.size + sum(added), self.whole + low + high)


@dataclass(frozen=True)
class Held:
    """Which part of an array of the whole picture there is."""

    rows: _Along
    columns: _Along

    @classmethod
    def of(cls, region: Region, size: tuple[int, int]) -> Held:
        """A region of a picture of `size`."""
        height, width = region.shape
        return cls(_Along(region.top, height, size[0]), _Along(region.left, width, size[1]))

    @property
    def region(self) -> Region:
        """The same as pixels of that array."""
        return Region(self.rows.begin, self.columns.begin, self.rows.end, self.columns.end)


def fitted(layers: Chain, held: Held, wraps: bool) -> tuple[Chain, Held]:
    """`layers`, those of a `PreparedFilter`, for the part `held`; and which part of the result they give.

    A `Pad` with negative numbers cuts the larger ones of several values that are joined.
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
    """One `Pad`; several where a picture is smaller than what is mirrored, since engines mirror it only once."""
    if not any(map(any, added)):
        return []
    if mode != "reflect" or all(max(pads) < size for pads, size in zip(added, sizes, strict=True)):
        return [L.Pad(tuple(added), mode)]
    steps = []
    for axis, (pads, size) in enumerate(zip(added, sizes, strict=True)):
        low, high = pads
        while low or high:
            most = size - 1 or max(low, high)
            now = min(low, most), min(high, most)
            steps.append(
                L.Pad((now, (0, 0)) if axis == 0 else ((0, 0), now), mode if size > 1 else "replicate")
            )
            low, high, size = low - now[0], high - now[1], size + sum(now)
    return steps
