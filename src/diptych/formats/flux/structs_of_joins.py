"""How arrays are joined and their axes moved, by functions of Julia that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diptych.formats.flux.functions import function
from diptych.formats.flux.structs import FluxSite, fix
from diptych.formats.julia import JuliaStruct, JuliaType
from diptych.model.layers import Connection, Shape

__all__ = [
    "USE_A_PROJECT",
    "Joining",
    "join_of",
    "joining",
    "moved",
    "permutation",
    "reshaped",
    "there_and_back",
]

USE_A_PROJECT = "a Julia project can: diptych convert MODEL FOLDER/"


def moved(s: FluxSite, axis: int, rank: int | None) -> int:
    """The number, from 1, of one of our axes in Julia's order: -1 gives 1.

    Raises `UnsupportedLayer` if that depends on the rank and the rank is not known.
    """
    if axis < 0:
        return -axis
    if rank is None:
        raise s.refuse("it must know the number of axes; give --shape (model.input_shape)")
    return rank - axis


def there_and_back(s: FluxSite, axis: int, rank: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The permutation that puts an axis, numbered as in Julia, first, and its inverse."""
    if rank is None or not 1 <= axis <= rank:
        raise s.refuse("it must know the number of axes; give --shape (model.input_shape)")
    there = (axis, *(n for n in range(1, rank + 1) if n != axis))
    return there, tuple(there.index(n) + 1 for n in range(1, rank + 1))


def permutation(order: tuple[int, ...]) -> JuliaStruct:
    """`Base.Fix2(permutedims, order)`."""
    return fix("Fix2", function("Base", "permutedims"), order)


def reshaped(shape: tuple[int, ...]) -> JuliaStruct:
    """`Base.Fix2(reshape, (…, :))` for one of our shapes without the batch."""
    colon = JuliaStruct(JuliaType(("Base", "Colon")))
    return fix("Fix2", function("Base", "reshape"), (*reversed(shape), colon))


_FUNCTIONS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "maximum": "max",
    "minimum": "min",
}


def join_of(
    s: FluxSite, connection: Connection, count: int, shapes: Sequence[Shape | None] = ()
) -> JuliaStruct | None:
    """A named function that joins `count` arrays, or None if only a permutation makes the concatenation possible.

    Arrays of different `shapes` are added with a dot, as Julia's own + and - take equal ones.
    """
    if s.builder.state:
        return s.held("connection")
    if connection.operation == "where":
        raise s.refuse(f"it has no named function that chooses by a condition; {USE_A_PROJECT}")
    if connection.operation in _FUNCTIONS:
        name = _FUNCTIONS[connection.operation]
        if name in "-/" and count != 2 and s.version >= (0, 13):
            raise s.refuse(f"its function {name} takes two branches only")
        if name in "+-" and len({shape for shape in shapes if shape is not None}) < 2:
            return function("Base", name)
        return s.dotted(name)
    axis = moved(s, connection.axis, s.joined_rank)
    return function("Base", ("vcat", "hcat")[axis - 1]) if axis in (1, 2) else None


@dataclass(frozen=True)
class Joining:
    """A named function that joins two arrays, with what is done to each before and to the result; perhaps swapped."""

    operation: JuliaStruct
    before: tuple[list[JuliaStruct], list[JuliaStruct]]
    after: tuple[JuliaStruct, ...] = ()
    swapped: bool = False


def joining(s: FluxSite, connection: Connection, shapes: Sequence[Shape | None]) -> Joining:
    """How two arrays are joined."""
    if connection.operation == "matmul":
        return _matmul(s, connection, shapes)
    if connection.operation != "concatenate":
        named = join_of(s, connection, 2, shapes)
        assert named is not None
        return Joining(named, ([], []))
    rank = next((len(shape) for shape in shapes if shape is not None), s.rank)
    if rank is None and connection.axis > 0:
        raise s.refuse("it must know the number of axes; give --shape (model.input_shape)")
    axis = -connection.axis if rank is None else rank - connection.axis % rank
    if axis in (1, 2):
        return Joining(function("Base", ("vcat", "hcat")[axis - 1]), ([], []))
    there, back = there_and_back(s, axis, rank)
    moves = permutation(there)
    return Joining(function("Base", "vcat"), ([moves], [moves]), (permutation(back),))


def _matmul(s: FluxSite, connection: Connection, shapes: Sequence[Shape | None]) -> Joining:
    """`batched_mul` of three axes; others are merged with the batch before and taken apart behind."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < 2:
        raise s.refuse("it must know the sizes of the matrices; give --shape (model.input_shape)")
    operation = function("NNlib", "batched_mul")
    a, b = known
    if len(a) == 3:
        return Joining(operation, ([], []), swapped=True)
    if a[1:-2] != b[1:-2]:
        raise s.refuse(f"its batched_mul does not repeat matrices along other axes; {USE_A_PROJECT}")
    result = connection.joined_shape(known)
    before = ([reshaped(a[-2:])], [reshaped(b[-2:])])
    return Joining(operation, before, (reshaped(result[1:]),), swapped=True)
