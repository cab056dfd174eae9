"""ONNX convolutions and pools as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.formats.graph import Value, power_layers
from diptych.formats.onnx.reading_node import Node, Rule
from diptych.formats.windows import ceil_padding, pool_layers
from diptych.model import layers as L
from diptych.model.layers import Activation, Pads

__all__ = ["WINDOWS"]


def _per_axis(n: Node, attribute: str, default: int) -> tuple[int, ...]:
    values = n.attributes.get(attribute)
    result = (default,) * n.rank if values is None else tuple(int(v) for v in values)
    if len(result) != n.rank:
        n.refuse(f"its {attribute} are {result}, but its input has {n.rank} spatial axes")
    return result


def _pads(n: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    kind, given = n.attributes.get("auto_pad", "NOTSET"), n.attributes.get("pads")
    if kind in ("NOTSET", ""):
        edges = [0] * 2 * n.rank if given is None else [int(p) for p in given]
        return tuple(zip(edges[: n.rank], edges[n.rank :], strict=True))
    if given is not None and any(given):
        n.refuse(f"its auto_pad is {kind} and it has pads, too, which contradict each other")
    if kind == "VALID":
        return ((0, 0),) * n.rank
    pairs = []
    for size, k, s, d in zip(n.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        pairs.append(_shared(total, kind))
    return tuple(pairs)


def _shared(total: int, kind: str) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if kind == "SAME_UPPER" else (large, small)


def _kernel(n: Node, weight: Any) -> None:
    given = n.attributes.get("kernel_shape")
    if given is not None and tuple(given) != weight.shape[2:]:
        n.refuse(f"its kernel_shape {tuple(given)} is not that of its weight, {weight.shape}")


def _conv(n: Node) -> Value:
    weight = n.weight(1)
    _kernel(n, weight)
    stride, dilation = _per_axis(n, "strides", 1), _per_axis(n, "dilations", 1)
    padding = _pads(n, weight.shape[2:], stride, dilation)
    return n.give(L.Conv(weight, n.constant(2), stride, padding, dilation, n.attributes.get("group", 1)))


def _conv_transpose(n: Node) -> Value:
    weight, stride, dilation = n.weight(1), _per_axis(n, "strides", 1), _per_axis(n, "dilations", 1)
    _kernel(n, weight)
    extra, groups = _per_axis(n, "output_padding", 0), n.attributes.get("group", 1)
    target, kind = n.attributes.get("output_shape"), n.attributes.get("auto_pad", "NOTSET")
    if target is None and kind.startswith("SAME"):
        target = [m * s for m, s in zip(n.shape[2:], stride, strict=True)]
    if target is None:
        padding = _pads(n, weight.shape[2:], stride, dilation)
    else:
        n.attributes.get("pads")  # follow from the size of the output
        pairs = []
        spans = zip(n.shape[2:], stride, extra, weight.shape[2:], dilation, target[-n.rank :], strict=True)
        for m, s, more, k, d, wanted in spans:
            total = s * (m - 1) + more + d * (k - 1) + 1 - int(wanted)
            if total < 0:
                n.refuse(f"its output_shape {tuple(target)} is larger than what it computes")
            pairs.append(_shared(total, kind if kind == "SAME_UPPER" else "SAME_LOWER"))
        padding = tuple(pairs)
    return n.give(L.ConvTranspose(weight, n.constant(2), stride, padding, extra, dilation, groups))


def _window(n: Node) -> tuple[tuple[int, ...], tuple[int, ...], Pads, tuple[int, ...], bool]:
    kernel, stride = _per_axis(n, "kernel_shape", 1), _per_axis(n, "strides", 1)
    dilation = _per_axis(n, "dilations", 1)
    ceil = n.flag("ceil_mode")
    if ceil and str(n.attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
        ceil = False  # the padding already gives the size rounded up
    return kernel, stride, _pads(n, kernel, stride, dilation), dilation, ceil


def _max_pool(n: Node) -> Value:
    n.attributes.get("storage_order")  # of the indices, which are not read
    kernel, stride, padding, dilation, ceil = _window(n)
    return n.give(*(pool_layers("max", n.shape[2:], kernel, stride, padding, dilation, ceil) or ()))


def _mean_pool(n: Node) -> Value:
    kernel, stride, padding, dilation, ceil = _window(n)
    counted = n.flag("count_include_pad")
    if set(dilation) == {1}:
        layers = pool_layers("mean", n.shape[2:], kernel, stride, padding, dilation, ceil, counted)
        return n.give(*(layers or ()))
    longer = ceil_padding(n.shape[2:], kernel, stride, padding, dilation) if ceil else padding
    own = np.ones((1, 1, *n.shape[2:]))
    if counted:
        own = np.pad(own, [(0, 0), (0, 0), *padding], constant_values=1)
    beyond = longer
    if counted:
        pairs = zip(padding, longer, strict=True)
        beyond = tuple((0, high - before) for (_, before), (_, high) in pairs)
    mask = np.pad(own, [(0, 0), (0, 0), *beyond])
    ones = np.ones((1, 1, *kernel), np.float32)
    counts = L.Conv(ones, None, stride, (), dilation).compute(mask)[0]
    return n.give(
        _sums(n, kernel, stride, longer, dilation), L.Scale((1 / np.maximum(counts, 1)).astype(np.float32))
    )


def _sums(
    n: Node, kernel: tuple[int, ...], stride: tuple[int, ...], padding: Pads, dilation: tuple[int, ...]
) -> L.Conv:
    """The sums under windows that may skip values: a convolution of each channel with ones."""
    channels = n.shape[1]
    weight = np.ones((channels, 1, *kernel), np.float32)
    return L.Conv(weight, None, stride, padding, dilation, channels)


def _root(exponent: float) -> list[Any]:
    return power_layers(1 / exponent)


def _magnitudes(exponent: float) -> list[Any]:
    return [*([Activation("abs")] if exponent % 2 else []), *power_layers(exponent)]


def _lp_pool(n: Node) -> Value:
    exponent = float(n.attributes.get("p", 2))
    kernel, stride, padding, dilation, ceil = _window(n)
    longer = ceil_padding(n.shape[2:], kernel, stride, padding, dilation) if ceil else padding
    return n.give(*_magnitudes(exponent), _sums(n, kernel, stride, longer, dilation), *_root(exponent))


def _global_lp_pool(n: Node) -> Value:
    exponent = float(n.attributes.get("p", 2))
    total = L.Reduce("sum", tuple(range(2, len(n.shape))))
    return n.give(*_magnitudes(exponent), total, *_root(exponent))


WINDOWS: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _mean_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": lambda n: n.give(L.GlobalMeanPool()),
    "GlobalMaxPool": lambda n: n.give(L.GlobalMaxPool()),
    "GlobalLpPool": _global_lp_pool,
}
