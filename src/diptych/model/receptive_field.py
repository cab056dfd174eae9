"""How much of the input one value of a layer depends on, worked out layer by layer.

Along one axis, a layer with kernel k, stride s and dilation d turns a field of r pixels, whose neighbours
lie j pixels apart, into r + d (k - 1) j pixels and j s (Araujo, Norris and Sim, "Computing Receptive
Fields of Convolutional Neural Networks", Distill 2019, doi 10.23915/distill.00021, equations 1 and 2).
Layers that enlarge divide j. The size counts padding as if it were picture, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal, TypeAlias

from diptych.model.layers import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
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


@dataclass(frozen=True)
class _Field:
    """Size and spacing in input pixels for every spatial axis; `everything` where it is the whole input."""

    sizes: tuple[Fraction, ...]
    jumps: tuple[Fraction, ...]
    everything: bool = False
    spatial: bool = True  # False once Flatten or Reshape has taken the spatial axes away


def receptive_fields(
    layers: Chain, rank: int | None, shapes: Mapping[str, Shape] | None = None, entry: Shape | None = None
) -> dict[str, ReceptiveField]:
    """Layer path -> (height, width) in input pixels, "global" for the whole input, or None if unknown.

    `rank` is the number of spatial axes of the input, 0 for features, None if unknown. `shapes`, as given by
    `layer_shapes`, and `entry`, the input's own, are needed only for adaptive pools and fractional sizes.
    """
    if rank is None:
        return {}
    one = (Fraction(1),) * rank
    found: dict[str, ReceptiveField] = {}
    _follow(layers, "", _Field(one, one, spatial=rank > 0), entry, shapes or {}, found)
    return found


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
    return GLOBAL if field.everything else tuple(ceil(size) for size in field.sizes)


def _widest(fields: Sequence[_Field | None]) -> _Field | None:
    """Of branches that are joined: the largest size along each axis."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or not known:
        return None
    sizes = tuple(max(axis) for axis in zip(*(field.sizes for field in known), strict=True))
    jumps = tuple(max(axis) for axis in zip(*(field.jumps for field in known), strict=True))
    everything = any(field.everything for field in known)
    return _Field(sizes, jumps, everything, all(field.spatial for field in known))


def _after(layer: Layer, field: _Field, entry: Shape | None, result: Shape | None) -> _Field | None:
    if field.everything or _sees_everything(layer, field):
        return _Field(field.sizes, field.jumps, everything=True, spatial=field.spatial)
    if isinstance(layer, Flatten):
        return _Field(field.sizes, field.jumps, spatial=False)
    if isinstance(layer, Reshape):
        return None  # which values are neighbours now is not known
    if isinstance(layer, Conv):
        kernel = layer.weight.shape[2:]
        reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, kernel, strict=True)]
        return _moved(field, reach, layer.stride)
    if isinstance(layer, MaxPool | MeanPool):
        return _moved(field, layer.kernel, layer.stride)
    if isinstance(layer, ConvTranspose):
        kernel = layer.weight.shape[2:]
        # One output value meets every stride-th tap, unless dilation makes them skip it.
        reach = [
            ceil(Fraction(d * (k - 1) + 1, s))
            for k, s, d in zip(kernel, layer.stride, layer.dilation, strict=True)
        ]
        return _moved(field, reach, [Fraction(1, s) for s in layer.stride])
    if isinstance(layer, PixelShuffle):
        return _moved(field, [1] * len(field.sizes), [Fraction(1, layer.factor)] * len(field.sizes))
    if isinstance(layer, Upsample | AdaptiveMaxPool | AdaptiveMeanPool):
        return _resized(layer, field, entry, result)
    return field


def _sees_everything(layer: Layer, field: _Field) -> bool:
    """Whether one output value needs every position: sums over the picture, or over features of all of it."""
    if isinstance(layer, Dense | GlobalMaxPool | GlobalMeanPool | LayerNorm):
        return True
    if isinstance(layer, GroupNorm | InstanceNorm | BatchNorm):
        return layer.mean is None or layer.variance is None
    if isinstance(layer, Softmax):
        return not field.spatial or layer.axis not in (1, -1 - len(field.sizes))
    return False


def _moved(field: _Field, reach: Sequence[int], stride: Sequence[int | Fraction]) -> _Field | None:
    if not field.spatial or len(reach) != len(field.sizes):
        return None
    sizes = tuple(r + (k - 1) * j for r, k, j in zip(field.sizes, reach, field.jumps, strict=True))
    return _Field(sizes, tuple(j * s for j, s in zip(field.jumps, stride, strict=True)))


def _resized(
    layer: Upsample | AdaptiveMaxPool | AdaptiveMeanPool,
    field: _Field,
    entry: Shape | None,
    result: Shape | None,
) -> _Field | None:
    """Layers whose stride is the ratio of two sizes, which have to be known."""
    if entry is None or result is None or not field.spatial:
        return None
    sizes = list(zip(entry[2:], result[2:], strict=True))
    if isinstance(layer, Upsample):
        reach = [2 if layer.mode == "linear" and n not in (1, m) else 1 for n, m in sizes]
    else:
        reach = [max(stop - start for start, stop in pool_windows(n, m, layer.rule)) for n, m in sizes]
        if all(k == n for k, (n, _) in zip(reach, sizes, strict=True)):
            return _Field(field.sizes, field.jumps, everything=True)
    return _moved(field, reach, [Fraction(n, m) for n, m in sizes])
