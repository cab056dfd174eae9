"""Printing a model as Flux does: `Conv((3, 3), 1 => 16, relu),  # 160 parameters`.

This follows `src/layers/show.jl` and the `Base.show` methods of the layers in Flux 0.16. The model is printed as
`diptych convert` writes it for that version: a function without a name in Flux appears as what replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from diptych.errors import DiptychError
from diptych.formats.flux.document_writing import struct_of_model
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia.arrays import as_array
from diptych.model.model import Model

__all__ = ["as_flux"]

_VERSIONS = ("0.16", "0.13")  # 0.13 for a LayerNorm that divides by std + eps
_CONTAINERS = ("Chain", "SkipConnection", "Parallel", "Maxout")
_STATISTICS = ("μ", "σ²")
_COMMENT = 39  # the column of the comments


def as_flux(model: Model) -> str:
    """The lines with which Flux shows the model, or "" if neither 0.16 nor 0.13 has all of its layers."""
    for version in _VERSIONS:
        try:
            made = struct_of_model(model, version)
        except DiptychError:
            continue
        lines = _lines(made, 0, "")
        return "\n".join(lines) + (_total(made) if len(lines) > 1 else "")
    return ""


def _lines(layer: JuliaStruct, indent: int, name: str) -> list[str]:
    """A layer on one line with its number of parameters, or a container on several lines."""
    margin, end = " " * indent, "," if indent else ""
    if layer.type.name not in _CONTAINERS or layer.type.path[0] != "Flux":
        text = f"{name}{_shown(layer)}"
        comment = _parameters(layer)
        gap = " " * max(2, _COMMENT - indent - len(text)) if comment else ""
        return [f"{margin}{text}{end}{gap}{comment}"]
    inside: list[str] = []
    values = _values(layer)
    joined = [f"{margin}  {_function(values['connection'])},"] if "connection" in values else []
    held = values["layers"]
    children = (held,) if isinstance(held, JuliaStruct) else tuple(held)
    names = held.names if isinstance(held, NamedTuple) else ("",) * len(children)
    for child, title in zip(children, names, strict=True):
        inside += _lines(child, indent + 2, f"{title} = " if title else "")
    body = [*inside, *joined] if layer.type.name == "SkipConnection" else [*joined, *inside]
    opened, closed = ("([", "])") if isinstance(held, list) else ("(", ")")
    return [f"{margin}{name}{layer.type.name}{opened}", *body, f"{margin}{closed}{end}"]


def _total(layer: JuliaStruct) -> str:
    trained, other = _arrays(layer)
    count = f"{_number(sum(a.size for a in trained))} parameters"
    plus = f", plus {_number(sum(a.size for a in other))}" if other else ""
    return f"{' ' * 19}# Total: {len(trained)} arrays, {count}{plus}"


def _parameters(layer: JuliaStruct) -> str:
    trained, other = _arrays(layer)
    if not trained:
        return ""
    plus = f", plus {_number(sum(a.size for a in other))}" if other else ""
    return f"# {_number(sum(a.size for a in trained))} parameters{plus}"


def _arrays(value: Any) -> tuple[list[Any], list[Any]]:
    """The arrays that are trained and those that are not. A tied array is one object and counts once."""
    trained: dict[int, Any] = {}
    other: dict[int, Any] = {}

    def collect(item: Any, into: dict[int, Any]) -> None:
        if isinstance(item, np.ndarray):
            into[id(item)] = item
        elif isinstance(item, JuliaStruct) and item.type.path[0] == "Flux":
            for name, part in _values(item).items():
                collect(part, other if name in _STATISTICS else into)
        elif isinstance(item, (tuple, list)) or (
            isinstance(item, JuliaStruct) and as_array(item) is not None
        ):
            # The fields of a Transpose: it shares its parent's array.
            for part in item.fields if isinstance(item, JuliaStruct) else item:
                collect(part, into)

    collect(value, trained)
    return list(trained.values()), list(other.values())


def _values(layer: JuliaStruct) -> dict[str, Any]:
    return dict(zip(layer.names or (), layer.fields, strict=True))


def _number(count: int) -> str:
    """A number with its digits grouped as Julia prints them: 1_290."""
    return f"{count:_}"


# ---- One layer -------------------------------------------------------------------------------------------


def _shown(layer: JuliaStruct) -> str:
    if layer.type.path[0] != "Flux" or layer.type.name[:1] == "#":
        return _function(layer, with_module=True)
    if layer.type.name not in _SHOWN:
        return f"{layer.type.name}(…)"
    positional, options = _SHOWN[layer.type.name](_values(layer), layer)
    separator = "; " if layer.type.name in ("Dense", "Scale") and options else ", "
    return f"{layer.type.name}({separator.join(filter(None, (', '.join(positional), ', '.join(options))))})"


Shown = tuple[list[str], list[str]]  # positional arguments, and keyword arguments
Values = dict[str, Any]


def _conv(v: Values, layer: JuliaStruct) -> Shown:
    *kernel, first, second = _shape(v["weight"])
    groups = v.get("groups", 1)
    channels = f"{first * groups} => {second}"
    if layer.type.name == "ConvTranspose":
        channels = f"{second} => {first * groups}"
    options = [
        _unless("pad", v["pad"], 0),
        _unless("stride", v["stride"], 1),
        _unless("outpad", v.get("outpad", (0,)), 0, one=False),
        _unless("dilation", v["dilation"], 1),
        f"groups={groups}" if groups != 1 else "",
        *_no_bias(v),
    ]
    return [_tuple(kernel), channels, *_activation(v["σ"])], [o for o in options if o]


def _dense(v: Values, layer: JuliaStruct) -> Shown:
    outputs, *inputs = _shape(v["weight"])
    several = _tuple(inputs) if len(set(inputs)) > 1 else inputs[0]
    return [f"{several} => {outputs}", *_activation(v["σ"])], _no_bias(v)


def _scale(v: Values, layer: JuliaStruct) -> Shown:
    return [*map(str, _shape(v["scale"])), *_activation(v["σ"])], _no_bias(v)


def _embedding(v: Values, layer: JuliaStruct) -> Shown:
    features, entries = _shape(v["weight"])
    return [f"{entries} => {features}"], []


def _norm(v: Values, layer: JuliaStruct) -> Shown:
    groups = [str(v["G"])] if "G" in v else []
    return [str(v["chs"]), *groups, *_activation(v["λ"])], [*_not_affine(v), *_active(v)]


def _layer_norm(v: Values, layer: JuliaStruct) -> Shown:
    return [*map(str, v["size"]), *_activation(v["λ"])], _not_affine(v)


def _dropout(v: Values, layer: JuliaStruct) -> Shown:
    dims = v.get("dims", 0)
    along = [f"dims={dims}"] if dims and isinstance(dims, int) else []
    return [f"{float(np.float32(v['p'])):g}"], [*along, *_active(v)]


def _pool(v: Values, layer: JuliaStruct) -> Shown:
    stride = "" if v["stride"] == v["k"] else f"stride={_one(v['stride'])}"
    return [_tuple(v["k"])], [o for o in (_unless("pad", v["pad"], 0), stride) if o]


def _upsample(v: Values, layer: JuliaStruct) -> Shown:
    scale = v["scale"]
    sizes = f"size = {_tuple(v['size'])}" if scale is None else f"scale = {_one(scale)}"
    return [f":{layer.type.parameters[0].name}", sizes], []


def _adaptive(v: Values, layer: JuliaStruct) -> Shown:
    return [_tuple(v["out"])], []


def _cell(v: Values, layer: JuliaStruct) -> Shown:
    sizes = f"{_shape(v['Wi'])[-1]} => {_shape(v['Wh'])[-1]}"
    return [sizes, *(_activation(v["σ"]) if "σ" in v else [])], []


def _recurrent(v: Values, layer: JuliaStruct) -> Shown:
    return _cell(_values(v["cell"]), v["cell"])


def _attention(v: Values, layer: JuliaStruct) -> Shown:
    return [str(_shape(_values(v["q_proj"])["weight"])[-1])], [f"nheads={v['nheads']}"]


_SHOWN: dict[str, Callable[[Values, JuliaStruct], Shown]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "CrossCor", "DepthwiseConv"), _conv),
    **dict.fromkeys(("Dense", "Bilinear"), _dense),
    "Scale": _scale,
    **dict.fromkeys(("Embedding", "EmbeddingBag"), _embedding),
    **dict.fromkeys(("BatchNorm", "InstanceNorm", "GroupNorm"), _norm),
    "LayerNorm": _layer_norm,
    **dict.fromkeys(("Dropout", "AlphaDropout"), _dropout),
    **dict.fromkeys(("MaxPool", "MeanPool"), _pool),
    **dict.fromkeys(("AdaptiveMaxPool", "AdaptiveMeanPool"), _adaptive),
    **dict.fromkeys(("GlobalMaxPool", "GlobalMeanPool"), lambda v, layer: ([], [])),
    "Upsample": _upsample,
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell", "GRUv3Cell"), _cell),
    **dict.fromkeys(("RNN", "LSTM", "GRU", "GRUv3"), _recurrent),
    "Recur": lambda v, layer: ([_shown(v["cell"])], []),
    "MultiHeadAttention": _attention,
    "PixelShuffle": lambda v, layer: ([str(v["r"])], []),
}


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array or of a wrapped array; () for any other value."""
    array = as_array(value)
    return () if array is None else array.shape


