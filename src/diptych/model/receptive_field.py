"""How much of the input one value of a layer depends on, worked out layer by layer.

Along one axis, n neighbouring values behind a layer with kernel k, stride s and dilation d see
s (n - 1) + d (k - 1) + 1 neighbouring values before it (Araujo, Norris and Sim, "Computing Receptive Fields
of Convolutional Neural Networks", Distill 2019, doi 10.23915/distill.00021, equation 1 with dilation).
Layers that enlarge have rules of their own, below, each for the position that sees most. Padding counts as
if it were picture, and zero weights as if they were not, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal, TypeAlias

from diptych.model.layers import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Bilinear,
    Chain,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Flatten,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
    Normalise,
    Parallel,
    PixelShuffle,
    Reshape,
    SkipConnection,
    Softmax,
    Upsample,
)
from diptych.model.shapes import Shape, pool_windows

__all__ = ["GLOBAL", "ReceptiveField", "receptive_fields"]

GLOBAL: Literal["global"] = "global"
ReceptiveField: TypeAlias = tuple[int, ...] | Literal["global"] | None


Reach: TypeAlias = Callable[[int], int]  # n neighbouring values here -> how many values there they see


@dataclass(frozen=True)
class _Axis:
    """n neighbouring values see base(scale n + offset) input pixels.

    Convolutions and pools change only `scale` and `offset`, so `base` stays shallow however deep the model.
    """

    base: Reach
    scale: int = 1
    offset: int = 0

    def __call__(self, n: int) -> int:
        return self.base(self.scale * n + self.offset)

    def windowed(self, kernel: int, stride: int) -> _Axis:
        """Behind windows of `kernel` values that are `stride` values apart."""
        return _Axis(self.base, self.scale * stride, self.offset + self.scale * (kernel - stride))

    def behind(self, reach: Reach) -> _Axis:
        """Behind a layer of which n neighbouring values see reach(n)."""
        return _Axis(lru_cache(maxsize=None)(lambda n: self(reach(n))))


@dataclass(frozen=True)
class _Field:
    """One `_Axis` for every spatial axis; `everything` where a value sees the whole input."""

    axes: tuple[_Axis, ...]
    everything: bool = False
    spatial: bool = True  # False where there are no spatial axes, or Flatten has taken them away


def receptive_fields(
    layers: Chain, rank: int | None, shapes: Mapping[str, Shape] | None = None, entry: Shape | None = None
) -> dict[str, ReceptiveField]:
    """Layer path -> (height, width) in input pixels, "global" for the whole input, or None if unknown.

    `rank` is the number of spatial axes of the input, 0 for features, None if unknown. `shapes`, as given
    by `layer_shapes`, and `entry`, the input's own, are needed only for adaptive pools and upsampling.
    """
    if rank is None:
        return {}
    found: dict[str, ReceptiveField] = {}
    start = _Field((_Axis(_itself),) * rank, spatial=rank > 0)
    _follow(layers, "", start, entry, shapes or {}, found)
    return found


def _itself(n: int) -> int:
    return n


def _follow(
    layer: Layer,
    path: str,
    field: _Field | None,
    entry: Shape | None,
    shapes: Mapping[str, Shape],
    found: dict[str, ReceptiveField],
) -> _Field | None:
    """The field after `layer`; `entry` is the shape that reaches it, `found` collects by path."""
    paths = [f"{path}.{i}" if path else str(i) for i in range(len(layer.children))]
    if isinstance(layer, Chain):
        for child, child_path in zip(layer.layers, paths, strict=True):
            field = _follow(child, child_path, field, entry, shapes, found)
            entry = shapes.get(child_path)
    elif isinstance(layer, SkipConnection | Parallel):
        branches = zip(layer.children, paths, strict=True)
        after = [_follow(child, child_path, field, entry, shapes, found) for child, child_path in branches]
        field = _widest([*after, field] if isinstance(layer, SkipConnection) else after)
    elif field is not None:
        field = _after(layer, field, entry, shapes.get(path))
    if path:
        found[path] = _public(field)
    return field


def _public(field: _Field | None) -> ReceptiveField:
    if field is None:
        return None
    return GLOBAL if field.everything else tuple(axis(1) for axis in field.axes)


def _widest(fields: Sequence[_Field | None]) -> _Field | None:
    """Of branches that are joined: along each axis, whichever sees most."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or not known:
        return None
    axes = tuple(_widest_axis(branches) for branches in zip(*(f.axes for f in known), strict=True))
    return _Field(axes, any(f.everything for f in known), all(f.spatial for f in known))


