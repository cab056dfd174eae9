"""Functions and methods of tensors as layers: the table `CALLS`, by the names in `torch`, `F` and ATen.

A rule takes a `TorchSite` and the arguments after the input, and returns the layers. Its parameters have the names that
they have in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diptych.formats.graph import Operation, power_layers
from diptych.formats.resampling import (
    along_axis,
    antialiased,
    coordinates,
    cubic_taps,
    nearest_index,
    weights,
)
from diptych.formats.torch.site import TorchSite, numbers
from diptych.formats.views import END
from diptych.formats.windows import padding_layers, pool_layers, unshuffle
from diptych.model import layers as L
from diptych.model.layers import Activation

__all__ = ["CALLS", "Rule", "same_padding", "several"]

Rule: TypeAlias = Callable[..., list[Operation]]


# ---- Elementwise --------------------------------------------------------------------------------------


def _plain(name: str) -> Rule:
    return lambda s, *rest, **others: [Activation(name)]


def _leaky_relu(s: TorchSite, negative_slope: float = 0.01, inplace: bool = False) -> list[Operation]:
    return [Activation("leakyrelu", (negative_slope,))]


def _elu(s: TorchSite, alpha: float = 1.0, *rest: Any, inplace: bool = False) -> list[Operation]:
    return [Activation("elu", (alpha,))]


def _celu(s: TorchSite, alpha: float = 1.0, inplace: bool = False) -> list[Operation]:
    return [Activation("celu", (alpha,))]


def _gelu(s: TorchSite, approximate: str = "none") -> list[Operation]:
    return [Activation("gelu_tanh" if approximate == "tanh" else "gelu_erf")]


def _softplus(s: TorchSite, beta: float = 1, threshold: float = 20) -> list[Operation]:
    if beta != 1 or threshold < 15:
        s.refuse(
            f"its beta is {beta} and its threshold {threshold}; a layer has beta 1 and a threshold of 15 or more"
        )
    return [Activation("softplus")]


def _hardtanh(
    s: TorchSite, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> list[Operation]:
    return [Activation("hardtanh", (min_val, max_val))]


def _clamp(s: TorchSite, min: Any = None, max: Any = None) -> list[Operation]:  # noqa: A002 - PyTorch's names
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        s.refuse("the limits of a clamp must be numbers")
    return [Activation("clamp", (-math.inf if min is None else min, math.inf if max is None else max))]


def _threshold(s: TorchSite, threshold: float, value: float, inplace: bool = False) -> list[Operation]:
    if value != 0:
        s.refuse(f"no layer gives {value} below a threshold, only 0")
    return [Activation("trelu", (threshold,))]


def _softshrink(s: TorchSite, lambd: float = 0.5) -> list[Operation]:
    return [Activation("softshrink", (lambd,))]


def _prelu(s: TorchSite, weight: Tensor) -> list[Operation]:
    if weight.numel() == 1:
        return [Activation("leakyrelu", (float(weight),))]
    rank = len(s.known_shape())
    return [L.PReLU(s.weight(weight).reshape(-1, *[1] * (rank - 2)))]


def _dropout(s: TorchSite, p: float = 0.5, training: bool = False, inplace: bool = False) -> list[Operation]:
    if training:
        s.refuse("its dropout is active in evaluation mode, too")
    return [L.Dropout(p)]


def _stochastic_depth(
    s: TorchSite, p: float = 0.5, mode: str = "row", training: bool = False, **others: Any
) -> list[Operation]:
    """torchvision's, which drops whole branches in training and nothing in evaluation."""
    if training:
        s.refuse("its stochastic depth is active in evaluation mode, too")
    return []


