"""ONNX normalisations as layers."""

from __future__ import annotations

import numpy as np

from diptych.formats.graph import Shape, Value, power_layers
from diptych.formats.onnx.reading_node import Node, Rule
from diptych.formats.views import Tensor
from diptych.model import layers as L
from diptych.model.layers import Activation, Array

__all__ = ["NORMS"]


def _precision(n: Node) -> None:
    """Sums must be of float32 or float64."""
    kind = n.attributes.get("stash_type", 1)
    if kind not in (1, 11):
        n.refuse(f"its stash_type {kind} is not that of float32 or float64")


def _epsilon(n: Node) -> float:
    return float(n.attributes.get("epsilon", 1e-5))


def _batch_norm(n: Node) -> Value:
    if n.flag("training_mode"):
        n.refuse("it is in training mode; export the model in evaluation mode")
    if n.attributes.get("spatial", 1) != 1:
        n.refuse("no layer has statistics for each pixel")
    n.attributes.get("is_test")  # of operator sets before 7; a model computes as in tests
    n.attributes.get("consumed_inputs")
    arrays = [n.weight(i) for i in range(1, 5)]
    momentum = 1 - float(n.attributes.get("momentum", 0.9))
    return n.give(L.BatchNorm(arrays[0], arrays[1], arrays[2], arrays[3], _epsilon(n), round(momentum, 6)))


def _affine(scale: Array, shift: Array | None) -> tuple[Array | None, Array | None]:
    """Scale and shift, or None for both if they change nothing."""
    plain = np.all(scale == 1) and (shift is None or not np.any(shift))
    return (None, None) if plain else (scale, shift)


def _instance_norm(n: Node) -> Value:
    n.attributes.get("consumed_inputs")
    scale, shift = _affine(n.weight(1), n.weight(2))
    return n.give(L.InstanceNorm(scale, shift, epsilon=_epsilon(n)))


def _layer_norm(n: Node) -> Tensor:
    _precision(n)
    axis = n.views.axis(n.x, n.attributes.get("axis", -1))
    own = n.shape[axis:]
    scale, shift = _affine(n.weight(1), n.constant(2))
    layer = L.LayerNorm(own, _whole(scale, own), _whole(shift, own), _epsilon(n))
    return n.views.last(n.x, len(own), layer)


def _rms_norm(n: Node) -> Tensor:
    _precision(n)
    axis = n.views.axis(n.x, n.attributes.get("axis", -1))
    epsilon = float(n.attributes.get("epsilon", 1e-5))
    own = n.shape[axis:]
    scale, _ = _affine(n.weight(1), None)
    return n.views.last(n.x, len(own), L.RMSNorm(own, _whole(scale, own), epsilon))


def _whole(array: Array | None, shape: Shape) -> Array | None:
    return array if array is None or array.shape == shape else np.array(np.broadcast_to(array, shape))


def _group_norm(n: Node) -> Value:
    _precision(n)
    groups = int(n.attributes["num_groups"])
    scale, shift = n.weight(1), n.weight(2)
    if n.opset < 21 and scale.size == groups:  # one number for each group
        each = n.shape[1] // max(groups, 1)
        scale, shift = np.repeat(scale, each), np.repeat(shift, each)
    return n.give(L.GroupNorm(groups, scale, shift, epsilon=_epsilon(n)))


def _response_norm(n: Node) -> Value:
    size = int(n.attributes["size"])
    numbers = (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    values = [float(n.attributes.get(name, usual)) for name, usual in numbers]
    return n.give(L.LocalResponseNorm((size - 1) // 2, size // 2, *values))


def _lp_norm(n: Node) -> Tensor:
    exponent, axis = n.attributes.get("p", 2), n.views.axis(n.x, n.attributes.get("axis", -1))
    if exponent not in (1, 2):
        n.refuse(f"its p is {exponent}, but ONNX has 1 and 2 only")
    sizes = n.pointwise(Activation("abs" if exponent == 1 else "abs2"))
    total = n.views.reduce(sizes, "sum", (axis,), True)
    return n.views.combine("divide", n.x, n.views.apply(total, *power_layers(1 / exponent)))


def _mean_variance(n: Node) -> Value:
    axes = sorted(a % len(n.shape) for a in n.attributes.get("axes", [0, 2, 3]))
    if axes == [0, *range(2, len(n.shape))]:
        return n.give(L.BatchNorm(epsilon=1e-9))
    if axes != list(range(2, len(n.shape))):
        n.refuse(f"no layer normalises over the axes {tuple(axes)}")
    return n.give(L.InstanceNorm(epsilon=1e-9))


NORMS: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "LRN": _response_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
}
