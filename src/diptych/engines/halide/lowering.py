"""Expresses the layers of a prepared filter as Halide functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import halide as hl
import numpy as np

from diptych.engines.halide.elementwise import Expr, activated, number
from diptych.engines.halide.values import C, InputPicture, LayerValue, X, Y, of_channels, padded, pointwise
from diptych.model import layers as L
from diptych.model.layers import Array, Chain, Connection, Layer

__all__ = ["joined", "layer_value", "pads_first"]

UNROLLED = 300  # a convolution with more weights other than 0 is a loop over a table of weights
BLOCK = (
    6  # channels that this loop computes at a time; with two vectors each they take 12 of AVX2's 16 registers
)


def layer_value(layer: Layer, value: LayerValue, picture: InputPicture) -> LayerValue:
    """The output of a layer without children, including its activation.

    Args:
        layer: A layer of a `PreparedFilter`.
        value: Its input.
        picture: The picture that the filter is applied to.
    """
    if isinstance(layer, L.Pad):
        return _pad(layer, value, picture)
    if isinstance(layer, L.Activation):
        return pointwise([value], lambda x: activated(layer, x))
    if isinstance(layer, L.Scale):
        return _scale(layer, value)
    if isinstance(layer, L.MaxPool | L.MeanPool):
        return _pool(layer, value, picture)
    assert isinstance(layer, L.Conv)
    return _conv(layer, value, picture)


def _pad(layer: L.Pad, value: LayerValue, picture: InputPicture) -> LayerValue:
    return picture.padded(value, layer) or padded(value, layer, picture)


def _scale(layer: L.Scale, value: LayerValue) -> LayerValue:
    count = max(value.channels, layer.scale.size)
    scale = np.broadcast_to(layer.scale.ravel(), (count,))
    bias = None if layer.bias is None else np.broadcast_to(layer.bias.ravel(), (count,))
    weight = np.diag(scale) if value.channels == count else scale[:, None]
    return _few(L.Conv(weight[:, :, None, None], bias, activation=layer.activation), value)


def joined(connection: Connection, values: Sequence[LayerValue]) -> LayerValue:
    """The output of a connection, from the values of its branches."""
    if connection.operation == "concatenate":
        return _concatenated(values)
    return reduce(_PAIRWISE[connection.operation], values)


def _pointwise(function: Callable[[Any, Any], Any]) -> Callable[[LayerValue, LayerValue], LayerValue]:
    return lambda first, second: pointwise([first, second], function)


_PAIRWISE: dict[str, Callable[[Any, Any], LayerValue]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "subtract": operator.sub,
    "divide": _pointwise(operator.truediv),
    "maximum": _pointwise(hl.max),
    "minimum": _pointwise(hl.min),
}


def _concatenated(values: Sequence[LayerValue]) -> LayerValue:
    """The channels of all values, one after the other."""
    sources = [(value, True) for value in values]
    if all(v.tuple or v.copies for v in values):
        exprs = [v.read(X, Y, c) for v in values for c in range(v.channels)]
        return of_channels(sources, exprs, values[0].grown)
    first = 0
    expr: Expr = None
    for value in values:
        read = value.read(X, Y, hl.clamp(C - first, 0, value.channels - 1))
        expr = read if expr is None else hl.select(first > C, expr, read)
        first += value.channels
    func = hl.Func("concatenated")
    func[X, Y, C] = expr
    return LayerValue(func, first, values[0].grown, sources, tuple=False)


# ---- Windows -------------------------------------------------------------------------------------------


def _pool(layer: L.MaxPool | L.MeanPool, value: LayerValue, picture: InputPicture) -> LayerValue:
    """The pool along one axis after the other, so that the cost is the sum of the window's sides, not the product."""
    rows, columns = layer.kernel
    value = _slid(layer, picture.often(value), 1, columns)
    value = _slid(layer, value, rows, 1)
    if isinstance(layer, L.MaxPool):
        return value
    share = number(1 / (rows * columns))
    return pointwise([value], lambda x: x * share)


def _slid(layer: L.MaxPool | L.MeanPool, value: LayerValue, rows: int, columns: int) -> LayerValue:
    if rows * columns == 1:
        return value
    join: Callable[[Expr, Expr], Expr] = hl.max if isinstance(layer, L.MaxPool) else lambda a, b: a + b
    value.rows = max(value.rows, rows)
    grown = (value.grown[0] - rows + 1, value.grown[1] - columns + 1)

    def window(c: int | Expr) -> Expr:
        return reduce(join, (value.read(X + j, Y + i, c) for i in range(rows) for j in range(columns)))

    if value.tuple or value.copies:
        return of_channels([(value, False)], [window(c) for c in range(value.channels)], grown)
    func = hl.Func("pooled")
    func[X, Y, C] = window(C)
    return LayerValue(func, value.channels, grown, [(value, False)], tuple=False)


def _conv(layer: L.Conv, value: LayerValue, picture: InputPicture) -> LayerValue:
    if layer.weight.shape[2:] != (1, 1):
        value = picture.often(value)
    value.rows = max(value.rows, 1 + layer.dilation[0] * (layer.weight.shape[2] - 1))
    if np.count_nonzero(layer.weight) <= UNROLLED:
        return _few(layer, value)
    return _many(layer, value if not value.tuple else _spread(value))


