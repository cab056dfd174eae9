"""Finding weights in a file that holds no model.

Such files hold one of these: `Flux.state(model)`, a tree of named tuples with the fields of every struct;
`Flux.params(model)`, a list of arrays in the order of the layers, each weight before its bias and the shift (β) of
a BatchNorm before its scale (γ); `Flux.destructure(model)`, the same numbers in one long vector; the parameters and
states of Lux, two trees with the same layers; or a struct that the model's author defined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.formats.flux.layouts import LAYOUTS, fields_of
from diptych.formats.julia import JuliaDict, JuliaStruct, NamedTuple, Symbol
from diptych.formats.julia.arrays import as_array, parameters_in_order
from diptych.model.layers import Array

__all__ = ["DEEPEST", "Weights", "find_weights", "is_weight", "parts_of", "state_of"]

DEEPEST = 100  # a file that is loaded and saved again in a loop gains one dictionary each time
# The field names by which a state is recognised even if it holds no array, as that of a Chain of pools.
_STATES = {names for layouts in LAYOUTS.values() for _, names in layouts if names}
_FIELDS = {"weight", "bias", "γ", "β", "layers", "W", "b", "Wi", "Wh"}
_KEYS = ("model_state", "state", "weights", "params", "parameters", "ps", "p")


class Weights:
    """Weights found in a file: the `tree` of a `Flux.state`, or `arrays` in order.

    Attributes:
        key: Where they are, in the form that `--key` takes.
        text: A description, such as "a list of 6 arrays under weights".
        named: Whether the key, or the kind of the value, says that they are weights and not any arrays.
        lux: Whether they are parameters of Lux, whose norms have the scale before the shift.
    """

    def __init__(
        self,
        key: str,
        text: str,
        tree: Any = None,
        arrays: list[Array] | None = None,
        named: bool = True,
        lux: bool = False,
    ) -> None:
        self.key, self.text, self.tree, self.arrays, self.named, self.lux = (
            key,
            text,
            tree,
            arrays,
            named,
            lux,
        )


def find_weights(values: Mapping[str, Any]) -> list[Weights]:
    """Everything in a file without a model that may be weights, the likeliest first."""
    keys = [key for key in _KEYS if key in values] + [key for key in values if key not in _KEYS]
    found = [w for key in keys for w in _under(values, key)]
    found.sort(key=lambda w: not w.named)
    together = None if found else _named_arrays(values, "the file")
    return [together] if together is not None else found


def _under(values: Mapping[str, Any], key: str, prefix: str = "") -> list[Weights]:
    """What may be weights under a key: the value, or the entries of a dictionary."""
    value = values[key]
    states = next((values[k] for k in _LUX_STATES if k in values and isinstance(values[k], NamedTuple)), None)
    if key in _LUX_STATES and any(k in values for k in _LUX_PARAMETERS):
        return []
    if states is not None and key in _LUX_PARAMETERS and isinstance(value, NamedTuple):
        tree = _merged(value, states)
        return [Weights(prefix + key, f"the parameters of Lux under {prefix}{key}", tree, lux=True)]
    one = _weights(value, key)
    if one is not None:
        one.text = one.text.replace(f"under {one.key}", f"under {prefix}{one.key}")
        one.key = prefix + one.key
        return [one]
    if not isinstance(value, (dict, JuliaDict)) or prefix.count(".") >= 3:
        return []
    inside = {_text(k): value[k] for k in value}
    ordered = [k for k in _KEYS if k in inside] + [k for k in inside if k not in _KEYS]
    return [w for k in ordered for w in _under(inside, k, f"{prefix}{key}.") if w.named]


_LUX_PARAMETERS = ("ps", "parameters", "params")
_LUX_STATES = ("st", "states")


def _merged(parameters: Any, states: Any) -> Any:
    """The parameters of Lux with the states of the same layers: running means beside scales."""
    if not isinstance(parameters, NamedTuple) or not isinstance(states, NamedTuple):
        return parameters if parameters is not None else states
    left, right = parameters.as_dict(), states.as_dict()
    names = dict.fromkeys([*right, *left])  # Lux has the state of every layer, in order
    return NamedTuple(tuple(names), [_merged(left.get(n), right.get(n)) for n in names])


def _weights(value: Any, key: str) -> Weights | None:
    for _ in range(DEEPEST):
        if isinstance(value, (dict, JuliaDict)) and len(value) == 1:
            key = _text(next(iter(value)))
            value = value[next(iter(value))]
    last = key.rsplit(".", 1)[-1]
    if last == "model_state" and isinstance(value, tuple) and not value:
        return Weights(key, f"an empty state under {key}", tree=value)  # that of an Upsample, for example
    known = isinstance(value, NamedTuple) and (last == "model_state" or tuple(value.names) in _STATES)
    if known or (isinstance(value, NamedTuple) and _holds_array(value)):
        lux = isinstance(value, NamedTuple) and value.names[:1] == ("layer_1",)
        kind = "the parameters of Lux" if lux else "a state"
        named = known or last in _KEYS or _names_weights(value)
        return Weights(key, f"{kind} under {key}", tree=value, lux=lux, named=named)
    if isinstance(value, JuliaStruct) and value.type.name == "ComponentArray" and value.fields:
        flat = as_array(value.fields[0])
        if flat is not None and flat.ndim == 1 and flat.dtype.kind == "f":
            return Weights(
                key, f"a ComponentArray of {flat.size} numbers under {key}", arrays=[flat], lux=True
            )
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f":
        text = f"a vector of {value.size} numbers under {key}"
        return Weights(key, text, arrays=[value], named=last in _KEYS) if value.size > 1 else None
    ordered = parameters_in_order(value)
    listed = ordered if ordered is not None else value if isinstance(value, (list, tuple)) else None
    if listed:
        arrays = [as_array(item) for item in listed]
        good = [a for a in arrays if a is not None and a.dtype.kind == "f"]
        if len(good) == len(arrays):
            named = ordered is not None or last in _KEYS
            return Weights(key, f"a list of {len(good)} arrays under {key}", arrays=good, named=named)
    if isinstance(value, (dict, JuliaDict)):
        return _named_arrays({_text(k): value[k] for k in value}, key)
    return None


def _names_weights(value: Any, depth: int = 0) -> bool:
    """Whether a field inside has a name that weights have in Flux or Lux."""
    if depth > DEEPEST or not isinstance(value, (tuple, list)):
        return False
    named = isinstance(value, NamedTuple) and bool(_FIELDS & set(value.names))
    return named or any(_names_weights(item, depth + 1) for item in value)


def _text(key: Any) -> str:
    return key.name if isinstance(key, Symbol) else str(key)


def _holds_array(value: Any, depth: int = 0) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "f")
    inside = value if isinstance(value, (tuple, list)) else ()
    return depth < 20 and any(_holds_array(item, depth + 1) for item in inside)


def _named_arrays(values: Mapping[str, Any], key: str) -> Weights | None:
    """Arrays named like "layer1_weight" or "layers/1/weight", in natural order, each weight before its bias."""
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
    if not arrays or len(arrays) < len(values):
        return None
    ordered = [arrays[k] for k in sorted(arrays, key=_natural)]
    named = any(name.endswith(ends) for name in arrays for ends, _ in _ORDER[:3])
    return Weights(key, f"{len(ordered)} arrays by name in {key}", arrays=ordered, named=named)


_ORDER = (("weight", 0), ("kernel", 0), ("W", 0), ("β", 0), ("γ", 1), ("bias", 1), ("b", 1))


def _natural(key: str) -> tuple[Any, ...]:
    parts = tuple(int(p) if p.isdigit() else -1 for p in re.split(r"(\d+)", key) if p.isdigit())
    rank = next((order for name, order in _ORDER if key.endswith(name)), 2)
    return parts[:20], rank, key


def parts_of(tree: Any, depth: int = 0) -> list[NamedTuple]:
    """The states of the layers that have weights, in order."""
    if depth > DEEPEST or not isinstance(tree, (tuple, list)):
        return []
    norm = isinstance(tree, NamedTuple) and {"diag", "layer", "cell", "q_proj"} & set(tree.names)
    own = isinstance(tree, NamedTuple) and any(is_weight(value) for value in tree)
    if isinstance(tree, NamedTuple) and (own or (norm and _holds_array(tree))):
        return [tree]
    return [part for value in tree for part in parts_of(value, depth + 1)]


def state_of(value: Any, depth: int = 0) -> Any:
    """The state of a struct as `Flux.state` gives it: its fields by name, and those of everything inside."""
    if depth > DEEPEST or is_weight(value):
        return value if depth <= DEEPEST else ()
    if isinstance(value, NamedTuple):
        return NamedTuple(value.names, [state_of(v, depth + 1) for v in value])
    if isinstance(value, (tuple, list)):
        return tuple(state_of(v, depth + 1) for v in value)
    if not isinstance(value, JuliaStruct) or value.type.definition is not None:
        return ()
    names = value.names or fields_of(value.type.name, len(value.fields))
    names = names or tuple(f"field {i}" for i in range(1, len(value.fields) + 1))
    if len(names) != len(value.fields):
        return ()
    return NamedTuple(names, [False if v is False else state_of(v, depth + 1) for v in value.fields])


def is_weight(value: Any) -> bool:
    """Whether a value is an array of floating-point numbers, or wraps one."""
    array = as_array(value) if isinstance(value, (np.ndarray, JuliaStruct)) else None
    return array is not None and array.dtype.kind == "f" and array.ndim > 0
