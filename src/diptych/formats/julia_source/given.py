"""What constructors are given, and the structs that they make of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.formats.flux.functions import function
from diptych.formats.flux.layouts import LAYOUTS
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.formats.julia_source.functions import Random
from diptych.formats.julia_source.values import DRAWN, Built, Constructor, NotUnderstood, Pair, Unknown
from diptych.model.layers import Array

__all__ = [
    "IDENTITY",
    "Arguments",
    "Given",
    "Keywords",
    "array_of",
    "bias_of",
    "constant",
    "placeholder",
    "shown",
    "struct_of",
    "whole",
    "wholes",
]

Arguments = list[Any]
Keywords = dict[str, Any]
IDENTITY = function("Base", "identity")
_LARGEST = 2**31


def struct_of(name: str, values: dict[str, Any], parameters: tuple[Any, ...] = ()) -> Built:
    """A struct of Flux with the fields of its newest version; those without a value are nothing."""
    names = LAYOUTS[name][0][1] if name in LAYOUTS else tuple(values)
    return Built(JuliaType(("Flux", name), parameters), [values.get(n) for n in names], names)


def placeholder(*shape: int) -> Array:
    """An array of a shape without memory of its own."""
    if any(n < 1 for n in shape) or np.prod([float(n) for n in shape]) > _LARGEST:
        raise NotUnderstood(f"an array of {'×'.join(map(str, shape))} numbers is no weight")
    return np.broadcast_to(np.float32(0), shape)


def constant(number: int, *shape: int) -> Array:
    """An array of one number without memory of its own."""
    return np.broadcast_to(np.float32(number), placeholder(*shape).shape)


class Given:
    """The arguments of one constructor, taken one after the other; what is left over is refused."""

    def __init__(self, name: str, arguments: Arguments, keywords: Keywords) -> None:
        self.name, self.arguments = name, list(arguments)
        self.keywords = {k: v for k, v in keywords.items() if k not in DRAWN}

    def next(self, default: Any = None) -> Any:
        """The next argument."""
        return self.arguments.pop(0) if self.arguments else default

    def keyword(self, *names: str, default: Any = None) -> Any:
        """The keyword of one of these names."""
        found = default
        for name in names:
            found = self.keywords.pop(name, found)
        return found

    def activation(self, default: Any = IDENTITY) -> Any:
        """The function given by a keyword or as the next argument."""
        given = self.keyword("activation", "σ", "act", default=None)
        value = self.next(given if given is not None else default)
        if isinstance(value, Constructor):
            return function("Base", value.name)
        if not isinstance(value, JuliaStruct):
            raise NotUnderstood(f"the activation of {self.name} is not a function")
        return value

    def sizes(self) -> tuple[int, int]:
        """The numbers of inputs and outputs, as `in => out` or `in, out`."""
        first = self.next()
        if isinstance(first, Pair):
            return whole(first.first), whole(first.second)
        return whole(first), whole(self.next())

    def done(self, struct: Built) -> Built:
        """The struct. Raises `NotUnderstood` where something was given that nobody took."""
        if self.arguments:
            raise NotUnderstood(f"{self.name} has {len(self.arguments)} arguments more than are read")
        if self.keywords:
            raise NotUnderstood(f"{self.name} has the keyword {next(iter(self.keywords))}, which is not read")
        return struct


def whole(value: Any) -> int:
    """A whole number. Raises `NotUnderstood` for anything else."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (tuple, list)) and len(value) == 1:
        return whole(value[0])
    if isinstance(value, Unknown):
        raise NotUnderstood(value.why, value.node)
    raise NotUnderstood(f"{shown(value)} stands where a whole number is expected")


def shown(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, JuliaStruct):
        return value.type.name.lstrip("#")
    return f"a {type(value).__name__}" if not isinstance(value, (int, float, str, bool)) else repr(value)[:40]


def wholes(value: Any) -> tuple[int, ...]:
    """A tuple of whole numbers."""
    if isinstance(value, (list, range)):
        value = tuple(value)
    if not isinstance(value, tuple):
        value = (value,)
    return tuple(map(whole, value))


def array_of(value: Any) -> Array | None:
    """The array that a value is, or None."""
    if isinstance(value, Random):
        return placeholder(*value.shape)
    if isinstance(value, list) and value and all(isinstance(v, (int, float, np.number)) for v in value):
        return np.array(value, np.float32)
    return value if isinstance(value, np.ndarray) else None


def bias_of(given: Given, size: int) -> Any:
    """The bias that the keyword asks for: an array, or false."""
    value = given.keyword("bias", "use_bias", default=True)
    value = value.value if hasattr(value, "value") else value
    if value is False or (isinstance(value, JuliaStruct) and value.type.name == "Zeros"):
        return False
    found = array_of(value)
    if found is None and value is not True:
        raise NotUnderstood("the bias is neither true, false nor a vector")
    return placeholder(size) if found is None else found
