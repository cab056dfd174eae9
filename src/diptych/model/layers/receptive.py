"""Receptive fields along each axis, in a form that layers can extend one after the other.

Along one axis, n neighbouring values behind a layer with kernel k, stride s and dilation d see
s (n - 1) + d (k - 1) + 1 neighbouring values in front of it (Araujo, Norris and Sim, "Computing Receptive
Fields of Convolutional Neural Networks", Distill 2019, doi 10.23915/distill.00021, equation 1 with dilation).
Layers that enlarge have rules of their own, each for the position that sees most. Padding counts as if it
were part of the picture, and zero weights as if they were not zero, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

__all__ = ["Axis", "Extent", "Field", "itself", "spread", "widest"]

Extent: TypeAlias = Callable[[int], int]  # n neighbouring values here -> how many values there they see


def itself(n: int) -> int:
    """n values see n values."""
    return n


def spread(kernel: int, stride: int) -> Extent:
    """Each value in front is spread over `kernel` values, the next one over those `stride` further on."""
    return lambda n: (n - 1 + kernel - 1) // stride + 1


@dataclass(frozen=True)
class Axis:
    """n neighbouring values see base(scale n + offset) input pixels.

    Convolutions and pools change only `scale` and `offset`, so `base` stays shallow however deep the model.
    """

    base: Extent = itself
    scale: int = 1
    offset: int = 0

    def __call__(self, n: int) -> int:
        return self.base(self.scale * n + self.offset)

    def windowed(self, kernel: int, stride: int) -> Axis:
        """Behind windows of `kernel` values that are `stride` values apart."""
        return Axis(self.base, self.scale * stride, self.offset + self.scale * (kernel - stride))

    def behind(self, extent: Extent) -> Axis:
        """Behind a layer of which n neighbouring values see extent(n)."""
        return Axis(lru_cache(maxsize=None)(lambda n: self(extent(n))))


@dataclass(frozen=True)
class Field:
    """What one value sees of the model's input.

    Attributes:
        axes: One `Axis` for each spatial axis of the model's input.
        everything: Whether it depends on the whole input.
        spatial: False where the input has no spatial axes, or a Flatten has taken them away.
    """

    axes: tuple[Axis, ...]
    everything: bool = False
    spatial: bool = True

    def whole(self) -> Field:
        """Behind a layer of which every value depends on all positions."""
        return replace(self, everything=True)

    def windowed(self, kernel: Sequence[int], stride: Sequence[int]) -> Field | None:
        """Behind sliding windows; None where they slide over other axes than the input has."""
        if not self.spatial or len(kernel) != len(self.axes):
            return None
        windows = zip(self.axes, kernel, stride, strict=True)
        return Field(tuple(axis.windowed(k, s) for axis, k, s in windows))

    def behind(self, extents: Sequence[Extent]) -> Field | None:
        """Behind a layer with one rule for each spatial axis; None where the input has other axes."""
        if not self.spatial or len(extents) != len(self.axes):
            return None
        return Field(tuple(axis.behind(e) for axis, e in zip(self.axes, extents, strict=True)))

    def along(self, axis: int) -> Field:
        """Behind a layer that combines all values along `axis`: 1 is the channels, which see the same pixels."""
        return self if axis in (1, -1 - len(self.axes)) else self.whole()


def widest(fields: Sequence[Field | None]) -> Field | None:
    """Of branches that are joined: along each axis, the one that sees most. None where one is unknown."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or not known:
        return None
    axes = tuple(_widest_axis(branches) for branches in zip(*(f.axes for f in known), strict=True))
    return Field(axes, any(f.everything for f in known), all(f.spatial for f in known))


def _widest_axis(axes: Sequence[Axis]) -> Axis:
    first = axes[0]
    if all(axis.base is first.base and axis.scale == first.scale for axis in axes):
        return max(axes, key=lambda axis: axis.offset)
    return Axis(lru_cache(maxsize=None)(lambda n: max(axis(n) for axis in axes)))
