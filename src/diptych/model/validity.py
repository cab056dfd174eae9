"""Whether the fields of a layer fit each other: what no type can say, checked before anything is computed.

One small rule a layer, as in `shapes`. Readers of files call `check_layers` on what they built, writers
on what they are about to store: a damaged or hostile file ends here, in a sentence with the layer's path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from diptych.errors import ModelError, ShapeError
from diptych.model.layers import (
    Activation,
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    Array,
    BatchNorm,
    Bilinear,
    Chain,
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
    Parallel,
    PixelShuffle,
    Reshape,
    Scale,
    SkipConnection,
    Softmax,
    Upsample,
    walk,
)
from diptych.model.model import Model
from diptych.model.shapes import layer_shapes

__all__ = ["check_classes", "check_input_shape", "check_layers", "output_features"]

_MOST_AXES = 8


def check_layers(layers: Layer) -> None:
    """Raises `ModelError` naming the first layer whose fields contradict each other."""
    for path, layer in (("", layers), *walk(layers)):
        for array in layer.arrays.values():
            if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
                raise ModelError(
                    f"{_where(layer, path)}: weights are float16, float32 or float64, got {array.dtype}"
                )
        for field in ("activation", "connection"):
            if isinstance(inner := getattr(layer, field, None), Activation):
                _activation(inner, _where(layer, path))
        rule = _RULES.get(type(layer))
        if rule is not None:
            rule(layer, _where(layer, path))


def check_input_shape(model: Model) -> None:
    """Raises `ModelError` where the model cannot take the input shape it records."""
    shape = model.input_shape
    if shape is None or None in shape:
        return
    try:
        layer_shapes(model, (1, *(n for n in shape if n is not None)))
    except ShapeError as error:
        raise ModelError(
            f"the model does not take the input shape {shape} that it records: {error}"
        ) from error


def check_classes(model: Model) -> None:
    """Raises `ModelError` where the number of classes is not the number of outputs, when that is known."""
    outputs = output_features(model)
    names: set[object] = set()
    for name in model.classes or ():
        if not isinstance(name, str) or name in names:
            raise ModelError(f"class names are texts, each once, but {name!r} is among those given")
        names.add(name)
    if model.classes is not None and outputs is not None and len(model.classes) != outputs:
        raise ModelError(
            f"{model.name or 'the model'} gives {outputs} outputs but the class list has "
            f"{len(model.classes)} names; give exactly {outputs}"
        )


def output_features(model: Model) -> int | None:
    """The length of the channel axis of the output; None where neither shapes nor the last layers tell it."""
    shape = model.input_shape
    if shape is not None and None not in shape:
        try:
            shapes = layer_shapes(model, (1, *(n for n in shape if n is not None)))
        except ShapeError:
            return None
        top = [result for path, result in shapes.items() if "." not in path]
        return top[-1][1] if top and len(top[-1]) > 1 else None
    return _last_features(model.layers)


def _last_features(layer: Layer) -> int | None:
    if isinstance(layer, Chain):
        for inner in reversed(layer.layers):
            if not isinstance(inner, Activation | Softmax | Dropout | BatchNorm):
                return _last_features(inner)
    if isinstance(layer, Dense | Conv):
        return int(layer.weight.shape[0])
    return None


# ---- One rule a layer ---------------------------------------------------------------------------------


def _conv(layer: Conv, where: str) -> None:
    _rank(layer.weight, (3, 4, 5), "weight", where)
    outputs = layer.weight.shape[0]
    _whole(layer.groups, 1, "groups", where)
    if outputs % layer.groups:
        raise ModelError(f"{where}: {layer.groups} groups do not divide {outputs} output channels")
    _sized(layer.bias, (outputs,), "bias", where)
    _windows(layer, layer.weight.ndim - 2, where)


def _conv_transpose(layer: ConvTranspose, where: str) -> None:
    _rank(layer.weight, (3, 4, 5), "weight", where)
    _whole(layer.groups, 1, "groups", where)
    if layer.weight.shape[0] % layer.groups:
        raise ModelError(
            f"{where}: {layer.groups} groups do not divide {layer.weight.shape[0]} input channels"
        )
    _sized(layer.bias, (layer.weight.shape[1] * layer.groups,), "bias", where)
    _windows(layer, layer.weight.ndim - 2, where)
    _whole_numbers(layer.output_padding, layer.weight.ndim - 2, 0, "output_padding", where)


def _windows(layer: Any, rank: int, where: str) -> None:
    _whole_numbers(layer.stride, rank, 1, "stride", where)
    _pads(layer.padding, rank, where)
    if hasattr(layer, "dilation"):
        _whole_numbers(layer.dilation, rank, 1, "dilation", where)


def _dense(layer: Dense, where: str) -> None:
    _rank(layer.weight, (2,), "weight", where)
    _sized(layer.bias, (layer.weight.shape[0],), "bias", where)


def _bilinear(layer: Bilinear, where: str) -> None:
    _rank(layer.weight, (3,), "weight", where)
    outputs, first, second = layer.weight.shape
    if first != second:
        raise ModelError(f"{where}: one input cannot be both of {first} and of {second} features")
    _sized(layer.bias, (outputs,), "bias", where)


def _embedding(layer: Embedding, where: str) -> None:
    _rank(layer.weight, (2,), "weight", where)


def _normalise(layer: Normalise, where: str) -> None:
    _finite(layer.epsilon, "epsilon", where)
    if not -_MOST_AXES <= layer.axis < _MOST_AXES:
        raise ModelError(f"{where}: field 'axis' must be {-_MOST_AXES} to {_MOST_AXES - 1}, got {layer.axis}")


def _scale(layer: Scale, where: str) -> None:
    for name, array in layer.arrays.items():
        _rank(array, range(_MOST_AXES + 1), name, where)


def _norm(layer: BatchNorm | InstanceNorm | GroupNorm, where: str) -> None:
    _finite(layer.epsilon, "epsilon", where)
    if (layer.mean is None) != (layer.variance is None):
        raise ModelError(f"{where}: fields 'mean' and 'variance' must both be there, or neither")
    channels: int | None = None
    for name, array in layer.arrays.items():
        _rank(array, (1,), name, where)
        if isinstance(layer, GroupNorm) and name in ("mean", "variance"):
            _sized(array, (layer.groups,), name, where)
            continue
        channels = array.shape[0] if channels is None else channels
        _sized(array, (channels,), name, where)
    if isinstance(layer, GroupNorm):
        _whole(layer.groups, 1, "groups", where)
        if channels is not None and channels % layer.groups:
            raise ModelError(f"{where}: {layer.groups} groups do not divide {channels} channels")


def _layer_norm(layer: LayerNorm, where: str) -> None:
    _finite(layer.epsilon, "epsilon", where)
    _some_whole_numbers(layer.shape, _MOST_AXES, "shape", where)
    for name, array in layer.arrays.items():
        _sized(array, layer.shape, name, where)


def _pool(layer: MaxPool | MeanPool, where: str) -> None:
    _some_whole_numbers(layer.kernel, 3, "kernel", where)
    _windows(layer, len(layer.kernel), where)


def _adaptive_pool(layer: AdaptiveMaxPool | AdaptiveMeanPool, where: str) -> None:
    _some_whole_numbers(layer.output, 3, "output", where)


def _reshape(layer: Reshape, where: str) -> None:
    if (
        len(layer.shape) > _MOST_AXES
        or layer.shape.count(-1) > 1
        or any(n < 1 and n != -1 for n in layer.shape)
    ):
        raise ModelError(
            f"{where}: field 'shape' must be sizes of 1 or more, one of them -1, got {layer.shape}"
        )


def _pad(layer: Pad, where: str) -> None:
    if not 1 <= len(layer.padding) <= 3:
        raise ModelError(f"{where}: field 'padding' must hold 1 to 3 pairs, got {len(layer.padding)}")
    _pads(layer.padding, len(layer.padding), where)


def _upsample(layer: Upsample, where: str) -> None:
    if layer.size:
        _some_whole_numbers(layer.size, 3, "size", where)
    elif len(layer.scale) > 3 or not all(0 < s < math.inf for s in layer.scale):
        raise ModelError(f"{where}: field 'scale' must be 1 to 3 positive numbers, got {layer.scale}")


def _pixel_shuffle(layer: PixelShuffle, where: str) -> None:
    _whole(layer.factor, 1, "factor", where)


def _activation(layer: Activation, where: str) -> None:
    if any(math.isnan(p) for p in layer.parameters):
        raise ModelError(f"{where}: a parameter of the activation {layer.name} is not a number")


def _dropout(layer: Dropout, where: str) -> None:
    if not 0 <= layer.probability <= 1:
        raise ModelError(f"{where}: field 'probability' must be 0 to 1, got {layer.probability}")


def _softmax(layer: Softmax, where: str) -> None:
    if not -_MOST_AXES <= layer.axis < _MOST_AXES:
        raise ModelError(f"{where}: field 'axis' must be {-_MOST_AXES} to {_MOST_AXES - 1}, got {layer.axis}")


def _chain(layer: Chain, where: str) -> None:
    if layer.names and len(layer.names) != len(layer.layers):
        raise ModelError(f"{where}: {len(layer.names)} names were given for {len(layer.layers)} layers")


def _joining(layer: SkipConnection | Parallel, where: str) -> None:
    if not layer.children:
        raise ModelError(f"{where}: it must have at least one branch")
    axis = layer.connection.axis
    if not -_MOST_AXES <= axis < _MOST_AXES:
        raise ModelError(
            f"{where}: the connection's axis must be {-_MOST_AXES} to {_MOST_AXES - 1}, got {axis}"
        )


_RULES: dict[type[Layer], Callable[[Any, str], None]] = {
    Activation: _activation,
    Softmax: _softmax,
    Dropout: _dropout,
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
    Bilinear: _bilinear,
    Embedding: _embedding,
    Normalise: _normalise,
    Scale: _scale,
    BatchNorm: _norm,
    InstanceNorm: _norm,
    GroupNorm: _norm,
    LayerNorm: _layer_norm,
    MaxPool: _pool,
    MeanPool: _pool,
    AdaptiveMaxPool: _adaptive_pool,
    AdaptiveMeanPool: _adaptive_pool,
    Reshape: _reshape,
    Pad: _pad,
    Upsample: _upsample,
    PixelShuffle: _pixel_shuffle,
    Chain: _chain,
    SkipConnection: _joining,
    Parallel: _joining,
}


# ---- What the rules are made of -----------------------------------------------------------------------


def _where(layer: Layer, path: str) -> str:
    return f"layer {path} ({type(layer).__name__})" if path else "the model"


def _rank(array: Array, ranks: Sequence[int], name: str, where: str) -> None:
    if array.ndim not in ranks:
        wanted = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        raise ModelError(f"{where}: field {name!r} must have {wanted} axes, got the shape {array.shape}")
    if 0 in array.shape:
        raise ModelError(f"{where}: field {name!r} is empty, its shape is {array.shape}")


def _sized(array: Array | None, shape: tuple[int, ...], name: str, where: str) -> None:
    if array is not None and array.shape != shape:
        raise ModelError(f"{where}: field {name!r} must have the shape {shape}, got {array.shape}")


def _whole(value: int, least: int, name: str, where: str) -> None:
    if value < least:
        raise ModelError(f"{where}: field {name!r} must be {least} or more, got {value}")


def _whole_numbers(values: tuple[int, ...], count: int, least: int, name: str, where: str) -> None:
    if len(values) != count or any(v < least for v in values):
        raise ModelError(
            f"{where}: field {name!r} must be {count} whole numbers of {least} or more, got {_short(values)}"
        )


def _some_whole_numbers(values: tuple[int, ...], most: int, name: str, where: str) -> None:
    if not 1 <= len(values) <= most or any(v < 1 for v in values):
        raise ModelError(
            f"{where}: field {name!r} must be 1 to {most} whole numbers of 1 or more, got {_short(values)}"
        )


def _pads(values: tuple[tuple[int, int], ...], rank: int, where: str) -> None:
    if len(values) != rank or any(len(pair) != 2 or min(pair) < 0 for pair in values):
        raise ModelError(
            f"{where}: field 'padding' must be {rank} pairs of whole numbers >= 0, got {_short(values)}"
        )


def _finite(value: float, name: str, where: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ModelError(f"{where}: field {name!r} must be a number of 0 or more, got {value}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
