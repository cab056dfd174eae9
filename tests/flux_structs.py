"""What structs of Flux compute, on arrays of Julia's shape, as far as containers and named functions go.

It follows Flux's own definitions (layers/basic.jl) and shares nothing with the reader: `Parallel` splats a tuple,
`SkipConnection` gives its whole input to the connection, and + takes arrays of equal sizes only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.formats.julia import JuliaStruct, NamedTuple

__all__ = ["call"]


def _same_sizes(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def apply(*arrays: Any) -> Any:
        assert len({a.shape for a in arrays}) == 1, "DimensionMismatch: dimensions must match"
        result = arrays[0]
        for array in arrays[1:]:
            result = operation(result, array)
        return result

    return apply


def _reshape(x: Any, sizes: Any) -> Any:
    return x.reshape([-1 if isinstance(n, JuliaStruct) else int(n) for n in sizes], order="F")


_NAMED: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "tuple": lambda *x: x,
    "getindex": lambda x, i: x[i - 1],
    "+": _same_sizes(lambda a, b: a + b),
    "-": _same_sizes(lambda a, b: a - b),
    "vcat": lambda *x: np.concatenate(x, 0),
    "hcat": lambda *x: np.concatenate(x, 1),
    "reshape": _reshape,
    "permutedims": lambda x, order: x.transpose([n - 1 for n in order]),
    "batched_mul": lambda a, b: np.einsum("ijn,jkn->ikn", a, b),
    "flatten": lambda x: x.reshape(-1, x.shape[-1], order="F"),
    "relu": lambda x: np.maximum(x, 0),
    "σ": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=0, keepdims=True),
}
_DOTTED: dict[str, Callable[..., Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "max": np.maximum, "min": np.minimum,
    "^": np.power,
}  # fmt: skip


def call(value: JuliaStruct, *x: Any) -> Any:
    """The value of a struct or function for some inputs."""
    name, fields = value.type.name, value.fields
    if name.startswith("#"):
        return _NAMED[name[1:]](*x)
    if name == "Chain":
        (result,) = x
        for part in _listed(fields[0]):
            result = call(part, result)
        return result
    if name == "SkipConnection":
        (given,) = x
        return call(fields[1], call(fields[0], given), given)
    if name == "Parallel":
        given = x[0] if len(x) == 1 and isinstance(x[0], tuple) else x
        layers = _listed(fields[1])
        if len(given) == 1:
            return call(fields[0], *[call(part, given[0]) for part in layers])
        assert len(given) == len(layers), "ArgumentError: Parallel with other numbers of inputs"
        return call(fields[0], *[call(part, each) for part, each in zip(layers, given, strict=True)])
    if name in ("Fix1", "Fix2"):
        function, held = fields
        if function.type.name == "#broadcast":
            return call(held, *x) if held.type.name == "Fix2" else _NAMED[held.type.name[1:]](*x)
        dotted = _DOTTED.get(function.type.name[1:])
        return dotted(*x, held) if dotted else call(function, *x, held)
    if name == "BroadcastFunction":
        return _DOTTED[fields[0].type.name[1:]](*x)
    return _layer(value, *x)


def _layer(value: JuliaStruct, x: Any) -> Any:
    held = dict(zip(value.names, value.fields, strict=True)) if value.names else {}
    name = value.type.name
    if not held:
        names = {
            "Dense": ("weight", "bias", "σ"),
            "Scale": ("scale", "bias", "σ"),
            "MaxPool": ("k", "pad", "stride"),
        }
        held = dict(zip(names[name], value.fields, strict=True))
    if name == "Dense":
        flat = held["weight"] @ x.reshape(x.shape[0], -1, order="F")
        y = flat.reshape(-1, *x.shape[1:], order="F")
        return call(held["σ"], y if held["bias"] is False else y + _column(held["bias"], y))
    if name == "Scale":
        y = x * _column(held["scale"], x)
        return call(held["σ"], y if held["bias"] is False else y + _column(held["bias"], x))
    assert name == "MaxPool", name
    (size,) = held["k"]
    return x.reshape(size, x.shape[0] // size, *x.shape[1:], order="F").max(axis=0)


def _column(array: Any, like: Any) -> Any:
    """An array that Julia broadcasts: its first axis meets the first one."""
    return array.reshape(*array.shape, *[1] * (like.ndim - array.ndim))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list, NamedTuple)) else [value]
