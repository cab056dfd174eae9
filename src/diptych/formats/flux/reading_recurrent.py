"""How Flux's recurrent layers and its attention are read.

Up to 0.14 a `Recur` holds a cell, which holds the state before the first step, and its present state. Since 0.15 `RNN`,
`LSTM`, `GRU` and `GRUv3` hold a cell and begin from zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.formats.flux.functions import path_of
from diptych.formats.flux.reading import Fields, FluxReader, LayerRule
from diptych.formats.julia import JuliaStruct
from diptych.formats.julia.arrays import as_array
from diptych.model.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Array,
    Dense,
    Layer,
    MultiHeadAttention,
    Recurrent,
    child_path,
)

__all__ = ["RECURRENT", "attention_and_first"]


def _same(array: Array) -> Array:
    return array


# ---- Cells --------------------------------------------------------------------------------------------


def _shared(f: Fields) -> dict[str, Any]:
    return {
        "weight": f.array("Wi", "same", _same, 2),
        "recurrent": f.array("Wh", "same", _same, 2),
        "bias": f.maybe("bias" if f.has("bias") else "b", "same", _same, 1),
    }


def _initial(f: Fields, value: Any) -> Array | None:
    """(hidden,), or None for zeros."""
    array = f.reader.array(value, "state", _column)
    if array is None or array.ndim != 1 or array.dtype.kind != "f":
        raise f.refuse("does not have one initial state, a vector, for all samples")
    return array if array.any() else None


def _column(array: Array) -> Array:
    """(hidden, 1), as 0.12 to 0.14 store it, as a vector."""
    return array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array


def _states(f: Fields) -> tuple[Any, ...]:
    """The stored states before the first step; none since 0.15."""
    if f.has("state0"):
        stored = f.get("state0")
        return stored if isinstance(stored, tuple) else (stored,)
    return tuple(f.get(name) for name in ("h", "c") if f.has(name))


def _rnn(f: Fields) -> Recurrent:
    value = f.get("σ")
    function, rest = f.reader.activation(value, f.path, f.struct)
    if rest:
        raise f.refuse("has an activation that takes several of ours")
    f.reader.note_function(value, function, f.path)
    initial = [_initial(f, state) for state in _states(f)]
    return RNN(**_shared(f), initial=initial[0] if initial else None, function=function)


def _lstm(f: Fields) -> Recurrent:
    initial = [_initial(f, state) for state in _states(f)] or [None, None]
    if len(initial) != 2:
        raise f.refuse(f"has {len(initial)} initial states, where two are expected")
    return LSTM(**_shared(f), initial=initial[0], initial_cell=initial[1])


def _gru(f: Fields) -> Recurrent:
    initial = [_initial(f, state) for state in _states(f)]
    return GRU(**_shared(f), initial=initial[0] if initial else None)


def _gru_v3(f: Fields) -> Recurrent:
    arrays = _shared(f)
    new = f.array("Wh_h̃", "same", _same, 2)
    hidden = new.shape[0]
    if arrays["recurrent"].shape[0] < 2 * hidden:
        raise f.refuse("has fewer recurrent weights than two gates take")
    arrays["recurrent"] = np.concatenate([arrays["recurrent"][: 2 * hidden], new])  # the rest is not used
    initial = [_initial(f, state) for state in _states(f)]
    return GRU(**arrays, initial=initial[0] if initial else None, reset="before")


_CELLS: dict[str, Callable[[Fields], Recurrent]] = {
    "RNNCell": _rnn,
    "LSTMCell": _lstm,
    "GRUCell": _gru,
    "GRUv3Cell": _gru_v3,
}


def _cell(r: FluxReader, f: Fields) -> tuple[Recurrent, Fields]:
    cell = f.get("cell")
    if not isinstance(cell, JuliaStruct) or cell.type.path[0] != "Flux" or cell.type.name not in _CELLS:
        kind = cell.type.name[:40] if isinstance(cell, JuliaStruct) else type(cell).__name__
        raise f.refuse(f"is a recurrent layer of the cell {kind}, where {', '.join(_CELLS)} are expected")
    fields = r.fields(cell, f.path)
    return _CELLS[cell.type.name](fields), fields


# ---- Layers -------------------------------------------------------------------------------------------


def _recur(r: FluxReader, f: Fields) -> Layer:
    layer, cell = _cell(r, f)
    r.hint(f.path, struct="Recur")
    state = f.get("state")
    present = state if isinstance(state, tuple) else (state,)
    if any(_differ(a, b) for a, b in zip(present, _states(cell), strict=False)):
        r.warn(
            "a recurrent layer was saved with the state that a sequence left behind; Diptych begins every sequence "
            "from the initial state, as Flux does after Flux.reset!(model)"
        )
    return layer


def _differ(a: Any, b: Any) -> bool:
    first, second = as_array(a), as_array(b)
    if first is None or second is None:
        return False
    return first.size != second.size or not np.array_equal(first.reshape(-1), second.reshape(-1))


def _whole_sequence(r: FluxReader, f: Fields) -> Layer:
    layer, _ = _cell(r, f)
    if True in f.type.parameters:
        raise f.refuse(
            "gives its last state beside its output (return_state = true), and a layer gives one array"
        )
    return layer


# ---- Attention ----------------------------------------------------------------------------------------


def _attention(r: FluxReader, f: Fields) -> MultiHeadAttention:
    arrays: dict[str, Array | None] = {}
    for name in ("query", "key", "value", "out"):
        field = f"{name[0]}_proj" if name != "out" else "out_proj"
        made = r.layer(f.get(field), child_path(f.path, 0))
        if not isinstance(made, Dense) or made.activation:
            raise f.refuse(f"has another {field} than a Dense layer without an activation")
        arrays |= {name: made.weight, f"{name}_bias": made.bias}
    query, key, value = (arrays[name] for name in ("query", "key", "value"))
    assert query is not None
    assert key is not None
    assert value is not None
    if not query.shape[1] == key.shape[1] == value.shape[1]:
        raise f.refuse(
            "takes queries, keys and values of different sizes, where models in Diptych have one input"
        )
    dropout = f.get("attn_drop")
    if isinstance(dropout, JuliaStruct) and dropout.type.name == "Dropout":
        probability = r.fields(dropout, f.path).get("p")
        if isinstance(probability, float) and probability:
            r.hint(f.path, dropout=probability)
    arrays_given: Any = arrays
    return MultiHeadAttention(**arrays_given, heads=f.whole("nheads"))


def _lone_attention(r: FluxReader, f: Fields) -> Layer:
    r.warn(
        "MultiHeadAttention gives a pair in Flux, its values and the shares of its attention; Diptych gives the values"
    )
    return _attention(r, f)


def attention_and_first(r: FluxReader, values: tuple[Any, ...], path: str) -> dict[int, Layer]:
    """The layers of a Chain, by their index, that are an attention and the function `first` that takes its values.

    Raises:
        FormatError: Something else than `first` follows an attention and would be given a pair.
    """
    found: dict[int, Layer] = {}
    for index, value in enumerate(values[:-1]):
        if not isinstance(value, JuliaStruct) or value.type.path != ("Flux", "MultiHeadAttention"):
            continue
        where, behind = child_path(path, index), child_path(path, index + 1)
        if path_of(values[index + 1]) not in (("Base", "first"), ("Core", "first")):
            following = getattr(getattr(values[index + 1], "type", None), "name", "a value")
            raise r.refuse(
                where,
                "MultiHeadAttention",
                f"gives a pair, its values and the shares of its attention, and {following[:40]} follows, which would "
                "be given both; put the function first behind it",
            )
        r.hint(where, first="follows")
        r.hint(behind, function=["Base", "first"])
        found |= {index: _attention(r, r.fields(value, where)), index + 1: Activation()}
    return found


RECURRENT: dict[str, LayerRule] = {
    "Recur": _recur,
    **dict.fromkeys(("RNN", "LSTM", "GRU", "GRUv3", "Recurrence"), _whole_sequence),
    "MultiHeadAttention": _lone_attention,
}