def _widest_axis(axes: Sequence[_Axis]) -> _Axis:
    first = axes[0]
    if all(axis.base is first.base and axis.scale == first.scale for axis in axes):
        return max(axes, key=lambda axis: axis.offset)
    return _Axis(lru_cache(maxsize=None)(lambda n: max(axis(n) for axis in axes)))


def _after(layer: Layer, field: _Field, entry: Shape | None, result: Shape | None) -> _Field | None:
    if field.everything or _sees_everything(layer, field):
        return _Field(field.axes, everything=True, spatial=field.spatial)
    if isinstance(layer, Flatten):
        return _Field(field.axes, spatial=False)
    if isinstance(layer, Reshape):
        return None  # which values are neighbours now is not known
    if isinstance(layer, Conv):
        kernels = zip(layer.weight.shape[2:], layer.dilation, strict=True)
        return _windowed(field, [d * (k - 1) + 1 for k, d in kernels], layer.stride)
    if isinstance(layer, MaxPool | MeanPool):
        return _windowed(field, layer.kernel, layer.stride)
    if isinstance(layer, ConvTranspose):
        axes = zip(layer.weight.shape[2:], layer.dilation, layer.stride, strict=True)
        return _behind(field, [_spread(d * (k - 1) + 1, s) for k, d, s in axes])
    if isinstance(layer, PixelShuffle):
        return _behind(field, [_spread(layer.factor, layer.factor)] * len(field.axes))
    if isinstance(layer, Upsample | AdaptiveMaxPool | AdaptiveMeanPool):
        if entry is None or result is None:
            return None
        return _resized(layer, field, list(zip(entry[2:], result[2:], strict=True)))
    return field


def _sees_everything(layer: Layer, field: _Field) -> bool:
    """Whether one output value needs every position: sums over the picture, or over features of all of it."""
    if isinstance(layer, Dense | Bilinear | GlobalMaxPool | GlobalMeanPool | LayerNorm):
        return True
    if isinstance(layer, GroupNorm | InstanceNorm | BatchNorm):
        return layer.mean is None or layer.variance is None
    if isinstance(layer, Embedding):
        return layer.reduction != "none"
    if isinstance(layer, Normalise):
        return layer.axis not in (1, -1 - len(field.axes))
    if isinstance(layer, Softmax):
        return not field.spatial or layer.axis not in (1, -1 - len(field.axes))
    return False


def _windowed(field: _Field, kernel: Sequence[int], stride: Sequence[int]) -> _Field | None:
    if not field.spatial or len(kernel) != len(field.axes):
        return None
    windows = zip(field.axes, kernel, stride, strict=True)
    return _Field(tuple(axis.windowed(k, s) for axis, k, s in windows))


def _behind(field: _Field, reaches: Sequence[Reach]) -> _Field | None:
    if not field.spatial or len(reaches) != len(field.axes):
        return None
    return _Field(tuple(axis.behind(reach) for axis, reach in zip(field.axes, reaches, strict=True)))


# ---- Layers that enlarge ------------------------------------------------------------------------------


def _spread(kernel: int, stride: int) -> Reach:
    """Each value before is spread over `kernel` values, the next one over those `stride` further on."""
    return lambda n: (n - 1 + kernel - 1) // stride + 1


def _interpolated(size: int, output: int, layer: Upsample) -> Reach:
    """Positions lie size / output apart; linear interpolation reads the value before and the one after."""
    if size == output:
        return _itself
    if layer.mode == "nearest":
        return lambda n: ceil((n - 1) * size / output) + 1
    gap = (size - 1) / max(output - 1, 1) if layer.align_corners else size / output
    return lambda n: min(ceil((n - 1) * gap) + 2, max(size, n))


def _adapted(windows: Sequence[tuple[int, int]]) -> Reach:
    """Of windows that need not be equally long: the longest stretch that n neighbours cover."""
    starts, stops = [start for start, _ in windows], [stop for _, stop in windows]

    def reach(n: int) -> int:
        beyond = max(n - len(windows), 0)  # what padding adds behind this layer
        inside = min(n, len(windows))
        return beyond + max(b - a for a, b in zip(starts, stops[inside - 1 :], strict=False))

    return reach


def _resized(
    layer: Upsample | AdaptiveMaxPool | AdaptiveMeanPool, field: _Field, sizes: Iterable[tuple[int, int]]
) -> _Field | None:
    """Layers whose rule depends on the (entering, leaving) sizes along each axis."""
    sizes = list(sizes)
    if isinstance(layer, Upsample):
        return _behind(field, [_interpolated(n, m, layer) for n, m in sizes])
    if all(m == 1 for _, m in sizes):
        return _Field(field.axes, everything=True)
    return _behind(field, [_adapted(pool_windows(n, m, layer.rule)) for n, m in sizes])