def _no_bias(v: Values) -> list[str]:
    return [] if _shape(v["bias"]) else ["bias=false"]


def _not_affine(v: Values) -> list[str]:
    return [] if v["affine"] else ["affine=false"]


def _active(v: Values) -> list[str]:
    return [] if v.get("active") is None else [f"active={str(v['active']).lower()}"]


def _activation(function: JuliaStruct) -> list[str]:
    name = _function(function)
    return [] if name == "identity" else [name]


def _unless(name: str, sizes: Sequence[int], default: int, one: bool = True) -> str:
    return "" if set(sizes) == {default} else f"{name}={_one(sizes) if one else _tuple(sizes)}"


def _one(sizes: Any) -> str:
    """One number if all are equal, otherwise a tuple."""
    if not isinstance(sizes, Sequence):
        return f"{sizes:g}"
    return f"{sizes[0]:g}" if len(set(sizes)) == 1 else _tuple(sizes)


def _tuple(values: Iterable[Any]) -> str:
    parts = [_plain(value) for value in values]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


# ---- Functions -------------------------------------------------------------------------------------------


def _function(value: JuliaStruct, with_module: bool = False) -> str:
    """A function: relu, Base.Fix2(leakyrelu, 0.2f0), or NNlib.softmax with its module if it stands as a layer."""
    if value.type.path[0] == "Flux" and value.type.name[:1] != "#":
        return " ".join(line.strip() for line in _lines(value, 0, "")).replace("( ", "(").replace(", )", ")")
    name = value.type.name.removeprefix("#")
    if value.fields:
        return f"{'.'.join(value.type.path)}({', '.join(map(_plain, value.fields))})"
    module = value.type.path[-2] if len(value.type.path) > 1 else "Base"
    return f"{module}.{name}" if with_module and value.type.path[0] not in ("Base", "Main") else name


def _plain(value: Any) -> str:
    if isinstance(value, JuliaStruct):
        return ":" if value.type.path == ("Base", "Colon") else _function(value)
    if isinstance(value, tuple):
        return _tuple(value)
    if isinstance(value, np.floating):
        mantissa, _, exponent = str(value).partition("e")
        return f"{mantissa}f{int(exponent or 0)}"
    return f"{value:g}" if isinstance(value, float) else str(value)
