"""Julia's functions by name: which of our activations they are, and what they are called in each version."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.formats.flux.layouts import Version
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.formats.julia.lowered import MODULES
from diptych.model.layers import ACTIVATIONS, Activation

__all__ = ["FIRST_VERSIONS", "default_path", "function", "named_activation", "path_of", "same_parameters"]

Path = tuple[str, ...]

# What NNlib has no function for.
NOT_IN_NNLIB = ("affine", "clamp", "quickgelu")

# NNlib's names where they differ from ours.
_OURS: dict[str, str] = {
    **{name: name for name in ACTIVATIONS if name not in NOT_IN_NNLIB},
    "σ": "sigmoid",
    "sigmoid_fast": "sigmoid",
    "hardσ": "hardsigmoid",
    "logσ": "logsigmoid",
    "tanh_fast": "tanh",
    "gelu": "gelu_tanh",
    "gelu_sigmoid": "gelu_tanh",  # the same function by another formula
    "rrelu": "",  # random while training; refused by name
}
_BASE = ("identity", "tanh", "abs", "abs2", "exp", "sqrt", "sin")
_NNLIB = {"sigmoid": "σ", "hardsigmoid": "hardσ", "logsigmoid": "logσ"}
# Functions that older versions' NNlib has not, by the first Flux that requires an NNlib with them.
FIRST_VERSIONS: dict[str, Version] = {
    "tanh_fast": (0, 13),
    "sigmoid_fast": (0, 13),
    "gelu_tanh": (0, 16),
    "gelu_sigmoid": (0, 16),
    "gelu_erf": (0, 16),
}


def function(*path: str) -> JuliaStruct:
    """A function as a file holds it: an instance without fields of the type "#name"."""
    return JuliaStruct(JuliaType((*path[:-1], f"#{path[-1]}")))


def path_of(value: Any) -> Path | None:
    """("NNlib", "relu") of a function of Julia's or Flux's that is only a name; None for anything else."""
    if not isinstance(value, JuliaStruct) or value.fields or value.type.definition is not None:
        return None
    name = value.type.name
    if len(name) < 2 or name[0] != "#" or "#" in name[1:] or value.type.path[0] not in MODULES:
        return None
    return (*value.type.path[:-1], name[1:])


def named_activation(value: Any, old_nnlib: bool) -> Activation | None:
    """The activation a named function is; `old_nnlib`: 0.7.8 or before, whose hardσ has the slope 0.2."""
    path = path_of(value)
    name = _OURS.get(path[-1], "") if path is not None else ""
    if not name:
        return None
    return Activation(name, (0.2,)) if old_nnlib and name == "hardsigmoid" else Activation(name)


def default_path(name: str, version: Version) -> Path | None:
    """The path of the function that one of our activations is, by its name alone; None where there is none."""
    if name in NOT_IN_NNLIB:
        return None
    if name in _BASE:
        return ("Base", name)
    if name == "gelu_tanh" and version < (0, 16):
        return ("NNlib", "gelu")
    if version < FIRST_VERSIONS.get(name, (0,)):
        return None
    return ("NNlib", _NNLIB.get(name, name))


def same_parameters(given: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    """Equal as Float32 numbers, which is what files hold."""
    return np.array_equal(np.array(given, np.float32), np.array(expected, np.float32))
