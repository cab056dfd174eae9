"""Model -> `torch.nn.Module`: PyTorch's own layers wherever it has the very one, ours for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import ShapeError, UnsupportedLayer
from diptych.formats.torch import modules as M
from diptych.model import layers as L
from diptych.model.layers import Array, Layer
from diptych.model.model import Model
from diptych.model.shapes import layer_shape

__all__ = ["to_torch"]

Shape: TypeAlias = tuple[int | None, ...] | None  # None where nothing is known, or a size is not


def to_torch(model: Model) -> nn.Module:
    """`model` as a module in evaluation mode: float32 (N, C, H, W) -> what the model gives.

    Children are named as layers are in a trace: "0", "1", "3.0". Weights are copied into float32
    parameters, shared ones into one; `train()` makes dropout and batch statistics work. Modules of
    `torch.nn` are used where PyTorch has the very layer. Raises `UnsupportedLayer` where it cannot be had.
    """
    builder = _Builder()
    shape: Shape = None if model.input_shape is None else (2, *model.input_shape)
    network = M.Network(*builder.children(model.layers.layers, "", shape))
    network.record = model.with_(layers=L.Chain(()))
    return network.eval()


class _Builder:
    def __init__(self) -> None:
        self._parameters: dict[int, nn.Parameter] = {}
        self._modules: dict[tuple[int, Shape], nn.Module] = {}

    def children(self, layers: tuple[Layer, ...], path: str, shape: Shape) -> list[nn.Module]:
        """One layer after the other."""
        result = []
        for index, layer in enumerate(layers):
            result.append(self.module(layer, f"{path}.{index}" if path else str(index), shape))
            shape = _after(layer, shape)
        return result

    def module(self, layer: Layer, path: str, shape: Shape) -> nn.Module:
        """One layer; the same one where it stands in several places."""
        key = (id(layer), shape)
        if key not in self._modules:
            known = next((m for (i, s), m in self._modules.items() if i == id(layer)), None)
            self._modules[key] = known if known is not None else self._new(layer, path, shape)
        return self._modules[key]

    def _new(self, layer: Layer, path: str, shape: Shape) -> nn.Module:
        if isinstance(layer, L.Chain):
            return nn.Sequential(*self.children(layer.layers, path, shape))
        if isinstance(layer, L.SkipConnection | L.Parallel):
            branches = [self.module(b, f"{path}.{i}", shape) for i, b in enumerate(layer.children)]
            kind = M.SkipConnection if isinstance(layer, L.SkipConnection) else M.Parallel
            return kind(layer.connection, branches)
        rule = _RULES.get(type(layer))
        if rule is None:
            raise UnsupportedLayer(f"{path} ({type(layer).__name__})", "PyTorch", "it has no such module")
        module = rule(layer, shape, self)
        activation = getattr(layer, "activation", None)
        if activation and isinstance(module, M.Extended):
            module.activation = activation_module(activation)
        return module

    def parameter(self, array: Array | None) -> nn.Parameter | None:
        """A weight; the same parameter wherever the same array is used."""
        if array is None:
            return None
        if id(array) not in self._parameters:
            self._parameters[id(array)] = nn.Parameter(_tensor(array))
        return self._parameters[id(array)]

    def fill(self, module: Any, weight: Array | None, bias: Array | None) -> nn.Module:
        """Puts the weights in the place of those that `module` was made with."""
        module.register_parameter("weight", self.parameter(weight))
        module.register_parameter("bias", self.parameter(bias))
        result: nn.Module = module
        return result


def _tensor(array: Array) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float32, order="C"))


def _after(layer: Layer, shape: Shape) -> Shape:
    """The shape that `layer` gives, as far as it can be told."""
    if shape is not None and None not in shape:
        try:
            return layer_shape(layer, tuple(n for n in shape if n is not None))
        except ShapeError:
            return None
    if isinstance(layer, L.Chain):
        for child in layer.layers:
            shape = _after(child, shape)
        return shape
    if isinstance(layer, L.Conv):
        return (None, layer.weight.shape[0], *[None] * (layer.weight.ndim - 2))
    if isinstance(layer, L.ConvTranspose):
        return (None, layer.weight.shape[1] * layer.groups, *[None] * (layer.weight.ndim - 2))
    if isinstance(layer, L.Flatten | L.Dense):
        return (None, None) if isinstance(layer, L.Flatten) or not shape else (*shape[:-1], None)
    if isinstance(layer, L.Reshape):
        return (None, *(None if n == -1 else n for n in layer.shape))
    if isinstance(layer, L.SkipConnection | L.Parallel | L.PixelShuffle):
        inner = _after(layer.children[0], shape) if layer.children else shape
        return None if inner is None else (None,) * len(inner)
    if isinstance(layer, L.MaxPool | L.MeanPool):
        shape = shape or (None,) * (2 + len(layer.kernel))
    return None if shape is None else (*shape[:2], *[None] * (len(shape) - 2))


def _by_rank(names: str, rank: int, own: bool = False) -> Any:
    """The class for 1, 2 or 3 spatial axes: PyTorch's, or our extension of it."""
    return getattr(M if own else nn, f"{names}{rank}d")


