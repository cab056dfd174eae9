"""Causes in recurrent layers and attention: the order of gates, of steps, of heads, of queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from diptych.comparing.hypotheses import Case, Cause, Trial, layer_trials
from diptych.model.layers import GRU, LSTM, RNN, Array, Layer, MultiHeadAttention, Recurrent

__all__ = ["SEQUENCE_CAUSES"]

Change = Callable[[Any], Layer | None]

# What others put first is tried first: ONNX has input, output, forget, cell; TensorFlow input, cell, forget, output.
_GATES: dict[type[Recurrent], tuple[str, ...]] = {
    LSTM: ("input", "forget", "cell", "output"),
    GRU: ("reset", "update", "new"),
}
_MOST_HEADS = 4  # of which every order is tried


def _trials(case: Case, change: Change, what: str) -> Iterator[Trial]:
    changed = {path: change(layer) for path, layer in case.b.layers.items()}
    yield from layer_trials(case, "b", {p: layer for p, layer in changed.items() if layer is not None}, what)


# ---- Recurrent layers ---------------------------------------------------------------------------------


def _with_gates(kind: type[Recurrent], order: tuple[int, ...], layer: Layer) -> Layer | None:
    """The layer whose arrays had its gates in `order`, with them where they belong."""
    if type(layer) is not kind:
        return None
    back = np.argsort(order)
    arrays: dict[str, Any] = {}
    for name in ("weight", "recurrent", "bias"):
        array = getattr(layer, name)
        parts = None if array is None else np.split(array, len(order))
        arrays[name] = None if parts is None else np.concatenate([parts[int(i)] for i in back])
    return replace(layer, **arrays)


def _gates(case: Case) -> Iterator[Trial]:
    for kind, names in _GATES.items():
        if not any(type(layer) is kind for layer in case.b.layers.values()):
            continue
        for order in list(permutations(range(len(names))))[1:]:
            listed = ", ".join(names[i] for i in order)
            yield from _trials(
                case, partial(_with_gates, kind, order), f"the gates of {{layers}} taken as {listed}"
            )


def _update_inverted(layer: Layer) -> Layer | None:
    """A GRU whose update gate says how much is new, where ours says how much is kept: 1 - sigmoid(a) = sigmoid(-a)."""
    if not isinstance(layer, GRU):
        return None
    at = slice(layer.hidden, 2 * layer.hidden)
    arrays = {
        name: array.copy()
        for name in ("weight", "recurrent", "bias")
        if (array := getattr(layer, name)) is not None
    }
    for array in arrays.values():
        array[at] = -array[at]
    return replace(layer, **arrays)


def _reset_elsewhere(layer: Layer) -> Layer | None:
    if not isinstance(layer, GRU):
        return None
    if layer.reset == "before":
        return replace(layer, reset="after")
    return replace(layer, reset="before", new_bias=None)


def _reversed(layer: Layer) -> Layer | None:
    return replace(layer, reverse=not layer.reverse) if isinstance(layer, Recurrent) else None


def _recurrent_transposed(layer: Layer) -> Layer | None:
    """The square blocks of the recurrent weights transposed, gate by gate."""
    if not isinstance(layer, LSTM | GRU | RNN) or layer.hidden < 2:
        return None
    blocks = np.split(layer.recurrent, layer.GATES)
    return replace(layer, recurrent=np.concatenate([block.T for block in blocks]))


# ---- Attention ----------------------------------------------------------------------------------------

_ROLES = ("query", "key", "value")


def _with_roles(order: tuple[int, ...], layer: Layer) -> Layer | None:
    if not isinstance(layer, MultiHeadAttention):
        return None
    fields = {}
    for place, other in enumerate(order):
        for end in ("", "_bias"):
            fields[_ROLES[place] + end] = getattr(layer, _ROLES[other] + end)
    same = len({getattr(layer, name).shape for name in _ROLES}) == 1
    return replace(layer, **fields) if same else None


def _roles(case: Case) -> Iterator[Trial]:
    for order in list(permutations(range(3)))[1:]:
        listed = ", ".join(_ROLES[i] for i in order)
        yield from _trials(
            case, partial(_with_roles, order), f"the first three weights of {{layers}} taken as {listed}"
        )


def _interleaved(to_heads: bool, layer: Layer) -> Layer | None:
    """Rows counted with the head fastest instead of slowest, or the reverse, in the projections."""
    if not isinstance(layer, MultiHeadAttention) or layer.heads < 2:
        return None

    def order(rows: int) -> Array:
        shape = (rows // layer.heads, layer.heads) if to_heads else (layer.heads, rows // layer.heads)
        return np.arange(rows).reshape(shape).T.reshape(-1)

    fields: dict[str, Any] = {}
    for name in (*_ROLES, "query_bias", "key_bias", "value_bias"):
        array = getattr(layer, name)
        if array is not None:
            fields[name] = array[order(len(array))]
    fields["out"] = np.ascontiguousarray(layer.out[:, order(layer.out.shape[1])])
    return replace(layer, **fields)


def _heads_ordered(order: tuple[int, ...], layer: Layer) -> Layer | None:
    """The heads joined in another order."""
    if not isinstance(layer, MultiHeadAttention) or layer.heads != len(order):
        return None
    columns = np.split(layer.out, layer.heads, axis=1)
    return replace(layer, out=np.concatenate([columns[i] for i in order], axis=1))


def _heads(case: Case) -> Iterator[Trial]:
    own = [layer for layer in case.b.layers.values() if isinstance(layer, MultiHeadAttention)]
    others = {layer.heads for layer in case.a.layers.values() if isinstance(layer, MultiHeadAttention)}
    for heads in sorted(others):
        yield from _trials(case, partial(_counted, heads), f"{heads} heads in {{layers}}")
    for to_heads, what in ((True, "fastest"), (False, "slowest")):
        yield from _trials(
            case,
            partial(_interleaved, to_heads),
            f"the rows of {{layers}} taken with the head counted {what}",
        )
    for count in sorted({layer.heads for layer in own if layer.heads <= _MOST_HEADS}):
        for order in list(permutations(range(count)))[1:]:
            listed = ", ".join(str(i + 1) for i in order)
            yield from _trials(
                case, partial(_heads_ordered, order), f"the heads of {{layers}} joined as {listed}"
            )


def _counted(heads: int, layer: Layer) -> Layer | None:
    if not isinstance(layer, MultiHeadAttention) or layer.heads == heads:
        return None
    divides = len(layer.query) % heads == 0 and len(layer.value) % heads == 0
    return replace(layer, heads=heads) if divides else None


def _scale(case: Case) -> Iterator[Trial]:
    """Scores that were not divided by the root of the size of a head, or twice, or by that of all heads."""
    for what, factor in (
        (
            "scores of {layers} not divided by the root of the size of a head",
            lambda a: (len(a.query) / a.heads) ** 0.5,
        ),
        ("scores of {layers} divided by it twice", lambda a: (len(a.query) / a.heads) ** -0.5),
        ("scores of {layers} divided by the root of the size of all heads", lambda a: a.heads**-0.5),
    ):
        yield from _trials(case, partial(_scaled, factor), what)


def _scaled(factor: Callable[[MultiHeadAttention], float], layer: Layer) -> Layer | None:
    if not isinstance(layer, MultiHeadAttention):
        return None
    by = np.float32(factor(layer))
    bias = None if layer.query_bias is None else layer.query_bias * by
    return replace(layer, query=layer.query * by, query_bias=bias)


def _attention_transposed(layer: Layer) -> Layer | None:
    if not isinstance(layer, MultiHeadAttention):
        return None
    weights: dict[str, Any] = {name: getattr(layer, name) for name in (*_ROLES, "out")}
    if any(w.shape[0] != w.shape[1] for w in weights.values()):
        return None
    turned: dict[str, Any] = {name: np.ascontiguousarray(w.T) for name, w in weights.items()}
    return replace(layer, **turned)


SEQUENCE_CAUSES: tuple[Cause, ...] = (
    Cause(
        "gates in another order",
        "an LSTM has the gates input, forget, cell, output in PyTorch and Flux, input, output, forget, cell in ONNX, "
        "input, cell, forget, output in TensorFlow; a GRU as reset, update, new, or update, reset, new",
        _gates,
    ),
    Cause(
        "update gate inverted",
        "the update gate of a GRU says how much of the state is kept, in other code how much is new",
        lambda case: _trials(case, _update_inverted, "the update gate of {layers} inverted"),
    ),
    Cause(
        "reset before or after the product",
        "a GRU of PyTorch or Flux resets its state behind the product with the recurrent weights, GRUv3 before it",
        lambda case: _trials(
            case, _reset_elsewhere, "the state of {layers} reset on the other side of the product"
        ),
    ),
    Cause(
        "time reversed in a layer",
        "one side runs a sequence from its last step to its first",
        lambda case: _trials(case, _reversed, "{layers} run in the other direction"),
    ),
    Cause(
        "recurrent weights transposed",
        "recurrent weights are (out, in) gate by gate; these are (in, out), which their square shape does not show",
        lambda case: _trials(case, _recurrent_transposed, "the recurrent weights of {layers} transposed"),
    ),
    Cause(
        "queries, keys and values exchanged",
        "the three projections of an attention have the same shape, and one side has them in another order",
        _roles,
    ),
    Cause(
        "heads split or joined differently",
        "the rows of the projections are counted head by head, in other code with the head fastest; or the heads have "
        "another number or order",
        _heads,
    ),
    Cause(
        "scores of the attention scaled differently",
        "scores are divided by the root of the size of a head",
        _scale,
    ),
    Cause(
        "attention weights transposed",
        "the weights of an attention are (out, in); these are (in, out), which their square shape does not show",
        lambda case: _trials(case, _attention_transposed, "the weights of {layers} transposed"),
    ),
)
