"""`nn.RNN`, `nn.LSTM` and `nn.GRU`, and the operations of ATen that they become, as recurrent layers.

PyTorch adds two biases; together they are one of ours, but for the new gate of a GRU, whose second one is reset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from diptych.errors import ModelError
from diptych.formats.graph import Operation, refusal
from diptych.formats.torch import recurrent as R
from diptych.formats.torch.site import TorchSite
from diptych.formats.torch.tensor_calls import TensorSite
from diptych.formats.views import Tensor, View
from diptych.model import layers as L
from diptych.model.layers import Array

__all__ = ["ATEN_RECURRENT", "LastStates", "of_module", "own_module"]

_KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def of_module(s: TensorSite, module: nn.RNNBase, x: Tensor, hx: Any = None) -> Any:
    """The output at every step and the last state, in the axes that the module gives them.

    Raises:
        UnsupportedLayer: The module projects its output, or its first state depends on the input.
    """
    if module.proj_size:
        s.refuse("no layer is an LSTM that projects its output")
    names: Any = module._flat_weights_names
    weights = [getattr(module, name) for name in names]
    shape = (module.num_layers, module.bidirectional, module.batch_first)
    return _layers(s, _KINDS[module.mode], x, hx, weights, module.bias, *shape)


def _aten(kind: str) -> Callable[..., Any]:
    def rule(
        s: TensorSite,
        x: Tensor,
        hx: Any,
        params: Sequence[torch.Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        result = _layers(s, kind, x, hx, params, has_biases, num_layers, bidirectional, batch_first)
        output, state = result
        return (output, *state) if isinstance(state, tuple) else result

    return rule


ATEN_RECURRENT: dict[str, Callable[..., Any]] = {kind: _aten(kind) for kind in _KINDS.values()}


def _layers(
    s: TensorSite,
    kind: str,
    x: Tensor,
    hx: Any,
    weights: Sequence[torch.Tensor],
    biased: bool,
    count: int,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    x = x if batch_first else s.permute(x, (1, 0, 2))
    if isinstance(x, View) and x.at != 0:
        behind = "" if batch_first else " behind the time (batch_first=False): permute the input before"
        s.refuse(f"its batch is not the first axis{behind}")
    if x.shape is not None and len(x.shape) != 3:
        s.refuse("a recurrent layer takes (N, time, features)")
    directions, each = 1 + bidirectional, 4 if biased else 2
    places = count * directions
    if len(weights) != places * each:
        s.refuse("no layer is an LSTM that projects its output")
    states = hx if isinstance(hx, tuple | list) else (hx,)
    first = [_states(s, state, places) for state in states]
    ends: list[Tensor] = []
    for place in range(0, places, directions):
        outputs = []
        for direction in range(directions):
            at = place + direction
            own = [s.array(w) for w in weights[at * each : (at + 1) * each]]
            initial = [state[at] for state in first]
            layer = _layer(kind, own, initial, reverse=direction == 1)
            output = s.last(x, 2, layer)
            outputs.append(output)
            if x.shape is not None:
                ends.append(s.select(output, 1, 0 if direction else -1))
        x = outputs[0] if directions == 1 else s.concatenate(outputs, 2)
    result = x if batch_first else s.permute(x, (1, 0, 2))
    last = LastStates(ends)
    return result, ((last, LastStates(refused=s.name)) if kind == "lstm" else last)


class LastStates:
    """(layers and directions, N, hidden): the last outputs, each (N, hidden), of which most code takes one.

    Args:
        ends: The outputs.
        refused: The name of the LSTM of which these are the cell states, which no layer gives.
    """

    def __init__(self, ends: Sequence[Tensor] = (), refused: str = "") -> None:
        self._ends, self._refused = list(ends), refused

    def chosen(self, name: str, args: Sequence[Any]) -> Tensor | list[Tensor] | None:
        """What `name`, applied to these with further arguments, takes out of them as they are; None for others."""
        ends = self.known(name)
        if name == "unbind" and args in ([], [0]):
            return ends
        at = args[0] if name == "getitem" else args[1] if name == "select" and args[0] == 0 else None
        return ends[at] if isinstance(at, int) and -len(ends) <= at < len(ends) else None

    def stacked(self, s: TensorSite) -> Tensor:
        """All of them as one value."""
        rows = [s.reshape(end, (s.shape(end)[0], 1, s.shape(end)[1])) for end in self.known(s.name)]
        return s.permute(s.concatenate(rows, 1) if len(rows) > 1 else rows[0], (1, 0, 2))

    def known(self, name: str) -> list[Tensor]:
        """The outputs. Raises `UnsupportedLayer` where they are not known."""
        if self._refused:
            raise refusal(self._refused, f"no layer gives the last cell state, which {name} takes")
        if not self._ends:
            raise ModelError(f"{name} depends on the size of its input: give from_torch an example=batch")
        return self._ends


def _states(s: TensorSite, state: Any, places: int) -> list[Array | None]:
    """The state before the first step for each layer and direction, None for zeros."""
    if state is None:
        return [None] * places
    if not isinstance(state, torch.Tensor):
        s.refuse("no recurrent layer begins from a state that depends on the input")
    if state.ndim == 2:
        state = state.unsqueeze(1)
    if not bool((state == state[:, :1]).all()):
        s.refuse("no recurrent layer begins from another state for each sample")
    rows = [np.array(row) for row in state[:, 0].float().cpu().numpy()]
    return [row if row.any() else None for row in rows]


def _layer(kind: str, own: list[Array], initial: list[Array | None], reverse: bool) -> L.Recurrent:
    weight, recurrent = own[:2]
    first, second = own[2:] if len(own) == 4 else (None, None)
    start = initial[0]
    if kind == "gru":
        bias, new = _gru_biases(first, second, recurrent.shape[1])
        return L.GRU(weight, recurrent, bias, start, reverse, new)
    bias = first if second is None or first is None or not second.any() else first + second
    if kind == "lstm":
        return L.LSTM(weight, recurrent, bias, start, reverse, initial[1] if len(initial) > 1 else None)
    return L.RNN(weight, recurrent, bias, start, reverse, L.Activation(kind.removeprefix("rnn_")))


def _gru_biases(first: Array | None, second: Array | None, hidden: int) -> tuple[Array | None, Array | None]:
    if first is None or second is None:
        return None, None
    shared, new = second[: 2 * hidden], second[2 * hidden :]
    bias = first
    if shared.any():
        bias = first + np.concatenate([shared, np.zeros(hidden, second.dtype)])
    if not new.any():
        return bias, None
    return bias if bias.any() else None, np.array(new)


# ---- Modules of this package ----------------------------------------------------------------------------


def own_module(s: TorchSite, module: Any, activation: Callable[[Any], L.Activation]) -> list[Operation]:
    """The layer that `building` made the module of.

    Args:
        s: The place in the graph.
        module: One of those of `recurrent`.
        activation: Gives the activation that a module inside computes.
    """
    if isinstance(module, R.MultiHeadAttention):
        parts = {name: getattr(module, name) for name in ("query", "key", "value", "out")}
        weights: dict[str, Any] = {name: s.weight(part.weight) for name, part in parts.items()}
        weights |= {f"{name}_bias": s.array(part.bias) for name, part in parts.items()}
        return [L.MultiHeadAttention(**weights, heads=module.heads)]
    named = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    tensors = [getattr(module, name, None) for name in named]
    weight, recurrent, bias, second = (s.array(tensor) for tensor in tensors)
    assert weight is not None
    assert recurrent is not None
    start, cell = s.array(module.initial), s.array(module.initial_cell)
    if isinstance(module, R.GRUResetBefore):
        return [L.GRU(weight, recurrent, bias, start, module.reverse, reset="before")]
    if isinstance(module, R.RNNOfAny):
        return [L.RNN(weight, recurrent, bias, start, module.reverse, activation(module.activation))]
    kind = _KINDS[module.mode]
    kept = [weight, recurrent] if bias is None or second is None else [weight, recurrent, bias, second]
    return [_layer(kind, kept, [start, cell], module.reverse)]
