"""Makes a `torch.nn.Module` from a model, of modules of `torch.nn` where they equal the layers, else of `modules`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import ShapeError, UnsupportedLayer
from diptych.formats.torch import modules as M
from diptych.formats.torch import primitives as P
from diptych.formats.torch import recurrent as R
from diptych.model import layers as L
from diptych.model.layers import Array, Connection, Layer, child_path, fold
from diptych.model.model import Model

__all__ = ["activation_module", "network", "to_torch"]

PartialShape: TypeAlias = tuple[int | None, ...] | None  # None for an unknown size, or if nothing is known


def to_torch(model: Model) -> nn.Module:
    """The PyTorch module of a model, in evaluation mode.

    Children are named by the paths of the layers: "0", "1", "3.0". They are modules of `torch.nn` where these equal
    the layers. After `train()`, dropout is active and normalisations use the statistics of the batch.

    Args:
        model: Any model. Its weights are copied to float32 parameters, shared ones to one parameter.

    Returns:
        A module that takes float32 (N, C, H, W), or another shape that the model takes, and gives its output.

    Raises:
        UnsupportedLayer: PyTorch cannot express a layer.
    """
    shape: PartialShape = None if model.input_shape is None else (2, *model.input_shape)
    made = M.Network(*_Builder(model, shape, own=False).modules(model.layers, ""))
    made.record = model.with_(layers=L.Chain(()))
    return made.eval()


def network(model: Model) -> nn.Sequential:
    """The PyTorch module of a model for the engine `torch`, in evaluation mode.

    Unlike that of `to_torch` it takes every shape that the layers take, also where `torch.nn` does not normalise single
    values. A layer used in several places is a separate module at each path, so that hooks can tell them apart.

    Args:
        model: Any model. Its weights are copied to float32 parameters, shared ones to one parameter.

    Raises:
        UnsupportedLayer: PyTorch cannot express a layer.
    """
    return nn.Sequential(*_Builder(model, None, own=True).modules(model.layers, "")).eval()


class _Builder:
    """Makes the modules of one model.

    Args:
        model: The model.
        shape: What is known of the input shape.
        own: Whether to use the modules of this package where those of `torch.nn` are stricter than the layer, and to
            make a separate module, with the same parameters, at each path of a layer.
    """

    def __init__(self, model: Model, shape: PartialShape, own: bool) -> None:
        self.own = own
        self._parameters: dict[int, nn.Parameter] = {}
        self._modules: dict[tuple[int, PartialShape], nn.Module] = {}
        self._entries = _entries(model.layers, shape)

    def modules(self, layer: Layer, path: str) -> list[nn.Module]:
        """The modules of the children of a layer."""
        return [self._module(child, child_path(path, index)) for index, child in enumerate(layer.children)]

    def _module(self, layer: Layer, path: str) -> nn.Module:
        """The module of one layer; unless `own`, a layer used in several places has one module."""
        if self.own:
            return self._new(layer, path)
        key = (id(layer), self._entries.get(path))
        if key not in self._modules:
            known = next((m for (i, _), m in self._modules.items() if i == id(layer)), None)
            self._modules[key] = known if known is not None else self._new(layer, path)
        return self._modules[key]

    def _new(self, layer: Layer, path: str) -> nn.Module:
        if isinstance(layer, L.Container):
            return _container(layer, self.modules(layer, path))
        rule = _RULES.get(type(layer))
        if rule is None:
            raise UnsupportedLayer(f"{path} ({type(layer).__name__})", "PyTorch", "it has no module for it")
        if _spatial_rank(layer) not in (1, 2, 3, None):
            raise UnsupportedLayer(
                f"{path} ({type(layer).__name__})", "PyTorch", "PyTorch has 1 to 3 spatial axes"
            )
        module = rule(layer, self._entries.get(path), self)
        if isinstance(layer, L.Activated) and layer.activation and isinstance(module, M.Extended):
            module.activation = self.activation(layer.activation)
        return module

    def activation(self, layer: L.Activation) -> nn.Module:
        """The module of an elementwise function."""
        if self.own and layer.name == "hardswish":  # `nn.Hardswish` overflows above 6e37
            return M.Elementwise(layer.name, layer.parameters)
        return activation_module(layer)

    def parameter(self, array: Array | None) -> nn.Parameter | None:
        """The parameter of a weight; an array used several times has one parameter."""
        if array is None:
            return None
        if id(array) not in self._parameters:
            self._parameters[id(array)] = nn.Parameter(_tensor(array))
        return self._parameters[id(array)]

    def fill(self, module: Any, weight: Array | None, bias: Array | None) -> nn.Module:
        """Replaces the weights of a module."""
        module.register_parameter("weight", self.parameter(weight))
        module.register_parameter("bias", self.parameter(bias))
        result: nn.Module = module
        return result


def _container(layer: L.Container, inside: list[nn.Module]) -> nn.Module:
    if isinstance(layer, L.Chain):
        return nn.Sequential(*inside)
    if isinstance(layer, L.SkipConnection):
        return M.SkipConnection(layer.connection, inside)
    if isinstance(layer, L.Parallel):
        return M.Parallel(layer.connection, inside)
    if isinstance(layer, L.Graph):
        return M.Graph(layer, inside)
    raise TypeError(f"no rule is written for a {type(layer).__name__}")


def _tensor(array: Array) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float32, order="C"))


def _spatial_rank(layer: Layer) -> int | None:
    """The number of spatial axes that a layer requires, or None if it takes any."""
    if isinstance(layer, L.Conv | L.ConvTranspose):
        return layer.weight.ndim - 2
    if isinstance(layer, L.MaxPool | L.MeanPool):
        return len(layer.kernel)
    return len(layer.padding) if isinstance(layer, L.Pad) else None


# ---- What is known of the shapes ----------------------------------------------------------------------


def _entries(layers: L.Chain, shape: PartialShape) -> dict[str, PartialShape]:
    """Layer path -> what is known of its input shape, for layers without children."""
    found: dict[str, PartialShape] = {}

    def leaf(layer: Layer, shape: PartialShape, path: str) -> PartialShape:
        found[path] = shape
        return _behind(layer, shape)

    def join(connection: Connection, shapes: Sequence[PartialShape], path: str) -> PartialShape:
        known = [shape for shape in shapes if shape is not None and None not in shape]
        if len(known) == len(shapes):
            try:
                return connection.joined_shape([tuple(n for n in shape if n is not None) for shape in known])
            except ShapeError:
                return None
        ranks = {len(shape) for shape in shapes if shape is not None}
        return (None,) * ranks.pop() if len(ranks) == 1 else None

    fold(layers, shape, leaf, join)
    return found


def _behind(layer: Layer, shape: PartialShape) -> PartialShape:
    """What is known of the output shape of a layer."""
    if shape is not None and None not in shape:
        try:
            return layer.output_shape(tuple(n for n in shape if n is not None))
        except ShapeError:
            return None
    if isinstance(layer, L.Conv):
        return (None, layer.weight.shape[0], *[None] * (layer.weight.ndim - 2))
    if isinstance(layer, L.ConvTranspose):
        return (None, layer.weight.shape[1] * layer.groups, *[None] * (layer.weight.ndim - 2))
    if isinstance(layer, L.Flatten):
        return (None, None)
    if isinstance(layer, L.Reshape):
        return (None, *(None if n == -1 else n for n in layer.shape))
    if isinstance(layer, L.MaxPool | L.MeanPool) and shape is None:
        return (None,) * (2 + len(layer.kernel))
    if shape is not None and isinstance(layer, _KEEP_CHANNELS):
        return (*shape[:2], *[None] * (len(shape) - 2))
    if shape is not None and isinstance(layer, _KEEP_RANK):
        return (None,) * len(shape)
    return None


# Layers that keep the number of axes and of channels, and layers that keep only the number of axes.
_KEEP_CHANNELS = (
    L.Activation,
    L.Softmax,
    L.Dropout,
    L.BatchNorm,
    L.InstanceNorm,
    L.GroupNorm,
    L.MaxPool,
    L.MeanPool,
    L.GlobalMaxPool,
    L.GlobalMeanPool,
    L.AdaptiveMaxPool,
    L.AdaptiveMeanPool,
    L.Pad,
    L.Upsample,
)
_KEEP_RANK = (
    L.Dense,
    L.Bilinear,
    L.Scale,
    L.PReLU,
    L.LayerNorm,
    L.RMSNorm,
    L.Normalise,
    L.PixelShuffle,
    L.LocalResponseNorm,
    L.Permute,
    L.Slice,
    L.Gather,
    L.Expand,
)


def _by_rank(names: str, rank: int, own: bool = False) -> Any:
    """The class for 1, 2 or 3 spatial axes, of `torch.nn` or, if `own`, of this package."""
    return getattr(M if own else nn, f"{names}{rank}d")


def _symmetric(padding: L.Pads) -> bool:
    return all(low == high for low, high in padding)


def _edges(padding: Any) -> list[int]:
    return [edge for pair in reversed(padding) for edge in pair]


# ---- Weighted layers ----------------------------------------------------------------------------------


def _conv(layer: L.Conv, shape: PartialShape, builder: _Builder) -> nn.Module:
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
        device="meta",  # the weights it would make are replaced
    )
    if not even:
        module.edges = _edges(layer.padding)
    return builder.fill(module, layer.weight, layer.bias)


def _conv_transpose(layer: L.ConvTranspose, shape: PartialShape, builder: _Builder) -> nn.Module:
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


def _dense(layer: L.Dense, shape: PartialShape, builder: _Builder) -> nn.Module:
    kind = M.Linear if layer.activation else nn.Linear
    outputs, inputs = layer.weight.shape
    return builder.fill(kind(inputs, outputs, device="meta"), layer.weight, layer.bias)


def _scale(layer: L.Scale, shape: PartialShape, builder: _Builder) -> nn.Module:
    scale = builder.parameter(layer.scale)
    assert scale is not None
    return M.Scale(scale, builder.parameter(layer.bias))


def _bilinear(layer: L.Bilinear, shape: PartialShape, builder: _Builder) -> nn.Module:
    weight = builder.parameter(layer.weight)
    assert weight is not None
    return M.Bilinear(weight, builder.parameter(layer.bias))


def _embedding(layer: L.Embedding, shape: PartialShape, builder: _Builder) -> nn.Module:
    weight = builder.parameter(layer.weight)
    assert weight is not None
    return P.Embedding(weight, layer.first, layer.reduction)


# ---- Normalisation ------------------------------------------------------------------------------------


def _channels(layer: Layer, shape: PartialShape) -> int | None:
    own = layer.arrays.get("scale", layer.arrays.get("shift", layer.arrays.get("mean")))
    if own is not None:
        return int(own.shape[0])
    return shape[1] if shape is not None and len(shape) > 1 else None


def _batch_norm(layer: L.BatchNorm, shape: PartialShape, builder: _Builder) -> nn.Module:
    channels, rank = _channels(layer, shape), 0 if shape is None else max(len(shape) - 2, 1)
    known = rank in (1, 2, 3) and channels is not None and not builder.own
    kind = _by_rank("BatchNorm", rank, bool(layer.activation)) if known else M.AnyBatchNorm
    module = kind(channels or 1, layer.epsilon, layer.momentum, track_running_stats=layer.mean is not None)
    return builder.fill(_statistics(module, layer), layer.scale, layer.shift)


def _instance_norm(layer: L.InstanceNorm, shape: PartialShape, builder: _Builder) -> nn.Module:
    channels, rank = _channels(layer, shape), 0 if shape is None else len(shape) - 2
    known = rank in (1, 2, 3) and channels is not None and not layer.activation and not builder.own
    kind = _by_rank("InstanceNorm", rank) if known else M.AnyInstanceNorm
    affine, tracked = layer.scale is not None or layer.shift is not None, layer.mean is not None
    module = kind(channels or 1, layer.epsilon, affine=affine, track_running_stats=tracked)
    return builder.fill(_statistics(module, layer), layer.scale, layer.shift)


def _statistics(module: Any, layer: L.BatchNorm | L.InstanceNorm) -> Any:
    if layer.mean is not None and layer.variance is not None:
        module.running_mean = _tensor(layer.mean)
        module.running_var = _tensor(layer.variance)
    return module


def _group_norm(layer: L.GroupNorm, shape: PartialShape, builder: _Builder) -> nn.Module:
    arrays = [a for a in (layer.scale, layer.shift) if a is not None]
    channels = arrays[0].shape[0] if arrays else (shape[1] if shape and shape[1] else layer.groups)
    tracked = layer.mean is not None and layer.variance is not None
    own = M.TrackedGroupNorm if tracked else M.GroupNorm
    kind: Any = own if tracked or layer.activation or builder.own else nn.GroupNorm
    module = kind(layer.groups, channels, layer.epsilon, affine=bool(arrays))
    if layer.mean is not None and layer.variance is not None:
        module.register_buffer("running_mean", _tensor(layer.mean))
        module.register_buffer("running_var", _tensor(layer.variance))
    return builder.fill(module, layer.scale, layer.shift)


def _layer_norm(layer: L.LayerNorm, shape: PartialShape, builder: _Builder) -> nn.Module:
    kind: Any = M.LayerNorm if layer.activation else nn.LayerNorm
    epsilon = layer.epsilon**2 if layer.formula == "sqrt(var + eps^2)" else layer.epsilon
    kind = M.LayerNormStd if layer.formula == "std + eps" else kind
    affine = layer.scale is not None or layer.shift is not None
    return builder.fill(kind(layer.shape, epsilon, elementwise_affine=affine), layer.scale, layer.shift)


def _rms_norm(layer: L.RMSNorm, shape: PartialShape, builder: _Builder) -> nn.Module:
    module: Any = nn.RMSNorm(layer.shape, layer.epsilon, elementwise_affine=layer.scale is not None)
    module.register_parameter("weight", builder.parameter(layer.scale))
    return module  # type: ignore[no-any-return]


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


def _softmax(layer: L.Softmax, shape: PartialShape, builder: _Builder) -> nn.Module:
    return nn.LogSoftmax(layer.axis) if layer.log else nn.Softmax(layer.axis)


# ---- Pools and shape ----------------------------------------------------------------------------------


def _pool(layer: L.MaxPool | L.MeanPool, shape: PartialShape, builder: _Builder) -> nn.Module:
    largest = isinstance(layer, L.MaxPool)
    counted = layer.count_padding if isinstance(layer, L.MeanPool) else True
    small = all(2 * low <= k for (low, _), k in zip(layer.padding, layer.kernel, strict=True))
    if not (_symmetric(layer.padding) and small):
        dilation = layer.dilation if isinstance(layer, L.MaxPool) else ()
        kind = "max" if largest else "mean"
        return M.WidePool(kind, layer.kernel, layer.stride, layer.padding, counted, dilation)
    padding, rank = tuple(low for low, _ in layer.padding), len(layer.kernel)
    if isinstance(layer, L.MaxPool):
        module: nn.Module = _by_rank("MaxPool", rank)(layer.kernel, layer.stride, padding, layer.dilation)
    else:
        module = _by_rank("AvgPool", rank)(layer.kernel, layer.stride, padding, count_include_pad=counted)
    return module


def _global_pool(layer: Layer, shape: PartialShape, builder: _Builder) -> nn.Module:
    largest = isinstance(layer, L.GlobalMaxPool)
    if shape is None or len(shape) - 2 not in (1, 2, 3):
        return M.AdaptivePool("max" if largest else "mean", None)
    module: nn.Module = _by_rank("AdaptiveMaxPool" if largest else "AdaptiveAvgPool", len(shape) - 2)(1)
    return module


def _adaptive_pool(
    layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool, shape: PartialShape, builder: _Builder
) -> nn.Module:
    largest = isinstance(layer, L.AdaptiveMaxPool)
    if layer.rule == "flux":
        return M.AdaptivePool("max" if largest else "mean", layer.output, layer.rule)
    kind = _by_rank("AdaptiveMaxPool" if largest else "AdaptiveAvgPool", len(layer.output))
    module: nn.Module = kind(layer.output)
    return module


_PADS = {"zero": "ZeroPad", "reflect": "ReflectionPad", "replicate": "ReplicationPad", "wrap": "CircularPad"}


def _pad(layer: L.Pad, shape: PartialShape, builder: _Builder) -> nn.Module:
    if layer.mode == "constant":
        constant: nn.Module = _by_rank("ConstantPad", len(layer.padding))(
            tuple(_edges(layer.padding)), layer.value
        )
        return constant
    if layer.mode == "symmetric":
        return M.SymmetricPad(layer.padding)
    module: nn.Module = _by_rank(_PADS[layer.mode], len(layer.padding))(tuple(_edges(layer.padding)))
    return module


def _upsample(layer: L.Upsample, shape: PartialShape, builder: _Builder) -> nn.Module:
    factors = layer.scale
    if layer.mode == "nearest" and factors and all(float(f).is_integer() for f in factors):
        return nn.Upsample(scale_factor=factors, mode="nearest")
    if layer.mode == "linear" and factors and not layer.align_corners and set(factors) <= {1, 2, 4, 8}:
        mode = ("linear", "bilinear", "trilinear")[len(factors) - 1]
        return nn.Upsample(scale_factor=factors, mode=mode, align_corners=False)
    return M.Upsample(layer.scale, layer.size, layer.mode, layer.align_corners)


def _pixel_shuffle(layer: L.PixelShuffle, shape: PartialShape, builder: _Builder) -> nn.Module:
    flat = shape is not None and len(shape) == 4
    return nn.PixelShuffle(layer.factor) if flat else M.PixelShuffle(layer.factor)


def _constant(layer: L.Constant, shape: PartialShape, builder: _Builder) -> nn.Module:
    value = builder.parameter(layer.value)
    assert value is not None
    return P.Constant(value)


def _prelu(layer: L.PReLU, shape: PartialShape, builder: _Builder) -> nn.Module:
    slope = builder.parameter(layer.slope)
    assert slope is not None
    return P.PReLU(slope)


# ---- Recurrent layers and attention -------------------------------------------------------------------


def _recurrent(layer: L.RNN | L.LSTM | L.GRU, shape: PartialShape, builder: _Builder) -> nn.Module:
    module: Any = _stepped(layer, builder) or _of_torch(layer, builder)
    cell = layer.initial_cell if isinstance(layer, L.LSTM) else None
    module.start_from(builder.parameter(layer.initial), builder.parameter(cell))
    module.reverse = layer.reverse
    result: nn.Module = module
    return result


def _stepped(layer: L.RNN | L.LSTM | L.GRU, builder: _Builder) -> Any:
    """A module for what `torch.nn` lacks, else None."""
    arrays: Any = [builder.parameter(array) for array in (layer.weight, layer.recurrent, layer.bias)]
    if isinstance(layer, L.GRU) and layer.reset == "before":
        return R.GRUResetBefore(*arrays)
    if isinstance(layer, L.RNN) and layer.function.name not in ("tanh", "relu"):
        module = R.RNNOfAny(*arrays)
        module.activation = builder.activation(layer.function)
        return module
    return None


def _of_torch(layer: L.RNN | L.LSTM | L.GRU, builder: _Builder) -> Any:
    own = layer.new_bias if isinstance(layer, L.GRU) else None
    biased = layer.bias is not None or own is not None
    options = {"nonlinearity": layer.function.name} if isinstance(layer, L.RNN) else {}
    kind: Any = getattr(R, type(layer).__name__)
    module = kind(layer.features, layer.hidden, bias=biased, batch_first=True, device="meta", **options)
    module.weight_ih_l0 = builder.parameter(layer.weight)
    module.weight_hh_l0 = builder.parameter(layer.recurrent)
    if biased:
        rows = layer.weight.shape[0]
        second = torch.zeros(rows)
        if own is not None:
            second[rows - layer.hidden :] = _tensor(own)
        first = builder.parameter(layer.bias)
        module.bias_ih_l0 = nn.Parameter(torch.zeros(rows)) if first is None else first
        module.bias_hh_l0 = nn.Parameter(second)
    return module


def _attention(layer: L.MultiHeadAttention, shape: PartialShape, builder: _Builder) -> nn.Module:
    names = ("query", "key", "value", "out")
    parts: dict[str, Any] = {
        name: _dense(L.Dense(getattr(layer, name), getattr(layer, f"{name}_bias")), shape, builder)
        for name in names
    }
    return R.MultiHeadAttention(**parts, heads=layer.heads)


_RULES: dict[type[Layer], Callable[[Any, PartialShape, _Builder], nn.Module]] = {
    L.Activation: lambda layer, shape, builder: builder.activation(layer),
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
    L.RMSNorm: _rms_norm,
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
    L.Permute: lambda layer, shape, builder: P.Permute(layer.order),
    L.Slice: lambda layer, shape, builder: P.Slice(layer.axis, layer.start, layer.stop, layer.step),
    L.Gather: lambda layer, shape, builder: P.Gather(_tensor(layer.indices), layer.axis),
    L.Expand: lambda layer, shape, builder: P.Expand(layer.shape),
    L.Constant: _constant,
    L.Reduce: lambda layer, shape, builder: P.Reduce(layer.kind, layer.axes, layer.keep),
    L.PReLU: _prelu,
    L.RNN: _recurrent,
    L.LSTM: _recurrent,
    L.GRU: _recurrent,
    L.MultiHeadAttention: _attention,
    L.LocalResponseNorm: lambda layer, shape, builder: P.LocalResponseNorm(
        layer.before, layer.after, layer.alpha, layer.beta, layer.bias
    ),
    L.Connection: lambda layer, shape, builder: M.Join(layer),
}
