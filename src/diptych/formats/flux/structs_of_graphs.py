"""How a `Graph` becomes containers of Flux, without any anonymous function.

Flux's containers hold trees. The values of a graph are therefore carried along as nested pairs: behind the k-th node
stands `(value k, (value k-1, ... (value 1, input)))`, made by `SkipConnection(node, tuple)`. A node takes its input
with `Base.Fix2(getindex, 2)` as often as there are newer values, then `Base.Fix2(getindex, 1)`; two are joined by
`SkipConnection(first, Parallel(operation, identity, second))`, where `second` takes the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, fix
from diptych.formats.flux.structs_of_joins import USE_A_PROJECT, joining
from diptych.formats.julia import JuliaStruct
from diptych.model.layers import Connection, Graph, Shape

__all__ = ["graph"]

_MOST = 120  # values that are carried along: nested types slow Julia's compiler down


def graph(s: FluxSite, layer: Graph) -> JuliaStruct:
    """The Chain of a graph, for Flux 0.13 and later."""
    if s.version < (0, 13):
        raise s.refuse(
            f"its Parallel takes arrays only, not the values of a graph; write for 0.13, or {USE_A_PROJECT}"
        )
    if len(layer.layers) > _MOST:
        raise s.refuse(f"it would nest {len(layer.layers)} values in each other; {USE_A_PROJECT}")
    shapes: dict[str, Shape | None] = {Graph.INPUT: s.builder.shapes.get(s.path)}
    known = [Graph.INPUT]
    parts: list[JuliaStruct] = []
    for index, (node, name, inputs) in enumerate(zip(layer.layers, layer.names, layer.inputs, strict=True)):
        given = [shapes[each] for each in inputs]
        if isinstance(node, Connection):
            value = _joined(s, node, [_taken(known, each) for each in inputs], given)
        else:
            value = s.chain(*_taken(known, inputs[0]), s.builder.layer(node, s.child(index)))
        shapes[name] = _shape_behind(node, given)
        known.append(name)
        last = index == len(layer.layers) - 1 and layer.outputs[0] == name
        parts.append(
            value if last else s.struct("SkipConnection", layers=value, connection=function("Core", "tuple"))
        )
    if layer.outputs[0] != known[-1]:
        parts += _taken(known, layer.outputs[0])
    return s.struct("Chain", layers=tuple(parts))


def _shape_behind(node: object, given: Sequence[Shape | None]) -> Shape | None:
    shapes = [shape for shape in given if shape is not None]
    if len(shapes) < len(given):
        return None
    if isinstance(node, Connection):
        return node.joined_shape(shapes)
    return node.output_shape(shapes[0])  # type: ignore[attr-defined, no-any-return]


def _taken(known: Sequence[str], name: str) -> list[JuliaStruct]:
    """The functions that take a value out of the pairs."""
    older = len(known) - 1 - known.index(name)
    steps = [2] * older + ([1] if name != known[0] else [])
    return [fix("Fix2", function("Base", "getindex"), number) for number in steps]


def _joined(
    s: FluxSite, connection: Connection, taken: Sequence[list[JuliaStruct]], shapes: Sequence[Shape | None]
) -> JuliaStruct:
    if len(taken) == 1:
        return s.chain(*taken[0]) if taken[0] else function("Base", "identity")
    value: list[JuliaStruct] = list(taken[0])
    shape = shapes[0]
    for other, other_shape in zip(taken[1:], shapes[1:], strict=True):
        how = joining(s, connection, [shape, other_shape])
        pairs = [(value, how.before[0]), (list(other), how.before[1])]
        if how.swapped:
            pairs.reverse()
        (first, first_moves), (second, second_moves) = pairs
        joint = s.struct(
            "Parallel",
            connection=how.operation,
            layers=(_one(s, first_moves), _one(s, [*second, *second_moves])),
        )
        skip = s.struct("SkipConnection", layers=_one(s, first), connection=joint)
        value = [s.chain(skip, *how.after)]
        shape = (
            None if shape is None or other_shape is None else connection.joined_shape([shape, other_shape])
        )
    return value[0]


def _one(s: FluxSite, parts: Sequence[JuliaStruct]) -> JuliaStruct:
    return s.chain(*parts) if parts else function("Base", "identity")
