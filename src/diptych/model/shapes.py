"""The shape every layer gives, worked out before anything is computed.

One small rule a layer. A wrong input is refused here, with the layer's path, so that no engine has to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from diptych.errors import ShapeError
from diptych.model.layers import (
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Bilinear,
    Chain,
    Connection,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
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
    Pad,
    Parallel,
    PixelShuffle,
    Reshape,
    Scale,
    SkipConnection,
    Softmax,
    Upsample,
)
from diptych.model.model import Model

__all__ = ["joined_shape", "layer_shape", "layer_shapes", "pool_windows", "sample_positions"]

Shape: TypeAlias = tuple[int, ...]


def layer_shapes(model: Model, shape: Sequence[int]) -> dict[str, Shape]:
    """Layer path -> output shape for an input of `shape` (batch axis included), in order of computation.

    Raises `ShapeError` naming the first layer that cannot take what reaches it.
    """
    shapes: dict[str, Shape] = {}
    layer_shape(model.layers, tuple(shape), "", shapes)
    return shapes


def layer_shape(layer: Layer, shape: Shape, path: str = "", seen: dict[str, Shape] | None = None) -> Shape:
    """The output shape of one layer; `seen` collects those of the layers inside."""
    seen = {} if seen is None else seen
    children = [f"{path}.{i}" if path else str(i) for i in range(len(layer.children))]
    if isinstance(layer, Chain):
        for child, child_path in zip(layer.layers, children, strict=True):
            shape = layer_shape(child, shape, child_path, seen)
        result = shape
    elif isinstance(layer, SkipConnection):
        inner = layer_shape(layer.inner, shape, children[0], seen)
        result = joined_shape(layer.connection, [inner, shape], path)
    elif isinstance(layer, Parallel):
        parts = [layer_shape(b, shape, p, seen) for b, p in zip(layer.branches, children, strict=True)]
        result = joined_shape(layer.connection, parts, path)
    else:
        result = _leaf_shape(layer, shape, path)
    if path:
        seen[path] = result
    return result


def _leaf_shape(layer: Layer, shape: Shape, path: str) -> Shape:
    rule = _RULES.get(type(layer))
    where = f"layer {path} ({type(layer).__name__})"
    if rule is None:
        raise ShapeError(f"{where} has no shape rule")
    result = rule(layer, shape, where)
    if any(size < 1 for size in result):
        raise ShapeError(f"{where} would give the empty shape {result} from {shape}; use a larger input")
    return result


def joined_shape(connection: Connection, shapes: Sequence[Shape], path: str) -> Shape:
    """The shape of `connection(*arrays)`."""
    where = f"layer {path} ({connection.operation})"
    if not shapes:
        raise ShapeError(f"{where} has no branches to join; give it at least one")
    first = shapes[0]
    if any(len(s) != len(first) for s in shapes):
        raise ShapeError(f"{where} joins arrays of different rank: {', '.join(map(str, shapes))}")
    if connection.operation == "concatenate":
        axis = connection.axis + (len(first) if connection.axis < 0 else 0)
        if not 0 <= axis < len(first):
            raise ShapeError(f"{where} joins along axis {connection.axis}, which {first} does not have")
        if any(s[:axis] + s[axis + 1 :] != first[:axis] + first[axis + 1 :] for s in shapes):
            given = ", ".join(map(str, shapes))
            raise ShapeError(f"{where} along axis {axis} needs equal other axes, got {given}")
        return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])
    for sizes in zip(*shapes, strict=True):
        if len({s for s in sizes if s != 1}) > 1:
            raise ShapeError(f"{where} needs equal shapes, got {', '.join(map(str, shapes))}")
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


# ---- One rule a layer ---------------------------------------------------------------------------------


def _same(layer: Layer, shape: Shape, where: str) -> Shape:
    return shape


def _along_axis(layer: Softmax | Normalise, shape: Shape, where: str) -> Shape:
    if not -len(shape) <= layer.axis < len(shape):
        raise ShapeError(f"{where} works along axis {layer.axis}, which {shape} does not have")
    return shape


def _conv(layer: Conv, shape: Shape, where: str) -> Shape:
    _spatial(layer.weight.ndim - 2, shape, where)
    _channels(layer.weight.shape[1] * layer.groups, shape, where)
    windows = zip(shape[2:], layer.padding, layer.weight.shape[2:], layer.dilation, layer.stride, strict=True)
    sizes = [(n + low + high - d * (k - 1) - 1) // s + 1 for n, (low, high), k, d, s in windows]
    return (shape[0], layer.weight.shape[0], *sizes)


def _conv_transpose(layer: ConvTranspose, shape: Shape, where: str) -> Shape:
    _spatial(layer.weight.ndim - 2, shape, where)
    _channels(layer.weight.shape[0], shape, where)
    parts = zip(
        shape[2:],
        layer.stride,
        layer.padding,
        layer.weight.shape[2:],
        layer.dilation,
        layer.output_padding,
        strict=True,
    )
    sizes = [(n - 1) * s - low - high + d * (k - 1) + 1 + extra for n, s, (low, high), k, d, extra in parts]
    return (shape[0], layer.weight.shape[1] * layer.groups, *sizes)


def _dense(layer: Dense | Bilinear, shape: Shape, where: str) -> Shape:
    outputs, inputs = layer.weight.shape[:2]
    if shape[-1] != inputs:
        raise ShapeError(
            f"{where} takes {inputs} features on the last axis, got {shape[-1]} in {shape}; "
            "the input has another size than the model was made for"
        )
    return (*shape[:-1], outputs)


def _embedding(layer: Embedding, shape: Shape, where: str) -> Shape:
    if layer.reduction == "none":
        return (*shape, layer.weight.shape[1])
    if len(shape) < 2:
        raise ShapeError(f"{where} reduces over an axis of numbers, (N, L), got {shape}")
    return (*shape[:-1], layer.weight.shape[1])


def _scale(layer: Scale, shape: Shape, where: str) -> Shape:
    own = layer.scale.shape
    if len(own) > len(shape) or any(o not in (1, s) for o, s in zip(own[::-1], shape[::-1], strict=False)):
        raise ShapeError(f"{where} scales by an array of shape {own}, which does not fit {shape}")
    return shape


def _channel_norm(layer: BatchNorm | InstanceNorm | GroupNorm, shape: Shape, where: str) -> Shape:
    if len(shape) < 2:
        raise ShapeError(f"{where} takes (N, C, ...), got {shape}")
    arrays = layer.arrays
    if isinstance(layer, GroupNorm):
        if shape[1] % layer.groups:
            raise ShapeError(f"{where} cannot split {shape[1]} channels into {layer.groups} groups")
        arrays = {name: array for name, array in arrays.items() if name in ("scale", "shift")}
    for array in arrays.values():
        _channels(array.shape[0], shape, where)
    return shape


def _layer_norm(layer: LayerNorm, shape: Shape, where: str) -> Shape:
    if shape[len(shape) - len(layer.shape) :] != layer.shape:
        raise ShapeError(f"{where} normalises the last axes {layer.shape}, got {shape}")
    return shape


def _pool(layer: MaxPool | MeanPool, shape: Shape, where: str) -> Shape:
    _spatial(len(layer.kernel), shape, where)
    windows = zip(shape[2:], layer.padding, layer.kernel, layer.stride, strict=True)
    return (*shape[:2], *[(n + low + high - k) // s + 1 for n, (low, high), k, s in windows])


def _global_pool(layer: Layer, shape: Shape, where: str) -> Shape:
    if len(shape) < 3:
        raise ShapeError(f"{where} takes (N, C, *spatial), got {shape}")
    return (*shape[:2], *(1 for _ in shape[2:]))


def _adaptive_pool(layer: AdaptiveMaxPool | AdaptiveMeanPool, shape: Shape, where: str) -> Shape:
    _spatial(len(layer.output), shape, where)
    if layer.rule == "flux" and any(n < m for n, m in zip(shape[2:], layer.output, strict=True)):
        raise ShapeError(f"{where} cannot give {layer.output} windows from {shape[2:]}")
    return (*shape[:2], *layer.output)


def _flatten(layer: Flatten, shape: Shape, where: str) -> Shape:
    return (shape[0], math.prod(shape[1:]))


def _reshape(layer: Reshape, shape: Shape, where: str) -> Shape:
    total, known = math.prod(shape[1:]), math.prod(n for n in layer.shape if n != -1)
    free = layer.shape.count(-1)
    if free > 1 or known == 0 or total % known or (not free and total != known):
        raise ShapeError(f"{where} cannot make {layer.shape} of {total} values a sample, from {shape}")
    return (shape[0], *(total // known if n == -1 else n for n in layer.shape))


def _pad(layer: Pad, shape: Shape, where: str) -> Shape:
    _spatial(len(layer.padding), shape, where)
    for n, pads in zip(shape[2:], layer.padding, strict=True):
        limit = {"reflect": n - 1, "wrap": n}.get(layer.mode)
        if limit is not None and max(pads) > limit:
            raise ShapeError(f"{where}: {layer.mode} padding of {max(pads)} needs a larger input than {n}")
    return (*shape[:2], *[n + low + high for n, (low, high) in zip(shape[2:], layer.padding, strict=True)])


def _upsample(layer: Upsample, shape: Shape, where: str) -> Shape:
    _spatial(len(layer.size or layer.scale), shape, where)
    if layer.size:
        return (*shape[:2], *layer.size)
    return (*shape[:2], *[int(n * s) for n, s in zip(shape[2:], layer.scale, strict=True)])


def _pixel_shuffle(layer: PixelShuffle, shape: Shape, where: str) -> Shape:
    r, rank = layer.factor, len(shape) - 2
    if rank < 1 or shape[1] % r**rank:
        raise ShapeError(f"{where} needs a multiple of {r}^{rank} channels, got {shape}")
    return (shape[0], shape[1] // r**rank, *[n * r for n in shape[2:]])


def _spatial(rank: int, shape: Shape, where: str) -> None:
    if len(shape) != rank + 2:
        axes = ("", "N, C, W", "N, C, H, W", "N, C, D, H, W")[rank] if rank <= 3 else f"rank {rank + 2}"
        raise ShapeError(f"{where} takes ({axes}), got {len(shape)} axes: {shape}")


def _channels(expected: int, shape: Shape, where: str) -> None:
    if shape[1] != expected:
        raise ShapeError(f"{where} takes {expected} channels on axis 1, got {shape[1]} in {shape}")


_RULES: dict[type[Layer], Callable[[Any, Shape, str], Shape]] = {
    Activation: _same,
    Softmax: _along_axis,
    Normalise: _along_axis,
    Dropout: _same,
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
    Bilinear: _dense,
    Embedding: _embedding,
    Scale: _scale,
    BatchNorm: _channel_norm,
    InstanceNorm: _channel_norm,
    GroupNorm: _channel_norm,
    LayerNorm: _layer_norm,
    MaxPool: _pool,
    MeanPool: _pool,
    GlobalMaxPool: _global_pool,
    GlobalMeanPool: _global_pool,
    AdaptiveMaxPool: _adaptive_pool,
    AdaptiveMeanPool: _adaptive_pool,
    Flatten: _flatten,
    Reshape: _reshape,
    Pad: _pad,
    Upsample: _upsample,
    PixelShuffle: _pixel_shuffle,
}


def pool_windows(size: int, output: int, rule: str) -> list[tuple[int, int]]:
    """The [start, stop) windows of an adaptive pool along one axis; the rules are `AdaptiveMaxPool`'s."""
    if rule == "flux":
        stride = size // output
        kernel = size - (output - 1) * stride
        return [(i * stride, i * stride + kernel) for i in range(output)]
    return [(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]


def sample_positions(size: int, output: int, align_corners: bool) -> list[float]:
    """Where, in 0 ... size - 1, linear upsampling to `output` values reads along one axis."""
    if align_corners:
        return [i * (size - 1) / max(output - 1, 1) for i in range(output)]
    return [min(max((i + 0.5) * size / output - 0.5, 0.0), size - 1.0) for i in range(output)]