def _few(layer: L.Conv, value: LayerValue) -> LayerValue:
    """A sum without a loop, in which weights of 0 are left out, and weights of 1 and -1 need no multiplication."""
    outputs, per_group, *kernel = layer.weight.shape
    each = outputs // layer.groups

    def total(output: int) -> Expr:
        result = None
        for tap in np.argwhere(layer.weight[output]):
            channel, i, j = map(int, tap)
            x, y = X + j * layer.dilation[1], Y + i * layer.dilation[0]
            term = value.read(x, y, output // each * per_group + channel)
            result = _plus(result, float(np.float32(layer.weight[(output, *tap)])), term)
        if result is None:
            result = number(0)
        if layer.bias is not None and layer.bias[output] != 0:
            result = result + number(layer.bias[output])
        return activated(layer.activation, result)

    sources = [(value, kernel == [1, 1])]
    return of_channels(sources, [total(o) for o in range(outputs)], _shrunk(layer, value))


def _plus(total: Expr, weight: float, term: Expr) -> Expr:
    if abs(weight) != 1:
        return term * number(weight) if total is None else total + term * number(weight)
    if total is None:
        return term if weight == 1 else -term
    return total + term if weight == 1 else total - term


def _shrunk(layer: L.Conv, value: LayerValue) -> tuple[int, int]:
    rows, columns = layer.weight.shape[2:]
    return (
        value.grown[0] - layer.dilation[0] * (rows - 1),
        value.grown[1] - layer.dilation[1] * (columns - 1),
    )


def _many(layer: L.Conv, value: LayerValue) -> LayerValue:
    """Sums computed by a loop over the weights, for a block of channels at a time."""
    outputs, per_group, rows, columns = layer.weight.shape
    each = outputs // layer.groups
    whole = -(-outputs // BLOCK) * BLOCK
    table, bias = _owned(_table(layer, whole)), _owned(_biases(layer, whole))
    taps = hl.RDom([(0, per_group), (0, columns), (0, rows)], "taps")
    group = 0 if layer.groups == 1 else hl.min(C, outputs - 1) // each * per_group
    sums = hl.Func("sums")
    sums[X, Y, C] = bias[C]
    seen = value.read(X + taps.y * layer.dilation[1], Y + taps.z * layer.dilation[0], group + taps.x)
    sums[X, Y, C] += table[C, taps.x, taps.y, taps.z] * seen
    func = hl.Func("convolved")
    func[X, Y, C] = activated(layer.activation, sums[X, Y, C])
    sources = [(value, (rows, columns) == (1, 1))]
    return LayerValue(func, outputs, _shrunk(layer, value), sources, tuple=False, sums=(sums, taps))


def _owned(array: Array) -> Any:
    """A copy that lives as long as the program that reads it."""
    return hl.Buffer(array).copy()


def _table(layer: L.Conv, whole: int) -> Array:
    """The weights (kernel rows, kernel columns, inputs, `whole`), the last axis filled up with 0."""
    ordered = np.asarray(layer.weight, np.float32).transpose(2, 3, 1, 0)
    table = np.zeros((*ordered.shape[:3], whole), np.float32)
    table[..., : ordered.shape[3]] = ordered
    return table


def _biases(layer: L.Conv, whole: int) -> Array:
    biases = np.zeros(whole, np.float32)
    if layer.bias is not None:
        biases[: len(layer.bias)] = layer.bias
    return biases


def _spread(value: LayerValue) -> LayerValue:
    """A tuple as a function of the channel, for use in a loop."""
    func = hl.Func("spread")
    func[X, Y, C] = value.read(X, Y, C)
    return LayerValue(func, value.channels, value.grown, [(value, True)], tuple=False, rows=value.rows)


# ---- Order ---------------------------------------------------------------------------------------------


def pads_first(chain: Chain) -> Chain:
    """The same filter with every `Pad` moved before preceding layers that work on single pixels.

    Padding the picture itself costs nothing, since its pixels are copied anyway.
    """
    done: list[Layer] = []
    for layer in chain.layers:
        at = len(done)
        if isinstance(layer, L.Pad):
            while at and _changes_places(done[at - 1], layer):
                at -= 1
        done.insert(at, _inside(layer))
    return Chain(tuple(done))


def _inside(layer: Layer) -> Layer:
    if isinstance(layer, Chain):
        return pads_first(layer)
    return layer.with_children([_inside(child) for child in layer.children])


def _changes_places(layer: Layer, pad: L.Pad) -> bool:
    if not isinstance(layer, L.Activation | L.Scale | L.Conv):
        return False
    if isinstance(layer, L.Conv) and layer.weight.shape[2:] != (1, 1):
        return False
    if pad.mode != "zero":
        return True
    bias: Any = getattr(layer, "bias", None)
    activation = layer if isinstance(layer, L.Activation) else layer.activation
    return (bias is None or not np.any(bias)) and activation.name in _KEEPS_ZERO


_KEEPS_ZERO = ("identity", "relu", "relu6", "leakyrelu", "abs", "abs2", "sqrt", "tanh", "sin", "softsign")
