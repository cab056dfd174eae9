"""The reference engine: every layer as its formula reads, in NumPy alone.

Slow and obvious on purpose, since it is the judge of the others. Each function takes a layer and its
input and computes in float64; the result is rounded to float32 between layers, so that a trace holds
exactly what the next layer saw. Axis order and orientation are those of `model/layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, prod
from typing import Any

import numpy as np

from diptych.engines.running import CONTAINERS, admit, run
from diptych.errors import UnsupportedLayer
from diptych.model import layers as L
from diptych.model.layers import Array, Layer
from diptych.model.model import Model
from diptych.model.shapes import layer_shape, pool_windows, sample_positions
from diptych.model.trace import Trace

__all__ = ["ACTIVATION_FUNCTIONS", "DEVICES", "LAYER_FUNCTIONS", "NAME", "NumpyModel", "compile"]

NAME = "numpy"
DEVICES = ("cpu",)


def compile(model: Model, device: str = "auto") -> NumpyModel:  # noqa: A001 - the field's verb
    """Makes `model` ready to run. Raises `UnsupportedLayer` for a layer without a function here."""
    for path, layer in model.walk():
        if type(layer) not in LAYER_FUNCTIONS and not isinstance(layer, CONTAINERS):
            where = f"{path} ({type(layer).__name__})"
            raise UnsupportedLayer(where, "the engine numpy", "it has no function")
    return NumpyModel(model)


class NumpyModel:
    """A model on the reference engine."""

    engine = NAME
    device = "cpu"

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, batch: Any) -> Array:
        """Float32 batch -> a new float32 array. Raises `ShapeError` where the batch does not fit."""
        return self._run(admit(self._model, batch)).copy()

    def trace(self, batch: Any) -> Trace:
        """The output of every layer."""
        outputs: dict[str, Array] = {}

        def record(path: str, value: Array) -> None:
            outputs[path] = np.array(value, order="C")

        admitted = admit(self._model, batch)
        self._run(admitted, record)
        return Trace(outputs, admitted)

    def _run(self, batch: Array, record: Callable[[str, Array], None] | None = None) -> Array:
        # Infinities and NaN pass through silently, as they do in every other engine.
        with np.errstate(all="ignore"):
            return run(self._model.layers, batch, _leaf, np.concatenate, np.maximum, record)


def _leaf(layer: Layer, x: Array) -> Array:
    result = LAYER_FUNCTIONS[type(layer)](layer, x.astype(np.float64))
    activation = getattr(layer, "activation", None)
    if activation:
        result = _activation(activation, result)
    return np.ascontiguousarray(result, dtype=np.float32)


# ---- Elementwise --------------------------------------------------------------------------------------


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _sigmoid(x: Array) -> Array:
    return np.exp(-_softplus(-x))


def _elu(x: Array, a: float) -> Array:
    return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0)))


def _gelu_tanh(x: Array) -> Array:
    result: Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def _gelu_erf(x: Array) -> Array:
    result: Array = x / 2 * (1 + np.vectorize(erf, otypes=[np.float64])(x / np.sqrt(2)))
    return result


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

# The formulas of `layers.ACTIVATIONS`, written so that no large |x| overflows on the way.
ACTIVATION_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leakyrelu": lambda x, a: np.where(x > 0, x, a * x),
    "trelu": lambda x, theta: np.where(x > theta, x, 0),
    "elu": _elu,
    "celu": lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
    "selu": lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "gelu_tanh": _gelu_tanh,
    "gelu_erf": _gelu_erf,
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x, slope: np.clip(slope * x + 0.5, 0, 1),
    "logsigmoid": lambda x: -_softplus(-x),
    "tanh": np.tanh,
    "hardtanh": np.clip,
    "tanhshrink": lambda x: x - np.tanh(x),
    "softshrink": lambda x, limit: x - np.clip(x, -limit, limit),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "lisht": lambda x: x * np.tanh(x),
    "logcosh": lambda x: np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(2),
    "abs": np.abs,
    "abs2": np.square,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "clamp": np.clip,
    "affine": lambda x, scale, shift: scale * x + shift,
}


def _activation(layer: L.Activation, x: Array) -> Array:
    return ACTIVATION_FUNCTIONS[layer.name](x, *layer.parameters)


def _dropout(layer: L.Dropout, x: Array) -> Array:
    return x


def _softmax(layer: L.Softmax, x: Array) -> Array:
    shifted = x - x.max(axis=layer.axis, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=layer.axis, keepdims=True))
    result: Array = logarithms if layer.log else np.exp(logarithms)
    return result


# ---- Convolution and dense layers ---------------------------------------------------------------------


def _conv(layer: L.Conv, x: Array) -> Array:
    """The sum over kernel taps of (weight at the tap) @ (input shifted to the tap)."""
    outputs, per_group, *kernel = layer.weight.shape
    sizes = layer_shape(layer, x.shape)[2:]
    x = np.pad(x, [(0, 0), (0, 0), *layer.padding])
    x = x.reshape(len(x), layer.groups, per_group, *x.shape[2:])
    weight = layer.weight.astype(np.float64).reshape(layer.groups, -1, per_group, *kernel)
    total = np.zeros((len(x), layer.groups, outputs // layer.groups, prod(sizes)))
    for tap in np.ndindex(*kernel):
        seen = x[_touched(tap, sizes, layer.stride, layer.dilation)]
        total += weight[(..., *tap)] @ seen.reshape(*seen.shape[:3], -1)
    return _with_bias(total.reshape(len(x), outputs, *sizes), layer.bias)


def _conv_transpose(layer: L.ConvTranspose, x: Array) -> Array:
    """Every input value spreads the kernel, times itself, over the output; then the edges are cropped."""
    inputs, per_group, *kernel = layer.weight.shape
    sizes, outputs = x.shape[2:], per_group * layer.groups
    result_sizes = layer_shape(layer, x.shape)[2:]
    # Room for every tap, and for `output_padding` beyond the last one.
    room = [m + low + high for m, (low, high) in zip(result_sizes, layer.padding, strict=True)]
    weight = layer.weight.astype(np.float64).reshape(layer.groups, inputs // layer.groups, per_group, *kernel)
    x = x.reshape(len(x), layer.groups, inputs // layer.groups, -1)
    full = np.zeros((len(x), layer.groups, per_group, *room))
    for tap in np.ndindex(*kernel):
        spread = weight[(..., *tap)].swapaxes(1, 2) @ x
        full[_touched(tap, sizes, layer.stride, layer.dilation)] += spread.reshape(*spread.shape[:3], *sizes)
    low = [pads[0] for pads in layer.padding]
    cropped = full[_touched(low, result_sizes, [1] * len(low), [1] * len(low))]
    return _with_bias(cropped.reshape(len(x), outputs, *result_sizes), layer.bias)


def _touched(tap: Sequence[int], sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """An index of the last axes: where one kernel tap meets the long side, for `sizes` on the short one."""
    axes = zip(tap, sizes, stride, dilation, strict=True)
    return (..., *[slice(t * d, t * d + s * (m - 1) + 1, s) for t, m, s, d in axes])


def _dense(layer: L.Dense, x: Array) -> Array:
    result: Array = x @ layer.weight.astype(np.float64).T
    return result if layer.bias is None else result + layer.bias


def _bilinear(layer: L.Bilinear, x: Array) -> Array:
    result: Array = np.einsum("...i,kij,...j->...k", x, layer.weight.astype(np.float64), x)
    return result if layer.bias is None else result + layer.bias


_REDUCTIONS: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max}


def _embedding(layer: L.Embedding, x: Array) -> Array:
    rows = np.clip(np.rint(x) - layer.first, 0, len(layer.weight) - 1).astype(int)
    found: Array = layer.weight.astype(np.float64)[rows]
    return found if layer.reduction == "none" else _REDUCTIONS[layer.reduction](found, axis=-2)


def _scale(layer: L.Scale, x: Array) -> Array:
    result: Array = x * layer.scale
    return result if layer.bias is None else result + layer.bias


def _with_bias(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + _per_channel(bias, x)


def _per_channel(values: Array, x: Array) -> Array:
    """(C,) shaped to meet axis 1 of `x`."""
    return values.astype(np.float64).reshape(1, -1, *[1] * (x.ndim - 2))


# ---- Normalisation ------------------------------------------------------------------------------------


def _affine(x: Array, scale: Array | None, shift: Array | None) -> Array:
    scaled = x if scale is None else x * _per_channel(scale, x)
    return _with_bias(scaled, shift)


def _batch_norm(layer: L.BatchNorm, x: Array) -> Array:
    if layer.mean is not None and layer.variance is not None:
        mean, variance = _per_channel(layer.mean, x), _per_channel(layer.variance, x)
    else:
        others = (0, *range(2, x.ndim))
        mean, variance = x.mean(axis=others, keepdims=True), x.var(axis=others, keepdims=True)
    return _affine((x - mean) / np.sqrt(variance + layer.epsilon), layer.scale, layer.shift)


def _group_norm(layer: L.GroupNorm, x: Array) -> Array:
    grouped = x.reshape(len(x), layer.groups, -1)
    if layer.mean is not None and layer.variance is not None:
        mean, variance = _per_channel(layer.mean, grouped), _per_channel(layer.variance, grouped)
    else:
        mean, variance = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    normalised = (grouped - mean) / np.sqrt(variance + layer.epsilon)
    return _affine(normalised.reshape(x.shape), layer.scale, layer.shift)


def _instance_norm(layer: L.InstanceNorm, x: Array) -> Array:
    """Group normalisation with a group for each channel."""
    same = (layer.scale, layer.shift, layer.mean, layer.variance, layer.epsilon)
    return _group_norm(L.GroupNorm(x.shape[1], *same), x)


def _normalised(layer: L.LayerNorm | L.Normalise, x: Array, axes: tuple[int, ...]) -> Array:
    variance = x.var(axis=axes, keepdims=True)
    divisor = {
        "sqrt(var + eps)": np.sqrt(variance + layer.epsilon),
        "sqrt(var + eps^2)": np.sqrt(variance + layer.epsilon**2),
        "std + eps": np.sqrt(variance) + layer.epsilon,
    }[layer.formula]
    result: Array = (x - x.mean(axis=axes, keepdims=True)) / divisor
    return result


def _normalise(layer: L.Normalise, x: Array) -> Array:
    return _normalised(layer, x, (layer.axis,))


def _layer_norm(layer: L.LayerNorm, x: Array) -> Array:
    result = _normalised(layer, x, tuple(range(-len(layer.shape), 0)))
    result = result if layer.scale is None else result * layer.scale
    return result if layer.shift is None else result + layer.shift


# ---- Pools --------------------------------------------------------------------------------------------


def _windows(layer: L.MaxPool | L.MeanPool, x: Array, edge: float) -> Array:
    """(N, C, *positions, *kernel): what the window sees at every position, padding filled with `edge`."""
    x = np.pad(x, [(0, 0), (0, 0), *layer.padding], constant_values=edge)
    axes = tuple(range(2, x.ndim))
    windows: Array = np.lib.stride_tricks.sliding_window_view(x, layer.kernel, axes)
    every: Any = (..., *[slice(None, None, s) for s in layer.stride], *[slice(None)] * len(axes))
    strided: Array = windows[every]
    return strided


def _max_pool(layer: L.MaxPool, x: Array) -> Array:
    result: Array = _windows(layer, x, -np.inf).max(axis=_spatial_axes(x))
    return result


def _mean_pool(layer: L.MeanPool, x: Array) -> Array:
    total: Array = _windows(layer, x, 0).sum(axis=_spatial_axes(x))
    if layer.count_padding:
        return total / prod(layer.kernel)
    counts = _windows(layer, np.ones_like(x), 0).sum(axis=_spatial_axes(x))
    result: Array = total / np.maximum(counts, 1)
    return result


def _spatial_axes(x: Array) -> tuple[int, ...]:
    """The spatial axes counted from the end, where those of the window stand too."""
    return tuple(range(2 - x.ndim, 0))


def _global_max_pool(layer: L.GlobalMaxPool, x: Array) -> Array:
    result: Array = x.max(axis=_spatial_axes(x), keepdims=True)
    return result


def _global_mean_pool(layer: L.GlobalMeanPool, x: Array) -> Array:
    result: Array = x.mean(axis=_spatial_axes(x), keepdims=True)
    return result


def _adaptive_pool(layer: L.AdaptiveMaxPool | L.AdaptiveMeanPool, x: Array) -> Array:
    """One axis after the other: a window is a box, so its maximum and its mean are those of its rows."""
    pool = np.max if isinstance(layer, L.AdaptiveMaxPool) else np.mean
    for axis, count in enumerate(layer.output, start=2):
        windows = pool_windows(x.shape[axis], count, layer.rule)
        x = np.stack([pool(x.take(range(*w), axis), axis=axis) for w in windows], axis)
    return x


# ---- Shape --------------------------------------------------------------------------------------------


def _reshaped(layer: L.Flatten | L.Reshape, x: Array) -> Array:
    return x.reshape(layer_shape(layer, x.shape))


def _pad(layer: L.Pad, x: Array) -> Array:
    sizes = zip(x.shape[2:], layer.padding, strict=True)
    kept = x[:, :, *(slice(max(0, -low), n + min(0, high)) for n, (low, high) in sizes)]
    added = [(max(0, low), max(0, high)) for low, high in layer.padding]
    result: Array = np.pad(kept, [(0, 0), (0, 0), *added], mode=L.NUMPY_PAD[layer.mode])
    return result


def _upsample(layer: L.Upsample, x: Array) -> Array:
    """One axis after the other: each new value lies between two old ones."""
    for axis, size in enumerate(layer_shape(layer, x.shape)[2:], start=2):
        n = x.shape[axis]
        if layer.mode == "nearest":
            x = x.take([i * n // size for i in range(size)], axis)
            continue
        positions = np.array(sample_positions(n, size, layer.align_corners))
        low = positions.astype(int)
        share = (positions - low).reshape(-1, *[1] * (x.ndim - axis - 1))
        x = (1 - share) * x.take(low, axis) + share * x.take(np.minimum(low + 1, n - 1), axis)
    return x


def _pixel_shuffle(layer: L.PixelShuffle, x: Array) -> Array:
    rank, factor = x.ndim - 2, layer.factor
    split = x.reshape(len(x), -1, *[factor] * rank, *x.shape[2:])
    pairs = [axis for i in range(rank) for axis in (2 + rank + i, 2 + i)]  # each size, then its factor
    return split.transpose(0, 1, *pairs).reshape(layer_shape(layer, x.shape))


LAYER_FUNCTIONS: dict[type[Layer], Callable[[Any, Array], Array]] = {
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