def _symmetric(padding: L.Pads) -> bool:
    return all(low == high for low, high in padding)


def _edges(padding: Any) -> list[int]:
    return [edge for pair in reversed(padding) for edge in pair]


# ---- Weighted layers ----------------------------------------------------------------------------------


def _conv(layer: L.Conv, shape: Shape, builder: _Builder) -> nn.Module:
    even = _symmetric(layer.padding)
    kind = _by_rank("Conv", layer.weight.ndim - 2, own=bool(layer.activation) or not even)
    module = kind(
        layer.weight.shape[1] * layer.groups,
        layer.weight.shape[0],
        layer.weight.shape[2:],
        stride=layer.stride,
        padding=[low for low, _ in layer.padding] if even else 0,
        dilation=layer.dilation,
        groups=layer.groups,
        device="meta",  # its own weights are never made
    )
    if not even:
        module.edges = _edges(layer.padding)
    return builder.fill(module, layer.weight, layer.bias)


def _conv_transpose(layer: L.ConvTranspose, shape: Shape, builder: _Builder) -> nn.Module:
    limits = zip(layer.output_padding, layer.stride, layer.dilation, strict=True)
    plain = _symmetric(layer.padding) and all(extra < max(s, d) for extra, s, d in limits)
    own = bool(layer.activation) or not plain
    kind = _by_rank("ConvTranspose", layer.weight.ndim - 2, own)
    module = kind(
        layer.weight.shape[0],
        layer.weight.shape[1] * layer.groups,
        layer.weight.shape[2:],
        stride=layer.stride,
        padding=0 if own else [low for low, _ in layer.padding],
        output_padding=0 if own else layer.output_padding,
        dilation=layer.dilation,
        groups=layer.groups,
        device="meta",
    )
    if own:
        pairs = zip(layer.padding, layer.output_padding, strict=True)
        module.edges = _edges([(-low, extra - high) for (low, high), extra in pairs])
    return builder.fill(module, layer.weight, layer.bias)


def _dense(layer: L.Dense, shape: Shape, builder: _Builder) -> nn.Module:
    kind = M.Linear if layer.activation else nn.Linear
    outputs, inputs = layer.weight.shape
    return builder.fill(kind(inputs, outputs, device="meta"), layer.weight, layer.bias)


def _scale(layer: L.Scale, shape: Shape, builder: _Builder) -> nn.Module:
    scale = builder.parameter(layer.scale)
    assert scale is not None
    return M.Scale(scale, builder.parameter(layer.bias))


def _bilinear(layer: L.Bilinear, shape: Shape, builder: _Builder) -> nn.Module:
    weight = builder.parameter(layer.weight)
    assert weight is not None
    return M.Bilinear(weight, builder.parameter(layer.bias))


def _embedding(layer: L.Embedding, shape: Shape, builder: _Builder) -> nn.Module:
    weight = builder.parameter(layer.weight)
    assert weight is not None
    return M.Embedding(weight, layer.first, layer.reduction)


# ---- Normalisation ------------------------------------------------------------------------------------


def _channels(layer: Layer, shape: Shape) -> int | None:
    own = layer.arrays.get("scale", layer.arrays.get("shift", layer.arrays.get("mean")))
    if own is not None:
        return int(own.shape[0])
    return shape[1] if shape is not None and len(shape) > 1 else None


