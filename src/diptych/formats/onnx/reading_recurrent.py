"""ONNX's RNN, LSTM and GRU as recurrent layers: see `recurrent` for the axes and the order of the gates."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.formats.onnx.reading_node import Node, Rule
from diptych.formats.onnx.recurrent import ORDERS, RNN_FUNCTIONS
from diptych.formats.views import Tensor
from diptych.model.layers import GRU, LSTM, RNN, Activation, Array, Recurrent

__all__ = ["RECURRENT"]

_USUAL = {RNN: ["Tanh"], LSTM: ["Sigmoid", "Tanh", "Tanh"], GRU: ["Sigmoid", "Tanh"]}


def _recurrent(kind: type[Recurrent]) -> Rule:
    def rule(n: Node) -> list[Tensor | Array]:
        batch_first = n.flag("layout")
        x = n.x if batch_first else n.views.permute(n.x, (1, 0, 2))
        direction = n.attributes.get("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            n.refuse(
                f"its direction is {str(direction)[:40]}, but ONNX has forward, reverse and bidirectional"
            )
        ways = {"forward": [False], "reverse": [True]}.get(direction, [False, True])
        _check(n, kind, x, len(ways))
        outputs = [n.views.last(x, 2, _layer(n, kind, way, reverse)) for way, reverse in enumerate(ways)]
        ends = [n.views.select(y, 1, 0 if back else -1) for y, back in zip(outputs, ways, strict=True)]
        every = _stacked(n, outputs, 2)
        last = _stacked(n, ends, 1)
        if batch_first:
            return [every, last]
        return [n.views.permute(every, (1, 2, 0, 3)), n.views.permute(last, (1, 0, 2))]

    return rule


def _stacked(n: Node, values: list[Tensor], axis: int) -> Tensor:
    rows = []
    for value in values:
        shape = n.views.shape(value)
        rows.append(n.views.reshape(value, (*shape[:axis], 1, *shape[axis:])))
    return rows[0] if len(rows) == 1 else n.views.concatenate(rows, axis)


def _check(n: Node, kind: type[Recurrent], x: Tensor, ways: int) -> None:
    weight, recurrent = n.weight(1), n.weight(2)
    hidden = int(n.attributes.get("hidden_size", recurrent.shape[-1]))
    rows = len(ORDERS[kind]) * hidden
    if weight.shape[:2] != (ways, rows) or recurrent.shape != (ways, rows, hidden) or weight.ndim != 3:
        n.refuse(f"its weights of the shapes {weight.shape} and {recurrent.shape} do not fit {hidden} values")
    lengths = n.constant(4)
    if lengths is not None and np.any(lengths != n.views.shape(x)[1]):
        n.refuse("no layer stops at another step for each sample")
    peepholes = n.constant(7)
    if peepholes is not None and peepholes.any():
        n.refuse("no LSTM has peepholes")
    if kind is LSTM and n.flag("input_forget"):
        n.refuse("no LSTM couples its gates")
    given = n.attributes.get("activations", _USUAL[kind] * ways)
    if kind is not RNN and given != _USUAL[kind] * ways:
        n.refuse(
            f"its activations are {', '.join(map(str, given))[:60]}, but those of the layer are the usual ones"
        )


def _layer(n: Node, kind: type[Recurrent], way: int, reverse: bool) -> Recurrent:
    weight, recurrent = (_gates(kind, n.weight(i)[way]) for i in (1, 2))
    both = n.constant(3)
    rows = len(weight)
    first, second = (None, None) if both is None else (both[way, :rows], both[way, rows:])
    first, second = (None if b is None or not b.any() else _gates(kind, b) for b in (first, second))
    hidden = recurrent.shape[1]
    initial, cell = (_state(n, index, way) for index in (5, 6))
    shared: dict[str, Any] = {
        "weight": weight,
        "recurrent": recurrent,
        "initial": initial,
        "reverse": reverse,
    }
    if kind is GRU and n.flag("linear_before_reset"):
        new = None if second is None or not second[-hidden:].any() else np.array(second[-hidden:])
        if second is not None:
            second = np.concatenate([second[:-hidden], np.zeros(hidden, second.dtype)])
        return GRU(**shared, bias=_sum(first, second), new_bias=new)
    if kind is GRU:
        return GRU(**shared, bias=_sum(first, second), reset="before")
    if kind is LSTM:
        return LSTM(**shared, bias=_sum(first, second), initial_cell=cell)
    return RNN(**shared, bias=_sum(first, second), function=_function(n, way))


def _gates(kind: type[Recurrent], array: Array) -> Array:
    """In the order of our gates, along the first axis."""
    parts = np.split(array, len(ORDERS[kind]))
    return np.concatenate([parts[ORDERS[kind].index(place)] for place in range(len(parts))])


def _sum(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None or not second.any():
        return first if first is not None else second if second is not None and second.any() else None
    return first + second


def _state(n: Node, index: int, way: int) -> Array | None:
    """The state before the first step, the same for every sample; None for zeros."""
    array = n.constant(index)
    if array is None:
        return None
    rows = array[:, way] if n.flag("layout") else array[way]
    if np.any(rows != rows[:1]):
        n.refuse("no recurrent layer begins from another state for each sample")
    return np.array(rows[0]) if rows[0].any() else None


def _function(n: Node, way: int) -> Activation:
    """The activation of an RNN; alpha and beta are listed for those that take them, in order."""
    names = n.attributes.get("activations", ["Tanh"] * (way + 1))
    alphas, betas = (list(n.attributes.get(f"activation_{k}", [])) for k in ("alpha", "beta"))
    taken = [(name, *RNN_FUNCTIONS.get(name, ("", 0))) for name in names[: way + 1]]
    place = [sum(count >= least for _, _, count in taken[:way]) for least in (1, 2)]
    name, ours, count = taken[way]
    if not ours:
        n.refuse(f"no layer has its activation {str(name)[:40]}")
    given = [
        values[at] if at < len(values) else None for values, at in zip((alphas, betas), place, strict=True)
    ]
    kept = [value for value in given[:count] if value is not None]
    if kept and len(kept) < count:
        n.refuse(f"its activation {name} has one of two numbers")
    return Activation(ours, tuple(float(value) for value in kept))


RECURRENT: dict[str, Rule] = {"RNN": _recurrent(RNN), "LSTM": _recurrent(LSTM), "GRU": _recurrent(GRU)}
