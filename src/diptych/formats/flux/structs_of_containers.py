"""How containers become structs of Flux: chains, skip connections and parallel branches.

Concatenating along a later axis would need an anonymous function, because Julia's `cat` takes the axis as a keyword.
Instead, the axes of each branch are permuted so that the joined axis is first, `vcat` joins them, and the result is
permuted back: `Chain(SkipConnection(f, Parallel(vcat, p, p)), q)`, where p and q are `Base.Fix2(permutedims, order)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, LayerRule, kind_of
from diptych.formats.flux.structs_of_joins import join_of, joining, moved, permutation, there_and_back
from diptych.formats.julia import JuliaStruct, JuliaType, NamedTuple, Symbol
from diptych.model.layers import Activation, Chain, Connection, Layer, Parallel, Shape, SkipConnection

__all__ = ["CONTAINERS"]


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


def _skip(s: FluxSite, layer: SkipConnection) -> JuliaStruct:
    inner = s.builder.layer(layer.inner, s.child(0))
    if layer.connection.operation == "matmul":
        return _products(
            s, layer.connection, (layer.inner, Activation()), (inner, function("Base", "identity"))
        )
    join = join_of(s, layer.connection, 2, _shapes(s, (layer.inner, Activation())))
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
    if layer.connection.operation == "matmul":
        return _products(s, layer.connection, layer.branches, parts)
    if layer.connection.operation == "maximum":
        return s.struct("Maxout", layers=parts)
    join = join_of(s, layer.connection, len(parts), _shapes(s, layer.branches))
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


def _shapes(s: FluxSite, branches: Sequence[Layer]) -> list[Shape | None]:
    """The shapes that branches give, None where that of their input is not known."""
    entry = s.builder.shapes.get(s.path)
    return [None if entry is None else branch.output_shape(entry) for branch in branches]


def _products(
    s: FluxSite, connection: Connection, branches: tuple[Layer, ...], parts: tuple[JuliaStruct, ...]
) -> JuliaStruct:
    """The matrix product of two branches."""
    if len(parts) != 2:
        raise s.refuse("it multiplies two matrices at a time; write a Julia project")
    how = joining(s, connection, _shapes(s, branches))
    moved = [s.chain(part, *moves) for part, moves in zip(parts, how.before, strict=True)]
    layers = tuple(reversed(moved)) if how.swapped else tuple(moved)
    return s.chain(s.struct("Parallel", connection=how.operation, layers=layers), *how.after)


def _named(s: FluxSite, parts: tuple[JuliaStruct, ...]) -> tuple[JuliaStruct, ...]:
    names = s.hints.get("names")
    if isinstance(names, list) and len(names) == len(parts) and s.version >= (0, 13):
        return NamedTuple(names, parts)
    return parts


def _one_value(s: FluxSite, layer: Connection) -> JuliaStruct:
    return function("Base", "identity")  # outside of a graph it has one value to join


CONTAINERS: dict[type[Layer], LayerRule] = {
    Chain: _chain,
    SkipConnection: _skip,
    Parallel: _parallel,
    Connection: _one_value,
}
