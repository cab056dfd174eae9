"""Anonymous functions whose code is not in the file: which they are, and what the user says that they compute.

JLD2, and BSON.jl with newer Julia, store the name of a closure alone, such as `#30#31`. What it computes is given as
Julia: the name of a function, or the closure's own source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.errors import FormatError, UsageError
from diptych.formats.julia import JuliaStruct, NamedTuple
from diptych.formats.julia.arrays import as_array
from diptych.formats.julia.lowered import lacks_code

__all__ = ["unknown_closures", "with_functions"]

_DEEPEST = 60
_MOST = 20
_SPATIAL = ("Conv", "ConvTranspose", "CrossCor", "DepthwiseConv", "MaxPool", "MeanPool", "BatchNorm")


def with_functions(values: Mapping[str, Any], functions: Mapping[str, str], name: str) -> dict[str, Any]:
    """The values of a file with closures replaced by what the user says they are.

    Args:
        values: The values under the file's top keys.
        functions: The name of a closure -> Julia, such as "flatten" or "x -> maxpool(x, (2, 2))".
        name: The file, for messages.

    Raises:
        UsageError: There is no closure of a name, or what is given for it is not understood.
    """
    from diptych.formats.julia_source.functions_given import function_of

    found = [closure.type.name for closure, _, _ in _closures(list(values.values()))]
    for given in functions:
        if given not in found:
            known = ", ".join(dict.fromkeys(found)) or "none"
            raise UsageError(f"{name} has no function {given[:60]!r} without code; those it has: {known}")
    table = {closure: function_of(text) for closure, text in functions.items()}
    return {key: _replaced(value, table, {}, 0) for key, value in values.items()}


def _replaced(value: Any, table: Mapping[str, Any], done: dict[int, Any], depth: int) -> Any:
    if depth > _DEEPEST:
        return value
    if isinstance(value, JuliaStruct):
        if lacks_code(value):
            return table.get(value.type.name, value)
        if id(value) not in done and value.type.definition is None:
            done[id(value)] = value
            value.fields[:] = [_replaced(field, table, done, depth + 1) for field in value.fields]
        return value
    if isinstance(value, NamedTuple):
        return NamedTuple(value.names, [_replaced(v, table, done, depth + 1) for v in value], value.type)
    if isinstance(value, (tuple, list)):
        return type(value)(_replaced(v, table, done, depth + 1) for v in value)
    return value


def unknown_closures(value: Any) -> str:
    """A clause that lists the closures without code, with the layers around each and what it may be; "" for none."""
    found = _closures([value])
    if not found:
        return ""
    listed = "; ".join(
        f"{c.type.name} {where}, perhaps {' or '.join(guesses)}" for c, where, guesses in found[:_MOST]
    )
    closure, _, guesses = found[0]
    return (
        f"the functions without code are: {listed}; say what each computes, such as "
        f"--function '{closure.type.name}={guesses[0]}', or give the source that defined them with "
        "--architecture model.jl"
    )


Neighbour = JuliaStruct | None


def _closures(values: list[Any]) -> list[tuple[JuliaStruct, str, tuple[str, ...]]]:
    """The closures without code in order, each with where it is and the likeliest meanings."""
    found: list[tuple[JuliaStruct, str, tuple[str, ...]]] = []
    met: set[int] = set()

    def visit(value: Any, where: str, guesses: tuple[str, ...], depth: int) -> None:
        if depth > _DEEPEST or len(found) > 1000:
            return
        if isinstance(value, JuliaStruct) and id(value) not in met:
            met.add(id(value))
            if lacks_code(value):
                found.append((value, where, guesses))
            elif value.type.definition is None:
                joins = value.type.name in ("SkipConnection", "Parallel")
                inside = "that joins the branches of" if joins else "that is the activation of"
                likely = (
                    ("(a, b) -> cat(a, b, dims=3)", "+") if joins else ("relu", "x -> leakyrelu(x, 0.2f0)")
                )
                for field in value.fields:
                    visit(field, f"{inside} {_short(value)}", likely, depth + 1)
        elif isinstance(value, (tuple, list)):
            for number, item in enumerate(value):
                around = [value[i] if 0 <= i < len(value) else None for i in (number - 1, number + 1)]
                left, right = (n if isinstance(n, JuliaStruct) else None for n in around)
                visit(item, f"between {_short(left)} and {_short(right)}", _guesses(left, right), depth + 1)

    for value in values:
        visit(value, "by itself", ("identity",), 0)
    return found


def _short(layer: Neighbour) -> str:
    if layer is None:
        return "nothing"
    weight = next((array for f in layer.fields if (array := _array(f)) is not None), None)
    sizes = f" {'×'.join(map(str, weight.shape))}" if weight is not None else ""
    return f"{layer.type.name.lstrip('#')}{sizes}"


def _array(value: Any) -> Any:
    try:
        array = as_array(value) if not isinstance(value, (tuple, list, str)) else None
    except FormatError:  # an array that stayed on a GPU
        return None
    return array if array is not None and array.ndim > 1 else None


def _guesses(before: Neighbour, after: Neighbour) -> tuple[str, ...]:
    """The likeliest meanings, by the kinds and sizes of the layers around."""
    spatial = before is not None and before.type.name in _SPATIAL
    if spatial and after is not None and after.type.name == "Dense":
        weight = next((array for f in after.fields if (array := _array(f)) is not None), None)
        kernel = next(
            (array for f in (before.fields if before else ()) if (array := _array(f)) is not None), None
        )
        channels = kernel.shape[-1] if kernel is not None else None
        if weight is not None and weight.shape[1] == channels:
            return "x -> dropdims(mean(x, dims=(1, 2)), dims=(1, 2))", "flatten"
        return ("flatten",)
    if after is None:
        return "softmax", "x -> σ.(x)"
    return ("x -> maxpool(x, (2, 2))", "x -> relu.(x)") if spatial else ("x -> relu.(x)", "flatten")
