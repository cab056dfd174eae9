"""How containers become structs of Flux: chains, skip connections and parallel branches.

Concatenating along a later axis would need an anonymous function, because Julia's `cat` takes the axis as a keyword.
Instead, the axes of each branch are permuted so that the joined axis is first, `vcat` joins them, and the result is
permuted back: `Chain(SkipConnection(f, Parallel(vcat, p, p)), q)`, where p and q are `Base.Fix2(permutedims, order)`.
"""

from __future__ import annotations

from typing import Any

from diptych.formats.flux.functions import FUNCTION_FIELDS, function
from diptych.formats.flux.structs import FluxSite, LayerRule, fix, kind_of
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.model.layers import Chain, Connection, Graph, Layer, Parallel, SkipConnection

__all__ = ["CONTAINERS", "USE_A_PROJECT", "moved", "permutation", "there_and_back"]

USE_A_PROJECT = "a Julia project can: diptych convert MODEL FOLDER/"


def moved(s: FluxSite, axis: int, rank: int | None) -> int:
    """The number, from 1, of one of our axes in Julia's order: -1 gives 1.

    Raises `UnsupportedLayer` if that depends on the rank and the rank is not known.
    """
    if axis < 0:
        return -axis
    if rank is None:
        raise s.refuse("it must know the number of axes; set model.input_shape")
    return rank - axis


