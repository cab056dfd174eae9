"""How recurrent layers and attention become structs of Flux, the inverse of `reading_recurrent`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, LayerRule, fix
from diptych.formats.flux.structs_of_joins import USE_A_PROJECT, permutation
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.model import layers as L
from diptych.model.layers import Array, Layer

__all__ = ["RECURRENT"]

_TIME_LAST = (1, 3, 2)  # from (features, time, N) to (features, N, time), and back


def _same(array: Array) -> Array:
    return array


def _recurrent(s: FluxSite, layer: L.RNN | L.LSTM | L.GRU) -> JuliaStruct:
    if layer.reverse:
        return _reversed(s, layer)
    name = "GRUv3" if isinstance(layer, L.GRU) and layer.reset == "before" else type(layer).__name__
    if isinstance(layer, L.GRU) and layer.new_bias is not None and layer.new_bias.any():
        raise s.refuse(f"its GRU has one bias, without that inside of the reset gate; {USE_A_PROJECT}")
    rank = s.rank or (2 if s.hints.get("struct") == "Recur" else 3)
    if rank > 3:
        raise s.refuse(f"its recurrent layers take one sequence for each sample; {USE_A_PROJECT}")
    return _stateful(s, layer, name, rank) if s.version < (0, 15) else _whole(s, layer, name, rank)


def _reversed(s: FluxSite, layer: Any) -> JuliaStruct:
    shape = s.builder.shapes.get(s.path)
    forward = replace(layer, reverse=False)
    if s.builder.state:  # that of a function is empty
        around = function("Base", "identity")
        return s.chain(around, s.builder.layer(forward, s.path), around)
    if shape is None:
        raise s.refuse("it must know the number of steps to reverse them; give --shape (model.input_shape)")
    if len(shape) == 2:
        return s.builder.layer(forward, s.path)
    flipped = L.Gather(np.arange(shape[1] - 1, -1, -1, dtype=np.float32))
    return s.chain(*(s.builder.layer(part, s.path) for part in (flipped, forward, flipped)))


def _stateful(s: FluxSite, layer: Any, name: str, rank: int) -> JuliaStruct:
    """`Recur(cell, state)` of 0.12 to 0.14, whose sequences are (features, N, time)."""
    if s.version < (0, 12, 7) and (rank == 3 or name == "GRUv3"):
        raise s.refuse("its recurrent layers take one step at a time; write for 0.12.7 or later")
    state: Any = _column(s, layer.initial, layer.hidden)
    if isinstance(layer, L.LSTM):
        state = (state, _column(s, layer.initial_cell, layer.hidden))
    made = s.struct("Recur", cell=_cell(s, layer, name, state0=state), state=state)
    if rank == 2:
        return made
    return s.chain(permutation(_TIME_LAST), made, permutation(_TIME_LAST))


def _column(s: FluxSite, array: Array | None, hidden: int) -> Array:
    if array is None:
        return np.zeros((hidden, 1), np.float32, order="F")
    return s.array(array, "column", lambda a: np.asfortranarray(a.reshape(-1, 1)))


def _whole(s: FluxSite, layer: Any, name: str, rank: int) -> JuliaStruct:
    """`RNN(cell)` of 0.15 and later, whose sequences are (features, time, N)."""
    if layer.initial is not None or (isinstance(layer, L.LSTM) and layer.initial_cell is not None):
        raise s.refuse(
            "its recurrent layers begin from zeros, and this one has a state of its own; write for 0.14, whose layers "
            f"have one (--flux-version 0.14), or {USE_A_PROJECT}"
        )
    made = s.struct(name, cell=_cell(s, layer, name))
    if rank == 3:
        return made
    colon = JuliaStruct(JuliaType(("Base", "Colon")))
    reshape = function("Base", "reshape")
    step = fix("Fix2", reshape, (layer.features, 1, colon))
    return s.chain(step, made, fix("Fix2", reshape, (layer.hidden, colon)))


def _cell(s: FluxSite, layer: Any, name: str, **more: Any) -> JuliaStruct:
    recurrent = layer.recurrent
    if name == "GRUv3":
        more["Wh_h̃"] = s.array(recurrent, "new gate", lambda a: np.asfortranarray(a[2 * layer.hidden :]))
        rows = 2 if s.version < (0, 15) else 3  # since then there are weights that are not used
        recurrent = s.array(recurrent, f"{rows} gates", lambda a: _gates(a, layer.hidden, rows))
    else:
        recurrent = s.array(recurrent, "same", _same)
    bias = s.bias(layer.bias)
    if layer.bias is None and s.version < (0, 15):  # whose cells always have one
        bias = np.zeros(layer.weight.shape[0], np.float32)
    values = {"Wi": s.array(layer.weight, "same", _same), "Wh": recurrent, "b": bias, "bias": bias, **more}
    if isinstance(layer, L.RNN):
        functions = s.functions(layer.function)
        if len(functions) != 1:
            raise s.refuse(f"its RNN takes one named function, and {layer.function.label} takes several")
        values["σ"] = functions[0]
    return s.struct(f"{name}Cell", **values)


def _gates(array: Array, hidden: int, rows: int) -> Array:
    kept = array[: 2 * hidden]
    unused = np.zeros(((rows - 2) * hidden, hidden), array.dtype)
    return np.asfortranarray(np.concatenate([kept, unused]))


def _attention(s: FluxSite, layer: L.MultiHeadAttention) -> JuliaStruct:
    parts: dict[str, JuliaStruct] = {}
    biased = any(b is not None for b in (layer.query_bias, layer.key_bias, layer.value_bias))
    for name in ("query", "key", "value", "out"):
        weight, bias = getattr(layer, name), getattr(layer, f"{name}_bias")
        if bias is None and biased and name != "out":  # the three are of one type
            bias = np.zeros(len(weight), np.float32)
        parts["out_proj" if name == "out" else f"{name[0]}_proj"] = s.struct(
            "Dense",
            weight=s.array(weight, "same", _same),
            bias=s.bias(bias),
            **{"σ": function("Base", "identity")},
        )
    dropout = s.struct(
        "Dropout",
        p=float(s.hints.get("dropout", 0.0)),
        dims=JuliaStruct(JuliaType(("Base", "Colon"))),
        active=None,
        rng=JuliaStruct(JuliaType(("Random", "_GLOBAL_RNG" if s.version < (0, 14) else "TaskLocalRNG"))),
    )
    made = s.struct("MultiHeadAttention", nheads=layer.heads, attn_drop=dropout, **parts)
    return made if s.hints.get("first") == "follows" else s.chain(made, function("Base", "first"))


RECURRENT: dict[type[Layer], LayerRule] = {
    L.RNN: _recurrent,
    L.LSTM: _recurrent,
    L.GRU: _recurrent,
    L.MultiHeadAttention: _attention,
}
