"""The normalisations as standard ONNX operations. Each function returns the name of the output."""

from __future__ import annotations

import numpy as np

from diptych.formats.onnx.graph import OnnxSite
from diptych.model.layers import Array, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Normalise, RMSNorm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "normalise", "rms_norm"]


def batch_norm(s: OnnxSite, layer: BatchNorm) -> str:
    """BatchNormalization with stored statistics, elementary operations with those of the batch."""
    if layer.mean is not None and layer.variance is not None:
        return _by_stored(s, layer, layer.mean, layer.variance)
    value = _standardised(s, s.input, [0, *range(2, s.rank)], layer.epsilon)
    return _by_channel(s, value, layer.scale, layer.shift)


def instance_norm(s: OnnxSite, layer: InstanceNorm) -> str:
    """BatchNormalization with stored statistics, elementary operations with those of each picture."""
    if layer.mean is not None and layer.variance is not None:
        return _by_stored(s, layer, layer.mean, layer.variance)
    value = _standardised(s, s.input, list(range(2, s.rank)), layer.epsilon)
    return _by_channel(s, value, layer.scale, layer.shift)


def group_norm(s: OnnxSite, layer: GroupNorm) -> str:
    """BatchNormalization with stored statistics; otherwise (N, groups, values) is normalised along its last axis."""
    if layer.mean is not None and layer.variance is not None:
        repeats = s.shape[1] // layer.groups
        mean, variance = (np.repeat(a.astype(np.float32), repeats) for a in (layer.mean, layer.variance))
        return _by_stored(s, layer, mean, variance)
    grouped = s.node("Reshape", s.input, s.ints(0, layer.groups, -1))
    value = _standardised(s, grouped, [2], layer.epsilon)
    value = s.node("Reshape", value, s.node("Shape", s.input))
    return _by_channel(s, value, layer.scale, layer.shift)


def normalise(s: OnnxSite, layer: Normalise) -> str:
    """Elementary operations, along any one axis."""
    outside = layer.formula == "std + eps"
    epsilon = layer.epsilon**2 if layer.formula == "sqrt(var + eps^2)" else layer.epsilon
    return _standardised(s, s.input, [layer.axis], epsilon, outside)


def layer_norm(s: OnnxSite, layer: LayerNorm) -> str:
    """LayerNormalization, or elementary operations for the formula "std + eps"."""
    if layer.formula == "std + eps":
        axes = list(range(s.rank - len(layer.shape), s.rank))
        value = _standardised(s, s.input, axes, layer.epsilon, outside=True)
        value = value if layer.scale is None else s.node("Mul", value, s.weight(layer.scale))
        return value if layer.shift is None else s.node("Add", value, s.weight(layer.shift))
    squared = layer.formula == "sqrt(var + eps^2)"
    scale = s.constant(np.ones(layer.shape)) if layer.scale is None else s.weight(layer.scale)
    shift = [] if layer.shift is None else [s.weight(layer.shift)]
    return s.node(
        "LayerNormalization",
        s.input,
        scale,
        *shift,
        axis=-len(layer.shape),
        epsilon=layer.epsilon**2 if squared else layer.epsilon,
    )


def rms_norm(s: OnnxSite, layer: RMSNorm) -> str:
    """Elementary operations: RMSNormalization exists since operator set 23 only."""
    where = s.ints(*range(s.rank - len(layer.shape), s.rank))
    squares = s.node("ReduceMean", s.node("Mul", s.input, s.input), where)
    value = s.node("Div", s.input, s.node("Sqrt", s.node("Add", squares, s.constant(layer.epsilon))))
    return value if layer.scale is None else s.node("Mul", value, s.weight(layer.scale))


def _by_stored(s: OnnxSite, layer: BatchNorm | InstanceNorm | GroupNorm, mean: Array, variance: Array) -> str:
    channels = s.shape[1]
    scale = s.constant(np.ones(channels)) if layer.scale is None else s.weight(layer.scale)
    shift = s.constant(np.zeros(channels)) if layer.shift is None else s.weight(layer.shift)
    if isinstance(layer, GroupNorm):
        statistics = [s.constant(mean), s.constant(variance)]
    else:
        statistics = [s.weight(mean), s.weight(variance)]
    return s.node("BatchNormalization", s.input, scale, shift, *statistics, epsilon=layer.epsilon)


def _standardised(s: OnnxSite, value: str, axes: list[int], epsilon: float, outside: bool = False) -> str:
    """(x - mean) / sqrt(var + epsilon), or (x - mean) / (std + epsilon) if `outside`."""
    where = s.ints(*axes)
    centred = (
        s.node("Sub", value, s.node("ReduceMean", value, where)) if axes else s.node("Sub", value, value)
    )
    square = s.node("Mul", centred, centred)
    variance = s.node("ReduceMean", square, where) if axes else square
    if outside:
        return s.node("Div", centred, s.node("Add", s.node("Sqrt", variance), s.constant(epsilon)))
    return s.node("Div", centred, s.node("Sqrt", s.node("Add", variance, s.constant(epsilon))))


def _by_channel(s: OnnxSite, value: str, scale: Array | None, shift: Array | None) -> str:
    for operation, array in (("Mul", scale), ("Add", shift)):
        if array is not None:
            column = s.node("Reshape", s.weight(array), s.ints(-1, *[1] * (s.rank - 2)))
            value = s.node(operation, value, column)
    return value