def there_and_back(s: FluxSite, axis: int, rank: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The permutation that puts an axis, numbered as in Julia, first, and its inverse."""
    if rank is None or not 1 <= axis <= rank:
        raise s.refuse("it must know the number of axes; set model.input_shape")
    there = (axis, *(n for n in range(1, rank + 1) if n != axis))
    return there, tuple(there.index(n) + 1 for n in range(1, rank + 1))


def permutation(order: tuple[int, ...]) -> JuliaStruct:
    """`Base.Fix2(permutedims, order)`."""
    return fix("Fix2", function("Base", "permutedims"), order)


def _chain(s: FluxSite, layer: Chain) -> JuliaStruct:
    parts = tuple(s.builder.layer(child, s.child(i)) for i, child in enumerate(layer.layers))
    if not parts:  # which Flux 0.13 and later evaluate to `nothing`
        same = function("Base", "identity")
        return same if s.path else s.struct("Chain", layers=(same,))
    if layer.names and s.version >= (0, 12, 7):
        return s.struct("Chain", layers=NamedTuple(layer.names, parts))
    if s.hints.get("container") == "vector" and s.version >= (0, 13):
        return s.struct("Chain", layers=list(parts), **{"layers type": _vector_of(parts)})
    return s.struct("Chain", layers=parts)


def _vector_of(parts: tuple[JuliaStruct, ...]) -> JuliaType:
    """The type that Julia gives to `[parts...]`, if the parts are of one type or are all Dense; else Vector{Any}."""
    kinds = [kind_of(part) for part in parts]
    element: Any = JuliaType(("Core", "Any"))
    if kinds and len({str(kind) for kind in kinds}) == 1:
        element = kinds[0]
    elif kinds and all(kind.path == ("Flux", "Dense") for kind in kinds):
        rest = [str(kind.parameters[1:]) for kind in kinds]
        if len(set(rest)) == 1:
            bottom, top = JuliaType(("Core", "Union")), JuliaType(("Core", "Any"))
            variable = JuliaStruct(JuliaType(("Core", "TypeVar")), [Symbol("F"), bottom, top])
            body = JuliaType(("Flux", "Dense"), (variable, *kinds[0].parameters[1:]))
            element = JuliaStruct(JuliaType(("Core", "UnionAll")), [variable, body])
    return JuliaType(("Core", "Array"), (element, 1))


def _join(s: FluxSite, connection: Connection, count: int) -> JuliaStruct | None:
    """A named function that joins `count` arrays, or None if only a permutation makes the concatenation possible."""
    if s.builder.state:
        return s.held("connection")
    dotted = {"multiply": "*", "divide": "/", "maximum": "max", "minimum": "min"}
    if connection.operation == "add":
        return function("Base", "+")
    if connection.operation == "where":
        raise s.refuse("it has no named function that chooses by a condition; " + USE_A_PROJECT)
    if connection.operation == "matmul":
        raise s.refuse("it has no named function that multiplies matrices of whole batches; " + USE_A_PROJECT)
    if connection.operation in ("subtract", "divide") and count != 2 and s.version >= (0, 13):
        raise s.refuse(f"its function {dotted.get(connection.operation, '-')} takes two branches only")
    if connection.operation == "subtract":
        return function("Base", "-")
    if connection.operation in dotted:
        if s.version < (0, 12, 4):
            raise s.refuse(
                f"its Julia may lack BroadcastFunction for {dotted[connection.operation]}; write for 0.12.4"
            )
        inner = function("Base", dotted[connection.operation])
        kind = JuliaType(("Base", "Broadcast", "BroadcastFunction"), (kind_of(inner),))
        return JuliaStruct(kind, [inner], FUNCTION_FIELDS["BroadcastFunction"])
    axis = moved(s, connection.axis, s.joined_rank)
    return function("Base", ("vcat", "hcat")[axis - 1]) if axis in (1, 2) else None


def _skip(s: FluxSite, layer: SkipConnection) -> JuliaStruct:
    inner = s.builder.layer(layer.inner, s.child(0))
    join = _join(s, layer.connection, 2)
    if join is not None:
        return s.struct("SkipConnection", layers=inner, connection=join)
    rank = s.joined_rank
    there, back = there_and_back(s, moved(s, layer.connection.axis, rank), rank)
    skip = s.struct("SkipConnection", layers=inner, connection=_stacked(s, there, 2))
    return s.chain(skip, permutation(back))


def _stacked(s: FluxSite, order: tuple[int, ...], count: int) -> JuliaStruct:
    """`Parallel(vcat, p, p, ...)`, which permutes and joins as many arrays as it has branches."""
    branches = tuple(permutation(order) for _ in range(count))
    return s.struct("Parallel", connection=function("Base", "vcat"), layers=branches)


def _parallel(s: FluxSite, layer: Parallel) -> JuliaStruct:
    parts = tuple(s.builder.layer(branch, s.child(i)) for i, branch in enumerate(layer.branches))
    if layer.connection.operation == "maximum":
        return s.struct("Maxout", layers=parts)
    join = _join(s, layer.connection, len(parts))
    if join is not None:
        return s.struct("Parallel", connection=join, layers=_named(s, parts))
    rank = s.joined_rank
    there, back = there_and_back(s, moved(s, layer.connection.axis, rank), rank)
    if s.version < (0, 13) and len(parts) != 2:  # 0.12 joins two at a time, so each branch permutes itself
        moving = tuple(s.chain(part, permutation(there)) for part in parts)
        joined = s.struct("Parallel", connection=function("Base", "vcat"), layers=moving)
    else:
        stacked = _stacked(s, there, len(parts))
        joined = s.struct("Parallel", connection=stacked, layers=_named(s, parts))
    return s.chain(joined, permutation(back))


def _named(s: FluxSite, parts: tuple[JuliaStruct, ...]) -> tuple[JuliaStruct, ...]:
    names = s.hints.get("names")
    if isinstance(names, list) and len(names) == len(parts) and s.version >= (0, 13):
        return NamedTuple(names, parts)
    return parts


def _graph(s: FluxSite, layer: Graph) -> JuliaStruct:
    raise s.refuse("Flux's containers hold trees of layers only; " + USE_A_PROJECT)


def _one_value(s: FluxSite, layer: Connection) -> JuliaStruct:
    return function("Base", "identity")  # outside of a graph it has one value to join


CONTAINERS: dict[type[Layer], LayerRule] = {
    Chain: _chain,
    SkipConnection: _skip,
    Parallel: _parallel,
    Graph: _graph,
    Connection: _one_value,
}