def _batch_norm(layer: L.BatchNorm, shape: Shape, builder: _Builder) -> nn.Module:
    channels, rank = _channels(layer, shape), 0 if shape is None else max(len(shape) - 2, 1)
    known = rank in (1, 2, 3) and channels is not None
    kind = _by_rank("BatchNorm", rank, bool(layer.activation)) if known else M.AnyBatchNorm
    module = kind(channels or 1, layer.epsilon, layer.momentum, track_running_stats=layer.mean is not None)
    return builder.fill(_statistics(module, layer), layer.scale, layer.shift)


def _instance_norm(layer: L.InstanceNorm, shape: Shape, builder: _Builder) -> nn.Module:
    channels, rank = _channels(layer, shape), 0 if shape is None else len(shape) - 2
    known = rank in (1, 2, 3) and channels is not None and not layer.activation
    kind = _by_rank("InstanceNorm", rank) if known else M.AnyInstanceNorm
    affine, tracked = layer.scale is not None or layer.shift is not None, layer.mean is not None
    module = kind(channels or 1, layer.epsilon, affine=affine, track_running_stats=tracked)
    return builder.fill(_statistics(module, layer), layer.scale, layer.shift)


def _statistics(module: Any, layer: L.BatchNorm | L.InstanceNorm) -> Any:
    if layer.mean is not None and layer.variance is not None:
        module.running_mean = _tensor(layer.mean)
        module.running_var = _tensor(layer.variance)
    return module


def _group_norm(layer: L.GroupNorm, shape: Shape, builder: _Builder) -> nn.Module:
    arrays = [a for a in (layer.scale, layer.shift) if a is not None]
    channels = arrays[0].shape[0] if arrays else (shape[1] if shape and shape[1] else layer.groups)
    tracked = layer.mean is not None and layer.variance is not None
    own = M.TrackedGroupNorm if tracked else M.GroupNorm
    kind: Any = own if tracked or layer.activation else nn.GroupNorm
    module = kind(layer.groups, channels, layer.epsilon, affine=bool(arrays))
    if layer.mean is not None and layer.variance is not None:
        module.register_buffer("running_mean", _tensor(layer.mean))
        module.register_buffer("running_var", _tensor(layer.variance))
    return builder.fill(module, layer.scale, layer.shift)


def _layer_norm(layer: L.LayerNorm, shape: Shape, builder: _Builder) -> nn.Module:
    kind: Any = M.LayerNorm if layer.activation else nn.LayerNorm
    epsilon = layer.epsilon**2 if layer.formula == "sqrt(var + eps^2)" else layer.epsilon
    kind = M.LayerNormStd if layer.formula == "std + eps" else kind
    affine = layer.scale is not None or layer.shift is not None
    return builder.fill(kind(layer.shape, epsilon, elementwise_affine=affine), layer.scale, layer.shift)


# ---- Functions ----------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": nn.LeakyReLU,
    "trelu": lambda theta: nn.Threshold(theta, 0.0),
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "gelu_erf": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "logsigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
    "softshrink": nn.Softshrink,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "swish": nn.SiLU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
}


def activation_module(activation: L.Activation) -> nn.Module:
    """The module of an elementwise function."""
    name, parameters = activation.name, activation.parameters
    if name == "hardtanh" and parameters[0] < parameters[1]:
        return nn.Hardtanh(parameters[0], parameters[1])
    if name == "hardsigmoid" and abs(parameters[0] - 1 / 6) < 1e-9:
        return nn.Hardsigmoid()
    return _FUNCTIONS[name](*parameters) if name in _FUNCTIONS else M.Elementwise(name, parameters)


def _softmax(layer: L.Softmax, shape: Shape, builder: _Builder) -> nn.Module:
    return nn.LogSoftmax(layer.axis) if layer.log else nn.Softmax(layer.axis)


# ---- Pools and shape ----------------------------------------------------------------------------------


