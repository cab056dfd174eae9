"""The PyTorch engine: eager functions on the CPU, an NVIDIA GPU (cuda) or an Apple one (mps).

`compile` turns every layer into a closure over tensors on the device; running is a walk over those.
Operations are float32 throughout, TensorFloat-32 included out, and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.engines.running import CONTAINERS, admit, run
from diptych.errors import UnsupportedLayer, UsageError
from diptych.model import layers as L
from diptych.model.layers import Array, Layer
from diptych.model.model import Model
from diptych.model.shapes import layer_shape, pool_windows, sample_positions
from diptych.model.trace import Trace

__all__ = ["DEVICES", "NAME", "TorchModel", "available_devices", "compile"]

NAME = "torch"
DEVICES = ("cpu", "cuda", "mps")

Step: TypeAlias = Callable[[Tensor], Tensor]
Load: TypeAlias = Callable[[Array], Tensor]


def available_devices() -> tuple[str, ...]:
    """Those of `DEVICES` that this machine has, the fastest first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, there in present.items() if there)


def compile(model: Model, device: str = "auto") -> TorchModel:  # noqa: A001 - the field's verb
    """Makes `model` ready to run; "auto" takes a GPU where there is one.

    Raises `UsageError` for a device that is not there, `UnsupportedLayer` for what PyTorch lacks.
    """
    there = available_devices()
    chosen = there[0] if device == "auto" else device
    if chosen not in there:
        found = ", ".join(there)
        raise UsageError(f"PyTorch finds no {device!r} on this machine, only {found}; use one of these")
    return TorchModel(model, chosen)


class TorchModel:
    """A model on PyTorch."""

    engine = NAME

    def __init__(self, model: Model, device: str) -> None:
        self.device = device
        self._model = model
        tensors: dict[int, Tensor] = {}  # weights that layers share are held once

        def load(array: Array) -> Tensor:
            if id(array) not in tensors:
                own = np.ascontiguousarray(array, dtype=np.float32)
                tensors[id(array)] = torch.tensor(own, device=device)
            return tensors[id(array)]

        self._steps = {id(layer): _step(layer, path, load) for path, layer in _leaves(model)}

    def __call__(self, batch: Any) -> Array:
        """Float32 batch -> a new float32 array. Raises `ShapeError` where the batch does not fit."""
        return _to_numpy(self._run(admit(self._model, batch)))

    def trace(self, batch: Any) -> Trace:
        """The output of every layer."""
        outputs: dict[str, Array] = {}

        def record(path: str, value: Tensor) -> None:
            outputs[path] = _to_numpy(value)

        admitted = admit(self._model, batch)
        self._run(admitted, record)
        return Trace(outputs, admitted)

    def _run(self, batch: Array, record: Callable[[str, Tensor], None] | None = None) -> Tensor:
        def leaf(layer: Layer, x: Tensor) -> Tensor:
            return self._steps[id(layer)](x)

        with torch.inference_mode(), _full_precision(self.device):
            # `torch.tensor` copies: PyTorch warns about sharing read-only memory, such as a mapped file's.
            x = torch.tensor(batch, device=self.device)
            return run(self._model.layers, x, leaf, _concatenate, torch.maximum, record)


def _leaves(model: Model) -> Iterator[tuple[str, Layer]]:
    return ((path, layer) for path, layer in model.walk() if not isinstance(layer, CONTAINERS))


def _concatenate(values: Sequence[Tensor], axis: int) -> Tensor:
    return torch.cat(tuple(values), axis)


