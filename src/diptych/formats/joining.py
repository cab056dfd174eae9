"""The arrays of PyTorch's recurrent layers and attention, which are several there and one layer here.

    rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0      each direction of each layer
    att.in_proj_weight, att.in_proj_bias, att.out_proj.weight               nn.MultiheadAttention
    attn.qkv.weight, attn.proj.weight; att.query.weight, att.key.weight ...  the modules that others write

Both have the gates in one order: input, forget, cell, output of an LSTM, and reset, update, new of a GRU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from diptych.model import layers as L
from diptych.model.layers import Array, Layer

__all__ = ["Joined", "cell_of", "fits", "in_order", "joined", "resets_elsewhere", "with_arrays"]

Group = dict[str, Array]
_CELL = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)(?:_l(\d+)(_reverse)?)?")
_GATES: dict[int, Literal["RNN", "GRU", "LSTM"]] = {1: "RNN", 3: "GRU", 4: "LSTM"}
_PARTS = ("query", "key", "value", "out")
_TOGETHER = re.compile(r"(?:in_proj|to_)?qkv(?:_proj)?|in_proj|Wqkv|query_key_value", re.IGNORECASE)
_ROLES = (
    re.compile(r"(?:to_|w_?|lin_?)?(?:q|query|queries)(?:_?proj|_?lin|_?linear)?", re.IGNORECASE),
    re.compile(r"(?:to_|w_?|lin_?)?(?:k|key|keys)(?:_?proj|_?lin|_?linear)?", re.IGNORECASE),
    re.compile(r"(?:to_|w_?|lin_?)?(?:v|value|values)(?:_?proj|_?lin|_?linear)?", re.IGNORECASE),
    re.compile(
        r"proj|(?:to_|w_?)?(?:o|out|output)(?:_?proj|_?lin|_?linear|\.0|\.dense)?|c_proj|dense", re.IGNORECASE
    ),
)


class Joined(Group):
    """The arrays of one layer, under the names of its fields.

    Attributes:
        kind: "RNN", "GRU", "LSTM" or "attention".
        reverse: Whether PyTorch runs the layer from the last step to the first.
        of_torch: Whether it may be a module of `torch.nn`, whose biases are two or none.
    """

    def __init__(
        self, kind: str, arrays: Mapping[str, Array | None], reverse: bool = False, of_torch: bool = True
    ) -> None:
        super().__init__({name: array for name, array in arrays.items() if array is not None})
        self.kind, self.reverse, self.of_torch = kind, reverse, of_torch


def joined(groups: Mapping[str, Group], attention: bool) -> dict[str, Group]:
    """The groups with those of one recurrent layer, and of one attention, made one each.

    Args:
        groups: The arrays of each module by the module's name.
        attention: Whether modules that are attention by their names alone are joined, too.
    """
    found: dict[str, Group] = {}
    taken: set[str] = set()
    for place, group in groups.items():
        if place in taken:
            continue
        cells = _cells(place, group)
        whole = None if cells else _of_torch(place, groups) or (_named(place, groups) if attention else None)
        if cells:
            found |= cells
        elif whole is not None:
            layer, parts = whole
            found[place] = layer
            taken |= parts
        else:
            found[place] = group
    return {place: group for place, group in found.items() if place not in taken or isinstance(group, Joined)}


def fits(group: Group, layer: Layer) -> bool:
    """Whether the arrays are those of a recurrent layer or an attention, of its sizes; biases may be there or not."""
    if not isinstance(group, Joined):
        return False
    if isinstance(layer, L.MultiHeadAttention):
        return group.kind == "attention" and all(
            group[name].shape == getattr(layer, name).shape for name in _PARTS
        )
    if not isinstance(layer, L.Recurrent) or group.kind != type(layer).__name__:
        return False
    return (
        group["weight"].shape == layer.weight.shape
        and group["recurrent"].shape == layer.recurrent.shape
        and not resets_elsewhere(group, layer)
        and not (layer.reverse and not group.reverse)
    )


def resets_elsewhere(group: Group, layer: Layer) -> bool:
    """Whether a layer is a GRU that resets before the product, and the arrays are of PyTorch's, which does it after."""
    before = isinstance(layer, L.GRU) and layer.reset == "before"
    return before and isinstance(group, Joined) and group.kind == "GRU" and group.of_torch


def with_arrays(group: Group, layer: Layer) -> dict[str, Array | None]:
    """The fields of a layer that a group fits, with None for biases that the group lacks."""
    if isinstance(layer, L.MultiHeadAttention):
        names: tuple[str, ...] = (*_PARTS, *(f"{name}_bias" for name in _PARTS))
    else:
        names = ("weight", "recurrent", "bias", *(("new_bias",) if isinstance(layer, L.GRU) else ()))
    return {name: group.get(name) for name in names}


def in_order(layers: Sequence[Layer], groups: Mapping[str, Group]) -> dict[str, Group]:
    """Groups in the order of the layers, with those joined whose sizes are an attention's where one stands.

    Args:
        layers: Those that have arrays, in order.
        groups: In order.
    """
    left = list(groups.items())
    found: dict[str, Group] = {}
    for layer in layers:
        if not left:
            break
        count = 1
        place, group = left[0]
        if isinstance(layer, L.MultiHeadAttention) and not isinstance(group, Joined):
            for count in (2, 4):
                parts = [each for _, each in left[:count] if set(each) <= {"weight", "bias"}]
                whole = _together(parts) if len(parts) == count else None
                if whole is not None and fits(whole, layer):
                    group = whole
                    break
            else:
                count = 1
        found[place] = group
        left = left[count:]
    return found | dict(left)


# ---- Recurrent layers -----------------------------------------------------------------------------------


