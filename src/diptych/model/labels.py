"""A layer in one line, as a reader of Flux or PyTorch would write it: "Conv 3x3, 1 -> 16, stride 2, relu"."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from diptych.model.layers import (
    ACTIVATIONS,
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
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    MeanPool,
    Normalise,
    Pad,
    Pads,
    Parallel,
    PixelShuffle,
    Reshape,
    Scale,
    SkipConnection,
    Softmax,
    Upsample,
)

__all__ = ["label"]


def label(layer: Layer) -> str:
    """The kind, the sizes, then whatever differs from the default, then the activation. ASCII only."""
    describe = _LABELS.get(type(layer))
    parts = describe(layer) if describe else [type(layer).__name__]
    activation = getattr(layer, "activation", None)
    if activation:
        parts.append(_activation(activation)[0])
    return ", ".join(part for part in parts if part)


def _conv(layer: Conv | ConvTranspose) -> list[str]:
    first, second, *kernel = layer.weight.shape
    channels = f"{second * layer.groups} -> {first}"
    if isinstance(layer, ConvTranspose):
        channels = f"{first} -> {second * layer.groups}"
    parts = [f"{type(layer).__name__} {_by(kernel)}", channels]
    parts.append(_unless(layer.stride, 1, "stride"))
    parts.append(_padding(layer.padding))
    if isinstance(layer, ConvTranspose):
        parts.append(_unless(layer.output_padding, 0, "output padding"))
    parts.append(_unless(layer.dilation, 1, "dilation"))
    parts.append(f"groups {layer.groups}" if layer.groups > 1 else "")
    parts.append("" if layer.bias is not None else "no bias")
    return parts


def _dense(layer: Dense | Bilinear) -> list[str]:
    outputs, inputs = layer.weight.shape[:2]
    return [f"{type(layer).__name__} {inputs} -> {outputs}", "" if layer.bias is not None else "no bias"]


def _embedding(layer: Embedding) -> list[str]:
    entries, features = layer.weight.shape
    reduced = "" if layer.reduction == "none" else layer.reduction
    return [f"Embedding {entries} -> {features}", reduced, f"from {layer.first}" if layer.first else ""]


def _normalise(layer: Normalise) -> list[str]:
    formula = "" if layer.formula == "sqrt(var + eps)" else f"divided by {layer.formula}"
    return [f"Normalise along axis {layer.axis}", formula, _epsilon(layer.epsilon)]


def _scale(layer: Scale) -> list[str]:
    return [f"Scale {_by(layer.scale.shape)}", "" if layer.bias is not None else "no bias"]


def _channel_norm(layer: BatchNorm | InstanceNorm) -> list[str]:
    sizes = {array.shape[0] for array in layer.arrays.values()}
    tracked = layer.mean is not None and layer.variance is not None
    by_batch, by_sample = isinstance(layer, BatchNorm), isinstance(layer, InstanceNorm)
    return [
        " ".join([type(layer).__name__, *map(str, sorted(sizes))]),
        "statistics of the batch" if by_batch and not tracked else "",
        "tracked statistics" if by_sample and tracked else "",
        _epsilon(layer.epsilon),
    ]


def _group_norm(layer: GroupNorm) -> list[str]:
    tracked = layer.mean is not None and layer.variance is not None
    return [
        f"GroupNorm {layer.groups} groups",
        "tracked statistics" if tracked else "",
        _epsilon(layer.epsilon),
    ]


def _layer_norm(layer: LayerNorm) -> list[str]:
    formula = "" if layer.formula == "sqrt(var + eps)" else f"divided by {layer.formula}"
    return [f"LayerNorm {_by(layer.shape)}", formula, _epsilon(layer.epsilon)]


def _pool(layer: MaxPool | MeanPool) -> list[str]:
    parts = [f"{type(layer).__name__} {_by(layer.kernel)}"]
    parts.append(f"stride {_by_or_one(layer.stride)}" if layer.stride != layer.kernel else "")
    parts.append(_padding(layer.padding))
    if isinstance(layer, MeanPool) and not layer.count_padding:
        parts.append("padding not counted")
    return parts


def _adaptive_pool(layer: AdaptiveMaxPool | AdaptiveMeanPool) -> list[str]:
    return [
        f"{type(layer).__name__} to {_by(layer.output)}",
        "Flux's windows" if layer.rule == "flux" else "",
    ]


def _activation(layer: Activation) -> list[str]:
    if layer.parameters == ACTIVATIONS[layer.name][1]:
        return [layer.name]
    return [f"{layer.name}({', '.join(f'{p:g}' for p in layer.parameters)})"]


def _softmax(layer: Softmax) -> list[str]:
    return ["logsoftmax" if layer.log else "softmax", "" if layer.axis == 1 else f"axis {layer.axis}"]


def _upsample(layer: Upsample) -> list[str]:
    target = f"to {_by(layer.size)}" if layer.size else _by(f"{s:g}" for s in layer.scale)
    return [f"Upsample {target}", layer.mode, "corners aligned" if layer.align_corners else ""]


def _connection(connection: Connection) -> str:
    if connection.operation == "concatenate" and connection.axis != 1:
        return f"concatenate along axis {connection.axis}"
    return connection.operation


_LABELS: dict[type[Layer], Callable[[Any], list[str]]] = {
    Activation: _activation,
    Softmax: _softmax,
    Dropout: lambda layer: [f"Dropout {layer.probability:g}"],
    Conv: _conv,
    ConvTranspose: _conv,
    Dense: _dense,
    Bilinear: _dense,
    Embedding: _embedding,
    Normalise: _normalise,
    Scale: _scale,
    BatchNorm: _channel_norm,
    InstanceNorm: _channel_norm,
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    MaxPool: _pool,
    MeanPool: _pool,
    AdaptiveMaxPool: _adaptive_pool,
    AdaptiveMeanPool: _adaptive_pool,
    Reshape: lambda layer: [f"Reshape {_by('?' if n == -1 else n for n in layer.shape)}"],
    Pad: lambda layer: [f"Pad {layer.mode}", _padding(layer.padding).removeprefix("padding ")],
    Upsample: _upsample,
    PixelShuffle: lambda layer: [f"PixelShuffle {layer.factor}"],
    Chain: lambda layer: [f"Chain of {len(layer.layers)}"],
    SkipConnection: lambda layer: [f"SkipConnection {_connection(layer.connection)}"],
    Parallel: lambda layer: [f"Parallel of {len(layer.branches)} {_connection(layer.connection)}"],
}


def _by(sizes: Iterable[object]) -> str:
    return "x".join(map(str, sizes))


def _by_or_one(sizes: tuple[int, ...]) -> str:
    """One number where all axes agree."""
    return str(sizes[0]) if len(set(sizes)) == 1 else _by(sizes)


def _unless(sizes: tuple[int, ...], default: int, name: str) -> str:
    return "" if set(sizes) == {default} else f"{name} {_by_or_one(sizes)}"


def _padding(padding: Pads) -> str:
    """One number where all edges agree, one an axis where its two ends do, else low+high an axis."""
    if not any(edge for pads in padding for edge in pads):
        return ""
    if len({edge for pads in padding for edge in pads}) == 1:
        return f"padding {padding[0][0]}"
    if all(low == high for low, high in padding):
        return f"padding {_by(low for low, _ in padding)}"
    return f"padding {' x '.join(f'{low}+{high}' for low, high in padding)}"


def _epsilon(epsilon: float) -> str:
    return "" if abs(epsilon / 1e-5 - 1) < 1e-6 else f"epsilon {epsilon:g}"