def _to_numpy(value: Tensor) -> Array:
    """A copy, so that no two entries of a trace share memory with each other or with the input."""
    result: Array = np.array(value.cpu().numpy(), dtype=np.float32, order="C")
    return result


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """On CUDA: no TensorFloat-32, whose 10 bits of mantissa part from the reference at 1e-3; then undone."""
    if device != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings: list[tuple[Any, str, Any]] = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    if hasattr(cudnn, "conv"):  # since 2.9; mixing it with the older names is an error there
        settings += [(matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]
    else:
        settings += [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


# ---- Elementwise --------------------------------------------------------------------------------------


def _logcosh(x: Tensor) -> Tensor:
    size = x.abs()
    return size + torch.log1p(torch.exp(-2 * size)) - float(np.log(2))


_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leakyrelu": F.leaky_relu,
    "trelu": lambda x, theta: F.threshold(x, theta, 0.0),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_erf": F.gelu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": lambda x, slope: torch.clamp(slope * x + 0.5, 0, 1),
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "hardtanh": F.hardtanh,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "swish": F.silu,
    "hardswish": lambda x: x * F.hardsigmoid(x),  # F.hardswish overflows from 6e37 on
    "mish": F.mish,
    "lisht": lambda x: x * torch.tanh(x),
    "logcosh": _logcosh,
    "abs": torch.abs,
    "abs2": torch.square,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "clamp": torch.clamp,
    "affine": lambda x, scale, shift: scale * x + shift,
}


def _activation(layer: L.Activation, load: Load) -> Step:
    function, parameters = _ACTIVATIONS[layer.name], layer.parameters
    return lambda x: function(x, *parameters)


def _dropout(layer: L.Dropout, load: Load) -> Step:
    return lambda x: x


def _softmax(layer: L.Softmax, load: Load) -> Step:
    function = F.log_softmax if layer.log else F.softmax
    return lambda x: function(x, dim=layer.axis)


# ---- Convolution and dense layers ---------------------------------------------------------------------

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX_POOLS: tuple[Callable[..., Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_MEAN_POOLS: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _edges(padding: L.Pads) -> list[int]:
    """In `F.pad`'s order: the last axis first."""
    return [edge for pads in reversed(padding) for edge in pads]


def _outside(padding: L.Pads) -> tuple[list[int], tuple[int, ...]]:
    """(what F.pad must add beforehand, what the operation itself can pad: the same at both ends)."""
    if all(low == high for low, high in padding):
        return [], tuple(low for low, _ in padding)
    return _edges(padding), (0,) * len(padding)


def _conv(layer: L.Conv, load: Load) -> Step:
    weight, bias = load(layer.weight), _maybe(layer.bias, load)
    convolve = _CONVOLUTIONS[layer.weight.ndim - 3]
    before, padding = _outside(layer.padding)

    def step(x: Tensor) -> Tensor:
        padded = F.pad(x, before) if before else x
        return convolve(padded, weight, bias, layer.stride, padding, layer.dilation, layer.groups)

    return step


def _conv_transpose(layer: L.ConvTranspose, load: Load) -> Step:
    weight, bias = load(layer.weight), _maybe(layer.bias, load)
    convolve = _TRANSPOSED[layer.weight.ndim - 3]
    # The uncropped result, then cropped: negative padding takes away, `output_padding` gives zeros.
    edges = zip(layer.padding, layer.output_padding, strict=True)
    crop = _edges(tuple((-low, extra - high) for (low, high), extra in edges))

    def step(x: Tensor) -> Tensor:
        full = convolve(x, weight, None, layer.stride, 0, 0, layer.groups, layer.dilation)
        cropped = F.pad(full, crop) if any(crop) else full
        return cropped if bias is None else cropped + _per_channel(bias, x)

    return step


def _dense(layer: L.Dense, load: Load) -> Step:
    weight, bias = load(layer.weight), _maybe(layer.bias, load)
    return lambda x: F.linear(x, weight, bias)


def _bilinear(layer: L.Bilinear, load: Load) -> Step:
    weight, bias = load(layer.weight), _maybe(layer.bias, load)

    def step(x: Tensor) -> Tensor:
        # Not F.bilinear, which has no deterministic form on every device.
        result = torch.einsum("...i,kij,...j->...k", x, weight, x)
        return result if bias is None else result + bias

    return step


def _embedding(layer: L.Embedding, load: Load) -> Step:
    weight = load(layer.weight)

    def step(x: Tensor) -> Tensor:
        rows = torch.clamp(torch.round(x) - layer.first, 0, len(weight) - 1).long()
        found = weight[rows]
        if layer.reduction == "max":
            return found.amax(-2)
        if layer.reduction == "sum":
            return found.sum(-2)
        return found.mean(-2) if layer.reduction == "mean" else found

    return step


def _scale(layer: L.Scale, load: Load) -> Step:
    scale, bias = load(layer.scale), _maybe(layer.bias, load)
    return lambda x: x * scale if bias is None else x * scale + bias


def _maybe(array: Array | None, load: Load) -> Tensor | None:
    return None if array is None else load(array)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


# ---- Normalisation ------------------------------------------------------------------------------------


def _batch_norm(layer: L.BatchNorm, load: Load) -> Step:
    scale, shift = _maybe(layer.scale, load), _maybe(layer.shift, load)
    if layer.mean is not None and layer.variance is not None:
        mean, variance = load(layer.mean), load(layer.variance)
        return lambda x: F.batch_norm(x, mean, variance, scale, shift, eps=layer.epsilon)

    def step(x: Tensor) -> Tensor:
        # Not F.batch_norm(training=True), which refuses one value a channel.
        own_variance, own_mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
        return F.batch_norm(x, own_mean, own_variance, scale, shift, eps=layer.epsilon)

    return step


def _group_norm(layer: L.GroupNorm, load: Load) -> Step:
    scale, shift = _maybe(layer.scale, load), _maybe(layer.shift, load)
    if layer.mean is not None and layer.variance is not None:
        mean, variance = load(layer.mean), load(layer.variance)

        def tracked(x: Tensor) -> Tensor:
            each = x.shape[1] // layer.groups
            spread = (mean.repeat_interleave(each), variance.repeat_interleave(each))
            return F.batch_norm(x, *spread, scale, shift, eps=layer.epsilon)

        return tracked
    # Not F.group_norm, which refuses one value a group.
    return lambda x: torch.group_norm(x, layer.groups, scale, shift, layer.epsilon)


def _instance_norm(layer: L.InstanceNorm, load: Load) -> Step:
    scale, shift = _maybe(layer.scale, load), _maybe(layer.shift, load)
    if layer.mean is not None and layer.variance is not None:
        mean, variance = load(layer.mean), load(layer.variance)
        return lambda x: F.batch_norm(x, mean, variance, scale, shift, eps=layer.epsilon)
    return lambda x: torch.group_norm(x, x.shape[1], scale, shift, layer.epsilon)


def _normalise(layer: L.Normalise, load: Load) -> Step:
    def step(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, layer.axis, correction=0, keepdim=True)
        if layer.formula == "std + eps":
            return (x - mean) / (variance.sqrt() + layer.epsilon)
        epsilon = layer.epsilon ** (2 if layer.formula == "sqrt(var + eps^2)" else 1)
        return (x - mean) / (variance + epsilon).sqrt()

    return step


def _layer_norm(layer: L.LayerNorm, load: Load) -> Step:
    scale, shift = _maybe(layer.scale, load), _maybe(layer.shift, load)
    if layer.formula != "std + eps":
        epsilon = layer.epsilon ** (2 if layer.formula == "sqrt(var + eps^2)" else 1)
        return lambda x: F.layer_norm(x, layer.shape, scale, shift, epsilon)
    last = tuple(range(-len(layer.shape), 0))

    def step(x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, last, correction=0, keepdim=True)
        result = (x - mean) / (deviation + layer.epsilon)
        result = result if scale is None else result * scale
        return result if shift is None else result + shift

    return step


# ---- Pools --------------------------------------------------------------------------------------------


def _max_pool(layer: L.MaxPool, load: Load) -> Step:
    pool = _MAX_POOLS[len(layer.kernel) - 1]
    before, padding = _outside(layer.padding)
    if any(2 * p > k for p, k in zip(padding, layer.kernel, strict=True)):  # more than PyTorch pads itself
        before, padding = _edges(layer.padding), (0,) * len(padding)

    def step(x: Tensor) -> Tensor:
        padded = F.pad(x, before, value=-torch.inf) if before else x
        return pool(padded, layer.kernel, layer.stride, padding)

    return step


def _mean_pool(layer: L.MeanPool, load: Load) -> Step:
    pool = _MEAN_POOLS[len(layer.kernel) - 1]
    before = _edges(layer.padding) if any(map(any, layer.padding)) else []

    def step(x: Tensor) -> Tensor:
        mean = pool(F.pad(x, before) if before else x, layer.kernel, layer.stride)
        if layer.count_padding or not before:
            return mean
        inside = pool(F.pad(torch.ones_like(x[:1, :1]), before), layer.kernel, layer.stride)
        return torch.where(inside > 0, mean / inside, 0.0)

    return step


def _global_max_pool(layer: L.GlobalMaxPool, load: Load) -> Step:
    return lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _global_mean_pool(layer: L.GlobalMeanPool, load: Load) -> Step:
    return lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _adaptive_pool(layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool, load: Load) -> Step:
    """Axis by axis, as in the reference: PyTorch has neither Flux's rule nor every rank on every device."""
    pool = torch.amax if isinstance(layer, L.AdaptiveMaxPool) else torch.mean

    def step(x: Tensor) -> Tensor:
        for axis, count in enumerate(layer.output, start=2):
            windows = pool_windows(x.shape[axis], count, layer.rule)
            x = torch.stack([pool(x.narrow(axis, a, b - a), dim=axis) for a, b in windows], axis)
        return x

    return step


# ---- Shape --------------------------------------------------------------------------------------------

_PAD_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "replicate", "wrap": "circular"}


def _reshaped(layer: L.Flatten | L.Reshape, load: Load) -> Step:
    return lambda x: x.reshape(layer_shape(layer, tuple(x.shape)))


def _pad(layer: L.Pad, load: Load) -> Step:
    edges, mode = _edges(layer.padding), _PAD_MODES[layer.mode]
    return lambda x: F.pad(x, edges, mode)


def _upsample(layer: L.Upsample, load: Load) -> Step:
    """Not F.interpolate, whose float32 coordinates are off by more than 1e-5 from 200 pixels on."""

    def step(x: Tensor) -> Tensor:
        for axis, size in enumerate(layer_shape(layer, tuple(x.shape))[2:], start=2):
            n = x.shape[axis]
            if layer.mode == "nearest":
                x = x.index_select(axis, torch.arange(size, device=x.device) * n // size)
                continue
            positions = np.array(sample_positions(n, size, layer.align_corners))
            low = positions.astype(np.int64)
            share = torch.tensor(np.float32(positions - low), device=x.device)
            first = x.index_select(axis, torch.tensor(low, device=x.device))
            second = x.index_select(axis, torch.tensor(np.minimum(low + 1, n - 1), device=x.device))
            x = torch.lerp(first, second, share.reshape(-1, *[1] * (x.ndim - axis - 1)))
        return x

    return step


def _pixel_shuffle(layer: L.PixelShuffle, load: Load) -> Step:
    def step(x: Tensor) -> Tensor:
        rank = x.ndim - 2
        split = x.reshape(len(x), -1, *[layer.factor] * rank, *x.shape[2:])
        pairs = [axis for i in range(rank) for axis in (2 + rank + i, 2 + i)]  # each size, then its factor
        return split.permute(0, 1, *pairs).reshape(layer_shape(layer, tuple(x.shape)))

    return step


_STEPS: dict[type[Layer], Callable[[Any, Load], Step]] = {
    L.Activation: _activation,
    L.Softmax: _softmax,
    L.Dropout: _dropout,
    L.Conv: _conv,
    L.ConvTranspose: _conv_transpose,
    L.Dense: _dense,
    L.Bilinear: _bilinear,
    L.Embedding: _embedding,
    L.Scale: _scale,
    L.BatchNorm: _batch_norm,
    L.LayerNorm: _layer_norm,
    L.GroupNorm: _group_norm,
    L.InstanceNorm: _instance_norm,
    L.Normalise: _normalise,
    L.MaxPool: _max_pool,
    L.MeanPool: _mean_pool,
    L.GlobalMaxPool: _global_max_pool,
    L.GlobalMeanPool: _global_mean_pool,
    L.AdaptiveMaxPool: _adaptive_pool,
    L.AdaptiveMeanPool: _adaptive_pool,
    L.Flatten: _reshaped,
    L.Reshape: _reshaped,
    L.Pad: _pad,
    L.Upsample: _upsample,
    L.PixelShuffle: _pixel_shuffle,
}


def _step(layer: Layer, path: str, load: Load) -> Step:
    """The layer as a function of tensors, its activation included."""
    where = f"{path} ({type(layer).__name__})"
    if type(layer) not in _STEPS:
        raise UnsupportedLayer(where, "the engine torch", "it has no function")
    if _spatial_rank(layer) not in (1, 2, 3, None):
        raise UnsupportedLayer(where, "the engine torch", "PyTorch has 1 to 3 spatial axes")
    step = _STEPS[type(layer)](layer, load)
    activation = getattr(layer, "activation", None)
    if not activation:
        return step
    function = _activation(activation, load)
    return lambda x: function(step(x))


def _spatial_rank(layer: Layer) -> int | None:
    """The number of spatial axes that the layer is made for, None where it takes any."""
    if isinstance(layer, L.Conv | L.ConvTranspose):
        return layer.weight.ndim - 2
    if isinstance(layer, L.MaxPool | L.MeanPool):
        return len(layer.kernel)
    return len(layer.padding) if isinstance(layer, L.Pad) else None
