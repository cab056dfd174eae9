"""Recurrent layers and attention as ONNX operations.

ONNX's have the time first, (T, N, features), a leading axis of directions, and their gates in orders of their own: an
LSTM's are input, output, forget, cell, a GRU's update, reset, new.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.errors import UnsupportedLayer
from diptych.formats.onnx.graph import OnnxSite
from diptych.model.layers import GRU, LSTM, RNN, Array, Layer, MultiHeadAttention, Recurrent

__all__ = ["ORDERS", "RECURRENT", "RNN_FUNCTIONS"]

# For each gate of ONNX, the place of the same gate in ours.
ORDERS: dict[type[Recurrent], tuple[int, ...]] = {RNN: (0,), LSTM: (0, 3, 1, 2), GRU: (1, 0, 2)}

# The activations of an ONNX RNN: the name there, our name, and those of our parameters that are alpha and beta.
RNN_FUNCTIONS: dict[str, tuple[str, int]] = {
    "Tanh": ("tanh", 0),
    "Relu": ("relu", 0),
    "Sigmoid": ("sigmoid", 0),
    "Softsign": ("softsign", 0),
    "Softplus": ("softplus", 0),
    "LeakyRelu": ("leakyrelu", 1),
    "ThresholdedRelu": ("trelu", 1),
    "Elu": ("elu", 1),
    "Affine": ("affine", 2),
}


def _recurrent(s: OnnxSite, layer: RNN | LSTM | GRU) -> str:
    name, hidden = type(layer).__name__, layer.hidden
    steps = s.input
    if s.rank > 3:
        steps = s.node("Reshape", steps, s.ints(-1, *s.shape[-2:]))
    elif s.rank == 2:
        steps = s.node("Unsqueeze", steps, s.ints(1))
    steps = s.node("Transpose", steps, perm=(1, 0, 2))
    more: dict[str, Any] = {"hidden_size": hidden, "direction": "reverse" if layer.reverse else "forward"}
    cell = None
    if isinstance(layer, RNN):
        more |= _function(s, layer)
    if isinstance(layer, LSTM):
        cell = layer.initial_cell
    if isinstance(layer, GRU):
        more["linear_before_reset"] = int(layer.reset == "after")
    bias = _bias(s, layer)
    states: list[str] = []
    if cell is not None or layer.initial is not None:
        states = [_state(s, steps, array, hidden) for array in (layer.initial, cell)]
    given = [steps, _gates(s, layer, layer.weight), _gates(s, layer, layer.recurrent), bias, ""]
    given += states if isinstance(layer, LSTM) else states[:1]
    while not given[-1]:
        given.pop()
    outputs = s.node("Squeeze", s.node(name, *given, **more), s.ints(1))
    outputs = s.node("Transpose", outputs, perm=(1, 0, 2))
    if s.rank > 3:
        return s.node("Reshape", outputs, s.ints(-1, *s.shape[1:-1], hidden))
    return outputs if s.rank == 3 else s.node("Squeeze", outputs, s.ints(1))


def _function(s: OnnxSite, layer: RNN) -> dict[str, Any]:
    name, parameters = layer.function.name, layer.function.parameters
    found = next((onnx for onnx, (ours, _) in RNN_FUNCTIONS.items() if ours == name), None)
    if found is None:
        raise UnsupportedLayer(f"{s.path} (RNN)", "ONNX", f"its RNN does not have the activation {name}")
    alphas = dict(zip(("activation_alpha", "activation_beta"), [[p] for p in parameters], strict=False))
    return {"activations": [found], **alphas}


def _gates(s: OnnxSite, layer: Recurrent, array: Array) -> str:
    """The weights with the gates in ONNX's order, behind an axis for the direction."""
    order = ORDERS[type(layer)]
    value = s.weight(array)
    if len(order) > 1:
        parts = [
            s.node("Slice", value, s.ints(i * layer.hidden), s.ints((i + 1) * layer.hidden), s.ints(0))
            for i in order
        ]
        value = s.node("Concat", *parts, axis=0)
    return s.node("Unsqueeze", value, s.ints(0))


def _bias(s: OnnxSite, layer: Recurrent) -> str:
    """The biases of the input and of the recurrence in a row, or "" where there are none."""
    own = layer.new_bias if isinstance(layer, GRU) else None
    rows = layer.GATES * layer.hidden
    if layer.bias is None and own is None:
        return ""
    first = s.constant(np.zeros((1, rows))) if layer.bias is None else _gates(s, layer, layer.bias)
    if own is None:
        return s.node("Concat", first, s.constant(np.zeros((1, rows))), axis=1)
    second = s.node("Unsqueeze", s.weight(own), s.ints(0))
    return s.node("Concat", first, s.constant(np.zeros((1, rows - layer.hidden))), second, axis=1)


def _state(s: OnnxSite, steps: str, array: Array | None, hidden: int) -> str:
    """(1, N, hidden), the same for every sample; `steps` are (T, N, features)."""
    value = s.constant(np.zeros(hidden)) if array is None else s.weight(array)
    batch = s.node("Shape", steps, start=1, end=2)
    return s.node("Expand", value, s.node("Concat", s.ints(1), batch, s.ints(hidden), axis=0))


def _attention(s: OnnxSite, layer: MultiHeadAttention) -> str:
    q, k, v = (
        _heads(s, layer, weight, bias, order)
        for weight, bias, order in (
            (layer.query, layer.query_bias, (0, 2, 1, 3)),
            (layer.key, layer.key_bias, (0, 2, 3, 1)),
            (layer.value, layer.value_bias, (0, 2, 1, 3)),
        )
    )
    scale = s.constant(1 / math.sqrt(layer.query.shape[0] // layer.heads))
    scores = s.node("Softmax", s.node("MatMul", s.node("Mul", q, scale), k), axis=-1)
    mixed = s.node("Transpose", s.node("MatMul", scores, v), perm=(0, 2, 1, 3))
    flat = s.node("Reshape", mixed, s.ints(0, 0, layer.value.shape[0]))
    return _product(s, flat, layer.out, layer.out_bias)


def _heads(
    s: OnnxSite, layer: MultiHeadAttention, weight: Array, bias: Array | None, order: tuple[int, ...]
) -> str:
    projected = _product(s, s.input, weight, bias)
    split = s.node("Reshape", projected, s.ints(0, 0, layer.heads, weight.shape[0] // layer.heads))
    return s.node("Transpose", split, perm=order)


def _product(s: OnnxSite, value: str, weight: Array, bias: Array | None) -> str:
    product = s.node("MatMul", value, s.node("Transpose", s.weight(weight), perm=(1, 0)))
    return product if bias is None else s.node("Add", product, s.weight(bias))


RECURRENT: dict[type[Layer], Callable[[OnnxSite, Any], str]] = {
    RNN: _recurrent,
    LSTM: _recurrent,
    GRU: _recurrent,
    MultiHeadAttention: _attention,
}