def _cells(place: str, group: Group) -> dict[str, Group] | None:
    """Each layer and direction of a recurrent module; None for other modules."""
    matches = {name: _CELL.fullmatch(name) for name in group}
    if not matches or not all(matches.values()):
        return None
    directions = 2 if any(name.endswith("_reverse") for name in group) else 1
    parts: dict[int, Group] = {}
    for name, match in matches.items():
        assert match is not None
        number = int(match[2] or 0) * directions + bool(match[3])
        parts.setdefault(number, {})[match[1]] = group[name]
    found: dict[str, Group] = {}
    for number, arrays in sorted(parts.items()):
        cell = cell_of(arrays, directions == 2 and number % 2 == 1)
        if cell is None:
            return None
        found[f"{place}.{number}" if len(parts) > 1 else place] = cell
    return found


def cell_of(arrays: Group, reverse: bool = False) -> Joined | None:
    """The arrays of one layer from `weight_ih`, `weight_hh` and, where there are biases, `bias_ih` and `bias_hh`."""
    weight, recurrent = arrays.get("weight_ih"), arrays.get("weight_hh")
    if weight is None or recurrent is None or recurrent.ndim != 2 or not recurrent.shape[1]:
        return None
    rows, hidden = recurrent.shape
    kind = _GATES.get(rows // hidden) if rows % hidden == 0 else None
    if kind is None or weight.shape[:1] != (rows,):
        return None
    first, second = arrays.get("bias_ih"), arrays.get("bias_hh")
    if any(bias is not None and bias.shape != (rows,) for bias in (first, second)):
        return None
    fields: dict[str, Array | None] = {"weight": weight, "recurrent": recurrent}
    if first is None or second is None:
        one = first if second is None else second
        return Joined(kind, fields | {"bias": one}, reverse, of_torch=one is None)
    if kind == "GRU":  # the second bias of the new gate stands inside of the reset gate
        shared = np.concatenate([second[: 2 * hidden], np.zeros(hidden, second.dtype)])
        new = np.array(second[2 * hidden :])
        return Joined(
            kind, fields | {"bias": first + shared, "new_bias": new if new.any() else None}, reverse
        )
    return Joined(kind, fields | {"bias": first + second}, reverse)


# ---- Attention ------------------------------------------------------------------------------------------

_Found = tuple[Joined, set[str]]


def _of_torch(place: str, groups: Mapping[str, Group]) -> _Found | None:
    """An `nn.MultiheadAttention`, and the names of its parts."""
    group = groups[place]
    after = f"{place}.out_proj" if place else "out_proj"
    allowed = {"in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
    if (
        after not in groups
        or not group.keys() <= allowed
        or len(group.keys() - {"in_proj_bias"}) not in (1, 3)
    ):
        return None
    if "in_proj_weight" in group:
        weights = _thirds(group["in_proj_weight"])
    else:
        weights = [group[f"{name}_proj_weight"] for name in "qkv"]
    biases = _thirds(group.get("in_proj_bias"))
    if weights is None or biases is None:
        return None
    return _attention(weights, biases, groups[after]), {place, after}


def _named(place: str, groups: Mapping[str, Group]) -> _Found | None:
    """An attention that consists of linear layers, found by their names from the first of them on."""
    parent, _, last = place.rpartition(".")
    inside = {
        name[len(parent) + 1 :] if parent else name: name
        for name, group in groups.items()
        if (name.startswith(f"{parent}.") or not parent) and _is_linear(group)
    }
    outs = [name for short, name in inside.items() if _ROLES[3].fullmatch(short)]
    if not outs and parent:  # one level out, as in attention.attention.query and attention.output.dense
        above = parent.rpartition(".")[0]
        start = f"{above}." if above else ""
        outs = [
            name
            for name, group in groups.items()
            if name.startswith(start) and _ROLES[3].fullmatch(name[len(start) :]) and _is_linear(group)
        ]
    if len(outs) != 1 or place in outs or not _is_linear(groups[place]):
        return None
    if _TOGETHER.fullmatch(last):
        names = [place, outs[0]]
    else:
        found = [[n for short, n in inside.items() if role.fullmatch(short)] for role in _ROLES[:3]]
        if any(len(each) != 1 for each in found):
            return None
        names = [*(each[0] for each in found), outs[0]]
    whole = _together([groups[name] for name in names]) if place in names else None
    return None if whole is None else (whole, set(names))


def _is_linear(group: Group) -> bool:
    return "weight" in group and group["weight"].ndim == 2 and group.keys() <= {"weight", "bias"}


def _together(parts: Sequence[Group]) -> Joined | None:
    """An attention from a layer for queries, keys and values and one for the output, or from one for each of them."""
    *projections, out = parts
    if not all(_is_linear(part) for part in parts):
        return None
    if len(projections) == 3:
        return _attention([p["weight"] for p in projections], [p.get("bias") for p in projections], out)
    weights, biases = _thirds(projections[0]["weight"]), _thirds(projections[0].get("bias"))
    return None if weights is None or biases is None else _attention(weights, biases, out)


def _thirds(array: Array | None) -> list[Array] | list[None] | None:
    """An array cut into three; None if it cannot be."""
    if array is None:
        return [None] * 3
    return None if len(array) % 3 else [np.array(part) for part in np.split(array, 3)]


def _attention(weights: Sequence[Array | None], biases: Sequence[Array | None], out: Group) -> Joined:
    arrays: dict[str, Array | None] = dict(zip(_PARTS, (*weights, out.get("weight")), strict=True))
    arrays |= zip((f"{name}_bias" for name in _PARTS), (*biases, out.get("bias")), strict=True)
    return Joined("attention", arrays)
