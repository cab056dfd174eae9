"""The layers as standard ONNX operations: a function for each kind, in the table `LAYER_RULES`.

A function takes an `OnnxSite` and the layer, and returns the name of the output before the activation. Sizes that ONNX
needs as constants come from `site.shape`; a graph that needs none takes pictures of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer
from diptych.formats.onnx.activations import ACTIVATION_RULES
from diptych.formats.onnx.graph import OnnxSite
from diptych.formats.onnx.norms import batch_norm, group_norm, instance_norm, layer_norm, normalise, rms_norm
from diptych.formats.onnx.recurrent import RECURRENT
from diptych.model.layers import (
    NUMPY_PAD,
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    BatchNorm,
    Bilinear,
    Connection,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Expand,
    Flatten,
    Gather,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    MeanPool,
    Normalise,
    Pad,
    Pads,
    Permute,
    PixelShuffle,
    PReLU,
    Reduce,
    Reshape,
    RMSNorm,
    Scale,
    Slice,
    Softmax,
    Upsample,
    pool_windows,
)

__all__ = ["LAYER_RULES", "activate", "join"]


def activate(s: OnnxSite, activation: Activation, value: str) -> str:
    """Adds an elementwise function of `value`, and returns the name of the result: `value` for the identity."""
    return ACTIVATION_RULES[activation.name](s, value, *activation.parameters) if activation else value


def join(s: OnnxSite, connection: Connection, values: list[str]) -> str:
    """Adds the nodes that join the values of several branches from left to right, and returns the result's name."""
    if connection.operation == "concatenate":
        return s.node("Concat", *values, axis=connection.axis)
    if connection.operation == "where":
        return s.node("Where", s.node("Cast", values[0], to=9), *values[1:])  # 9: BOOL
    operation = _JOINS[connection.operation]
    result = values[0]
    for value in values[1:]:
        result = s.node(operation, result, value)
    return result


_JOINS = {
    "add": "Add",
    "multiply": "Mul",
    "subtract": "Sub",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "matmul": "MatMul",
}
_MOST_AT_ONCE = 32 * 32  # values that one mean adds up

# ---- Weighted layers ----------------------------------------------------------------------------------


