"""Functions and methods of tensors as layers: the table `CALLS`, by the names in `torch`, `F` and ATen.

A rule takes a `TorchSite` and the arguments after the input, and returns the layers. Its parameters have the names that
they have in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diptych.formats.graph import Operation, Reduce, Transpose
from diptych.formats.torch.site import TorchSite, numbers
from diptych.model import layers as L
from diptych.model.layers import Activation

__all__ = ["CALLS", "Rule", "ceil_changes", "same_padding"]

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
    if weight.numel() != 1:
        s.refuse("no layer is a PReLU with a slope for each channel")
    return [Activation("leakyrelu", (float(weight),))]


def _softmax(s: TorchSite, dim: int | None = None, *rest: Any, **others: Any) -> list[Operation]:
    return [L.Softmax(_softmax_axis(s, dim))]


def _log_softmax(s: TorchSite, dim: int | None = None, *rest: Any, **others: Any) -> list[Operation]:
    return [L.Softmax(_softmax_axis(s, dim), log=True)]


def _softmax_axis(s: TorchSite, dim: int | None) -> int:
    if dim is None:
        dim = 0 if len(s.known_shape()) == 3 else 1  # PyTorch's deprecated default
    if dim == 0:
        s.refuse("a softmax over the batch axis mixes samples")
    return dim


def _dropout(s: TorchSite, p: float = 0.5, training: bool = False, inplace: bool = False) -> list[Operation]:
    if training:
        s.refuse("its dropout is active in evaluation mode, too")
    return [L.Dropout(p)]


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


def _group_norm(
    s: TorchSite, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> list[Operation]:
    return [L.GroupNorm(num_groups, s.array(weight), s.array(bias), epsilon=eps)]


# ---- Pools --------------------------------------------------------------------------------------------


def ceil_changes(shape: Any, kernel: Any, stride: Any, padding: Any) -> bool:
    """Whether ceil_mode changes the output size of a pool.

    Args:
        shape: Of the input, (N, C, *spatial).
        kernel, stride: One number for each spatial axis.
        padding: (low, high) for each spatial axis.
    """
    windows = zip(shape[2:], kernel, stride, padding, strict=True)
    return any((n + low + high - k) % step for n, k, step, (low, high) in windows)


def _window(
    s: TorchSite, rank: int, kernel: Any, stride: Any, padding: Any, ceil: bool
) -> tuple[Any, Any, Any]:
    window = numbers(kernel, rank)
    steps = window if stride is None or stride == [] else numbers(stride, rank)
    pads = s.pads(padding, rank)
    if ceil and ceil_changes(s.known_shape(), window, steps, pads):
        s.refuse(
            f"ceil_mode rounds the size of {s.known_shape()[2:]} up, but layers round down; use an input "
            "size that the windows fit, or ceil_mode=False"
        )
    return window, steps, pads


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
        if set(numbers(dilation, rank)) != {1} or return_indices:
            s.refuse("no layer pools with a dilation, or returns indices")
        return [L.MaxPool(*_window(s, rank, kernel_size, stride, padding, ceil_mode))]

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
        window, steps, pads = _window(s, rank, kernel_size, stride, padding, ceil_mode)
        if divisor_override is not None and divisor_override != math.prod(window):
            s.refuse("no layer is an average pool with a divisor_override")
        return [L.MeanPool(window, steps, pads, count_include_pad or not any(map(any, pads)))]

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


def _reduce(kind: str) -> Rule:
    def rule(s: TorchSite, dim: Any = None, keepdim: bool = False, **others: Any) -> list[Operation]:
        if dim is None:
            s.refuse(f"a {kind} over all axes mixes samples")
        axes = tuple(dim) if isinstance(dim, tuple | list | torch.Size) else (dim,)
        rank = 4 if s.shape is None else len(s.shape)
        return [Reduce(kind, tuple(a % rank for a in axes), keepdim)]

    return rule


# ---- Shape --------------------------------------------------------------------------------------------


def _flatten(s: TorchSite, start_dim: int = 0, end_dim: int = -1) -> list[Operation]:
    if (start_dim, end_dim) == (1, -1):
        return [L.Flatten()]
    shape = s.known_shape()
    first, last = start_dim % len(shape), end_dim % len(shape)
    return s.reshaped((*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def _view(s: TorchSite, *sizes: Any) -> list[Operation]:
    return s.reshaped(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes)


def _unflatten(s: TorchSite, dim: int, sizes: Any) -> list[Operation]:
    shape = s.known_shape()
    axis = dim % len(shape)
    return s.reshaped((*shape[:axis], *sizes, *shape[axis + 1 :]))


def _squeeze(s: TorchSite, dim: Any = None) -> list[Operation]:
    shape = s.known_shape()
    axes = range(len(shape)) if dim is None else (dim if isinstance(dim, tuple | list) else (dim,))
    gone = {a % len(shape) for a in axes}
    return s.reshaped([n for axis, n in enumerate(shape) if n != 1 or axis not in gone])


def _unsqueeze(s: TorchSite, dim: int) -> list[Operation]:
    shape = list(s.known_shape())
    shape.insert(dim % (len(shape) + 1), 1)
    return s.reshaped(shape)


def _getitem(s: TorchSite, index: Any) -> list[Operation]:
    places = index if isinstance(index, tuple) else (index,)
    shape, axis, kept = s.known_shape(), 0, []
    for place in places:
        if place is None:
            kept.append(1)
        elif axis < len(shape) and (place == slice(None) or (shape[axis] == 1 and place in (0, -1))):
            kept += [shape[axis]] if place == slice(None) else []
            axis += 1
        else:
            s.refuse("no layer takes part of an axis")
    return s.reshaped((*kept, *shape[axis:]))


def _permute(s: TorchSite, *order: Any) -> list[Operation]:
    axes = tuple(order[0]) if len(order) == 1 and isinstance(order[0], tuple | list) else order
    return [Transpose(tuple(a % len(axes) for a in axes))]


def _transpose(s: TorchSite, dim0: int, dim1: int) -> list[Operation]:
    order = list(range(len(s.known_shape())))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return [Transpose(tuple(order))]


_MODES: dict[str, L.PadMode] = {
    "constant": "zero",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "wrap",
}


def _pad(s: TorchSite, pad: Any, mode: str = "constant", value: float | None = None) -> list[Operation]:
    edges = [int(n) for n in pad]
    pairs = tuple((edges[i], edges[i + 1]) for i in range(0, len(edges), 2))[::-1]
    rank = len(s.shape) - 2 if s.shape is not None else max(len(pairs), 2)
    if len(pairs) > rank:
        if any(map(any, pairs[: len(pairs) - rank])):
            s.refuse("no layer pads the batch or the channels")
        pairs = pairs[len(pairs) - rank :]
    if value:
        s.refuse(f"no layer pads with {value}, only with zero")
    if any(n < 0 for pair in pairs for n in pair):
        s.refuse("no layer has negative padding, which crops")
    return [L.Pad(((0, 0),) * (rank - len(pairs)) + pairs, _MODES[mode])]


def _interpolate(
    s: TorchSite,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> list[Operation]:
    if mode not in ("nearest", "linear", "bilinear", "trilinear") or antialias:
        s.refuse(f"no layer resizes in the mode {mode!r}{' with antialias' if antialias else ''}")
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


def _aten_nearest(s: TorchSite, size: Any = None, factors: Any = None) -> list[Operation]:
    return _interpolate(s, size, factors)


def _aten_linear(s: TorchSite, size: Any, corners: bool, factors: Any = None) -> list[Operation]:
    return _interpolate(s, size, factors, "linear", corners)


def _pixel_shuffle(s: TorchSite, upscale_factor: int) -> list[Operation]:
    return [L.PixelShuffle(upscale_factor)]


def _same(s: TorchSite, *rest: Any, **others: Any) -> list[Operation]:
    return []


_PLAIN = {
    "relu": "relu",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "hardsigmoid": "hardsigmoid",
    "logsigmoid": "logsigmoid",
    "log_sigmoid": "logsigmoid",
    "tanh": "tanh",
    "tanhshrink": "tanhshrink",
    "softsign": "softsign",
    "selu": "selu",
    "silu": "swish",
    "hardswish": "hardswish",
    "mish": "mish",
    "abs": "abs",
    "square": "abs2",
    "exp": "exp",
    "sqrt": "sqrt",
    "sin": "sin",
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
    "neg": lambda s: [Activation("affine", (-1.0, 0.0))],
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "aten.batch_norm": _aten_batch_norm,
    "instance_norm": _instance_norm,
    "aten.instance_norm": _aten_instance_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "mean": _reduce("mean"),
    "amax": _reduce("max"),
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "unflatten": _unflatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "getitem": _getitem,
    "permute": _permute,
    "transpose": _transpose,
    "pad": _pad,
    "interpolate": _interpolate,
    "upsample_linear1d": _aten_linear,
    "upsample_bilinear2d": _aten_linear,
    "upsample_trilinear3d": _aten_linear,
    "pixel_shuffle": _pixel_shuffle,
    **dict.fromkeys(("contiguous", "clone", "detach", "to", "float", "identity", "alias", "cpu"), _same),
}
