"""Reading functions: those that stand in the place of a layer, and those that join branches."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.formats.flux.functions import path_of
from diptych.formats.flux.reading import Fields, FluxReader
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia.expressions import Function
from diptych.formats.julia.lowered import interpret
from diptych.formats.julia.lowered_layers import as_connection, as_layers, joined_layers
from diptych.formats.julia.lowering.sizes import Shape, behind
from diptych.model.layers import (
    Activation,
    Chain,
    Connection,
    Flatten,
    Layer,
    Normalise,
    Pad,
    Permute,
    Reshape,
    Softmax,
)

__all__ = ["computed", "connection_of", "function_layer", "joined_by_function", "swapped_connection"]

_FLATTEN = {("Flux", "flatten"), ("MLUtils", "flatten")}
_SAME = ("identity", "cpu", "gpu", "f32")  # device and precision are chosen by the engine
_NAMED_JOINS = {
    "+": ("add", 1),
    "-": ("subtract", 1),
    "vcat": ("concatenate", -1),
    "hcat": ("concatenate", -2),
    "cat_channels": ("concatenate", 1),  # Metalhead's
}
_DOTTED_JOINS = {
    "*": "multiply",
    "+": "add",
    "-": "subtract",
    "max": "maximum",
    "min": "minimum",
    "/": "divide",
}


def function_layer(r: FluxReader, value: JuliaStruct, path: str) -> Layer:
    """The layer that computes a function; a Chain where that takes several, the identity where it takes none."""
    name = path_of(value)
    r.note_held(value, path)
    if name is not None:
        made = _named(r, name, value, path)
        if made is not None:
            return made
    if value.type.path in (("Base", "Fix1"), ("Base", "Fix2")) and len(value.fields) == 2:
        fixed = _fixed(r, value, path)
        if fixed is not None:
            return fixed
    try:
        return computed(r, interpret(value), path)
    except FormatError as error:
        raise FormatError(f"{r.name}: layer {path}: {_without(str(error), r.name)}") from error


def computed(r: FluxReader, function: Function, path: str) -> Layer:
    """The layer of a function in the place of a layer.

    Where the number of axes of its input is only supposed, that must come out again: the layers that follow told it.
    """
    entry = r.entry

    def layers(given: Shape | None) -> Layer:
        r.entry, r.supposed = given, False
        made = as_layers(
            function,
            layer_of=lambda inner: r.layer(inner, f"{path}.0" if path else "0"),
            entry=given,
            formula=lambda: r.formula("normalise", path),
        )
        r.entry = given
        return made[0] if len(made) == 1 else Chain(made) if made else Activation()

    if entry is None or not r.supposed:
        return layers(entry)
    try:
        made = layers(entry)
        result = behind(made, entry)
        if result is not None and len(result) == len(entry):
            r.supposed = True
            return made
    except FormatError:
        pass
    return layers(None)


def _without(message: str, name: str) -> str:
    return message.removeprefix(f"{name}: ")


def _named(r: FluxReader, name: tuple[str, ...], value: JuliaStruct, path: str) -> Layer | None:
    if name in _FLATTEN:
        if name[0] != "Flux":
            r.hint(path, function=list(name))
        return Flatten()
    if name[-1] in ("softmax", "logsoftmax"):
        return Softmax(-1, name[-1] == "logsoftmax")
    if name[-1] in _SAME:
        return Activation()
    if name == ("Flux", "normalise"):
        return Normalise(0, float(np.float32(1e-5)), r.formula("normalise", path))
    if name[0] == "NNlib":
        # NNlib's activations also accept a whole array; Base's tanh of a matrix is the matrix function.
        activation, rest = r.activation(value, path, name[-1])
        if not rest:
            r.hint(path, function=list(name))
            return activation
    return None


def _fixed(r: FluxReader, value: JuliaStruct, path: str) -> Layer | None:
    function, held = value.fields if value.type.name == "Fix2" else value.fields[::-1]
    name = path_of(value.fields[0])
    if value.type.name == "Fix1" and name is not None and name[-1] == "broadcast":
        activation, rest = r.activation(value.fields[1], path, "broadcast")
        r.note_function(value.fields[1], activation, path)
        return activation if not rest else Chain((activation, *rest))
    if value.type.name == "Fix2" and path_of(function) is not None and isinstance(held, tuple):
        return _shaped(r, (path_of(function) or ("",))[-1], held, path)
    return None


_PADS: dict[str, Any] = {
    "pad_zeros": "zero",
    "pad_reflect": "reflect",
    "pad_repeat": "replicate",
    "pad_circular": "wrap",
    "pad_symmetric": "symmetric",
}


def _shaped(r: FluxReader, name: str, held: tuple[Any, ...], path: str) -> Layer | None:
    if name == "reshape" and len(held) >= 2 and _is_colon(held[-1]) and all(map(_whole, held[:-1])):
        return Reshape(tuple(int(n) for n in reversed(held[:-1])))
    if name == "permutedims" and all(map(_whole, held)) and sorted(held) == list(range(1, len(held) + 1)):
        count = len(held)
        order = tuple(count - int(held[count - 1 - axis]) for axis in range(count))
        return Permute(order) if count >= 2 and order[0] == 0 else None
    if name in _PADS and len(held) % 2 == 0 and all(map(_whole, held)) and not isinstance(held, NamedTuple):
        pairs = [(int(held[i]), int(held[i + 1])) for i in range(0, len(held), 2)]
        spatial = pairs[:-2] if name == "pad_zeros" else pairs
        if 1 <= len(spatial) <= 3 and not any(map(any, pairs[len(spatial) :])):
            return Pad(tuple(reversed(spatial)), _PADS[name])
    return None


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) < 2**31


def _is_colon(value: Any) -> bool:
    return isinstance(value, JuliaStruct) and value.type.path == ("Base", "Colon")


def connection_of(r: FluxReader, f: Fields, count: int) -> Connection:
    """How the outputs of `count` branches are joined."""
    value = f.get("connection")
    if not isinstance(value, JuliaStruct):
        raise f.refuse("does not have a function that joins its branches")
    name = path_of(value)
    if value.type.path[0] != "Flux":
        r.note_held(value, f.path, "connection")
    if name is not None and name[-1] in _NAMED_JOINS:
        operation, axis = _NAMED_JOINS[name[-1]]
        if operation != "subtract" or count == 2:
            return Connection(operation, axis)  # type: ignore[arg-type]
    if value.type.name == "BroadcastFunction" and len(value.fields) <= 1:
        inner = path_of(value.fields[0] if value.fields else JuliaStruct(value.type.parameters[0]))
        if inner is not None and inner[-1] in _DOTTED_JOINS:
            return Connection(_DOTTED_JOINS[inner[-1]])  # type: ignore[arg-type]
    if value.type.path == ("Flux", "Parallel"):
        inner_value = r.fields(value, f.path)
        function = path_of(inner_value.get("connection"))
        if function is not None and function[-1] == "vcat":
            return Connection("concatenate", -1)  # the permutations around it set the axis
    return _anonymous(r, f, value, count)


def _anonymous(r: FluxReader, f: Fields, value: JuliaStruct, count: int) -> Connection:
    """The connection that a closure computes: of all branches at once or, before 0.13, of two at a time."""
    failure: FormatError | None = None
    for arguments in dict.fromkeys((count, 2)):
        try:
            return as_connection(interpret(value, arguments))
        except FormatError as error:
            failure = failure or error
    raise f.refuse(f"joins its branches with a function that cannot be read: {failure}") from failure


def joined_by_function(r: FluxReader, f: Fields, branches: tuple[Layer, ...], error: FormatError) -> Layer:
    """The layers of a container whose branches are joined by a function that is more than a `Connection`.

    Raises `error`, or that of the function if it takes all branches.
    """
    value = f.get("connection")
    try:
        function = interpret(value, len(branches))
    except FormatError:
        raise error from None
    try:
        layers = joined_layers(
            function,
            branches,
            layer_of=lambda inner: r.layer(inner, f"{f.path}.0"),
            entry=r.entry,
            formula=lambda: r.formula("normalise", f.path),
        )
    except FormatError as failure:
        raise f.refuse(f"joins its branches with a function that cannot be read: {failure}") from failure
    r.forget_hints(f.path)
    return layers[0] if len(layers) == 1 else Chain(layers) if layers else Activation()


def swapped_connection(f: Fields) -> Connection | None:
    """The connection of a closure of two arguments that takes them in the other order, or None."""
    value = f.get("connection")
    if not isinstance(value, JuliaStruct):
        return None
    try:
        return as_connection(interpret(value, 2), (2, 1))
    except FormatError:
        return None
