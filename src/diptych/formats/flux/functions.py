"""Named Julia functions: the activation each one is, and its name in each version of Flux."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.formats.flux.layouts import Version
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.formats.julia.expressions import Written
from diptych.formats.julia.lowered import MODULES
from diptych.formats.julia.lowered_code import code_of
from diptych.formats.julia.lowered_layers import ACTIVATION_NAMES, NOT_IN_JULIA
from diptych.model.layers import Activation

__all__ = [
    "ARRAYS",
    "FIRST_VERSIONS",
    "FUNCTION_FIELDS",
    "default_path",
    "function",
    "held_by",
    "named_activation",
    "path_of",
    "same_parameters",
]

Path = tuple[str, ...]

# Every name that NNlib uses, with our name for the function.
_OURS: dict[str, str] = {
    **ACTIVATION_NAMES,
    "identity": "identity",
    "rrelu": "",  # random in training, so the name is refused
}
_BASE = (
    "identity",
    "tanh",
    "abs",
    "abs2",
    "exp",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "log",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
)
_NNLIB = {"sigmoid": "σ", "hardsigmoid": "hardσ", "logsigmoid": "logσ"}
# Functions that older NNlibs lack: the first version of Flux that works with an NNlib with the function.
FIRST_VERSIONS: dict[str, Version] = {
    "hardswish": (0, 12, 9),
    "tanh_fast": (0, 13),
    "sigmoid_fast": (0, 13),
    "gelu_tanh": (0, 14, 22),  # which needs Julia 1.10, for which NNlib 0.9.28 and later are
    "gelu_sigmoid": (0, 14, 22),
    "gelu_erf": (0, 14, 22),
}


def function(*path: str) -> JuliaStruct:
    """A named function as files store it: an instance of the type "#name", which has no fields."""
    return JuliaStruct(JuliaType((*path[:-1], f"#{path[-1]}")))


def path_of(value: Any) -> Path | None:
    """The path of a named function of Julia or Flux, such as ("NNlib", "relu"), or None for any other value."""
    if not isinstance(value, JuliaStruct) or value.fields or value.type.definition is not None:
        return None
    name = value.type.name
    if len(name) < 2 or name[0] != "#" or "#" in name[1:] or value.type.path[0] not in MODULES:
        return None
    return (*value.type.path[:-1], name[1:])


def named_activation(value: Any, old_nnlib: bool) -> Activation | None:
    """The activation that a named function is, or None. The hardσ of NNlib 0.7.8 and before has the slope 0.2."""
    path = path_of(value)
    name = _OURS.get(path[-1], "") if path is not None else ""
    if not name:
        return None
    return Activation(name, (0.2,)) if old_nnlib and name == "hardsigmoid" else Activation(name)


def default_path(name: str, version: Version) -> Path | None:
    """The path of the named function that computes an activation, or None if that version has no such function."""
    if name in NOT_IN_JULIA:
        return None
    if name in _BASE:
        return ("Base", name)
    if name == "gelu_tanh" and version < FIRST_VERSIONS[name]:
        return ("NNlib", "gelu")
    if version < FIRST_VERSIONS.get(name, (0,)):
        return None
    return ("NNlib", _NNLIB.get(name, name))


FUNCTION_FIELDS: dict[str, tuple[str, ...]] = {
    "Fix1": ("f", "x"),
    "Fix2": ("f", "x"),
    "ComposedFunction": ("outer", "inner"),
    "BroadcastFunction": ("f",),
}
"""The fields of the functions of Base that hold others."""
ARRAYS = "arrays"


def held_by(value: Any) -> Any:
    """What `Flux.state` holds of a function since Flux 0.15, as values that JSON can hold.

    Returns:
        A dictionary of fields, numbers, and lists for tuples; [] for a function without fields; `ARRAYS` if an array or
        a layer is among what it captured.
    """
    if isinstance(value, (int, float, np.number, np.bool_)) or value is None:
        return value
    if isinstance(value, tuple):
        return _held(list(map(held_by, value)))
    if not isinstance(value, JuliaStruct):
        return ARRAYS
    if not value.fields or isinstance(value, Written):
        return []
    names = FUNCTION_FIELDS.get(value.type.name) if value.type.path[0] == "Base" else None
    if value.type.definition is not None:
        code = code_of(value)
        names = code.captured if code is not None else None
    if names is None or len(names) != len(value.fields):
        return ARRAYS
    return _held(dict(zip(names, map(held_by, value.fields), strict=True)))


def _held(parts: Any) -> Any:
    inside = parts.values() if isinstance(parts, dict) else parts
    return ARRAYS if any(part is ARRAYS for part in inside) else parts


def same_parameters(given: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    """Whether the parameters are equal as Float32 numbers, the precision that files keep."""
    return np.array_equal(np.array(given, np.float32), np.array(expected, np.float32))
