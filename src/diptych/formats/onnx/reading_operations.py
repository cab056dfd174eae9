"""ONNX operations (https://onnx.ai/onnx/operators/) as layers: a function for each, in the table `OPERATIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from diptych.formats.graph import (
    Erf,
    Fill,
    Gather,
    Lookup,
    Operation,
    Piece,
    Reduce,
    Round,
    Shape,
    Slice,
    Transpose,
    Value,
    ValueGraph,
    refusal,
    reshape_layers,
    with_constant,
)
from diptych.model import layers as L
from diptych.model.layers import Activation, Array, Pads

__all__ = ["OPERATIONS", "Node"]

Rule: TypeAlias = Callable[["Node"], Value]


class Node:
    """One operation of a graph.

    Attributes:
        graph, name, opset: Where layers are added, the node's name for messages, and the version of the operator set.
        inputs, attributes: Values that depend on the model's input, constants, or None if absent; attributes by name.
        own_batch: The batch size, if the file fixes it; it then also occurs in constants.
    """

    def __init__(
        self,
        graph: ValueGraph,
        name: str,
        opset: int,
        inputs: Sequence[Value | Array | None],
        attributes: Any,
    ) -> None:
        self.graph, self.name, self.opset, self.inputs = graph, name, opset, inputs
        self.attributes: Mapping[str, Any] = attributes
        self.own_batch: int | None = None

    @property
    def x(self) -> Value:
        """The first input, which must not be a constant."""
        first = self.inputs[0] if self.inputs else None
        if not isinstance(first, Value):
            self.refuse("its first input is a constant")
        return first

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return cast(Shape, self.x.shape)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.shape) - 2

    def constant(self, index: int) -> Array | None:
        """An input that must be a constant; None if it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Value):
            self.refuse(f"its input {index} must be a constant, but depends on the picture")
        return value

    def weight(self, index: int) -> Array:
        """A constant input that must be present."""
        array = self.constant(index)
        if array is None:
            self.refuse(f"its input {index} is missing")
        return array

    def numbers(self, attribute: str, index: int | None = None) -> list[int] | None:
        """Integers from an input or, in older operator sets, from an attribute."""
        array = None if index is None else self.constant(index)
        values = self.attributes.get(attribute) if array is None else array.reshape(-1).tolist()
        return None if values is None else [int(v) for v in values]

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UnsupportedLayer` with the name of this node."""
        raise refusal(self.name, reason)

    def give(self, *layers: Operation, shape: Shape | None = None) -> Value:
        """Applies layers to the first input in turn; `shape` is the output shape, needed if the layer is a `Piece`."""
        value = self.x
        for layer in layers:
            value = self.graph.apply(layer, value, self.name, shape if isinstance(layer, Piece) else None)
        return value

    def reshaped(self, sizes: Sequence[int]) -> Value:
        """The first input reshaped to `sizes`, which include the batch axis."""
        return self.give(*reshape_layers(self.shape, sizes, self.name))


# ---- Windows ------------------------------------------------------------------------------------------


def _per_axis(n: Node, attribute: str, default: int) -> tuple[int, ...]:
    values = n.attributes.get(attribute)
    result = (default,) * n.rank if values is None else tuple(int(v) for v in values)
    if len(result) != n.rank:
        n.refuse(f"its {attribute} are {result}, but its input has {n.rank} spatial axes")
    return result


def _pads(n: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    kind = n.attributes.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", ""):
        given = n.attributes.get("pads")
        edges = [0] * 2 * n.rank if given is None else [int(p) for p in given]
        return tuple(zip(edges[: n.rank], edges[n.rank :], strict=True))
    if kind == "VALID":
        return ((0, 0),) * n.rank
    pairs = []
    for size, k, s, d in zip(n.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if kind == "SAME_UPPER" else (large, small))
    return tuple(pairs)


def _conv(n: Node) -> Value:
    weight = n.weight(1)
    stride, dilation = _per_axis(n, "strides", 1), _per_axis(n, "dilations", 1)
    padding = _pads(n, weight.shape[2:], stride, dilation)
    return n.give(L.Conv(weight, n.constant(2), stride, padding, dilation, n.attributes.get("group", 1)))


def _conv_transpose(n: Node) -> Value:
    if n.attributes.get("output_shape") or n.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        n.refuse("no layer is a transposed convolution with a given output shape")
    weight, stride, dilation = n.weight(1), _per_axis(n, "strides", 1), _per_axis(n, "dilations", 1)
    padding, extra = _pads(n, weight.shape[2:], stride, dilation), _per_axis(n, "output_padding", 0)
    groups = n.attributes.get("group", 1)
    return n.give(L.ConvTranspose(weight, n.constant(2), stride, padding, extra, dilation, groups))


def _window(n: Node) -> tuple[Any, Any, Any]:
    kernel, stride = _per_axis(n, "kernel_shape", 1), _per_axis(n, "strides", 1)
    dilation = _per_axis(n, "dilations", 1)
    padding = _pads(n, kernel, stride, dilation)
    if set(dilation) != {1}:
        n.refuse("no layer pools with a dilation")
    spans = zip(n.shape[2:], kernel, stride, padding, strict=True)
    if n.attributes.get("ceil_mode") and any((m + a + b - k) % max(s, 1) for m, k, s, (a, b) in spans):
        n.refuse(f"its ceil_mode rounds the size of {n.shape[2:]} up, but layers round down")
    return kernel, stride, padding


def _max_pool(n: Node) -> Value:
    return n.give(L.MaxPool(*_window(n)))


def _mean_pool(n: Node) -> Value:
    kernel, stride, padding = _window(n)
    counted = bool(n.attributes.get("count_include_pad")) or not any(map(any, padding))
    return n.give(L.MeanPool(kernel, stride, padding, counted))


# ---- Dense layers and arithmetic ----------------------------------------------------------------------


def _gemm(n: Node) -> Value:
    if n.attributes.get("transA") or len(n.shape) != 2:
        n.refuse("only a product of (N, features) with weights has a layer")
    weight, bias = n.weight(1), n.constant(2)
    weight = weight if n.attributes.get("transB") else np.ascontiguousarray(weight.T)
    alpha, beta = n.attributes.get("alpha", 1.0), n.attributes.get("beta", 1.0)
    weight = weight if alpha == 1 else weight * np.float32(alpha)
    if bias is not None:
        bias = bias if beta == 1 else bias * np.float32(beta)
        if bias.shape != weight.shape[:1]:
            bias = np.array(np.broadcast_to(bias.reshape(-1), weight.shape[:1]))
    return n.give(L.Dense(weight, bias))


def _matmul(n: Node) -> Value:
    weight = n.weight(1)
    if weight.ndim != 2:
        n.refuse("only a product with a matrix of weights has a layer")
    return n.give(L.Dense(np.ascontiguousarray(weight.T)))


def _arithmetic(operation: str) -> Rule:
    def rule(n: Node) -> Value:
        values = [i for i in n.inputs if isinstance(i, Value)]
        if len(values) == len(n.inputs):
            return n.graph.join(operation, values, n.name)
        constant = next((i for i in n.inputs if isinstance(i, np.ndarray)), None)
        layers = None
        if len(n.inputs) == 2 and values and constant is not None:
            layers = with_constant(operation, constant, flipped=n.inputs[1] is values[0])
        if layers is None:
            n.refuse("no layer does this with a constant")
        value = values[0]
        for layer in layers:
            value = n.graph.apply(layer, value, n.name)
        return value

    return rule


def _limit(low: bool) -> Rule:
    def rule(n: Node) -> Value:
        values = [i for i in n.inputs if isinstance(i, Value)]
        numbers = [i for i in n.inputs if isinstance(i, np.ndarray)]
        if not numbers and low:
            return n.graph.join("maximum", values, n.name)
        if len(values) != 1 or any(i.size != 1 for i in numbers):
            n.refuse("only the maximum of several branches, or a limit that is a number, has a layer")
        limits = [float(i.reshape(())) for i in numbers]
        return n.graph.apply(
            _clamped(max(limits), math.inf) if low else _clamped(-math.inf, min(limits)), values[0], n.name
        )

    return rule


def _clamped(low: float, high: float) -> Activation:
    named = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}.get((low, high))
    return Activation(named) if named else Activation("clamp", (low, high))


def _clip(n: Node) -> Value:
    def limit(index: int, name: str, default: float) -> float:
        array = n.constant(index)
        return float(n.attributes.get(name, default) if array is None else array.reshape(-1)[0])

    return n.give(_clamped(limit(1, "min", -math.inf), limit(2, "max", math.inf)))


def _power(n: Node) -> Value:
    exponent = n.weight(1)
    number = float(exponent.reshape(())) if exponent.size == 1 else math.nan
    if number in (2, 3, 4):
        return n.graph.join("multiply", [n.x] * int(number), n.name)
    if number != 0.5:
        n.refuse("no layer raises to this power")
    return n.give(Activation("sqrt"))


def _function(name: str, *parameters: tuple[str, float]) -> Rule:
    def rule(n: Node) -> Value:
        return n.give(Activation(name, tuple(float(n.attributes.get(k, v)) for k, v in parameters)))

    return rule


def _hard_sigmoid(n: Node) -> Value:
    slope, middle = float(n.attributes.get("alpha", 0.2)), float(n.attributes.get("beta", 0.5))
    if middle == 0.5:
        return n.give(Activation("hardsigmoid", (slope,)))
    return n.give(Activation("affine", (slope, middle)), Activation("clamp", (0.0, 1.0)))


def _shrink(n: Node) -> Value:
    size = float(n.attributes.get("lambd", 0.5))
    if float(n.attributes.get("bias", 0.0)) != size:
        n.refuse("only the soft shrink, whose bias equals its lambd, has a layer")
    return n.give(Activation("softshrink", (size,)))


def _prelu(n: Node) -> Value:
    slope = n.weight(1)
    if slope.size != 1:
        n.refuse("no layer is a PRelu with a slope for each channel")
    return n.give(Activation("leakyrelu", (float(slope.reshape(())),)))


def _gelu(n: Node) -> Value:
    return n.give(Activation("gelu_tanh" if n.attributes.get("approximate") == "tanh" else "gelu_erf"))


def _softmax(log: bool) -> Rule:
    def rule(n: Node) -> Value:
        axis = n.attributes.get("axis", 1 if n.opset < 13 else -1) % len(n.shape)
        if axis == 0 or (n.opset < 13 and math.prod(n.shape[axis + 1 :]) != 1):
            n.refuse("no layer is a softmax over several axes or over the batch")
        return n.give(L.Softmax(axis, log))

    return rule


def _dropout(n: Node) -> Value:
    training, ratio = n.constant(2), n.constant(1)
    if training is not None and training.any():
        n.refuse("its dropout is active in evaluation, too")
    return n.give(L.Dropout(float(n.attributes.get("ratio", 0.5) if ratio is None else ratio.reshape(-1)[0])))


# ---- Normalisation ------------------------------------------------------------------------------------


def _epsilon(n: Node) -> float:
    return float(n.attributes.get("epsilon", 1e-5))


def _batch_norm(n: Node) -> Value:
    if n.attributes.get("training_mode"):
        n.refuse("it is in training mode; export the model in evaluation mode")
    arrays = [n.weight(i) for i in range(1, 5)]
    momentum = 1 - float(n.attributes.get("momentum", 0.9))
    return n.give(L.BatchNorm(arrays[0], arrays[1], arrays[2], arrays[3], _epsilon(n), round(momentum, 6)))


def _affine(scale: Array, shift: Array | None) -> tuple[Array | None, Array | None]:
    """Scale and shift, or None for both if they change nothing."""
    plain = np.all(scale == 1) and (shift is None or not np.any(shift))
    return (None, None) if plain else (scale, shift)


def _instance_norm(n: Node) -> Value:
    scale, shift = _affine(n.weight(1), n.weight(2))
    return n.give(L.InstanceNorm(scale, shift, epsilon=_epsilon(n)))


def _layer_norm(n: Node) -> Value:
    axis = n.attributes.get("axis", -1) % len(n.shape)
    if axis == 0:
        n.refuse("no layer normalises over the batch axis")
    own = n.shape[axis:]
    scale, shift = _affine(n.weight(1), n.constant(2))
    return n.give(L.LayerNorm(own, _whole(scale, own), _whole(shift, own), _epsilon(n)))


def _whole(array: Array | None, shape: Shape) -> Array | None:
    return array if array is None or array.shape == shape else np.array(np.broadcast_to(array, shape))


def _group_norm(n: Node) -> Value:
    groups = int(n.attributes["num_groups"])
    scale, shift = n.weight(1), n.weight(2)
    if n.opset < 21 and scale.size == groups:  # one number for each group
        each = n.shape[1] // max(groups, 1)
        scale, shift = np.repeat(scale, each), np.repeat(shift, each)
    return n.give(L.GroupNorm(groups, scale, shift, epsilon=_epsilon(n)))


# ---- Pieces and shape ---------------------------------------------------------------------------------


def _reduce(kind: str) -> Rule:
    def rule(n: Node) -> Value:
        given = n.numbers("axes", 1)
        if not given:
            n.refuse(f"a {kind} over all axes mixes samples")
        axes, keep = tuple(sorted(a % len(n.shape) for a in given)), bool(n.attributes.get("keepdims", 1))
        shape = tuple(1 if i in axes else m for i, m in enumerate(n.shape) if keep or i not in axes)
        return n.give(Reduce(kind, axes, keep), shape=shape)

    return rule


def _flatten(n: Node) -> Value:
    axis = n.attributes.get("axis", 1)
    if axis in (1, 1 - len(n.shape)):
        return n.give(L.Flatten())
    axis %= len(n.shape)
    return n.reshaped((math.prod(n.shape[:axis]), math.prod(n.shape[axis:])))


def _reshape(n: Node) -> Value:
    sizes = n.numbers("shape", 1) or []
    if not n.attributes.get("allowzero"):
        sizes = [n.shape[i] if m == 0 and i < len(n.shape) else m for i, m in enumerate(sizes)]
    if sizes and sizes[0] == n.own_batch:
        sizes[0] = n.shape[0]
    return n.reshaped(sizes)


def _squeeze(n: Node) -> Value:
    axes = n.numbers("axes", 1)
    gone = range(len(n.shape)) if axes is None else [a % len(n.shape) for a in axes]
    return n.reshaped([m for i, m in enumerate(n.shape) if m != 1 or i not in gone])


def _unsqueeze(n: Node) -> Value:
    axes = n.numbers("axes", 1) or []
    rank = len(n.shape) + len(axes)
    added, rest = {a % rank for a in axes}, iter(n.shape)
    return n.reshaped([1 if i in added else next(rest, 1) for i in range(rank)])


def _transpose(n: Node) -> Value:
    given = n.attributes.get("perm")
    order = tuple(int(a) for a in given) if given is not None else tuple(range(len(n.shape)))[::-1]
    if sorted(order) != list(range(len(n.shape))):
        n.refuse(f"its perm {order} does not fit an input with {len(n.shape)} axes")
    return n.give(Transpose(order), shape=tuple(n.shape[a] for a in order))


def _slice(n: Node) -> Value:
    starts, ends = n.numbers("starts", 1) or [], n.numbers("ends", 2) or []
    axes = n.numbers("axes", 3) or list(range(len(starts)))
    if set(n.numbers("steps", 4) or [1]) != {1} or not len(starts) == len(ends) == len(axes):
        n.refuse("no layer takes part of an axis with a step")
    value, shape = n.x, list(n.shape)
    for begin, end, axis in zip(starts, ends, axes, strict=True):
        axis %= len(shape)
        start, stop, _ = slice(begin, end).indices(shape[axis])
        if (start, stop) != (0, shape[axis]):
            shape[axis] = max(stop - start, 0)
            value = n.graph.apply(Slice(axis, start, stop), value, n.name, tuple(shape))
    return value


def _gather(n: Node) -> Value:
    axis = n.attributes.get("axis", 0)
    if isinstance(n.inputs[0], np.ndarray):
        rows = n.inputs[1]
        if axis != 0 or n.inputs[0].ndim != 2 or not isinstance(rows, Value):
            n.refuse("a layer can only look up the rows of a table")
        return n.graph.apply(
            Lookup(n.inputs[0]), rows, n.name, (*cast(Shape, rows.shape), n.inputs[0].shape[1])
        )
    indices, axis = n.weight(1), axis % len(n.shape)
    if indices.ndim == 0 and n.shape[axis] == 1:
        return n.reshaped([m for i, m in enumerate(n.shape) if i != axis])
    if indices.ndim != 1:
        n.refuse("no layer picks a single value along an axis")
    shape = (*n.shape[:axis], len(indices), *n.shape[axis + 1 :])
    return n.give(Gather(axis, indices), shape=shape)


_MODES: dict[str, L.PadMode] = {name: mode for mode, name in L.NUMPY_PAD.items()}


def _pad(n: Node) -> Value:
    pads, axes = n.numbers("pads", 1) or [], n.numbers("", 3)
    axes = list(range(len(n.shape))) if axes is None else [a % len(n.shape) for a in axes]
    low = dict(zip(axes, pads[: len(axes)], strict=False))
    high = dict(zip(axes, pads[len(axes) :], strict=False))
    pairs = tuple((low.get(i, 0), high.get(i, 0)) for i in range(len(n.shape)))
    if any(map(any, pairs[:2])) or min(map(min, pairs)) < 0:
        n.refuse("no layer pads the batch or the channels, or by a negative number")
    fill, mode = n.constant(2), n.attributes.get("mode", "constant")
    number = float(n.attributes.get("value", 0.0) if fill is None else fill.reshape(-1)[0])
    if mode == "constant" and number:
        shape = tuple(m + a + b for m, (a, b) in zip(n.shape, pairs, strict=True))
        return n.give(Fill(pairs[2:], number), shape=shape)
    if mode not in _MODES:
        n.refuse(f"no layer pads in the mode {mode!r}")
    return n.give(L.Pad(pairs[2:], _MODES[mode]))


def _resize(n: Node) -> Value:
    factors, sizes = _resize_target(n)
    mode = n.attributes.get("mode", "nearest")
    where = n.attributes.get("coordinate_transformation_mode", "half_pixel")
    where = "asymmetric" if n.opset < 11 else where
    if mode not in ("nearest", "linear") or n.attributes.get("antialias"):
        n.refuse(f"no layer resizes in the mode {mode!r}, or with antialias")
    whole = all(m % k == 0 for k, m in zip(n.shape[2:], sizes, strict=True))
    if mode == "nearest":
        rounding = "floor" if n.opset < 11 else n.attributes.get("nearest_mode", "round_prefer_floor")
        floored = (where, rounding) == ("asymmetric", "floor")
        if not floored and not (whole and where.endswith("half_pixel") and rounding.startswith("round")):
            n.refuse(f"no layer resizes to the nearest pixel with {where} coordinates and {rounding}")
    elif where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        n.refuse(f"no layer resizes linearly with {where} coordinates")
    if factors is not None and any(k * f != m for k, f, m in zip(n.shape[2:], factors, sizes, strict=True)):
        n.refuse(f"its factors {factors} do not give whole sizes from {n.shape[2:]}")
    kind: Any = mode
    scale = tuple(m / k for k, m in zip(n.shape[2:], sizes, strict=True)) if whole else ()
    return n.give(L.Upsample(scale, () if whole else sizes, kind, where == "align_corners"))


def _resize_target(n: Node) -> tuple[tuple[float, ...] | None, tuple[int, ...]]:
    """The factors, or None if sizes are given instead, and the new sizes of the spatial axes."""
    given = (
        n.attributes.get("scales")
        if n.opset < 9
        else n.constant(1 if n.opset < 10 or len(n.inputs) == 2 else 2)
    )
    sizes, axes = (n.numbers("", 3) if n.opset >= 11 else None), n.attributes.get("axes")
    chosen = list(range(len(n.shape))) if axes is None else [int(a) % len(n.shape) for a in axes]
    if sizes:
        new = dict(zip(chosen, sizes, strict=False))
        if any(new.get(i, n.shape[i]) not in (n.shape[i], n.own_batch) for i in (0, 1)):
            n.refuse("only the spatial axes can be resized")
        return None, tuple(new.get(i, n.shape[i]) for i in range(2, len(n.shape)))
    factors = dict(
        zip(chosen, np.asarray(given if given is not None else []).reshape(-1).tolist(), strict=False)
    )
    if not factors or any(factors.get(i, 1) != 1 for i in (0, 1)):
        n.refuse("only the spatial axes can be resized, by constant factors")
    own = tuple(float(factors.get(i, 1)) for i in range(2, len(n.shape)))
    if not all(0 < f < 1e6 for f in own):
        n.refuse(f"its factors are {own}, but must be above 0 and below 1e6")
    return own, tuple(math.floor(m * f) for m, f in zip(n.shape[2:], own, strict=True))


def _depth_to_space(n: Node) -> Value:
    block = int(n.attributes["blocksize"])
    if n.attributes.get("mode", "DCR") != "CRD" and n.shape[1] != block**2:
        n.refuse("no layer has the channel order DCR, only CRD")
    return n.give(L.PixelShuffle(block))


def _concat(n: Node) -> Value:
    values = [i for i in n.inputs if isinstance(i, Value)]
    if len(values) != len(n.inputs):
        n.refuse("no layer joins a constant")
    axis = int(n.attributes["axis"]) % len(n.shape)
    if axis == 0:
        n.refuse("no layer joins along the batch axis")
    return n.graph.join("concatenate", values, n.name, axis)


def _cast(n: Node) -> Value:
    if n.attributes.get("to") not in (1, 10, 11, 7):  # floats, and int64, which an Embedding uses
        n.refuse("no layer converts to integers")
    return n.x


OPERATIONS: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _mean_pool,
    "GlobalAveragePool": lambda n: n.give(L.GlobalMeanPool()),
    "GlobalMaxPool": lambda n: n.give(L.GlobalMaxPool()),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic("add"),
    "Sum": _arithmetic("add"),
    "Sub": _arithmetic("subtract"),
    "Mul": _arithmetic("multiply"),
    "Div": _arithmetic("divide"),
    "Max": _limit(low=True),
    "Min": _limit(low=False),
    "Clip": _clip,
    "Pow": _power,
    "Neg": lambda n: n.give(Activation("affine", (-1.0, 0.0))),
    "Relu": _function("relu"),
    "LeakyRelu": _function("leakyrelu", ("alpha", 0.01)),
    "ThresholdedRelu": _function("trelu", ("alpha", 1.0)),
    "Elu": _function("elu", ("alpha", 1.0)),
    "Celu": _function("celu", ("alpha", 1.0)),
    "Selu": _function("selu"),
    "Sigmoid": _function("sigmoid"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function("hardswish"),
    "Tanh": _function("tanh"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "Mish": _function("mish"),
    "Gelu": _gelu,
    "Shrink": _shrink,
    "PRelu": _prelu,
    "Abs": _function("abs"),
    "Exp": _function("exp"),
    "Sqrt": _function("sqrt"),
    "Sin": _function("sin"),
    "Erf": lambda n: n.give(Erf()),
    "Round": lambda n: n.give(Round()),
    "Softmax": _softmax(log=False),
    "LogSoftmax": _softmax(log=True),
    "Dropout": _dropout,
    "Identity": lambda n: n.x,
    "Cast": _cast,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "ReduceMean": _reduce("mean"),
    "ReduceMax": _reduce("max"),
    "ReduceSum": _reduce("sum"),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "Concat": _concat,
}