# ---- Weighted layers ----------------------------------------------------------------------------------


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> L.Pads:
    """The padding of PyTorch's padding="same", in which an odd pixel goes to the high end.

    Args:
        kernel, dilation: One number for each spatial axis.

    Returns:
        (low, high) for each axis.
    """
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _conv(
    s: TorchSite,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> list[Operation]:
    rank = weight.ndim - 2
    around = numbers(dilation, rank)
    if isinstance(padding, str):
        padded = same_padding(weight.shape[2:], around) if padding == "same" else s.pads(0, rank)
    else:
        padded = s.pads(padding, rank)
    array = s.weight(weight)
    return [L.Conv(array, s.array(bias), numbers(stride, rank), padded, around, groups)]


def _conv_transpose(
    s: TorchSite,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> list[Operation]:
    rank = weight.ndim - 2
    steps, extra = numbers(stride, rank), numbers(output_padding, rank)
    arrays = s.weight(weight), s.array(bias)
    return [L.ConvTranspose(*arrays, steps, s.pads(padding, rank), extra, numbers(dilation, rank), groups)]


def _linear(s: TorchSite, weight: Tensor, bias: Tensor | None = None) -> list[Operation]:
    return [L.Dense(s.weight(weight), s.array(bias))]


def _batch_norm(
    s: TorchSite,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Operation]:
    own = training or running_mean is None
    statistics = (None, None) if own else (s.array(running_mean), s.array(running_var))
    return [L.BatchNorm(s.array(weight), s.array(bias), *statistics, eps, momentum)]


def _instance_norm(
    s: TorchSite,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Operation]:
    statistics = (None, None) if use_input_stats else (s.array(running_mean), s.array(running_var))
    return [L.InstanceNorm(s.array(weight), s.array(bias), *statistics, eps)]


def _aten_instance_norm(
    s: TorchSite, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> list[Operation]:
    return _instance_norm(s, mean, var, weight, bias, *rest[:3])


def _aten_batch_norm(
    s: TorchSite, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> list[Operation]:
    return _batch_norm(s, mean, var, weight, bias, *rest[:3])


def _layer_norm(
    s: TorchSite, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> list[Operation]:
    return [L.LayerNorm(numbers(normalized_shape, 1), s.array(weight), s.array(bias), eps)]


def _rms_norm(
    s: TorchSite, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> list[Operation]:
    own = torch.finfo(torch.float32).eps if eps is None else eps
    return [L.RMSNorm(numbers(normalized_shape, 1), s.array(weight), own)]


def _group_norm(
    s: TorchSite, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> list[Operation]:
    return [L.GroupNorm(num_groups, s.array(weight), s.array(bias), epsilon=eps)]


# ---- Pools --------------------------------------------------------------------------------------------


def _window(s: TorchSite, rank: int, kernel: Any, stride: Any, padding: Any) -> Window:
    window = numbers(kernel, rank)
    steps = window if stride is None or stride == [] else numbers(stride, rank)
    return window, steps, s.pads(padding, rank)


Window: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], L.Pads]


def _pool(
    s: TorchSite, kind: str, window: Window, dilation: tuple[int, ...], ceil: bool, counted: bool = True
) -> list[Operation]:
    made = partial(pool_layers, kind, dilation=dilation, ceil=ceil, counted=counted)
    kernel, stride, padding = window
    layers = None
    if kind == "max" or s.shape is None:
        layers = made(None, kernel, stride, padding)  # exact for every size, if there is such a pool
    if layers is None:
        layers = made(s.known_shape()[2:], kernel, stride, padding)
    return list(layers or ())


def _max_pool(rank: int) -> Rule:
    def rule(
        s: TorchSite,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> list[Operation]:
        if return_indices:
            s.refuse("no layer returns the indices of a pool")
        window = _window(s, rank, kernel_size, stride, padding)
        return _pool(s, "max", window, numbers(dilation, rank), ceil_mode)

    return rule


def _mean_pool(rank: int) -> Rule:
    def rule(
        s: TorchSite,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> list[Operation]:
        window, steps, pads = _window(s, rank, kernel_size, stride, padding)
        count = math.prod(window)
        if divisor_override is not None and divisor_override != count:
            if ceil_mode:
                s.refuse("no layer is an average pool with a divisor_override and ceil_mode")
            scale = Activation("affine", (count / divisor_override, 0.0))
            return [L.MeanPool(window, steps, pads), scale]
        return _pool(s, "mean", (window, steps, pads), (1,) * rank, ceil_mode, count_include_pad)

    return rule


def _adaptive_pool(rank: int, largest: bool) -> Rule:
    def rule(s: TorchSite, output_size: Any, return_indices: bool = False) -> list[Operation]:
        given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * rank
        given = given * rank if len(given) == 1 else given
        if return_indices:
            s.refuse("no layer returns the indices of a pool")
        if None in given:
            given = tuple(n if m is None else m for n, m in zip(s.known_shape()[2:], given, strict=True))
        if set(given) == {1}:
            return [L.GlobalMaxPool() if largest else L.GlobalMeanPool()]
        return [L.AdaptiveMaxPool(given) if largest else L.AdaptiveMeanPool(given)]

    return rule


# ---- Shape --------------------------------------------------------------------------------------------


_MODES: dict[str, L.PadMode] = {
    "constant": "zero",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "wrap",
}


def _not_negative(pairs: L.Pads) -> L.Pads:
    return tuple((max(low, 0), max(high, 0)) for low, high in pairs)


def _pad(s: TorchSite, pad: Any, mode: str = "constant", value: float | None = None) -> list[Operation]:
    edges = [int(n) for n in pad]
    pairs = tuple((edges[i], edges[i + 1]) for i in range(0, len(edges), 2))[::-1]
    rank = len(s.shape) - 2 if s.shape is not None else max(len(pairs), 2)
    kind, number = _MODES[mode], float(value or 0)
    kind = "constant" if number and kind == "zero" else kind
    pairs = ((0, 0),) * (rank + 2 - len(pairs)) + pairs
    if any(pairs[0]):
        s.refuse("no layer pads the batch")
    if any(n < 0 for pair in pairs for n in pair):
        crops: list[Operation] = [
            L.Slice(i, max(0, -low), -max(0, -high) or END)
            for i, (low, high) in enumerate(pairs)
            if low < 0 or high < 0
        ]
        return [*crops, *padding_layers(_not_negative(pairs), kind, number, s.known_shape()[1])]
    return list(padding_layers(pairs, kind, number, 1 if s.shape is None else s.shape[1]))


def _interpolate(
    s: TorchSite,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> list[Operation]:
    if mode in ("bicubic", "nearest-exact") or antialias:
        return _resampled(s, size, scale_factor, mode, bool(align_corners), antialias)
    if mode not in ("nearest", "linear", "bilinear", "trilinear"):
        s.refuse(f"no layer resizes in the mode {mode!r}")
    kind: Any = "nearest" if mode == "nearest" else "linear"
    rank = len(s.shape) - 2 if s.shape is not None else {"linear": 1, "trilinear": 3}.get(mode, 2)
    corners = bool(align_corners)
    if size is None:
        factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,) * rank
        return [L.Upsample(tuple(float(f) for f in factors), (), kind, corners)]
    sizes = numbers(size, rank)
    if s.shape is not None and all(m % n == 0 for n, m in zip(s.shape[2:], sizes, strict=True)):
        # As a factor, because the size may be that of another branch, which depends on the size of the input.
        return [L.Upsample(tuple(m / n for n, m in zip(s.shape[2:], sizes, strict=True)), (), kind, corners)]
    return [L.Upsample((), sizes, kind, corners)]


def _resampled(
    s: TorchSite, size: Any, scale_factor: Any, mode: str, corners: bool, antialias: bool
) -> list[Operation]:
    """A resize along one axis after the other, by matrices for the size that the input has."""
    shape = s.known_shape()
    rank = len(shape) - 2
    factors = None if scale_factor is None else list(_each(scale_factor, rank))
    sizes = (
        numbers(size, rank)
        if factors is None
        else [int(n * f) for n, f in zip(shape[2:], factors, strict=True)]
    )
    layers: list[Operation] = []
    for axis, (n, m) in enumerate(zip(shape[2:], sizes, strict=True), 2):
        scale = m / n if factors is None else factors[axis - 2]
        if antialias:
            layers += along_axis(
                len(shape), axis, antialiased(n, m, scale, -0.5 if mode == "bicubic" else None)
            )
            continue
        places = coordinates("align_corners" if corners else "half_pixel", n, m, scale) or []
        if mode == "nearest-exact":
            chosen = [min(max(nearest_index(p, "round_prefer_ceil"), 0), n - 1) for p in places]
            layers.append(L.Gather(np.asarray(chosen, np.float32), axis))
        else:
            layers += along_axis(len(shape), axis, weights(places, n, cubic_taps(-0.75)))
    return layers


def _each(value: Any, rank: int) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, tuple | list) else (float(value),) * rank


def _bicubic(s: TorchSite, size: Any, corners: bool, *factors: Any) -> list[Operation]:
    given = [f for f in factors if f is not None]
    scale = (given[0] if isinstance(given[0], tuple | list) else given) if given and size is None else None
    return _resampled(s, size, scale, "bicubic", corners, antialias=False)


def _pixel_unshuffle(s: TorchSite, downscale_factor: int) -> list[Operation]:
    return [unshuffle(downscale_factor, s.known_shape()[1])]


def _channel_shuffle(s: TorchSite, groups: int) -> list[Operation]:
    channels = s.known_shape()[1]
    return [L.Gather(np.arange(channels, dtype=np.float32).reshape(groups, -1).T.reshape(-1))]


def _response_norm(
    s: TorchSite, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> list[Operation]:
    return [L.LocalResponseNorm(size // 2, (size - 1) // 2, alpha, beta, k)]


def _log1p(s: TorchSite) -> list[Operation]:
    return [Activation("affine", (1.0, 1.0)), Activation("log")]


def _convolution(
    s: TorchSite,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> list[Operation]:
    if transposed:
        return _conv_transpose(s, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(s, weight, bias, stride, padding, dilation, groups)


def _inference_norm(
    s: TorchSite, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> list[Operation]:
    return _batch_norm(s, mean, var, weight, bias, False, momentum, eps)


def _native_group_norm(
    s: TorchSite, weight: Any, bias: Any, n: int, c: int, hw: int, group: int, eps: float
) -> list[Operation]:
    return _group_norm(s, group, weight, bias, eps)


# Operations of ATen that return more than a layer gives; what is behind the first value cannot be used.
_SEVERAL = (
    "native_layer_norm",
    "native_group_norm",
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
)


def several(name: str, result: Any) -> Any:
    """The result of an operation as its graph takes it: alone, or the first of several."""
    return [result, None, None] if name in _SEVERAL else result


def _aten_nearest(s: TorchSite, size: Any = None, factors: Any = None) -> list[Operation]:
    return _interpolate(s, size, factors)


def _aten_linear(s: TorchSite, size: Any, corners: bool, factors: Any = None) -> list[Operation]:
    return _interpolate(s, size, factors, "linear", corners)


def _pixel_shuffle(s: TorchSite, upscale_factor: int) -> list[Operation]:
    return [L.PixelShuffle(upscale_factor)]


def _same(s: TorchSite, *rest: Any, **others: Any) -> list[Operation]:
    """`x.to(...)` and its like, which cut numbers off where they make whole ones of them."""
    return [Activation("trunc")] if any(each in _WHOLE for each in (*rest, *others.values())) else []


_WHOLE = (torch.int32, torch.int64)


# Functions whose name is that of the activation, and others.
_SAME = (
    "relu", "relu6", "sigmoid", "hardsigmoid", "logsigmoid", "tanh", "tanhshrink", "softsign",
    "selu", "hardswish", "mish", "abs", "exp", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "asinh", "acosh", "atanh", "log", "erf", "floor", "ceil", "round", "trunc",
    "sign",
)  # fmt: skip
_PLAIN = dict(zip(_SAME, _SAME, strict=True)) | {
    "log_sigmoid": "logsigmoid",
    "silu": "swish",
    "square": "abs2",
    "long": "trunc",
    "int": "trunc",
}
_BY_RANK: dict[str, Rule] = {}
for _rank in (1, 2, 3):
    _BY_RANK |= {
        f"conv{_rank}d": _conv,
        f"conv_transpose{_rank}d": _conv_transpose,
        f"max_pool{_rank}d": _max_pool(_rank),
        f"avg_pool{_rank}d": _mean_pool(_rank),
        f"adaptive_avg_pool{_rank}d": _adaptive_pool(_rank, largest=False),
        f"adaptive_max_pool{_rank}d": _adaptive_pool(_rank, largest=True),
        f"upsample_nearest{_rank}d": _aten_nearest,
        f"dropout{_rank}d": _dropout,
    }

CALLS: dict[str, Rule] = {
    **{name: _plain(ours) for name, ours in _PLAIN.items()},
    **_BY_RANK,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "gelu": _gelu,
    "softplus": _softplus,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda s, high: _clamp(s, None, high),
    "threshold": _threshold,
    "softshrink": _softshrink,
    "prelu": _prelu,
    "log1p": _log1p,
    "rsqrt": lambda s: power_layers(-0.5),
    "reciprocal": lambda s: power_layers(-1),
    "stochastic_depth": _stochastic_depth,
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _native_group_norm,
    "_native_batch_norm_legit_no_training": _inference_norm,
    "max_pool2d_with_indices": _max_pool(2),
    "max_pool3d_with_indices": _max_pool(3),
    "_adaptive_avg_pool2d": _adaptive_pool(2, largest=False),
    "_adaptive_avg_pool3d": _adaptive_pool(3, largest=False),
    "local_response_norm": _response_norm,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "upsample_bicubic2d": _bicubic,
    "neg": lambda s: [Activation("affine", (-1.0, 0.0))],
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "aten.batch_norm": _aten_batch_norm,
    "instance_norm": _instance_norm,
    "aten.instance_norm": _aten_instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "pad": _pad,
    "interpolate": _interpolate,
    "upsample_linear1d": _aten_linear,
    "upsample_bilinear2d": _aten_linear,
    "upsample_trilinear3d": _aten_linear,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(
        (
            "contiguous",
            "clone",
            "detach",
            "to",
            "_to_copy",
            "float",
            "identity",
            "alias",
            "lift_fresh_copy",
            "cpu",
        ),
        _same,
    ),
}