def _pool(layer: L.MaxPool | L.MeanPool, shape: Shape, builder: _Builder) -> nn.Module:
    largest = isinstance(layer, L.MaxPool)
    counted = layer.count_padding if isinstance(layer, L.MeanPool) else True
    small = all(2 * low <= k for (low, _), k in zip(layer.padding, layer.kernel, strict=True))
    if not (_symmetric(layer.padding) and small):
        return M.WidePool("max" if largest else "mean", layer.kernel, layer.stride, layer.padding, counted)
    padding, rank = tuple(low for low, _ in layer.padding), len(layer.kernel)
    if largest:
        module: nn.Module = _by_rank("MaxPool", rank)(layer.kernel, layer.stride, padding)
    else:
        module = _by_rank("AvgPool", rank)(layer.kernel, layer.stride, padding, count_include_pad=counted)
    return module


def _global_pool(layer: Layer, shape: Shape, builder: _Builder) -> nn.Module:
    largest = isinstance(layer, L.GlobalMaxPool)
    if shape is None or len(shape) - 2 not in (1, 2, 3):
        return M.AdaptivePool("max" if largest else "mean", None)
    module: nn.Module = _by_rank("AdaptiveMaxPool" if largest else "AdaptiveAvgPool", len(shape) - 2)(1)
    return module


def _adaptive_pool(
    layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool, shape: Shape, builder: _Builder
) -> nn.Module:
    largest = isinstance(layer, L.AdaptiveMaxPool)
    if layer.rule == "flux":
        return M.AdaptivePool("max" if largest else "mean", layer.output, layer.rule)
    kind = _by_rank("AdaptiveMaxPool" if largest else "AdaptiveAvgPool", len(layer.output))
    module: nn.Module = kind(layer.output)
    return module


_PADS = {"zero": "ZeroPad", "reflect": "ReflectionPad", "replicate": "ReplicationPad", "wrap": "CircularPad"}


def _pad(layer: L.Pad, shape: Shape, builder: _Builder) -> nn.Module:
    module: nn.Module = _by_rank(_PADS[layer.mode], len(layer.padding))(tuple(_edges(layer.padding)))
    return module


def _upsample(layer: L.Upsample, shape: Shape, builder: _Builder) -> nn.Module:
    factors = layer.scale
    if layer.mode == "nearest" and factors and all(float(f).is_integer() for f in factors):
        return nn.Upsample(scale_factor=factors, mode="nearest")
    if layer.mode == "linear" and factors and not layer.align_corners and set(factors) <= {1, 2, 4, 8}:
        mode = ("linear", "bilinear", "trilinear")[len(factors) - 1]
        return nn.Upsample(scale_factor=factors, mode=mode, align_corners=False)
    return M.Upsample(layer.scale, layer.size, layer.mode, layer.align_corners)


def _pixel_shuffle(layer: L.PixelShuffle, shape: Shape, builder: _Builder) -> nn.Module:
    flat = shape is not None and len(shape) == 4
    return nn.PixelShuffle(layer.factor) if flat else M.PixelShuffle(layer.factor)


_RULES: dict[type[Layer], Callable[[Any, Shape, _Builder], nn.Module]] = {
    L.Activation: lambda layer, shape, builder: activation_module(layer),
    L.Softmax: _softmax,
    L.Dropout: lambda layer, shape, builder: nn.Dropout(layer.probability),
    L.Conv: _conv,
    L.ConvTranspose: _conv_transpose,
    L.Dense: _dense,
    L.Scale: _scale,
    L.Bilinear: _bilinear,
    L.Embedding: _embedding,
    L.Normalise: lambda layer, shape, builder: M.Normalise(layer.axis, layer.epsilon, layer.formula),
    L.BatchNorm: _batch_norm,
    L.LayerNorm: _layer_norm,
    L.GroupNorm: _group_norm,
    L.InstanceNorm: _instance_norm,
    L.MaxPool: _pool,
    L.MeanPool: _pool,
    L.GlobalMaxPool: _global_pool,
    L.GlobalMeanPool: _global_pool,
    L.AdaptiveMaxPool: _adaptive_pool,
    L.AdaptiveMeanPool: _adaptive_pool,
    L.Flatten: lambda layer, shape, builder: nn.Flatten(),
    L.Reshape: lambda layer, shape, builder: M.Reshape(layer.shape),
    L.Pad: _pad,
    L.Upsample: _upsample,
    L.PixelShuffle: _pixel_shuffle,
}