def _conv(s: OnnxSite, layer: Conv) -> str:
    return s.node(
        "Conv",
        *_operands(s, layer),
        strides=layer.stride,
        pads=_begins_then_ends(layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
        kernel_shape=layer.weight.shape[2:],
    )


def _conv_transpose(s: OnnxSite, layer: ConvTranspose) -> str:
    return s.node(
        "ConvTranspose",
        *_operands(s, layer),
        strides=layer.stride,
        pads=_begins_then_ends(layer.padding),
        output_padding=layer.output_padding,
        dilations=layer.dilation,
        group=layer.groups,
        kernel_shape=layer.weight.shape[2:],
    )


def _dense(s: OnnxSite, layer: Dense) -> str:
    if s.rank == 2:
        return s.node("Gemm", *_operands(s, layer), transB=1)
    weight = s.node("Transpose", s.weight(layer.weight), perm=(1, 0))
    product = s.node("MatMul", s.input, weight)
    return product if layer.bias is None else s.node("Add", product, s.weight(layer.bias))


def _bilinear(s: OnnxSite, layer: Bilinear) -> str:
    """The products x[i] x[j] along one axis, then a dense layer over them."""
    outputs, inputs, _ = layer.weight.shape
    rank = s.rank
    column = s.node("Unsqueeze", s.input, s.ints(rank))
    products = s.node("Mul", column, s.node("Unsqueeze", s.input, s.ints(rank - 1)))
    flat = s.node("Reshape", products, s.ints(*[0] * (rank - 1), inputs * inputs))
    matrix = s.node("Reshape", s.weight(layer.weight), s.ints(outputs, inputs * inputs))
    result = s.node("MatMul", flat, s.node("Transpose", matrix, perm=(1, 0)))
    return result if layer.bias is None else s.node("Add", result, s.weight(layer.bias))


def _embedding(s: OnnxSite, layer: Embedding) -> str:
    shifted = s.node("Sub", s.node("Round", s.input), s.constant(float(layer.first)))
    inside = s.node("Clip", shifted, s.constant(0.0), s.constant(float(len(layer.weight) - 1)))
    rows = s.node("Gather", s.weight(layer.weight), s.node("Cast", inside, to=7), axis=0)  # 7: INT64
    if layer.reduction == "none":
        return rows
    operation = {"mean": "ReduceMean", "sum": "ReduceSum", "max": "ReduceMax"}[layer.reduction]
    return s.node(operation, rows, s.ints(s.rank - 1), keepdims=0)


def _operands(s: OnnxSite, layer: Conv | ConvTranspose | Dense) -> list[str]:
    bias = [] if layer.bias is None else [s.weight(layer.bias)]
    return [s.input, s.weight(layer.weight), *bias]


def _scale(s: OnnxSite, layer: Scale) -> str:
    product = s.node("Mul", s.input, s.weight(layer.scale))
    return product if layer.bias is None else s.node("Add", product, s.weight(layer.bias))


def _begins_then_ends(padding: Pads) -> list[int]:
    return [low for low, _ in padding] + [high for _, high in padding]


# ---- Pools --------------------------------------------------------------------------------------------


def _max_pool(s: OnnxSite, layer: MaxPool) -> str:
    value, pads = s.input, layer.padding
    if _wider_than_kernel(layer):  # which MaxPool does not accept
        value, pads = _padded(s, pads, s.constant(-np.inf)), ((0, 0),) * len(pads)
    more = {"dilations": layer.dilation} if layer.dilated else {}
    return s.node(
        "MaxPool",
        value,
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=_begins_then_ends(pads),
        **more,
    )


def _mean_pool(s: OnnxSite, layer: MeanPool) -> str:
    value, pads = s.input, layer.padding
    if _wider_than_kernel(layer):
        if not layer.count_padding:
            raise UnsupportedLayer(f"{s.path} (MeanPool)", "ONNX", "some windows hold nothing but padding")
        value, pads = _padded(s, pads, s.constant(0.0)), ((0, 0),) * len(pads)
    return s.node(
        "AveragePool",
        value,
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=_begins_then_ends(pads),
        count_include_pad=int(layer.count_padding),
    )


def _wider_than_kernel(layer: MaxPool | MeanPool) -> bool:
    return any(max(pair) >= k for pair, k in zip(layer.padding, layer.kernel, strict=True))


def _padded(s: OnnxSite, padding: Pads, value: str, mode: str = "constant") -> str:
    # The axes are given because onnxruntime (1.31) merges a Pad of zeros without them into the pool that follows:
    # a MaxPool, where padding counts as -inf, or a pool that does not accept padding this wide. All of them are given
    # because it moves a Pad in front of a Transpose as if they were.
    pads = s.ints(*_begins_then_ends(((0, 0), (0, 0), *padding)))
    return s.node("Pad", s.input, pads, value, s.ints(*range(s.rank)), mode=mode)


def _adaptive_pool(s: OnnxSite, layer: AdaptiveMaxPool | AdaptiveMeanPool) -> str:
    largest = isinstance(layer, AdaptiveMaxPool)
    if set(layer.output) == {1}:
        return s.node("GlobalMaxPool", s.input) if largest else _global_mean(s)
    windows = [pool_windows(n, m, layer.rule) for n, m in zip(s.shape[2:], layer.output, strict=True)]
    values = math.prod(spans[0][1] - spans[0][0] for spans in windows)
    at_once = largest or not s.graph.exact_means or values <= _MOST_AT_ONCE
    if at_once and all(_is_regular(spans) for spans in windows):
        kernel = [spans[0][1] - spans[0][0] for spans in windows]
        strides = [spans[1][0] - spans[0][0] if len(spans) > 1 else 1 for spans in windows]
        return s.node("MaxPool" if largest else "AveragePool", s.input, kernel_shape=kernel, strides=strides)
    # The windows are products of intervals, so that the mean and the maximum can be taken axis by axis.
    value = s.input
    for axis, spans in enumerate(windows, 2):
        parts = [_reduced(s, value, axis, span, "ReduceMax" if largest else "ReduceMean") for span in spans]
        value = s.node("Concat", *parts, axis=axis)
    return value


def _global_mean(s: OnnxSite) -> str:
    """The mean over all spatial axes, which runtimes add up in float32.

    ONNX Runtime's GlobalAveragePool is off by 3e-5 at 112 x 112 and by 4e-2 at 4096 x 4096 for a constant picture; axis
    by axis it is off by 5e-7 and 1e-5.
    """
    if not s.graph.exact_means:
        return s.node("GlobalAveragePool", s.input)
    value = s.input
    for axis in reversed(range(2, s.rank)):
        value = s.node("ReduceMean", value, s.ints(axis))
    return value


def _is_regular(spans: list[tuple[int, int]]) -> bool:
    same_size = len({stop - start for start, stop in spans}) == 1
    steps = {b[0] - a[0] for a, b in pairwise(spans)}
    return same_size and len(steps) <= 1 and 0 not in steps


def _reduced(s: OnnxSite, value: str, axis: int, span: tuple[int, int], operation: str) -> str:
    part = s.node("Slice", value, s.ints(span[0]), s.ints(span[1]), s.ints(axis))
    if operation == "ReduceMax":
        return s.node("ReduceMax", part, s.ints(axis))
    return s.node("ReduceMean", part, s.ints(axis))


# ---- Shape --------------------------------------------------------------------------------------------


def _pad(s: OnnxSite, layer: Pad) -> str:
    if layer.mode == "symmetric":
        return _mirrored(s, layer.padding)
    value = s.constant(layer.value) if layer.mode == "constant" else ""
    return _padded(s, layer.padding, value, NUMPY_PAD[layer.mode])  # ONNX uses NumPy's names


def _mirrored(s: OnnxSite, padding: Pads) -> str:
    """The mirror images that repeat the edge value, for which ONNX has no mode of Pad: slices backwards."""
    value, first, backwards = s.input, s.ints(-(2**31)), s.ints(-1)
    for axis, (low, high) in enumerate(padding, 2):
        along = s.ints(axis)
        parts = [value]
        if low:
            parts.insert(0, s.node("Slice", value, s.ints(low - 1), first, along, backwards))
        if high:
            parts.append(s.node("Slice", value, backwards, s.ints(-high - 1), along, backwards))
        value = s.node("Concat", *parts, axis=axis) if len(parts) > 1 else value
    return value


def _upsample(s: OnnxSite, layer: Upsample) -> str:
    old = s.shape[2:]
    if layer.scale and all(float(f).is_integer() for f in layer.scale):
        factors = s.floats(1, 1, *layer.scale)
        return s.node("Resize", s.input, "", factors, **_resize_mode(layer))
    new = layer.size or tuple(int(n * f) for n, f in zip(old, layer.scale, strict=True))
    if layer.mode == "linear":
        axes = range(2, s.rank)
        return s.node("Resize", s.input, "", "", s.ints(*new), axes=axes, **_resize_mode(layer))
    # floor(i n / m) in integers: Resize computes it in float32, and is one pixel off at some sizes.
    value = s.input
    for axis, (n, m) in enumerate(zip(old, new, strict=True), 2):
        value = s.node("Gather", value, s.ints(*(i * n // m for i in range(m))), axis=axis)
    return value


def _resize_mode(layer: Upsample) -> dict[str, Any]:
    if layer.mode == "nearest":
        return {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    centres = "align_corners" if layer.align_corners else "half_pixel"
    return {"mode": "linear", "coordinate_transformation_mode": centres}


def _pixel_shuffle(s: OnnxSite, layer: PixelShuffle) -> str:
    r, sizes = layer.factor, s.shape[2:]
    if len(sizes) == 2:
        return s.node("DepthToSpace", s.input, blocksize=r, mode="CRD")
    k = len(sizes)
    channels = s.shape[1] // r**k
    # (N, C, r, ..., r, *sizes): each factor is moved behind its spatial axis and merged with it.
    split = s.node("Reshape", s.input, s.ints(0, channels, *[r] * k, *_free(sizes)))
    order = [0, 1, *(axis for i in range(k) for axis in (2 + k + i, 2 + i))]
    merged = s.node("Transpose", split, perm=order)
    return s.node("Reshape", merged, s.ints(0, channels, *_free([n * r for n in sizes])))


def _free(sizes: Any) -> list[int]:
    # A reshape can leave one size open.
    return [-1] if len(sizes) == 1 else list(sizes)


# ---- Picking, reordering, reducing --------------------------------------------------------------------


def _slice(s: OnnxSite, layer: Slice) -> str:
    bounds = (layer.start, layer.stop, layer.axis, layer.step)
    return s.node("Slice", s.input, *(s.ints(n) for n in bounds))


def _gather(s: OnnxSite, layer: Gather) -> str:
    indices = s.node("Cast", s.weight(layer.indices), to=7)  # 7: INT64
    return s.node("Gather", s.input, indices, axis=layer.axis)


def _constant(s: OnnxSite, layer: Constant) -> str:
    batch = s.node("Shape", s.input, start=0, end=1)
    shape = s.node("Concat", batch, s.ints(*layer.value.shape), axis=0)
    return s.node("Expand", s.weight(layer.value), shape)


_REDUCTIONS = {
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "product": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
}


def _reduce(s: OnnxSite, layer: Reduce) -> str:
    name, keep = _REDUCTIONS[layer.kind], int(layer.keep)
    if layer.kind != "mean" or not s.graph.exact_means:
        return s.node(name, s.input, s.ints(*layer.axes), keepdims=keep)
    value = s.input
    for axis in reversed(layer.axes):
        value = s.node(name, value, s.ints(axis), keepdims=keep)
    return value


def _local_response_norm(s: OnnxSite, layer: LocalResponseNorm) -> str:
    before, after = layer.reach(s.shape[1])  # a runtime sets memory aside for the whole window
    size = before + 1 + after
    layer = replace(layer, before=before, after=after, alpha=layer.alpha * size / layer.size)
    if layer.before == layer.after and s.rank == 4:  # what ONNX Runtime takes
        return s.node("LRN", s.input, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.bias)
    square = s.node("Mul", s.input, s.input)
    places: tuple[int, ...] = tuple(range(2, s.rank))
    if len(places) < 2:  # the channels become one of two spatial axes
        added = s.ints(1) if places else s.ints(1, 3)
        mean = s.node("Squeeze", _channel_mean(s, layer, s.node("Unsqueeze", square, added)), added)
    else:
        order = (0, 2, 1, *places[1:])
        mean = s.node("Transpose", square, perm=order)
        mean = s.node("Transpose", _channel_mean(s, layer, mean), perm=order)
    spread = s.node("Add", s.node("Mul", mean, s.constant(layer.alpha)), s.constant(layer.bias))
    return s.node("Div", s.input, s.node("Pow", spread, s.constant(layer.beta)))


def _channel_mean(s: OnnxSite, layer: LocalResponseNorm, value: str) -> str:
    """The mean over the channels in a window, which are the first spatial axis of `value`."""
    others = max(s.rank - 3, 1)
    pads = [layer.before, *[0] * others, layer.after, *[0] * others]
    kernel = (layer.size, *[1] * others)
    return s.node("AveragePool", value, kernel_shape=kernel, pads=pads, count_include_pad=1)


LAYER_RULES: dict[type[Layer], Callable[[OnnxSite, Any], str]] = {
    Activation: lambda s, layer: ACTIVATION_RULES[layer.name](s, s.input, *layer.parameters),
    Softmax: lambda s, layer: s.node("LogSoftmax" if layer.log else "Softmax", s.input, axis=layer.axis),
    Dropout: lambda s, layer: s.node("Identity", s.input),
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
    Bilinear: _bilinear,
    Embedding: _embedding,
    Scale: _scale,
    BatchNorm: batch_norm,
    LayerNorm: layer_norm,
    RMSNorm: rms_norm,
    GroupNorm: group_norm,
    InstanceNorm: instance_norm,
    Normalise: normalise,
    MaxPool: _max_pool,
    MeanPool: _mean_pool,
    GlobalMaxPool: lambda s, layer: s.node("GlobalMaxPool", s.input),
    GlobalMeanPool: lambda s, layer: _global_mean(s),
    AdaptiveMaxPool: _adaptive_pool,
    AdaptiveMeanPool: _adaptive_pool,
    Flatten: lambda s, layer: s.node("Flatten", s.input, axis=1),
    Reshape: lambda s, layer: s.node("Reshape", s.input, s.ints(0, *layer.shape)),
    Pad: _pad,
    Upsample: _upsample,
    PixelShuffle: _pixel_shuffle,
    Permute: lambda s, layer: s.node("Transpose", s.input, perm=layer.order),
    Slice: _slice,
    Gather: _gather,
    Expand: lambda s, layer: s.node("Expand", s.input, s.ints(1, *layer.shape)),
    Constant: _constant,
    Reduce: _reduce,
    **RECURRENT,
    PReLU: lambda s, layer: s.node("PRelu", s.input, s.weight(layer.slope)),
    LocalResponseNorm: _local_response_norm,
}
