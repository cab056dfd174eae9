"""Modules of `torch.nn` and of `modules` as layers: the table `_RULES`, of which the first fitting entry applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from diptych.formats.graph import Operation
from diptych.formats.torch import modules as M
from diptych.formats.torch import primitives as P
from diptych.formats.torch import recurrent as R
from diptych.formats.torch.calls import CALLS, same_padding
from diptych.formats.torch.reading_recurrent import own_module
from diptych.formats.torch.site import TorchSite
from diptych.model import layers as L
from diptych.model.layers import Activation

__all__ = ["layers_of"]


def layers_of(s: TorchSite, module: nn.Module) -> list[Operation]:
    """The layers that compute what a module computes.

    Args:
        s: The place in the graph where the module is applied.
        module: A module of `torch.nn` or of this package, without submodules other than an activation.

    Raises:
        UnsupportedLayer: No layer can express it.
    """
    rule = next((rule for kinds, rule in _RULES if isinstance(module, kinds)), None)
    if rule is None:
        s.refuse(f"there is no layer for {type(module).__name__}")
    layers = rule(s, module)
    activation = module._modules.get("activation") if isinstance(module, M.Extended) else None
    if activation is None:
        return layers
    (function,) = layers_of(s, activation)
    return [*layers[:-1], replace(layers[-1], activation=function)]  # type: ignore[call-arg]


# ---- Weighted layers ----------------------------------------------------------------------------------

_MODES: dict[str, L.PadMode] = {"reflect": "reflect", "replicate": "replicate", "circular": "wrap"}


def _pairs(edges: Any) -> L.Pads:
    """Edges in the order of `F.pad`, the last axis first, as (low, high) for each axis in order."""
    return tuple((int(edges[i]), int(edges[i + 1])) for i in range(0, len(edges), 2))[::-1]


def _conv(s: TorchSite, m: Any) -> list[Operation]:
    if isinstance(m.padding, str):
        same = m.padding == "same"
        padding = same_padding(m.kernel_size, m.dilation) if same else ((0, 0),) * len(m.kernel_size)
    else:
        padding = tuple((n, n) for n in m.padding)
    if isinstance(m, M.Extended) and any(m.edges):
        padding = _pairs(m.edges)
    before: list[Operation] = []
    if m.padding_mode != "zeros":
        if any(map(any, padding)):
            before = [L.Pad(padding, _MODES[m.padding_mode])]
        padding = ((0, 0),) * len(padding)
    arrays = s.weight(m.weight), s.array(m.bias)
    return [*before, L.Conv(*arrays, m.stride, padding, m.dilation, m.groups)]


def _conv_transpose(s: TorchSite, m: Any) -> list[Operation]:
    padding, extra = tuple((n, n) for n in m.padding), tuple(m.output_padding)
    if isinstance(m, M.Extended) and any(m.edges):
        pairs = [(-low, -high) for low, high in _pairs(m.edges)]
        padding = tuple((low, max(high, 0)) for low, high in pairs)
        extra = tuple(max(-high, 0) for _, high in pairs)
    arrays = s.weight(m.weight), s.array(m.bias)
    return [L.ConvTranspose(*arrays, m.stride, padding, extra, m.dilation, m.groups)]


def _scale(s: TorchSite, m: M.Scale) -> list[Operation]:
    return [L.Scale(s.weight(m.scale), s.array(m.bias))]


# ---- Normalisation ------------------------------------------------------------------------------------


def _batch_norm(s: TorchSite, m: Any) -> list[Operation]:
    scale, shift, mean, variance = map(s.array, (m.weight, m.bias, m.running_mean, m.running_var))
    momentum = 0.1 if m.momentum is None else m.momentum
    return [L.BatchNorm(scale, shift, mean, variance, m.eps, momentum)]


def _instance_norm(s: TorchSite, m: Any) -> list[Operation]:
    scale, shift, mean, variance = map(s.array, (m.weight, m.bias, m.running_mean, m.running_var))
    return [L.InstanceNorm(scale, shift, mean, variance, m.eps)]


def _group_norm(s: TorchSite, m: Any) -> list[Operation]:
    tracked = isinstance(m, M.TrackedGroupNorm)
    statistics = (s.array(m.running_mean), s.array(m.running_var)) if tracked else (None, None)
    return [L.GroupNorm(m.num_groups, s.array(m.weight), s.array(m.bias), *statistics, m.eps)]


def _layer_norm(s: TorchSite, m: Any) -> list[Operation]:
    formula: L.NormFormula = "std + eps" if isinstance(m, M.LayerNormStd) else "sqrt(var + eps)"
    return [L.LayerNorm(tuple(m.normalized_shape), s.array(m.weight), s.array(m.bias), m.eps, formula)]


# ---- Functions, pools and shape -----------------------------------------------------------------------


def _call(name: str, *attributes: str) -> Callable[[TorchSite, Any], list[Operation]]:
    """The rule for the function of that name, called with attributes of the module."""
    return lambda s, m: CALLS[name](s, **{a: getattr(m, a) for a in attributes})


def _max_pool(s: TorchSite, m: Any) -> list[Operation]:
    rank = int(type(m).__name__[-2])
    window = (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)
    return CALLS[f"max_pool{rank}d"](s, *window)


def _mean_pool(s: TorchSite, m: Any) -> list[Operation]:
    rank = int(type(m).__name__[-2])
    divisor = getattr(m, "divisor_override", None)
    window = (m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, divisor)
    return CALLS[f"avg_pool{rank}d"](s, *window)


def _adaptive_pool(s: TorchSite, m: Any) -> list[Operation]:
    name, rank = type(m).__name__, int(type(m).__name__[-2])
    kind = "max" if "Max" in name else "avg"
    indices = getattr(m, "return_indices", False)
    return CALLS[f"adaptive_{kind}_pool{rank}d"](s, m.output_size, indices)


def _own_adaptive_pool(s: TorchSite, m: M.AdaptivePool) -> list[Operation]:
    largest = m.kind == "max"
    if m.output is None:
        return [L.GlobalMaxPool() if largest else L.GlobalMeanPool()]
    return [(L.AdaptiveMaxPool if largest else L.AdaptiveMeanPool)(m.output, m.rule)]


def _own_pool(s: TorchSite, m: M.WidePool) -> list[Operation]:
    if m.kind == "max":
        return [L.MaxPool(m.kernel, m.stride, m.padding, m.dilation)]
    return [L.MeanPool(m.kernel, m.stride, m.padding, m.count_padding)]


def _pad(mode: str) -> Callable[[TorchSite, Any], list[Operation]]:
    return lambda s, m: CALLS["pad"](s, m.padding, mode, getattr(m, "value", None))


def _upsample(s: TorchSite, m: Any) -> list[Operation]:
    return CALLS["interpolate"](s, m.size, m.scale_factor, m.mode, m.align_corners)


def _own_upsample(s: TorchSite, m: M.Upsample) -> list[Operation]:
    mode: Any = m.mode
    return [L.Upsample(m.scale, m.size, mode, m.align_corners)]


def _softmax_2d(s: TorchSite, m: nn.Softmax2d) -> list[Operation]:
    return [L.Softmax(1)]


def _rrelu(s: TorchSite, m: nn.RReLU) -> list[Operation]:
    return [Activation("leakyrelu", ((m.lower + m.upper) / 2,))]


def _elementwise(s: TorchSite, m: M.Elementwise) -> list[Operation]:
    return [Activation(m.name, m.arguments)]


def _recurrent(s: TorchSite, m: Any) -> list[Operation]:
    def function(module: nn.Module) -> Activation:
        (found,) = layers_of(s, module)
        assert isinstance(found, Activation)
        return found

    return own_module(s, m, function)


def _embedding(s: TorchSite, m: nn.Embedding) -> list[Operation]:
    if m.max_norm is not None:
        s.refuse("it shortens rows that are longer than max_norm while it looks them up")
    return [L.Embedding(s.weight(m.weight))]


def _embedding_bag(s: TorchSite, m: nn.EmbeddingBag) -> list[Operation]:
    if m.max_norm is not None or m.padding_idx is not None:
        s.refuse("no layer looks up rows with a max_norm, or leaves some out of a mean")
    return [L.Embedding(s.weight(m.weight), reduction=m.mode)]  # type: ignore[arg-type]


def _kinds(names: str) -> tuple[type[nn.Module], ...]:
    """The classes for 1, 2 and 3 spatial axes, as far as `torch.nn` has them."""
    found = (getattr(nn, f"{names}{rank}d", None) for rank in (1, 2, 3))
    return tuple(kind for kind in found if kind is not None)


_RULES: tuple[tuple[Any, Callable[[TorchSite, Any], list[Operation]]], ...] = (
    (_kinds("Conv"), _conv),
    (_kinds("ConvTranspose"), _conv_transpose),
    (nn.Linear, lambda s, m: CALLS["linear"](s, m.weight, m.bias)),
    (M.Scale, _scale),
    (M.Bilinear, lambda s, m: [L.Bilinear(s.weight(m.weight), s.array(m.bias))]),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding_bag),
    (P.Embedding, lambda s, m: [L.Embedding(s.weight(m.weight), m.first, m.reduction)]),
    (M.Normalise, lambda s, m: [L.Normalise(m.axis, m.epsilon, m.formula)]),
    ((*_kinds("BatchNorm"), M.AnyBatchNorm, nn.SyncBatchNorm), _batch_norm),
    ((*_kinds("InstanceNorm"), M.AnyInstanceNorm), _instance_norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _call("rms_norm", "normalized_shape", "weight", "eps")),
    (_kinds("MaxPool"), _max_pool),
    (_kinds("AvgPool"), _mean_pool),
    ((*_kinds("AdaptiveMaxPool"), *_kinds("AdaptiveAvgPool")), _adaptive_pool),
    (M.AdaptivePool, _own_adaptive_pool),
    (M.WidePool, _own_pool),
    ((*_kinds("ZeroPad"), *_kinds("ConstantPad")), _pad("constant")),
    (_kinds("ReflectionPad"), _pad("reflect")),
    (_kinds("ReplicationPad"), _pad("replicate")),
    (_kinds("CircularPad"), _pad("circular")),
    (nn.Upsample, _upsample),
    (M.Upsample, _own_upsample),
    (M.SymmetricPad, lambda s, m: [L.Pad(m.padding, "symmetric")]),
    (nn.PixelShuffle, _call("pixel_shuffle", "upscale_factor")),
    (M.PixelShuffle, lambda s, m: [L.PixelShuffle(m.factor)]),
    (nn.Flatten, _call("flatten", "start_dim", "end_dim")),
    (nn.Unflatten, lambda s, m: CALLS["unflatten"](s, m.dim, m.unflattened_size)),
    (M.Reshape, lambda s, m: [L.Reshape(m.shape)]),
    (nn.Softmax2d, _softmax_2d),
    (nn.Softmax, _call("softmax", "dim")),
    (nn.LogSoftmax, _call("log_softmax", "dim")),
    ((nn.Dropout, *_kinds("Dropout"), nn.AlphaDropout), lambda s, m: [L.Dropout(m.p)]),
    (nn.Identity, lambda s, m: []),
    (nn.ReLU6, _call("relu6")),
    (nn.Hardtanh, _call("hardtanh", "min_val", "max_val")),
    (nn.ReLU, _call("relu")),
    (nn.RReLU, _rrelu),
    (nn.LeakyReLU, _call("leaky_relu", "negative_slope")),
    (nn.PReLU, _call("prelu", "weight")),
    (nn.Threshold, _call("threshold", "threshold", "value")),
    (nn.ELU, _call("elu", "alpha")),
    (nn.CELU, _call("celu", "alpha")),
    (nn.SELU, _call("selu")),
    (nn.GELU, _call("gelu", "approximate")),
    (nn.Sigmoid, _call("sigmoid")),
    (nn.Hardsigmoid, _call("hardsigmoid")),
    (nn.LogSigmoid, _call("logsigmoid")),
    (nn.Tanh, _call("tanh")),
    (nn.Tanhshrink, _call("tanhshrink")),
    (nn.Softshrink, _call("softshrink", "lambd")),
    (nn.Softplus, _call("softplus", "beta", "threshold")),
    (nn.Softsign, _call("softsign")),
    (nn.SiLU, _call("silu")),
    (nn.Hardswish, _call("hardswish")),
    (nn.Mish, _call("mish")),
    (M.Elementwise, _elementwise),
    ((R.Whole, R.MultiHeadAttention), _recurrent),
    (P.Permute, lambda s, m: [L.Permute(m.order)]),
    (P.Slice, lambda s, m: [L.Slice(m.axis, m.start, m.stop, m.step)]),
    (P.Gather, lambda s, m: [L.Gather(s.weight(m.indices), m.axis)]),
    (P.Expand, lambda s, m: [L.Expand(m.shape)]),
    (P.Constant, lambda s, m: [L.Constant(s.weight(m.value))]),
    (P.Reduce, lambda s, m: [L.Reduce(m.kind, m.axes, m.keep)]),
    (P.PReLU, lambda s, m: [L.PReLU(s.weight(m.slope))]),
    (P.LocalResponseNorm, lambda s, m: [L.LocalResponseNorm(m.before, m.after, m.alpha, m.beta, m.bias)]),
)
